"""The wall clock of this program's children, moved in steps by libfaketime; the others go on.

libfaketime reads the offset from a file each time that somebody asks for the time. Its
`clock_nanosleep` is broken where it leaves the monotonic clock alone
(https://github.com/wolfcw/libfaketime/issues/426), so a child sleeps by `sleep_otherwise`.
"""

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import NamedTuple, SupportsIndex, TypeVar

from kvsync.clock import SystemClock
from stress.stage import Skipped

_LIBRARY = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")


_HISTORY = "wall-history"

T = TypeVar("T")

boot = SystemClock.boot


class Wall:
    """Children that are started inside of `given` live by this clock."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / "wall"
        self._history = Path(folder) / _HISTORY
        self.set(0.0)

    @contextmanager
    def given(self) -> Iterator[None]:
        """Raises: Skipped without libfaketime."""
        before = dict(os.environ)
        os.environ |= {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before

    def set(self, offset: float) -> None:
        """Have the clock show so many seconds more than it should, from one moment to the next."""
        with self._history.open("a") as history:
            print(offset, file=history, flush=True)
            aside = self._path.with_suffix(".new")
            aside.write_text(f"{offset:+f}\n")
            aside.replace(self._path)  # no child finds it half written
            print(offset, file=history, flush=True)


def _library() -> str:
    for pattern in _LIBRARY:
        for path in glob(pattern):
            return path
    raise Skipped("libfaketime is not installed")


def sleep_otherwise() -> None:
    """In a child: have `time.sleep` wait by another system call."""

    def sleep(seconds: SupportsIndex | float) -> None:
        select.select([], [], [], float(seconds))

    time.sleep = sleep


class Steps:
    """What a child can know of the clock's steps."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / _HISTORY

    def so_far(self) -> list[float] | None:
        """All offsets up to the one in force; None while it is being changed."""
        lines = self._path.read_text().split("\n")
        if len(lines) % 2:  # each step is noted when it begins, and when it has been made
            return [float(line) for line in lines[:-1:2]]
        return None

    def now(self) -> "Moment | None":
        offsets = self.so_far()
        return Moment(boot(), offsets) if offsets else None

    def during(self, call: Callable[[], T]) -> "tuple[Moment | None, T]":
        """What `call` returned, and when; None for that if the clock was moved meanwhile."""
        before = self.now()
        result = call()
        after = self.now()
        if before is None or after is None or before.offsets != after.offsets:
            return None, result
        return after, result


class Moment(NamedTuple):
    """By the boot clock; `offsets` are those of the wall clock from it, up to that moment."""

    boot: float
    offsets: list[float]

    @property
    def wall(self) -> float:
        return self.boot + self.offsets[-1]

    def latest_since(self, earlier: "Moment") -> float:
        """The latest that the wall clock can have shown since that moment."""
        return self.boot + max(self.offsets[len(earlier.offsets) - 1 :])

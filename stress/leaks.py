"""Whether a process that lives through a run needs more and more of anything, and the log too.

A need has grown without bound if, after the first quarter of the run, which is for warming up, it
rose from each quarter to the next, and was in all of the last one above all of the second by more
than `SLACK`. The `-wal` has a bound of its own at all times.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from statistics import median
from typing import NamedTuple

import psutil

WAL_LIMIT = 16_000_000
"""Bytes."""

ENOUGH = 16
"""Samples; fewer tell nothing."""

_MOST = 512


class Needs(NamedTuple):
    """What a process has at one moment."""

    descriptors: int
    threads: int
    bytes: int


SLACK = Needs(descriptors=16, threads=4, bytes=32 << 20)


def growth(samples: Sequence[Needs]) -> Iterator[str]:
    """What grew without bound, by how much."""
    if len(samples) >= ENOUGH:
        for name, slack, values in zip(
            Needs._fields, SLACK, zip(*samples, strict=True), strict=True
        ):
            if (grown := _grown(values)) > slack:
                yield f"{name} grew by {grown:,} or more from {values[0]:,} at the start"


def _grown(values: Sequence[int]) -> int:
    quarter = len(values) // 4
    second, third, last = (values[n * quarter : (n + 1) * quarter] for n in (1, 2, 3))
    rises = median(second) < median(third) < median(last)
    return min(last) - max(second) if rises else 0


class Watch:
    """Looks at one process, and at the log, now and then: seldom enough to cost nothing."""

    def __init__(self, wal: str, interval: float = 0.02) -> None:
        self.samples: list[Needs] = []
        self.largest_wal = 0
        self._wal = wal
        self._process: psutil.Process | None = None
        self._measure: Callable[[psutil.Process], int] = _own
        self._interval = interval
        self._next = 0.0

    def look(self, pid: int) -> None:
        """If it is time; another process than before begins anew."""
        with suppress(FileNotFoundError):
            self.largest_wal = max(self.largest_wal, os.stat(self._wal).st_size)
        if time.monotonic() >= self._next:
            with suppress(psutil.Error):  # it is just being killed
                self._sample(pid)
            self._next = time.monotonic() + self._interval

    def _sample(self, pid: int) -> None:
        if self._process is None or self._process.pid != pid:
            self._process, self.samples = psutil.Process(pid), []
        self.samples.append(self._needs(self._process))
        if len(self.samples) >= _MOST:
            self.samples = self.samples[::2]
            self._interval *= 2

    def _needs(self, process: psutil.Process) -> Needs:
        with process.oneshot():
            try:
                memory = self._measure(process)
            except psutil.AccessDenied:
                self._measure = _with_shared
                memory = self._measure(process)
            return Needs(process.num_fds(), process.num_threads(), memory)

    def flaws(self) -> list[str]:
        """What was wrong so far."""
        flaws = [f"of a process that lived long, {each}" for each in growth(self.samples)]
        if self.largest_wal >= WAL_LIMIT:
            flaws.append(f"the -wal grew to {self.largest_wal:,} bytes")
        return flaws

    def doubts(self) -> list[str]:
        """Why no flaw is no proof."""
        seen = len(self.samples)
        few = f"too few samples to judge leaks: {seen}, where {ENOUGH} are enough"
        return [few] if seen < ENOUGH else []

    def figures(self) -> dict[str, float]:
        """The most of each that there was."""
        if not self.samples:
            return {}
        most = Needs(*map(max, zip(*self.samples, strict=True)))
        return {
            "descriptors": most.descriptors,
            "threads": most.threads,
            "MB": round(most.bytes / 1e6, 1),
            "WAL MB": round(self.largest_wal / 1e6, 1),
        }


def _own(process: psutil.Process) -> int:
    return int(process.memory_full_info().uss)


def _with_shared(process: psutil.Process) -> int:
    return int(process.memory_info().rss)

"""When histories are recorded: short windows, evenly spread over a run.

All workers read the same clock, so that all agree, without a word, on the window that is open. In
it they work on objects of its own, which nobody touched before: so each history begins with the
initial state, has no gap, and is no longer than a search can take.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from stress.history import History, Recorder, Recording, Unrecorded, now, read

LENGTH = 50_000_000
"""Ns for which a window is open at the most."""

SHORTEST = 1_000_000
"""Ns from one window to the next, at the least: in less than that hardly a call is made."""

CLIENTS = 8
"""How many share an object in a window, about: new ones are dealt out like those they replace."""


def most(seconds: float) -> int:
    """Windows that so much time has room for, and one at the least."""
    return max(1, int(seconds * 1e9) // SHORTEST)


@dataclass(frozen=True)
class Windows:
    """`count` windows, each at the head of a `period` of ns; it travels to the workers.

    The first one opens when `begin` is called, wherever: a file tells all workers.
    """

    folder: str
    period: int
    count: int
    clients: int

    def begin(self) -> None:
        """The run begins, unless it has already."""
        os.makedirs(self.folder, exist_ok=True)
        with suppress(FileExistsError):
            os.symlink(str(now()), self._mark)

    @property
    def _mark(self) -> str:
        return os.path.join(self.folder, "began")

    @cached_property
    def _began(self) -> int:
        return int(os.readlink(self._mark))

    def open(self) -> int | None:
        """The number of the window that is open now, if one is."""
        try:
            began = self._began  # before the clock is read: else it may lie ahead
        except FileNotFoundError:
            return None
        number, since = divmod(now() - began, self.period)
        return number if number < self.count and since < LENGTH else None

    def due(self, moment: int) -> int:
        """How many had been open for all of their time by then."""
        try:
            since = moment - self._began
        except FileNotFoundError:
            return 0
        over = 1 + (since - min(LENGTH, self.period)) // self.period
        return max(0, min(self.count, over))

    def place(self, number: int) -> str:
        return os.path.join(self.folder, f"window-{number}")

    def group(self, client: int) -> int:
        return client % -(-self.clients // CLIENTS)

    def recorder(self, ending: str, client: int) -> Recorder | Unrecorded:
        """For what is done, after its window, to an object whose name ends so."""
        return Recorder(self.place(int(ending.split("-")[1])), client) if ending else Unrecorded()

    def histories(self) -> Iterator[tuple[str, History]]:
        """What was recorded, one key of one window after the other."""
        for place in sorted(Path(self.folder).glob("window-*")):
            yield from read(str(place)).items()


class Scribe:
    """What one worker records: a file in each window in which it does anything."""

    def __init__(self, windows: Windows, client: int) -> None:
        self._windows = windows
        self._client = client
        self._number: int | None = None
        self._recording: Recorder | Unrecorded = Unrecorded()

    def window(self) -> tuple[str, Recording]:
        """How the names of the objects end that are to be used now, and where to call them.

        Whoever holds anything must free it before asking again.
        """
        number = self._windows.open()
        if number != self._number:
            self._recording.close()
            self._number, self._recording = number, self._new(number)
        return self._ending(), self._recording

    def _new(self, number: int | None) -> Recorder | Unrecorded:
        if number is None:
            return Unrecorded()
        return Recorder(self._windows.place(number), self._client)

    def _ending(self) -> str:
        if self._number is None:
            return ""
        return f"-{self._number}-{self._windows.group(self._client)}"

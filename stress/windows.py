"""When histories are recorded: short windows, evenly spread over a run, and long spans of them.

All workers read the same clock, so that all agree, without a word, on the window that is open. In
it they work on objects of its own, which nobody touched before: so each history begins with the
initial state, has no gap, and is no longer than a search can take.

Between the windows of a span they work on an object of that span, if the scenario has checkers
that need no search. What they do meanwhile in the windows is no gap in its history, for that is
done to others.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from stress.history import History, Recorder, Recording, Unrecorded, now, read

LENGTH = 50_000_000
"""Ns for which a window is open at the most."""

SHORTEST = 1_000_000
"""Ns from one window to the next, at the least: in less than that hardly a call is made."""

SPAN = 20
"""Windows between which one long history is recorded."""

LONGEST = 10_000_000_000
"""Ns from the beginning of a span for which that is done at the most: some ten thousand calls, so
that a checker has room for all of them, and the disk for those of a long run."""

CLIENTS = 8
"""How many share an object in a window, about: new ones are dealt out like those they replace."""

_SHORT, _LONG = "window-", "long-"


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
    long: bool = False
    """Whether long histories are recorded too."""

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

    def _since(self, moment: Callable[[], int]) -> int:
        """Ns from the beginning of the run; less than 0 if it has not begun."""
        try:
            began = self._began  # before the clock is read: else it may lie ahead
        except FileNotFoundError:
            return -1
        return moment() - began

    def open(self) -> int | None:
        """The number of the window that is open now, if one is."""
        number, since = divmod(self._since(now), self.period)
        return number if 0 <= number < self.count and since < LENGTH else None

    def span(self) -> int | None:
        """The number of the span whose long history is recorded now, but in its windows."""
        since = self._since(now)
        number, within = divmod(since, self._span)
        lasts = 0 <= since < self.count * self.period and within < LONGEST
        return number if lasts and self._has_room else None

    @property
    def _span(self) -> int:
        return SPAN * self.period

    @property
    def _has_room(self) -> bool:
        """Whether as much time is between the windows as in them."""
        return self.long and self.period >= 2 * LENGTH

    def due(self, moment: int) -> int:
        """How many had been open for all of their time by then."""
        since = self._since(lambda: moment)
        over = 1 + (since - min(LENGTH, self.period)) // self.period
        return max(0, min(self.count, over))

    def due_long(self, moment: int) -> int:
        """Ns for which the long histories were to be recorded whose spans were over by then."""
        over = min(self._since(lambda: moment), self.count * self.period) // self._span
        return max(0, over) * min(self._span, LONGEST) * self._has_room

    def place(self, number: int) -> str:
        return os.path.join(self.folder, f"{_SHORT}{number}")

    def place_long(self, span: int) -> str:
        return os.path.join(self.folder, f"{_LONG}{span}")

    def group(self, client: int) -> int:
        return client % -(-self.clients // CLIENTS)

    def recorder(self, ending: str, client: int) -> Recorder | Unrecorded:
        """For what is done, after its time, to an object whose name ends so."""
        if not ending:
            return Unrecorded()
        first, second = ending.split("-")[1:]
        place = self.place_long(int(second)) if is_long(ending) else self.place(int(first))
        return Recorder(place, client)

    def histories(self) -> Iterator[tuple[str, History]]:
        """What was recorded in the windows, one key of one window after the other."""
        return self._read(_SHORT)

    def long_histories(self) -> Iterator[tuple[str, History]]:
        """What was recorded between them; one of these at a time is as much as one can hold."""
        return self._read(_LONG)

    def _read(self, prefix: str) -> Iterator[tuple[str, History]]:
        for place in sorted(Path(self.folder).glob(f"{prefix}*")):
            yield from read(str(place)).items()


def is_long(ending: str) -> bool:
    """Whether objects whose names end so are those of a span."""
    return ending.startswith(f"-{_LONG}")


class Scribe:
    """What one worker records: a file in each window, and in each span, in which it works."""

    def __init__(self, windows: Windows, client: int) -> None:
        self._windows = windows
        self._client = client
        self._short, self._long = _File(client), _File(client)

    def window(self) -> tuple[str, Recording]:
        """How the names of the objects end that are to be used now, and where to call them.

        Whoever holds anything must free it before asking again.
        """
        windows = self._windows
        number, span = windows.open(), windows.span()
        short = self._short.at(None if number is None else windows.place(number))
        long = self._long.at(None if span is None else windows.place_long(span))
        if number is not None:
            return f"-{number}-{windows.group(self._client)}", short
        return ("" if span is None else f"-{_LONG}{span}"), long


class _File:
    """That of a worker in the one place where it records, at a time: it is never opened again."""

    def __init__(self, client: int) -> None:
        self._client = client
        self._place: str | None = None
        self._recording: Recorder | Unrecorded = Unrecorded()

    def at(self, place: str | None) -> Recorder | Unrecorded:
        """The one that is there, if it is to record."""
        if place != self._place:
            self._recording.close()
            self._recording = Recorder(place, self._client) if place else Unrecorded()
            self._place = place
        return self._recording

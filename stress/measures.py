"""How long calls took, how many there were in each slice of a run, and who was inside when.

However long the run is, all of these stay small: a reservoir for each operation, a bounded number
of samples, and the latest stays.
"""

import random
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise

from stress.history import History, Operation, thread_of
from stress.record import Latency, Rate, Span

QUANTILES = (0.5, 0.9, 0.99, 0.999, 1.0)
KEPT = 4_000
"""Durations, of each operation."""

SPANS = 400
SLICES = 120
_SAMPLES = 2_000

_TAKES = {"acquire": "", "try": "", "read": "read", "write": "write", "downgrade": "read"}
"""The calls that begin a stay, or go deeper into it, and on which side of a lock that has two."""

_GIVES = {"release", "downgrade"}

_NS = 1e9


class Latencies:
    """Each call that returned has the same chance to be among those that are kept."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._calls: Counter[str] = Counter()
        self._longest: dict[str, int] = defaultdict(int)
        self._kept: dict[str, list[int]] = defaultdict(list)
        self._chances: dict[str, random.Random] = {}

    def look(self, history: History) -> None:
        """At the calls whose outcome is known."""
        for operation in history:
            if operation.known and operation.returned is not None:
                self._add(operation.function, operation.returned - operation.invoked)

    def _add(self, name: str, duration: int) -> None:
        self._calls[name] += 1
        self._longest[name] = max(self._longest[name], duration)
        kept = self._kept[name]
        if len(kept) < KEPT:
            kept.append(duration)
        elif (place := self._chance(name).randrange(self._calls[name])) < KEPT:
            kept[place] = duration

    def _chance(self, name: str) -> random.Random:
        return self._chances.setdefault(name, random.Random(f"{self._seed}/{name}"))

    def told(self) -> tuple[Latency, ...]:
        """By operation."""
        return tuple(self._latency(name, sorted(kept)) for name, kept in sorted(self._kept.items()))

    def _latency(self, name: str, kept: list[int]) -> Latency:
        found = {share: kept[min(len(kept) - 1, int(share * len(kept)))] for share in QUANTILES}
        found[1.0] = self._longest[name]
        seconds = {share: duration / _NS for share, duration in found.items()}
        return Latency(name, self._calls[name], seconds)


class Throughput:
    """What was done until when."""

    def __init__(self) -> None:
        self._samples: list[tuple[int, int]] = []

    def add(self, moment: int, done: int) -> None:
        self._samples.append((moment, done))
        if len(self._samples) >= _SAMPLES:
            self._samples = self._samples[::2]

    def rate(self) -> Rate | None:
        """In slices no shorter than the samples are apart, in the mean; None of nothing."""
        if len(self._samples) < 2 or not self._samples[-1][1]:
            return None
        began, ended = self._samples[0][0], self._samples[-1][0]
        slices = min(SLICES, len(self._samples) - 1)
        edges = [began + (ended - began) * n // slices for n in range(slices + 1)]
        done = [self._until(edge) for edge in edges]
        counts = tuple(after - before for before, after in pairwise(done))
        return Rate(began, (ended - began) / slices / _NS, counts)

    def _until(self, moment: int) -> int:
        """As if it had gone on evenly between two samples."""
        place = bisect_left(self._samples, moment, key=lambda sample: sample[0])
        after, done = self._samples[place]
        if after == moment or not place:
            return done
        before, earlier = self._samples[place - 1]
        return earlier + (done - earlier) * (moment - before) // (after - before)


class Spans:
    """The latest stays of processes inside of what they acquired."""

    def __init__(self) -> None:
        self._latest: list[Span] = []

    def look(self, key: str, history: History) -> None:
        self.add(*_stays(key, history))

    def add(self, *spans: Span) -> None:
        self._latest = sorted((*self._latest, *spans), key=lambda span: span.began)[-SPANS:]

    def told(self) -> tuple[Span, ...]:
        """In the order in which they began."""
        return tuple(self._latest)


def _stays(key: str, history: History) -> Iterator[Span]:
    """From the first call that took anything until all of it is given back.

    A process that was killed inside has a stay without an end. What nobody ever gives back, such
    as the units of a rate limiter, is nothing to be inside of.
    """
    if not any(operation.function == "release" for operation in history):
        return
    inside: dict[int, Operation] = {}
    had: Counter[int] = Counter()
    for operation in history:
        who, units = operation.process, operation.argument or 1
        if who in inside and operation.function in _GIVES:
            had[who] -= units
            if had[who] <= 0:
                had[who] = 0
                yield _stay(key, inside.pop(who), operation.invoked)
        if operation.function in _TAKES and _is_granted(operation):
            had[who] += units
            inside.setdefault(who, operation)
    for operation in inside.values():
        yield _stay(key, operation, None)


def _is_granted(operation: Operation) -> bool:
    return operation.known and operation.result is not False


def _stay(key: str, acquired: Operation, ended: int | None) -> Span:
    token = acquired.result if type(acquired.result) is int else None
    assert acquired.returned is not None
    side, (process, thread) = _TAKES[acquired.function], thread_of(acquired.process)
    return Span(key, process, token, acquired.returned, ended, side=side, thread=thread)

"""Rounds in turn over all sides (A, B, C, A, B, C ...), so that a noisy minute hits them all."""

import math
import statistics
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from benchmarks.crew import Stint, merge


@dataclass(frozen=True)
class Round:
    """One side's round: calls a second, seconds of wait, and slowest/fastest worker.

    `unluckiest` is the p99 of the worker whose own p99 is the longest.
    """

    rate: float
    mean: float
    p50: float
    p99: float
    unluckiest: float
    worst: float
    share: float

    @classmethod
    def of(cls, stints: Sequence[Stint], seconds: float, weight: int = 1) -> "Round":
        """`weight`: how many operations one measured call stands for."""
        waits = merge(stints) or array("Q", [int(seconds * 1e9)])
        calls = [stint.calls for stint in stints]
        spent = [seconds if stint.seconds is None else stint.seconds for stint in stints]
        return cls(
            rate=sum(calls) * weight / (max(spent) or seconds),
            mean=sum(waits) / len(waits) / weight / 1e9,
            p50=waits[len(waits) // 2] / weight / 1e9,
            p99=_p99(waits) / weight / 1e9,
            unluckiest=max(_p99(merge([stint]) or waits) for stint in stints) / weight / 1e9,
            worst=waits[-1] / 1e9,
            share=min(calls) / max(calls) if any(calls) else 0.0,
        )


def _p99(waits: Sequence[int]) -> int:
    return waits[len(waits) * 99 // 100]


@dataclass(frozen=True)
class Spread:
    """A median and between what it lies."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def times(self, factor: float) -> "Spread":
        """The same in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Measured:
    """All rounds of one side."""

    rounds: tuple[Round, ...]

    def __getattr__(self, name: str) -> Spread:
        if name not in Round.__dataclass_fields__:
            raise AttributeError(name)
        return Spread.of([getattr(each, name) for each in self.rounds])

    @cached_property
    def worst_of_all(self) -> float:
        """The longest wait of any round, in seconds."""
        return max(each.worst for each in self.rounds)


def ratio(ours: Measured, theirs: Measured, quantity: str = "rate") -> Spread:
    """The ratio of the medians, and between what it lay from round to round."""
    pairs = [
        _over(getattr(a, quantity), getattr(b, quantity))
        for a, b in zip(ours.rounds, theirs.rounds, strict=True)
    ]
    medians = _over(getattr(ours, quantity).median, getattr(theirs, quantity).median)
    return Spread(medians, min(pairs), max(pairs))


def _over(a: float, b: float) -> float:
    return a / b if b else math.inf  # a side may complete nothing in a short round


def in_turn(sides: Mapping[str, Callable[[], Round]], rounds: int) -> dict[str, Measured]:
    """Measure each side once, then each again, `rounds` times."""
    found: dict[str, list[Round]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    return {name: Measured(tuple(each)) for name, each in found.items()}

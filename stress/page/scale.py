"""From values to places in a picture. Any values will do: equal ones, and none at all."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """`low` is at `start`, `high` at `end`; what lies outside is put at the nearer of them."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return _between(self.low, self.high, self.start, self.end, value)

    def ticks(self, wanted: int) -> list[float]:
        """Round values, at most about as many as wanted."""
        step = _step((self.high - self.low) / max(1, wanted))
        first, last = math.ceil(self.low / step), math.floor(self.high / step + 1e-9)
        return [step * index for index in range(first, last + 1)]


@dataclass(frozen=True)
class Log:
    """As `Linear`, by orders of magnitude; both ends are powers of ten."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        value = max(value, self.low)
        ends = math.log10(self.low), math.log10(self.high)
        return _between(*ends, self.start, self.end, math.log10(value))

    def ticks(self) -> list[float]:
        low, high = round(math.log10(self.low)), round(math.log10(self.high))
        return [10.0**power for power in range(low, high + 1)]


def log_around(values: Iterable[float], start: float, end: float) -> Log:
    """A whole number of decades with all values in it; what is not above 0 is put at its start."""
    positive = [value for value in values if math.isfinite(value) and value > 0] or [1e-3]
    low = math.floor(math.log10(min(positive)))
    high = max(low + 1, math.ceil(math.log10(max(positive))))
    return Log(10.0**low, 10.0**high, start, end)


def up_to(highest: float, start: float, end: float) -> Linear:
    """From 0 to a round number that is not below `highest`."""
    step = _step(max(highest, 1e-9) / 3)
    return Linear(0, step * math.ceil(max(highest, 1e-9) / step - 1e-9), start, end)


def _between(low: float, high: float, start: float, end: float, value: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.0
    return start + min(1.0, max(0.0, share)) * (end - start)


def _step(least: float) -> float:
    """The round number, 1, 2 or 5 with zeros, that is not below it."""
    if least <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(least))
    return next(step * unit for step in (1, 2, 5, 10, 20) if step * unit >= least * (1 - 1e-9))

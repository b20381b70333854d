"""Numbers as people read them; what is not a number is said to be none."""

import math
from datetime import UTC, datetime

NONE = "n/a"
SPACE = "\N{NARROW NO-BREAK SPACE}"

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_COUNTS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k"))


def number(value: float) -> str:
    """With thousands separators, and three digits of a fraction."""
    if not math.isfinite(value):
        return NONE
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def short(value: float) -> str:
    """For an axis: 12,000 is 12k."""
    if not math.isfinite(value):
        return NONE
    for unit, letter in _COUNTS:
        if abs(value) >= unit:
            return f"{_trimmed(value / (1e3 if letter == 'k' else unit))}{SPACE}{letter}"
    return number(value)


def seconds(value: float) -> str:
    """In the unit that suits it, with three digits."""
    if not math.isfinite(value):
        return NONE
    exact, value = value, float(f"{value:.3g}")
    if value >= 60:
        return _long(round(exact))
    size, unit = next((each for each in _SECONDS if abs(value) >= each[0]), _SECONDS[-1])
    return "0" if value == 0 else f"{_trimmed(value / size)}{SPACE}{unit}"


def since(value: float, whole: float) -> str:
    """A moment on an axis that is `whole` seconds long."""
    if value == 0:
        return "0"
    size, unit = (60.0, "min") if whole > 300 else _suited(whole)
    return f"{_trimmed(value / size)}{SPACE}{unit}"


def moment(date: str) -> str:
    """When that was; as it is given, if it is no date."""
    try:
        return f"{datetime.fromisoformat(date).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return date


def plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _suited(whole: float) -> tuple[float, str]:
    return next((each for each in _SECONDS if whole >= 2 * each[0]), _SECONDS[-1])


def _long(value: int) -> str:
    hours, minutes, rest = value // 3600, value // 60 % 60, value % 60
    parts = ((hours, "h"), (minutes, "min"), (0 if hours else rest, "s"))
    return " ".join(f"{part:,}{SPACE}{unit}" for part, unit in parts if part)


def _trimmed(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

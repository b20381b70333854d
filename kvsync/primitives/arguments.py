"""Times that callers pass: numbers of seconds, or timedeltas."""

import math
from datetime import timedelta
from typing import Final

Seconds = float | timedelta


class Unset:
    """The type of `UNSET`."""

    def __repr__(self) -> str:
        return "..."


UNSET: Final = Unset()
"""Left out: what the constructor was given holds."""


def check_timeout(timeout: Seconds | None) -> float | None:
    """Seconds to wait; None for ever, as are -1 and infinity. Raises: TypeError, ValueError."""
    if timeout is None:
        return None
    seconds = _seconds("timeout", timeout)
    if seconds in (-1, math.inf):
        return None
    if not seconds >= 0:
        raise ValueError(f"timeout is not negative (or is -1, for ever), not {timeout!r}")
    return seconds


def check_wait(timeout: Seconds | None) -> float | None:
    """The same where -1 has no meaning. Raises: TypeError, ValueError."""
    if timeout is not None and not _seconds("timeout", timeout) >= 0:
        raise ValueError(f"timeout is not negative, not {timeout!r}")
    return check_timeout(timeout)


def check_blocking(
    blocking: bool, timeout: Seconds | Unset | None, default: float | None
) -> float | None:
    """How long to wait, of the two arguments of `acquire`. Raises: TypeError, ValueError.

    0 and 1 are False and True, as `threading` has it; another number is meant for the timeout.
    """
    if not isinstance(blocking, int) or blocking not in (False, True):
        is_time = isinstance(blocking, int | float | timedelta)
        hint = f": did you mean timeout={blocking!r}?" if is_time else ""
        raise TypeError(f"blocking is True or False, not {blocking!r}{hint}")
    if not blocking:
        if not isinstance(timeout, Unset) and timeout is not None and timeout != -1:
            raise ValueError("a call that does not block takes no timeout")
        return 0
    return default if isinstance(timeout, Unset) else check_timeout(timeout)


def check_lease(lease: Seconds | None) -> float | None:
    """Seconds that a grant lives; None until it is released. Raises: TypeError, ValueError."""
    return None if lease is None else check_positive("lease", lease)


def check_positive(what: str, value: Seconds) -> float:
    """Raises: TypeError, ValueError unless it is a finite time above zero."""
    seconds = _seconds(what, value)
    if not 0 < seconds < math.inf:
        raise ValueError(f"{what} is a finite number of seconds above zero, not {value!r}")
    return seconds


def check_delay(delay: Seconds) -> float:
    """Seconds until something may happen. Raises: TypeError, ValueError unless finite, >= 0."""
    seconds = _seconds("delay", delay)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"a delay is finite and not negative, not {delay!r}")
    return seconds


def check_whole(what: str, value: int) -> int:
    """Raises: TypeError, ValueError unless it is an int above zero."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is an int, not {value!r}")
    if not 0 < value < 1 << 31:
        raise ValueError(f"{what} is above zero and below 2**31, not {shown(value)}")
    return value


def check_callable(func: object) -> None:
    """Of a `run`. Raises: TypeError."""
    if not callable(func):
        raise TypeError(f"run takes something to call, not {func!r}")


def shown(value: object) -> str:
    """Its repr; of an int with so many digits that nobody would read them, its size."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an int of {value.bit_length()} bits"
    return repr(value)


def _seconds(what: str, value: Seconds) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} is a number of seconds or a timedelta, not {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{what} is a number of seconds, not {shown(value)}") from None

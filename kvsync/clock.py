"""The two clocks that kvsync reads; tests put others in their place."""

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from, in seconds."""

    def wall(self) -> float:
        """Seconds since 1970: for what must survive a reboot (a TTL)."""

    def boot(self) -> float:
        """Seconds that never jump, suspended time included: for waits and leases."""


# Linux counts suspended time in CLOCK_BOOTTIME only; macOS does in CLOCK_MONOTONIC.
_BOOT_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The machine's own clocks."""

    wall = staticmethod(time.time)
    boot = staticmethod(partial(time.clock_gettime, _BOOT_CLOCK))


def end_of(seconds: float | None, clock: Callable[[], float]) -> float | None:
    """When what begins now and lasts so long is over; None: never."""
    return None if seconds is None else clock() + seconds

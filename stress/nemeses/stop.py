"""SIGSTOP at any instant, and SIGCONT a moment later."""

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from stress.history import now
from stress.record import Fault

if TYPE_CHECKING:
    from stress.crew import Crew

_LONGEST = 0.05
"""Seconds; what is stopped may be the one that all others wait for."""


class Stop:
    """Stops one for a while."""

    WEIGHT = 1

    def strike(self, crew: "Crew") -> None:
        victim = crew.chance.choice(crew.at_work(crew.members))
        began = now()
        with suppress(psutil.NoSuchProcess):  # it ended of itself, which the crew will notice
            process = psutil.Process(victim.pid)
            process.suspend()
            try:
                time.sleep(crew.chance.uniform(0, _LONGEST))
            finally:
                process.resume()
        crew.note(Fault("stop", victim.number, began, now()))

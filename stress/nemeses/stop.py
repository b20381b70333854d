"""SIGSTOP at any instant, and SIGCONT a moment later; now and then after so long that others need
not wait any more for what the stopped one does not claim.

A long one holds up nobody but its victim, not even who strikes: a thread ends it. There is one at a
time, for the others are to go on meanwhile.
"""

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from kvsync.primitives.grants import CLAIM_TIME
from stress.history import now
from stress.record import Fault

if TYPE_CHECKING:
    from stress.crew import Crew, Member

_LONGEST = 0.05
"""Seconds; what is stopped may be the one that all others wait for."""

_LONG = 1 / 8
"""Of the stops, as many last for longer than a grant waits to be claimed."""

_PAST_CLAIM = (1.1 * CLAIM_TIME, 1.5 * CLAIM_TIME)

_STILL = {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}


class Stop:
    """Stops one for a while."""

    WEIGHT = 1

    def strike(self, crew: "Crew") -> None:
        victim, chance = crew.chance.choice(crew.at_work(crew.awake())), crew.chance
        if chance.random() < _LONG and not crew.has_pause():
            crew.pause(victim, chance.uniform(*_PAST_CLAIM))
        else:
            pause = Pause(victim, chance.uniform(0, _LONGEST))
            pause.wait()
            if pause.fault:
                crew.note(pause.fault)


class Pause:
    """A process that is stopped, for so many seconds or until `end`, by a thread of its own."""

    def __init__(self, member: "Member", seconds: float) -> None:
        self.fault: Fault | None = None
        """It, once it is over; None if the process was gone before it stood still."""
        self._member = member
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(seconds,), daemon=True)
        self._thread.start()

    def concerns(self, member: "Member") -> bool:
        return member is self._member

    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Return when it is over."""
        self._thread.join()

    def end(self) -> None:
        """The process goes on, unless it is gone."""
        self._over.set()
        self.wait()

    def _hold(self, seconds: float) -> None:
        began = now()
        with suppress(psutil.NoSuchProcess):  # it ended of itself, which the crew will notice
            process = psutil.Process(self._member.pid)
            try:
                stopped = suspend(process)
                self._over.wait(seconds)
            finally:
                ended = now()
                with suppress(psutil.NoSuchProcess):
                    process.resume()
            self.fault = Fault("stop", self._member.number, began, ended) if stopped else None


def suspend(process: psutil.Process) -> bool:
    """SIGSTOP it; returns when it stands still, False if that is because it has ended.

    Raises: NoSuchProcess.
    """
    process.suspend()
    while (status := process.status()) not in _STILL:
        time.sleep(0.0001)  # the child of a fork server is not ours to wait for
    return bool(status == psutil.STATUS_STOPPED)

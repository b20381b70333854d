"""How long something took, and how long anything took on this machine at that moment.

A machine that is busy with other work delays every process. What it does to a plain pipe between
two processes, at the same time, is measured beside: the control.
"""

import time
from collections.abc import Sequence
from typing import Any

from stress.crew import PATIENCE, Broken, Crew, Member, Worker
from stress.stage import Stage

_NAP = 0.002


def percentile(seconds: Sequence[float], share: float) -> float:
    """The time within which that share of them was done."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def p50_and_p99(seconds: Sequence[float]) -> str:
    """In milliseconds, for people."""
    p50, p99 = (percentile(seconds, share) * 1000 for share in (0.5, 0.99))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def _echo(worker: Worker) -> None:
    worker.ready()
    while worker.pipe.recv():
        worker.pipe.send(True)


class Control:
    """A process that answers, and how slowly it did at worst."""

    def __init__(self, stage: Stage, crew: Crew) -> None:
        self._stage, self._crew = stage, crew
        (self._member,) = crew.start(_echo)
        self.worst = 0.0

    def receive(self, member: Member) -> Any:
        """The member's next message; meanwhile the control is looked at. Raises: Broken."""
        deadline = time.monotonic() + PATIENCE / 2
        while not member.pipe.poll(_NAP):
            self._look()
            if time.monotonic() > deadline:
                self._stage.expect(False, f"{member.process.name} hangs")
                raise Broken
        self._look()
        return self._crew.receive(member)

    def _look(self) -> None:
        began = time.monotonic()
        self._member.pipe.send(True)
        self._crew.receive(self._member)
        self.worst = max(self.worst, time.monotonic() - began)

    def restart(self) -> None:
        """Forget what was."""
        self.worst = 0.0

    def end(self) -> None:
        self._member.pipe.send(False)

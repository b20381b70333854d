"""What each thing must come to: the acknowledgements, and one operation that was cut short."""

import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import kvsync
from kvsync.cli.demo.acts import Act, Check, Span, operations
from kvsync.cli.demo.crew import Crew, Member
from kvsync.cli.demo.worker import plan


class Accounts:
    """Drawn up from outside the store, when all processes have ended."""

    def __init__(self, crew: Crew, acts: Sequence[Act]) -> None:
        self._crew = crew
        self._acts = acts
        self._codes = operations(acts)
        self.done = sum((member.done for member in crew.members), Counter[int]())

    @property
    def in_flight(self) -> str:
        """What the killed process was to do next: the store may or may not have it."""
        return self._codes[self._in_flight][1]

    @property
    def _in_flight(self) -> int:
        size, victim = self._crew.size, self._crew.victim
        order = plan(size.seed, victim.number, len(self._codes))
        return next(islice(order, victim.total, None))

    def checks(self, store: kvsync.Store) -> Iterator[Check]:
        """Every line of the verdict."""
        for act in self._acts:
            yield from act.checks(store, self._due(act))
            yield from (
                self._held(each) for each in self._crew.holders if each.dies_in in act.things
            )
        yield from (self._ending(member) for member in self._crew.members if self._is_odd(member))

    def _due(self, act: Act) -> Mapping[str, Span]:
        return {
            thing: Span(self.done[code], self.done[code] + (code == self._in_flight))
            for code, (of, thing) in enumerate(self._codes)
            if of is act
        }

    def _is_odd(self, member: Member) -> bool:
        return not self._ending(member).ok

    def _held(self, member: Member) -> Check:
        held = member.inside and member.process.exitcode == -signal.SIGKILL
        found = "killed inside" if held else "not killed inside"
        return Check(f"{member.dies_in}, one who held {member.holds}", "killed inside", found)

    def _ending(self, member: Member) -> Check:
        is_victim = member in (self._crew.victim, *self._crew.holders)
        wanted = "killed" if is_victim else "0"
        status = str(member.process.exitcode).replace("-9", "killed")
        return Check(f"exit status of process {member.number}", wanted, status)

    def report(self, checks: Sequence[Check]) -> dict[str, Any]:
        """All of it, for programs."""
        crew, victim = self._crew, self._crew.victim
        return {
            "ok": all(check.ok for check in checks),
            "processes": crew.size.processes,
            "seed": crew.size.seed,
            "seconds": round(crew.elapsed, 3),
            "operations": crew.total,
            "killed": {
                "process": victim.number,
                "pid": victim.process.pid,
                "acknowledged": victim.total,
                "in_flight": self.in_flight,
            },
            "killed_inside": [_plain_holder(member) for member in crew.holders],
            "checks": [_plain(check) for check in checks],
        }


def _plain_holder(member: Member) -> dict[str, Any]:
    return {
        "process": member.number,
        "pid": member.process.pid,
        "acknowledged": member.total,
        "inside": member.dies_in,
    }


def _plain(check: Check) -> dict[str, Any]:
    due = check.expected
    expected = [due.low, due.high] if isinstance(due, Span) else due
    return {"what": check.what, "expected": expected, "found": check.found, "ok": check.ok}

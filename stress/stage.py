"""One run of a scenario: its chance, its goal, its store, and what it found."""

import os
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import kvsync
from stress import nemeses
from stress.checkers import Check
from stress.history import now
from stress.journal import UNKNOWN, acknowledged
from stress.measures import Latencies, Spans, Throughput
from stress.record import Books, Fault, ScenarioResult
from stress.windows import SHORTEST, Windows

SOUND = "sound"
"""The way to do it that must hold; every other way in `WAYS` is a broken twin."""

_KEPT_FAULTS = 2_000
"""The latest, of those that are told one by one; all are counted."""

HISTORIES = 40
"""In how many windows of a short run calls are recorded, if nothing else is said."""


class Skipped(Exception):
    """This machine lacks what the scenario needs; says what."""


@dataclass(frozen=True)
class Terms:
    """How long and how hard.

    `goal`, in the scenario's unit, and `operations` end it instead of `seconds`; both, if both are
    there. The windows in which histories are recorded are spread over `seconds` in either case.
    """

    seed: int
    seconds: float
    processes: int | None = None
    goal: int | None = None
    operations: int | None = None
    nemeses: tuple[str, ...] = nemeses.NAMES
    way: str = SOUND
    histories: int = HISTORIES


class Attended(Protocol):
    """The processes of a scenario, as far as its stage has to know."""

    def look(self) -> None:
        """What do they need?"""

    def operations(self) -> int:
        """How many they have done."""


class Stage:
    """What a scenario's `run` is given. It collects figures and violations, and raises neither."""

    def __init__(
        self, scenario: ModuleType, terms: Terms, folder: str, show: Callable[["Stage"], None]
    ) -> None:
        self.name = scenario.__name__.rpartition(".")[2]
        self.unit: str = scenario.UNIT
        self.nemeses = tuple(each for each in nemeses.borne(scenario) if each in terms.nemeses)
        self.way = terms.way
        self.folder = folder
        self.path = os.path.join(folder, "store.db")
        self.seed = f"{terms.seed}/{self.name}"
        self.chance = random.Random(self.seed)
        self.processes = terms.processes or scenario.PROCESSES
        self.figures: dict[str, float] = {}
        self.remarks: list[str] = []
        self.violations: list[str] = []
        self.faults: deque[Fault] = deque(maxlen=_KEPT_FAULTS)
        self.strikes: Counter[str] = Counter()
        self.operations = 0
        self.books: Books | None = None
        self.latencies, self.spans = Latencies(self.seed), Spans()
        self._throughput = Throughput()
        self.long_checks: tuple[Check, ...] = getattr(scenario, "LONG_CHECKS", ())
        """What the long histories are put before; without any none are recorded."""
        self.windows = Windows(
            os.path.join(folder, "windows"),
            max(SHORTEST, int(terms.seconds * 1e9 / max(1, terms.histories))),
            terms.histories,
            self.processes * getattr(scenario, "THREADS", 1),
            bool(self.long_checks),
        )
        self._terms = terms
        self._show = show
        self._made = self._began = time.monotonic()
        self._asked = 0
        """When it was last asked whether to stop, in ns."""
        self._crew: Attended | None = None
        self._primitives = tuple(getattr(scenario, "PRIMITIVES", (self.name,)))
        self._faults = nemeses.own(scenario)

    def begin(self) -> None:
        """Its seconds are counted from now on: all its processes work."""
        self._began = time.monotonic()
        self._throughput.add(now(), self.operations)
        self.windows.begin()

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._made

    @property
    def left(self) -> float | None:
        """Seconds; None if a goal decides."""
        if self._terms.goal is None and self._terms.operations is None:
            return max(0.0, self._terms.seconds - (time.monotonic() - self._began))
        return None

    def attend(self, crew: Attended) -> None:
        """Ask that one from now on."""
        self._crew = crew

    def struck(self, fault: Fault) -> None:
        """That was done to a process; what belongs to a scenario it counts in its own unit."""
        self.faults.append(fault)
        if fault.kind in nemeses.STRIKERS:
            self.strikes[fault.kind] += 1

    def take_back(self, fault: Fault) -> None:
        """It was noted, and did not happen."""
        with suppress(ValueError):
            self.faults.remove(fault)
        self.strikes[fault.kind] -= 1

    def enough(self, done: int) -> bool:
        """Whether to stop, `done` of the unit being done: goal or time reached, or violated."""
        self.figures[self.unit] = done
        if self._crew is not None:
            self._crew.look()
            self.operations = self._crew.operations()
        if self.unit != "kills":
            self.operations = max(self.operations, done)
        self._asked = now()
        self._throughput.add(self._asked, self.operations)
        self._show(self)
        return bool(self.violations) or self._reached(done)

    def end(self, at: int, operations: int) -> None:
        """Its processes, which were told then to stop, are gone and have done so many."""
        self.operations = max(self.operations, operations)
        self._throughput.add(at, self.operations)

    def windows_due(self) -> int:
        """How many windows came to their end before the run did."""
        return self.windows.due(self._asked)

    def long_due(self) -> float:
        """Seconds of long histories that came to their end before the run did."""
        return self.windows.due_long(self._asked) / 1e9

    def _reached(self, done: int) -> bool:
        goals = (self._terms.goal, done), (self._terms.operations, self.operations)
        given = [reached >= goal for goal, reached in goals if goal is not None]
        return all(given) if given else not self.left

    def result(self, invariant: str, skipped: str, repeat: str) -> ScenarioResult:
        """All that became of it."""
        verdict = "VIOLATED" if self.violations else "SKIPPED" if skipped else "ok"
        return ScenarioResult(
            self.name,
            invariant,
            self._primitives,
            self._used(),
            verdict,
            self.elapsed,
            self.processes,
            figures={"operations": self.operations} | self._struck() | self.figures,
            remarks=tuple(self.remarks),
            violations=tuple(self.violations),
            skipped=skipped,
            repeat=repeat,
            books=self.books,
            faults=tuple(self.faults),
            spans=self.spans.told(),
            latencies=self.latencies.told(),
            rate=self._throughput.rate(),
        )

    def _used(self) -> tuple[str, ...]:
        own = self._faults if self.figures.get(self.unit) else ()
        return *filter(self._was_used, self.nemeses), *own

    def _was_used(self, nemesis: str) -> bool:
        return nemesis not in nemeses.STRIKERS or self.strikes[nemesis] > 0

    def _struck(self) -> dict[str, float]:
        return {f"{kind}s": count for kind, count in self.strikes.items()}

    def open(self) -> kvsync.Store:
        return kvsync.open(self.path)

    def expect(self, holds: bool, otherwise: str) -> None:
        """Note a violation unless it holds."""
        if not holds:
            self.violations.append(otherwise)

    def expect_some(self, *figures: str) -> None:
        """None of these stayed at nothing: else all holds because nothing was done.

        What else was violated says enough.
        """
        nothing = [name for name in figures if not self.figures.get(name)]
        told = f"nothing was done: {', '.join(nothing)} stayed at 0"
        self.expect(not nothing or bool(self.violations), told)

    def expect_sound_file(self) -> None:
        with self.open() as store:
            damage = store.check().damage
        self.expect(not damage, f"integrity_check: {damage}")

    def expect_accounted(
        self,
        values: Mapping[str, int],
        killed: int = 0,
        unknown: int | None = None,
        *,
        recovered: int | None = None,
        beside: Collection[str] = (),
    ) -> None:
        """All that was acknowledged is in `values`, and at most one more for each killed writer;
        and no more than `unknown`, if that is counted. The notes `beside` it are of other things.
        """
        notes = acknowledged(self.folder)
        for label in beside:
            notes.pop(label, None)
        for label in sorted(values.keys() | notes.keys()):
            self._expect_each_once(label, values.get(label, 0), notes[label])
        total, known = sum(values.values()), sum(map(len, notes.values()))
        unheard = max(0, total - known)
        self.figures |= {"acknowledged": known, "unheard": unheard}
        lost = sum(max(0, len(notes[label]) - values.get(label, 0)) for label in notes)
        self.books = Books(known, lost, recovered, unknown, unheard, killed)
        self.expect_some("acknowledged")
        self.expect(
            total <= known + killed,
            f"{total} were counted, but only {known} acknowledged and {killed} writers killed",
        )
        self.expect_heard(unheard, unknown)

    def expect_heard(self, unheard: int, unknown: int | None) -> None:
        """Only calls whose callers died in them are done without anybody's having heard of it."""
        self.expect(
            unknown is None or unheard <= unknown,
            f"{unheard} calls are unheard, but only {unknown} callers died in a call",
        )

    def _expect_each_once(self, label: str, value: int, numbers: list[int]) -> None:
        self.expect(
            len(numbers) <= value, f"{label} is {value}, but {len(numbers)} were acknowledged"
        )
        told = [number for number in numbers if number != UNKNOWN]
        twice = len(told) - len(set(told))
        self.expect(not twice, f"{twice} numbers of {label} were given to two writers")
        highest = max(told, default=0)
        self.expect(highest <= value, f"{label} is {value} after it was {highest}")

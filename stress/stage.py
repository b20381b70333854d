"""One run of a scenario: its chance, its goal, its store, and what it found."""

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType

import kvsync
from stress.journal import UNKNOWN, acknowledged
from stress.windows import Windows

SOUND = "sound"
"""The way to do it that must hold; every other way in `WAYS` is a broken twin."""

HISTORIES = 40
"""In how many windows of a run calls are recorded, if nothing else is said."""


class Skipped(Exception):
    """This machine lacks what the scenario needs; says what."""


@dataclass(frozen=True)
class Terms:
    """How long and how hard; `goal` in the scenario's unit ends it instead of `seconds`.

    The windows in which histories are recorded are spread over `seconds` in either case.
    """

    seed: int
    seconds: float
    processes: int | None = None
    goal: int | None = None
    way: str = SOUND
    histories: int = HISTORIES


class Stage:
    """What a scenario's `run` is given. It collects figures and violations, and raises neither."""

    def __init__(
        self, scenario: ModuleType, terms: Terms, folder: str, show: Callable[[str], None]
    ) -> None:
        self.name = scenario.__name__.rpartition(".")[2]
        self.unit: str = scenario.UNIT
        self.way = terms.way
        self.folder = folder
        self.path = os.path.join(folder, "store.db")
        self.seed = f"{terms.seed}/{self.name}"
        self.chance = random.Random(self.seed)
        self.processes = terms.processes or scenario.PROCESSES
        self.figures: dict[str, float] = {}
        self.remarks: list[str] = []
        self.violations: list[str] = []
        self.windows = Windows(
            os.path.join(folder, "windows"),
            int(terms.seconds * 1e9 / max(1, terms.histories)),
            terms.histories,
            self.processes,
        )
        self._terms = terms
        self._show = show
        self._made = self._began = time.monotonic()

    def begin(self) -> None:
        """Its seconds are counted from now on: all its processes work."""
        self._began = time.monotonic()
        self.windows.begin()

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._made

    def enough(self, done: int) -> bool:
        """Whether to stop, `done` of the unit being done: goal or time reached, or violated."""
        self._show(f"{self.name}: {done:,} {self.unit} in {self.elapsed:.0f} s")
        self.figures[self.unit] = done
        if self.violations:
            return True
        if self._terms.goal is not None:
            return done >= self._terms.goal
        return time.monotonic() - self._began >= self._terms.seconds

    def open(self) -> kvsync.Store:
        return kvsync.open(self.path)

    def expect(self, holds: bool, otherwise: str) -> None:
        """Note a violation unless it holds."""
        if not holds:
            self.violations.append(otherwise)

    def expect_sound_file(self) -> None:
        with self.open() as store:
            damage = store.check().damage
        self.expect(not damage, f"integrity_check: {damage}")

    def expect_accounted(self, values: Mapping[str, int], killed: int = 0) -> None:
        """All that was acknowledged is in `values`, and at most one more for each killed writer."""
        notes = acknowledged(self.folder)
        for label in sorted(values.keys() | notes.keys()):
            self._expect_each_once(label, values.get(label, 0), notes[label])
        total, known = sum(values.values()), sum(map(len, notes.values()))
        self.figures |= {"acknowledged": known, "unknown": total - known}
        self.expect(
            total <= known + killed,
            f"{total} were counted, but only {known} acknowledged and {killed} writers killed",
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


@dataclass(frozen=True)
class Outcome:
    """What a run of a scenario came to; `remarks` are lines of text for the reader."""

    name: str
    seconds: float
    figures: Mapping[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    violations: tuple[str, ...] = ()
    skipped: str = ""
    """Why it did not run; empty if it did."""

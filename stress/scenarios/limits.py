"""A process that runs out of descriptors, or may not let a file grow, gets nothing but errors that
are kvsync's own, loses nothing that was acknowledged, and goes on once it may again.

By RLIMIT_NOFILE with so many to spare, and RLIMIT_FSIZE at so many bytes; beyond that one the
kernel sends SIGXFSZ, which Python ignores, but which kills a program that has it at its default.
"""

import random
from collections import Counter
from typing import Any, NamedTuple

from stress.crew import Crew, Worker
from stress.faults import calls
from stress.faults.spell import Spell
from stress.faults.trial import Stores, Trial, Victim, failure
from stress.record import Fault
from stress.stage import Stage

UNIT = "faults"
PROCESSES = 2
PRIMITIVES = calls.PRIMITIVES
NEMESES = ("io",)

WAYS = calls.WAYS

_SPARE = 14
"""Descriptors, at most: no call takes more."""

_LARGEST = 200_000
"""Bytes, at most."""


def _limit_all(worker: Worker, names: list[str]) -> None:
    trials = Trials(worker)
    worker.ready()
    with Victim() as victim:
        while worker.going_on():
            name, limits = worker.chance.choice(names), _limits(worker.chance)
            worker.pipe.send(trials.run(victim, name, limits))


def _limits(chance: random.Random) -> dict[str, Any]:
    if chance.random() < 0.5:
        return {"spare_descriptors": chance.randrange(_SPARE)}
    return {
        "largest_file": int(_LARGEST * chance.random() ** 3),
        "dies_of_size": chance.random() < 0.3,
    }


class News(NamedTuple):
    """What a worker tells the master of: what a call came to, or what was wrong."""

    outcome: str = ""
    complaint: str = ""
    fault: Fault | None = None


class Trials:
    """Those of one worker; each call is rehearsed when it first comes up."""

    def __init__(self, worker: Worker) -> None:
        self._number = worker.number
        self._stores = Stores(f"{worker.path}-{worker.number}")
        self._way = worker.way
        self._known: dict[str, tuple[Trial, tuple[object, object]]] = {}

    def run(self, victim: Victim, name: str, limits: dict[str, Any]) -> News:
        """One of them."""
        try:
            if name not in self._known:
                trial = Trial(self._stores, name, self._way)
                self._known[name] = trial, trial.rehearse(victim)
            trial, expected = self._known[name]
            with Spell("io", self._number) as spell:
                outcome = trial.run(victim, expected, passes=True, lift=spell.end, **limits)
        except Exception as error:
            return News(complaint=f"{name}, {limits}: {failure(error)}")
        return News(outcome, fault=spell.fault)


def run(stage: Stage) -> None:
    tally: Counter[str] = Counter()
    with Crew(stage) as crew:
        crew.start(_limit_all, stage.processes, sorted(WAYS[stage.way]))
        crew.assemble()
        while not stage.enough(tally.total()):
            news: News = crew.receive(stage.chance.choice(crew.members))
            tally[news.outcome] += 1
            stage.expect(not news.complaint, news.complaint)
            if news.fault:
                stage.struck(news.fault)
    stage.figures |= {UNIT: tally.total()} | tally
    stage.expect_some(UNIT)

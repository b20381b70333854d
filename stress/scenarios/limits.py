"""A process that runs out of descriptors, or may not let a file grow, gets nothing but errors that
are kvsync's own, loses nothing that was acknowledged, and goes on once it may again.

By RLIMIT_NOFILE with so many to spare, and RLIMIT_FSIZE at so many bytes; beyond that one the
kernel sends SIGXFSZ, which Python ignores, but which kills a program that has it at its default.
"""

import random
from collections import Counter
from typing import Any

from stress.crew import Crew, Worker
from stress.faults import calls
from stress.faults.trial import Stores, Trial, Victim, failure
from stress.stage import Stage

UNIT = "faults"
PROCESSES = 2
PRIMITIVES = ("store", "counter", "dict", "lock", "queue")
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


class Trials:
    """Those of one worker; each call is rehearsed when it first comes up."""

    def __init__(self, worker: Worker) -> None:
        self._stores = Stores(f"{worker.path}-{worker.number}")
        self._way = worker.way
        self._known: dict[str, tuple[Trial, tuple[object, object]]] = {}

    def run(self, victim: Victim, name: str, limits: dict[str, Any]) -> tuple[str, str]:
        """What the call came to, and what was wrong."""
        try:
            if name not in self._known:
                trial = Trial(self._stores, name, self._way)
                self._known[name] = trial, trial.rehearse(victim)
            trial, expected = self._known[name]
            return trial.run(victim, expected, passes=True, **limits), ""
        except Exception as error:
            return "", f"{name}, {limits}: {failure(error)}"


def run(stage: Stage) -> None:
    tally: Counter[str] = Counter()
    with Crew(stage) as crew:
        crew.start(_limit_all, stage.processes, sorted(WAYS[stage.way]))
        crew.assemble()
        while not stage.enough(tally.total()):
            outcome, complaint = crew.receive(stage.chance.choice(crew.members))
            tally[outcome] += 1
            stage.expect(not complaint, complaint)
    stage.figures |= {UNIT: tally.total()} | tally
    stage.expect_some(UNIT)

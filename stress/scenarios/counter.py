"""A counter holds every acknowledged addition after SIGKILLs at any instant, and at most one more
for each killed writer; and it is linearizable.
"""

from collections.abc import Callable
from functools import cache, partial

import kvsync
from stress import judge
from stress.checkers import fetch_and_add, linearizability
from stress.checkers.models.counter import Counter
from stress.crew import Crew, Worker
from stress.journal import UNKNOWN
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 4
PRIMITIVES = ("counter",)
LONG_CHECKS = (fetch_and_add.flaw,)

_READS = 0.1

Add = Callable[[], int | None]
"""Adds one and returns the new number, if it is told."""


def _get_and_set(counter: kvsync.Counter) -> int:
    counter.set(number := counter.value + 1)
    return number


def _buffered(counter: kvsync.Counter) -> Add:
    return counter.buffered(interval=1).add


WAYS: dict[str, Callable[[kvsync.Counter], Add]] = {
    SOUND: lambda counter: counter.add,
    "get-and-set": lambda counter: partial(_get_and_set, counter),
    "buffered": _buffered,
}


def _write(worker: Worker) -> None:
    calls = cache(partial(_calls, worker))
    while worker.going_on():
        ending, history = worker.window()
        name = f"hits{ending}"
        add, read = calls(name)
        with worker.in_doubt():
            number = history.call(name, "add", 1, add)
            worker.journal.note(name, UNKNOWN if number is None else number)
        worker.ready()
        if worker.chance.random() < _READS:
            with worker.in_doubt():
                history.call(name, "read", None, read)


def _calls(worker: Worker, name: str) -> tuple[Add, Callable[[], int]]:
    counter = worker.store.counter(name)
    return WAYS[worker.way](counter), lambda: counter.value


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_write, stage.processes)
        crew.be_struck()
    with stage.open() as store:
        values = {name: store.counter(name).value for name in store.names("counter")}
        stage.expect_accounted(values, crew.killed, crew.unknown)
    search = partial(linearizability.flaw, model=Counter())
    judge.expect_legal(stage, search, fetch_and_add.flaw)
    stage.expect_sound_file()

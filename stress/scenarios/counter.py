"""A counter holds every acknowledged addition after SIGKILLs at any instant, and at most one more
for each killed writer.
"""

from collections.abc import Callable
from functools import partial

import kvsync
from stress.crew import Crew, Worker
from stress.journal import UNKNOWN
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 4


def _get_and_set(counter: kvsync.Counter) -> int:
    counter.set(number := counter.value + 1)
    return number


def _buffered(counter: kvsync.Counter) -> Callable[[], int]:
    buffer = counter.buffered(interval=1)

    def add() -> int:
        buffer.add()
        return UNKNOWN

    return add


WAYS: dict[str, Callable[[kvsync.Counter], Callable[[], int]]] = {
    SOUND: lambda counter: counter.add,
    "get-and-set": lambda counter: partial(_get_and_set, counter),
    "buffered": _buffered,
}


def _write(worker: Worker) -> None:
    add = WAYS[worker.way](worker.store.counter("hits"))
    while worker.going_on():
        worker.journal.note("hits", add())
        worker.ready()


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_write, stage.processes)
        crew.assemble()
        while not stage.enough(crew.killed):
            crew.kill_one()
    with stage.open() as store:
        stage.expect_accounted({"hits": store.counter("hits").value}, crew.killed)
    stage.expect_sound_file()

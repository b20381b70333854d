"""Two counters and a dict entry that only ever change together in transactions are equal to every
reader, after SIGKILLs at any instant too, and transactions that raise leave nothing behind.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress

import kvsync
from stress.crew import Crew, Worker
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 4
PRIMITIVES = ("counter", "dict", "transaction")

WAYS: dict[str, Callable[[kvsync.Store], AbstractContextManager[None]]] = {
    SOUND: kvsync.Store.transaction,
    "separate-commits": lambda _store: nullcontext(),
}

_UNDONE = 0.1


class Undone(Exception):
    """Makes a transaction undo what it did."""


def _write(worker: Worker) -> None:
    while worker.going_on():
        undone = worker.chance.random() < _UNDONE
        with suppress(Undone):
            with worker.in_doubt():
                number = _add_to_all(worker.store, WAYS[worker.way](worker.store), undone=undone)
                worker.journal.note("all", number)
            worker.ready()


def _add_to_all(
    store: kvsync.Store, together: AbstractContextManager[None], *, undone: bool
) -> int:
    with together:
        number = store.counter("first").add()
        store.dict("entries").increment("entry")
        store.counter("last").add()
        if undone:
            raise Undone
    return number


def _values(store: kvsync.Store) -> set[int]:
    with store.transaction():
        entry = store.dict("entries").get("entry", 0)
        return {store.counter("first").value, entry, store.counter("last").value}


def run(stage: Stage) -> None:
    with stage.open() as store:
        with Crew(stage) as crew:
            crew.start(_write, stage.processes)
            crew.assemble()
            while not stage.enough(crew.killed):
                crew.strike()
                _look(stage, store)
        _look(stage, store)
        stage.expect_accounted({"all": max(_values(store))}, crew.killed, crew.unknown)
    stage.expect_sound_file()


def _look(stage: Stage, store: kvsync.Store) -> None:
    values = _values(store)
    stage.expect(len(values) == 1, f"what changes together differs: {sorted(values)}")

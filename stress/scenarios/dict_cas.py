"""Compare-and-set loops of many processes on a few keys never lose an update, nor do increments,
though some of the processes are killed by SIGKILL at any instant; and each key is a linearizable
register.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import kvsync
from stress import judge
from stress.checkers import linearizability
from stress.checkers.models.register import Register
from stress.crew import Crew, Worker
from stress.history import Recording
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 4
PRIMITIVES = ("dict",)

_KEYS = ("a", "b", "c")
_INCREMENTS = 0.3


def _compare_then_set(entries: kvsync.Dict, key: str, expected: Any, new: Any) -> bool:
    if entries.get(key, kvsync.MISSING) != expected:
        return False
    entries[key] = new
    return True


WAYS: dict[str, Callable[[kvsync.Dict, str, Any, Any], bool]] = {
    SOUND: kvsync.Dict.compare_and_set,
    "compare-then-set": _compare_then_set,
}


def _write(worker: Worker) -> None:
    while worker.going_on():
        ending, history = worker.window()
        entries = worker.store.dict(f"entries{ending}")
        key = worker.chance.choice(_KEYS)
        _add_one(worker, entries, key, history)
        if worker.chance.random() < _INCREMENTS:
            with worker.in_doubt():
                worker.journal.note("visits/n", worker.store.dict("visits").increment("n"))
        worker.ready()


def _label(entries: kvsync.Dict, key: str) -> str:
    return f"{entries.name}/{key}"


def _add_one(worker: Worker, entries: kvsync.Dict, key: str, history: Recording) -> None:
    label = _label(entries, key)
    while True:
        with worker.in_doubt():
            old = history.call(label, "read", None, partial(entries.get, key))
        expected, new = (kvsync.MISSING, 1) if old is None else (old, old + 1)
        swap = partial(WAYS[worker.way], entries, key, expected, new)
        with worker.in_doubt():
            if history.call(label, "cas", [old, new], swap):
                worker.journal.note(label, new)
                return


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_write, stage.processes)
        crew.be_struck()
    with stage.open() as store:
        stage.expect_accounted(_values(store), crew.killed, crew.unknown)
    judge.expect_legal(stage, partial(linearizability.flaw, model=Register()))
    stage.expect_sound_file()


def _values(store: kvsync.Store) -> dict[str, int]:
    dicts = [store.dict(name) for name in store.names("dict")]
    return {_label(entries, key): value for entries in dicts for key, value in entries.items()}

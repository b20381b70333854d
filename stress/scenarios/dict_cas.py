"""Compare-and-set loops of many processes on a few keys never lose an update, though some of the
processes are killed by SIGKILL at any instant.
"""

from collections.abc import Callable
from typing import Any

import kvsync
from stress.crew import Crew, Worker
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 4

_KEYS = ("a", "b", "c")


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
    entries = worker.store.dict("entries")
    while worker.going_on():
        key = worker.chance.choice(_KEYS)
        worker.journal.note(key, _add_one(entries, key, worker.way))
        worker.ready()


def _add_one(entries: kvsync.Dict, key: str, way: str) -> int:
    while True:
        old = entries.get(key, kvsync.MISSING)
        new = 1 if old is kvsync.MISSING else old + 1
        if WAYS[way](entries, key, old, new):
            return new


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_write, stage.processes)
        crew.assemble()
        while not stage.enough(crew.killed):
            crew.kill_one()
    with stage.open() as store:
        stage.expect_accounted(dict(store.dict("entries")), crew.killed)
    stage.expect_sound_file()

"""A fresh file that many processes open and use at once gives none of them an error of any kind,
and misses nothing that they wrote.
"""

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kvsync
from stress.crew import PATIENCE, Crew, Worker, new_barrier
from stress.plain import PlainCounter
from stress.stage import SOUND, Stage

UNIT = "rounds"
PROCESSES = 64
PRIMITIVES = ("store",)


def _open_and_add(path: str, number: int) -> int:
    with kvsync.open(path) as store:
        store.dict("entries")[str(number)] = number
        return store.counter("hits").add()


WAYS: dict[str, Callable[[str, int], int]] = {
    SOUND: _open_and_add,
    "plain-sqlite3": lambda path, _number: PlainCounter(path).add(),
}


def _take_part(worker: Worker, barrier: Any) -> None:
    worker.ready()
    while path := worker.pipe.recv():
        barrier.wait(PATIENCE)
        worker.pipe.send(_attempt(worker, path))


def _attempt(worker: Worker, path: str) -> str | None:
    try:
        WAYS[worker.way](path, worker.number)
    except Exception:
        return traceback.format_exc()
    return None


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_take_part, stage.processes, new_barrier(stage.processes))
        crew.assemble()
        rounds = 0
        while not stage.enough(rounds):
            rounds += 1
            _play(stage, crew, os.path.join(stage.folder, f"round-{rounds}.db"))
        for member in crew.members:
            member.dismiss("")


def _play(stage: Stage, crew: Crew, path: str) -> None:
    for member in crew.members:
        member.pipe.send(path)
    for error in [crew.receive(member) for member in crew.members]:
        stage.expect(error is None, str(error))
    if not stage.violations and stage.way == SOUND:
        _check(stage, path)
        _remove(path)


def _check(stage: Stage, path: str) -> None:
    with kvsync.open(path) as store:
        found = store.counter("hits").value, len(store.dict("entries"))
        damage = store.check().damage
    stage.expect(found == (stage.processes,) * 2, f"{found} of {stage.processes} are there")
    stage.expect(not damage, f"integrity_check: {damage}")


def _remove(path: str) -> None:
    """Make room for the next rounds."""
    for file in Path(path).parent.glob(f"{Path(path).name}*"):
        if file.is_file():
            file.unlink()

"""A holder that is stopped past its lease commits nothing under the guard of its lock, for whoever
held the lock after it has a larger token.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import kvsync
from stress.crew import Crew, Worker
from stress.journal import acknowledged
from stress.stage import SOUND, Stage

UNIT = "stops"
PROCESSES = 4

_LEASE = 0.05

WAYS: dict[str, Callable[[kvsync.Store, kvsync.Lock], AbstractContextManager[Any]]] = {
    SOUND: lambda store, lock: store.transaction(guard=lock),
    "no-guard": lambda store, _: store.transaction(),
}


def _write_in_turn(worker: Worker) -> None:
    lock = worker.store.lock("turn", lease=_LEASE)
    register = worker.store.dict("register")
    while worker.going_on():
        lock.acquire()
        token = lock.token
        assert token is not None
        worker.ready()
        time.sleep(worker.chance.uniform(0, _LEASE / 5))
        try:
            with WAYS[worker.way](worker.store, lock):
                last = register.get("token", 0)
                assert last <= token, f"a holder with token {token} wrote after {last}"
                register["token"] = token
                register.increment("writes")
        except kvsync.LeaseLostError:
            worker.journal.note("refused", 0)
        _release(worker, lock)


def _release(worker: Worker, lock: kvsync.Lock) -> None:
    try:
        lock.release()
    except kvsync.LeaseLostError:
        worker.journal.note("lost", 0)


def run(stage: Stage) -> None:
    stops = 0
    with Crew(stage) as crew:
        crew.start(_write_in_turn, stage.processes)
        crew.assemble()
        while not stage.enough(stops):
            victim = stage.chance.choice(crew.members).process.pid
            assert victim is not None
            os.kill(victim, signal.SIGSTOP)
            crew.watch(stage.chance.uniform(_LEASE, 3 * _LEASE))
            os.kill(victim, signal.SIGCONT)
            stops += 1
            crew.watch(stage.chance.uniform(0, _LEASE))
    notes = acknowledged(stage.folder)
    stage.figures |= {"refused": len(notes["refused"]), "lost": len(notes["lost"])}
    with stage.open() as store:
        stage.figures["writes"] = store.dict("register")["writes"]
    stage.expect_sound_file()

"""No two processes are inside what a lock protects, tokens rise, and nobody who dies by SIGKILL, at
any instant of acquiring, holding, releasing or reaping, leaves the lock taken; and the lock is
linearizable as a mutex with a fence.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import kvsync
from kvsync.tokens import Place, forget_some
from stress import judge
from stress.checkers import fenced_mutex, linearizability
from stress.checkers.models.held import FencedMutex
from stress.crew import PATIENCE, Crew, Worker
from stress.history import Recording
from stress.journal import acknowledged
from stress.stage import SOUND, Stage
from stress.witness import alone

UNIT = "kills"
PROCESSES = 6
PRIMITIVES = ("lock",)
LONG_CHECKS = (fenced_mutex.flaw,)

_FORGETS = 0.2
"""The part of the turns before which the names that nobody holds are forgotten: it would be done
seldom, and for many names only."""


@contextmanager
def _try(lock: kvsync.Lock) -> Iterator[Any]:
    """The broken twin of a wait with a timeout: nobody looks at what `acquire` returned."""
    taken = lock.acquire(timeout=0.001)
    yield
    if taken:
        lock.release()


WAYS: dict[str, Callable[[kvsync.Lock], AbstractContextManager[Any]]] = {
    SOUND: lambda lock: lock,
    "no-lock": lambda _: nullcontext(),
    "timeout-ignored": _try,
}


def _take_turns(worker: Worker) -> None:
    while worker.going_on():
        ending, history = worker.window()
        lock = worker.store.lock(f"turn{ending}")
        witness = f"{worker.path}-witness-{lock.name}"
        if worker.chance.random() < _FORGETS:
            with suppress(kvsync.BusyError):
                forget_some(worker.store.engine, Place(), worth=1, rest=0)
        turn = _recorded(worker, lock, history)
        with turn, alone(witness, lock.token), worker.holding():
            worker.journal.note(lock.name, 0)
            worker.ready()


@contextmanager
def _recorded(worker: Worker, lock: kvsync.Lock, history: Recording) -> Iterator[None]:
    turn = ExitStack()
    with worker.in_doubt():
        history.call(lock.name, "acquire", None, partial(_begin, turn, lock, worker.way))
    try:
        yield
    finally:
        with worker.in_doubt():
            history.call(lock.name, "release", None, turn.close)


def _begin(turn: ExitStack, lock: kvsync.Lock, way: str) -> int | None:
    turn.enter_context(WAYS[way](lock))
    return lock.token


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_take_turns, stage.processes)
        crew.be_struck()
    turns = acknowledged(stage.folder)
    stage.figures["turns"] = sum(map(len, turns.values()))
    stage.expect_some("turns")
    with stage.open() as store:
        for name in turns:
            taken = store.lock(name).acquire(timeout=PATIENCE)
            stage.expect(taken, f"the lock {name} is left taken")
    stage.books = crew.books()
    judge.expect_legal(stage, partial(linearizability.flaw, model=FencedMutex()), fenced_mutex.flaw)
    stage.expect_sound_file()

"""One thread at a time owns an rlock, under one token however often it takes it again, until its
last release, and nobody who dies by SIGKILL at any depth leaves it taken; and the rlock is
linearizable as a mutex that its holder may take again.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import kvsync
from stress import judge
from stress.checkers import Violation, fenced_mutex, linearizability
from stress.checkers.models.held import ReentrantMutex
from stress.crew import PATIENCE, Crew, Worker
from stress.history import History, Recording
from stress.journal import acknowledged
from stress.stage import SOUND, Stage
from stress.witness import alone

UNIT = "kills"
PROCESSES = 4
NEMESES = ("kill", "stop")
THREADS = 2

_DEEPEST = 4
_PAUSES = 0.1
_PAUSE = 0.001
"""Of the releases, and seconds before them."""


class Turn:
    """The sound way to take it, any number of times."""

    def __init__(self, lock: kvsync.RLock) -> None:
        self.lock = lock

    def acquire(self) -> int | None:
        self.lock.acquire()
        return self.lock.token

    def release(self) -> None:
        self.lock.release()


class _FreedByAnyRelease(Turn):
    def release(self) -> None:
        while self.lock.owned():
            self.lock.release()


class _TakenAnew(Turn):
    def acquire(self) -> int | None:
        if self.lock.owned():
            self.lock.release()
        return super().acquire()


class _OwnedByTheProcess(Turn):
    def __init__(self, lock: kvsync.RLock) -> None:
        vars(lock)["_key"] = lambda: (lock.name, os.getpid())
        super().__init__(lock)


WAYS: dict[str, Callable[[kvsync.RLock], Turn]] = {
    SOUND: Turn,
    "freed-by-any-release": _FreedByAnyRelease,
    "taken-anew": _TakenAnew,
    "owned-by-the-process": _OwnedByTheProcess,
}


def _take_turns(worker: Worker) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(partial(_take_turns_in_thread, worker), range(THREADS)))


def _take_turns_in_thread(worker: Worker, thread: int) -> None:
    window = worker.window_of(thread)
    try:
        while worker.going_on():
            ending, history = window()
            _take_turn(worker, f"turn{ending}", history)
    except BaseException:
        worker.explain()
        os._exit(1)  # the other thread would go on


def _take_turn(worker: Worker, name: str, history: Recording) -> None:
    turn = WAYS[worker.way](worker.store.rlock(name))
    acquire = partial(history.call, name, "acquire", None, turn.acquire)
    release = partial(history.call, name, "release", None, turn.release)
    again = worker.chance.randrange(_DEEPEST)
    with worker.in_doubt():
        token = acquire()
    with alone(f"{worker.path}-witness-{name}", token), worker.holding():
        for _ in range(again):
            with worker.in_doubt():
                assert acquire() == token, "a token has changed"
        worker.journal.note(name, again)
        worker.ready()
        for _ in range(again):
            with worker.in_doubt():
                release()
            time.sleep(_PAUSE * (worker.chance.random() < _PAUSES))
    with worker.in_doubt():
        release()


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_take_turns, stage.processes)
        crew.be_struck()
    turns = acknowledged(stage.folder)
    stage.figures |= {
        "turns": sum(map(len, turns.values())),
        "taken again": sum(map(sum, turns.values())),
    }
    stage.expect_some("turns")
    with stage.open() as store:
        for name in turns:
            taken = store.rlock(name).acquire(timeout=PATIENCE)
            stage.expect(taken, f"the rlock {name} is left taken")
    stage.books = crew.books()
    search = partial(linearizability.flaw, model=ReentrantMutex())
    judge.expect_legal(stage, search, _outer_flaw)
    stage.expect_sound_file()


def _outer_flaw(history: History) -> Violation | None:
    """Seen from outside it is a mutex with a fence."""
    return fenced_mutex.flaw(fenced_mutex.outer(history))

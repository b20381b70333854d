"""A process that forks while two of its threads write, and two others make a new store, loses no
write, its own or its children's, and neither it nor any of them hangs; what a child holds is free
when it dies.
"""

import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psutil

import kvsync
from stress import children
from stress.crew import PATIENCE, Crew, Worker
from stress.history import now
from stress.plain import PlainCounter
from stress.record import Fault
from stress.stage import SOUND, Stage

UNIT = "forks"
PROCESSES = 1
PRIMITIVES = ("counter",)
NEMESES = ("fork",)


class _GetAndSet:
    """A counter that adds by a read and a write."""

    def __init__(self, counter: kvsync.Counter) -> None:
        self._counter = counter

    def add(self) -> int:
        self._counter.set(number := self._counter.value + 1)
        return number


WAYS: dict[str, Callable[[Worker], Any]] = {
    SOUND: lambda worker: worker.store.counter("hits"),
    "get-and-set": lambda worker: _GetAndSet(worker.store.counter("hits")),
    "plain-sqlite3": lambda worker: PlainCounter(worker.path),
}

_THREADS = 2
_OF_A_CHILD = 10

_SHORTEST, _LONGEST = 1e-4, 3e-2
"""Seconds from when the threads begin to make a new store to the fork. To make it takes two
milliseconds in memory, and some thirty on a disk; so each length is as likely as its double.
"""


def _fork(worker: Worker) -> None:
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # it is what we are here for
    counter, over = WAYS[worker.way](worker), threading.Event()
    worker.ready()
    # So it has a session, which its children must not go on with.
    with worker.store.lock(f"of parent {worker.number}"), ThreadPoolExecutor(2 * _THREADS) as pool:
        writers = [pool.submit(_write, worker, counter, over) for _ in range(_THREADS)]
        try:
            while worker.going_on():
                _fork_once(worker, counter, pool)
        finally:
            over.set()
        for writer in writers:
            writer.result()


def _write(worker: Worker, counter: Any, over: threading.Event) -> None:
    while not over.is_set():
        worker.journal.note("hits", counter.add())
        worker.ready()


def _fork_once(worker: Worker, counter: Any, pool: ThreadPoolExecutor) -> None:
    with _new_store(worker) as path:
        adds = [pool.submit(_add_to_new, path) for _ in range(_THREADS)]
        time.sleep(_SHORTEST * (_LONGEST / _SHORTEST) ** worker.chance.random())
        began, child = now(), os.fork()
        if not child:
            children.live(lambda: _live_as_child(worker, counter, path), worker.explain)
        children.expect_well(_reap(psutil.Process(child)))
        _expect_all_added(path, adds)
    worker.pipe.send(began)


@contextmanager
def _new_store(worker: Worker) -> Iterator[str]:
    """A path for a store that nobody has made."""
    folder = f"{worker.path}-new-{worker.number}"
    os.mkdir(folder)
    yield os.path.join(folder, "new.db")
    shutil.rmtree(folder)


def _add_to_new(path: str) -> None:
    with kvsync.open(path) as store:
        store.counter("hits").add()


def _expect_all_added(path: str, adds: list[Future[None]]) -> None:
    for add in adds:
        add.result(PATIENCE / 4)
    with kvsync.open(path) as store:
        found = store.counter("hits").value
    assert found == len(adds) + 1, f"{found} of {len(adds) + 1} writes to a new store were found"


def _reap(child: psutil.Process) -> int:
    try:
        status: int = child.wait(PATIENCE / 2)
        return status
    except psutil.TimeoutExpired:
        child.kill()
        child.wait()
        raise


def _live_as_child(worker: Worker, counter: Any, path: str) -> None:
    _add_to_new(path)
    for _ in range(_OF_A_CHILD):
        worker.journal.note("hits", counter.add())
    taken = worker.store.lock("of the child").acquire(timeout=PATIENCE / 4)
    assert taken, "what a forked child held was not freed by its death"


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_fork, stage.processes)
        crew.assemble()
        forks = 0
        while not stage.enough(forks):
            for member in crew.members:
                crew.note(Fault("fork", member.number, crew.receive(member), now()))
                forks += 1
    _expect_nothing_lost(stage)


def _expect_nothing_lost(stage: Stage) -> None:
    with stage.open() as store:
        counter = (
            PlainCounter(stage.path) if stage.way == "plain-sqlite3" else store.counter("hits")
        )
        stage.expect_accounted({"hits": counter.value})
    stage.expect_sound_file()

"""A process that opens the store, uses all that there is in it, from threads that come and go, and
closes it, again and again, needs no more descriptors, threads and memory at the end than at first.

The same is asked of one process of every other scenario; here it does nothing else.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

import kvsync
from stress.crew import Crew, Worker
from stress.stage import SOUND, Stage

UNIT = "rounds"
PROCESSES = 2
PRIMITIVES = (
    "store dict counter counters transaction lock rlock semaphore rwlock event condition election"
    " rate_limiter once queue"
).split()

_kept: list[Any] = []


def _keep_a_thread() -> None:
    thread = threading.Thread(target=threading.Event().wait, daemon=True)
    thread.start()
    _kept.append(thread)


WAYS: dict[str, Callable[[], object]] = {
    SOUND: lambda: None,
    "keeps-descriptors": lambda: _kept.append(os.open(os.devnull, os.O_RDONLY)),
    "keeps-threads": _keep_a_thread,
    "keeps-memory": lambda: _kept.append(os.urandom(1 << 18)),
}


def _live(worker: Worker) -> None:
    while worker.going_on():
        with kvsync.open(worker.path) as store:
            _use_values(store, worker.number)
            _use_holds(store, worker.number)
            _from_a_thread(store)
        WAYS[worker.way]()
        worker.ready()


def _use_values(store: kvsync.Store, number: int) -> None:
    entries = store.dict(f"entries {number}")
    with store.transaction():
        entries["key"] = "value" * 100
        store.counter("hits").add()
    store.counters("labels").add(str(number))
    assert list(entries) == ["key"]
    del entries["key"]
    jobs = store.queue(f"jobs {number}")
    jobs.put("item")
    with jobs.reserve(timeout=0) as task:
        assert task.item == "item"


def _use_holds(store: kvsync.Store, number: int) -> None:
    both, condition = store.rwlock("both"), store.condition("condition")
    with store.lock("lock"), store.rlock("rlock"), store.semaphore("permits", 2):
        pass
    with both.read():
        pass
    with both.write(), condition:
        condition.notify()
    store.event("event").set()
    assert store.event("event").wait(0)
    store.rate_limiter("rate", 1_000_000, per=1).acquire()
    store.once(f"once {number}").run(lambda: None)
    with store.election(f"election {number}"):
        pass


def _from_a_thread(store: kvsync.Store) -> None:
    """Which has a connection of its own."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(store.counter("hits").add()))
    thread.start()
    thread.join()
    assert found


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_live, stage.processes)
        crew.assemble()
        while not stage.enough(crew.operations()):
            crew.watch(0.05)
    stage.figures[UNIT] = stage.operations
    stage.expect_some(UNIT)
    stage.expect_sound_file()

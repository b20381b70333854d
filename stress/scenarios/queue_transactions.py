"""The result of every item is written exactly once, in the transaction that acknowledges it, though
producers and consumers are killed by SIGKILL at any instant, and some are too slow.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from queue import Full

import kvsync
from stress.backlog import (
    HANDED_OUT,
    SETTLED,
    VISIBILITY,
    drain,
    in_hand,
    jobs_of,
    numbers,
    recovered,
    reserved,
)
from stress.crew import Crew, Worker
from stress.journal import UNKNOWN, acknowledged
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 8
PRIMITIVES = ("queue", "counter", "transaction")

WAYS: dict[str, Callable[[kvsync.Store], AbstractContextManager[None]]] = {
    SOUND: kvsync.Store.transaction,
    "separate-commits": lambda _store: nullcontext(),
}

_SLOW = 0.005


def _produce(worker: Worker) -> None:
    jobs, put = jobs_of(worker.store), worker.store.counter("put")
    for number in numbers(worker):
        with suppress(Full):
            with worker.in_doubt():
                with worker.store.transaction():
                    jobs.put_nowait(number)
                    put.add()
                worker.journal.note("put", UNKNOWN)
            worker.ready()


def _consume(worker: Worker) -> None:
    for task, hand in reserved(worker):
        with in_hand(worker, task):
            if worker.chance.random() < _SLOW:
                time.sleep(1.5 * VISIBILITY)
        try:
            with worker.in_doubt():
                _finish(worker.store, task, worker.way)
        except kvsync.StaleReceiptError:
            hand.expect_over()


def _finish(store: kvsync.Store, task: kvsync.Task, way: str) -> None:
    with WAYS[way](store):
        store.counters("results").add(str(task.id))
        store.counter("results").add()
        task.ack()


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_produce, stage.processes // 2)
        crew.start(_consume, stage.processes - stage.processes // 2)
        crew.be_struck()
    with stage.open() as store:
        stage.figures["by workers"] = store.counter("results").value
        stage.expect_some("by workers")
        rest = []
        for task in drain(stage, store):
            _finish(store, task, SOUND)
            rest.append(task.item)
        _expect_each_once(stage, store)
        stage.expect_accounted(
            {"put": store.counter("put").value},
            crew.killed,
            crew.unknown,
            recovered=recovered(acknowledged(stage.folder), rest),
            beside=(HANDED_OUT, SETTLED),
        )
    stage.expect_sound_file()


def _expect_each_once(stage: Stage, store: kvsync.Store) -> None:
    put, total = store.counter("put").value, store.counter("results").value
    results = dict(store.counters("results"))
    more = [number for number, times in results.items() if times > 1]
    stage.expect(not more, f"{len(more)} items have more than one result: {more[:5]}")
    stage.expect(len(results) == total == put, f"{put} items, {len(results)} have {total} results")
    stage.figures |= {"put": put, "results": total}

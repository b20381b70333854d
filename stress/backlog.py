"""What the scenarios of queues share: who puts, and how the last items are worked off."""

import queue
from collections.abc import Callable, Iterator
from contextlib import suppress

import kvsync
from stress.crew import PATIENCE, Worker
from stress.stage import Stage

NAME = "jobs"
MAXSIZE = 500
"""Small enough that putters often wait for room."""

VISIBILITY = 0.1
"""Seconds."""

SHORTLY = 0.05
"""Seconds after which who waits looks whether to go on. On a busy machine that may be too short for
its turn to write, too: then nothing was changed."""


_PER_PRODUCER = 10_000_000


def jobs_of(store: kvsync.Store) -> kvsync.Queue:
    """Items whose workers are killed or late come back as often as that happens."""
    return store.queue(NAME, MAXSIZE, max_attempts=1_000_000, visibility=VISIBILITY)


def numbers(worker: Worker) -> Iterator[int]:
    """A new number each time, above all those before, and of nobody else; until it is enough."""
    number = worker.number * _PER_PRODUCER
    while worker.going_on():
        number += 1
        yield number


def producer_of(number: int) -> int:
    """Who put it."""
    return number // _PER_PRODUCER


def produce(worker: Worker) -> None:
    """Put numbers; note each before, and its id after."""
    jobs = jobs_of(worker.store)
    for number in numbers(worker):
        worker.journal.note("putting", number)
        with suppress(queue.Full, kvsync.BusyError):
            worker.journal.note("id", jobs.put(number, timeout=SHORTLY) or 0)
            worker.journal.note("put", number)
            worker.ready()


def reserved(worker: Worker) -> Iterator[kvsync.Task]:
    """One task after the other, until it is enough."""
    jobs = jobs_of(worker.store)
    while worker.going_on():
        with suppress(queue.Empty, kvsync.BusyError):
            yield jobs.reserve(SHORTLY)
            worker.ready()


def got(worker: Worker, get: Callable[[kvsync.Queue], int]) -> Iterator[int]:
    """One item after the other, until it is enough."""
    jobs = jobs_of(worker.store)
    while worker.going_on():
        with suppress(queue.Empty, kvsync.BusyError):
            yield get(jobs)
            worker.ready()


def drain(stage: Stage, store: kvsync.Store) -> Iterator[kvsync.Task]:
    """What is left when all workers have gone; nothing of it stays, nor among the dead letters."""
    jobs = jobs_of(store)
    while jobs.unfinished_tasks:
        yield jobs.reserve(PATIENCE)
    left = store.engine.read("select state, id from kvsync_item")
    stage.expect(not left, f"left in the queue: {left[:5]}")

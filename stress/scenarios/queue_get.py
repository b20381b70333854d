"""No item is got twice, though producers and consumers are killed by SIGKILL at any instant; none
is lost but what a killed consumer was just getting; nobody is told that the queue is empty or full
when it is not; and it is linearizable.
"""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from queue import Empty

import kvsync
from stress import judge
from stress.backlog import MAXSIZE, ROOM, SHORTLY, expect_unheard, get_all, got, left, produce
from stress.checkers import linearizability, refusals, total_queue
from stress.checkers.models.queue import FifoQueue
from stress.crew import Crew, Job, Worker
from stress.journal import acknowledged
from stress.record import Books
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 8
PRIMITIVES = ("queue",)
LONG_CHECKS = (total_queue.flaw, partial(refusals.flaw, maxsize=MAXSIZE))

_GIVES_UP = 0.9


def _peek_and_delete(jobs: kvsync.Queue) -> int:
    """As one reads the first row, and then deletes it."""
    for first in jobs.peek():
        jobs.store.engine.write(
            "delete from kvsync_item where queue = :queue and id = :id",
            {"queue": jobs.name, "id": first.id},
        )
        jobs.store.engine.write(
            "update kvsync_item set size = size - 1 where queue = :queue and size > 0",
            {"queue": jobs.name},
        )
        item: int = first.item
        return item
    raise Empty


def _give_up(jobs: kvsync.Queue) -> int:
    """Mostly without a look."""
    if random.random() < _GIVES_UP:
        raise Empty
    number: int = jobs.get(timeout=SHORTLY)
    return number


WAYS: dict[str, Callable[[kvsync.Queue], int]] = {
    SOUND: lambda jobs: jobs.get(timeout=SHORTLY),
    "peek-then-delete": _peek_and_delete,
    "gives-up": _give_up,
}


def _consume(worker: Worker) -> None:
    for _, number in got(worker, WAYS[worker.way]):
        worker.journal.note("got", number)


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(produce, stage.processes // 2)
        crew.start(_consume, stage.processes - stage.processes // 2)
        crew.be_struck()
    with stage.open() as store:
        rest = [number for each in left(stage, store) for number in get_all(*each)]
    _expect_accounted(stage, rest, crew.killed_at, crew.unknown)
    stage.expect_some("put", "by workers")
    search = partial(linearizability.flaw, model=FifoQueue())
    judge.expect_legal(stage, search, total_queue.flaw, partial(refusals.flaw, maxsize=ROOM))
    stage.expect_sound_file()


def _expect_accounted(
    stage: Stage, rest: list[int], killed: Counter[Job], unknown: int | None = None
) -> None:
    """Who is killed as it gets takes its item with it: that is what at most once means. Of what who
    is killed as it puts was putting, nobody heard; all else that it put is there."""
    notes = acknowledged(stage.folder)
    times = Counter(notes["got"] + rest)
    twice = [number for number, count in times.items() if count > 1]
    stage.expect(not twice, f"{len(twice)} items were got twice: {twice[:5]}")
    forged = times.keys() - set(notes["putting"])
    stage.expect(not forged, f"got, but never put: {sorted(forged)[:5]}")
    lost, consumers = len(set(notes["put"]) - times.keys()), killed[_consume]
    stage.expect(lost <= consumers, f"{lost} items are lost, {consumers} consumers were killed")
    puts = len(times.keys() - set(notes["put"]))
    expect_unheard(stage, "puts", puts, "producers", killed[produce])
    gets = min(lost, consumers)
    unheard = puts + gets
    stage.expect_heard(unheard, unknown)
    stage.books = Books(len(notes["put"]), lost - gets, None, unknown, unheard, killed.total())
    stage.figures |= {
        "put": len(notes["put"]),
        "got": sum(times.values()),
        "by workers": len(notes["got"]),
        "unheard gets": gets,
        "unheard puts": puts,
    }

"""Every item that was put is acknowledged exactly once, by who was handed it last, though producers
and consumers are killed by SIGKILL at any instant, some consumers are so slow that their items are
given to others, and no sooner, and some put theirs back; and as they are handed out for the first
time, the items leave in the order in which they came.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from queue import Empty

import kvsync
from stress import judge
from stress.backlog import (
    HANDED_OUT,
    ROOM,
    VISIBILITY,
    Hand,
    Loop,
    expect_nothing_left,
    expect_unheard,
    handed_out,
    in_hand,
    left,
    named,
    packed,
    produce,
    recovered,
    reserve,
    windows_of,
)
from stress.checkers import Violation, linearizability, refusals
from stress.checkers.handed_out import first_hand_outs, flaw
from stress.checkers.models.queue import FifoQueue
from stress.crew import PATIENCE, Crew, Job, Worker
from stress.history import History, Recording, now
from stress.journal import acknowledged
from stress.record import Books
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 16
PRIMITIVES = ("queue",)

_SLOW = 0.01
"""Of the hand-outs, as many take longer than they may."""

_GOES_ON = 0.9
"""As often does who loops go on to the next, at once."""

_FAILS = 0.02
"""As many are for naught, and the item is put back."""


def _ack_by_id(task: kvsync.Task) -> None:
    """As one who knows the item, and not whether it is still his."""
    task._items.engine.write(
        "delete from kvsync_item where queue = :queue and id = :id",
        {"queue": task._items.queue, "id": task.id},
    )


WAYS: dict[str, Callable[[kvsync.Task], None]] = {
    SOUND: kvsync.Task.ack,
    "ack-by-id": _ack_by_id,
}


def _consume(worker: Worker) -> None:
    if worker.way == SOUND and worker.number % 2:
        _loop(worker)
    for task, hand, history in handed_out(worker):
        _work(worker, task)
        with worker.in_doubt():
            _settle(worker, task, hand, history)


def _work(worker: Worker, task: kvsync.Task) -> None:
    with in_hand(worker, task):
        if worker.chance.random() < _SLOW:
            time.sleep(1.5 * VISIBILITY)
        worker.journal.note("worked", task.item)


def _loop(worker: Worker) -> None:
    """In short `for` loops over the tasks."""
    window = windows_of(worker)
    while worker.going_on():
        jobs, history = window()
        hand, loop = Hand(now()), Loop(jobs, history)
        with suppress(Empty, kvsync.BusyError):
            with worker.in_doubt():
                task: kvsync.Task | None = loop.next()
            while task is not None:
                _work(worker, task)
                goes_on, asked = worker.chance.random() < _GOES_ON, Hand(now())
                with worker.in_doubt():
                    if goes_on and worker.going_on():
                        task = _go_on(worker, loop, task, hand)
                    else:
                        _settle(worker, task, hand, history)
                        task = None
                hand = asked
                worker.ready()


def _go_on(worker: Worker, loop: Loop, task: kvsync.Task, hand: Hand) -> kvsync.Task | None:
    try:
        following = loop.next_after(task)
    except kvsync.StaleReceiptError:
        _was_late(worker, task, hand)
        return None
    _was_in_time(worker, task)
    return following


def _settle(worker: Worker, task: kvsync.Task, hand: Hand, history: Recording) -> None:
    try:
        if worker.chance.random() < _FAILS:
            task.retry(delay=0)
            return
        _ack(task, history, WAYS[worker.way])
    except kvsync.StaleReceiptError:
        _was_late(worker, task, hand)
    else:
        _was_in_time(worker, task)


def _was_late(worker: Worker, task: kvsync.Task, hand: Hand) -> None:
    hand.expect_over()
    worker.journal.note("late", task.item)


def _was_in_time(worker: Worker, task: kvsync.Task) -> None:
    worker.journal.note("acknowledged", task.item)
    worker.journal.note("under", packed(task))


def _ack(task: kvsync.Task, history: Recording, way: Callable[[kvsync.Task], None]) -> None:
    jobs = task._items.queue
    history.call(jobs, "ack", named(task), partial(way, task), kvsync.StaleReceiptError)


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(produce, stage.processes // 2)
        crew.start(_consume, stage.processes - stage.processes // 2)
        crew.be_struck()
    _expect_none_twice(stage)
    _expect_only_the_last(stage)
    worked_off = not stage.violations and _expect_all(stage, crew.killed_at, crew.unknown)
    stage.expect_some("put", "by workers")
    checks = partial(flaw, worked_off=worked_off), partial(refusals.flaw, maxsize=ROOM)
    judge.expect_legal(stage, _disorder, *checks)
    stage.expect_sound_file()


def _disorder(history: History) -> Violation | None:
    return linearizability.flaw(first_hand_outs(history), FifoQueue())


def _expect_none_twice(stage: Stage) -> None:
    times = Counter(acknowledged(stage.folder)["acknowledged"])
    twice = [number for number, count in times.items() if count > 1]
    stage.expect(not twice, f"{len(twice)} items were acknowledged twice: {twice[:5]}")


def _expect_only_the_last(stage: Stage) -> None:
    """Only who has an item now may acknowledge it: not one from whom it was taken before."""
    last: dict[int, int] = {}
    notes = acknowledged(stage.folder)
    for each in notes[HANDED_OUT]:
        last[each >> 64] = max(each, last.get(each >> 64, 0))
    stale = [each >> 64 for each in notes["under"] if each < last[each >> 64]]
    stage.expect(not stale, f"{len(stale)} acks under a receipt that was over: {stale[:5]}")


def _expect_all(stage: Stage, killed: Counter[Job], unknown: int) -> bool:
    """Those that are left are acknowledged here; whether that came to an end."""
    with stage.open() as store:
        try:
            rest = [*_work_off(stage, store)]
        except Empty:
            stage.expect(False, "items are counted that are not to be had")
            return False
        expect_nothing_left(stage, store)
        for (size,) in store.engine.read("select size from kvsync_queue"):
            stage.expect(size == 0, f"an empty queue counts {size} items")
    _expect_accounted(stage, rest, killed, unknown)
    return True


def _work_off(stage: Stage, store: kvsync.Store) -> Iterator[int]:
    """Raises: Empty if some of them cannot be had."""
    for jobs, history in left(stage, store):
        while jobs.unfinished_tasks:
            task = reserve(jobs, PATIENCE, history)
            _ack(task, history, kvsync.Task.ack)
            yield task.item


def _expect_accounted(
    stage: Stage, rest: list[int], killed: Counter[Job], unknown: int | None = None
) -> None:
    """An ack of which nobody knows was cut off by the kill of a consumer, a put by that of a
    producer."""
    notes = acknowledged(stage.folder)
    acked, worked, put = {*notes["acknowledged"]}, {*notes["worked"], *rest}, {*notes["put"]}
    ids = [each for name, each in notes.items() if name.startswith("id-in-")]
    stage.expect(all(len({*each}) == len(each) for each in ids), "an id was given to two items")
    stage.expect(acked.isdisjoint(rest), "what was acknowledged came again")
    lost = put - worked
    stage.expect(not lost, f"{len(lost)} items were never worked on: {sorted(lost)[:5]}")
    acks, puts = len(worked - acked - {*rest}), len(worked - put)
    expect_unheard(stage, "acks", acks, "consumers", killed[_consume])
    expect_unheard(stage, "puts", puts, "producers", killed[produce])
    unheard, known = acks + puts, len(acked) + len(rest)
    stage.expect_heard(unheard, unknown)
    back = recovered(notes, rest)
    stage.books = Books(known, len(lost), back, unknown, unheard, killed.total())
    stage.figures |= {
        "put": len(put),
        "acknowledged": known,
        "by workers": len(acked),
        "late": len(notes["late"]),
        "worked on again": len(notes["worked"]) - len({*notes["worked"]}),
        "unheard acks": acks,
        "unheard puts": puts,
    }

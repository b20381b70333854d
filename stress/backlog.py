"""What the scenarios of queues share: who puts, and how the last items are worked off."""

import queue
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import lru_cache, partial
from typing import NamedTuple

import kvsync
from stress.crew import PATIENCE, Worker
from stress.history import Recording, now
from stress.stage import Stage
from stress.windows import is_long

NAME = "jobs"
MAXSIZE = 500
"""Small enough that putters often wait for room."""

VISIBILITY = 0.1
"""Seconds."""

SHORTLY = 0.02
"""Seconds after which who waits looks whether to go on, and where: less than half of a window's.
On a busy machine that may be too short for its turn to write, too: then nothing was changed."""


ROOM = 10
"""As many items hold the queues of the windows in which calls are recorded: few, so that a search
need not try many orders in which they may have come in."""

HANDED_OUT, SETTLED = "handed-out", "settled"
"""Notes of hand-outs, `packed`; and that whoever had them was about to settle them."""

_PER_PRODUCER = 10_000_000
_MASTER = 0
"""Who works off the last items, in the histories."""


def jobs_of(store: kvsync.Store, ending: str = "") -> kvsync.Queue:
    """Items whose workers are killed or late come back as often as that happens."""
    size = ROOM if ending and not is_long(ending) else MAXSIZE
    return store.queue(NAME + ending, size, max_attempts=1_000_000, visibility=VISIBILITY)


def windows_of(worker: Worker) -> Callable[[], tuple[kvsync.Queue, Recording]]:
    """Says which queue to use now, and where to call it."""
    jobs = lru_cache(2)(partial(jobs_of, worker.store))

    def window() -> tuple[kvsync.Queue, Recording]:
        ending, history = worker.window()
        return jobs(ending), history

    return window


class Hand(NamedTuple):
    """In which a worker has an item, for as long as it may, from no sooner than `asked` on."""

    asked: int

    def expect_over(self) -> None:
        """It was told that the item is in its hand no more, and lives."""
        held = (now() - self.asked) / 1e9
        assert held >= VISIBILITY, f"an item was given to another after {held:.3f} s at most"


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
    """Put numbers; note each before and after."""
    window = windows_of(worker)
    for number in numbers(worker):
        worker.journal.note("putting", number)
        jobs, history = window()
        put = partial(jobs.put, number, timeout=SHORTLY)
        with suppress(queue.Full, kvsync.BusyError):
            with worker.in_doubt():
                number_of = history.call(jobs.name, "put", number, put, queue.Full)
                worker.journal.note(f"id-in-{jobs.name}", number_of or 0)
                worker.journal.note("put", number)
            worker.ready()


def reserved(worker: Worker) -> Iterator[tuple[kvsync.Task, Hand]]:
    """One task after the other, until it is enough."""
    jobs = jobs_of(worker.store)
    while worker.going_on():
        hand = Hand(now())
        with suppress(queue.Empty, kvsync.BusyError):
            with worker.in_doubt():
                task = jobs.reserve(SHORTLY)
            yield task, hand
            worker.ready()


@contextmanager
def in_hand(worker: Worker, task: kvsync.Task) -> Iterator[None]:
    """Note that it certainly has it, until it begins to settle it."""
    worker.journal.note(HANDED_OUT, packed(task))
    yield
    worker.journal.note(SETTLED, packed(task))


def packed(task: kvsync.Task) -> int:
    """The hand-out in one number; of one item, the later one has the larger."""
    number: int = task.item
    return number << 64 | task.receipt


def recovered(notes: Mapping[str, list[int]], rest: Iterable[int]) -> int:
    """Hand-outs of who was killed with the item in hand, after which there was another: to a
    worker, or, for the items of `rest`, when all workers had gone."""
    last = {each >> 64: each for each in sorted(notes[HANDED_OUT])}
    unfinished = {*notes[HANDED_OUT]} - {*notes[SETTLED]}
    left = {*rest}
    return sum(each < last[each >> 64] or each >> 64 in left for each in unfinished)


def handed_out(worker: Worker) -> Iterator[tuple[kvsync.Task, Hand, Recording]]:
    """The same, recorded; and where to settle it."""
    window = windows_of(worker)
    while worker.going_on():
        jobs, history = window()
        hand = Hand(now())
        with suppress(queue.Empty, kvsync.BusyError):
            with worker.in_doubt():
                task = reserve(jobs, SHORTLY, history)
            yield task, hand, history
            worker.ready()


def reserve(jobs: kvsync.Queue, timeout: float, history: Recording) -> kvsync.Task:
    return _recorded(jobs.name, partial(jobs.reserve, timeout), history)


def _recorded(name: str, reserve: Callable[[], kvsync.Task], history: Recording) -> kvsync.Task:
    task: list[kvsync.Task] = []

    def take() -> list[int]:
        task.append(reserve())
        return named(task[0])

    history.call(name, "reserve", None, take, queue.Empty)
    return task[0]


class Loop:
    """The tasks of one queue in a `for` loop, recorded: to acknowledge one takes the next."""

    def __init__(self, jobs: kvsync.Queue, history: Recording) -> None:
        self._name = jobs.name
        self._tasks = jobs.tasks(SHORTLY)
        self._history = history

    def next(self) -> kvsync.Task:
        """Raises: queue.Empty; StaleReceiptError if the last was not this worker's any more, which
        says nothing of whether there was another: so the outcome is unknown then.
        """
        return _recorded(self._name, self._take, self._history)

    def _take(self) -> kvsync.Task:
        for task in self._tasks:
            return task
        raise queue.Empty

    def next_after(self, task: kvsync.Task) -> kvsync.Task | None:
        """The same, which acknowledges that one; None if it did, and there is no other."""
        following: list[kvsync.Task] = []

        def go_on() -> None:
            with suppress(queue.Empty):
                following.append(self.next())

        stale = kvsync.StaleReceiptError
        self._history.call(self._name, "ack", named(task), go_on, stale)
        return following[0] if following else None


def named(task: kvsync.Task) -> list[int]:
    """Its item and its receipt."""
    return [task.item, task.receipt]


def got(worker: Worker, get: Callable[[kvsync.Queue], int]) -> Iterator[tuple[str, int]]:
    """One item after the other, with the name of its queue, until it is enough; the call is in
    doubt until the next one is asked for.
    """
    window = windows_of(worker)
    while worker.going_on():
        jobs, history = window()
        with suppress(queue.Empty, kvsync.BusyError):
            take = partial(history.call, jobs.name, "get", None, partial(get, jobs), queue.Empty)
            with worker.in_doubt():
                yield jobs.name, take()
            worker.ready()


def left(stage: Stage, store: kvsync.Store) -> Iterator[tuple[kvsync.Queue, Recording]]:
    """The queues, when all workers have gone, and where to call them."""
    for name in store.names("queue"):
        ending = name.removeprefix(NAME)
        with closing(stage.windows.recorder(ending, _MASTER)) as history:
            yield jobs_of(store, ending), history


def get_all(jobs: kvsync.Queue, history: Recording) -> Iterator[int]:
    """Until it is empty."""
    with suppress(queue.Empty):
        while True:
            yield history.call(jobs.name, "get", None, jobs.get_nowait, queue.Empty)


def drain(stage: Stage, store: kvsync.Store) -> Iterator[kvsync.Task]:
    """What is left when all workers have gone; nothing of it stays, nor among the dead letters."""
    jobs = jobs_of(store)
    while jobs.unfinished_tasks:
        yield jobs.reserve(PATIENCE)
    expect_nothing_left(stage, store)


def expect_unheard(stage: Stage, what: str, count: int, who: str, killed: int) -> None:
    """Calls that are done, and that nobody heard of, were cut off by kills: one by each."""
    stage.expect(count <= killed, f"{count} {what} are unheard, {killed} {who} were killed")


def expect_nothing_left(stage: Stage, store: kvsync.Store) -> None:
    items = store.engine.read("select state, id from kvsync_item where state > -2")
    stage.expect(not items, f"left in the queue: {items[:5]}")

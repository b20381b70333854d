"""Working off one item after the other: to acknowledge the last takes the next in one commit."""

import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import kvsync
from kvsync.engine.sqlite import SqliteEngine
from kvsync.primitives import work as work_module
from kvsync.primitives.items import Items
from kvsync.testing import ManualClock
from tests.interrupted import after_each_call, at_each_point
from tests.processes import eventually, in_thread
from tests.queues import NAME, items, taken, tickets, waiting

Work = Callable[[kvsync.Queue, Callable[[kvsync.Task], Any]], Any]


def loop(jobs: kvsync.Queue, handle: Callable[[kvsync.Task], Any]) -> None:
    for task in jobs.tasks(timeout=0):
        handle(task)


def work(jobs: kvsync.Queue, handle: Callable[[kvsync.Task], Any]) -> None:
    jobs.work(handle, timeout=0)


def threads_of(what: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if what in thread.name]


working = pytest.mark.parametrize("work_off", [loop, work])


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the calls by which this process has written."""
    seen: list[str] = []
    for name in ("write", "transact"):
        call = getattr(SqliteEngine, name)

        def noted(*given: Any, _name: str = name, _call: Any = call, **options: Any) -> Any:
            seen.append(_name)
            return _call(*given, **options)

        monkeypatch.setattr(SqliteEngine, name, noted)
    return seen


@working
def test_to_go_on_is_one_commit(store: kvsync.Store, writes: list[str], work_off: Work) -> None:
    jobs, each = store.queue(NAME), list[Any]()
    jobs.put_many("abcd")

    def handle(task: kvsync.Task) -> None:
        each.append((task.item, task.attempts, writes[:]))
        writes.clear()

    writes.clear()
    work_off(jobs, handle)
    assert [(item, attempts) for item, attempts, _ in each] == [(item, 1) for item in "abcd"]
    assert [calls for *_, calls in each[1:]] == [["write"]] * 3
    assert items(store) == []


@working
def test_the_last_one_ends_a_join(store: kvsync.Store, work_off: Work) -> None:
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    with waiting(jobs.join, store) as join:
        work_off(jobs, lambda task: task.item)
        assert join.result() is True


@working
def test_who_is_too_late_takes_nothing_with_it(path: Path, work_off: Work) -> None:
    """What another has by now it does not acknowledge. `work` goes on, and a loop ends."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs, seen = store.queue(NAME, visibility=10), list[Any]()
        others: list[kvsync.Task] = []
        jobs.put_many("abc")

        def handle(task: kvsync.Task) -> None:
            seen.append((task.item, task.attempts))
            if task.item == "a":
                clock.advance(11)
                assert jobs.qsize() == 3
                others.append(jobs.reserve(visibility=1000))

        if work_off is loop:
            with pytest.raises(kvsync.StaleReceiptError):
                loop(jobs, handle)
            assert [(each.item, each.attempts) for each in jobs.peek(9)] == [("b", 0), ("c", 0)]
        work_off(jobs, handle)
        assert seen == [("a", 1), ("b", 1), ("c", 1)]
        assert others[0].is_current()
        assert items(store) == [others[0].id]


@working
def test_a_next_one_that_cannot_be_read_is_a_dead_letter(
    store: kvsync.Store, work_off: Work
) -> None:
    """The one before it is done with, and the work goes on."""
    jobs, seen = store.queue(NAME), list[Any]()
    jobs.put_many("abc")
    store.engine.write("update kvsync_item set value = '{' where id = 2")
    work_off(jobs, lambda task: seen.append(task.item))
    assert seen == ["a", "c"]
    assert [letter.id for letter in jobs.dead] == items(store) == [2]


@working
def test_what_falls_due_meanwhile_is_next(path: Path, work_off: Work) -> None:
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs, seen = store.queue(NAME), list[Any]()
        jobs.put_many("ab")
        jobs.put("urgent", delay=5, priority=1)

        def handle(task: kvsync.Task) -> None:
            seen.append(task.item)
            clock.advance(6)

        work_off(jobs, handle)
        assert seen == ["a", "urgent", "b"]


@working
def test_who_waits_for_room_is_let_in(store: kvsync.Store, work_off: Work) -> None:
    jobs, seen = store.queue(NAME, maxsize=2), list[Any]()
    jobs.put_many("ab")
    with waiting(lambda: jobs.put("c"), store) as put:
        work_off(jobs, lambda task: seen.append(task.item))
        assert put.result()
        assert seen in (["a", "b", "c"], ["a", "b"])
        assert len(seen) + jobs.qsize() == 3


@working
def test_what_an_earlier_call_has_left_goes_back_first(store: kvsync.Store, work_off: Work) -> None:
    jobs, seen = store.queue(NAME), list[Any]()
    jobs.put_many("abc")
    first = jobs.reserve()

    def handle(task: kvsync.Task) -> None:
        seen.append(task.item)
        if task.item == "b":
            store.session.undo_before_next(lambda _: first.give_back())

    work_off(jobs, handle)
    assert seen == ["b", "a", "c"]


@working
def test_what_is_handed_on_is_in_hand_as_any_other(path: Path, work_off: Work) -> None:
    """For as long, and for as many attempts."""
    clock = ManualClock()
    columns = "session, max_attempts, taken, until, claim_by, ticket"
    with kvsync.open(path, clock=clock) as store:
        jobs, rows = store.queue(NAME, visibility=10, max_attempts=3), list[Any]()
        jobs.put_many("ab")

        def handle(task: kvsync.Task) -> None:
            clock.advance(1)
            rows.extend(store.engine.read(f"select {columns} from kvsync_item where state = -1"))
            assert task.is_current()

        work_off(jobs, handle)
    (session, most, taken, until, *rest), second = rows
    assert (most, rest) == (3, [None, None])
    assert second == (session, most, taken + 1, until + 1, *rest)


@working
def test_a_store_that_was_replaced_meanwhile_is_noticed(
    store: kvsync.Store, tmp_path: Path, work_off: Work
) -> None:
    """Before the next item is taken from it."""
    jobs, seen = store.queue(NAME), list[Any]()
    jobs.put_many("ab")
    with kvsync.open(tmp_path / "other.db") as other:
        other.queue(NAME).put("of another store")

    def handle(task: kvsync.Task) -> None:
        seen.append(task.item)
        (tmp_path / "other.db").rename(store.path)

    with pytest.raises(kvsync.StoreReplacedError):
        work_off(jobs, handle)
    assert seen == ["a"]


@working
def test_who_finds_the_store_busy_may_settle_by_hand(path: Path, work_off: Work) -> None:
    """Nothing was taken, so nothing is taken back; the item stays in hand until the next call."""
    hog = sqlite3.connect(path, isolation_level=None)
    with kvsync.open(path, busy_timeout=0.1) as store, closing(hog):
        jobs, tasks = store.queue(NAME), list[kvsync.Task]()
        jobs.put_many("ab")

        def handle(task: kvsync.Task) -> None:
            tasks.append(task)
            hog.execute("begin immediate")

        with pytest.raises(kvsync.BusyError):
            work_off(jobs, handle)
        hog.execute("rollback")
        assert store.session.has_leftovers()
        assert not threads_of("leftovers")
        tasks[0].ack()
        assert items(store) == [2]


@working
def test_who_waits_for_each_item_tries_nothing_in_vain(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch, work_off: Work
) -> None:
    """That would be a write for nothing, each time."""
    handed_on = list[Any]()
    hand_on = Items.hand_on
    monkeypatch.setattr(Items, "hand_on", lambda *given: handed_on.append(1) or hand_on(*given))
    jobs = store.queue(NAME)
    wait = jobs.work if work_off is work else lambda handle: [*map(handle, jobs.tasks())]
    with waiting(lambda: wait(lambda task: task.item), store) as call:
        for number in range(3):
            jobs.put(number)
            eventually(lambda: not items(store) and tickets(store))
        jobs.shutdown()
        call.result()
    assert handed_on == []


def test_the_time_to_wait_begins_once_the_last_one_is_done_with(path: Path) -> None:
    """However long that took."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME)
        jobs.put("a")
        relay = jobs._relay(5, None)
        task = jobs._next(relay)
        relay.thread = threading.get_ident()
        assert relay.hand_on(task.id, task.receipt)
        clock.advance(10)
        assert relay.attempt().patience.deadline == store.engine.boot() + 5


def test_who_was_told_to_stop_takes_no_other(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    monkeypatch.delattr(Items, "hand_on")
    assert jobs.work(lambda _: signal.raise_signal(signal.SIGTERM)) == 1
    assert [(each.item, each.attempts) for each in jobs.peek(9)] == [("b", 0)]


def test_a_block_of_another_thread_takes_no_other(store: kvsync.Store) -> None:
    """Though the loop is just about to."""
    jobs = store.queue(NAME)
    jobs.put_many("abc")
    relay = jobs._relay(0, None)
    first = jobs._next(relay)
    relay.thread = threading.get_ident()
    in_thread(lambda: first.__exit__(None, None, None))
    assert items(store) == [2, 3]
    assert taken(store) == []
    assert relay.ahead is None


def test_an_immediate_shutdown_ends_the_loop(store: kvsync.Store) -> None:
    """The last item is acknowledged, and no other taken."""
    jobs, seen = store.queue(NAME), list[Any]()
    jobs.put_many("ab")
    for task in jobs.tasks():
        seen.append(task.item)
        jobs.shutdown(immediate=True)
    assert seen == ["a"]
    assert items(store) == [2]
    assert taken(store) == []


def test_in_a_transaction_nothing_is_taken(store: kvsync.Store) -> None:
    """The loop ends there; the item that was in hand is acknowledged with the transaction."""
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    tasks = jobs.tasks()
    assert next(tasks).item == "a"
    with store.transaction(), pytest.raises(kvsync.TransactionError):
        next(tasks)
    assert items(store) == [2]
    assert taken(store) == []


@working
def test_before_the_body_has_come_to_its_end_nothing_is_taken(
    store: kvsync.Store, work_off: Work
) -> None:
    """Though a block in it has ended: what follows may take its time."""
    jobs, in_hand = store.queue(NAME), list[Any]()
    jobs.put_many("abc")

    def handle(task: kvsync.Task) -> None:
        with task:
            in_hand.append(taken(store))
        in_hand.append(taken(store))

    work_off(jobs, handle)
    assert in_hand == [[(1,)], [], [(2,)], [], [(3,)], []]
    assert items(store) == []


def test_a_child_forked_before_the_commit_takes_nothing_for_its_parent(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a signal's handler, while the write waits."""
    jobs, seen = store.queue(NAME), list[Any]()
    jobs.put_many("abc")
    hand_on, parent = Items.hand_on, os.getpid()

    def forking(*given: Any) -> Any:
        monkeypatch.setattr(Items, "hand_on", hand_on)
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
        return hand_on(*given)

    monkeypatch.setattr(Items, "hand_on", forking)
    refused = False
    try:
        loop(jobs, lambda task: seen.append(task.item))
    except kvsync.NotOwnedError:
        refused = True
    finally:
        if os.getpid() != parent:
            os._exit(not refused)
    assert seen == ["a", "b", "c"]
    assert items(store) == []


def test_a_child_forked_in_between_leaves_the_next_one_to_its_parent(store: kvsync.Store) -> None:
    """By a signal's handler, say."""
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    relay = jobs._relay(0, None)
    first = jobs._next(relay)
    relay.thread = threading.get_ident()
    assert relay.hand_on(first.id, first.receipt)
    child = os.fork()
    if child == 0:
        relay.undo()
        os._exit(relay.attempt() is relay.ahead)
    assert os.waitpid(child, 0)[1] == 0
    assert taken(store) == [(2,)]
    assert jobs._next(relay).item == "b"


@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_while_it_goes_on_gives_the_next_one_back(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch, signals: int
) -> None:
    """As if it had never been handed out. The one before it is done with."""
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    hand_on = Items.hand_on

    def interrupted(*given: Any) -> Any:
        found = hand_on(*given)
        for _ in range(signals):
            signal.raise_signal(signal.SIGTERM)
        return found

    monkeypatch.setattr(Items, "hand_on", interrupted)
    worked = jobs.work(lambda task: task.item, timeout=0)
    assert worked.ended_by == signal.SIGTERM
    assert [(each.item, each.attempts) for each in jobs.peek(9)] == [("b", 0)]
    assert taken(store) == []


BODY = [each.__code__ for each in (kvsync.Queue.tasks, work_module._settle, work_module._handle)]
"""Where an exception is as good as the body's."""


@pytest.mark.parametrize(
    ("sweep", "sparing"),
    [
        (at_each_point, [*BODY, work_module.work.__code__]),  # handlers run at few of its lines
        (after_each_call, BODY),
    ],
)
@working
def test_an_interrupt_loses_nothing_and_leaves_nothing_in_hand(
    store: kvsync.Store,
    sweep: Callable[..., Iterator[Any]],
    sparing: list[CodeType],
    work_off: Work,
) -> None:
    """What the body has not seen is there still, and counts no attempt."""
    jobs, seen = store.queue(NAME), list[Any]()
    jobs.put_many("abc")
    before = signal.getsignal(signal.SIGTERM)
    for _ in sweep(partial(work_off, jobs, lambda task: seen.append(task.item)), sparing=sparing):
        assert signal.getsignal(signal.SIGTERM) == before
        assert taken(store) == []
        assert jobs.unfinished_tasks == jobs.qsize() + jobs.stats().delayed
        left = {each.item: each.attempts for each in jobs.peek(9)}
        assert {item: 0 for item in "abc" if item not in seen}.items() <= left.items()
        jobs.purge()
        seen.clear()
        jobs.put_many("abc")

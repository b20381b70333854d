"""Tasks: what becomes of an item that was handed out."""

import asyncio
import os
import pickle
import queue
import re
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.engine.doorbell import LOOK
from kvsync.primitives.grants import CLAIM_TIME
from kvsync.primitives.items import Items
from kvsync.testing import ManualClock
from tests.conftest import Occupy
from tests.lines import doorbells
from tests.processes import in_thread
from tests.queues import NAME, SETTLEMENTS, items, taken, tickets, waiting


class Unheard(BaseException):
    """As libraries have them, for their time-outs."""


def fail(jobs: kvsync.Queue, error: BaseException) -> None:
    """Reserve an item, and raise that inside."""
    with pytest.raises(type(error)) as caught, jobs.reserve(0):
        raise error
    assert caught.value is error


def test_leaving_the_block_acknowledges(store: kvsync.Store) -> None:
    """Then the item is gone for good."""
    jobs = store.queue(NAME)
    jobs.put({"to": "ada"}, priority=2, key="k")
    with jobs.reserve() as task:
        assert task.item == {"to": "ada"}
        assert (task.id, task.attempts, task.priority, task.key) == (1, 1, 2.0, "k")
        assert task.error is None
        assert task.is_current()
        assert jobs.empty()
        assert jobs.stats().in_flight == 1
        assert f"{task.receipt}" in repr(task)
    assert not task.is_current()
    assert items(store) == []
    assert jobs.join(0)


def test_an_exception_puts_it_back_for_later(path: Path) -> None:
    """With its traceback; it goes on its way."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME, retry_delay=10)
        jobs.put("a")
        put_at = clock.wall()
        fail(jobs, ZeroDivisionError("no"))
        assert jobs.empty()
        clock.advance(10)
        task = jobs.reserve(0)
        assert (task.id, task.attempts, task.enqueued_at) == (1, 2, put_at)
        assert "ZeroDivisionError: no" in str(task.error)
        assert "test_queue_tasks.py" in str(task.error)


def test_each_attempt_is_put_off_twice_as_long(path: Path) -> None:
    """Shortened at random by up to a half; up to an hour; nothing where the queue says nothing."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME, max_attempts=100, retry_delay=timedelta(seconds=1))
        jobs.put("a")
        delays = []
        for _ in range(70):
            assert jobs.reserve(0).retry()
            ((due,),) = store.engine.read("select place from kvsync_item where state > -2")
            delays.append(due - clock.wall())
            clock.advance(4000)
        for attempt, delay in enumerate(delays):
            longest = min(2.0**attempt, 3600)
            assert longest / 2 - 0.001 <= delay <= longest + 0.001
        assert len(set(delays[20:])) > 1
        at_once = store.queue("at once", retry_delay=0)
        at_once.put("a")
        for _ in range(3):
            at_once.reserve(0).retry()


def test_a_delay_of_more_than_an_hour_is_kept(
    timed_store: kvsync.Store, clock: ManualClock
) -> None:
    """And not doubled."""
    jobs = timed_store.queue(NAME, retry_delay=timedelta(hours=6))
    jobs.put("a")
    for _ in range(3):
        assert jobs.reserve(0).retry()
        (left,) = jobs.peek()
        assert left.due is not None
        assert 3 <= (left.due - clock.wall()) / 3600 <= 6
        clock.advance(6 * 3600)


def test_a_retry_says_when_and_why(path: Path) -> None:
    """And whether there is one; what it does not say of the error stays as it was."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME, max_attempts=3)
        jobs.put("a")
        assert jobs.reserve(0).retry(30, "not yet") is True
        clock.advance(29)
        assert jobs.empty()
        clock.advance(1)
        assert jobs.reserve(0).retry(0) is True
        task = jobs.reserve(0)
        assert (task.attempts, task.error) == (3, "not yet")
        assert task.retry() is False
        (letter,) = jobs.dead
        assert (letter.attempts, letter.error) == (3, "not yet")


def test_the_last_attempt_ends_among_the_dead_letters(store: kvsync.Store) -> None:
    """With the traceback of its end."""
    jobs = store.queue(NAME, max_attempts=2, retry_delay=0)
    jobs.put("poison")
    fail(jobs, ValueError("first"))
    fail(jobs, ValueError("second"))
    with pytest.raises(queue.Empty):
        jobs.reserve(0)
    (letter,) = jobs.dead
    assert (letter.item, letter.attempts) == ("poison", 2)
    assert str(letter.error).startswith("Traceback")
    assert "ValueError: second" in str(letter.error)
    assert jobs.join(0)


def test_it_comes_back_to_its_old_place(store: kvsync.Store) -> None:
    """Before what was put after it."""
    jobs = store.queue(NAME)
    jobs.put_many("abc")
    first, second = jobs.reserve_many(2)
    second.retry(0)
    first.give_back()
    assert jobs.get_many(3) == ["a", "b", "c"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_who_is_told_to_stop_gives_it_back(store: kvsync.Store, error: BaseException) -> None:
    """As if it had never been handed out, though it were for the last time."""
    jobs = store.queue(NAME, max_attempts=1)
    jobs.put("a")
    for _ in range(2):
        fail(jobs, error)
    task = jobs.reserve(0)
    assert (task.attempts, task.error) == (1, None)


@pytest.mark.parametrize("error", [asyncio.CancelledError("no"), Unheard("no")], ids=repr)
def test_what_is_no_exception_is_a_failed_attempt_all_the_same(
    store: kvsync.Store, error: BaseException
) -> None:
    """It goes on its way; else what raises it each time would be handed out for ever."""
    jobs = store.queue(NAME, max_attempts=2, retry_delay=0)
    jobs.put("a")
    fail(jobs, error)
    assert jobs.peek()[0].attempts == 1
    fail(jobs, error)
    assert type(error).__name__ in str(jobs.dead.list()[0].error)


@pytest.mark.parametrize("settle", ["ack", "retry", "bury", "give_back"])
def test_once_settled_leaving_the_block_does_nothing_more(store: kvsync.Store, settle: str) -> None:
    """Cleanly or not."""
    jobs = store.queue(NAME)
    for error in (None, ValueError("no"), KeyboardInterrupt()):
        jobs.put("a")
        with suppress(ValueError, KeyboardInterrupt), jobs.reserve(0) as task:
            getattr(task, settle)()
            before = store.engine.read("select state, id, attempts, error from kvsync_item")
            if error:
                raise error
        assert store.engine.read("select state, id, attempts, error from kvsync_item") == before
        jobs.purge()
        jobs.dead.purge()


@pytest.mark.parametrize("error", [None, ZeroDivisionError("of ours"), KeyboardInterrupt()])
def test_what_could_not_be_settled_is_put_back_by_the_next_call(
    path: Path, error: BaseException | None
) -> None:
    """The store was busy as the block ended."""
    with kvsync.open(path, busy_timeout=0.01) as store:
        jobs = store.queue(NAME, retry_delay=0)
        jobs.put("a")
        foreign = sqlite3.connect(path, isolation_level=None)
        with pytest.raises(kvsync.BusyError), jobs.reserve():
            foreign.execute("begin immediate")
            if error is not None:
                raise error
        foreign.execute("rollback")
        foreign.close()
        with jobs.reserve(timeout=0) as task:
            assert task.attempts == (1 if isinstance(error, KeyboardInterrupt) else 2)
            expected = {None: "BusyError", ZeroDivisionError: "of ours"}
            assert expected.get(error and type(error), "") in (task.error or "")
        assert jobs.stats().depth == 0


@pytest.mark.parametrize("again", [True, False])
def test_what_was_settled_by_hand_after_all_is_left_alone(path: Path, again: bool) -> None:
    with kvsync.open(path, busy_timeout=0.01) as store:
        jobs = store.queue(NAME, retry_delay=0)
        jobs.put("a")
        foreign = sqlite3.connect(path, isolation_level=None)
        task = jobs.reserve()
        with pytest.raises(kvsync.BusyError), task:
            foreign.execute("begin immediate")
        foreign.execute("rollback")
        foreign.close()
        task.ack()
        if again:
            jobs.put("b")
            assert jobs.get(timeout=0) == "b"
        with pytest.raises(queue.Empty):
            jobs.get(timeout=0)


@pytest.mark.parametrize("first", ["ack", "retry", "bury", "give_back"])
@pytest.mark.parametrize("second", ["ack", "retry", "bury", "give_back", "extend"])
def test_a_receipt_is_good_for_one_settlement(store: kvsync.Store, first: str, second: str) -> None:
    """And changes nothing afterwards, though another have the item in hand by then."""
    jobs = store.queue(NAME, retry_delay=0)
    jobs.put("a")
    task = jobs.reserve()
    getattr(task, first)()
    again = jobs.reserve(0) if first in ("retry", "give_back") else None
    before = store.engine.read("select * from kvsync_item")
    with pytest.raises(kvsync.StaleReceiptError, match=f"receipt {task.receipt}"):
        task.extend(5) if second == "extend" else getattr(task, second)()
    assert store.engine.read("select * from kvsync_item") == before
    if again:
        assert again.receipt > task.receipt
        again.ack()


def test_each_hand_out_has_a_receipt_of_its_own(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put_many("abc")
    receipts = []
    for _ in range(4):
        tasks = jobs.reserve_many(3)
        receipts += [task.receipt for task in tasks]
        for task in tasks:
            task.give_back()
    assert receipts == sorted(set(receipts))


def test_the_item_of_one_receipt_is_not_settled_by_another(store: kvsync.Store) -> None:
    """Two items in one hand."""
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    one, other = jobs.reserve_many(2)
    one.ack()
    assert other.is_current()
    other.give_back()
    assert jobs.get_many(2) == ["b"]


def test_what_is_out_for_too_long_is_given_to_another(path: Path) -> None:
    """Who is late finds out, and changes nothing; each hand-out counts as an attempt."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME, visibility=30)
        jobs.put("a")
        late = jobs.reserve()
        clock.advance(29)
        with pytest.raises(queue.Empty):
            jobs.reserve(0)
        clock.advance(1)
        task = jobs.reserve(0)
        assert (task.id, task.attempts) == (1, 2)
        with pytest.raises(kvsync.StaleReceiptError):
            late.ack()
        task.ack()
        assert items(store) == []


@pytest.mark.parametrize("error", [None, ValueError("no"), KeyboardInterrupt()])
def test_leaving_the_block_too_late_is_told(path: Path, error: BaseException | None) -> None:
    """What was raised inside matters more; it has a note of that."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME, visibility=30)
        jobs.put("a")
        kind = type(error) if error else kvsync.StaleReceiptError
        with pytest.raises(kind) as caught, jobs.reserve():
            clock.advance(31)
            other = jobs.reserve(0)
            if error:
                raise error
        if error:
            assert "not in hand any more" in caught.value.__notes__[0]
        other.ack()


def hand_out_times(store: kvsync.Store) -> list[float]:
    """The seconds for which each item is still in hand."""
    boot = store.engine.boot()
    rows = store.engine.read("select until from kvsync_item where state = -1")
    return [until - boot for (until,) in rows]


def test_the_time_of_a_hand_out_begins_when_it_is_made(
    timed_store: kvsync.Store, occupy: Occupy
) -> None:
    """Though the store was busy for longer than it lasts."""
    jobs = timed_store.queue(NAME, visibility=10)
    jobs.put("a")
    for _ in range(2):  # the first one sees to more than its item
        occupy(30)
        task = jobs.reserve()
        assert hand_out_times(timed_store) == [10]
        task.give_back()


def test_what_was_waited_for_is_in_hand_for_the_whole_time(
    timed_store: kvsync.Store, occupy: Occupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = timed_store.queue(NAME, visibility=10)
    claim = Items.claim_one

    def claim_late(items: Items, *arguments: Any) -> Any:
        occupy(CLAIM_TIME / 2)
        return claim(items, *arguments)

    monkeypatch.setattr(Items, "claim_one", claim_late)
    with waiting(jobs.reserve, timed_store) as call:
        jobs.put("a")
        call.result()
    assert hand_out_times(timed_store) == [10]


@pytest.mark.parametrize("before", [5, 60])
def test_an_extension_counts_from_when_it_is_made(
    timed_store: kvsync.Store, occupy: Occupy, before: float
) -> None:
    """Be it longer than what was left of it, or shorter."""
    jobs = timed_store.queue(NAME, visibility=before)
    jobs.put("a")
    task = jobs.reserve()
    occupy(3)
    task.extend(10)
    assert hand_out_times(timed_store) == [10]


def test_extend_puts_off_the_end(path: Path) -> None:
    """However long it was before, and where it had none; and never brings back what is lost."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME, visibility=30)
        jobs.put_many("ab")
        task, endless = jobs.reserve(), jobs.reserve(visibility=None)
        for _ in range(4):
            clock.advance(29)
            task.extend(30)
        clock.advance(1000)
        endless.extend(timedelta(seconds=5))
        lost = task
        assert jobs.reserve(0).item == "a"
        with pytest.raises(kvsync.StaleReceiptError):
            lost.extend(30)
        clock.advance(6)
        assert jobs.reserve(0).item == "b"


WAITS: dict[str, Callable[[kvsync.Queue], Any]] = {
    "get": kvsync.Queue.get,
    "join": kvsync.Queue.join,
}
waits = pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)


@waits
@pytest.mark.parametrize("visibility", [None, 1000])
def test_extend_to_a_shorter_time_tells_who_waits(
    store: kvsync.Store,
    rings: list[tuple[str, bytes]],
    visibility: float | None,
    wait: Callable[[kvsync.Queue], Any],
) -> None:
    """For an item, or until all is done: it looks when that time is over."""
    jobs = store.queue(NAME, max_attempts=1 if wait == kvsync.Queue.join else 2)
    jobs.put("a")
    task = jobs.reserve(visibility=visibility)
    with waiting(lambda: wait(jobs), store) as call:
        (doorbell,) = doorbells(store)
        with store.transaction():
            task.extend(0.01)
            assert rings == []
        assert rings[0] == (doorbell, LOOK)
        assert call.result() in ("a", True)


@waits
def test_extend_to_a_longer_time_wakes_nobody(
    store: kvsync.Store, rings: list[tuple[str, bytes]], wait: Callable[[kvsync.Queue], Any]
) -> None:
    jobs = store.queue(NAME)
    jobs.put("a")
    task = jobs.reserve(visibility=1000)
    with waiting(lambda: wait(jobs), store) as call:
        task.extend(2000)
        assert rings == []
        jobs.shutdown(immediate=True)
        with suppress(kvsync.ShutDown):
            call.result()


def test_what_is_out_for_too_long_each_time_dies(path: Path) -> None:
    """After as many attempts as it may have."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME, max_attempts=2)
        jobs.put("a")
        for _ in range(2):
            jobs.reserve(0, visibility=5)
            clock.advance(6)
        with pytest.raises(queue.Empty):
            jobs.reserve(0)
        (letter,) = jobs.dead
        assert letter.attempts == 2
        assert "did not finish in time, at attempt 2" in str(letter.error)


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf")])
def test_a_bad_time_is_refused(store: kvsync.Store, bad: float) -> None:
    """Before anything is changed."""
    jobs = store.queue(NAME)
    jobs.put("a")
    task = jobs.reserve()
    with pytest.raises(ValueError, match="seconds"):
        task.extend(bad)
    with pytest.raises(ValueError, match="visibility"):
        jobs.reserve(0, visibility=bad)
    if bad:
        with pytest.raises(ValueError, match="delay"):
            task.retry(bad)
    with pytest.raises(TypeError):
        task.retry("1")  # type: ignore[arg-type]
    assert task.is_current()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("\ud800"),
        ValueError("a\0b"),
        OSError(2, "No such file", "/tmp/\udcff"),
        ValueError("x" * 1_000_000),
    ],
    ids=["a lone surrogate", "NUL", "a file name in no encoding", "long"],
)
def test_any_text_is_an_error(store: kvsync.Store, error: Exception) -> None:
    """An item must not get stuck because of what went wrong with it."""
    jobs = store.queue(NAME, max_attempts=2, retry_delay=0)
    jobs.put("a")
    fail(jobs, error)
    jobs.reserve(0).bury(str(error))
    assert len(str(jobs.dead.list()[0].error)) >= 1


@pytest.mark.parametrize("settle", ["retry", "bury"])
def test_an_exception_is_an_error_too(store: kvsync.Store, settle: str) -> None:
    """With its traceback, if it has one."""
    jobs = store.queue(NAME, max_attempts=1)
    jobs.put_many("ab")
    getattr(jobs.reserve(), settle)(error=ValueError("no host"))
    try:
        raise ValueError("no host")
    except ValueError as error:
        getattr(jobs.reserve(), settle)(error=error)
    first, second = [str(letter.error) for letter in jobs.dead]
    assert first == "ValueError: no host"
    assert second.startswith("Traceback")
    assert second.endswith("ValueError: no host")


@pytest.mark.parametrize("settle", ["retry", "bury"])
@pytest.mark.parametrize("bad", [5, b"no", ValueError])
def test_what_is_no_error_is_refused(store: kvsync.Store, settle: str, bad: Any) -> None:
    """Before anything is changed."""
    jobs = store.queue(NAME)
    jobs.put("a")
    task = jobs.reserve()
    with pytest.raises(TypeError, match="an error is"):
        getattr(task, settle)(error=bad)
    assert task.is_current()


def test_a_task_is_settled_by_any_thread(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put("a")
    task = jobs.reserve()
    assert in_thread(lambda: task.ack() is None)
    assert items(store) == []


@pytest.mark.parametrize("error", [None, ValueError("no"), SystemExit(0)])
def test_a_forked_child_that_leaves_the_block_settles_nothing(
    store: kvsync.Store, error: BaseException | None
) -> None:
    """Its parent has the item."""
    jobs = store.queue(NAME)
    jobs.put("a")
    parent = os.getpid()
    with suppress(ValueError, SystemExit), jobs.reserve() as task:
        child = os.fork()
        if child == 0 and error:
            raise error
        if child:
            os.waitpid(child, 0)
            assert task.is_current()
    if os.getpid() != parent:
        os._exit(0)
    assert items(store) == []


@pytest.mark.parametrize("settle", SETTLEMENTS.values(), ids=SETTLEMENTS)
def test_a_forked_child_cannot_settle_what_its_parent_has(
    store: kvsync.Store, settle: Callable[[kvsync.Task], object]
) -> None:
    """Nor ask for more time for it."""
    jobs = store.queue(NAME)
    jobs.put("a")
    task = jobs.reserve()
    before = store.engine.read("select * from kvsync_item")
    child = os.fork()
    if child == 0:
        try:
            settle(task)
        except kvsync.NotOwnedError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.engine.read("select * from kvsync_item") == before
    task.ack()


# --- one after the other -------------------------------------------------------------------------


def test_tasks_come_one_after_the_other(store: kvsync.Store) -> None:
    """Going on acknowledges; the last one too."""
    jobs = store.queue(NAME)
    jobs.put_many("abc")
    seen = []
    for task in jobs.tasks(timeout=0):
        seen.append(task.item)
        assert taken(store) == [(task.id,)]
    assert seen == ["a", "b", "c"]
    assert items(store) == []


def test_tasks_end_with_the_queue(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    jobs.shutdown()
    assert [task.item for task in jobs.tasks()] == ["a", "b"]


def leave_by_break(jobs: kvsync.Queue) -> None:
    for _ in jobs.tasks(timeout=0):
        break


def leave_by_return(jobs: kvsync.Queue) -> Any:
    for task in jobs.tasks(timeout=0):
        with suppress(ValueError):
            return task.item
    return None


def leave_by_raising(jobs: kvsync.Queue) -> None:
    for _ in jobs.tasks(timeout=0):
        raise ZeroDivisionError


def leave_by_a_call_that_raises(jobs: kvsync.Queue) -> None:
    for task in jobs.tasks(timeout=0):
        try:
            int(task.item)
        except ValueError:
            raise ZeroDivisionError from None


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_return])
def test_leaving_the_loop_on_purpose_gives_the_last_one_back(
    store: kvsync.Store, leave: Callable[..., object]
) -> None:
    """As if it had never been handed out, as often as that may be."""
    jobs = store.queue(NAME, max_attempts=1)
    jobs.put_many("ab")
    for _ in range(3):
        leave(jobs)
    assert [(each.item, each.attempts) for each in jobs.peek(9)] == [("a", 0), ("b", 0)]


@pytest.mark.parametrize("leave", [leave_by_raising, leave_by_a_call_that_raises])
def test_an_exception_that_leaves_the_loop_is_a_failed_attempt(
    store: kvsync.Store, leave: Callable[..., object]
) -> None:
    """At once followed by the next; what fails each time does not hold up the others for ever."""
    jobs = store.queue(NAME, max_attempts=2)
    jobs.put_many("ab")
    for attempt in (1, 2):
        assert jobs.peek()[0].attempts == attempt - 1
        with pytest.raises(ZeroDivisionError):
            leave(jobs)
    assert [each.item for each in jobs.peek(9)] == ["b"]
    assert "loop was left, unsettled, at attempt 2" in str(jobs.dead.list()[0].error)


def test_an_iterator_that_is_closed_may_have_been_left_by_an_exception(
    store: kvsync.Store,
) -> None:
    jobs = store.queue(NAME)
    jobs.put("a")
    tasks = jobs.tasks(timeout=0)
    next(tasks)
    tasks.close()
    assert jobs.reserve(0).attempts == 2


@pytest.mark.parametrize("error", [None, ZeroDivisionError()])
def test_leaving_the_loop_early_leaves_alone_what_is_settled(
    store: kvsync.Store, error: Exception | None
) -> None:
    jobs = store.queue(NAME)
    jobs.put("a")
    with suppress(ZeroDivisionError):
        for task in jobs.tasks(timeout=0):
            task.bury("no")
            if error:
                raise error
            break
    assert [letter.error for letter in jobs.dead] == ["no"]


def test_a_forked_child_that_leaves_the_loop_settles_nothing(store: kvsync.Store) -> None:
    """Its parent has the item."""
    jobs = store.queue(NAME)
    jobs.put("a")
    parent = os.getpid()
    with suppress(ZeroDivisionError):
        for task in jobs.tasks(timeout=0):
            child = os.fork()
            if child == 0:
                raise ZeroDivisionError
            os.waitpid(child, 0)
            assert task.is_current()
    if os.getpid() != parent:
        os._exit(0)
    assert items(store) == []


def test_a_block_in_the_loop_retries_what_fails(store: kvsync.Store) -> None:
    """And goes on with the next."""
    jobs = store.queue(NAME, max_attempts=2, retry_delay=0)
    jobs.put_many(["good", "bad", "fine"])
    seen: list[Any] = []
    for task in jobs.tasks(timeout=0):
        with suppress(ValueError), task:
            seen.append(task.item)
            if task.item == "bad":
                raise ValueError(task.item)
    assert seen == ["good", "bad", "bad", "fine"]
    assert re.search("ValueError: bad", str(jobs.dead.list()[0].error))
    assert tickets(store) == []


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_work_ends_when_no_item_comes_in_time(store: kvsync.Store, timeout: float) -> None:
    """It tells how many were done; what is delayed is left for later."""
    jobs, seen = store.queue(NAME, retry_delay=1000), list[Any]()
    jobs.put_many([3, 0, 1])
    jobs.put(5, delay=1000)
    assert jobs.work(lambda task: seen.append(6 // task.item), timeout) == 2
    assert seen == [2, 6]
    assert jobs.stats().delayed == 2
    with pytest.raises(ValueError, match="not negative"):
        jobs.work(seen.append, -1)


def test_a_task_does_not_pickle_and_says_why(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put("a")
    with jobs.reserve() as task, pytest.raises(TypeError, match="belongs to the process"):
        pickle.dumps(task)

"""Queues in transactions: what goes with them, and what must not wait in them."""

import queue
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import kvsync
from tests.interrupted import Interrupt
from tests.processes import PATIENCE, die_instead_of_ringing, expect, kill_myself, running
from tests.queues import NAME, items, taken, tickets, waiting
from tests.undone import undone


def test_put_and_the_rest_come_together_or_not_at_all(store: kvsync.Store) -> None:
    """Also what is delayed, or has a key; the ids that were undone come again."""
    jobs, results = store.queue(NAME), store.dict("results")
    with undone(store):
        assert jobs.put("a", key="k") == 1
        assert jobs.put_many("bc", delay=5) == [2, 3]
        results["a"] = 1
        assert jobs.qsize() == 1
    assert items(store) == []
    assert results == {}
    with store.transaction():
        jobs.put("d", key="k")
        results["d"] = 1
    assert jobs.get() == "d"
    assert results == {"d": 1}


def test_who_waits_is_woken_by_the_commit(store: kvsync.Store) -> None:
    """And has nothing of what was undone."""
    jobs = store.queue(NAME)
    with waiting(jobs.get, store) as call:
        with undone(store):
            jobs.put("undone")
        with store.transaction():
            jobs.put("a")
            jobs.put("b")
        assert call.result() == "a"
    assert jobs.get() == "b"


def test_what_was_got_in_a_transaction_that_is_undone_is_there_again(store: kvsync.Store) -> None:
    """In its old place; and `task_done` has nothing to tell of."""
    jobs = store.queue(NAME, 3)
    jobs.put_many("abc")
    with undone(store):
        assert jobs.get() == "a"
        assert jobs.get_many(2) == ["b", "c"]
        with pytest.raises(queue.Empty):
            jobs.get_nowait()
        jobs.put("d")
    assert jobs.full()
    with pytest.raises(ValueError, match="more often"):
        jobs.task_done()
    with store.transaction():
        assert jobs.get() == "a"
        jobs.task_done()
    assert jobs.get_many(9) == ["b", "c"]


def test_one_block_inside_another_is_undone_alone(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    with store.transaction():
        assert jobs.get() == "a"
        with undone(store):
            assert jobs.get() == "b"
            jobs.put("c")
    assert jobs.get_many(9) == ["b"]


@pytest.mark.parametrize("settle", ["ack", "retry", "bury", "give_back"])
def test_a_settlement_comes_with_the_commit(store: kvsync.Store, settle: str) -> None:
    """One that was undone can be made again."""
    jobs, results = store.queue(NAME, retry_delay=0), store.dict("results")
    jobs.put("a")
    task = jobs.reserve()
    with undone(store):
        results["1"] = "undone"
        getattr(task, settle)()
        assert not task.is_current()
        with pytest.raises(kvsync.StaleReceiptError):
            task.ack()
    assert task.is_current()
    assert results == {}
    with store.transaction():
        results["1"] = "done"
        getattr(task, settle)()
    assert not task.is_current()
    assert results == {"1": "done"}


@pytest.mark.parametrize("error", [None, ZeroDivisionError(), KeyboardInterrupt()])
def test_a_settlement_that_was_undone_is_made_by_leaving_the_block(
    store: kvsync.Store, error: BaseException | None
) -> None:
    """As if it had not been asked for."""
    jobs = store.queue(NAME, retry_delay=0)
    jobs.put("a")
    try:
        with jobs.reserve() as task:
            with undone(store):
                task.ack()
            if error:
                raise error
    except (ZeroDivisionError, KeyboardInterrupt):
        pass
    left = [(each.attempts, taken(store)) for each in jobs.peek()]
    assert (
        left
        == {
            type(None): [],
            ZeroDivisionError: [(1, [])],
            KeyboardInterrupt: [(0, [])],
        }[type(error)]
    )


def test_a_late_result_is_not_kept(store: kvsync.Store) -> None:
    """A stale receipt undoes the whole transaction of its result."""
    jobs, results = store.queue(NAME, visibility=0.01), store.dict("results")
    jobs.put("a")
    late = jobs.reserve()
    task = jobs.reserve(PATIENCE, visibility=None)
    with pytest.raises(kvsync.StaleReceiptError), store.transaction():
        results[str(late.id)] = "late"
        late.ack()
    assert results == {}
    task.ack()


def test_room_is_there_with_the_commit(store: kvsync.Store) -> None:
    """Who waits for it is let in then, and not by what was undone."""
    jobs = store.queue(NAME, 1)
    jobs.put("a")
    with waiting(lambda: jobs.put("b"), store) as call:
        with undone(store):
            assert jobs.get() == "a"
            assert jobs.qsize() == 1
        assert not call.is_over
        assert [each.item for each in jobs.peek(9)] == ["a"]
        with store.transaction():
            assert jobs.get_many(9) == ["a"]
        assert call.result() == 2


def test_what_would_wait_is_refused(store: kvsync.Store) -> None:
    """And nothing is changed; what need not wait is done."""
    jobs = store.queue(NAME, 1)
    calls: dict[str, Callable[[], Any]] = {
        "get": jobs.get,
        "get in time": lambda: jobs.get(timeout=5),
        "get many": lambda: jobs.get_many(2),
        "join": jobs.join,
        "reserve": jobs.reserve,
        "reserve at once": lambda: jobs.reserve(0),
        "reserve many": lambda: jobs.reserve_many(2),
    }
    with store.transaction():
        for call in calls.values():
            with pytest.raises(
                kvsync.TransactionError, match=r"^(a get that|reserve|join) .*cannot"
            ):
                call()
        with pytest.raises(queue.Empty):
            jobs.get_nowait()
        jobs.put("a")
        with pytest.raises(kvsync.TransactionError, match=r"^a put that has to wait for room"):
            jobs.put("b")
        with pytest.raises(kvsync.TransactionError):
            jobs.put_many("b", timeout=5)
        with pytest.raises(queue.Full):
            jobs.put_nowait("b")
    assert jobs.get() == "a"
    assert tickets(store) == []


@pytest.mark.parametrize("ending", [kvsync.Store.transaction, undone])
def test_an_interrupt_of_a_get_that_the_transaction_survives_loses_nothing(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch, ending: Callable[..., Any]
) -> None:
    """It comes when the item is taken; the block swallows it, and commits, or not."""
    jobs = store.queue(NAME)
    jobs.put_many("ab")

    def interrupt(*_: object) -> Any:
        take(*_)  # type: ignore[arg-type]
        raise Interrupt

    take = kvsync.Queue._take
    monkeypatch.setattr(kvsync.Queue, "_take", interrupt)
    with ending(store):
        with pytest.raises(Interrupt):
            jobs.get()
        monkeypatch.undo()
        assert [each.item for each in jobs.peek(9)] == ["a", "b"]
    assert jobs.get_many(9) == ["a", "b"]


@pytest.mark.parametrize("ending", [kvsync.Store.transaction, undone])
def test_what_nobody_can_read_is_one_dead_letter(
    store: kvsync.Store, ending: Callable[..., Any]
) -> None:
    """Or waits on, if that is undone."""
    jobs = store.queue(NAME)
    store.queue(NAME, codec="pickle").put({1})
    jobs.put("a")
    with ending(store):
        with pytest.raises(kvsync.DecodeError):
            jobs.get_many(2)
        assert items(store) == [1, 2]
        assert len(jobs.dead) == 1
    assert items(store) == [1, 2]
    assert len(jobs.dead) == (ending is kvsync.Store.transaction)


# --- exactly once --------------------------------------------------------------------------------

STEPS = [
    "reserved",
    "worked",
    "in the transaction",
    "result written",
    "acknowledged",
    "at the commit",
    "committed",
    "left",
]


def work_and_die(pipe: Any, path: str, step: str) -> None:
    """The documented pattern, by a worker that is killed at that step."""

    def at(now: str) -> None:
        if now == step:
            kill_myself()

    with kvsync.open(path) as store:
        jobs, results = store.queue(NAME), store.dict("results")
        pipe.send("ready")
        with jobs.reserve() as task:
            at("reserved")
            result = task.item * 2
            at("worked")
            with store.transaction():
                at("in the transaction")
                results.increment(str(task.id), result)
                at("result written")
                if step == "at the commit":
                    die_instead_of_ringing()
                task.ack()
                at("acknowledged")
            at("committed")
        at("left")


@pytest.mark.parametrize("step", STEPS)
def test_a_result_is_written_once_wherever_its_worker_is_killed(
    store: kvsync.Store, step: str
) -> None:
    """Whoever is next works it off, if it was not; who waits until all is done learns of it."""
    jobs, results = store.queue(NAME), store.dict("results")
    number = jobs.put(21)
    with waiting(jobs.join, store) as call:
        with running(work_and_die, store.path, step) as (child, pipe):
            assert expect(pipe) == "ready"
            child.join(PATIENCE)
            assert child.exitcode == -signal.SIGKILL
        try:
            with jobs.reserve(0) as task:
                assert task.attempts == 2
                with store.transaction():
                    results.increment(str(task.id), task.item * 2)
                    task.ack()
        except queue.Empty:
            assert step in STEPS[-3:]
        assert call.result() is True
    assert results == {str(number): 42}
    assert items(store) == []


class Failure(Exception):
    """Raised in a transaction."""


@pytest.mark.parametrize("inside", [True, False])
def test_a_task_whose_end_was_rolled_back_goes_back_before_the_next_call(
    store: kvsync.Store, inside: bool
) -> None:
    """Its block is over, so nobody else would settle it. It counts as a failed attempt."""
    jobs = store.queue(NAME, retry_delay=0)
    jobs.put("a")
    task = jobs.reserve(0)
    with pytest.raises(Failure), store.transaction():
        with task:
            if inside:
                raise Failure
        raise Failure
    assert task.is_current()
    again = jobs.reserve(5)
    assert (again.id, again.attempts) == (task.id, 2)
    assert ("Failure" if inside else "TransactionError") in str(again.error)


def test_a_task_whose_end_was_undone_with_an_inner_block_goes_back(store: kvsync.Store) -> None:
    jobs = store.queue(NAME, retry_delay=0)
    jobs.put("a")
    task = jobs.reserve(0)
    with store.transaction(), suppress(Failure), store.transaction():
        with task:
            pass
        raise Failure
    assert jobs.reserve(5).attempts == 2


def test_a_task_that_ended_in_a_transaction_leaves_nothing_to_do(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put("a")
    task = jobs.reserve(0)
    with store.transaction(), task:
        pass
    assert not store.session._leftovers._steps
    assert task.is_done
    assert items(store) == []

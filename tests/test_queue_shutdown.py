"""Queues: shut down and opened again; `task_done` and `join`."""

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.primitives.items import Kept
from kvsync.primitives.taking import Getting, Reserving
from kvsync.testing import ManualClock
from tests.processes import PATIENCE, expect, kill_myself, running
from tests.queues import NAME, items, tickets, waiting


def test_a_queue_that_is_shut_down_gives_what_it_has_and_takes_no_more(
    store: kvsync.Store,
) -> None:
    """In each object, and each way to put and to get."""
    jobs, same = store.queue(NAME), store.queue(NAME)
    jobs.put_many("abcd")
    jobs.shutdown()
    assert same.is_shutdown
    assert same.stats().is_shutdown
    for put in (same.put, same.put_nowait, lambda item: same.put(item, timeout=0)):
        with pytest.raises(kvsync.ShutDown):
            put("x")
    for several in ("xy", ""):
        with pytest.raises(kvsync.ShutDown):
            same.put_many(several)
    assert same.get() == "a"
    assert same.get_many(2) == ["b", "c"]
    same.reserve().ack()
    for get in (same.get, same.get_nowait, same.reserve, lambda: same.get_many(2)):
        with pytest.raises(kvsync.ShutDown):
            get()
    assert items(store) == []


@pytest.mark.parametrize("immediate", [False, True])
def test_a_queue_that_is_shut_down_refuses_an_item_whose_key_is_there(
    store: kvsync.Store, immediate: bool
) -> None:
    """As any other."""
    jobs = store.queue(NAME)
    number = jobs.put("a", key="k")
    jobs.shutdown(immediate)
    with pytest.raises(kvsync.ShutDown):
        jobs.put("b", key="k")
    jobs.reopen()
    assert jobs.put("b", key="k") is None
    assert [each.id for each in jobs.peek(9)] == [number]


def test_at_once_means_that_it_gives_nothing_either(store: kvsync.Store) -> None:
    """What it has stays for later; so does what somebody has in hand, who may still settle it."""
    jobs = store.queue(NAME)
    jobs.put_many("abc")
    task, other = jobs.reserve_many(2)
    jobs.shutdown(immediate=True)
    for get in (jobs.get, jobs.get_nowait, jobs.reserve, lambda: jobs.reserve(0)):
        with pytest.raises(kvsync.ShutDown):
            get()
    assert jobs.empty()
    task.ack()
    other.give_back()
    jobs.reopen()
    assert jobs.get_many(3) == ["b", "c"]


def test_shutting_down_less_than_it_is_changes_nothing(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put("a")
    jobs.shutdown(immediate=True)
    jobs.shutdown()
    with pytest.raises(kvsync.ShutDown):
        jobs.get()


def test_it_stays_shut_until_it_is_reopened(path: Path) -> None:
    """Over the end of all its processes."""
    with kvsync.open(path) as store:
        store.queue(NAME).put("a")
        store.queue(NAME).shutdown()
        store.queue("untouched").shutdown()
    with kvsync.open(path) as store:
        jobs = store.queue(NAME)
        assert jobs.is_shutdown
        assert store.queue("untouched").is_shutdown
        with pytest.raises(kvsync.ShutDown):
            jobs.put("b")
        jobs.reopen()
        assert not jobs.is_shutdown
        jobs.put("b")
        assert jobs.get_many(2) == ["a", "b"]
        with pytest.raises(queue.Empty):
            jobs.get_nowait()


def test_reopening_an_open_queue_does_nothing(store: kvsync.Store) -> None:
    jobs = store.queue(NAME, 3)
    jobs.reopen()
    jobs.put("a")
    jobs.reopen()
    assert (jobs.get(), jobs.stats().maxsize) == ("a", 3)


@pytest.mark.parametrize("immediate", [False, True])
def test_a_shutdown_wakes_all_who_wait(store: kvsync.Store, immediate: bool) -> None:
    """For an item, for room, by whatever call; and what was not let in is not there."""
    empty, full = store.queue(NAME), store.queue("full", 1)
    full.put("a")
    with (
        waiting(empty.get, store) as one,
        waiting(empty.reserve, store) as other,
        waiting(lambda: full.put("b"), store) as third,
        waiting(lambda: full.put("c", timeout=1000), store) as fourth,
    ):
        empty.shutdown(immediate)
        full.shutdown(immediate)
        for call in (one, other, third, fourth):
            with pytest.raises(kvsync.ShutDown):
                call.result()
    assert tickets(store) == []
    assert items(store) == [1]


def test_the_last_item_of_a_closing_queue_sends_the_others_home(
    timed_store: kvsync.Store, clock: ManualClock
) -> None:
    """They wait while a delayed one may still come."""
    jobs = timed_store.queue(NAME)
    jobs.put("late", delay=60)
    with waiting(jobs.get, timed_store) as one, waiting(jobs.get, timed_store) as other:
        jobs.shutdown()
        clock.advance(60)
        assert one.result() == "late"
        with pytest.raises(kvsync.ShutDown):
            other.result()


TAKE_MANY: dict[str, Callable[[kvsync.Queue], Any]] = {
    "get": lambda jobs: jobs.get_many(2),
    "reserve": lambda jobs: [task.item for task in jobs.reserve_many(2)],
}


@pytest.mark.parametrize("take", TAKE_MANY.values(), ids=TAKE_MANY)
def test_what_was_given_before_a_shutdown_at_once_is_kept(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch, take: Callable[[kvsync.Queue], Any]
) -> None:
    """By one who would take more with it; nothing of the call is left in the line."""
    jobs = store.queue(NAME)

    def shut_down(*_: object) -> list[Kept]:
        jobs.shutdown(immediate=True)
        return []

    for kind in (Getting, Reserving):
        monkeypatch.setattr(kind, "claim_one", shut_down)
    with waiting(lambda: take(jobs), store) as call:
        jobs.put_many("ab")
        assert call.result() == ["a"]
    assert tickets(store) == []
    jobs.reopen()
    assert jobs.get_nowait() == "b"


def test_a_closing_queue_takes_back_what_comes_back(store: kvsync.Store) -> None:
    """It is what the queue had, and can be got."""
    jobs = store.queue(NAME, retry_delay=0)
    jobs.put_many("ab")
    task, other = jobs.reserve_many(2)
    jobs.shutdown()
    task.retry()
    assert jobs.get() == "a"
    other.bury()
    assert jobs.dead.redrive() == 1
    assert jobs.get() == "b"


def test_a_purge_of_a_closing_queue_sends_home_who_waits(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put("late", delay=1000)
    with waiting(jobs.get, store) as call:
        jobs.shutdown()
        jobs.purge()
        with pytest.raises(kvsync.ShutDown):
            call.result()


# --- task_done and join --------------------------------------------------------------------------


def test_join_waits_until_all_is_done(store: kvsync.Store) -> None:
    """Got and told of, acknowledged, or dead."""
    jobs = store.queue(NAME)
    assert jobs.join()
    jobs.put_many("abcd")
    with waiting(jobs.join, store) as call:
        jobs.get()
        jobs.task_done()
        jobs.reserve().ack()
        jobs.reserve().bury()
        jobs.get()
        assert jobs.unfinished_tasks == 1
        assert not call.is_over
        jobs.task_done()
        assert call.result() is True
    assert tickets(store) == []


def test_join_ends_in_time(store: kvsync.Store) -> None:
    """And tells how."""
    jobs = store.queue(NAME)
    jobs.put("a")
    assert not jobs.join(0)
    assert not jobs.join(0.01)
    jobs.reserve().ack()
    assert jobs.join(0)
    assert tickets(store) == []
    with pytest.raises(ValueError, match="timeout"):
        jobs.join(-1)


@pytest.mark.parametrize("end", ["purge", "shutdown"])
def test_join_is_over_when_there_is_nothing_left_to_wait_for(store: kvsync.Store, end: str) -> None:
    """And tells whether all was done: what an immediate shutdown leaves is not."""
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    with waiting(jobs.join, store) as call:
        jobs.purge() if end == "purge" else jobs.shutdown(immediate=True)
        assert call.result() is jobs.join() is (end == "purge")
        assert bool(jobs.unfinished_tasks) is (end == "shutdown")


def test_what_is_redriven_or_retried_is_to_be_done_again(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put("a")
    jobs.reserve().bury()
    assert jobs.join(0)
    jobs.dead.redrive()
    assert not jobs.join(0)
    jobs.reserve().retry(1000)
    assert not jobs.join(0)
    jobs.purge()
    assert jobs.join(0)


def test_task_done_too_often_is_refused(store: kvsync.Store) -> None:
    """Told of nothing it changes nothing; what is acknowledged needs no telling."""
    jobs = store.queue(NAME)
    with pytest.raises(ValueError, match="more often"):
        jobs.task_done()
    jobs.put_many("ab")
    jobs.get()
    jobs.task_done()
    with pytest.raises(ValueError, match="more often"):
        jobs.task_done()
    jobs.reserve().ack()
    with pytest.raises(ValueError, match="more often"):
        jobs.task_done()
    assert jobs.unfinished_tasks == 0


def get_and_die(pipe: Any, jobs: kvsync.Queue) -> None:
    pipe.send(jobs.get())
    kill_myself()


def test_what_a_dead_getter_owes_is_struck_out_by_an_immediate_shutdown(
    store: kvsync.Store,
) -> None:
    """And by nothing less: who is alive may still call `task_done`. The items stay."""
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    with running(get_and_die, jobs) as (child, pipe):
        assert expect(pipe) == "a"
        child.join(PATIENCE)
    with waiting(jobs.join, store) as call:
        jobs.shutdown()
        jobs.reopen()
        assert not call.is_over
        assert jobs.unfinished_tasks == 2
        jobs.shutdown(immediate=True)
        assert call.result() is False
    jobs.reopen()
    assert jobs.unfinished_tasks == 1
    assert jobs.get() == "b"
    jobs.task_done()
    assert jobs.join(0)
    with pytest.raises(ValueError, match="more often"):
        jobs.task_done()


def test_an_interrupted_get_that_was_struck_out_is_put_back_all_the_same(
    store: kvsync.Store,
) -> None:
    """And is waited for then, like any other."""
    jobs = store.queue(NAME)
    jobs.put("a")
    attempt = jobs._getting(1, jobs._patience(0))
    jobs._take(attempt)
    jobs.shutdown(immediate=True)
    jobs.reopen()
    attempt.undo(None)
    assert jobs.unfinished_tasks == jobs.qsize() == 1

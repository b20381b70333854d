"""Several items at a time: each of them has its own place, receipt and end."""

import threading
from functools import partial
from pathlib import Path

import pytest

import kvsync
from kvsync.testing import ManualClock
from tests.processes import PATIENCE, eventually


@pytest.fixture
def jobs(timed_store: kvsync.Store) -> kvsync.Queue:
    """A queue in which time stands still."""
    return timed_store.queue("jobs", retry_delay=0)


def test_a_batch_is_taken_in_the_order_of_the_line(jobs: kvsync.Queue) -> None:
    for number in range(6):
        jobs.put(number, priority=number % 3)
    assert jobs.get_many(4) == [2, 5, 1, 4]
    assert jobs.get_many(4) == [0, 3]


def test_each_of_a_batch_has_a_receipt_that_no_other_ever_had(jobs: kvsync.Queue) -> None:
    """The ids within a batch go up and down, and one comes back."""
    for number in range(6):
        jobs.put(number, priority=number % 3)
    first, second = jobs.reserve_many(3), jobs.reserve_many(2)
    assert [task.item for task in first + second] == [2, 5, 1, 4, 0]
    first[1].give_back()
    third = jobs.reserve_many(9)
    assert [task.item for task in third] == [5, 3]
    receipts = [task.receipt for task in first + second + third]
    assert len(set(receipts)) == len(receipts) == 7
    assert min(task.receipt for task in second) > max(task.receipt for task in first)
    assert min(task.receipt for task in third) > max(task.receipt for task in second)


def test_each_of_a_batch_is_settled_alone(jobs: kvsync.Queue) -> None:
    jobs.put_many(range(4))
    held, buried, retried, acked = jobs.reserve_many(4)
    acked.ack()
    retried.retry(delay=0)
    buried.bury("rotten")
    assert held.is_current()
    assert not any(task.is_current() for task in (buried, retried, acked))
    assert [letter.item for letter in jobs.dead] == [1]
    again = jobs.reserve(0)
    assert (again.item, again.attempts, again.receipt > acked.receipt) == (2, 2, True)
    with pytest.raises(kvsync.StaleReceiptError):
        retried.ack()
    assert again.is_current()


def test_what_is_due_is_taken_with_a_batch(jobs: kvsync.Queue, clock: ManualClock) -> None:
    """In its place, which is before theirs; and each of them once."""
    for take in (jobs.get_many, jobs.reserve_many):
        jobs.put("urgent", priority=9, delay=60)
        jobs.put_many(["first", "second"])
        clock.advance(61)
        assert [getattr(each, "item", each) for each in take(2)] == ["urgent", "first"]
        assert jobs.get(timeout=0) == "second"
        assert jobs.qsize() == 0


def test_who_asks_for_room_is_let_in_behind_the_batch_that_made_it(path: Path) -> None:
    with kvsync.open(path) as store:
        jobs = store.queue("jobs", 2)
        jobs.put_many(["first", "second"])
        putter = threading.Thread(target=partial(jobs.put, "urgent", priority=9), daemon=True)
        putter.start()
        eventually(lambda: jobs.stats().putters == 1)
        assert [task.item for task in jobs.reserve_many(2)] == ["first", "second"]
        putter.join(PATIENCE)
        assert (jobs.get(timeout=0), jobs.qsize()) == ("urgent", 0)


def test_an_acknowledgement_wakes_who_waits_until_all_is_done(path: Path) -> None:
    with kvsync.open(path) as store:
        jobs = store.queue("jobs")
        jobs.put_many(["first", "second"])
        first, second = jobs.reserve_many(2)
        joined: list[bool] = []
        joiner = threading.Thread(target=lambda: joined.append(jobs.join()), daemon=True)
        joiner.start()
        eventually(lambda: store.engine.read("select 1 from kvsync_ticket") != [])
        first.ack()
        assert jobs.unfinished_tasks == 1
        second.ack()
        joiner.join(PATIENCE)
        assert joined == [True]


def test_several_acknowledgements_are_one_commit(path: Path) -> None:
    with kvsync.open(path) as store:
        jobs = store.queue("jobs")
        jobs.put_many(range(3))
        tasks = jobs.reserve_many(3)
        with pytest.raises(ZeroDivisionError), store.transaction():
            for task in tasks:
                task.ack()
            raise ZeroDivisionError
        assert all(task.is_current() for task in tasks)
        with store.transaction():
            for task in tasks:
                task.ack()
        assert jobs.unfinished_tasks == 0


def test_done_is_what_was_got_acknowledged_or_died_but_not_what_was_purged(
    jobs: kvsync.Queue, clock: ManualClock
) -> None:
    jobs.put("first")
    assert jobs.get() == "first"
    clock.advance(100)
    jobs.put_many(range(10))
    jobs.put("later", delay=60)
    jobs.get()
    jobs.reserve().ack()
    jobs.reserve().bury("rotten")
    held = jobs.reserve()
    assert jobs.purge() == 7
    stats = jobs.stats()
    assert (stats.depth, stats.delayed, stats.in_flight, stats.dead) == (0, 0, 1, 1)
    assert stats.put_rate == pytest.approx(12 / 100)
    assert stats.done_rate == pytest.approx(4 / 100)
    held.ack()
    assert jobs.stats().done_rate == pytest.approx(5 / 100)

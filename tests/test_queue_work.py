"""Working off a queue until somebody asks to stop."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.testing import ManualClock
from tests.processes import eventually, expect, in_thread, running
from tests.queues import NAME, items, taken, tickets


def put_and_close(jobs: kvsync.Queue, *values: Any) -> None:
    jobs.put_many(values)
    jobs.shutdown()


def test_it_works_off_what_there_is(store: kvsync.Store) -> None:
    """Until the queue is shut down and empty; returns how many were done."""
    jobs, seen = store.queue(NAME), []
    put_and_close(jobs, "a", "b", "c")
    assert jobs.work(lambda task: seen.append(task.item)) == 3
    assert seen == ["a", "b", "c"]
    assert items(store) == []


def test_what_fails_is_logged_and_tried_again(
    store: kvsync.Store, caplog: pytest.LogCaptureFixture
) -> None:
    """And is no reason to stop."""
    jobs = store.queue(NAME, max_attempts=2, retry_delay=0)
    put_and_close(jobs, "bad", "good")
    seen = []

    def handle(task: kvsync.Task) -> None:
        seen.append(task.item)
        if task.item == "bad":
            raise ValueError(task.item)

    with caplog.at_level(logging.ERROR, "kvsync"):
        assert jobs.work(handle) == 1
    assert seen == ["bad", "bad", "good"]
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    assert "ValueError: bad" in str(jobs.dead.list()[0].error)


def test_who_is_too_late_goes_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was done too late is not counted; another has it."""
    clock, seen = ManualClock(), []

    def handle(task: kvsync.Task) -> None:
        seen.append(task.item)
        if task.item == "slow":
            clock.advance(10)
            jobs.reserve(0).ack()
            jobs.put("quick")

    with kvsync.open(path, clock=clock) as store, caplog.at_level(logging.WARNING, "kvsync"):
        jobs = store.queue(NAME)
        jobs.put("slow")
        assert jobs.work(handle, timeout=0, visibility=5) == 1
    assert seen == ["slow", "quick"]
    assert ["not in hand any more" in each.getMessage() for each in caplog.records] == [True]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_a_handler_that_wants_to_end_ends_it(store: kvsync.Store, error: BaseException) -> None:
    """The item goes back as if it had never been handed out; signals are the program's again."""
    jobs = store.queue(NAME, max_attempts=1)
    jobs.put("a")
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    def handle(_: kvsync.Task) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        jobs.work(handle)
    assert caught.value is error
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert [each.attempts for each in jobs.peek()] == [0]
    assert taken(store) == []


def test_a_handler_that_is_cancelled_has_failed(store: kvsync.Store) -> None:
    """What cancels it ends the work; the item is tried again, but not for ever."""
    jobs = store.queue(NAME, max_attempts=2, retry_delay=0)
    jobs.put_many(["poison", "good"])

    def handle(task: kvsync.Task) -> None:
        if task.item == "poison":
            raise asyncio.CancelledError

    for _ in range(2):
        with pytest.raises(asyncio.CancelledError):
            jobs.work(handle, timeout=0)
    assert [letter.item for letter in jobs.dead] == ["poison"]
    assert jobs.work(handle, timeout=0) == 1


def test_a_handler_may_settle_by_itself(store: kvsync.Store) -> None:
    """Then nothing more is done."""
    jobs = store.queue(NAME)
    put_and_close(jobs, "a", "b")
    jobs.work(lambda task: task.bury("no"))
    assert [letter.error for letter in jobs.dead] == ["no", "no"]


@pytest.mark.parametrize("bad", [None, 3, "handle"])
def test_what_is_no_handler_is_refused(store: kvsync.Store, bad: Any) -> None:
    """Before it takes anything."""
    jobs = store.queue(NAME, max_attempts=1)
    jobs.put("a")
    with pytest.raises(TypeError, match="handler"):
        jobs.work(bad, timeout=0)
    assert [each.attempts for each in jobs.peek()] == [0]
    assert len(jobs.dead) == 0


def test_it_works_in_any_thread(store: kvsync.Store) -> None:
    """Where no signals are heard."""
    jobs = store.queue(NAME)
    put_and_close(jobs, "a")
    assert in_thread(lambda: jobs.work(lambda _: None)) == 1


def work(pipe: Any, jobs: kvsync.Queue, handler: Callable[..., None]) -> None:
    pipe.send("here")
    done = jobs.work(lambda task: handler(pipe, task))
    pipe.send(("done", done))


def finish_when_told(pipe: Any, task: kvsync.Task) -> None:
    pipe.send(task.item)
    while not pipe.poll(0.01):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait(store: kvsync.Store, number: int) -> None:
    """And nothing is left of it."""
    jobs = store.queue(NAME)
    with running(work, jobs, finish_when_told) as (child, pipe):
        assert expect(pipe) == "here"
        eventually(lambda: tickets(store))
        os.kill(child.pid, number)
        assert expect(pipe) == ("done", 0)
    assert tickets(store) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_handler_come_to_its_end(store: kvsync.Store, number: int) -> None:
    """And no other item is begun."""
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    with running(work, jobs, finish_when_told) as (child, pipe):
        assert [expect(pipe), expect(pipe)] == ["here", "a"]
        os.kill(child.pid, number)
        pipe.send("finish")
        assert expect(pipe) == ("done", 1)
        assert [each.item for each in jobs.peek(9)] == ["b"]


def test_a_second_signal_gives_back_what_is_in_hand(store: kvsync.Store) -> None:
    """As if it had never been handed out."""
    jobs = store.queue(NAME)
    jobs.put("a")
    with running(work, jobs, finish_when_told) as (child, pipe):
        assert [expect(pipe), expect(pipe)] == ["here", "a"]
        os.kill(child.pid, signal.SIGTERM)
        os.kill(child.pid, signal.SIGINT)
        assert expect(pipe) == ("done", 0)
        assert [(each.item, each.attempts) for each in jobs.peek(9)] == [("a", 0)]

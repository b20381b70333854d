"""Working off a queue until somebody asks to stop."""

import asyncio
import itertools
import logging
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.testing import ManualClock
from tests.processes import eventually, expect, in_thread, running
from tests.queues import NAME, items, taken, tickets
from tests.undone import undone

SIGNALS = (signal.SIGTERM, signal.SIGINT)


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


ENDS = [KeyboardInterrupt(), GeneratorExit()]


@pytest.mark.parametrize("error", [*ENDS, SystemExit(3)], ids=repr)
def test_a_handler_that_wants_to_end_ends_it(store: kvsync.Store, error: BaseException) -> None:
    """Nothing is left in hand; signals are the program's again."""
    jobs = store.queue(NAME, max_attempts=2, retry_delay=0)
    jobs.put("a")
    before = [signal.getsignal(number) for number in SIGNALS]

    def handle(_: kvsync.Task) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        jobs.work(handle)
    assert caught.value is error
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert [each.attempts for each in jobs.peek()] == [0 if error in ENDS else 1]
    assert taken(store) == []


@pytest.mark.parametrize("code", [1, 0, None, "no such option"])
def test_a_handler_that_exits_has_failed(store: kvsync.Store, code: Any) -> None:
    """Else an item that ends each of its workers, as a parser of options does, comes for ever."""
    jobs = store.queue(NAME, max_attempts=2, retry_delay=0)
    jobs.put_many(["poison", "good"])

    def handle(task: kvsync.Task) -> None:
        if task.item == "poison":
            sys.exit(code)

    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            jobs.work(handle, timeout=0)
        assert ended.value.code == code
    (letter,) = jobs.dead
    assert (letter.item, letter.attempts) == ("poison", 2)
    assert "in handle" in str(letter.error)
    assert "SystemExit" in str(letter.error)
    assert jobs.work(handle, timeout=0) == 1


def test_who_exits_after_its_item_was_settled_has_not_failed(store: kvsync.Store) -> None:
    """So a handler can end the work without a failed attempt."""
    jobs = store.queue(NAME, max_attempts=1)
    jobs.put_many(["done", "not begun"])

    def handle(task: kvsync.Task) -> None:
        if task.item == "done":
            task.ack()
        else:
            task.give_back()
        sys.exit()

    for _ in range(2):
        with pytest.raises(SystemExit):
            jobs.work(handle, timeout=0)
    assert [(each.item, each.attempts) for each in jobs.peek(9)] == [("not begun", 0)]
    assert len(jobs.dead) == 0


def test_who_exits_when_another_has_its_item_changes_nothing(path: Path) -> None:
    """And the exit goes on, with a note."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME, max_attempts=3)
        jobs.put("slow")
        others: list[kvsync.Task] = []

        def handle(_: kvsync.Task) -> None:
            clock.advance(10)
            others.append(jobs.reserve(0))
            sys.exit(1)

        with pytest.raises(SystemExit) as ended:
            jobs.work(handle, timeout=0, visibility=5)
        assert "not in hand any more" in ended.value.__notes__[0]
        assert [other.is_current() for other in others] == [True]


def test_a_handler_that_exits_while_the_store_is_busy_has_failed(path: Path) -> None:
    """That comes out, and the item fails before the next one is taken."""
    with kvsync.open(path, busy_timeout=0.5) as store:
        jobs = store.queue(NAME, max_attempts=1)
        jobs.put("a")
        foreign = sqlite3.connect(path, isolation_level=None)

        def handle(_: kvsync.Task) -> None:
            foreign.execute("begin immediate")
            sys.exit("why it ends")

        with pytest.raises(kvsync.BusyError):
            jobs.work(handle, timeout=0)
        foreign.execute("rollback")
        foreign.close()
        assert jobs.work(handle, timeout=0) == 0
        assert ["SystemExit: why it ends" in str(letter.error) for letter in jobs.dead] == [True]


def test_two_signals_give_back_the_item_of_a_handler_that_exits(store: kvsync.Store) -> None:
    """The second one interrupts it, whatever it was about to do."""
    jobs = store.queue(NAME, max_attempts=1)
    jobs.put("a")

    def handle(_: kvsync.Task) -> None:
        try:
            sys.exit(1)
        finally:
            for number in SIGNALS:
                signal.raise_signal(number)

    assert jobs.work(handle).ended_by == signal.SIGTERM
    assert [(each.item, each.attempts) for each in jobs.peek(9)] == [("a", 0)]


def test_one_signal_does_not_excuse_a_handler_that_exits(store: kvsync.Store) -> None:
    """It came to its end, and that was a failure. The program's own handler hears of the signal."""
    jobs = store.queue(NAME, max_attempts=1)
    jobs.put("a")

    def handle(_: kvsync.Task) -> None:
        signal.raise_signal(signal.SIGTERM)
        sys.exit(1)

    with pytest.raises(SystemExit):
        jobs.work(handle)
    assert [letter.item for letter in jobs.dead] == ["a"]


def test_a_child_that_the_handler_forks_may_exit(store: kvsync.Store) -> None:
    """By an exception that comes out of its copy of the work: the item is the parent's."""
    jobs, ours = store.queue(NAME, max_attempts=1), os.getpid()
    jobs.put("a")
    status: list[int] = []

    def handle(_: kvsync.Task) -> None:
        child = os.fork()
        if child == 0:
            sys.exit(7)
        status.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    code: Any = 1
    try:
        assert jobs.work(handle, timeout=0) == 1
    except SystemExit as ended:
        code = ended.code
    finally:
        if os.getpid() != ours:
            os._exit(code)
    assert status == [7]
    assert len(jobs.dead) == 0


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
    assert jobs.work(lambda task: task.bury("no")) == 0
    assert [letter.error for letter in jobs.dead] == ["no", "no"]


def test_what_was_acknowledged_is_done_whatever_came_after_it(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    assert jobs.work(lambda task: [task.ack(), 1 / 0], timeout=0) == 2


def test_what_was_acknowledged_in_vain_is_not_done(store: kvsync.Store) -> None:
    """The transaction of its result was undone, and then it failed."""
    jobs = store.queue(NAME, max_attempts=1)
    jobs.put("a")

    def handle(task: kvsync.Task) -> None:
        with undone(store):
            task.ack()
        raise ValueError

    assert jobs.work(handle, timeout=0) == 0
    assert len(jobs.dead) == 1


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


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals that came to the program itself."""
    heard: list[int] = []
    before = {number: signal.signal(number, lambda n, _: heard.append(n)) for number in SIGNALS}
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_programs_own_handler_hears_of_a_signal_once_the_work_is_done(
    store: kvsync.Store, number: signal.Signals
) -> None:
    """And may raise what it likes."""
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    left: list[int] = []

    def end(number: int, _: Any) -> None:
        left.append(jobs.unfinished_tasks)
        raise SystemExit(number)

    before = signal.signal(number, end)
    try:
        with pytest.raises(SystemExit) as ended:
            jobs.work(lambda _: signal.raise_signal(number))
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, before)
    assert ended.value.code == number
    assert left == [1]


def test_a_program_without_a_handler_is_told_which_signal_has_ended_the_work(
    store: kvsync.Store,
) -> None:
    """Else what calls `work` again and again could not be stopped."""
    jobs = store.queue(NAME)
    jobs.put_many("abc")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    done = jobs.work(lambda _: signal.raise_signal(signal.SIGINT))
    assert (done, done.ended_by) == (1, signal.SIGINT)
    done = jobs.work(lambda _: [signal.raise_signal(number) for number in SIGNALS])
    assert (done, done.ended_by) == (0, signal.SIGTERM)
    done = jobs.work(lambda _: None, timeout=0)
    assert (done, done.ended_by) == (2, None)


@pytest.mark.parametrize("count", [1, 2])
def test_work_within_the_handler_of_another_ends_both(store: kvsync.Store, count: int) -> None:
    """A signal lets the outer handler come to its end too; a second one interrupts both."""
    outer, inner = store.queue(NAME), store.queue("inner")
    outer.put_many("ab")
    inner.put_many("ab")
    ends: list[object] = []

    def hear(_: kvsync.Task) -> None:
        for number in [signal.SIGINT] * count:
            signal.raise_signal(number)

    done = outer.work(lambda _: ends.append(inner.work(hear)), timeout=0)
    assert done.ended_by == signal.SIGINT
    assert (done, ends) == ((1, [1]) if count == 1 else (0, []))
    left = ["b"] if count == 1 else ["a", "b"]
    for jobs in (inner, outer):
        assert [(each.item, each.attempts) for each in jobs.peek(9)] == [(item, 0) for item in left]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_signal_that_comes_while_handlers_change_is_heard_once(
    store: kvsync.Store,
    heard: list[int],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    call: int,
) -> None:
    """By the program, and by the work, which ends, if it comes while that listens."""
    jobs, calls = store.queue(NAME), itertools.count(1)
    before = [signal.getsignal(each) for each in SIGNALS]

    def change(which: int, handler: Any) -> Any:
        old = set_handler(which, handler)
        if next(calls) == call:
            signal.raise_signal(number)
        return old

    set_handler = signal.signal
    monkeypatch.setattr(signal, "signal", change)
    jobs.put("a")
    done = jobs.work(lambda _: None, timeout=0)
    monkeypatch.undo()
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert next(calls) == 5
    is_for_the_work = call == 2 or (call, number) == (1, signal.SIGTERM)
    assert done == (0 if is_for_the_work else 1)
    assert heard == [number]
    assert done.ended_by == (number if is_for_the_work else None)


@pytest.mark.parametrize("count", [1, 2])
def test_a_child_that_the_handler_forks_hears_signals_as_if_there_were_no_work(
    store: kvsync.Store, heard: list[int], count: int
) -> None:
    """It has nothing to finish; and who asks it to end, as a pool does, waits until it has."""
    jobs = store.queue(NAME)
    jobs.put("a")

    def handle(_: kvsync.Task) -> None:
        child = os.fork()
        if child == 0:
            try:
                for number in SIGNALS[:count]:
                    signal.raise_signal(number)
            finally:
                os._exit(0 if heard == [*SIGNALS[:count]] else 1)
        assert os.waitpid(child, 0)[1] == 0

    assert jobs.work(handle, timeout=0) == 1
    assert heard == []


def test_a_child_that_the_handler_forks_can_be_terminated(store: kvsync.Store) -> None:
    """By a signal that the program has left to the system."""
    jobs = store.queue(NAME)
    jobs.put("a")

    def handle(_: kvsync.Task) -> None:
        child = os.fork()
        if child == 0:
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert jobs.work(handle, timeout=0) == 1


@pytest.mark.parametrize("left", [signal.SIG_DFL, signal.default_int_handler], ids=repr)
def test_signals_are_heard_though_a_handler_let_go_of_them(
    store: kvsync.Store, heard: list[int], left: Any
) -> None:
    """As `asyncio` does, with those for which its loop had a handler. From the next item on."""
    jobs, seen = store.queue(NAME), list[Any]()
    jobs.put_many("abc")
    before = [signal.getsignal(number) for number in SIGNALS]

    def handle(task: kvsync.Task) -> None:
        seen.append(task.item)
        if task.item == "a":
            for number in SIGNALS:
                signal.signal(number, left)
        elif signal.getsignal(signal.SIGINT) != left:
            signal.raise_signal(signal.SIGINT)

    assert jobs.work(handle, timeout=0) == 2
    assert seen == ["a", "b"]
    assert heard == [signal.SIGINT]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_what_a_handler_ignores_from_now_on_stays_ignored(store: kvsync.Store) -> None:
    """And is as it was before in the end."""
    jobs, seen = store.queue(NAME), list[Any]()
    jobs.put_many("ab")
    before = signal.getsignal(signal.SIGINT)

    def handle(task: kvsync.Task) -> None:
        if task.item == "a":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        seen.append(signal.getsignal(signal.SIGINT))

    assert jobs.work(handle, timeout=0) == 2
    assert seen == [signal.SIG_IGN] * 2
    assert signal.getsignal(signal.SIGINT) is before


def test_what_the_program_ignores_stays_ignored(store: kvsync.Store) -> None:
    """As SIGINT is in a program that a shell has started in the background."""
    jobs, seen = store.queue(NAME), list[Any]()
    put_and_close(jobs, "a")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert jobs.work(lambda _: seen.append(signal.getsignal(signal.SIGINT))) == 1
        assert seen == [signal.getsignal(signal.SIGINT)] == [signal.SIG_IGN]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_third_signal_is_the_programs(
    store: kvsync.Store, heard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: it comes while the item is being given back, and that is done all the same."""
    jobs = store.queue(NAME)
    jobs.put("a")

    def undo(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        undo_really(*arguments)

    undo_really = jobs._taking.undo
    monkeypatch.setattr(jobs._taking, "undo", undo)
    twice = [signal.SIGINT, signal.SIGTERM]
    assert jobs.work(lambda _: [signal.raise_signal(number) for number in twice]) == 0
    assert heard == [signal.SIGTERM, *twice]
    assert [(each.item, each.attempts) for each in jobs.peek(9)] == [("a", 0)]


@pytest.mark.parametrize("work", [kvsync.Queue.work, None])
def test_what_cannot_be_read_is_a_dead_letter_and_does_not_end_the_work(
    store: kvsync.Store, caplog: pytest.LogCaptureFixture, work: Any
) -> None:
    """Of a loop as well."""
    jobs, raw = store.queue(NAME), store.queue(NAME, codec="raw")
    jobs.put(1)
    raw.put("no JSON")
    jobs.put(2)
    handled: list[int] = []
    if work:
        assert work(jobs, lambda task: handled.append(task.item), timeout=0) == 2
    else:
        handled += [task.item for task in jobs.tasks(timeout=0)]
    assert handled == [1, 2]
    assert [letter.id for letter in raw.dead] == [2]
    assert "cannot be read" in caplog.text
    assert "DecodeError" in caplog.text


def test_what_the_body_of_a_loop_cannot_read_is_its_own(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put(1)
    with pytest.raises(kvsync.DecodeError):
        for task in jobs.tasks(timeout=0):
            with task:
                raise kvsync.DecodeError("no good")
    assert len(jobs.dead) == 0
    assert jobs.unfinished_tasks == 1

"""What becomes of items, and of the lines, when those who put or take are killed or stopped."""

import os
import queue
import signal
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import psutil
import pytest

import kvsync
from kvsync.testing import ManualClock
from tests.lines import calling, doorbells
from tests.processes import (
    PATIENCE,
    die_instead_of_ringing,
    eventually,
    expect,
    kill,
    kill_myself,
    running,
    stop,
)
from tests.queues import NAME, items, taken, tickets, waiting


def hold(pipe: Any, jobs: kvsync.Queue) -> None:
    """Have an item, and keep it until told; then try to acknowledge it."""
    task = jobs.reserve()
    pipe.send((task.item, task.attempts))
    pipe.recv()
    try:
        task.ack()
        pipe.send("acknowledged")
    except kvsync.StaleReceiptError:
        pipe.send("too late")


def get(pipe: Any, jobs: kvsync.Queue) -> None:
    pipe.send(jobs.get())


def get_unless_shut_down(pipe: Any, jobs: kvsync.Queue) -> None:
    try:
        pipe.send(jobs.get())
    except kvsync.ShutDown:
        pipe.send("shut down")


def put(pipe: Any, jobs: kvsync.Queue, item: str) -> None:
    pipe.send("here")
    pipe.send(jobs.put(item))


def put_two(pipe: Any, jobs: kvsync.Queue) -> None:
    pipe.send(jobs.put_many("bc", timeout=1000))


def put_and_die_before_ringing(pipe: Any, jobs: kvsync.Queue) -> None:
    """The item is there, and then the process is no more: nobody is rung."""
    jobs.qsize()
    pipe.send("here")
    pipe.recv()
    die_instead_of_ringing()
    jobs.put("a")


def standing(store: kvsync.Store, stack: ExitStack, job: Callable[..., None], *more: Any) -> Any:
    """A child that runs `job`, once it stands in a line."""
    before = len(tickets(store))
    child, pipe = stack.enter_context(running(job, *more))
    eventually(lambda: len(tickets(store)) > before)
    return child, pipe


def die_with_the_first(jobs: kvsync.Queue) -> None:
    """A worker that has the first item in hand is killed."""
    with running(hold, jobs) as (child, pipe):
        expect(pipe)
        kill(child)


# --- workers -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("head_waits_to_be_woken")
def test_a_killed_worker_gives_its_item_to_who_waits(store: kvsync.Store) -> None:
    """Who watches it, without a safety net; and nobody needs to say how long one may take."""
    jobs = store.queue(NAME)
    jobs.put("a")
    with running(hold, jobs) as (child, pipe):
        assert expect(pipe) == ("a", 1)
        with waiting(jobs.reserve, store) as call:
            kill(child)
            task = call.result()
    assert (task.item, task.attempts) == ("a", 2)
    task.ack()
    assert items(store) == []


def test_a_killed_worker_gives_its_item_to_who_comes_next(store: kvsync.Store) -> None:
    """In its old place, before what was put later, and whether that one waits or not."""
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    die_with_the_first(jobs)
    assert jobs.reserve_many(2, 0)[0].item == "a"


LOOKS: dict[str, Callable[[kvsync.Queue], bool]] = {
    "qsize": lambda jobs: jobs.qsize() == 1,
    "empty": lambda jobs: not jobs.empty(),
    "full": lambda jobs: jobs.full(),
    "peek": lambda jobs: [each.item for each in jobs.peek()] == ["a"],
    "stats": lambda jobs: (jobs.stats().depth, jobs.stats().in_flight) == (1, 0),
    "purge": lambda jobs: jobs.purge() == 1,
}
look_at_once = pytest.mark.parametrize("sees_it", LOOKS.values(), ids=LOOKS)


@look_at_once
def test_what_a_killed_worker_had_is_there_for_who_looks(
    store: kvsync.Store, sees_it: Callable[[kvsync.Queue], bool]
) -> None:
    """Though nobody waits for it, or takes anything."""
    jobs = store.queue(NAME, 1)
    jobs.put("a")
    with running(hold, jobs) as (child, pipe):
        expect(pipe)
        assert not sees_it(jobs)
        kill(child)
    assert sees_it(jobs)


@look_at_once
def test_what_is_overdue_is_there_for_who_looks(
    timed_store: kvsync.Store, clock: ManualClock, sees_it: Callable[[kvsync.Queue], bool]
) -> None:
    """Though its worker lives."""
    jobs = timed_store.queue(NAME, 1)
    jobs.put("a")
    jobs.reserve(visibility=10)
    assert not sees_it(jobs)
    clock.advance(11)
    assert sees_it(jobs)


def test_what_killed_its_worker_for_the_last_time_is_among_the_dead_for_who_looks(
    store: kvsync.Store,
) -> None:
    jobs = store.queue(NAME, max_attempts=1)
    jobs.put("a")
    dead = jobs.dead
    with running(hold, jobs) as (child, pipe):
        expect(pipe)
        assert not dead
        kill(child)
    assert [each.item for each in dead] == ["a"]
    assert jobs.empty()


def test_who_looks_at_a_busy_store_sees_what_is_there(store: kvsync.Store) -> None:
    """What the dead have in hand goes back later."""
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    die_with_the_first(jobs)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as hog:
        hog.execute("begin immediate")
        assert jobs.qsize() == 1
        hog.execute("rollback")
    assert jobs.qsize() == 2


def test_an_item_that_kills_its_workers_dies_at_last(store: kvsync.Store) -> None:
    """After as many attempts as it may have; those that wait get the next one."""
    jobs = store.queue(NAME, max_attempts=2)
    jobs.put_many(["poison", "good"])
    for attempt in (1, 2):
        with running(hold, jobs) as (child, pipe):
            assert expect(pipe) == ("poison", attempt)
            kill(child)
    task = jobs.reserve(0)
    assert task.item == "good"
    task.ack()
    (letter,) = jobs.dead
    assert (letter.item, letter.attempts) == ("poison", 2)
    assert "its worker died" in str(letter.error)
    assert jobs.join(0)


def test_a_worker_that_ends_gives_back_what_it_has(store: kvsync.Store) -> None:
    """Without a word, or by closing its store."""
    jobs = store.queue(NAME)
    jobs.put("a")
    with kvsync.open(store.path) as other:
        other.queue(NAME).reserve()
        with pytest.raises(queue.Empty):
            jobs.reserve(0)
    assert jobs.reserve(0).item == "a"


def test_a_stopped_worker_keeps_its_item_for_ever(store: kvsync.Store) -> None:
    """Where nobody has said how long it may have it."""
    jobs = store.queue(NAME)
    jobs.put("a")
    with running(hold, jobs) as (child, pipe):
        expect(pipe)
        stop(child, store.path)
        with pytest.raises(queue.Empty):
            jobs.reserve(0.3)
        os.kill(child.pid, signal.SIGCONT)
        pipe.send("on")
        assert expect(pipe) == "acknowledged"


def test_a_worker_stopped_for_too_long_loses_its_item(store: kvsync.Store) -> None:
    """To who waits; when it wakes it finds out, and changes nothing."""
    jobs = store.queue(NAME, visibility=0.1)
    jobs.put("a")
    with running(hold, jobs) as (child, pipe):
        expect(pipe)
        stop(child, store.path)
        task = jobs.reserve(PATIENCE, visibility=None)
        assert (task.item, task.attempts) == ("a", 2)
        os.kill(child.pid, signal.SIGCONT)
        pipe.send("on")
        assert expect(pipe) == "too late"
        assert task.is_current()
        task.ack()
    assert items(store) == []


def test_whoever_has_another_clock_is_not_late_by_ours(store: kvsync.Store) -> None:
    """As in a container with a time of its own: who does not wait is told so all the same."""
    jobs = store.queue(NAME)
    jobs.put("a")
    with kvsync.open(store.path) as other:
        task = other.queue(NAME).reserve(visibility=0.001)
        store.engine.write("update kvsync_session set clock = 'another'")
        until = "select until from kvsync_item where state = -1"
        eventually(lambda: store.engine.boot() > store.engine.read(until)[0][0])
        with pytest.raises(queue.Empty):
            jobs.get_nowait()
        task.ack()


def test_a_killed_workers_whole_batch_comes_back(store: kvsync.Store) -> None:
    """In order, one each to those who wait."""
    jobs = store.queue(NAME)
    jobs.put_many("abc")
    with running(hold_all, jobs) as (child, pipe), ExitStack() as stack:
        expect(pipe)
        calls = [stack.enter_context(waiting(jobs.get, store)) for _ in range(3)]
        kill(child)
        assert [call.result() for call in calls] == ["a", "b", "c"]
    assert tickets(store) == []


def hold_all(pipe: Any, jobs: kvsync.Queue) -> None:
    tasks = jobs.reserve_many(1200)
    pipe.send(len(tasks))
    pipe.recv()


@pytest.mark.parametrize("attempts", [1, 5])
def test_more_than_one_transaction_gives_back_is_there_for_who_looks(
    store: kvsync.Store, attempts: int
) -> None:
    """All that a killed worker had, at the first look; or it is all among the dead letters."""
    jobs = store.queue(NAME, 1200, max_attempts=attempts)
    jobs.put_many(range(1200))
    with running(hold_all, jobs) as (child, pipe):
        assert expect(pipe) == 1200
        kill(child)
    assert (len(jobs.dead) if attempts == 1 else jobs.qsize()) == 1200
    assert jobs.full() is (attempts == 5)


def test_a_killed_parent_gives_its_item_back_though_its_child_lives(store: kvsync.Store) -> None:
    """A forked child has no part in it."""
    jobs = store.queue(NAME)
    jobs.put("a")
    with running(kill_a_parent, jobs) as (_, pipe):
        orphan = psutil.Process(expect(pipe))
        try:
            pipe.send("kill")
            assert expect(pipe) == "killed"
            assert jobs.get(timeout=PATIENCE) == "a"
            assert orphan.is_running()
        finally:
            orphan.kill()


def kill_a_parent(pipe: Any, jobs: kvsync.Queue) -> None:
    """Start a process that has an item and a child; kill it when told, and not the child."""
    parent = os.fork()
    if parent == 0:
        task = jobs.reserve()
        child = os.fork()
        if child:
            pipe.send(child)
        signal.pause()
        task.ack()
    pipe.recv()
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    pipe.send("killed")


def test_a_child_that_ends_takes_nothing_from_its_parent(store: kvsync.Store) -> None:
    """Though it has used the queue itself."""
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    task = jobs.reserve()
    child = os.fork()
    if child == 0:
        try:
            other = jobs.reserve(0)
            os._exit(other.item != "b")
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert task.is_current()
    again = jobs.reserve(PATIENCE)
    assert (again.item, again.attempts) == ("b", 2)
    task.ack()


# --- who waits for an item -----------------------------------------------------------------------


@pytest.mark.usefixtures("head_waits_to_be_woken")
def test_a_put_of_another_process_wakes_who_waits(store: kvsync.Store) -> None:
    """By a ring: it would sleep on."""
    jobs = store.queue(NAME)
    with waiting(jobs.get, store) as call, running(put, jobs, "a") as (_, pipe):
        assert call.result() == "a"
        assert expect(pipe) == "here"
        assert expect(pipe) == 1


@pytest.mark.usefixtures("head_waits_to_be_woken")
def test_a_delayed_item_wakes_who_waits_when_it_is_due(store: kvsync.Store) -> None:
    """By the clock: nobody rings then, and it would sleep on; an earlier one comes first."""
    jobs = store.queue(NAME)
    with waiting(jobs.get, store) as first, waiting(jobs.get, store) as second:
        jobs.put("late", delay=1)
        jobs.put("soon", delay=0.1)
        assert first.result() == "soon"
        assert second.result() == "late"


@pytest.mark.usefixtures("head_waits_to_be_woken")
def test_a_retried_item_wakes_who_waits_when_it_is_due(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put("a")
    task = jobs.reserve()
    with waiting(jobs.get, store) as call:
        task.retry(0.1)
        assert call.result() == "a"


@pytest.mark.usefixtures("head_waits_to_be_woken")
def test_an_overdue_item_wakes_who_waits(store: kvsync.Store) -> None:
    """When its worker's time is over, though that one lives."""
    jobs = store.queue(NAME)
    jobs.put("a")
    jobs.reserve(visibility=0.1)
    with calling(jobs.get) as call:  # late, perhaps, on a busy machine
        assert call.result() == "a"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_killed_waiter_is_left_out(store: kvsync.Store, place: int) -> None:
    """At the head of the line, in its middle, at its end; the others keep their order."""
    jobs = store.queue(NAME)
    with ExitStack() as stack:
        children = [standing(store, stack, get, jobs) for _ in range(3)]
        kill(children.pop(place)[0])
        if place < 2:
            eventually(lambda: len(tickets(store)) == 2)  # the one behind it sees to that
        jobs.put_many("ab")
        assert [expect(pipe) for _, pipe in children] == ["a", "b"]
    assert items(store) == []


def test_an_item_given_to_a_waiter_that_is_killed_is_the_next_ones(store: kvsync.Store) -> None:
    """As if it had never been given to that one."""
    jobs = store.queue(NAME)
    with ExitStack() as stack:
        stopped, _ = standing(store, stack, get, jobs)
        call = stack.enter_context(waiting(jobs.reserve, store))
        stop(stopped, store.path)
        jobs.put("a")
        assert not call.is_over
        kill(stopped)
        task = call.result()
    assert (task.item, task.attempts) == ("a", 1)
    task.ack()


def test_an_item_given_to_the_dead_is_got_by_who_does_not_wait(store: kvsync.Store) -> None:
    """However many of them stood in the line, one behind the other, when it was put."""
    jobs = store.queue(NAME)
    with ExitStack() as stack:
        children = [standing(store, stack, get, jobs)[0] for _ in range(3)]
        for child in children:
            stop(child, store.path)
        for child in children:
            kill(child)
        jobs.put("a")
        assert taken(store) == [(1,)]
        assert jobs.get_nowait() == "a"
        with pytest.raises(queue.Empty):
            jobs.get_nowait()


def test_a_stopped_waiter_holds_up_the_line_for_a_moment_only(store: kvsync.Store) -> None:
    """And has its turn when it wakes, in its old place."""
    jobs = store.queue(NAME)
    with ExitStack() as stack:
        stopped, pipe = standing(store, stack, get, jobs)
        call = stack.enter_context(waiting(jobs.reserve, store))
        stop(stopped, store.path)
        jobs.put("a")
        task = call.result()
        assert (task.item, task.attempts) == ("a", 1)
        last = stack.enter_context(waiting(jobs.get, store))
        os.kill(stopped.pid, signal.SIGCONT)
        eventually(lambda: ("queue", "passed") not in tickets(store))
        jobs.put_many("bc")
        assert expect(pipe) == "b"
        assert last.result() == "c"
        task.ack()
    assert items(store) == []


def test_an_item_that_its_waiter_passed_is_there_for_who_does_not_wait(
    store: kvsync.Store,
) -> None:
    """Though nobody else stands in the line."""
    jobs = store.queue(NAME)
    with ExitStack() as stack:
        stopped, pipe = standing(store, stack, get, jobs)
        stop(stopped, store.path)
        jobs.put("a")
        assert jobs.get(timeout=PATIENCE) == "a"
        os.kill(stopped.pid, signal.SIGCONT)
        jobs.put("b")
        assert expect(pipe) == "b"


@pytest.mark.parametrize("passed", [True, False])
def test_a_stopped_waiter_is_sent_home_by_a_shutdown_at_once(
    store: kvsync.Store, passed: bool
) -> None:
    """Though it was given an item before, which it has passed, or which was deleted."""
    jobs = store.queue(NAME)
    with ExitStack() as stack:
        stopped, pipe = standing(store, stack, get_unless_shut_down, jobs)
        stop(stopped, store.path)
        jobs.put("a")
        if passed:
            eventually(lambda: jobs.qsize() == 1)
        else:
            store.delete("queue", NAME)
        jobs.shutdown(immediate=True)
        os.kill(stopped.pid, signal.SIGCONT)
        assert expect(pipe) == "shut down"
    assert len(items(store)) == passed


def test_a_putter_killed_between_commit_and_ring_delays_nobody_for_long(
    store: kvsync.Store,
) -> None:
    """The head of the line looks by itself."""
    jobs = store.queue(NAME)
    with running(put_and_die_before_ringing, jobs) as (child, pipe):
        expect(pipe)
        with waiting(jobs.get, store) as call:
            pipe.send("put")
            assert call.result() == "a"
        child.join(PATIENCE)
        assert child.exitcode == -signal.SIGKILL


def test_a_getter_killed_right_after_its_commit_has_lost_one_item(store: kvsync.Store) -> None:
    """At most once: that very one, and no other."""
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    with running(get_and_die, jobs) as (child, _):
        child.join(PATIENCE)
        assert child.exitcode == -signal.SIGKILL
    assert jobs.get() == "b"
    assert items(store) == []


def get_and_die(_: Any, jobs: kvsync.Queue) -> None:
    jobs.get()
    kill_myself()


# --- who waits for room --------------------------------------------------------------------------


def test_a_killed_putter_puts_nothing_and_holds_up_nobody(store: kvsync.Store) -> None:
    """What it left in the line goes with it."""
    jobs = store.queue(NAME, 1)
    jobs.put("a")
    with ExitStack() as stack:
        killed, _ = standing(store, stack, put, jobs, "b")
        call = stack.enter_context(waiting(lambda: jobs.put("c"), store))
        kill(killed)
        eventually(lambda: len(tickets(store)) == 1)  # who was let in before that is in
        assert jobs.get() == "a"
        call.result()
        assert jobs.get() == "c"
    assert items(store) == []
    assert tickets(store) == []


def in_transaction(jobs: kvsync.Queue, item: str) -> int | None:
    with jobs.store.transaction():
        return jobs.put(item)


PUTS: dict[str, Callable[[kvsync.Queue], Any]] = {
    "put": kvsync.Queue.put_nowait,
    "put many": lambda jobs, item: jobs.put_many([item], block=False)[0],
    "in a transaction": in_transaction,
}
puts = pytest.mark.parametrize("put_now", PUTS.values(), ids=PUTS)


@puts
def test_a_killed_putter_keeps_nobody_out_who_does_not_wait(
    store: kvsync.Store, put_now: Callable[[kvsync.Queue, str], Any]
) -> None:
    """There is room for that one, and was not for what the dead wanted to put."""
    jobs = store.queue(NAME, 2)
    jobs.put("a")
    with ExitStack() as stack:
        killed, _ = standing(store, stack, put_two, jobs)
        kill(killed)
        assert put_now(jobs, "d") == 2
    assert tickets(store) == []
    with pytest.raises(queue.Full):
        jobs.put_nowait("e")


def keep(_: Any, jobs: kvsync.Queue) -> None:
    jobs.put("a")
    jobs.reserve()
    jobs.get()


def ask(_: Any, jobs: kvsync.Queue) -> None:
    jobs.put_many("ab")


@puts
@pytest.mark.parametrize("job", [keep, get, ask], ids=["keep", "get", "ask"])
def test_a_restart_with_another_maxsize_is_not_refused_for_the_sake_of_the_dead(
    store: kvsync.Store, job: Callable[..., None], put_now: Callable[[kvsync.Queue, str], Any]
) -> None:
    """They may have had an item in hand, or have waited for one, or for room."""
    jobs = store.queue(NAME, 2)
    jobs.put("first")
    jobs.get()
    if job is ask:
        jobs.put("x")
    with ExitStack() as stack:
        killed, _ = standing(store, stack, job, jobs)
        with pytest.raises(kvsync.LimitError):
            put_now(store.queue(NAME, 3), "refused")
        kill(killed)
    assert put_now(store.queue(NAME, 3), "b")
    assert store.queue(NAME, 3).stats().maxsize == 3


@pytest.mark.usefixtures("rings")
@puts
def test_a_stopped_putter_whose_time_is_over_keeps_nobody_out(
    timed_store: kvsync.Store,
    clock: ManualClock,
    put_now: Callable[[kvsync.Queue, str], Any],
) -> None:
    """It sleeps, and does not know yet; when it wakes, the queue was full."""
    jobs = timed_store.queue(NAME, 2)
    jobs.put("a")
    with waiting(lambda: jobs.put_many("bc", timeout=1000), timed_store) as call:
        (doorbell,) = doorbells(timed_store)
        clock.advance(1000)
        assert put_now(jobs, "d") == 2
        timed_store.engine.doorbells.ring(doorbell)
        with pytest.raises(queue.Full):
            call.result()
    assert items(timed_store) == [1, 2]


def test_a_stopped_putter_whose_time_is_over_holds_up_the_line_for_a_moment_only(
    store: kvsync.Store,
) -> None:
    """Who stands behind it sees to that, though nothing else happens at the queue."""
    jobs = store.queue(NAME, 2)
    jobs.put("a")
    with ExitStack() as stack:
        stopped, _ = standing(store, stack, put_two, jobs)
        call = stack.enter_context(waiting(lambda: jobs.put("d"), store))
        stop(stopped, store.path)
        store.engine.write("update kvsync_ticket set deadline = 0 where deadline is not null")
        assert call.result() == 2


@puts
def test_a_stopped_putter_that_was_sent_home_keeps_nobody_out(
    store: kvsync.Store, put_now: Callable[[kvsync.Queue, str], Any]
) -> None:
    """It asks no more, though the queue is open again before it wakes, and has room for others."""
    jobs = store.queue(NAME, 2)
    jobs.put("a")
    with ExitStack() as stack:
        stopped, _ = standing(store, stack, put_two, jobs)
        stop(stopped, store.path)
        jobs.shutdown()
        jobs.reopen()
        assert put_now(jobs, "d") == 2
    assert items(store) == [1, 2]


def test_a_stopped_putter_is_let_in_all_the_same(store: kvsync.Store) -> None:
    """What it puts is there before it learns of it, and holds up nobody."""
    jobs = store.queue(NAME, 1)
    jobs.put("a")
    with ExitStack() as stack:
        stopped, pipe = standing(store, stack, put, jobs, "b")
        expect(pipe)
        call = stack.enter_context(waiting(lambda: jobs.put("c"), store))
        stop(stopped, store.path)
        assert [jobs.get() for _ in range(2)] == ["a", "b"]
        call.result()
        assert jobs.get() == "c"
        os.kill(stopped.pid, signal.SIGCONT)
        assert expect(pipe) == 2


def test_a_getter_killed_between_commit_and_ring_keeps_no_putter_out(store: kvsync.Store) -> None:
    """Who was let in finds out by itself."""
    jobs = store.queue(NAME, 1)
    jobs.put("a")
    with waiting(lambda: jobs.put("b"), store) as call:
        with running(get_and_die_before_ringing, jobs) as (child, _):
            child.join(PATIENCE)
            assert child.exitcode == -signal.SIGKILL
        assert call.result() == 2
    assert jobs.get() == "b"


def get_and_die_before_ringing(_: Any, jobs: kvsync.Queue) -> None:
    die_instead_of_ringing()
    jobs.get()


def test_a_killed_joiner_is_forgotten(store: kvsync.Store) -> None:
    """The others learn that all is done."""
    jobs = store.queue(NAME)
    jobs.put("a")
    with ExitStack() as stack:
        killed, _ = standing(store, stack, join, jobs)
        call = stack.enter_context(waiting(jobs.join, store))
        kill(killed)
        jobs.reserve().ack()
        assert call.result() is True
    assert taken(store) == []


def join(pipe: Any, jobs: kvsync.Queue) -> None:
    pipe.send(jobs.join())


def test_who_joins_learns_of_the_death_of_the_last_worker(store: kvsync.Store) -> None:
    """Whose item then dies with it."""
    jobs = store.queue(NAME, max_attempts=1)
    jobs.put("a")
    with running(hold, jobs) as (child, pipe):
        expect(pipe)
        with waiting(jobs.join, store) as call:
            kill(child)
            assert call.result() is True
    assert len(jobs.dead) == 1

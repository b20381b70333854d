"""Barriers: all parties get through, or none of them does."""

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.primitives.barrier import BarrierStats
from kvsync.testing import ManualClock
from kvsync.waiting import Wait
from tests.interrupted import at_each_point
from tests.lines import Call, calling, doorbells, queued
from tests.processes import (
    PATIENCE,
    die_instead_of_ringing,
    eventually,
    expect,
    kill,
    kill_myself,
    run_all,
    running,
)

NAME = "start"


def rows(store: kvsync.Store) -> list[Any]:
    """All that is left of waits."""
    return store.engine.read(
        "select 'grant', space from kvsync_grant union all"
        " select 'ticket', state from kvsync_ticket union all"
        " select 'pledge', space from kvsync_pledge"
    )


@contextmanager
def all_waiting(barrier: kvsync.Barrier, count: int) -> Iterator[list[Call]]:
    """So many threads that wait at it, in this order."""
    with ExitStack() as stack:
        yield [stack.enter_context(queued(barrier.wait, barrier)) for _ in range(count)]


def assert_broken(call: Call) -> None:
    with pytest.raises(kvsync.BrokenBarrierError):
        call.result()


@contextmanager
def acting(store: kvsync.Store, go_on: threading.Event, parties: int = 2) -> Iterator[list[Call]]:
    """All parties, the last of which runs an action until that event."""
    begun = threading.Event()

    def act() -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    last = store.barrier(NAME, parties, action=act)
    with (
        all_waiting(store.barrier(NAME, parties), parties - 1) as calls,
        calling(last.wait) as call,
    ):
        try:
            assert begun.wait(PATIENCE)
            yield [*calls, call]
        finally:
            go_on.set()


def test_the_last_one_lets_all_go_on(store: kvsync.Store) -> None:
    """Each has a number, in the order in which they came; and the barrier can be used again."""
    barrier = store.barrier(NAME, 3)
    for _ in range(2):
        with all_waiting(barrier, 2) as calls:
            assert barrier.n_waiting == 2
            assert len(barrier.stats().waiters) == 2
            assert barrier.wait() == 2
            assert [call.result() for call in calls] == [0, 1]
        assert barrier.stats() == BarrierStats(NAME, 3, False, ())
    assert store.barrier("alone", 1).wait() == 0
    assert rows(store) == []


def test_more_than_its_parties_pass_in_groups(store: kvsync.Store) -> None:
    """Nobody gets through with the wrong number of others."""
    barrier = store.barrier(NAME, 2)
    with ExitStack() as stack:
        calls = [stack.enter_context(calling(barrier.wait)) for _ in range(8)]
        assert sorted(call.result() for call in calls) == [0] * 4 + [1] * 4
    assert rows(store) == []


def pass_often(path: str, times: int) -> list[int]:
    """Count before each pass; after it all have counted."""
    with kvsync.open(path) as store:
        barrier, counter, numbers = store.barrier(NAME, 4), store.counter("n"), []
        for turn in range(times):
            counter.add()
            numbers.append(barrier.wait())
            assert counter.value >= 4 * (turn + 1)
            barrier.wait()
        return numbers


def test_processes_pass_in_lockstep(store: kvsync.Store) -> None:
    """Each time every number from 0 on is somebody's."""
    numbers = run_all(pass_often, [(store.path, 25)] * 4)
    assert all(sorted(turn) == [0, 1, 2, 3] for turn in zip(*numbers, strict=True))
    assert rows(store) == []


# --- the action -----------------------------------------------------------------------------------


def test_the_last_one_runs_the_action_before_anybody_goes_on(store: kvsync.Store) -> None:
    """Once, and outside of any transaction."""
    seen: list[Any] = []

    def act() -> None:
        seen.append([call.is_over for call in calls])
        store.lock("free").acquire(timeout=0)
        seen.append(threading.get_ident())

    barrier = store.barrier(NAME, 3, action=act)
    with all_waiting(barrier, 2) as calls:
        assert barrier.wait() == 2
        assert [call.result() for call in calls] == [0, 1]
    assert seen == [[False, False], threading.get_ident()]


def test_who_comes_while_the_action_runs_waits_for_the_next_one(store: kvsync.Store) -> None:
    """Though they were enough, they do not act at the same time."""
    begun, go_on, running_now = threading.Event(), threading.Event(), []

    def act() -> None:
        running_now.append(1)
        assert len(running_now) == 1
        begun.set()
        assert go_on.wait(PATIENCE)
        running_now.pop()

    barrier = store.barrier(NAME, 2, action=act)
    with ExitStack() as stack:
        first = [stack.enter_context(calling(barrier.wait)) for _ in range(2)]
        assert begun.wait(PATIENCE)
        later = [stack.enter_context(queued(barrier.wait, barrier)) for _ in range(2)]
        assert not any(call.is_over for call in (*first, *later))
        go_on.set()
        for group in (first, later):
            assert sorted(call.result() for call in group) == [0, 1]
    assert rows(store) == []


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, kvsync.ForkError])
def test_an_action_that_fails_breaks_it(store: kvsync.Store, error: type[BaseException]) -> None:
    """Its own party gets the error, all the others BrokenBarrierError."""

    def act() -> None:
        raise error

    barrier = store.barrier(NAME, 3, action=act)
    with all_waiting(barrier, 2) as calls:
        with pytest.raises(error):
            barrier.wait()
        for call in calls:
            assert_broken(call)
    assert barrier.broken
    assert rows(store) == []


def fail(_: kvsync.Store) -> None:
    raise ZeroDivisionError


def begin_a_session(store: kvsync.Store) -> None:
    with store.lock("free"):
        pass


def sessions(store: kvsync.Store) -> int:
    return len(store.engine.read("select id from kvsync_session"))


@pytest.mark.parametrize(
    ("do", "error", "begun"),
    [
        (lambda _: None, kvsync.ForkError, 0),
        (begin_a_session, kvsync.ForkError, 1),
        (fail, ZeroDivisionError, 0),
    ],
)
def test_a_child_forked_in_the_action_does_not_end_it(
    store: kvsync.Store, do: Callable[[kvsync.Store], None], error: type[Exception], begun: int
) -> None:
    """However it comes out, and whatever it did there: it writes no more, and its parent acts."""
    parent, pids = os.getpid(), []

    def fork() -> None:
        before = rows(store), sessions(store)
        pids.append(os.fork())
        if not pids[0]:
            do(store)
            return
        assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 7
        assert (rows(store), sessions(store) - begun) == before
        assert not pipe.poll()

    barrier = store.barrier(NAME, 2, action=fork)
    with running(wait, store.barrier(NAME, 2)) as (_, pipe):
        assert expect(pipe) == "here"
        eventually(lambda: barrier.n_waiting == 1)
        try:
            assert barrier.wait() == 1
        except error:
            if os.getpid() != parent and not store.session.has_leftovers():
                os._exit(7)
            raise
        finally:
            if os.getpid() != parent:
                os._exit(1)
        assert expect(pipe) == 0
    assert not barrier.broken
    assert rows(store) == []


@pytest.mark.parametrize("end", ["reset", "abort"])
def test_one_that_ends_during_the_action_lets_nobody_through(store: kvsync.Store, end: str) -> None:
    """Who acted finds out when it has acted."""

    def act() -> None:
        getattr(barrier, end)()

    barrier = store.barrier(NAME, 2, action=act)
    with all_waiting(barrier, 1) as (other,):
        with pytest.raises(kvsync.BrokenBarrierError):
            barrier.wait()
        assert_broken(other)
    assert barrier.broken == (end == "abort")
    assert rows(store) == []


# --- breaking -------------------------------------------------------------------------------------


def test_it_stays_broken_until_it_is_reset(path: Path) -> None:
    """Also when all processes have ended."""
    with kvsync.open(path) as store:
        store.barrier(NAME, 2).abort()
    with kvsync.open(path) as store:
        barrier = store.barrier(NAME, 2)
        assert barrier.broken
        assert store.names("barrier") == [NAME]
        with pytest.raises(kvsync.BrokenBarrierError) as caught:
            barrier.wait()
        assert isinstance(caught.value, threading.BrokenBarrierError)
        assert isinstance(pickle.loads(pickle.dumps(caught.value)), kvsync.BrokenBarrierError)
        barrier.reset()
        assert not barrier.broken
        barrier.abort()
        store.delete("barrier", NAME)
        assert store.barrier(NAME, 1).wait() == 0


@pytest.mark.parametrize("end", ["reset", "abort"])
def test_who_waits_is_told_of_its_end(store: kvsync.Store, end: str) -> None:
    """In a transaction, when that commits; after a reset they may wait again at once."""
    barrier = store.barrier(NAME, 3)
    with all_waiting(barrier, 2) as calls:
        with store.transaction():
            getattr(barrier, end)()
            assert not any(call.is_over for call in calls)
        for call in calls:
            assert_broken(call)
    assert barrier.broken == (end == "abort")
    barrier.reset()
    with all_waiting(barrier, 2) as calls:
        assert barrier.wait() == 2
        assert [call.result() for call in calls] == [0, 1]
    assert rows(store) == []


def test_a_timeout_breaks_it_for_all(store: kvsync.Store) -> None:
    """The one given to `wait` holds, else the barrier's own."""
    for own, given in ((None, (0.01,)), (0.01, ()), (60, (0,))):
        barrier = store.barrier(NAME, 3, timeout=own)
        with queued(partial(barrier.wait, None), barrier) as other:
            with pytest.raises(kvsync.BrokenBarrierError):
                barrier.wait(*given)
            assert_broken(other)
        assert barrier.broken
        barrier.reset()
    assert rows(store) == []


def test_a_timeout_is_over_even_while_the_action_runs(store: kvsync.Store) -> None:
    """No wait is longer than its caller allowed; who acted finds it broken."""
    begun, go_on = threading.Event(), threading.Event()

    def act() -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    barrier = store.barrier(NAME, 2, action=act)
    with ExitStack() as stack:
        other = stack.enter_context(calling(lambda: barrier.wait(1)))
        eventually(lambda: barrier.n_waiting or other.is_over)
        acting = stack.enter_context(calling(barrier.wait))
        assert_broken(other)
        go_on.set()
        assert_broken(acting)
    assert rows(store) == []


def test_who_acts_may_take_longer_than_its_timeout(
    timed_store: kvsync.Store, clock: ManualClock
) -> None:
    """It does not wait any more; those who do have their own."""
    barrier = timed_store.barrier(NAME, 2, action=partial(clock.advance, 60))
    with queued(barrier.wait, barrier) as other:
        assert barrier.wait(1) == 1
        assert other.result() == 0
    assert not barrier.broken
    assert rows(timed_store) == []


def wait(pipe: Any, barrier: kvsync.Barrier) -> None:
    """Wait at it, and tell how it ended."""
    pipe.send("here")
    try:
        pipe.send(barrier.wait())
    except kvsync.BrokenBarrierError:
        pipe.send("broken")


@pytest.mark.usefixtures("others_wait_to_be_woken")
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_party_that_dies_breaks_it(store: kvsync.Store, place: int) -> None:
    """Wherever it stands in the line: nobody needs to look by itself, beside the first."""
    barrier = store.barrier(NAME, 4)
    with ExitStack() as stack:
        calls = []
        for number in range(3):
            if number == place:
                child, _ = stack.enter_context(running(wait, barrier))
                eventually(lambda: barrier.n_waiting == place + 1)
            else:
                calls.append(stack.enter_context(queued(barrier.wait, barrier)))
        kill(child)
        for call in calls:
            assert_broken(call)
    assert barrier.broken
    assert rows(store) == []


def test_a_party_that_dies_in_the_action_breaks_it(store: kvsync.Store) -> None:
    """The others do not wait for it any more."""
    barrier = store.barrier(NAME, 3)
    with all_waiting(barrier, 2) as calls:
        deadly = store.barrier(NAME, 3, action=kill_myself)
        with running(wait, deadly) as (child, _):
            child.join(PATIENCE)
        for call in calls:
            assert_broken(call)
    assert rows(store) == []


def test_who_dies_with_nobody_beside_it_breaks_nothing(store: kvsync.Store) -> None:
    """It does not wait: those who come later wait for one more; so do those of a later run."""
    assert store.barrier("first", 1).wait() == 0  # from now on none but the barrier sees to them
    barrier = store.barrier(NAME, 2)
    with running(wait, barrier) as (child, _):
        eventually(lambda: barrier.n_waiting == 1)
        kill(child)
    assert barrier.n_waiting == 0
    with calling(barrier.wait) as call:
        eventually(lambda: [each.pid for each in barrier.stats().waiters] == [os.getpid()])
        assert barrier.wait() == 1
        assert call.result() == 0
    assert rows(store) == []


# --- who comes while an action runs ---------------------------------------------------------------


def run_out_of_time(barrier: kvsync.Barrier) -> None:
    with pytest.raises(kvsync.BrokenBarrierError):
        barrier.wait(0.001)


def be_interrupted(barrier: kvsync.Barrier) -> None:
    here, until_served = threading.get_ident(), Wait.until_served

    def interrupt(wait: Wait) -> str:
        if threading.get_ident() == here:  # others may only be about to wait
            raise KeyboardInterrupt
        return until_served(wait)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Wait, "until_served", interrupt)
        barrier.wait()


def be_killed(barrier: kvsync.Barrier) -> None:
    before = barrier.n_waiting
    with running(wait, barrier) as (child, _):
        eventually(lambda: barrier.n_waiting == before + 1)
        kill(child)


@pytest.mark.usefixtures("others_wait_to_be_woken")
@pytest.mark.parametrize("leave", [run_out_of_time, be_interrupted, be_killed])
def test_who_leaves_while_an_action_runs_breaks_it_for_the_next_round_alone(
    store: kvsync.Store, leave: Callable[[kvsync.Barrier], None]
) -> None:
    """As in `threading`: those who are all there already do not need who comes later."""
    barrier, go_on = store.barrier(NAME, 3), threading.Event()
    with acting(store, go_on, 3) as complete:
        with queued(barrier.wait, barrier) as later:
            leave(barrier)
            assert_broken(later)
        assert barrier.broken
        with pytest.raises(kvsync.BrokenBarrierError):
            barrier.wait()
        assert not any(call.is_over for call in complete)
        go_on.set()
        assert [call.result() for call in complete] == [0, 1, 2]
    assert barrier.broken
    assert rows(store) == []


@pytest.mark.parametrize("leave", [run_out_of_time, be_interrupted, be_killed])
def test_who_leaves_while_an_action_runs_spares_every_round_that_is_complete(
    store: kvsync.Store, leave: Callable[[kvsync.Barrier], None]
) -> None:
    """Those who wait for their turn to act do not need it either."""
    barrier, go_on = store.barrier(NAME, 2), threading.Event()
    with acting(store, go_on) as first, all_waiting(barrier, 3) as (*second, late):
        leave(barrier)
        assert_broken(late)
        assert not any(call.is_over for call in (*first, *second))
        go_on.set()
        for complete in (first, second):
            assert [call.result() for call in complete] == [0, 1]
    assert barrier.broken
    assert rows(store) == []


def test_who_dies_alone_while_an_action_runs_breaks_nothing(store: kvsync.Store) -> None:
    """Nobody waits with it: those who come next wait for one more."""
    barrier, go_on = store.barrier(NAME, 2), threading.Event()
    with acting(store, go_on) as complete:
        be_killed(barrier)
        eventually(lambda: len(doorbells(store)) == 2)  # it is reaped
        assert not any(call.is_over for call in complete)
        go_on.set()
        assert [call.result() for call in complete] == [0, 1]
    assert not barrier.broken
    with all_waiting(barrier, 1) as (other,):
        assert barrier.wait() == 1
        assert other.result() == 0
    assert rows(store) == []


def make_overdue(store: kvsync.Store, which: str) -> None:
    """That ticket, whose owner does not know of it: so does nobody who is stopped."""
    store.engine.write(
        f"update kvsync_ticket set deadline = 0 where id = (select {which}(id) from kvsync_ticket)"
    )


def test_who_is_overdue_while_an_action_runs_breaks_it_for_the_next_round_alone(
    store: kvsync.Store,
) -> None:
    """Whoever comes finds it so, and is told that it is broken."""
    barrier, go_on = store.barrier(NAME, 3), threading.Event()
    with acting(store, go_on, 3) as complete:
        with queued(barrier.wait, barrier) as stopped:
            make_overdue(store, "max")
            with pytest.raises(kvsync.BrokenBarrierError):
                barrier.wait()
            assert_broken(stopped)
        assert not any(call.is_over for call in complete)
        go_on.set()
        assert [call.result() for call in complete] == [0, 1, 2]
    assert barrier.broken
    assert rows(store) == []


def test_who_comes_does_not_look_whether_a_complete_round_is_overdue(store: kvsync.Store) -> None:
    """A party that is stopped while others act is there, and gets through."""
    barrier, go_on = store.barrier(NAME, 2), threading.Event()
    with acting(store, go_on) as first, all_waiting(barrier, 2) as second:
        make_overdue(store, "max")
        make_overdue(store, "min")
        with queued(barrier.wait, barrier) as later:
            go_on.set()
            for complete in (first, second):
                assert [call.result() for call in complete] == [0, 1]
            assert barrier.wait() == 1
            assert later.result() == 0
    assert rows(store) == []


def act_until_told(pipe: Any, path: str) -> None:
    """Run an action that fails when it goes on."""

    def act() -> None:
        pipe.send("acts")
        pipe.recv()
        raise ZeroDivisionError

    with kvsync.open(path) as store, pytest.raises(ZeroDivisionError):
        store.barrier(NAME, 2, action=act).wait()


@pytest.mark.usefixtures("others_wait_to_be_woken")
@pytest.mark.parametrize("end", ["failure", "death", "reset", "abort"])
def test_a_complete_round_that_breaks_takes_with_it_who_came_later(
    store: kvsync.Store, end: str
) -> None:
    """As in `threading`: also those who were complete as well, and only waited to act."""
    barrier = store.barrier(NAME, 2)
    with (
        all_waiting(barrier, 1) as (party,),
        running(act_until_told, store.path) as (child, pipe),
    ):
        assert expect(pipe) == "acts"
        with all_waiting(barrier, 3) as later:
            if end == "failure":
                pipe.send("go on")
            elif end == "death":
                kill(child)
            else:
                getattr(barrier, end)()
            for call in (party, *later):
                assert_broken(call)
    assert barrier.broken == (end != "reset")


def test_an_interrupt_of_who_comes_while_an_action_runs_breaks_no_complete_round(
    store: kvsync.Store,
) -> None:
    """Wherever it comes."""
    barrier, go_on = store.barrier(NAME, 2), threading.Event()
    with acting(store, go_on) as complete:
        before = rows(store)
        for _ in at_each_point(partial(run_out_of_time, barrier)):
            assert rows(store) == before
            store.delete("barrier", NAME)  # which a reset does too, but for all
        go_on.set()
        assert [call.result() for call in complete] == [0, 1]
    assert rows(store) == []


def wait_and_die_before_ringing(pipe: Any, path: str) -> None:
    """All are through, but nobody is rung, and then the process is no more."""
    with kvsync.open(path) as store:
        barrier = store.barrier(NAME, 5)
        assert not barrier.broken
        pipe.send("ready")
        pipe.recv()
        die_instead_of_ringing()
        barrier.wait()


@pytest.mark.usefixtures("others_wait_to_be_woken")
def test_the_last_one_killed_between_commit_and_ring_stops_nobody(store: kvsync.Store) -> None:
    """They were let through, and find out: the first looks, and rings the others."""
    barrier = store.barrier(NAME, 5)
    with all_waiting(barrier, 4) as calls:
        with running(wait_and_die_before_ringing, store.path) as (child, pipe):
            expect(pipe)
            pipe.send("wait")
            child.join(PATIENCE)
        assert [call.result() for call in calls] == [0, 1, 2, 3]
    assert not barrier.broken


@pytest.mark.parametrize("is_last", [False, True])
def test_an_interrupt_leaves_no_party_behind(store: kvsync.Store, is_last: bool) -> None:
    """It is through with the others, or broke it for them, and has left in either case."""
    barrier = store.barrier(NAME, 2, action=lambda: None)
    others: list[Call] = []

    def wait() -> None:
        if is_last:
            barrier.wait()
        else:
            with pytest.raises(kvsync.BrokenBarrierError):
                barrier.wait(0.001)

    with ExitStack() as stack:
        points = at_each_point(wait)
        while True:
            barrier.reset()
            if is_last:
                others.append(stack.enter_context(queued(barrier.wait, barrier)))
            if next(points, None) is None:
                break
            if is_last and not barrier.broken and barrier.n_waiting:
                barrier.abort()  # the interrupt came before the wait began
            eventually(lambda: all(other.is_over for other in others))
            assert rows(store) == []
        assert not is_last or others[-1].result() == 0
    assert rows(store) == []


# --- arguments ------------------------------------------------------------------------------------


def test_another_number_of_parties_is_adopted_when_nobody_waits(store: kvsync.Store) -> None:
    """Else it is an error, and those who wait go on waiting."""
    barrier = store.barrier(NAME, 2)
    with queued(barrier.wait, barrier) as call:
        with pytest.raises(kvsync.LimitError, match="for 2 parties, not 3"):
            store.barrier(NAME, 3).wait()
        assert barrier.wait() == 1
        assert call.result() == 0
    other = store.barrier(NAME, 1)
    assert other.parties == 1
    assert other.wait() == 0


def test_a_wait_is_refused_in_a_transaction(store: kvsync.Store) -> None:
    """Nobody else could come meanwhile."""
    with store.transaction(), pytest.raises(kvsync.TransactionError):
        store.barrier(NAME, 1).wait()


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda store: store.barrier(NAME, 0), ValueError),
        (lambda store: store.barrier(NAME, -1), ValueError),
        (lambda store: store.barrier(NAME, 1.0), TypeError),
        (lambda store: store.barrier(NAME, True), TypeError),
        (lambda store: store.barrier(NAME, 1, action=1), TypeError),
        (lambda store: store.barrier(NAME, 1, timeout=-1), ValueError),
        (lambda store: store.barrier(NAME, 1).wait(-1), ValueError),
        (lambda store: store.barrier(NAME, 1).wait(float("nan")), ValueError),
        (lambda store: store.barrier("", 1), kvsync.InvalidNameError),
    ],
)
def test_bad_arguments_are_refused(
    store: kvsync.Store, make: Callable[[kvsync.Store], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        make(store)


def test_it_pickles_with_all_that_it_was_given(store: kvsync.Store) -> None:
    """The action too, if that does."""
    copy = pickle.loads(pickle.dumps(store.barrier(NAME, 2, action=os.getpid, timeout=5)))
    assert repr(copy).startswith("<kvsync.Barrier 'start', parties=2, action=<built-in")
    assert copy.parties == 2

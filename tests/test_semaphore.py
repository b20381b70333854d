"""Semaphores: so many permits and no more, in the order of asking, freed by death."""

import fcntl
import itertools
import os
import pickle
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.primitives import lock as lock_module
from kvsync.primitives import semaphore as semaphore_module
from kvsync.primitives import units as units_module
from kvsync.session import Session
from kvsync.testing import ManualClock
from tests.interrupted import handling_within
from tests.lines import calling, queued
from tests.processes import PATIENCE, eventually, expect, in_thread, kill, run_all, running


def test_so_many_permits_are_held_and_no_more(store: kvsync.Store) -> None:
    """Through one object or several."""
    one, other = store.semaphore("pool", 3), store.semaphore("pool", 3)
    assert one.acquire()
    assert other.acquire(n=2)
    assert one.locked()
    assert one.free() == 0
    assert not one.acquire(blocking=False)
    assert not other.acquire(timeout=0.01)
    other.release()
    assert not one.locked()
    assert other.free() == 1
    assert one.acquire(blocking=False)


def test_permits_are_taken_all_or_none(store: kvsync.Store) -> None:
    """Who asks for more than are free takes none of them."""
    semaphore = store.semaphore("pool", 3)
    assert semaphore.acquire(n=2)
    assert not semaphore.acquire(blocking=False, n=2)
    assert not semaphore.acquire(timeout=0.01, n=2)
    assert semaphore.free() == 1
    assert semaphore.stats().waiters == ()


@pytest.mark.parametrize("wrong", [0, -1, 1.0, True, "1", None, 1 << 31])
def test_a_limit_and_a_number_of_permits_are_whole_and_above_zero(
    store: kvsync.Store, wrong: Any
) -> None:
    """Anything else is refused before anything is written."""
    with pytest.raises((TypeError, ValueError)):
        store.semaphore("pool", wrong)
    semaphore = store.semaphore("pool", 2)
    for call in (lambda: semaphore.acquire(n=wrong), lambda: semaphore.release(wrong)):
        with pytest.raises((TypeError, ValueError)):
            call()
    assert not store.session.has_begun


def test_more_permits_than_there_are_cannot_be_asked_for(store: kvsync.Store) -> None:
    """ValueError, and no wait for ever."""
    with pytest.raises(ValueError, match="limit of 2"):
        store.semaphore("pool", 2).acquire(n=3)


def test_more_than_was_acquired_cannot_be_released(store: kvsync.Store) -> None:
    """It is a ValueError, as in `threading.BoundedSemaphore`, and gives back none."""
    semaphore = store.semaphore("pool", 3)
    with pytest.raises(kvsync.OverReleaseError, match="holds 0, and cannot release 1"):
        semaphore.release()
    semaphore.acquire(n=2)
    with pytest.raises(ValueError, match="'pool': this object holds 2, and cannot release 3"):
        semaphore.release(3)
    assert semaphore.free() == 1
    for stranger in (store.semaphore("pool", 3), pickle.loads(pickle.dumps(semaphore))):
        with pytest.raises(kvsync.NotOwnedError):
            stranger.release()
    semaphore.release(2)
    assert semaphore.free() == 3


def test_what_was_acquired_at_once_can_be_released_bit_by_bit(store: kvsync.Store) -> None:
    """And each bit goes to who waits for it."""
    semaphore, other = store.semaphore("pool", 3), store.semaphore("pool", 3)
    semaphore.acquire(n=3)
    with queued(lambda: other.acquire(n=2), other) as waiter:
        semaphore.release()
        assert len(other.stats().waiters) == 1
        semaphore.release()
        assert waiter.result()
    assert [holder.units for holder in semaphore.holders()] == [1, 2]
    semaphore.release()
    other.release()
    other.release()
    assert semaphore.free() == 3


def test_what_was_acquired_bit_by_bit_can_be_released_at_once(store: kvsync.Store) -> None:
    """Across grants, the last of them in part."""
    semaphore = store.semaphore("pool", 6)
    for n in (2, 1, 3):
        semaphore.acquire(n=n)
    semaphore.release(5)
    assert [holder.units for holder in semaphore.holders()] == [1]
    semaphore.release()
    assert semaphore.holders() == []


def struck(call: Callable[..., None], strike: int) -> Callable[..., None]:
    """The call, with an exception once: at the moment numbered, of two for each time."""
    moments = itertools.count()

    def stricken(*arguments: Any) -> None:
        if next(moments) == strike:
            raise KeyboardInterrupt
        call(*arguments)
        if next(moments) == strike:
            raise KeyboardInterrupt

    return stricken


@pytest.mark.parametrize("strike", range(6))
def test_an_interrupted_release_of_several_grants_comes_to_its_end(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch, strike: int
) -> None:
    """The exception comes when all are given back, wherever it struck."""
    semaphore = store.semaphore("pool", 6)
    for _ in range(3):
        semaphore.acquire(n=2)
    monkeypatch.setattr(semaphore, "_leave", struck(semaphore._leave, strike))
    with pytest.raises(KeyboardInterrupt):
        semaphore.release(5)
    assert semaphore.free() == 5
    semaphore.release()


FILES = [module.__file__ for module in (semaphore_module, lock_module, units_module)]


def has_free(semaphore: kvsync.Semaphore, permits: int) -> bool:
    return semaphore.free() == permits


@pytest.mark.parametrize("acquired", [[1, 1, 1, 1], [4]])
@pytest.mark.parametrize("n", [1, 2])
def test_a_release_in_the_middle_of_a_release_gives_back_permits_of_its_own(
    store: kvsync.Store, acquired: list[int], n: int
) -> None:
    """As a signal's handler makes it, which may be refused in the middle of a transaction.

    In the middle of a statement it is told so, and done as soon as that is over.
    """
    semaphore, released = store.semaphore("pool", 5), 0

    def release() -> None:
        nonlocal released
        with suppress(kvsync.TransactionError):
            with suppress(kvsync.BusyError):
                semaphore.release(n)
            released += n

    def acquire() -> None:
        for units in acquired:
            semaphore.acquire(n=units)

    acquire()
    for _ in handling_within(FILES, release, release):
        eventually(partial(has_free, semaphore, 1 + released))
        if released < 4:
            semaphore.release(4 - released)
        released = 0
        acquire()


def test_a_release_in_the_middle_of_a_blocks_end_gives_back_a_permit_of_its_own(
    store: kvsync.Store,
) -> None:
    """The block gives back its own."""
    semaphore, released = store.semaphore("pool", 5), 0
    grants: list[kvsync.Grant] = []

    def release() -> None:
        nonlocal released
        with suppress(kvsync.TransactionError):
            with suppress(kvsync.BusyError):
                semaphore.release()
            released += 1

    def enter() -> None:
        semaphore.acquire()
        grants.append(semaphore.__enter__())

    enter()
    for _ in handling_within(FILES, lambda: semaphore._end(grants.pop(), None), release):
        eventually(partial(has_free, semaphore, 4 + released))
        if not released:
            semaphore.release()
        released = 0
        enter()


def test_threads_may_release_what_another_acquired(store: kvsync.Store) -> None:
    """All at once through one object: each permit is given back once."""
    semaphore = store.semaphore("pool", 12)
    for n in (1, 4, 2, 5):
        semaphore.acquire(n=n)
    start = threading.Barrier(12)

    def release() -> bool:
        start.wait(PATIENCE)
        semaphore.release()
        return True

    with ExitStack() as stack:
        calls = [stack.enter_context(calling(release)) for _ in range(12)]
        assert all(call.result() for call in calls)
    assert semaphore.free() == 12
    with pytest.raises(kvsync.OverReleaseError):
        semaphore.release()


def when_read(grant: kvsync.Grant, name: str, call: Callable[[], Any]) -> None:
    """Make the call in another thread as that attribute of the grant is read, the next time."""
    calls, value = [call], getattr(grant, name)

    def read(_: kvsync.Grant) -> Any:
        if calls:
            in_thread(lambda: (calls.pop()(), True))
        return value

    grant.__class__ = type("Watched", (kvsync.Grant,), {name: property(read)})


def test_an_interrupted_acquire_takes_nothing_from_other_threads(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though one of them gives back, through the same object, what it has, just then."""
    semaphore = store.semaphore("pool", 5)
    grants = [semaphore.__enter__() for _ in range(3)]
    when_read(grants[0], "attempt", lambda: semaphore._end(grants[0], None))

    def interrupt(_: kvsync.Grant) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(semaphore._units, "_note", interrupt)
        with pytest.raises(KeyboardInterrupt):
            semaphore.acquire()
    assert semaphore._units.held == grants[1:]
    assert semaphore.free() == 3
    semaphore.release(2)
    assert semaphore.free() == 5


def test_what_a_thread_has_is_found_while_others_give_theirs_back(store: kvsync.Store) -> None:
    """Through the same object: in a list that grows shorter, the search goes on."""
    semaphore = store.semaphore("pool", 9)
    mine = semaphore.__enter__()
    theirs = in_thread(lambda: [semaphore.__enter__() for _ in range(3)])

    def give_back() -> None:
        for grant in theirs:
            semaphore._end(grant, None)

    when_read(theirs[-1], "process", give_back)
    assert semaphore.token == mine.token
    theirs = in_thread(lambda: [semaphore.__enter__() for _ in range(3)])
    when_read(mine, "process", lambda: semaphore._end(mine, None))
    assert [grant.token for grant in semaphore._ours()[1:]] == [each.token for each in theirs]


def test_a_release_inside_a_transaction_is_refused_at_once(store: kvsync.Store) -> None:
    """Even while another thread of the same object waits to release."""
    semaphore = store.semaphore("pool", 2)
    semaphore.acquire(n=2)
    with calling(semaphore.release) as other:
        with store.transaction(), pytest.raises(kvsync.TransactionError):
            semaphore.release()
        other.result()
    assert semaphore.free() == 1


def test_threads_share_one_object(store: kvsync.Store) -> None:
    """Each `with` block gives back its own permit."""
    semaphore = store.semaphore("pool", 2)
    inside: list[int] = []

    def work() -> bool:
        for _ in range(10):
            with semaphore:
                inside.append(1)
                assert len(inside) <= 2
                os.sched_yield()
                inside.pop()
        return True

    with ExitStack() as stack:
        calls = [stack.enter_context(calling(work)) for _ in range(5)]
        assert all(call.result() for call in calls)
    assert semaphore.holders() == []


def enter(path: str, folder: str, limit: int, times: int) -> None:
    """Lock one of `limit` files while inside: none is left for one too many."""
    with kvsync.open(path) as store:
        semaphore = store.semaphore("pool", limit)
        for _ in range(times):
            with semaphore, ExitStack() as stack:
                files = [stack.enter_context(Path(folder, str(n)).open("w")) for n in range(limit)]
                assert any(locks(file.fileno()) for file in files), "one too many is inside"
                os.sched_yield()


def locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_processes_are_never_one_too_many(store: kvsync.Store, tmp_path: Path) -> None:
    """A witness outside of the store would tell; and nothing is left behind."""
    run_all(enter, [(store.path, str(tmp_path), 2, 60)] * 4)
    assert store.engine.read("select count(*) from kvsync_ticket") == [(0,)]
    assert store.engine.read("select count(*) from kvsync_grant") == [(0,)]


def hold(pipe: Any, path: str, n: int) -> None:
    """Hold permits until told to release them."""
    with kvsync.open(path) as store:
        semaphore = store.semaphore("pool", 3)
        semaphore.acquire(n=n)
        pipe.send("holds")
        pipe.recv()


def test_a_killed_holder_frees_its_permits(store: kvsync.Store) -> None:
    """All of them, to who waits already and to who comes later."""
    semaphore = store.semaphore("pool", 3)
    with running(hold, store.path, 2) as (child, pipe):
        expect(pipe)
        with queued(lambda: semaphore.acquire(n=3), semaphore) as waiter:
            kill(child)
            assert waiter.result()
        semaphore.release(3)
    with running(hold, store.path, 2) as (child, pipe):
        expect(pipe)
        kill(child)
        assert semaphore.acquire(blocking=False, n=3)


def test_a_killed_holder_does_not_keep_up_its_limit(store: kvsync.Store) -> None:
    """The dead hold nothing, so a restart with a new limit goes on."""
    with running(hold, store.path, 1) as (child, pipe):
        expect(pipe)
        kill(child)
    assert store.semaphore("pool", 5).acquire(blocking=False, n=5)


def test_a_large_request_is_not_starved_by_small_ones(store: kvsync.Store) -> None:
    """Who comes later waits behind it, even where enough would be free for him."""
    one, all_, late = (store.semaphore("pool", 3) for _ in range(3))
    one.acquire()
    with queued(lambda: all_.acquire(n=3), all_) as large:
        assert not late.acquire(blocking=False)
        with queued(late.acquire, late) as small:
            one.release()
            assert large.result()
            assert len(late.stats().waiters) == 1
            all_.release(3)
            assert small.result()


def test_a_large_request_that_gives_up_lets_the_small_ones_in(path: Path) -> None:
    """When its timeout is over; all who fit, in the same moment."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store, ExitStack() as stack:
        one, *others = (store.semaphore("pool", 3) for _ in range(4))
        one.acquire()
        wishes = [(others[0], 5, 3), (others[1], 60, 1), (others[2], 60, 1)]
        large, *small = (
            stack.enter_context(queued(lambda s=s, t=t, n=n: s.acquire(timeout=t, n=n), one))
            for s, t, n in wishes
        )
        clock.advance(6)
        assert not large.result()
        assert all(each.result() for each in small)
        assert one.free() == 0


def wait_for_all(pipe: Any, path: str) -> None:
    """Wait for every permit."""
    with kvsync.open(path) as store:
        pipe.send("waits")
        store.semaphore("pool", 3).acquire(n=3)
        pipe.send("holds")
        pipe.recv()


def test_a_large_request_whose_process_dies_lets_the_small_ones_in(store: kvsync.Store) -> None:
    """They watch it, as it stands before them."""
    one, late = store.semaphore("pool", 3), store.semaphore("pool", 3)
    one.acquire()
    with running(wait_for_all, store.path) as (child, pipe):
        expect(pipe)
        eventually(lambda: late.stats().waiters)
        with queued(late.acquire, late) as small:
            kill(child)
            assert small.result()
    assert one.free() == 1


def test_who_does_not_wait_finds_the_dead_that_stand_before_it(store: kvsync.Store) -> None:
    """Nobody else is there to see to them."""
    one = store.semaphore("pool", 3)
    one.acquire()
    with running(wait_for_all, store.path) as (child, pipe):
        expect(pipe)
        eventually(lambda: one.stats().waiters)
        assert not one.acquire(blocking=False)
        kill(child)
    assert one.acquire(blocking=False)
    assert one.stats().waiters == ()


def wait_in_many_sessions(pipe: Any, path: str, count: int) -> None:
    """Each in a thread and a store handle of its own, beside one that holds all."""
    stores = [kvsync.open(path) for _ in range(count)]
    stores[0].semaphore("pool", 3).acquire(n=3)
    for each in stores[1:]:
        threading.Thread(target=each.semaphore("pool", 3).acquire, daemon=True).start()
    eventually(lambda: len(stores[0].semaphore("pool", 3).stats().waiters) == count - 1)
    pipe.send("wait")
    pipe.recv()


@pytest.mark.parametrize("timeout", [0, None])
def test_the_dead_of_a_line_do_not_keep_up_its_limit(
    store: kvsync.Store, timeout: float | None
) -> None:
    """However many they are, a restart with a new limit goes on."""
    assert store.session.id  # from now on, none but who is obstructed sees to them
    with running(wait_in_many_sessions, store.path, 20) as (child, pipe):
        expect(pipe)
        with pytest.raises(kvsync.LimitError):
            store.semaphore("pool", 5).acquire(timeout=timeout)
        kill(child)
    assert store.semaphore("pool", 5).acquire(timeout=timeout, n=5)


def test_a_living_waiter_spares_looks_at_those_behind_it(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who tries in vain looks at no more than who holds and the first in line."""
    with running(wait_in_many_sessions, store.path, 20) as (_, pipe):
        expect(pipe)
        looked_at, is_dead = set(), Session.is_dead

        def look(session: Session, other: int) -> bool:
            looked_at.add(other)
            return is_dead(session, other)

        assert store.session.id
        monkeypatch.setattr(Session, "is_dead", look)
        assert not store.semaphore("pool", 3).acquire(blocking=False)
        assert len(looked_at) == 2


def test_a_differing_limit_is_refused_while_permits_are_held(store: kvsync.Store) -> None:
    """And adopted when nobody holds one or waits; then the former limit is the wrong one."""
    two, five = store.semaphore("pool", 2), store.semaphore("pool", 5)
    two.acquire()
    for timeout in (0, 0.01, None):
        with pytest.raises(kvsync.LimitError, match="limit of 2, not 5"):
            five.acquire(timeout=timeout)
    assert two.acquire(blocking=False)
    two.release(2)
    assert five.acquire(blocking=False, n=5)
    with pytest.raises(ValueError, match="limit of 5, not 2"):
        two.acquire(blocking=False)
    assert two.free() == 0


def test_who_waits_keeps_up_the_limit(store: kvsync.Store) -> None:
    """Though in this moment all that is held is on its way to him."""
    one, all_, other = store.semaphore("p", 2), store.semaphore("p", 2), store.semaphore("p", 3)
    one.acquire()
    with queued(lambda: all_.acquire(n=2), all_) as waiter:
        with pytest.raises(kvsync.LimitError):
            other.acquire()
        one.release()
        assert waiter.result()


def test_a_lease_that_is_over_holds_no_permits(path: Path) -> None:
    """They are free, and count as free; a release of some of them then is refused."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        leased, other = store.semaphore("pool", 2, lease=10), store.semaphore("pool", 2)
        leased.acquire(n=2)
        assert not other.acquire(blocking=False)
        clock.advance(11)
        assert other.free() == 2
        assert other.stats().free == 2
        assert other.acquire(blocking=False)
        with pytest.raises(kvsync.LeaseLostError):
            leased.release()
        assert [holder.units for holder in other.holders()] == [1]
        with pytest.raises(kvsync.NotOwnedError):
            leased.release()


def test_a_release_of_what_was_lost_in_part_gives_back_the_rest(path: Path) -> None:
    """LeaseLostError comes when nothing of it is held any more."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        leased = store.semaphore("pool", 4, lease=10)
        leased.acquire(n=2)
        clock.advance(6)
        leased.acquire()
        clock.advance(6)
        with pytest.raises(kvsync.LeaseLostError):
            leased.release(3)
        assert leased.holders() == []


def test_a_forked_child_holds_none_of_its_parents_permits(store: kvsync.Store) -> None:
    """It cannot release them; it can take others through the same object, and give them back."""
    semaphore = store.semaphore("pool", 2)
    semaphore.acquire()
    pid = os.fork()
    if pid == 0:
        try:
            semaphore.release()
        except kvsync.NotOwnedError:
            got = semaphore.acquire(blocking=False) and not semaphore.acquire(blocking=False)
            semaphore.release()
            os._exit(7 if got else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert semaphore.acquire(blocking=False)


def test_a_semaphore_and_a_lock_of_one_name_are_two_things(store: kvsync.Store) -> None:
    """Semaphores have names of their own."""
    with store.semaphore("job", 1), store.lock("job"), store.semaphore("other", 1) as grant:
        assert grant.token > 0


def test_a_semaphore_pickles_with_its_limit(store: kvsync.Store) -> None:
    """And with its options."""
    again = pickle.loads(pickle.dumps(store.semaphore("pool", 3, timeout=1, lease=2)))
    assert again.limit == 3
    assert repr(again) == (
        f"<kvsync.Semaphore 'pool', limit=3, timeout=1.0, lease=2.0 in kvsync.open({store.path!r})>"
    )

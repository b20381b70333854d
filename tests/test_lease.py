"""Leases and fencing: a grant that time ends, and work that only its current holder can commit."""

import math
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

import kvsync
from kvsync.engine.doorbell import LOOK, SERVED, Doorbells
from kvsync.engine.sqlite import SqliteEngine
from kvsync.primitives.grants import CLAIM_TIME
from kvsync.primitives.units import Units
from kvsync.testing import ManualClock
from tests.conftest import Occupy
from tests.interrupted import Interrupt, after_each_call
from tests.lines import calling, doorbells, queued
from tests.processes import PATIENCE, eventually, expect, in_thread, kill, running, stop

KINDS = ["lock", "rlock", "semaphore", "read", "write", "election"]


def make(store: kvsync.Store, kind: str, **options: Any) -> Any:
    """Something that can be held; of a semaphore it is all the permits."""
    if kind in ("read", "write"):
        return getattr(store.rwlock("job", **options), kind)()
    return getattr(store, kind)("job", *([1] if kind == "semaphore" else []), **options)


def rival_of(store: kvsync.Store, kind: str) -> Any:
    """Something else of that name which excludes it."""
    return make(store, "write" if kind == "read" else kind)


@pytest.fixture
def store(timed_store: kvsync.Store) -> kvsync.Store:
    """One whose time moves when the test says so."""
    return timed_store


def guarded(store: kvsync.Store, guard: Any) -> None:
    """Count, if it is still held."""
    with store.transaction(guard=guard):
        store.counter("done").add()


def assert_lost(store: kvsync.Store, held: Any) -> None:
    """All that needs the grant is refused, and changes nothing."""
    grants = store.engine.read("select * from kvsync_grant order by id")
    done = store.counter("done").value
    assert not held.owned()
    for call in (lambda: held.extend(10), held.ensure_held, lambda: guarded(store, held)):
        with pytest.raises(kvsync.LeaseLostError):
            call()
    assert store.engine.read("select * from kvsync_grant order by id") == grants
    with pytest.raises(kvsync.LeaseLostError):
        held.release()
    with pytest.raises(kvsync.NotOwnedError):
        held.release()
    assert store.counter("done").value == done


def test_each_release_of_a_lost_rlock_says_so(store: kvsync.Store, clock: ManualClock) -> None:
    """The inner ones too: what comes between it and the last is not protected any more."""
    held = store.rlock("job", lease=10)
    for _ in range(3):
        held.acquire()
    held.release()
    clock.advance(11)
    for _ in range(2):
        with pytest.raises(kvsync.LeaseLostError):
            held.release()
    with pytest.raises(kvsync.NotOwnedError):
        held.release()


@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_that_is_over_passes_to_who_waits(
    store: kvsync.Store, clock: ManualClock, kind: str
) -> None:
    """Without any call of the former holder, which then is refused all it asks."""
    held, rival = make(store, kind, lease=10), rival_of(store, kind)
    held.acquire()
    with queued(rival.acquire, rival) as waiter:
        clock.advance(9)
        assert not waiter.is_over
        assert held.owned()
        clock.advance(2)
        assert waiter.result()
        token = rival.holder().token
        assert_lost(store, held)
        assert rival.holder().token == token
        if kind != "rlock":  # that is its own thread's
            guarded(store, rival)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_that_is_over_guards_nothing_though_another_thread_has_it_now(
    store: kvsync.Store, clock: ManualClock, kind: str
) -> None:
    """Through the same object: each thread goes by its own."""
    held = make(store, kind, lease=10)
    held.acquire()
    clock.advance(11)

    def take() -> bool:
        assert held.acquire()
        guarded(store, held)
        return True

    with calling(take) as other:
        assert other.result()
        with pytest.raises(kvsync.LeaseLostError):
            guarded(store, held)
    assert store.counter("done").value == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_that_is_over_is_over_though_nobody_took_it(
    store: kvsync.Store, clock: ManualClock, kind: str
) -> None:
    """It does not come back; who comes later has it at once."""
    held, rival = make(store, kind, lease=10), rival_of(store, kind)
    held.acquire()
    clock.advance(10)
    assert_lost(store, held)
    held.acquire()
    clock.advance(10)
    assert in_thread(lambda: rival.acquire(blocking=False))


@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_that_is_over_is_not_held(
    store: kvsync.Store, clock: ManualClock, kind: str
) -> None:
    """Says whoever is asked, and nobody has taken it."""
    held, rival = make(store, kind, lease=10), rival_of(store, kind)
    held.acquire()
    clock.advance(9)
    assert rival.locked()
    assert rival.holder().lease_left == 1
    clock.advance(1)
    assert not rival.locked()
    assert rival.holder() is None
    assert rival.stats().holders == ()


def wait_for_it(pipe: Any, path: str) -> None:
    pipe.send("waits")
    kvsync.open(path).lock("job").acquire()


def test_what_a_waiter_does_not_take_up_in_time_has_whoever_comes(
    store: kvsync.Store, clock: ManualClock
) -> None:
    """It is stopped."""
    lock = store.lock("job")
    lock.acquire()
    with running(wait_for_it, store.path) as (child, pipe):
        expect(pipe)
        eventually(lambda: lock.stats().waiters)
        stop(child, store.path)
        lock.release()
        assert not lock.acquire(blocking=False)
        clock.advance(1)
        assert lock.acquire(blocking=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_can_be_extended(store: kvsync.Store, clock: ManualClock, kind: str) -> None:
    """It ends so many seconds from now, later or earlier than it would have."""
    held, rival = make(store, kind, lease=10), rival_of(store, kind)
    held.acquire()
    for _ in range(3):
        clock.advance(9)
        held.extend(timedelta(seconds=10))
    assert held.holder().lease_left == 10
    assert not in_thread(lambda: [rival.acquire(blocking=False)])[0]
    held.extend(2)
    clock.advance(3)
    assert_lost(store, held)


@pytest.mark.parametrize("lease", [None, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_that_is_to_end_earlier_tells_who_waits(
    store: kvsync.Store,
    clock: ManualClock,
    rings: list[tuple[str, bytes]],
    kind: str,
    lease: float | None,
) -> None:
    """Or at all: the head of the line looks when that time is over, and sleeps no longer."""
    held, rival = make(store, kind, lease=lease), rival_of(store, kind)
    held.acquire()
    with queued(rival.acquire, rival) as waiter:
        (doorbell,) = doorbells(store)
        with store.transaction():
            held.extend(0.01)
            assert rings == []
        assert rings == [(doorbell, LOOK)]
        clock.advance(1)
        assert waiter.result()


@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_that_is_put_off_wakes_nobody(
    store: kvsync.Store, rings: list[tuple[str, bytes]], kind: str
) -> None:
    """Nor one that ends when it would have ended."""
    held, rival = make(store, kind, lease=1000), rival_of(store, kind)
    held.acquire()
    with queued(rival.acquire, rival) as waiter:
        held.extend(1000)
        held.extend(2000)
        assert rings == []
        held.release()
        assert waiter.result()


@pytest.mark.usefixtures("rings")
def test_each_of_several_leases_may_be_the_one_that_ends_earlier(
    store: kvsync.Store, clock: ManualClock
) -> None:
    """The second one here: the first is put off."""
    held, rival = store.semaphore("job", 2, lease=100_000), store.semaphore("job", 2)
    held.acquire()
    clock.advance(90_000)
    held.acquire()
    with queued(lambda: rival.acquire(n=2), rival) as waiter:
        held.extend(50_000)
        clock.advance(60_000)
        assert waiter.result()


@pytest.fixture(params=["semaphore", "read"])
def twice(request: pytest.FixtureRequest, store: kvsync.Store, clock: ManualClock) -> Any:
    """Something that this thread holds by two grants, of which the first ends 9 s before."""
    held = shared(store, request.param)
    held.acquire()
    clock.advance(9)
    held.acquire()
    return held


def shared(store: kvsync.Store, kind: str) -> Any:
    """What one object may hold several times."""
    if kind == "read":
        return make(store, kind, lease=10)
    return store.semaphore("job", 3, lease=10)


def leases(held: Any) -> list[float | None]:
    """The seconds that are left of each grant, first come first."""
    return [holder.lease_left for holder in held.stats().holders]


def test_an_extension_is_one_of_all_grants(twice: Any, clock: ManualClock) -> None:
    """Each lease ends so many seconds from now."""
    assert leases(twice) == [1, 10]
    twice.extend(20)
    assert leases(twice) == [20, 20]
    clock.advance(19)
    assert twice.owned()
    twice.ensure_held()


def test_one_lost_grant_of_two_is_told(twice: Any, store: kvsync.Store, clock: ManualClock) -> None:
    """By all that vouches; none is extended, and nothing guarded. Until it is given back."""
    guarded(store, twice)
    clock.advance(2)
    assert not twice.owned()
    for call in (lambda: twice.extend(20), twice.ensure_held, lambda: guarded(store, twice)):
        with pytest.raises(kvsync.LeaseLostError):
            call()
    with store.transaction(), pytest.raises(kvsync.LeaseLostError):
        twice.extend(20)
    assert leases(twice) == [8]
    assert store.counter("done").value == 1
    twice.release()
    with pytest.raises(kvsync.LeaseLostError):
        twice.release()
    twice.acquire()
    guarded(store, twice)


def test_a_lost_grant_keeps_those_before_it_from_being_extended(
    twice: Any, store: kvsync.Store
) -> None:
    """All or none: what was extended first is undone."""
    last = twice.stats().holders[-1].token
    store.engine.write("update kvsync_unit set session = 0 where token = :token", {"token": last})
    with pytest.raises(kvsync.LeaseLostError):
        twice.extend(20)
    assert leases(twice) == [1]


def test_a_thread_without_a_grant_goes_by_all_of_the_object(
    twice: Any, store: kvsync.Store, clock: ManualClock
) -> None:
    """One with a grant by its own alone."""

    def extend() -> bool:
        twice.extend(20)
        guarded(store, twice)
        return twice.owned()

    assert in_thread(extend)
    assert leases(twice) == [20, 20]
    twice.extend(1)
    clock.advance(2)
    assert not in_thread(twice.owned)
    assert in_thread(lambda: twice.acquire() and twice.owned())


@pytest.mark.parametrize("kind", ["semaphore", "read"])
def test_what_another_thread_is_about_to_give_back_is_not_lost(
    store: kvsync.Store, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has it no more, but the object still notes it: what is left is held."""
    held = shared(store, kind)
    held.acquire()
    kept = held.token
    forget, seen = Units._forget, []

    def look_before(units: Units, grant: Any) -> None:
        seen.append(in_thread(lambda: [held.owned(), held.extend(20), guarded(store, held)]))
        forget(units, grant)

    with calling(held.acquire) as other:
        assert other.result()
        theirs = next(grant for grant in held._ours() if grant.token != kept)
        with monkeypatch.context() as patch:
            patch.setattr(Units, "_forget", look_before)
            held._units.release(theirs)
    assert seen == [[True, None, None]]
    assert leases(held) == [20]


@pytest.mark.parametrize("kind", ["semaphore", "read"])
def test_a_guard_holds_while_another_thread_waits_to_give_it_back(
    store: kvsync.Store, kind: str
) -> None:
    """It cannot before the guarded transaction has ended."""
    held, taken, go_on = shared(store, kind), threading.Event(), threading.Event()

    def take_and_give_back() -> bool:
        held.acquire()
        taken.set()
        assert go_on.wait(PATIENCE)
        held.release()
        return True

    with calling(take_and_give_back) as other:
        assert taken.wait(PATIENCE)
        (theirs,) = held._ours()
        with store.transaction(guard=held):
            go_on.set()
            eventually(lambda: theirs.is_leaving)
            store.counter("done").add()
        assert other.result()
    assert store.counter("done").value == 1


@pytest.mark.parametrize("kind", ["semaphore", "read"])
def test_what_another_thread_gives_back_meanwhile_is_not_lost(
    store: kvsync.Store, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there when the look at all grants began; the others are looked at anew."""
    held = shared(store, kind)
    grants = [held.__enter__() for _ in range(2)]
    with monkeypatch.context() as patch:
        current = Units.is_current

        def give_back_before(units: Units, grant: Any) -> bool:
            patch.undo()
            held._units.release(grants[0])
            return current(units, grant)

        patch.setattr(Units, "is_current", give_back_before)
        held.ensure_held()
    held.force_release()
    with pytest.raises(kvsync.LeaseLostError):
        held.ensure_held()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_just_given_back_is_not_held_and_not_lost(
    store: kvsync.Store, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The object still notes its only grant, which the store has no more."""
    held, seen = make(store, kind, lease=10), []
    forget = Units._forget

    def look_before(units: Units, grant: Any) -> None:
        for call in (held.ensure_held, lambda: held.extend(20), lambda: guarded(store, held)):
            with pytest.raises(kvsync.NotOwnedError):
                call()
        seen.append(held.owned())
        forget(units, grant)

    held.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(Units, "_forget", look_before)
        held.release()
    assert seen == [False]


@pytest.mark.parametrize("kind", ["semaphore", "read"])
def test_a_guard_goes_by_a_lost_grant_that_is_about_to_be_given_back(
    store: kvsync.Store, clock: ManualClock, kind: str
) -> None:
    """While the transaction lasts nobody can give it back, so it counts, and its lease is over."""
    held, taken, go_on = shared(store, kind), threading.Event(), threading.Event()

    def take_and_give_back() -> None:
        held.acquire()
        taken.set()
        assert go_on.wait(PATIENCE)
        with pytest.raises(kvsync.LeaseLostError):
            held.release()

    def take_and_keep() -> None:
        held.acquire()

    with calling(take_and_give_back) as other:
        assert taken.wait(PATIENCE)
        (theirs,) = held._ours()
        clock.advance(5)
        in_thread(take_and_keep)
        with pytest.raises(kvsync.LeaseLostError), store.transaction(guard=held):
            clock.advance(6)
            go_on.set()
            eventually(lambda: theirs.is_leaving)
        other.result()


def test_an_extension_gives_a_lease_to_what_had_none(
    store: kvsync.Store, clock: ManualClock
) -> None:
    """And keeps from the waiter what it was about to have."""
    lock, rival = store.lock("job"), store.lock("job")
    lock.acquire()
    assert lock.holder() is not None
    with queued(rival.acquire, rival) as waiter:
        lock.extend(10)
        clock.advance(9)
        lock.extend(10)
        clock.advance(9)
        lock.ensure_held()
        assert not waiter.is_over
        clock.advance(2)
        assert waiter.result()


def test_a_lease_in_real_time_ends_by_itself(path: Path) -> None:
    """The next in line is not told by anybody."""
    with kvsync.open(path) as store:
        held, rival = store.lock("job", lease=0.3), store.lock("job")
        held.acquire()
        assert rival.acquire()
        assert_lost(store, held)


def test_the_lease_of_who_waited_begins_when_he_gets_it(
    store: kvsync.Store, clock: ManualClock
) -> None:
    """Not when he began to wait."""
    lock, rival = store.lock("job"), store.lock("job", lease=10)
    lock.acquire()
    with queued(rival.acquire, rival) as waiter:
        clock.advance(100)
        lock.release()
        assert waiter.result()
    holder = rival.holder()
    assert holder is not None
    assert holder.lease_left == 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_begins_when_it_was_had_at_last(
    store: kvsync.Store, kind: str, occupy: Occupy
) -> None:
    """Though the store was busy for longer than it lasts."""
    held = make(store, kind, lease=10)
    for _ in range(2):  # who comes first finds no row to change
        occupy(30)
        assert held.acquire()
        assert held.holder().lease_left == 10
        held.release()


@pytest.mark.parametrize("kind", KINDS)
def test_an_extension_counts_from_when_it_is_made(
    store: kvsync.Store, kind: str, occupy: Occupy
) -> None:
    """Though the store was busy meanwhile; a lease that has ended by then is lost."""
    held = make(store, kind, lease=60)
    held.acquire()
    occupy(30)
    held.extend(10)
    assert held.holder().lease_left == 10
    occupy(30)
    with pytest.raises(kvsync.LeaseLostError):
        held.extend(10)


@pytest.mark.usefixtures("head_waits_to_be_woken")
def test_who_has_waited_has_the_whole_lease(
    store: kvsync.Store, occupy: Occupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From when it was handed over, and once more from when it was taken up."""
    lock, rival = store.lock("job"), store.lock("job", lease=10)
    claim = Units._claim_at_once

    def claim_late(units: Units, *arguments: Any) -> Any:
        occupy(30)
        return claim(units, *arguments)

    lock.acquire()
    with queued(rival.acquire, rival) as waiter:
        (doorbell,) = doorbells(store)
        with monkeypatch.context() as patch:
            patch.setattr(Doorbells, "saying", lambda *_: iter(()))
            occupy(30)
            lock.release()
        ((expires, claim_by),) = store.engine.read("select expires, claim_by from kvsync_grant")
        now = store.engine.boot()
        assert (expires - now, claim_by - now) == (10, CLAIM_TIME)
        monkeypatch.setattr(Units, "_claim_at_once", claim_late)
        store.engine.doorbells.ring(doorbell, SERVED)
        assert waiter.result()
    assert [each.lease_left for each in rival.stats().holders] == [10]


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf, "1", True])
def test_a_lease_is_a_finite_time_above_zero(store: kvsync.Store, wrong: Any) -> None:
    """Anything else is refused before anything is written."""
    with pytest.raises((TypeError, ValueError)):
        store.lock("job", lease=wrong)
    lock = store.lock("job")
    with lock, pytest.raises((TypeError, ValueError)):
        lock.extend(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_taken_away_by_force_is_lost(store: kvsync.Store, kind: str) -> None:
    """Though it had no lease."""
    held, rival = make(store, kind), rival_of(store, kind)
    held.acquire()
    token = held.holder().token
    (holder,) = rival.force_release()
    assert (holder.token, holder.pid) == (token, os.getpid())
    assert in_thread(lambda: rival.acquire(blocking=False))
    assert rival.holder().token > token
    assert_lost(store, held)
    assert rival.locked()


def test_force_tells_whom_it_took_it_from(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not who held it a moment before."""
    lock, next_one, engine = store.lock("job"), store.lock("job"), store.engine
    lock.acquire()

    def transact_later(*arguments: Any) -> Any:
        monkeypatch.undo()
        lock.release()
        next_one.acquire()
        return engine.transact(*arguments)

    monkeypatch.setattr(engine, "transact", transact_later)
    (holder,) = store.lock("job").force_release()
    assert holder.token == next_one.token


@pytest.mark.parametrize("kind", KINDS)
def test_a_guard_lets_its_holder_commit(store: kvsync.Store, kind: str) -> None:
    """And nobody else: neither before it holds it nor after, nor through another object."""
    held = make(store, kind)
    for guard in (held, rival_of(store, kind)):
        with pytest.raises(kvsync.NotOwnedError):
            guarded(store, guard)
    with held:
        guarded(store, held)
        if kind != "rlock":
            with pytest.raises(kvsync.NotOwnedError):
                guarded(store, rival_of(store, kind))
    with pytest.raises(kvsync.NotOwnedError):
        guarded(store, held)
    assert store.counter("done").value == 1


def test_an_rlock_guards_for_the_thread_that_holds_it(store: kvsync.Store) -> None:
    """Through whatever object of the store; for other threads it does not."""
    with store.rlock("job"):
        guarded(store, store.rlock("job"))
        in_thread(lambda: [refused(lambda: guarded(store, store.rlock("job")))])
    assert store.counter("done").value == 1


def refused(call: Callable[[], None]) -> None:
    with pytest.raises(kvsync.NotOwnedError):
        call()


def test_a_lease_that_ends_inside_a_guarded_block_undoes_it(
    store: kvsync.Store, clock: ManualClock
) -> None:
    """All of the block, and of the outer one nothing."""
    lock = store.lock("job", lease=10)
    lock.acquire()
    with store.transaction():
        store.counter("outer").add()
        with pytest.raises(kvsync.LeaseLostError), store.transaction(guard=lock):
            store.counter("done").add()
            clock.advance(11)
    assert store.counter("outer").value == 1
    assert store.counter("done").value == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["its lease", "force"])
def test_a_guard_of_an_inner_block_holds_until_the_outermost_commits(
    store: kvsync.Store, clock: ManualClock, kind: str, end: str
) -> None:
    """If it does not, nothing of the whole is committed; the inner block had ended well."""
    held = make(store, kind, lease=10)
    held.acquire()
    with pytest.raises(kvsync.LeaseLostError), store.transaction():
        store.counter("outer").add()
        with store.transaction():
            guarded(store, held)
        if end == "force":
            held.force_release()
        else:
            clock.advance(11)
    assert store.counter("outer").value == store.counter("done").value == 0


def test_an_election_given_up_after_an_inner_block_lets_nothing_be_committed(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leader was in doubt, and has stepped down: it has no grant any more."""
    election = store.election("job")
    election.campaign()

    def unreadable(_: object) -> bool:
        raise kvsync.StorageError("the disk is gone")

    with pytest.raises(kvsync.NotOwnedError), store.transaction():
        guarded(store, election)
        with monkeypatch.context() as patch:
            patch.setattr(election._units, "is_current", unreadable)
            assert not election.is_leader()
    assert store.counter("done").value == 0


def test_the_guard_of_an_inner_block_that_was_undone_is_not_asked_again(
    store: kvsync.Store, clock: ManualClock
) -> None:
    """Nor are those of the blocks within it; the others are."""
    inner, outer = store.lock("inner", lease=10), store.lock("outer", lease=100)
    inner.acquire()
    outer.acquire()

    def transact() -> None:
        with store.transaction():
            guarded(store, outer)
            with pytest.raises(ZeroDivisionError), store.transaction():
                guarded(store, inner)
                with store.transaction(guard=inner):
                    guarded(store, inner)
                _ = 1 / 0
            clock.advance(11)

    transact()
    assert store.counter("done").value == 1
    inner.force_release()
    inner = store.lock("inner")
    inner.acquire()
    clock.advance(78)
    with pytest.raises(kvsync.LeaseLostError):
        transact()
    assert store.counter("done").value == 1


def test_an_interrupted_inner_block_commits_nothing_past_its_guard(
    store: kvsync.Store, clock: ManualClock
) -> None:
    """Wherever the interrupt strikes, and though the outer block goes on."""
    lock = store.lock("job", lease=10)

    def transact() -> None:
        with suppress(kvsync.LeaseLostError, kvsync.TransactionError), store.transaction():
            with suppress(Interrupt):
                guarded(store, lock)
            clock.advance(11)

    assert lock.acquire()
    for place in after_each_call(transact):
        assert store.counter("done").value == 0, place
        lock.force_release()
        with pytest.raises(kvsync.LeaseLostError):
            lock.release()
        assert lock.acquire()
    assert store.counter("done").value == 0


@pytest.mark.parametrize("is_inner", [False, True])
def test_a_guard_is_asked_again_when_the_commit_had_to_wait(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, is_inner: bool
) -> None:
    """For readers, in a file that has a rollback journal."""
    wait = SqliteEngine.wait
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("create table theirs (n)")
        with kvsync.open(path, clock=clock) as store:
            assert store.stats().journal_mode == "delete"
            lock = store.lock("job", lease=10)
            lock.acquire()

            def meanwhile(engine: SqliteEngine, *arguments: Any, **options: Any) -> Any:
                clock.advance(11)
                reader.execute("rollback")
                return wait(engine, *arguments, **options)

            with (
                pytest.raises(kvsync.LeaseLostError),
                store.transaction(guard=None if is_inner else lock),
            ):
                guarded(store, lock if is_inner else None)
                reader.execute("begin")
                reader.execute("select * from theirs").fetchall()
                monkeypatch.setattr(SqliteEngine, "wait", meanwhile)
            monkeypatch.setattr(SqliteEngine, "wait", wait)
            assert store.counter("done").value == 0


def test_a_guard_of_another_file_is_refused(store: kvsync.Store) -> None:
    """It could be taken away while the transaction runs."""
    with kvsync.temporary() as other, other.lock("job") as grant:
        assert grant.token
        with pytest.raises(ValueError, match="cannot guard"):
            store.transaction(guard=other.lock("job"))


def test_a_guard_that_is_held_in_a_file_which_was_replaced_is_refused(
    path: Path, tmp_path: Path
) -> None:
    """Though the copy in its place says that it is held: in there others may take it."""
    old = kvsync.open(path)
    lock = old.lock("job")
    lock.acquire()
    old.backup(tmp_path / "copy.db")
    os.replace(tmp_path / "copy.db", path)
    with kvsync.open(path) as new:
        for guard in (lock, old.rlock("job")):
            with pytest.raises(kvsync.StoreReplacedError):
                guarded(new, guard)
        assert new.counter("done").value == 0
        old.close()
        with pytest.raises(kvsync.ClosedError):
            guarded(new, lock)


def test_a_guard_may_be_of_another_handle(store: kvsync.Store) -> None:
    """On the same file, in the same process."""
    with kvsync.open(store.path, clock=store._options["clock"]) as other:
        lock = other.lock("job")
        with lock:
            guarded(store, lock)
    assert store.counter("done").value == 1


def hold(pipe: Any, path: str) -> None:
    """Tell the token, and hold until killed."""
    with kvsync.open(path) as store, store.lock("job") as grant:
        pipe.send(grant.token)
        pipe.recv()


def test_tokens_rise_whatever_ends_a_grant(path: Path) -> None:
    """A release, force, a death, the end of the store, the end of a lease."""
    tokens = []
    for _ in range(2):
        with kvsync.open(path) as store:
            for kind in ("lock", "rlock", "write", "read", "lock"):
                with make(store, kind) as grant:
                    tokens.append(grant.token)
            with running(hold, path) as (child, pipe):
                tokens.append(expect(pipe))
                kill(child)
            lock = store.lock("job", lease=0.05)
            assert lock.acquire()
            tokens.append(lock.token)
            assert store.lock("job").acquire()
            (forced,) = store.lock("job").force_release()
            tokens.append(forced.token)
            assert store.lock("job").acquire(blocking=False)  # and the store is closed
    assert tokens == sorted(set(tokens))


def overstay(pipe: Any, path: str) -> None:
    """Take a lease; when told to, try what only a holder may, and tell how it went."""
    with kvsync.open(path) as store:
        lock = store.lock("job", lease=0.2)
        attempts = {
            "extend": lambda: lock.extend(10),
            "ensure_held": lock.ensure_held,
            "guard": lambda: guarded(store, lock),
            "release": lock.release,
        }
        for attempt in iter(pipe.recv, None):
            lock.acquire()
            pipe.send("holds")
            pipe.recv()
            pipe.send(error_of(attempts[attempt]))
            pipe.send(error_of(lock.release))
            pipe.recv()


def error_of(call: Callable[[], None]) -> str:
    try:
        call()
    except kvsync.KvsyncError as error:
        return type(error).__name__
    return "none"


def test_a_holder_that_was_stopped_past_its_lease_is_refused(path: Path) -> None:
    """By a real signal, in real time, whatever it tries first when it goes on."""
    with kvsync.open(path) as store, running(overstay, path) as (child, pipe):
        lock, process = store.lock("job"), psutil.Process(child.pid)
        for attempt in ("extend", "ensure_held", "guard", "release") * 2:
            pipe.send(attempt)
            expect(pipe)
            process.send_signal(signal.SIGSTOP)
            eventually(lambda: process.status() == psutil.STATUS_STOPPED)
            with lock:
                process.send_signal(signal.SIGCONT)
                pipe.send("go on")
                assert expect(pipe) == "LeaseLostError"
                second = "NotOwnedError" if attempt == "release" else "LeaseLostError"
                assert expect(pipe) == second
                lock.ensure_held()
            pipe.send("next")
        pipe.send(None)
        assert store.counter("done").value == 0


def test_a_guard_that_cannot_be_held_is_a_type_error(store: kvsync.Store) -> None:
    """An rwlock has two sides, of which one is held."""
    for wrong in ("job", store.rwlock("job"), store.event("job")):
        with pytest.raises(TypeError, match=r"read\(\) or write\(\) side"):
            store.transaction(guard=wrong)  # type: ignore[arg-type]

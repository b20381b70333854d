"""`with` blocks: whatever ends them, what they held is given back, and nothing else."""

import os
import pickle
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest

import kvsync
from kvsync.testing import ManualClock
from tests.interrupted import Interrupt, after_each_call, at_each_point
from tests.lines import calling
from tests.processes import in_thread
from tests.test_lease import KINDS, make


class Failure(Exception):
    """Raised in a block."""


def left(store: kvsync.Store) -> list[Any]:
    return store.engine.read(
        "select 'grant', space from kvsync_grant union all select 'ticket', space from"
        " kvsync_ticket union all select 'pledge', space from kvsync_pledge"
    )


def enter(thing: Any) -> None:
    with thing:
        pass


def enter_twice(thing: Any) -> None:
    with thing, thing:
        pass


def fail_within(thing: Any) -> None:
    with suppress(Failure), thing:
        raise Failure


def fail() -> None:
    raise Failure


def downgrade(lock: Any) -> None:
    with lock:
        lock.downgrade()


def wait(condition: Any) -> None:
    with condition:
        condition.wait(0.001)


USES: dict[str, tuple[Callable[[kvsync.Store], Any], Callable[[Any], None]]] = {
    **{kind: (lambda store, kind=kind: make(store, kind), enter) for kind in KINDS},
    "lock with a lease": (lambda store: store.lock("job", lease=60), enter),
    "failing lock": (lambda store: store.lock("job"), fail_within),
    "nested rlock": (lambda store: store.rlock("job"), enter_twice),
    "nested semaphore": (lambda store: store.semaphore("job", 2), enter_twice),
    "nested read": (lambda store: store.rwlock("job").read(), enter_twice),
    "downgrade": (lambda store: store.rwlock("job").write(), downgrade),
    "condition": (lambda store: store.condition("job"), wait),
    "condition on a lock": (lambda store: store.condition("job", store.lock("job")), wait),
}


@pytest.mark.parametrize("use", USES)
def test_an_exception_after_any_call_leaves_no_block_open(store: kvsync.Store, use: str) -> None:
    """And as any function begins, `__exit__` too, as a signal's handler could raise it there."""
    makes, call = USES[use]
    thing = makes(store)
    for point in after_each_call(lambda: call(thing)):
        assert left(store) == [], point
        assert getattr(thing, "lock", thing).token is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_pair_of_calls_leaves_nothing_that_nobody_knows_of(
    store: kvsync.Store, kind: str
) -> None:
    """What came between the two is held, and can be released."""
    thing = make(store, kind)

    def take_and_give_back() -> None:
        thing.acquire()
        thing.release()

    for point in after_each_call(take_and_give_back):
        if thing.owned():
            thing.release()
        assert left(store) == [], point
        assert thing.token is None, point


def test_an_rlock_may_be_taken_again_after_an_interrupted_release(store: kvsync.Store) -> None:
    """Nobody takes what was released for what was lost."""
    lock = store.rlock("job")
    for _ in after_each_call(lambda: enter_twice(lock)):
        while lock.owned():
            lock.release()
        with lock:
            assert lock.owned()


def test_the_end_of_an_inner_block_gives_nothing_back_of_the_outer_one(
    store: kvsync.Store,
) -> None:
    """Though the lock has another grant by then than the one that the inner block began with."""
    lock = store.rlock("job")
    condition = store.condition("job", lock)
    owned = []

    def enter_both() -> None:
        with lock:
            with suppress(Interrupt):
                wait(condition)
            owned.append(lock.owned())

    for point in at_each_point(enter_both):
        assert all(owned), point
        assert left(store) == [], point
    assert owned


def test_a_block_of_a_semaphore_gives_back_its_own_permit(store: kvsync.Store) -> None:
    """Not one that was acquired in it and is kept."""
    semaphore = store.semaphore("job", 3)
    with semaphore as grant:
        semaphore.acquire(n=2)
    (holder,) = semaphore.holders()
    assert holder.token > grant.token
    assert holder.units == 2
    semaphore.release(2)


def test_a_block_whose_lock_was_released_in_it_says_so(store: kvsync.Store) -> None:
    """And takes nothing from whoever has it then."""
    lock, other = store.lock("job"), store.lock("job")
    with pytest.raises(kvsync.NotOwnedError), lock:
        lock.release()
        other.acquire()
    assert other.owned()


HELD_BY_THREADS: dict[str, Callable[[kvsync.Store], Any]] = {
    **{kind: lambda store, kind=kind: make(store, kind) for kind in KINDS},
    "condition": lambda store: store.condition("job"),
    "condition on a lock": lambda store: store.condition("job", store.lock("job")),
}


@pytest.mark.parametrize("kind", HELD_BY_THREADS)
def test_a_block_gives_back_nothing_of_another_thread(store: kvsync.Store, kind: str) -> None:
    """Which has taken, through the same object, what was given back within."""
    thing = HELD_BY_THREADS[kind](store)
    with ExitStack() as stack:
        with pytest.raises(kvsync.NotOwnedError), thing:
            thing.release()
            stack.enter_context(calling(thing.acquire)).result()
        assert len(left(store)) == 1


@pytest.mark.parametrize("kind", ["lock", "read", "write", "election"])
def test_who_releases_what_another_thread_is_just_giving_back_does_not_hold_it(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Through the same object: nothing was lost, and nobody took it away."""
    thing = make(store, kind)
    thing.acquire()
    release, others = thing._units._release, [thing.release]

    def late(*arguments: Any) -> Any:
        if others:
            other = others.pop()
            in_thread(lambda: [other()])
        return release(*arguments)

    monkeypatch.setattr(thing._units, "_release", late)
    with pytest.raises(kvsync.NotOwnedError, match="given back"):
        thing.release()
    assert left(store) == []


def test_a_run_that_another_thread_resigns_at_its_end_raises_what_its_function_did(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is over either way."""
    election, others = store.election("boss"), [lambda: in_thread(lambda: [election.resign()])]
    release = election._units._release

    def late(*arguments: Any) -> Any:
        if others:
            others.pop()()
        return release(*arguments)

    monkeypatch.setattr(election._units, "_release", late)
    with pytest.raises(Failure):
        election.run(fail)
    assert left(store) == []


@pytest.mark.parametrize("kind", HELD_BY_THREADS)
def test_a_block_that_lets_go_for_a_while_gives_back_what_it_took_again(
    store: kvsync.Store, kind: str
) -> None:
    """It is the same thread's, and nobody else's."""
    thing = HELD_BY_THREADS[kind](store)
    with thing:
        thing.release()
        thing.acquire()
    assert left(store) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rlock"])
def test_a_block_whose_own_was_lost_says_so(store: kvsync.Store, kind: str) -> None:
    """What its thread took afterwards is not the block's."""
    thing = make(store, kind)
    with pytest.raises(kvsync.LeaseLostError), thing:
        thing.force_release()
        thing.acquire()
    assert thing.owned()
    thing.release()
    assert left(store) == []


def test_a_block_whose_lead_is_over_leaves_the_next_one_to_its_winner(
    timed_store: kvsync.Store, clock: ManualClock
) -> None:
    """Another thread, which has won it through the same object."""
    election = timed_store.election("boss", lease=10)
    with ExitStack() as stack:
        with pytest.raises(kvsync.LeaseLostError), election:
            clock.advance(11)
            assert stack.enter_context(calling(election.campaign)).result()
        assert election.is_leader()


def test_the_block_of_a_condition_that_could_not_take_its_lock_again_gives_back_nothing(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread has it meanwhile, through the same object."""
    lock = store.lock("job")
    condition = store.condition("job", lock)

    def fail(_: kvsync.Grant) -> None:
        raise kvsync.StorageError("the disk is gone")

    with ExitStack() as stack:
        with pytest.raises(kvsync.StorageError), condition:
            monkeypatch.setattr(condition, "_take_back", fail)
            try:
                condition.wait(0.001)
            finally:
                stack.enter_context(calling(lock.acquire)).result()
        assert lock.owned()


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_can_be_ended_by_hand(store: kvsync.Store, kind: str) -> None:
    """As who wraps a lock does; and by an ExitStack, which looks at the class."""
    thing = make(store, kind)
    for _ in range(2):
        grant = thing.__enter__()
        assert thing.token == grant.token
        thing.__exit__(None, None, None)
        with ExitStack() as stack:
            assert stack.enter_context(thing).token > grant.token
        assert left(store) == []


def test_looking_at_an_end_ends_nothing(store: kvsync.Store) -> None:
    """Nor does it go wrong if many threads do."""
    lock = store.lock("job")
    assert lock.acquire()
    assert callable(lock.__exit__)
    assert in_thread(lambda: callable(lock.__exit__))
    lock.release()
    assert hasattr(lock.__enter__(), "token")
    assert callable(lock.__exit__)
    assert lock.owned()
    assert not pickle.loads(pickle.dumps(lock)).owned()
    lock.release()


def test_a_forked_child_that_loses_a_block_ends_nothing(store: kvsync.Store) -> None:
    """It is its parent's."""
    lock = store.lock("job")
    with lock:
        child = os.fork()
        if child == 0:
            leave = lock.__exit__
            leave.func.grant = lock._units.held[0]  # type: ignore[attr-defined]
            leave.func.end_if_skipped()  # type: ignore[attr-defined]
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert lock.owned()

"""Conditions: nobody who waits is forgotten, whoever dies or is interrupted meanwhile."""

import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync import waiting
from kvsync.engine.doorbell import LOOK
from tests.interrupted import at_each_point
from tests.lines import Call, calling, doorbells, queued
from tests.processes import (
    PATIENCE,
    die_instead_of_ringing,
    eventually,
    expect,
    kill,
    run_all,
    running,
)

NAME = "changed"


def rows(store: kvsync.Store) -> list[Any]:
    """All that is left of waits and grants."""
    return store.engine.read(
        "select 'grant', space from kvsync_grant union all"
        " select 'ticket', state from kvsync_ticket union all"
        " select 'pledge', space from kvsync_pledge"
    )


def waited(condition: kvsync.Condition, timeout: float | None = None) -> bool:
    """Wait once, under the lock."""
    with condition:
        return condition.wait(timeout)


@contextmanager
def all_waiting(condition: kvsync.Condition, count: int) -> Iterator[list[Call]]:
    """So many threads that wait for it, in this order."""
    with ExitStack() as stack:
        calls = [lambda: waited(condition)] * count
        yield [stack.enter_context(queued(call, condition)) for call in calls]


def notify(condition: kvsync.Condition, n: int = 1) -> None:
    with condition:
        condition.notify(n)


def test_those_who_wait_are_notified_in_the_order_in_which_they_came(store: kvsync.Store) -> None:
    """As many as asked for, and no others."""
    condition = store.condition(NAME)
    with all_waiting(condition, 4) as calls:
        notify(condition, 2)
        assert calls[0].result()
        assert calls[1].result()
        assert len(condition.stats().waiters) == 2
        assert not calls[2].is_over
        with condition:
            condition.notify_all()
        assert calls[2].result()
        assert calls[3].result()
    notify(condition)
    assert rows(store) == []


def test_nobody_is_woken_by_what_came_before(store: kvsync.Store) -> None:
    """A notification is for those who wait; a wait that nobody ends ends with its timeout."""
    condition = store.condition(NAME)
    notify(condition, 3)
    assert not waited(condition, 0)
    assert not waited(condition, 0.01)
    assert rows(store) == []


def test_the_lock_is_free_during_the_wait_and_had_again_after_it(store: kvsync.Store) -> None:
    """However often it was taken; under a new token."""
    condition = store.condition(NAME)
    tokens = []

    def wait() -> None:
        with condition, condition.lock, condition:
            tokens.append(condition.lock.token)
            assert condition.wait()
            tokens.append(condition.lock.token)
            for _ in range(2):
                condition.release()
            assert condition.lock.owned()
            for _ in range(2):
                assert condition.acquire()
        assert not condition.lock.owned()

    with queued(wait, condition) as call:
        assert condition.acquire(blocking=False)
        condition.notify()
        condition.release()
        call.result()
    assert tokens == sorted(set(tokens))
    assert rows(store) == []


@pytest.mark.parametrize("kind", ["lock", "rlock"])
def test_it_stands_on_the_lock_that_it_is_given(store: kvsync.Store, kind: str) -> None:
    """Or on the rlock of its own name; several conditions may share one."""
    lock = getattr(store, kind)("theirs")
    one, other = store.condition("one", lock), store.condition("other", lock)
    assert one.lock is lock
    assert one.stats().lock == "theirs"
    assert store.condition(NAME).stats().lock == NAME
    with queued(lambda: waited(one), one) as first, queued(lambda: waited(other), other) as second:
        with lock:
            other.notify()
        assert second.result()
        assert not first.is_over
        notify(one)
        assert first.result()
    assert rows(store) == []


def test_to_acquire_it_is_to_acquire_its_lock(store: kvsync.Store) -> None:
    """Whoever has the one has the other."""
    lock = store.lock("theirs")
    condition = store.condition(NAME, lock)
    assert condition.acquire()
    assert not lock.acquire(blocking=False)
    condition.release()
    assert lock.acquire(blocking=False)
    assert not condition.acquire(blocking=False)
    lock.release()
    with condition:
        assert not lock.acquire(blocking=False)
    assert not lock.locked()


def test_only_a_lock_of_the_same_file_will_do(store: kvsync.Store, tmp_path: Path) -> None:
    """Else giving it back and joining the line would not be one step."""
    with pytest.raises(TypeError, match="RLock"):
        store.condition(NAME, threading.Lock())  # type: ignore[arg-type]
    with kvsync.open(tmp_path / "other.db") as other, pytest.raises(ValueError, match="another"):
        store.condition(NAME, other.lock(NAME))
    with kvsync.open(store.path) as same:
        condition = store.condition(NAME, same.lock(NAME))
        assert not waited(condition, 0)


def test_without_the_lock_nothing_is_done(store: kvsync.Store) -> None:
    """Another thread's does not count, nor one that was lost."""
    condition = store.condition(NAME)
    for call in (condition.wait, condition.notify, condition.notify_all):
        with pytest.raises(kvsync.NotOwnedError):
            call()
        with condition, calling(call) as other, pytest.raises(RuntimeError):
            other.result()
    with pytest.raises(kvsync.NotOwnedError):
        condition.wait_for(lambda: True)
    lost = store.condition("lost", store.lock("lost"))
    lost.acquire()
    lost.lock.force_release()
    for call in (lost.wait, lost.notify):
        with pytest.raises(kvsync.LeaseLostError):
            call()
    assert rows(store) == []


def test_a_wait_is_refused_in_a_transaction_and_a_notification_is_part_of_it(
    store: kvsync.Store,
) -> None:
    """Nobody could take the lock meanwhile."""
    condition = store.condition(NAME)
    with queued(lambda: waited(condition), condition) as call, condition:
        with store.transaction():
            for wait in (condition.wait, lambda: condition.wait_for(lambda: True)):
                with pytest.raises(kvsync.TransactionError):
                    wait()
            condition.notify()
        condition.release()
        assert call.result()
        condition.acquire()


@pytest.mark.parametrize("bad", [0, -1])
def test_bad_arguments_are_refused(store: kvsync.Store, bad: int) -> None:
    condition = store.condition(NAME)
    with condition:
        with pytest.raises(ValueError, match="n is above zero"):
            condition.notify(bad)
        with pytest.raises(ValueError, match="timeout"):
            condition.wait(bad - 1)
        with pytest.raises(ValueError, match="timeout"):
            condition.wait_for(lambda: True, float("nan"))


def test_wait_for_looks_again_after_each_notification(store: kvsync.Store) -> None:
    """Under the lock; and returns what it saw."""
    condition, values = store.condition(NAME), store.dict("values")

    def wait() -> object:
        with condition:
            return condition.wait_for(lambda: values.get("done"))

    with queued(wait, condition) as call:
        for step in ("", "", "all"):
            with condition:
                values["done"] = step
                condition.notify_all()
            if not step:
                eventually(lambda: not condition.lock.locked() and condition.stats().waiters)
        assert call.result() == "all"
    with condition:
        assert condition.wait_for(lambda: 0, timeout=0.01) == 0
        assert condition.wait_for(lambda: 7, timeout=0) == 7


# --- processes ----------------------------------------------------------------------------------


def wait_in_child(pipe: Any, condition: kvsync.Condition) -> None:
    """Wait once, and tell how it ended."""
    with condition:
        pipe.send(condition.wait())


def take_turns(path: str, me: int, turns: int) -> list[int]:
    """Go on only when it is one's turn, and pass it on; a lost wake-up would stop them all."""
    seen = []
    with kvsync.open(path) as store:
        condition, turn = store.condition(NAME), store.counter("turn")
        for _ in range(turns):
            with condition:
                condition.wait_for(lambda: turn.value % 3 == me)
                seen.append(turn.value)
                turn.add()
                condition.notify_all()
    return seen


def test_who_can_never_have_the_lock_again_is_told_so(store: kvsync.Store) -> None:
    """It holds what the one who has the lock waits for. The lock is not held then."""
    condition = store.condition(NAME, store.lock("guard"))
    other = store.condition(NAME, store.lock("guard"))

    def wait_with_something_in_hand() -> None:
        with store.lock("besides"):
            waited(condition)

    def take_both() -> None:
        with other, store.lock("besides"):
            pass

    with (
        queued(wait_with_something_in_hand, condition) as waiter,
        queued(take_both, store.lock("besides")) as rival,
    ):
        other.notify()  # which whoever uses the object that has its lock may do
        with pytest.raises(kvsync.DeadlockError):
            waiter.result()
        rival.result()
    assert not condition.lock.owned()
    assert rows(store) == []


def test_no_wake_up_is_lost_between_processes(store: kvsync.Store) -> None:
    """Three of them count in turn."""
    seen = run_all(take_turns, [(store.path, me, 40) for me in range(3)])
    assert seen == [list(range(me, 120, 3)) for me in range(3)]
    assert rows(store) == []


def test_a_pickled_condition_does_not_hold_its_originals_lock(store: kvsync.Store) -> None:
    """It waits for it as any other."""
    original = store.condition(NAME, store.lock("theirs"))
    copy = pickle.loads(pickle.dumps(original))
    assert copy.lock.name == "theirs"
    assert copy.lock.store is copy.store
    with original:
        with pytest.raises(kvsync.NotOwnedError):
            copy.notify()
        assert not copy.acquire(blocking=False)


def test_who_died_before_the_notification_does_not_swallow_it(store: kvsync.Store) -> None:
    """The next one has it."""
    condition = store.condition(NAME)
    with running(wait_in_child, condition) as (child, _):
        eventually(lambda: len(condition.stats().waiters) == 1)
        with queued(lambda: waited(condition), condition) as call:
            with condition:
                kill(child)
                condition.notify()
            assert call.result()
    assert rows(store) == []


def test_who_was_notified_and_died_before_it_had_the_lock_passes_it_on(
    store: kvsync.Store,
) -> None:
    """Also when it stood in the line for the lock already, and several did."""
    condition = store.condition(NAME)
    with ExitStack() as stack:
        children = []
        for count in range(3):
            children.append(stack.enter_context(running(wait_in_child, condition))[0])
            eventually(lambda count=count: len(condition.stats().waiters) == count + 1)
        calls = [
            stack.enter_context(queued(lambda: waited(condition), condition)) for _ in range(3)
        ]
        with condition:
            condition.notify(2)
            eventually(lambda: len(condition.lock.stats().waiters) == 2)
            for child in children:
                kill(child)
        assert calls[0].result()
        assert calls[1].result()
        assert len(condition.stats().waiters) == 1
        assert not calls[2].is_over
        notify(condition)
        assert calls[2].result()
    assert rows(store) == []


def notify_and_die_before_ringing(pipe: Any, path: str) -> None:
    """All are notified and the lock is given back, but nobody is rung."""
    with kvsync.open(path) as store:
        condition = store.condition(NAME)
        condition.acquire()
        pipe.send("held")
        pipe.recv()
        die_instead_of_ringing()
        condition.notify_all()


@pytest.mark.usefixtures("others_wait_to_be_woken")
def test_a_notifier_killed_between_commit_and_ring_loses_no_wake_up(store: kvsync.Store) -> None:
    """The first in line looks by itself, and rings the others, who would sleep on."""
    condition = store.condition(NAME)
    with all_waiting(condition, 5) as calls:
        with running(notify_and_die_before_ringing, store.path) as (child, pipe):
            expect(pipe)
            pipe.send("notify")
            child.join(PATIENCE)
        assert [call.result() for call in calls] == [True] * 5
    assert rows(store) == []


def test_who_was_notified_after_a_long_wait_tells_who_has_come_near(
    store: kvsync.Store, rings: list[tuple[str, bytes]], has_rested: Callable[[], None]
) -> None:
    """Those that are second and third now, who may look seldom."""
    condition = store.condition(NAME)
    with all_waiting(condition, 5) as calls:
        *_, third, fourth, _ = doorbells(store)
        rings.clear()
        has_rested()
        notify(condition)
        assert calls[0].result()
        assert {(third, LOOK), (fourth, LOOK)} <= set(rings)
        notify(condition, 4)
        assert [call.result() for call in calls] == [True] * 5
    assert rows(store) == []


def give_up_when_interrupted(pipe: Any, condition: kvsync.Condition) -> None:
    """Wait until interrupted, and then live on."""
    try:
        with condition:
            condition.wait()
    except KeyboardInterrupt:
        pipe.send("left")
    pipe.recv()


@pytest.mark.usefixtures("others_wait_to_be_woken")
def test_a_waiter_that_leaves_the_middle_is_not_watched_in_vain(store: kvsync.Store) -> None:
    """Who stood behind it watches the one before it, though it would sleep on."""
    condition = store.condition(NAME)
    with ExitStack() as stack:
        first, _ = stack.enter_context(running(wait_in_child, condition))
        eventually(lambda: len(condition.stats().waiters) == 1)
        middle, pipe = stack.enter_context(running(give_up_when_interrupted, condition))
        eventually(lambda: len(condition.stats().waiters) == 2)
        last = stack.enter_context(queued(lambda: waited(condition), condition))
        os.kill(middle.pid, signal.SIGINT)
        assert expect(pipe) == "left"
        kill(first)
        eventually(lambda: len(condition.stats().waiters) == 1)
        notify(condition)
        assert last.result()


def test_an_interrupted_receiver_passes_the_notification_on(store: kvsync.Store) -> None:
    """It holds the lock when the exception comes, for its `with` block gives that back."""
    condition = store.condition(NAME)
    interrupted = []

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def notify_and_interrupt() -> None:
        with condition:
            condition.notify()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    old = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with condition, ExitStack() as stack:
            other = stack.enter_context(calling(lambda: waited(condition)))
            with pytest.raises(KeyboardInterrupt):
                # The first in line is the main thread: the other has to wait for its wait.
                stack.enter_context(calling(lambda: (both_wait(condition), notify_and_interrupt())))
                condition.wait()
            interrupted.append(condition.lock.owned())
            condition.release()
            assert other.result()
            condition.acquire()
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert interrupted == [True]
    assert rows(store) == []


def both_wait(condition: kvsync.Condition) -> None:
    eventually(lambda: len(condition.stats().waiters) == 2)


# --- interrupts at each point --------------------------------------------------------------------


def notified_at_once(condition: kvsync.Condition, look: Callable[..., Any]) -> Callable[..., Any]:
    """In place of a waiter's first look: another thread notifies it, and then it looks."""

    def notify_and_look(self: waiting.Wait) -> Any:
        if self._wish.space == "condition":
            with calling(lambda: notify(condition)) as call:
                call.result()
        return look(self)

    return notify_and_look


def test_who_holds_the_rlock_through_another_object_leaves_nothing_there(
    store: kvsync.Store,
) -> None:
    """Neither by waiting nor by releasing: a grant that is over is in no object's hands."""
    lock, condition = store.rlock(NAME), store.condition(NAME)
    for _ in range(3):
        with lock:
            assert not condition.wait(0)
            assert lock._units.held == []
        assert condition.lock._units.held == []
        lock.acquire()
        condition.release()
        assert lock._units.held == []
    assert rows(store) == []


@pytest.mark.parametrize("kind", ["lock", "rlock"])
@pytest.mark.parametrize("timeout", [0, 5])
def test_after_an_interrupt_the_lock_is_held_and_no_ticket_is_left(
    store: kvsync.Store, kind: str, timeout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it comes: while it is given back, in the wait, while it is taken again."""
    condition = store.condition(NAME, getattr(store, kind)(NAME))
    if timeout:
        look = notified_at_once(condition, waiting.Wait._look)
        monkeypatch.setattr(waiting.Wait, "_look", look)
    condition.acquire()
    for _ in at_each_point(lambda: condition.wait(timeout)):
        assert condition.lock.owned()
        assert rows(store) == [("grant", "lock")]
    assert condition.lock.owned()
    condition.release()
    assert rows(store) == []

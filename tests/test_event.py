"""Events: set by anybody, waited for by any number, kept when all have gone."""

import pickle
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync import waiting
from tests.interrupted import at_each_point
from tests.lines import queued
from tests.processes import die_instead_of_ringing, eventually, expect, kill, running
from tests.undone import undone

NAME = "ready"


def tickets(store: kvsync.Store) -> list[Any]:
    return store.engine.read("select state from kvsync_ticket")


def test_it_is_clear_until_it_is_set(store: kvsync.Store) -> None:
    """Through whichever object of its name; setting and clearing twice is as good as once."""
    event, other = store.event(NAME), store.event(NAME)
    assert not event.is_set()
    for _ in range(2):
        event.set()
        assert other.is_set()
    assert other.wait()
    assert other.wait(0)
    assert other.wait(timedelta(seconds=1))
    for _ in range(2):
        other.clear()
        assert not event.is_set()
    assert not event.wait(0)
    assert not event.wait(0.01)
    assert not store.event("another").is_set()
    assert tickets(store) == []


def test_set_wakes_all_who_wait_though_clear_follows(store: kvsync.Store) -> None:
    """Nobody needs to see it set to learn that it was."""
    event = store.event(NAME)
    with ExitStack() as stack:
        calls = [stack.enter_context(queued(event.wait, event)) for _ in range(5)]
        assert [waiter.kind for waiter in event.stats().waiters] == ["event"] * 5
        event.set()
        event.clear()
        assert [call.result() for call in calls] == [True] * 5
    assert event.stats() == kvsync.primitives.event.EventStats(NAME, False, ())


def wait(pipe: Any, event: kvsync.Event) -> None:
    """Wait, and tell how it ended."""
    pipe.send(event.wait())


def test_processes_wait_for_it(store: kvsync.Store) -> None:
    """The event comes to them as an argument."""
    event = store.event(NAME)
    with running(wait, event) as (_, one), running(wait, event) as (_, other):
        eventually(lambda: len(event.stats().waiters) == 2)
        event.set()
        assert expect(one)
        assert expect(other)
    assert pickle.loads(pickle.dumps(event)).is_set()


def test_it_keeps_its_state_when_all_have_gone(path: Path) -> None:
    """As values do, and unlike what somebody holds."""
    with kvsync.open(path) as store:
        store.event(NAME).set()
        store.event("other").set()
        store.event("other").clear()
    with kvsync.open(path) as store:
        assert store.event(NAME).is_set()
        assert store.names("event") == [NAME]
        store.delete("event", NAME)
        assert not store.event(NAME).is_set()


def test_in_a_transaction_it_wakes_on_the_commit(store: kvsync.Store) -> None:
    """And not at all if that does not come."""
    event = store.event(NAME)
    with queued(event.wait, event) as call:
        with undone(store):
            event.set()
            assert event.is_set()
        assert not event.is_set()
        assert tickets(store) == [("waiting",)]
        with store.transaction():
            event.set()
            event.clear()
        assert call.result()
    assert not event.is_set()


def test_wait_is_refused_in_a_transaction(store: kvsync.Store) -> None:
    """Even where it would not wait; nobody could set it meanwhile."""
    event = store.event(NAME)
    event.set()
    with store.transaction(), pytest.raises(kvsync.TransactionError):
        event.wait(0)


@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan")])
def test_a_bad_timeout_is_refused(store: kvsync.Store, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        store.event(NAME).wait(timeout)
    with pytest.raises(TypeError):
        store.event(NAME).wait("1")  # type: ignore[arg-type]


def set_and_die_before_ringing(pipe: Any, path: str) -> None:
    """The event is set, and then the process is no more: nobody is rung."""
    with kvsync.open(path) as store:
        store.event(NAME).is_set()
        pipe.send("ready")
        pipe.recv()
        die_instead_of_ringing()
        store.event(NAME).set()


@pytest.mark.usefixtures("others_wait_to_be_woken")
def test_who_sets_it_and_dies_before_it_rings_wakes_all_the_same(store: kvsync.Store) -> None:
    """The first in line looks by itself, and rings the others, who would sleep on."""
    event = store.event(NAME)
    with ExitStack() as stack:
        calls = [stack.enter_context(queued(event.wait, event)) for _ in range(6)]
        child, pipe = stack.enter_context(running(set_and_die_before_ringing, store.path))
        expect(pipe)
        pipe.send("set")
        assert [call.result() for call in calls] == [True] * 6
        kill(child)
    assert tickets(store) == []


def test_the_dead_leave_no_place_in_the_line(store: kvsync.Store) -> None:
    """Whoever waits behind one sees to that."""
    event = store.event(NAME)
    with running(wait, event) as (child, _):
        eventually(lambda: len(event.stats().waiters) == 1)
        with queued(event.wait, event) as call:
            kill(child)
            eventually(lambda: len(tickets(store)) == 1)
            event.set()
            assert call.result()


@pytest.mark.parametrize("timeout", [0.001, 5])
def test_an_interrupt_leaves_no_ticket(
    store: kvsync.Store, timeout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the wait ends by its timeout or because the event is set."""
    event, look = store.event(NAME), waiting.Wait._look

    def set_and_look(self: waiting.Wait) -> Any:
        if timeout == 5:
            event.set()
        return look(self)

    monkeypatch.setattr(waiting.Wait, "_look", set_and_look)

    def wait() -> None:
        event.clear()
        assert event.wait(timeout) == (timeout == 5)

    for _ in at_each_point(wait):
        assert tickets(store) == []
    assert tickets(store) == []


def test_a_closed_store_ends_the_wait(path: Path) -> None:
    """ClosedError, in the thread that waits too."""
    store = kvsync.open(path)
    event = store.event(NAME)
    with queued(event.wait, event) as call:
        store.close()
        with pytest.raises(kvsync.ClosedError):
            call.result()

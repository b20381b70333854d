"""How units pass from one to the next: by which way, by which ring, and under which token."""

from contextlib import ExitStack
from typing import Any

import pytest

import kvsync
from kvsync.engine.doorbell import LOOK, SERVED, Doorbells
from kvsync.primitives.units import Units
from kvsync.testing import ManualClock
from tests.lines import queued
from tests.processes import eventually

NAME = "job"


@pytest.fixture
def store(timed_store: kvsync.Store) -> kvsync.Store:
    """One whose time moves when the test says so."""
    return timed_store


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """All rings of this process: whom, and what."""
    heard: list[tuple[str, bytes]] = []
    ring = Doorbells.ring

    def listen(self: Doorbells, name: str, what: bytes = LOOK) -> None:
        heard.append((name, what))
        ring(self, name, what)

    monkeypatch.setattr(Doorbells, "ring", listen)
    return heard


def doorbells(store: kvsync.Store) -> list[str]:
    """Those of the line, the next one's first."""
    rows = store.engine.read("select doorbell from kvsync_ticket order by id")
    return [doorbell for (doorbell,) in rows]


@pytest.mark.parametrize("held", [0.0, 0.0005, 1000.0])
def test_the_next_one_has_it_however_long_it_was_held(
    store: kvsync.Store, clock: ManualClock, held: float
) -> None:
    lock = store.lock(NAME)
    lock.acquire()
    with queued(store.lock(NAME).acquire, lock) as waiter:
        clock.advance(held)
        lock.release()
        assert waiter.result()
        assert len(lock.stats().holders) == 1


@pytest.mark.parametrize("held", [0.0, 1000.0])
def test_what_was_taken_away_is_lost_however_long_it_was_held(
    store: kvsync.Store, clock: ManualClock, held: float
) -> None:
    lock, other = store.lock(NAME), store.lock(NAME)
    lock.acquire()
    other.force_release()
    other.acquire()
    clock.advance(held)
    with pytest.raises(kvsync.LeaseLostError):
        lock.release()
    assert other.owned()


def test_a_ring_alone_gives_nothing(store: kvsync.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is told that it was served, and was not, goes on waiting."""
    claims: list[Any] = []
    claim = Units._claim

    def noted(self: Units, *arguments: Any) -> Any:
        claims.append(claim(self, *arguments))
        return claims[-1]

    lock = store.lock(NAME)
    lock.acquire()
    with queued(store.lock(NAME).acquire, lock) as waiter:
        monkeypatch.setattr(Units, "_claim", noted)
        store.engine.doorbells.ring(doorbells(store)[0], SERVED)
        eventually(lambda: claims == [None])
        assert lock.owned()
        assert len(lock.stats().waiters) == 1
        lock.release()
        assert waiter.result()


def test_who_was_served_is_told_so_and_who_comes_first_then_is_told_to_look(
    store: kvsync.Store, rings: list[tuple[str, bytes]]
) -> None:
    lock = store.lock(NAME)
    lock.acquire()
    with ExitStack() as stack:
        calls = [stack.enter_context(queued(store.lock(NAME).acquire, lock)) for _ in range(3)]
        first, second, _ = doorbells(store)
        rings.clear()
        lock.release()
        assert rings == [(first, SERVED), (second, LOOK)]
        assert calls[0].result()
        lock.force_release()
        assert calls[1].result()
        lock.force_release()
        assert calls[2].result()


def test_who_joins_the_line_rings_nobody(
    store: kvsync.Store, rings: list[tuple[str, bytes]]
) -> None:
    lock = store.lock(NAME)
    lock.acquire()
    with ExitStack() as stack:
        calls = [stack.enter_context(queued(store.lock(NAME).acquire, lock)) for _ in range(3)]
        assert rings == []
        lock.release()
        for call in calls:
            assert call.result()
            lock.force_release()


def test_who_joins_after_a_lease_is_over_rings_who_gets_it(
    store: kvsync.Store, clock: ManualClock, rings: list[tuple[str, bytes]]
) -> None:
    leased, lock = store.lock(NAME, lease=10), store.lock(NAME)
    leased.acquire()
    with queued(lock.acquire, lock) as waiter:
        (first,) = doorbells(store)
        rings.clear()
        clock.advance(20)
        assert not store.lock(NAME).acquire(blocking=False)
        assert waiter.result()
    assert rings[:1] in ([(first, SERVED)], [])  # the waiter's own look may come before


def test_a_line_longer_than_what_is_read_at_once_is_served_at_once(store: kvsync.Store) -> None:
    lock = store.rwlock(NAME)
    with ExitStack() as stack:
        lock.write().acquire()
        readers = [
            stack.enter_context(queued(store.rwlock(NAME).read().acquire, lock)) for _ in range(9)
        ]
        lock.write().release()
        assert all(reader.result() for reader in readers)
        assert len(lock.stats().holders) == 9


def test_a_writers_token_is_larger_than_those_of_all_readers_before(store: kvsync.Store) -> None:
    tokens: list[int] = []
    for _ in range(3):
        for _ in range(3):
            readers = [store.rwlock(NAME).read() for _ in range(3)]
            for reader in readers:
                with reader as grant:
                    tokens.append(grant.token)
            for reader in readers:
                reader.acquire()
                tokens.append(reader.token or 0)
            for reader in reversed(readers):
                reader.release()
        for _ in range(2):
            with store.rwlock(NAME).write() as grant:
                tokens.append(grant.token)
    assert tokens == sorted(set(tokens))

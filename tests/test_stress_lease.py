"""What the scenario of leases makes of a lease that is too short, or over at once."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import kvsync
from stress.history import now
from stress.record import Fault, Span
from stress.scenarios import lease
from stress.stage import Stage, Terms

pytestmark = pytest.mark.suite

LONG_AGO = 0


@pytest.fixture
def lock(store: kvsync.Store) -> kvsync.Lock:
    """Its lease is over as soon as it has it."""
    lock = store.lock("turn", lease=1e-9)
    lock.acquire()
    return lock


def write(lock: kvsync.Lock, asked: int) -> bool:
    worker: Any = SimpleNamespace(store=lock.store, way="sound")
    return lease._write_in_time(worker, lock, asked)


def never_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no time had passed since then."""
    asked = now()
    monkeypatch.setattr(lease, "now", lambda: asked)


@pytest.mark.parametrize("look", [lease._end_of_lease, write])
def test_a_lease_that_is_over_at_once_is_too_short(
    lock: kvsync.Lock, monkeypatch: pytest.MonkeyPatch, look: Callable[..., object]
) -> None:
    never_over(monkeypatch)
    with pytest.raises(AssertionError, match=r"lease of 0\.05 s was over after 0\.0000"):
        look(lock, lease.now())


@pytest.mark.parametrize("look", [lease._end_of_lease, write])
def test_a_lease_that_is_over_when_its_time_is_passed_is_not_too_short(
    lock: kvsync.Lock, look: Callable[..., object]
) -> None:
    assert not look(lock, LONG_AGO)


def test_who_writes_in_time_says_so(store: kvsync.Store) -> None:
    lock = store.lock("turn", lease=600)
    lock.acquire()
    assert write(lock, LONG_AGO)


def test_holders_are_waited_for_until_one_of_them_wrote_in_time(tmp_path: Path) -> None:
    """But not for ever, if none can."""
    stage = Stage(lease, Terms(seed=1, seconds=1), str(tmp_path), lambda _: None)
    crew: Any = SimpleNamespace(note=lambda _: None)
    holders = lease.Holders(stage, crew, ["turn"])
    stale = lease.Stale(False, [], Fault("stop", 1, 1), Span("turn", 1, 1, 1, 2))
    for _ in range(lease._MOST_IN_VAIN):
        assert holders.first_is_to_come()
        holders._count(stale)
    assert not holders.first_is_to_come()
    holders.refused = 1
    assert holders.first_is_to_come()
    holders._count(stale._replace(wrote=True))
    assert not holders.first_is_to_come()

"""What the dead leave in the folder of doorbells, and who takes it away."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync import session
from kvsync.testing import ManualClock
from tests.processes import eventually, kill, running

NAME = "job"


def folder(store: kvsync.Store) -> Path:
    return Path(store.path + "-kvsync", "doorbells")


def names(store: kvsync.Store) -> set[str]:
    return {each.name for each in folder(store).iterdir()}


def make_old(path: Path) -> None:
    os.utime(path, (0, 0))


def stray(store: kvsync.Store, name: str) -> Path:
    """As somebody who was killed would leave one."""
    path = folder(store) / name
    os.mkfifo(path)
    make_old(path)
    return path


def wait_in_threads(pipe: Any, path: str, count: int) -> None:
    store = kvsync.open(path)
    for _ in range(count):
        threading.Thread(target=store.lock(NAME).acquire, daemon=True).start()
    pipe.send("here")
    pipe.recv()


@pytest.fixture
def held(store: kvsync.Store) -> Any:
    """A lock that this process holds."""
    with store.lock(NAME):
        yield store.lock(NAME)


def test_reaping_takes_away_the_doorbells_of_all_who_waited(
    store: kvsync.Store, held: kvsync.Lock
) -> None:
    """Those of the threads, beside the one of the process."""
    before = names(store)
    with running(wait_in_threads, store.path, 3) as (child, _):
        eventually(lambda: len(held.stats().waiters) == 3)
        assert len(names(store)) == len(before) + 4
        kill(child)
    assert store.session.reap_all()
    assert names(store) == before


@pytest.mark.usefixtures("held")
def test_what_nobody_listens_at_and_no_row_names_is_swept_up(store: kvsync.Store) -> None:
    """Half-made ones too."""
    before = names(store)
    stray(store, "a" * 24)
    stray(store, "b" * 24 + "~")
    assert store.session.sweep() == 2
    assert names(store) == before


def test_what_may_be_in_use_is_not_swept_up(store: kvsync.Store, held: kvsync.Lock) -> None:
    """Young ones, those of the living, the proof of a death that nobody saw, and other files."""
    with running(wait_in_threads, store.path, 1) as (child, _):
        eventually(lambda: len(held.stats().waiters) == 1)
        kill(child)
    os.mkfifo(folder(store) / ("a" * 24))  # about to be opened
    (folder(store) / ("b" * 24)).touch()
    stray(store, "mine")
    for each in folder(store).iterdir():
        if each.name != "a" * 24:
            make_old(each)
    before = names(store)
    assert len(before) == 4 + 3
    assert store.session.sweep() == 0
    assert names(store) == before


@pytest.mark.usefixtures("held")
def test_a_row_that_was_written_since_is_seen(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who died a moment ago may have named its doorbell just before."""
    path, silent = stray(store, "a" * 24), store.engine.doorbells.silent

    def name_it(before: float) -> list[str]:
        found = silent(before)
        store.engine.write("update kvsync_session set doorbell = :name", {"name": path.name})
        return found

    monkeypatch.setattr(store.engine.doorbells, "silent", name_it)
    assert store.session.sweep() == 0
    assert path.exists()


@pytest.mark.usefixtures("held")
def test_new_sessions_sweep_now_and_then(store: kvsync.Store) -> None:
    """Nobody has to ask for it."""
    path = stray(store, "a" * 24)
    for _ in range(session._SWEEPS):
        with kvsync.open(store.path) as other:
            assert other.session.id
    assert not path.exists()


def test_a_clock_that_is_wrong_sweeps_up_nothing_of_the_living(path: Path) -> None:
    """It makes all of them look old."""
    with kvsync.open(path, clock=ManualClock(1e12)) as store, store.lock(NAME):
        before = names(store)
        assert store.session.sweep() == 0
        assert names(store) == before

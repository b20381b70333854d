"""What all tests share: a store in a folder of its own, closed and checked at the end."""

import gc
import os
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import chain
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import psutil
import pytest

import kvsync
from kvsync import waiting
from kvsync.engine import Row
from kvsync.engine.doorbell import LOOK, Doorbells, Once
from kvsync.engine.sqlite import SqliteEngine
from kvsync.testing import ManualClock


def pytest_configure() -> None:
    """Started in the background they would ignore signals, and so would their children."""
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Three for two cores, unless told: the tests wait for almost as long as they compute."""
    workers = yield
    told = "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ
    return workers if told else workers + workers // 2


_finished = 0


def pytest_collection_finish() -> None:
    """What was collected lives to the end: `gc.collect`, made thousands of times, is spared it."""
    _spare_the_collector()


def pytest_runtest_logfinish() -> None:
    """So does what pytest keeps of each test, which would come to a hundred thousand objects.

    What a test leaves behind in a circle, and was not collected by then, is never reported.
    """
    global _finished
    _finished += 1
    if _finished % 25 == 0:
        _spare_the_collector()


def _spare_the_collector() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's store lies."""
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[kvsync.Store]:
    """A fresh store; afterwards its file must be sound."""
    with kvsync.open(path) as store:
        yield store
        assert store.check().damage == ()


@pytest.fixture
def clock() -> ManualClock:
    """What `timed_store` takes for the time."""
    return ManualClock()


@pytest.fixture
def timed_store(path: Path, clock: ManualClock) -> Iterator[kvsync.Store]:
    """A store whose time moves when the test says so; afterwards its file must be sound."""
    with kvsync.open(path, clock=clock) as store:
        yield store
        assert store.check().damage == ()


Occupy = Callable[[float], None]
"""Keeps the store busy until whoever comes next has waited for so many seconds."""


@pytest.fixture
def occupy(
    timed_store: kvsync.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Occupy]:
    """For the next call to `timed_store` that writes."""
    assert timed_store.session.id  # it has begun
    hog = sqlite3.connect(timed_store.path, isolation_level=None, check_same_thread=False)
    with closing(hog):
        wait = SqliteEngine.wait

        def occupy(seconds: float) -> None:
            def meanwhile(engine: SqliteEngine, *arguments: Any, **options: Any) -> Any:
                monkeypatch.setattr(SqliteEngine, "wait", wait)
                clock.advance(seconds)
                hog.execute("rollback")
                return wait(engine, *arguments, **options)

            monkeypatch.setattr(SqliteEngine, "wait", meanwhile)
            hog.execute("begin immediate")

        yield occupy


_NEVER = {"HEAD_NETS": (1e6, 1e6), "_NETS": (1e6,), "_GLANCES": (1e6, 1e6)}
"""Safety nets, in seconds, with which nobody in a line of this process looks unless woken."""


@pytest.fixture
def head_waits_to_be_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """No safety net wakes the head of a line of this process."""
    monkeypatch.setattr(waiting, "HEAD_NETS", _NEVER["HEAD_NETS"])


@pytest.fixture
def others_wait_to_be_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor who has others ahead."""
    for name in ("_NETS", "_GLANCES"):
        monkeypatch.setattr(waiting, name, _NEVER[name])


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """All rings of this process: whom, and what. Nobody in a line looks, or rings, unless woken."""
    for name, seconds in _NEVER.items():
        monkeypatch.setattr(waiting, name, seconds)
    heard: list[tuple[str, bytes]] = []
    ring = Doorbells.ring

    def listen(self: Doorbells, name: str, what: bytes | Once = LOOK) -> None:
        heard.append((name, what if isinstance(what, bytes) else what.get(os.getpid(), b"")))
        ring(self, name, what)

    def listen_to_words(self: Doorbells, rows: list[Row], word: bytes) -> Iterator[object]:
        noting = (heard.append((doorbell, word % ticket)) for doorbell, ticket, *_ in rows)
        return chain(noting, saying(self, rows, word))

    saying = Doorbells.saying
    monkeypatch.setattr(Doorbells, "ring", listen)
    monkeypatch.setattr(Doorbells, "saying", listen_to_words)
    return heard


@pytest.fixture
def has_rested(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on whoever is served in this process has waited for long."""
    _, at_last = _NEVER["_GLANCES"]
    return lambda: monkeypatch.setattr(waiting, "_GLANCES", (0.0, at_last))


@pytest.fixture
def swallowed_interrupts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A signal's KeyboardInterrupt may fall into a finalizer, where Python can only report it.

    It reports to this hook, which a signal cannot hurt: pytest's own is so long that it may be
    interrupted itself. Whatever else a finalizer raises is an error still.
    """
    others: list[str] = []

    def hear(what: "sys.UnraisableHookArgs") -> None:
        if what.exc_type is not KeyboardInterrupt:
            others.append(f"{what.exc_type}: {what.exc_value} in {what.object!r}")

    monkeypatch.setattr(sys, "unraisablehook", hear)
    yield
    assert others == []


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="kvsync-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    """A test ends the processes that it started."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    tracker = getattr(resource_tracker, "_resource_tracker", None)
    forker = getattr(forkserver, "_forkserver", None)
    known = before | {getattr(tracker, "_pid", None), getattr(forker, "_forkserver_pid", None)}
    left = [c for c in psutil.Process().children(recursive=True) if c.pid not in known]
    for child in left:
        child.kill()
        child.wait(10)
    assert not left, f"left behind: {left}"

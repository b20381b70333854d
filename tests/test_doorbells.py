"""What the dead leave in the folder of doorbells, and who takes it away."""

import gc
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync import session
from kvsync.engine import descriptors
from kvsync.engine.doorbell import Mark
from kvsync.testing import ManualClock
from tests.interrupted import after_each_call
from tests.processes import PATIENCE, eventually, expect, kill, run_all, running

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
    """Young half-made ones, those of the living, proofs of deaths that nobody saw, other files."""
    with running(wait_in_threads, store.path, 1) as (child, _):
        eventually(lambda: len(held.stats().waiters) == 1)
        kill(child)
    half_made = folder(store) / ("a" * 24 + "~")  # about to be opened
    os.mkfifo(half_made)
    (folder(store) / ("b" * 24)).touch()
    stray(store, "mine")
    for each in folder(store).iterdir():
        if each != half_made:
            make_old(each)
    before = names(store)
    assert len(before) == 4 + 3
    assert store.session.sweep() == 0
    assert names(store) == before


def hold_after_a_wait(pipe: Any, path: str) -> None:
    lock = kvsync.open(path).lock(NAME)
    pipe.send("here")
    lock.acquire()
    lock.release()
    lock.acquire()
    pipe.send("held")
    pipe.recv()


def test_what_was_left_behind_a_moment_ago_is_known_and_swept_up(store: kvsync.Store) -> None:
    """No row names the doorbell at which the dead waited once."""
    lock = store.lock(NAME)
    lock.acquire()
    before = names(store)
    with running(hold_after_a_wait, store.path) as (child, pipe):
        expect(pipe)
        eventually(lambda: lock.stats().waiters)
        lock.release()
        expect(pipe)
        assert store.session.left_behind() == []
        kill(child)
        assert {*store.session.left_behind()} == names(store) - before
        assert len(names(store) - before) == 2
        assert store.session.reap_all()
        assert store.session.sweep() == 1
        assert not names(store) - before


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


HELD: dict[str, Callable[[kvsync.Store], Any]] = {
    "lock": lambda store: store.lock("job").acquire(),
    "permit": lambda store: store.semaphore("jobs", 2).acquire(),
    "read": lambda store: store.rwlock("job").read().acquire(),
    "task": lambda store: store.queue("jobs").reserve(),
}


@pytest.mark.parametrize("hold", HELD.values(), ids=HELD)
def test_what_a_collected_handle_holds_is_proven_to_be_held(
    path: Path, hold: Callable[[kvsync.Store], Any]
) -> None:
    """To processes that see nothing but the doorbell, such as those of another pid namespace."""
    with kvsync.open(path) as store:
        store.queue("jobs").put("item")
        hold(kvsync.open(path))
        gc.collect()
        assert kvsync.open(path).lock("other").acquire()  # whose doorbell closes the lost ones
        assert [store.engine.doorbells.answers(mark) for mark in marks(store)] == [True, True]


def test_a_collected_handle_that_holds_nothing_keeps_no_doorbell(path: Path) -> None:
    """Nor does one on which much was held before, and a task that was settled."""
    with kvsync.open(path) as store:
        store.queue("jobs").put("item")
        for _ in range(3):
            dropped = kvsync.open(path)
            for number in range(3 * session._FEW_KEPT):
                with dropped.lock(f"job-{number}"):
                    pass
            with dropped.queue("jobs").reserve() as task:
                task.retry(0)
            del dropped, task
            gc.collect()
        assert len(session._kept) < 2 * session._FEW_KEPT
        store.lock("other").acquire()
        answers = [store.engine.doorbells.answers(mark) for mark in marks(store)]
        assert answers.count(True) == 1


def test_a_collected_handle_that_holds_nothing_is_dead_though_its_process_lives(
    path: Path,
) -> None:
    """Or a server that opens the store for each request would fill it with sessions."""
    with kvsync.open(path) as store:
        with store.lock("job"):
            before = names(store)
        for _ in range(20):
            with kvsync.open(path).lock("job"):
                pass
            gc.collect()
        with kvsync.open(path) as other:
            assert other.session.id  # whose doorbell closes those that were lost
        store.session.reap_all()
        assert names(store) == before
        assert store.stats().sessions == 1


def test_each_new_handle_sees_to_those_that_were_dropped(path: Path) -> None:
    """Nobody else need do it, so that they never pile up."""
    with kvsync.open(path) as store:
        for _ in range(100):
            assert kvsync.open(path).session.id
            gc.collect()
        assert store.stats().sessions < 20


def test_no_handle_is_dead_to_its_own_process_because_that_closed_all_descriptors(
    path: Path,
) -> None:
    """Neither one that somebody has, nor one that was collected while something was held."""
    assert run_all(_close_doorbells, [(path,)]) == [[False] * 3]


def _close_doorbells(path: Path) -> list[bool | None]:
    store, other = kvsync.open(path), kvsync.open(path)
    kvsync.open(path).lock("job").acquire()
    gc.collect()
    assert store.session.id
    assert other.session.id
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, _ in descriptors._open.values():
        os.dup2(nothing, descriptor)
    assert store.session.dead() == other.session.dead() == {}
    return [store.engine.doorbells.answers(mark) for mark in marks(store)]


def marks(store: kvsync.Store) -> list[Mark]:
    rows = store.engine.read("select doorbell, device, inode from kvsync_session")
    return [Mark(*row) for row in rows]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may make a pid namespace")
def test_another_pid_namespace_takes_nothing_from_a_collected_handle(path: Path) -> None:
    program = (
        "import kvsync, sys\n"
        "assert not kvsync.open(sys.argv[1]).lock('job').acquire(timeout=0)\n"
        "print('ok')\n"
    )
    kvsync.open(path).lock("job").acquire()
    gc.collect()
    with kvsync.open(path) as store:
        store.lock("other").acquire()
        done = subprocess.run(
            ["unshare", "-pf", "--mount-proc", "--kill-child", sys.executable, "-c", program, path],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.stdout == "ok\n", done.stderr


def test_an_interrupt_around_a_wait_leaves_each_doorbell_at_rest_or_closed(
    store: kvsync.Store,
) -> None:
    session = store.session

    def wait() -> None:
        with session.doorbell() as bell:
            assert bell is not None

    assert list(after_each_call(wait))
    assert not session._waited_at
    assert len(session._life().bells) == 1


def test_an_inode_may_have_any_number_of_64_bits(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems number by hashes."""

    def hashed(look: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def found(*arguments: Any, **options: Any) -> os.stat_result:
            mode, inode, *others = look(*arguments, **options)
            return os.stat_result((mode, inode | stat.S_ISFIFO(mode) << 63, *others))

        return found

    for name in ("stat", "fstat"):
        monkeypatch.setattr(os, name, hashed(getattr(os, name)))
    with kvsync.open(path) as store, kvsync.open(path) as other:
        assert other.lock(NAME).acquire()
        (mark,) = marks(store)
        assert store.engine.doorbells.answers(mark)
        watch = store.engine.doorbells.watch(mark)
        assert watch is not None
        watch.close()

"""Locks: one holder, in the order of asking, freed by death and by nothing else."""

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvsync
from tests.lines import calling, queued
from tests.processes import (
    PATIENCE,
    eventually,
    expect,
    in_thread,
    kill,
    run_all,
    run_program,
    running,
)


def test_a_lock_is_held_by_one_object_at_a_time(store: kvsync.Store) -> None:
    """Two objects of one name in one process exclude each other."""
    one, other = store.lock("job"), store.lock("job")
    assert one.acquire()
    assert not other.acquire(blocking=False)
    assert not other.acquire(timeout=0)
    assert not other.acquire(timeout=0.01)
    one.release()
    assert other.acquire(blocking=False)
    other.release()


def test_with_gives_the_grant_and_its_token(store: kvsync.Store) -> None:
    """Tokens rise with every grant of the name."""
    tokens = []
    lock = store.lock("job")
    for _ in range(3):
        with lock as grant:
            assert lock.token == grant.token
            tokens.append(grant.token)
    assert lock.token is None
    assert tokens == sorted(set(tokens))
    assert tokens[0] > 1 << 40


def test_a_grant_shows_a_lock_as_one_unit(store: kvsync.Store) -> None:
    """Though the store counts it as all units that there are."""
    with store.lock("job") as grant, store.semaphore("pool", 3) as permit:
        assert f"token={grant.token}, name='job', units=1," in repr(grant)
        assert "units=1," in repr(permit)


def test_with_raises_on_timeout(store: kvsync.Store) -> None:
    """AcquireTimeout, which is a TimeoutError."""
    with store.lock("job"):
        with pytest.raises(kvsync.AcquireTimeout), store.lock("job", timeout=0.01):
            pytest.fail("must not get in")
        assert issubclass(kvsync.AcquireTimeout, TimeoutError)


@pytest.mark.parametrize("kind", ["lock", "rlock", "election"])
def test_a_timeout_tells_who_holds_it(store: kvsync.Store, kind: str) -> None:
    """In one line, whatever the holder was started with."""
    program = (
        "import kvsync, sys\n"
        f"kvsync.open(sys.argv[1]).{kind}('job').acquire()\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    store.counter("made").add()
    with subprocess.Popen(
        [sys.executable, "-c", program, store.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        held = getattr(store, kind)("job", timeout=0)
        with pytest.raises(kvsync.AcquireTimeout) as caught, held:
            pytest.fail("must not get in")
    told = str(caught.value)
    assert f"{kind} 'job' was not to be had for 0 s; held by process {child.pid} (" in told
    assert "-c import kvsync, sys\\n" in told
    assert told.isprintable()


def test_a_timeout_tells_one_of_many_holders(store: kvsync.Store) -> None:
    """And how many others there are."""
    pool = store.semaphore("pool", 3, timeout=0)
    with pool, pool, pool, pytest.raises(kvsync.AcquireTimeout) as caught, pool:
        pytest.fail("must not get in")
    assert f"held by process {os.getpid()} (" in str(caught.value)
    assert str(caught.value).endswith(" and 2 more")


def test_a_timeout_is_told_though_nobody_can_say_who_holds_it(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store may have failed meanwhile."""

    def unreadable(*_: object) -> None:
        raise kvsync.StorageError("the disk is gone")

    with store.lock("job"):
        late = store.lock("job", timeout=0)
        with monkeypatch.context() as patch:
            patch.setattr(store.session, "is_dead", unreadable)
            patch.setattr(late, "_acquire", lambda _timeout: None)
            with pytest.raises(kvsync.AcquireTimeout, match=r"0 s$"), late:
                pytest.fail("must not get in")


def test_who_does_not_hold_cannot_release(store: kvsync.Store) -> None:
    """Neither another object nor a pickle; any thread can through the holding object."""
    lock = store.lock("job")
    with pytest.raises(kvsync.NotOwnedError):
        lock.release()
    lock.acquire()
    for stranger in (store.lock("job"), pickle.loads(pickle.dumps(lock))):
        with pytest.raises(kvsync.NotOwnedError):
            stranger.release()
        assert not stranger.owned()
    assert lock.owned()
    in_thread(lambda: lock.release() or True)
    assert not lock.locked()


def refused(lock: kvsync.RLock) -> None:
    with pytest.raises(kvsync.NotOwnedError):
        lock.release()


@pytest.mark.parametrize("kind", ["lock", "rlock"])
@pytest.mark.parametrize("timeout", [threading.TIMEOUT_MAX, threading.TIMEOUT_MAX + 1, 1e100])
def test_a_timeout_has_no_upper_limit(store: kvsync.Store, kind: str, timeout: float) -> None:
    """Whether the lock is free or is waited for."""
    lock = getattr(store, kind)("job")

    def take() -> None:
        with getattr(store, kind)("job", timeout=timeout):
            assert lock.locked()

    take()
    lock.acquire()
    with queued(take, lock) as call:
        lock.release()
        call.result()
    assert not lock.locked()


@pytest.mark.parametrize("kind", ["lock", "rlock"])
def test_a_wait_in_vain_lasts_as_long_as_its_timeout(store: kvsync.Store, kind: str) -> None:
    def waited() -> float:
        began = time.monotonic()
        assert not getattr(store, kind)("job").acquire(timeout=0.1)
        return time.monotonic() - began

    with getattr(store, kind)("job"), calling(waited) as call:
        assert call.result() >= 0.1


def test_a_thread_that_waits_for_itself_is_told(store: kvsync.Store) -> None:
    """Through whatever object; with a timeout it waits that long."""
    with store.lock("job"):
        with pytest.raises(kvsync.DeadlockError, match="rlock"):
            store.lock("job").acquire()
        assert not store.lock("job").acquire(timeout=0.01)


def test_an_rlock_may_be_taken_again_by_its_thread(store: kvsync.Store) -> None:
    """And only by it; the token stays, and the last release frees it."""
    lock = store.rlock("job")
    with lock as outer, store.rlock("job") as inner:
        assert inner.token == outer.token
        assert not in_thread(lambda: [store.rlock("job").acquire(timeout=0)])[0]
        in_thread(lambda: [refused(lock)])
    assert not lock.locked()
    with pytest.raises(kvsync.NotOwnedError):
        lock.release()


def test_lock_and_rlock_exclude_each_other(store: kvsync.Store) -> None:
    """They share their names."""
    with store.lock("job"):
        assert not in_thread(lambda: [store.rlock("job").acquire(blocking=False)])[0]


def hold(pipe: Any, path: str, name: str) -> None:
    """Hold a lock until told to release it."""
    with kvsync.open(path) as store, store.lock(name) as grant:
        pipe.send(grant.token)
        pipe.recv()


def test_a_killed_holder_frees_its_lock(store: kvsync.Store) -> None:
    """To who waits already, and to who comes later."""
    for _ in range(2):
        with running(hold, store.path, "job") as (child, pipe):
            token = expect(pipe)
            lock = store.lock("job")
            waiter = threading.Thread(target=lock.acquire)
            waiter.start()
            kill(child)
            waiter.join(PATIENCE)
            assert lock.owned()
            assert lock.token is not None
            assert lock.token > token
            lock.release()
        with running(hold, store.path, "job") as (child, pipe):
            expect(pipe)
            kill(child)
            assert lock.acquire(blocking=False)
            lock.release()


def add_under_lock(path: str, file: str, times: int) -> None:
    """Read, add one, write back: loses counts unless one does it at a time."""
    with kvsync.open(path) as store:
        lock = store.lock("file")
        for _ in range(times):
            with lock:
                count = int(Path(file).read_text())
                Path(file).write_text(str(count + 1))


def test_processes_take_turns(store: kvsync.Store, tmp_path: Path) -> None:
    """A witness outside of the store would show two at once."""
    file = tmp_path / "count"
    file.write_text("0")
    run_all(add_under_lock, [(store.path, str(file), 50)] * 4)
    assert file.read_text() == "200"
    assert store.engine.read("select count(*) from kvsync_ticket") == [(0,)]
    assert store.engine.read("select count(*) from kvsync_grant") == [(0,)]


def test_a_forked_child_does_not_own_its_parents_lock(store: kvsync.Store) -> None:
    """It can wait for it, and cannot release it."""
    lock = store.lock("job")
    lock.acquire()
    pid = os.fork()
    if pid == 0:
        try:
            lock.release()
        except kvsync.NotOwnedError:
            os._exit(7 if not lock.acquire(blocking=False) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert lock.owned()
    lock.release()


def test_close_frees_what_the_store_holds(store: kvsync.Store) -> None:
    """And its objects say that it is closed."""
    other = kvsync.open(store.path)
    lock = other.lock("job")
    lock.acquire()
    other.close()
    assert store.lock("job").acquire(blocking=False)
    with pytest.raises(kvsync.ClosedError):
        lock.acquire()


@pytest.mark.usefixtures("head_waits_to_be_woken")
@pytest.mark.parametrize(
    "wait",
    [
        lambda store: store.lock("job").acquire(),
        lambda store: store.event("event").wait(),
        lambda store: store.queue("jobs").get(),
    ],
)
def test_close_tells_a_thread_that_waits(
    store: kvsync.Store, wait: Callable[[kvsync.Store], object]
) -> None:
    """At once, not when it looks again by itself; and nothing of it is left."""
    other = kvsync.open(store.path)
    with store.lock("job"):
        with calling(lambda: wait(other)) as call:
            eventually(lambda: store.engine.read("select 1 from kvsync_ticket"))
            other.close()
            with pytest.raises(kvsync.ClosedError):
                call.result()
        assert not store.engine.read("select 1 from kvsync_ticket")


def after_a_thread_that(first: Callable[[], Any], second: Callable[[], Any]) -> None:
    """Run `first` in a thread that ends, and `second` in a later one that has its ident."""
    ended = in_thread(lambda: (threading.get_ident(), first()))[0]
    for _ in range(1000):
        if in_thread(lambda: threading.get_ident() == ended and (second(), True)):
            return
    raise AssertionError("no later thread had the ident of the first")


def test_a_thread_with_the_ident_of_one_that_ended_is_another_thread(store: kvsync.Store) -> None:
    """What the first one holds is not held by the second, which may wait for it."""
    lock, again = store.lock("job"), store.rlock("again")
    release = threading.Timer(0.05, lock.release)

    def wait() -> None:
        assert not again.owned()
        assert not again.acquire(blocking=False)
        release.start()
        store.lock("job").acquire()

    after_a_thread_that(lambda: (lock.acquire(), again.acquire()), wait)
    release.join()


def test_a_process_whose_arguments_are_no_text_has_locks_like_any_other(
    store: kvsync.Store,
) -> None:
    """A file's name is bytes, and may be in another encoding than ours."""
    program = (
        "with kvsync.open(sys.argv[2]).lock('job') as grant:\n"
        "    command = kvsync.open(sys.argv[2]).lock('job').holder().command\n"
        "    print('ok' if r'caf\\udce9.txt' in command else command)\n"
    )
    begin = "import kvsync, sys; exec(sys.argv[3])"  # of a command the first characters are kept
    run_program(begin, os.fsdecode(b"caf\xe9.txt"), store.path, program)

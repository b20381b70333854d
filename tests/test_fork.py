"""The fork rule: no connection survives a fork, and every child takes real locks.

A child that wrote on an inherited connection would often seem to work, so these tests look at the
rule, in `/proc/self/fd` and `/proc/locks`, and not only at the symptom.
"""

import fcntl
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing import forkserver
from pathlib import Path

import pytest

import kvsync
from kvsync.engine import links, setup
from kvsync.engine.doorbell import Doorbell, Doorbells
from kvsync.engine.gate import claimed
from tests.interrupted import after_each_call
from tests.processes import PATIENCE, in_child, in_raw_child, on_both_sides, run_all

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="looks at Linux's /proc")


def open_files(path: str, *, pins: bool = False) -> list[str]:
    """What this process has open of the store and its folder, to read, write or lock it.

    Or else to say, for as long, which file it is.
    """
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{entry}")
            flags = Path(f"/proc/self/fdinfo/{entry}").read_text().split()[3]
        except FileNotFoundError:
            continue
        if bool(int(flags, 8) & os.O_PATH) is pins:
            found.append(name)
    return [name for name in found if name.startswith(path)]


def locks_on(path: str) -> set[tuple[str, str]]:
    """The POSIX locks that this process holds on a file: (READ or WRITE, first byte)."""
    inode = os.stat(path).st_ino
    # The kernel hands the table out in pieces, between which a row can slip past: read it often.
    tables = [Path("/proc/locks").read_text() for _ in range(5)]
    rows = [line.split() for table in tables for line in table.splitlines()]
    return {
        (row[3], row[6])
        for row in rows
        if row[1] == "POSIX" and row[4] == str(os.getpid()) and row[5].endswith(f":{inode}")
    }


def test_no_descriptor_of_the_store_crosses_a_fork(store: kvsync.Store) -> None:
    """Neither the database's, nor its log's, nor the gate's."""
    store.counter("hits").add()
    assert open_files(store.path)
    assert in_child(lambda: open_files(store.path)) == "[]"


def test_what_says_which_file_it_is_crosses_a_fork(store: kvsync.Store) -> None:
    """Else the child could take a file that got the number of the one it replaced for that one."""
    store.counter("hits").add()
    assert open_files(store.path, pins=True) == [store.path]
    assert in_child(lambda: open_files(store.path, pins=True)) == str([store.path])


def test_the_parent_closes_its_connections_before_the_fork(store: kvsync.Store) -> None:
    """Afterwards it has none, until its next call."""
    store.counter("hits").add()
    in_child(lambda: None)
    assert open_files(store.path) == []
    assert store.counter("hits").add() == 2


def test_a_forked_child_takes_real_locks(store: kvsync.Store) -> None:
    """The child's shared lock on the database and its write lock on the -shm stand in the
    kernel's table under its own pid, while the parent has the store open as well."""
    store.counter("hits").add()

    def child() -> bool:
        store.counter("hits").add()
        with store.transaction():
            store.counter("hits").add()
            shared = any(kind == "READ" for kind, _ in locks_on(store.path))
            return shared and ("WRITE", "120") in locks_on(store.path + "-shm")

    assert in_child(child) == "True"
    assert store.counter("hits").value == 3


def test_a_child_and_its_parent_exclude_each_other(store: kvsync.Store) -> None:
    """While the parent is in a transaction its child, forked before, finds the store busy."""
    store.counter("hits").add()
    go, ready = os.pipe(), os.pipe()

    def child() -> str:
        os.read(go[0], 1)
        with kvsync.open(store.path, busy_timeout=0.2) as own:
            try:
                return str(own.counter("hits").add())
            except kvsync.BusyError as error:
                return str(error)
            finally:
                os.write(ready[1], b"x")

    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, child().encode())
        os._exit(0)
    with store.transaction():
        store.counter("hits").add()
        os.write(go[1], b"x")
        os.read(ready[0], 1)
    answer = os.read(read, 1000).decode()
    os.waitpid(pid, 0)
    for descriptor in (*go, *ready, read, write):
        os.close(descriptor)
    assert f"process {os.getpid()}" in answer
    assert store.counter("hits").value == 2


@contextmanager
def writing_threads(store: kvsync.Store, count: int) -> Iterator[list[int]]:
    """Threads that add to the counter "hits" until the block ends; how often each did."""
    stop = threading.Event()
    added = [0] * count

    def write(number: int) -> None:
        hits = store.counter("hits")
        while not stop.is_set():
            hits.add()
            added[number] += 1

    threads = [threading.Thread(target=write, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield added
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_forks_under_two_writing_threads_lose_nothing(store: kvsync.Store) -> None:
    """Every child writes at once, as its parent's threads do; the stress suite goes on longer."""

    def child() -> str:
        for _ in range(5):
            store.counter("hits").add()
            store.dict("d")[str(os.getpid())] = 1
        return f"{len(locks_on(store.path)) > 0}"

    with writing_threads(store, 2) as added:
        answers = [in_child(child) for _ in range(40)]
    assert answers == ["True"] * 40
    assert store.counter("hits").value == sum(added) + 40 * 5
    assert len(store.dict("d")) == 40


def test_a_fork_waits_for_another_threads_transaction(store: kvsync.Store) -> None:
    """And the child can use the store, for the connections were closed in time."""
    store.counter("hits").add()
    inside, forking = threading.Event(), threading.Event()

    def write() -> None:
        with store.transaction():
            store.counter("hits").add()
            inside.set()
            forking.wait()

    thread = threading.Thread(target=write)
    thread.start()
    inside.wait()
    # The fork's hook drains; let the transaction end only once that has begun.
    original = links.Pool.close

    def close(pool: links.Pool) -> None:
        original(pool)
        forking.set()

    links.Pool.close = close  # type: ignore[method-assign]
    try:
        assert in_child(lambda: store.counter("hits").add()) == "3"
    finally:
        links.Pool.close = original  # type: ignore[method-assign]
        thread.join()


def test_a_fork_does_not_wait_for_a_thread_that_waits_to_make_the_file(path: Path) -> None:
    """Which waits for another process; nor does what it has open stay with the child."""
    store = kvsync.open(path, busy_timeout=PATIENCE)
    sidecar = store.engine._pool.sidecar
    sidecar.open(sidecar.setup_lock).close()  # which makes it
    setup_lock = os.open(sidecar.setup_lock, os.O_RDONLY)
    fcntl.flock(setup_lock, fcntl.LOCK_EX)
    thread = threading.Thread(target=store.counter("hits").add)
    thread.start()
    while len(open_files(sidecar.setup_lock)) < 2:
        os.sched_yield()
    try:
        assert in_child(lambda: open_files(sidecar.setup_lock)) == f"['{sidecar.setup_lock}']"
        assert not path.exists()  # the thread waits still
    finally:
        os.close(setup_lock)
        thread.join()
    assert in_child(store.counter("hits").add) == "2"
    store.close()


def test_a_fork_does_not_wait_for_a_thread_that_waits_to_make_the_tables(path: Path) -> None:
    """Which waits for another process, or for a thread that waits until the fork is over."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table others (x)")
    store = kvsync.open(path, busy_timeout=PATIENCE)
    sidecar = store.engine._pool.sidecar
    sidecar.open(sidecar.setup_lock).close()  # which makes it
    setup_lock = os.open(sidecar.setup_lock, os.O_RDONLY)
    fcntl.flock(setup_lock, fcntl.LOCK_EX)

    def child() -> int:
        fcntl.flock(setup_lock, fcntl.LOCK_UN)  # the parent's thread, too, goes on
        return store.counter("hits").add()

    thread = threading.Thread(target=store.counter("hits").add)
    thread.start()
    while len(open_files(sidecar.setup_lock)) < 2:
        os.sched_yield()
    answer = in_child(child)
    os.close(setup_lock)
    thread.join()
    assert answer in ("1", "2")
    assert store.counter("hits").value == 2
    store.close()


def test_a_fork_inside_a_transaction_makes_the_child_refuse(store: kvsync.Store) -> None:
    """Its parent's transaction is unharmed, and no descriptor of the gate stays with the child."""
    hits = store.counter("hits")
    hits.add()

    def child() -> str:
        with pytest.raises(kvsync.ForkError):
            hits.add()
        with pytest.raises(kvsync.ForkError), store.transaction():
            pass
        return str([name for name in open_files(store.path) if name.endswith(("gate", "claim"))])

    with store.transaction():
        hits.add()
        assert in_child(child) == "[]"
        hits.add()
    assert hits.value == 3


def test_a_child_that_must_not_use_the_store_cannot_open_it_anew(store: kvsync.Store) -> None:
    """Though it closes its handles before: its new connection would take no locks."""
    store.counter("hits").add()

    def child() -> str:
        store.close()
        with kvsync.open(store.path) as again:
            return str(again.counter("hits").value)

    with store.transaction():
        assert in_child(child).startswith("ForkError")


def test_a_child_that_must_not_use_the_store_forks_without_delay(store: kvsync.Store) -> None:
    """And its child must not use it either."""
    hits = store.counter("hits")
    hits.add()

    def grandchild() -> str:
        with pytest.raises(kvsync.ForkError):
            hits.add()
        return "refused"

    def child() -> str:
        begun = time.monotonic()
        answer = in_child(grandchild)
        return answer if time.monotonic() - begun < links.DRAIN_PATIENCE else "late"

    with store.transaction():
        assert in_child(child) == "refused"


def test_ctrl_c_while_a_fork_waits_does_not_make_the_child_trust_what_is_still_open(
    path: Path,
) -> None:
    """Python forks whatever a hook raises, so the child looks at what was open."""
    (answer,) = run_all(_interrupted_fork, [(str(path),)])
    assert answer.startswith("ForkError")


def _interrupted_fork(path: str) -> str:
    store = kvsync.open(path)
    store.counter("hits").add()
    inside, leave = threading.Event(), threading.Event()

    def transact() -> None:
        with store.transaction():
            inside.set()
            leave.wait()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    thread = threading.Thread(target=transact)
    thread.start()
    inside.wait()
    sys.unraisablehook = lambda _: None
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        return in_child(store.counter("hits").add)
    finally:
        leave.set()
        thread.join()


def test_a_child_that_leaves_its_parents_transaction_commits_nothing(store: kvsync.Store) -> None:
    """It runs the end of the block, too, and gets an error instead."""
    hits = store.counter("hits")
    hits.add()
    read, write = os.pipe()
    pid = -1
    try:
        with store.transaction():
            hits.add()
            pid = os.fork()
    except kvsync.ForkError:
        os.write(write, b"ForkError")
    finally:
        if pid == 0:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "ForkError"
    os.waitpid(pid, 0)
    assert hits.value == 2


def test_a_fork_without_pythons_hooks_makes_the_child_refuse(store: kvsync.Store) -> None:
    """As a C library may do it."""
    store.counter("hits").add()
    answer = in_raw_child(store.counter("hits").add)
    assert answer.startswith("ForkError: ")
    assert store.counter("hits").add() == 2


def test_a_claim_on_the_gate_does_not_stay_with_a_forked_child(store: kvsync.Store) -> None:
    """A thread that waits with the claim in hand forks nothing of it into the child."""
    store.counter("hits").add()
    gate = os.open(store.path + "-kvsync/gate", os.O_RDONLY)
    claim = os.open(store.path + "-kvsync/claim", os.O_RDONLY)
    fcntl.flock(gate, fcntl.LOCK_EX)
    thread = threading.Thread(target=store.counter("hits").add)
    thread.start()
    while not claimed(claim):
        os.sched_yield()
    os.close(claim)
    held = in_child(lambda: open_files(store.path + "-kvsync/claim"))
    os.close(gate)
    thread.join()
    assert held == "[]"


def test_a_signal_handler_that_forks_in_a_call_does_no_harm(store: kvsync.Store) -> None:
    """The interrupted call goes on; whether the child may use the store depends on the instant."""
    hits = store.counter("hits")
    hits.add()  # opens the file
    answers = []
    old = signal.signal(signal.SIGALRM, lambda *_: answers.append(in_child(hits.add)))
    try:
        calls = 1
        while len(answers) < 20:
            answered = len(answers)
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            while len(answers) == answered:
                hits.add()
                calls += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    refused = sum(answer.startswith("ForkError") for answer in answers)
    assert all(answer.isdigit() or answer.startswith("ForkError") for answer in answers), answers
    assert hits.value == calls + len(answers) - refused


def test_a_handler_that_forks_in_a_wait_without_doorbells_gives_the_child_nothing(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the wait is a sleep, after which the child would go on as its parent."""
    held, awaited = store.lock("job"), store.lock("job")
    children: list[int] = []

    def install(_: Doorbells) -> Doorbell:
        raise OSError("there are none")

    def sleep_and_fork(_: float) -> None:
        if not children:
            children.append(os.fork())
            if children[0]:
                held.release()

    monkeypatch.setattr(Doorbells, "install", install)
    held.acquire()
    monkeypatch.setattr(time, "sleep", sleep_and_fork)
    got, answer = on_both_sides(lambda: awaited.acquire(timeout=PATIENCE), children)
    os.waitpid(children[0], 0)
    assert answer == "ForkError"
    assert got is True
    awaited.release()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_children_share_a_store_that_was_in_use(
    store: kvsync.Store, method: str
) -> None:
    """Whichever way they start; the store and its objects travel as arguments."""
    hits, settings = store.counter("hits"), store.dict("settings")
    hits.add()
    settings["a"] = 1
    try:
        assert run_all(_use, [(store, hits, settings)] * 3, method) == [1, 1, 1]
    finally:
        forkserver._forkserver._stop()  # type: ignore[attr-defined]
    assert hits.value == 1 + 3 * 50


def _use(store: kvsync.Store, hits: kvsync.Counter, settings: kvsync.Dict) -> int:
    for _ in range(50):
        hits.add()
    with store.transaction():
        return int(settings["a"])


def test_without_the_rule_a_child_takes_no_lock_on_the_database(tmp_path: Path) -> None:
    """The reason for the rule, in plain sqlite3: should this fail, SQLite has changed, and the
    rule may be lifted."""
    path = str(tmp_path / "plain.db")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table t (x)")

    def child() -> bool:
        own = sqlite3.connect(path, isolation_level=None)
        own.execute("begin immediate")
        own.execute("insert into t values (1)")
        locked = locks_on(path) != set()
        own.execute("rollback")
        return locked

    answer = in_child(child)
    connection.close()
    assert answer == "False"


def test_an_interrupted_first_open_leaves_no_lock_and_no_pool_that_a_fork_overlooks(
    tmp_path: Path,
) -> None:
    """Wherever a signal's exception ends it: the next open and fork succeed."""
    paths = (tmp_path / str(n) / "store.db" for n in itertools.count())
    path = tmp_path

    def open_first() -> None:
        nonlocal path
        path = next(paths)
        kvsync.open(path).counter("hits").add()

    for place in after_each_call(open_first):
        with kvsync.open(path, busy_timeout=PATIENCE) as store:
            assert in_child(store.counter("later").add) == "1", place


def test_the_setup_lock_does_not_stay_with_a_forked_child(path: Path) -> None:
    """A thread that makes a file forks nothing of its lock into the child."""
    with kvsync.open(path) as store:
        sidecar = store.engine._pool.sidecar
        held = []
        setup._under_setup_lock(
            sidecar,
            0o600,
            PATIENCE,
            lambda: held.append(in_child(lambda: open_files(sidecar.setup_lock))),
        )
        assert held == ["[]"]


_SAME_PID = """
import ctypes, os, sys
import kvsync

assert os.getpid() == 1
store = kvsync.open(sys.argv[1])
store.queue("jobs").put("item")
lock, rlock, permits = store.lock("a"), store.rlock("b"), store.semaphore("c", 2)
task = store.queue("jobs").reserve()
for held in (lock, rlock, permits):
    held.acquire()


def child():
    assert os.getpid() == 1
    assert not lock.owned() and not rlock.owned() and not permits.owned()
    for settle in (lock.release, rlock.release, permits.release, task.ack):
        try:
            settle()
        except kvsync.NotOwnedError:
            continue
        raise AssertionError(settle)
    assert not rlock.acquire(timeout=0)
    assert store.session.process(store.session.id).start_ticks == own_start()
    with store.lock("d"):
        return "ok"


def child_in_a_transaction():
    try:
        store.counter("hits").add()
    except kvsync.ForkError:
        return "ok"


def own_start():
    with open("/proc/self/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def answer(function):
    read, write = os.pipe()
    assert ctypes.CDLL(None).unshare(0x20000000) == 0  # CLONE_NEWPID, for children
    if not os.fork():
        try:
            os.write(write, str(function()).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.wait()
    return os.read(read, 100)


if sys.argv[2] == "outside":
    assert answer(child) == b"ok"
else:
    with store.transaction():
        store.counter("hits").add()
        assert answer(child_in_a_transaction) == b"ok"
    assert store.counter("hits").value == 1
for held in (lock, rlock, permits):
    held.ensure_held()
    held.release()
task.ack()
print("ok")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root may make a pid namespace")
@pytest.mark.parametrize("where", ["outside", "inside"])
def test_a_child_that_has_its_parents_pid_owns_nothing_of_it(path: Path, where: str) -> None:
    """As in a container, whose first process begins another pid namespace and forks into it."""
    unshare = ["unshare", "-pf", "--mount-proc", "--kill-child", sys.executable]
    done = subprocess.run(
        [*unshare, "-c", _SAME_PID, path, where],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == "ok\n", done.stderr

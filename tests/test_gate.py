"""The write gate: waiting that is bounded and fair. The checkpoint: a log that stays short."""

import errno
import fcntl
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import kvsync
from kvsync.engine import Transaction, checkpoint, gate, holders, log
from kvsync.engine.checkpoint import PIECE, THRESHOLD
from kvsync.engine.log import Log
from tests.interrupted import Interrupt, after_each_call
from tests.processes import PATIENCE, expect, in_thread, kill, run_all, run_program, running


def hold_in_transaction(pipe: Any, path: str) -> None:
    """Be inside a transaction until told to leave it."""
    with kvsync.open(path) as store:
        store.counter("held").add()
        with store.transaction():
            store.counter("held").add()
            pipe.send("inside")
            pipe.recv()
        pipe.send("left")


def test_a_write_waits_no_longer_than_busy_timeout_and_names_who_is_in_the_way(
    path: Path,
) -> None:
    """The holder is named by its number and its command line."""
    with running(hold_in_transaction, str(path)) as (child, pipe):
        expect(pipe)
        with (
            kvsync.open(path, busy_timeout=0.05) as store,
            pytest.raises(kvsync.BusyError, match=rf"process {child.pid} \(.*python") as caught,
        ):
            store.counter("hits").add()
        assert isinstance(caught.value, TimeoutError)
        pipe.send("leave")


@pytest.mark.parametrize(
    ("late", "shortest", "longest"), [(0.0, 0.0, 0.03), (0.005, 0.02, 0.06), (10.0, 0.05, 0.15)]
)
def test_a_waiter_whose_naps_end_late_naps_longer(
    path: Path, monkeypatch: pytest.MonkeyPatch, late: float, shortest: float, longest: float
) -> None:
    """The attempts of hundreds would leave no time to who has the gate."""
    now, naps = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds + late
        naps.append(seconds)

    monkeypatch.setattr(gate, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    turn = gate.Turn(gate.Sidecar(str(path)), PATIENCE * 1000, writing=False)
    for _ in range(100):
        turn.rest(gate.Obstructed("another process was writing"))
    assert shortest <= min(naps[1:]) <= max(naps[1:]) <= longest


def test_a_transaction_waits_no_longer_either(path: Path) -> None:
    """It raises on entry."""
    with running(hold_in_transaction, str(path)) as (_, pipe):
        expect(pipe)
        store = kvsync.open(path, busy_timeout=0.05)
        with pytest.raises(kvsync.BusyError), store.transaction():
            pytest.fail("must not get in")
        store.close()
        pipe.send("leave")


def test_a_busy_timeout_of_zero_is_one_try(path: Path) -> None:
    """Which succeeds when nobody is in the way, claims or not."""
    with kvsync.open(path, busy_timeout=0) as store:
        store.counter("hits").add()
        claim = os.open(store.path + "-kvsync/claim", os.O_RDONLY)
        fcntl.flock(claim, fcntl.LOCK_EX)
        for expected in range(2, 50):
            assert store.counter("hits").add() == expected
        os.close(claim)


def test_reading_never_waits_for_a_writer(path: Path) -> None:
    """It sees the state before the transaction."""
    with running(hold_in_transaction, str(path)) as (_, pipe):
        expect(pipe)
        with kvsync.open(path, busy_timeout=0) as store:
            assert store.counter("held").value == 1
            assert list(store.dict("d")) == []
            assert store.check().damage == ()
        pipe.send("leave")


def test_a_killed_writer_leaves_the_gate_open_and_no_trace(path: Path) -> None:
    """The kernel frees the gate, SQLite undoes the transaction."""
    with running(hold_in_transaction, str(path)) as (child, pipe):
        expect(pipe)
        kill(child)
        with kvsync.open(path, busy_timeout=PATIENCE) as store:
            assert store.counter("held").add() == 2


def test_a_writer_that_does_not_know_the_gate_is_waited_for_and_named(
    store: kvsync.Store,
) -> None:
    """SQLite's own lock stays the truth."""
    store.counter("hits").add()
    foreign = sqlite3.connect(store.path, isolation_level=None)
    foreign.execute("begin immediate")
    foreign.execute("create table t (x)")
    impatient = kvsync.open(store.path, busy_timeout=0.05)
    with pytest.raises(kvsync.BusyError, match=f"process {os.getpid()}"):
        impatient.counter("hits").add()
    with pytest.raises(kvsync.BusyError), impatient.transaction():
        pytest.fail("must not get in")
    assert impatient.counter("hits").value == 1
    foreign.execute("commit")
    foreign.close()
    assert impatient.counter("hits").add() == 2
    impatient.close()


def test_a_wait_ends_as_soon_as_the_writer_leaves(path: Path) -> None:
    """However long the patience."""
    with running(hold_in_transaction, str(path)) as (_, pipe):
        expect(pipe)
        with kvsync.open(path, busy_timeout=PATIENCE) as store:
            threading.Timer(0.05, pipe.send, ["leave"]).start()
            assert store.counter("hits").add() == 1
            assert store.counter("held").value == 2
        assert expect(pipe) == "left"


def test_ctrl_c_ends_a_wait(path: Path) -> None:
    """A signal's exception comes through at once, and leaves no claim behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        with running(hold_in_transaction, str(path)) as (_, pipe):
            expect(pipe)
            with kvsync.open(path, busy_timeout=PATIENCE) as store:
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(KeyboardInterrupt):
                    store.counter("hits").add()
                with open(f"{path}-kvsync/claim") as claim:
                    fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            pipe.send("leave")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_a_writer_in_a_loop_lets_others_pass(path: Path) -> None:
    """Whoever sees the claim taken at the end of its slice makes no attempt at first."""
    with kvsync.open(path) as store:
        store.counter("hits").add()
        link = store.engine._pool.place().free[0]
        claim = os.open(store.path + "-kvsync/claim", os.O_RDONLY)
        link.begin_slice(polite=True)
        fcntl.flock(claim, fcntl.LOCK_EX)
        with pytest.raises(gate.Yielded):
            link.begin_slice(polite=True)
        os.close(claim)
        link.begin_slice(polite=True)


def _add_for_long(path: str, adds: int) -> int:
    """Add together with the others; returns the last sum."""
    with kvsync.open(path, busy_timeout=PATIENCE) as store:
        store.counters("ready").add("n")
        while store.counters("ready")["n"] < 8:
            os.sched_yield()
        return [store.counter("hits").add() for _ in range(adds)][-1]


def test_many_writers_all_come_to_an_end(path: Path) -> None:
    """None starves: what each needs at most is measured in `benchmarks`, not here."""
    assert max(run_all(_add_for_long, [(str(path), 200)] * 8)) == 8 * 200


def test_threads_of_one_process_take_turns_as_processes_do(store: kvsync.Store) -> None:
    """Each has a descriptor of the gate of its own."""
    hits = store.counter("hits")

    def add() -> None:
        for _ in range(200):
            hits.add()

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hits.value == 1600


def test_a_threads_connection_goes_with_its_thread(store: kvsync.Store) -> None:
    """Else a server that makes a thread for each request would run out of descriptors."""
    store.counter("hits").add()

    def count() -> int:
        return sum(
            os.path.realpath(f"/proc/self/fd/{entry}").startswith(store.path)
            for entry in os.listdir("/proc/self/fd")
        )

    counts = []
    for _ in range(20):
        thread = threading.Thread(target=store.counter("hits").add)
        thread.start()
        thread.join()
        counts.append(count())
    assert counts[-1] <= counts[1]  # SQLite keeps one closed descriptor for its next connection


def test_a_signal_handler_may_write_or_is_told_that_it_cannot(store: kvsync.Store) -> None:
    """It never waits for the call that it interrupted, and never changes that call's outcome."""
    hits = store.counter("hits")
    outcomes: list[str] = []

    def handler(*_: object) -> None:
        try:
            hits.add()
            outcomes.append("added")
        except kvsync.BusyError:
            outcomes.append("busy")

    old = signal.signal(signal.SIGALRM, handler)
    try:
        calls = 0
        while len(outcomes) < 300:
            answered = len(outcomes)
            signal.setitimer(signal.ITIMER_REAL, 0.0005)
            while len(outcomes) == answered:
                hits.add()
                calls += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert hits.value == calls + outcomes.count("added")


@pytest.mark.usefixtures("swallowed_interrupts")
def test_interrupts_at_any_instant_leave_no_lock_behind(store: kvsync.Store) -> None:
    """Exceptions are raised inside writes and transactions; others can write at once after each."""
    hits, other = store.counter("hits"), kvsync.open(store.path, busy_timeout=PATIENCE)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    acknowledged = interrupted = 0
    settings = store.dict("settings")
    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        while interrupted < 300:
            try:
                # Again and again, for one that falls into a finalizer is swallowed by Python.
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.00001 * (interrupted % 50), 0.02)
                while True:
                    with store.transaction():
                        hits.add()
                        hits.add()
                    acknowledged += 2
                    hits.add()
                    acknowledged += 1
                    settings.increment("n")
                    settings.pop("n")
                    store.counter("reset").reset()
            except KeyboardInterrupt:
                signal.setitimer(signal.ITIMER_REAL, 0)
                interrupted += 1
                # The exception is being handled, and its frames are alive: a write in here must
                # not become part of a transaction that it left behind.
                other.counter("handled").add()
            assert in_thread(other.counter("other").add) == interrupted
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert other.counter("handled").value == interrupted
    assert acknowledged <= hits.value <= acknowledged + 2 * interrupted
    other.close()


def _in_a_transaction(store: kvsync.Store) -> None:
    with store.transaction():
        store.counter("hits").add()
        store.dict("settings").increment("n")


WRITES: dict[str, Callable[[kvsync.Store], object]] = {
    "one statement": lambda store: store.counter("hits").add(),
    "many statements": lambda store: store.dict("settings").update(a=1, b=2),
    "transaction": _in_a_transaction,
    "check": lambda store: store.check(),
    "backup": lambda store: store.backup(f"{store.path}-copy"),
}


@pytest.mark.parametrize("call", WRITES.values(), ids=WRITES)
def test_wherever_a_call_is_interrupted_the_next_writer_goes_on_at_once(
    store: kvsync.Store, call: Callable[[kvsync.Store], object]
) -> None:
    """Of this thread and of another one; a transaction is there as a whole, or not at all."""
    with kvsync.open(store.path, busy_timeout=0) as other:
        in_thread(other.counter("other").add)
        for n, place in enumerate(after_each_call(lambda: call(store)), 2):
            assert in_thread(other.counter("other").add) == n, place
            store.counter("own").add()
            if call is _in_a_transaction:
                assert store.counter("hits").value == store.dict("settings").get("n", 0), place


@pytest.mark.parametrize("guarded", [False, True])
def test_what_is_written_while_an_interrupt_is_handled_stays(
    store: kvsync.Store, guarded: bool
) -> None:
    """It does not become part of a transaction that the interrupt left open, and goes with it."""
    lock, handled, written = store.lock("job"), store.counter("handled"), 0
    lock.acquire()

    def transact() -> None:
        nonlocal written
        try:
            with store.transaction(guard=lock if guarded else None):
                store.counter("hits").add()
        except Interrupt:
            written = handled.add()
            raise

    for place in after_each_call(transact):
        assert handled.value == written, place


@pytest.mark.parametrize("in_block", [False, True])
def test_what_was_committed_is_told_whatever_interrupts_it(
    store: kvsync.Store, in_block: bool
) -> None:
    """And nothing else is."""
    told: list[int] = []
    hits = store.counter("hits")

    def tell(number: int) -> None:
        store.engine.after_commit(lambda: told.append(number))

    def add_and_tell(transaction: Transaction) -> None:
        hits._add_in(transaction, 1)
        tell(hits.value)

    def call() -> None:
        if in_block:
            with store.transaction():
                tell(hits.add())
        else:
            store.engine.transact(add_and_tell)

    for place in after_each_call(call):
        assert sorted(set(told)) == list(range(1, hits.value + 1)), place


_SIGNALS_IN_AUDIT_HOOKS = """
import fcntl, sys, kvsync

def interrupt_unlocks(event, arguments):
    if event == "fcntl.flock" and arguments[1] & fcntl.LOCK_UN:
        raise KeyboardInterrupt

store = kvsync.open(sys.argv[1], busy_timeout=1)
hits = store.counter("hits")
hits.add()
sys.addaudithook(interrupt_unlocks)
hits.add()
with store.transaction():
    hits.add()
hits.reset()
gate = open(store.path + "-kvsync/gate")
fcntl.flock(gate, fcntl.LOCK_EX)
try:
    hits.add()  # waits, with the claim
except kvsync.BusyError:
    pass
gate.close()
assert hits.add() == 1
store.close()
print("ok")
"""


def test_an_audit_hook_cannot_keep_the_gate_locked(path: Path) -> None:
    """One that is written in Python lets signal handlers, and what they raise, into `flock`."""
    run_program(_SIGNALS_IN_AUDIT_HOOKS, path)


# --- who is in the way ------------------------------------------------------------------------


def test_nobody_is_named_where_nobody_holds(store: kvsync.Store) -> None:
    """And where the system does not tell."""
    store.counter("hits").add()
    assert holders.of_flock(store.path + "-kvsync/gate") is None
    assert holders.of_database(store.path) is None
    assert holders.of_flock("/nonexistent") is None


def test_a_process_of_another_container_is_named_as_such() -> None:
    """Its number is not visible from here."""
    assert "container" in holders.describe(0)
    assert holders.describe(2**22 + 1) == f"process {2**22 + 1}"


def test_a_command_line_is_told_in_one_line() -> None:
    """Whatever a process was started with: it must not break a message, nor drive a terminal."""
    program = "print(flush=True)\ninput() # \x1b[31m"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        told = holders.describe(child.pid)
        child.communicate(b"\n")
    assert "-c print(flush=True)\\ninput() # \\x1b[31m)" in told
    assert told.isprintable()


# --- the checkpoint ---------------------------------------------------------------------------


def log_size(store: kvsync.Store) -> int:
    """Bytes of the -wal."""
    return store.stats().wal_bytes


def test_the_log_is_restarted_once_it_is_long_enough(store: kvsync.Store) -> None:
    """Far more is written than it may hold."""
    settings = store.dict("settings", codec="raw")
    worst = 0
    for number in range(3000):
        settings["k"] = bytes([number % 256]) * 8000
        if number % 50 == 0:
            worst = max(worst, log_size(store))
    assert checkpoint.THRESHOLD / 2 < worst < 2 * checkpoint.THRESHOLD


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where each piece of the log starts with which the disk is told to begin, in turn."""
    begun: list[int] = []
    original = Log.begin_to_write

    def begin_to_write(self: Log, start: int, size: int) -> None:
        assert size == PIECE
        assert self.reaches(start + size), "it is still written on"
        begun.append(start)
        original(self, start, size)

    monkeypatch.setattr(Log, "begin_to_write", begin_to_write)
    return begun


def test_the_disk_begins_with_the_log_piece_by_piece(store: kvsync.Store, begun: list[int]) -> None:
    """So that little is left to do when the checkpoint is due, while all others wait."""
    settings = store.dict("settings", codec="raw")
    for number in range(2000):
        settings["k"] = bytes([number % 256]) * 8000
    laps = [index for index, start in enumerate(begun) if start == 0]
    assert len(laps) > 2
    for first, next in pairwise(laps):
        lap = begun[first:next]
        assert lap == list(range(0, len(lap) * PIECE, PIECE))
        assert len(lap) >= THRESHOLD // PIECE - 1


def test_the_disk_begins_anew_with_a_log_that_another_has_restarted(
    store: kvsync.Store, begun: list[int]
) -> None:
    settings = store.dict("settings", codec="raw")
    for _ in range(2):
        del begun[:]
        for number in range(100):
            settings["k"] = bytes([number]) * 8000
        assert begun[:2] == [0, PIECE]
        foreign = sqlite3.connect(store.path)
        assert foreign.execute("pragma wal_checkpoint(restart)").fetchone()[0] == 0
        foreign.close()


@pytest.mark.parametrize("durability", ["none", "power"])
def test_the_disk_is_not_told_of_the_log_where_each_commit_does_or_none(
    path: Path, begun: list[int], durability: str
) -> None:
    with kvsync.open(path, durability=durability) as store:
        store.dict("settings", codec="raw").update(dict.fromkeys(map(str, range(300)), b"x" * 8000))
    assert begun == []


def test_a_system_whose_disk_cannot_be_told_has_logs_as_well(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_sync_file_range", None)
    test_the_log_is_restarted_once_it_is_long_enough(store)


def test_a_log_that_one_large_transaction_blew_up_gives_its_space_back(
    store: kvsync.Store,
) -> None:
    """TRUNCATE, not only RESTART."""
    with store.transaction():
        for number in range(20):
            store.dict("big", codec="raw")[str(number)] = os.urandom(1 << 20)
    for _ in range(64):
        store.counter("hits").add()
    assert log_size(store) < checkpoint.THRESHOLD


def test_a_paused_iteration_does_not_hold_the_log(store: kvsync.Store) -> None:
    """Each page is a read of its own."""
    settings = store.dict("settings", codec="raw")
    settings.set_many({f"{i:05}": b"x" for i in range(2000)})
    paused = iter(settings.items())
    next(paused)
    for number in range(3000):
        settings["k"] = bytes([number % 256]) * 8000
    assert log_size(store) < 2 * checkpoint.THRESHOLD
    assert sum(1 for _ in paused) >= 1999


def test_a_large_file_may_have_a_longer_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In proportion to its size, and no more than a fixed size."""
    with kvsync.open(path) as filled:
        for number in range(400):
            filled.dict("settings", codec="raw")[str(number)] = os.urandom(8000)
    store = kvsync.open(path)
    settings = store.dict("settings", codec="raw")
    share = os.stat(store.path).st_size // checkpoint.SHARE
    monkeypatch.setattr(checkpoint, "THRESHOLD", 1 << 16)
    monkeypatch.setattr(checkpoint.Checkpoint, "_begin_to_write", lambda *_: None)
    sizes = []
    original = checkpoint.checkpoint
    monkeypatch.setattr(
        checkpoint,
        "checkpoint",
        lambda c, mode: sizes.append(log_size(store)) or original(c, mode),
    )
    while not sizes:
        settings["k"] = os.urandom(8000)
    assert share <= sizes[0] < 2 * share
    monkeypatch.setattr(checkpoint, "LARGEST_THRESHOLD", share // 2)
    assert store.engine._pool.checkpoint._threshold() == share // 2
    store.close()


def test_a_purge_has_its_log_copied_in_small_portions(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the file is large: all other writers wait while a portion is copied."""
    jobs = store.queue("jobs")
    jobs.put_many(["x" * 4000] * 3000)
    monkeypatch.setattr(checkpoint, "THRESHOLD", 1 << 16)
    monkeypatch.setattr(checkpoint.Checkpoint, "_begin_to_write", lambda *_: None)
    sizes = []
    original = Log.reaches
    monkeypatch.setattr(
        Log, "reaches", lambda self, size: sizes.append(size) or original(self, size)
    )
    assert jobs.purge() == 3000
    assert sizes
    assert max(sizes) < os.stat(store.path).st_size // checkpoint.SHARE
    assert sizes[0] == checkpoint.THRESHOLD


def fill_up(store: kvsync.Store) -> int:
    """Have SQLite refuse to let the file grow, as on a full disk; returns the log's size then."""
    settings = store.dict("settings", codec="raw")
    settings.set_many({f"{i:05}": b"x" * 1000 for i in range(500)})
    (link,) = store.engine._pool.place().free
    pages = link.connection.execute("pragma page_count").fetchone()[0]
    link.connection.execute(f"pragma max_page_count={pages}").fetchall()
    return log_size(store)


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_log_that_may_be_what_fills_the_disk_gives_its_space_back(
    store: kvsync.Store, in_transaction: bool
) -> None:
    """Else nobody could write any more, and so nobody would come to checkpoint it."""
    full = fill_up(store)
    assert 100_000 < full < checkpoint.THRESHOLD
    block = store.transaction() if in_transaction else nullcontext()
    with pytest.raises(kvsync.StorageError) as raised, block:
        store.dict("settings", codec="raw")["large"] = b"x" * 100_000
    assert raised.value.errno == errno.ENOSPC
    store.counter("hits").add()
    assert log_size(store) < 20_000


def write_much_and_stay(pipe: Any, path: str) -> None:
    """Without a checkpoint, neither now nor, while we have the file open, when others close it."""
    checkpoint.THRESHOLD = 1 << 40
    with kvsync.open(path) as store:
        with store.transaction():
            store.dict("big", codec="raw").update({str(i): os.urandom(1 << 20) for i in range(9)})
        pipe.send("written")
        pipe.poll(None)


def test_a_process_that_comes_to_a_long_log_shortens_it_before_it_writes(
    store: kvsync.Store, path: Path
) -> None:
    """On a full disk nothing could be written else."""
    with running(write_much_and_stay, str(path)) as (_, pipe):
        expect(pipe)
        assert log_size(store) > checkpoint.THRESHOLD
        with store.transaction():
            assert log_size(store) < checkpoint.THRESHOLD


def read_for_long(pipe: Any, path: str) -> None:
    """A foreign reader that keeps its snapshot until told."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("begin")
    connection.execute("select count(*) from kvsync_dict").fetchall()
    pipe.send("reading")
    pipe.recv()
    connection.close()


def test_a_reader_that_stays_costs_writers_a_wait_for_each_threshold_only(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed checkpoint is tried again after as much growth again; then the log shrinks."""
    attempts = []
    original = checkpoint.checkpoint
    monkeypatch.setattr(
        checkpoint, "checkpoint", lambda c, mode: attempts.append(mode) or original(c, mode)
    )
    settings = store.dict("settings", codec="raw")
    settings["k"] = b""
    with running(read_for_long, store.path) as (_, pipe):
        expect(pipe)
        for number in range(3000):  # 36 MB of log
            settings["k"] = bytes([number % 256]) * 8000
        grown = log_size(store)
        assert grown > 4 * checkpoint.THRESHOLD
        assert 1 <= len(attempts) <= grown // checkpoint.THRESHOLD
        pipe.send("leave")
    for number in range(2000):
        settings["k"] = bytes([number % 256]) * 8000
    assert log_size(store) < 2 * checkpoint.THRESHOLD


def test_a_new_writer_does_not_try_a_long_log_threshold_by_threshold(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its first failure it waits for growth from where the log ends, not from its start."""
    store = kvsync.open(path)
    settings = store.dict("settings", codec="raw")
    settings["k"] = b""
    with running(read_for_long, store.path) as (_, pipe):
        expect(pipe)
        with store.transaction():
            for number in range(3000):
                settings[str(number)] = os.urandom(8000)
        attempts = []
        original = checkpoint.checkpoint
        monkeypatch.setattr(
            checkpoint, "checkpoint", lambda c, mode: attempts.append(mode) or original(c, mode)
        )
        store.close()
        with kvsync.open(store.path) as newcomer:
            for _ in range(100):
                newcomer.counter("hits").add()
        assert len(attempts) == 1
        pipe.send("leave")


def test_a_stopped_claimant_costs_the_others_little(store: kvsync.Store) -> None:
    """It makes no use of the turns that are left to it."""
    store.counter("hits").add()
    claim = os.open(store.path + "-kvsync/claim", os.O_RDONLY)
    fcntl.flock(claim, fcntl.LOCK_EX)
    turn = gate.Turn(store.engine._pool.sidecar, PATIENCE, writing=True)
    naps = [turn._nap(gate.Yielded("")) for _ in range(1000)]
    assert max(naps) < gate.SLICE
    os.close(claim)


def test_what_is_urgent_makes_no_way_for_a_claimant(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others wait for what it does; and where it is obstructed, its naps are short."""
    store.counter("hits").add()
    claim = os.open(store.path + "-kvsync/claim", os.O_RDONLY)
    fcntl.flock(claim, fcntl.LOCK_EX)
    yields: list[gate.Obstructed] = []
    rest = gate.Turn.rest
    monkeypatch.setattr(gate.Turn, "rest", lambda self, why: (yields.append(why), rest(self, why)))
    for urgent in (True, False):
        store.engine._pool.place().free[0].slice_end = 0.0
        store.engine.transact(lambda _: None, urgent=urgent)
        assert [type(each) for each in yields] == ([] if urgent else [gate.Yielded])
    turn = gate.Turn(store.engine._pool.sidecar, PATIENCE, writing=True, urgent=True)
    assert max(turn._nap(gate.Obstructed("")) for _ in range(1000)) < gate.SLICE
    os.close(claim)


def test_a_failing_checkpoint_fails_no_commit(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The commit before it stands, so the call must succeed."""
    monkeypatch.setattr(checkpoint, "THRESHOLD", 1)
    monkeypatch.setattr(checkpoint, "SHARE", 1 << 40)
    settings = store.dict("settings")
    settings["a"] = 1
    foreign = sqlite3.connect(store.path, isolation_level=None)
    foreign.execute("begin")
    foreign.execute("select * from kvsync_dict").fetchall()
    for number in range(70):
        settings["a"] = number
    foreign.close()
    assert settings["a"] == 69
    closed = sqlite3.connect(":memory:")
    closed.close()
    assert checkpoint.checkpoint(closed, "restart") is None
    assert "checkpoint failed" in caplog.text


def test_every_connection_leaves_the_checkpoint_to_the_gate(store: kvsync.Store) -> None:
    """SQLite's own would run outside of it."""
    store.counter("hits").add()
    assert store.engine.read("pragma wal_autocheckpoint") == [(0,)]


def test_a_checkpoint_happens_only_while_the_gate_is_held(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another descriptor cannot have the gate at that moment."""
    seen = []
    original = checkpoint.checkpoint

    def watched(connection: sqlite3.Connection, mode: str) -> bool:
        descriptor = os.open(store.path + "-kvsync/gate", os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seen.append("open")
        except BlockingIOError:
            seen.append("held")
        finally:
            os.close(descriptor)
        return original(connection, mode)

    monkeypatch.setattr(checkpoint, "checkpoint", watched)
    monkeypatch.setattr(checkpoint, "THRESHOLD", 1 << 16)
    settings = store.dict("settings")
    for number in range(200):
        settings["k"] = number
        with store.transaction():
            settings["l"] = number
    assert seen
    assert set(seen) == {"held"}


def test_who_had_to_wait_for_others_leaves_nothing_to_the_garbage_collector(
    store: kvsync.Store,
) -> None:
    """An exception's traceback has its frame, which must not have the exception."""

    class Thing:
        pass

    def write() -> weakref.ref[Thing]:
        thing, tries = Thing(), iter(range(3))

        def attempt() -> Thing:
            if next(tries) < 2:
                raise gate.Obstructed("another process was writing")
            return thing

        store.engine.wait(gate.Obstructed(""), attempt)  # type: ignore[attr-defined]
        return weakref.ref(thing)

    gc.disable()
    try:
        assert write()() is None
    finally:
        gc.enable()

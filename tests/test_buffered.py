"""Write-behind adds: when they are committed, and that none is lost or counted twice."""

import logging
import multiprocessing
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.primitives import buffered
from tests.processes import PATIENCE, expect, in_thread, kill, run_all, run_program, running

NEVER = 1e6
"""An interval that no test sees the end of."""


@pytest.fixture
def c(store: kvsync.Store) -> kvsync.Counter:
    return store.counter("c")


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what another thread will do. Raises: AssertionError if it never comes."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.001)


# --- when ----------------------------------------------------------------------------------------


def test_an_add_is_committed_by_flush_and_not_before(c: kvsync.Counter) -> None:
    hot = c.buffered(interval=NEVER)
    hot.add()
    hot.add(5)
    hot.sub(2)
    assert c.value == 0
    assert hot.stats().pending == 4
    hot.flush()
    assert c.value == 4
    assert hot.stats().pending == 0
    hot.flush()
    assert c.value == 4


def test_an_add_is_committed_after_the_interval(c: kvsync.Counter) -> None:
    hot = c.buffered(interval=0.01)
    hot.add(3)
    eventually(lambda: c.value == 3)
    hot.add(4)
    eventually(lambda: c.value == 7)


def test_many_adds_are_committed_before_the_interval(c: kvsync.Counter) -> None:
    hot = c.buffered(interval=NEVER)
    for _ in range(buffered._LIMIT + 2):
        hot.add()
    eventually(lambda: c.value > 0)
    hot.flush()
    assert c.value == buffered._LIMIT + 2


def test_closing_flushes_and_does_not_end_it(c: kvsync.Counter) -> None:
    hot = c.buffered(interval=NEVER)
    hot.add()
    hot.close()
    assert c.value == 1
    hot.add()
    hot.close()
    assert c.value == 2


def test_leaving_its_block_flushes(c: kvsync.Counter) -> None:
    with c.buffered(interval=NEVER) as entered:
        hot = entered
        hot += 3
        hot -= 1
        assert hot is entered
        assert c.value == 0
    assert c.value == 2


def test_closing_the_store_flushes(path: Path) -> None:
    with kvsync.open(path) as store:
        hot = store.counter("c").buffered(interval=NEVER)
        hot.add(3)
    with kvsync.open(path) as store:
        assert store.counter("c").value == 3


def test_what_nobody_refers_to_any_more_is_committed_all_the_same(c: kvsync.Counter) -> None:
    c.buffered(interval=0.01).add(3)
    eventually(lambda: c.value == 3)


def test_the_thread_ends_when_idle_and_begins_again(c: kvsync.Counter) -> None:
    hot = c.buffered(interval=0.0001)
    for total in (1, 2, 3):
        hot.add()
        eventually(lambda: hot._thread is None)
        assert c.value == total
    hot.add()
    hot.flush()
    assert c.value == 4


def test_several_on_one_counter_add_up(store: kvsync.Store) -> None:
    several = [store.counter("c").buffered(interval=NEVER) for _ in range(3)]
    several.append(store.counters("f").counter("label").buffered(interval=NEVER))
    for n, hot in enumerate(several):
        hot.add(n)
    for hot in several:
        hot.flush()
    assert store.counter("c").value == 3
    assert dict(store.counters("f")) == {"label": 3}


def test_threads_that_add_at_once_lose_nothing(c: kvsync.Counter) -> None:
    """While the background thread takes from the same place, all the time."""
    hot = c.buffered(interval=0.0005)
    begin = threading.Barrier(4)

    def work(_: int) -> None:
        begin.wait()
        for n in range(5000):
            hot.add(1 if n % 2 else 3)
            if not n % 1000:
                hot.flush()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    hot.flush()
    assert c.value == 4 * 5000 * 2


# --- the end of a process -------------------------------------------------------------------------

ENDINGS = {
    "normally": "",
    "by sys.exit": "import sys; sys.exit(0)",
    "by an exception": "raise SystemExit from ValueError()",
    "after the main thread": (
        "import threading\n"
        "main = threading.main_thread()\n"
        "late = store.counter('c').buffered(interval=1e6)\n"
        "threading.Thread(target=lambda: (main.join(), late.add(10), late.flush())).start()\n"
        "hot.add(-10)\n"
    ),
    "in an exit handler": (
        "import atexit\n"
        "late = store.counter('c').buffered(interval=1e6)\n"
        "atexit.register(lambda: (late.add(10), late.flush()))\n"
        "hot.add(-10)\n"
    ),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_a_program_that_ends_has_committed_everything(c: kvsync.Counter, ending: str) -> None:
    program = (
        "import kvsync, sys\n"
        "store = kvsync.open(sys.argv[1])\n"
        "hot = store.counter('c').buffered(interval=1e6)\n"
        "hot.add(7)\n" + ending
    )
    done = subprocess.run(
        [sys.executable, "-c", program, c.store.path],
        timeout=PATIENCE,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert c.value == 7


def add_and_end(hot: kvsync.BufferedCounter, n: int) -> None:
    for _ in range(n):
        hot.add()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_multiprocessing_child_that_ends_has_committed_everything(
    c: kvsync.Counter, method: str
) -> None:
    """`atexit` does not run there."""
    hot = c.buffered(interval=NEVER)
    hot.add(1000)
    context = multiprocessing.get_context(method)
    children = [context.Process(target=add_and_end, args=(hot, 100)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(PATIENCE)
        assert child.exitcode == 0
    assert c.value == 200
    hot.flush()
    assert c.value == 1200


def test_a_forked_child_starts_from_nothing(c: kvsync.Counter) -> None:
    """What was pending is the parent's to commit, once; what the child adds is the child's."""
    hot = c.buffered(interval=NEVER)
    hot.add(5)
    child = os.fork()
    if not child:
        try:
            begins_empty = hot.stats().pending == 0
            hot.flush()
            nothing_came = c.value == 0
            hot.add(70)
            hot.flush()
            os._exit(0 if begins_empty and nothing_came and c.value == 70 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert c.value == 70
    assert hot.stats().pending == 5
    hot.flush()
    assert c.value == 75


def test_forks_while_threads_add_count_each_add_once(c: kvsync.Counter) -> None:
    hot = c.buffered(interval=0.001)
    stop = threading.Event()

    def work() -> int:
        added = 0
        while not stop.is_set():
            hot.add()
            added += 1
        return added

    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(work)
        try:
            for _ in range(10):
                child = os.fork()
                if not child:
                    try:
                        hot.add(1_000_000_000)
                        hot.flush()
                        os._exit(0)
                    finally:
                        os._exit(2)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            stop.set()
    hot.flush()
    assert c.value == worker.result() + 10 * 1_000_000_000


def add_in_rounds(pipe: Any, hot: kvsync.BufferedCounter) -> None:
    for n in range(1, 1000):
        hot.add(n)
        hot.flush()
        pipe.send(n)
        for _ in range(1000):
            hot.add(1_000_000)
        pipe.send("more")
        pipe.recv()


def test_a_killed_process_loses_only_what_it_had_not_flushed(c: kvsync.Counter) -> None:
    """It never flushes by itself: what was added after the flush is lost, and nothing else."""
    hot = c.buffered(interval=NEVER)
    with running(add_in_rounds, hot) as (child, pipe):
        assert expect(pipe) == 1
        assert expect(pipe) == "more"
        kill(child)
    assert c.value == 1


def add_for_ever(pipe: Any, hot: kvsync.BufferedCounter) -> None:
    """Tells what it is going to add, and what is flushed."""
    total = 0
    while True:
        pipe.send(("to come", total := total + 100))
        for _ in range(100):
            hot.add()
        if not total % 1000:
            hot.flush()
            pipe.send(("flushed", total))


@pytest.mark.parametrize("messages", [7, 40, 200])
def test_a_kill_at_any_moment_keeps_what_was_acknowledged(c: kvsync.Counter, messages: int) -> None:
    known = {"to come": 0, "flushed": 0}
    with running(add_for_ever, c.buffered(interval=0.001)) as (child, pipe):
        for _ in range(messages):
            known.update([expect(pipe)])
        kill(child)
        try:
            while pipe.poll():
                known.update([pipe.recv()])
        except EOFError:
            pass
    assert known["flushed"] <= c.value <= known["to come"]


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_failed_flush_keeps_the_sum_and_it_is_tried_again(path: Path) -> None:
    """The write lock is another program's, for longer than the busy timeout."""
    with kvsync.open(path, busy_timeout=0.05) as store:
        c = store.counter("c")
        c.add()
        hot = c.buffered(interval=0.01)
        raw = sqlite3.connect(path, isolation_level=None)
        raw.execute("begin immediate")
        hot.add(3)
        for _ in range(2):
            with pytest.raises(kvsync.BusyError):
                hot.flush()
            assert hot.stats().pending == 3
        hot.add(4)
        raw.execute("rollback")
        raw.close()
        eventually(lambda: c.value == 8)
        hot.flush()
        assert c.value == 8


def test_a_failure_in_the_background_is_told_once_and_tried_again(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "kvsync")
    with kvsync.open(path, busy_timeout=0) as store:
        c = store.counter("c")
        c.add()
        hot = c.buffered(interval=0.001)
        tries = 0
        commit = hot._commit

        def counting() -> None:
            nonlocal tries
            tries += 1
            commit()

        hot._commit = counting  # type: ignore[method-assign]
        raw = sqlite3.connect(path, isolation_level=None)
        raw.execute("begin immediate")
        hot.add(3)
        eventually(lambda: tries > 10)
        raw.execute("rollback")
        raw.close()
        eventually(lambda: c.value == 4)
    assert len(caplog.messages) == 1
    assert "tries again" in caplog.messages[0]


def test_an_unforeseen_error_does_not_end_the_thread(
    c: kvsync.Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot = c.buffered(interval=NEVER)
    hot.add(3)
    with monkeypatch.context() as patch:

        def fail(_: int) -> int:
            raise MemoryError

        patch.setattr(c, "add", fail)
        for _ in range(2):
            with pytest.raises(MemoryError):
                hot.flush()
    hot.add(4)
    hot.flush()
    assert c.value == 7


def test_an_overflow_keeps_the_sum_until_it_fits(c: kvsync.Counter) -> None:
    c.set(2**63 - 2)
    hot = c.buffered(interval=NEVER)
    hot.add(3)
    with pytest.raises(OverflowError):
        hot.flush()
    assert c.value == 2**63 - 2
    hot.sub(2)
    hot.flush()
    assert c.value == 2**63 - 1


def test_a_sum_past_64_bits_is_committed_where_the_counter_has_room(c: kvsync.Counter) -> None:
    c.set(-(2**63))
    hot = c.buffered(interval=NEVER)
    hot.add(2**63 - 1)
    hot.add(2**63)
    hot.flush()
    assert c.value == 2**63 - 1


@pytest.mark.parametrize("n", [2**64, -(2**64), 10**30], ids=repr)
def test_what_no_counter_has_room_for_is_refused_and_takes_nothing_with_it(
    c: kvsync.Counter, n: int
) -> None:
    hot = c.buffered(interval=NEVER)
    for attempt in (lambda: hot.add(n), lambda: hot.sub(n)):
        with pytest.raises(kvsync.CounterOverflowError):
            attempt()
    hot.add(5)
    hot.flush()
    assert c.value == 5


def test_flushing_inside_a_transaction_is_refused(store: kvsync.Store, c: kvsync.Counter) -> None:
    """It would wait for its own thread."""
    hot = c.buffered(interval=NEVER)
    with store.transaction():
        hot.add(3)
        with pytest.raises(kvsync.TransactionError):
            hot.flush()
        with pytest.raises(kvsync.TransactionError):
            hot.close()
        assert hot.stats().pending == 3
    hot.flush()
    assert c.value == 3


@pytest.mark.parametrize("n", [True, 1.0, "1", None], ids=repr)
def test_adding_what_is_no_int_is_a_type_error(c: kvsync.Counter, n: Any) -> None:
    hot = c.buffered(interval=NEVER)
    for attempt in (lambda: hot.add(n), lambda: hot.sub(n)):
        with pytest.raises(TypeError):
            attempt()
    assert hot.stats().pending == 0


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_an_interval_that_is_not_positive_and_finite_is_a_value_error(
    c: kvsync.Counter, interval: float
) -> None:
    with pytest.raises(ValueError, match="interval"):
        c.buffered(interval=interval)


@pytest.mark.parametrize("interval", [True, "1", None])
def test_an_interval_that_is_no_number_is_a_type_error(c: kvsync.Counter, interval: Any) -> None:
    with pytest.raises(TypeError, match="interval"):
        c.buffered(interval=interval)


def test_an_interrupt_of_the_main_thread_counts_nothing_twice(c: kvsync.Counter) -> None:
    """Signals come while it adds and flushes; their handler adds as well."""
    hot = c.buffered(interval=0.001)
    came = 0

    def handler(*_: object) -> None:
        nonlocal came
        came += 1
        hot.add(1_000_000)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for n in range(3000):
            hot.add()
            if not n % 100:
                hot.flush()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    hot.flush()
    assert c.value == 3000 + came * 1_000_000


# --- the object -----------------------------------------------------------------------------------


def test_an_interrupt_as_the_thread_begins_leaves_no_add_behind(
    c: kvsync.Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does anybody wait for a thread that never began."""
    hot = c.buffered(interval=0.01)

    def interrupt(_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        hot.add()
    hot.add()
    eventually(lambda: c.value == 2)


def test_a_flush_that_interrupts_a_commit_of_its_own_thread_is_refused(
    c: kvsync.Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a signal's handler does that closes the store while the program ends."""
    hot = c.buffered(interval=NEVER)
    hot.add()
    add, refused = kvsync.Counter.add, []

    def interrupted(counter: kvsync.Counter, n: int = 1) -> int:
        monkeypatch.undo()
        with pytest.raises(kvsync.BusyError, match="signal handler"):
            hot.flush()
        refused.append(n)
        return add(counter, n)

    monkeypatch.setattr(kvsync.Counter, "add", interrupted)
    in_thread(buffered._commit_all)
    assert refused == [1]
    assert c.value == 1
    hot.flush()


def test_a_finalizer_flushes_as_the_interpreter_ends(c: kvsync.Counter) -> None:
    """When no other thread runs any more."""
    program = (
        "import kvsync, sys\n"
        "class Hits:\n"
        "    hot = kvsync.open(sys.argv[1]).counter('c').buffered()\n"
        "    def __del__(self):\n"
        "        self.hot.add()\n"
        "        self.hot.flush()\n"
        "        print('ok')\n"
        "hits = Hits()\n"
        "hits.hot.add()\n"
    )
    run_program(program, c.store.path)
    assert c.value == 2


def test_it_says_what_it_is(c: kvsync.Counter) -> None:
    hot = c.buffered(interval=2.5)
    assert repr(hot) == f"<kvsync.BufferedCounter 'c', interval=2.5 in {c.store!r}>"
    assert hot.name == "c"
    assert hot.counter is c
    assert hot.stats().name == "c"
    with pytest.raises(FrozenInstanceError):
        hot.stats().pending = 1  # type: ignore[misc]


def test_a_copy_by_pickle_begins_with_nothing_pending(c: kvsync.Counter) -> None:
    hot = c.buffered(interval=NEVER)
    hot.add(5)
    copy = pickle.loads(pickle.dumps(hot))
    with copy.counter.store:
        assert repr(copy) == repr(hot)
        assert copy.stats().pending == 0
        copy.add(2)
        copy.flush()
    hot.flush()
    assert c.value == 7


def add_and_flush(hot: kvsync.BufferedCounter) -> int:
    for _ in range(500):
        hot.add()
    hot.flush()
    return hot.counter.value


def test_processes_add_up(c: kvsync.Counter) -> None:
    hot = c.buffered(interval=0.001)
    values = run_all(add_and_flush, [(hot,)] * 4, "fork")
    assert c.value == max(values) == 2000

"""What becomes of what a process holds as it ends: nobody else has it while any of it lives."""

import multiprocessing
import threading
from typing import Any

import pytest

import kvsync
from tests.processes import PATIENCE, expect, run_program, running

NAME = "job"


def outcome(lock: kvsync.Lock) -> str:
    """Whether this process has the lock still."""
    try:
        lock.ensure_held()
    except kvsync.KvsyncError as error:
        return repr(error)
    return "held"


def hold_past_the_end(pipe: Any, path: str) -> None:
    """Return while another thread is inside; it looks when only threads are waited for."""
    lock = kvsync.open(path).lock(NAME)
    inside, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            inside.set()
            assert over.wait(PATIENCE)
            pipe.send(outcome(lock))

    def shutdown() -> None:
        over.set()
        original()

    original = threading._shutdown  # type: ignore[attr-defined]
    threading._shutdown = shutdown  # type: ignore[attr-defined]
    threading.Thread(target=hold).start()
    assert inside.wait(PATIENCE)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_thread_that_outlives_the_target_of_its_process_keeps_its_lock(
    store: kvsync.Store, method: str
) -> None:
    """Python 3.11 and 3.12 call the finalizers of such a child before they wait for its threads."""
    with running(hold_past_the_end, store.path, method=method) as (child, pipe):
        assert expect(pipe) == "held"
        child.join(PATIENCE)
        assert child.exitcode == 0
    with store.lock(NAME, timeout=PATIENCE):
        pass


_LATE = """
import atexit, sys, threading
import kvsync
from tests.test_exit import NAME, PATIENCE, outcome

atexit.register(lambda: late())  # before the session begins, so that it comes after its hook
store = kvsync.open(sys.argv[1])
lock = store.lock(NAME)
"""
_IN_A_DAEMON = """
inside, over, looked = (threading.Event() for _ in range(3))

def hold():
    with lock:
        inside.set()
        over.wait(PATIENCE)
        print("ok" if outcome(lock) == "held" else outcome(lock), flush=True)
        looked.set()
        over.clear()
        over.wait(PATIENCE)

def late():
    over.set()
    looked.wait(PATIENCE)

threading.Thread(target=hold, daemon=True).start()
inside.wait(PATIENCE)
"""
_IN_A_HANDLER = """
def late():
    print("ok" if outcome(lock) == "held" else outcome(lock), flush=True)
    lock.release()

lock.acquire()
"""


@pytest.mark.parametrize("ending", [_IN_A_DAEMON, _IN_A_HANDLER], ids=["daemon", "handler"])
def test_what_is_in_use_during_later_exit_handlers_is_held(
    store: kvsync.Store, ending: str
) -> None:
    """By a daemon thread, or by the handlers themselves."""
    run_program(_LATE + ending, store.path)
    with store.lock(NAME, timeout=PATIENCE):
        pass


_IN_ORDER = """
import sys
import kvsync

store = kvsync.open(sys.argv[1])
hot = store.counter("hits").buffered()
hot.add()
with store.lock("job"):
    print("ok")
"""


def test_who_ends_with_nothing_in_hand_leaves_nothing_behind(store: kvsync.Store) -> None:
    """Though a thread of kvsync's own lives still."""
    run_program(_IN_ORDER, store.path)
    assert store.engine.read("select * from kvsync_session") == []
    assert store.engine.doorbells.count() == 0
    assert store.counter("hits").value == 1


_IN_HAND = """
import sys
import kvsync

store = kvsync.open(sys.argv[1])
store.lock("job").acquire()
task = store.queue("jobs").reserve()
print("ok")
"""


def test_what_an_ended_process_had_in_hand_is_to_be_had(store: kvsync.Store) -> None:
    jobs = store.queue("jobs")
    jobs.put("item")
    run_program(_IN_HAND, store.path)
    assert store.lock(NAME).acquire(timeout=PATIENCE)
    assert jobs.get(timeout=PATIENCE) == "item"

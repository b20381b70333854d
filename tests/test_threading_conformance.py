"""CPython's own tests of `threading`'s primitives, run on those of kvsync."""

import itertools
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kvsync
from tests.cpython import differs, left_out, own_tests, parameters

lock_tests = own_tests("test.lock_tests")

PRIVATE = differs("uses what is private to CPython's class")
REPR = differs("a repr tells what an object is, without a look into the database")
ENDLESS = differs("a timeout has no upper limit, so that nothing overflows")
UNDETECTED = left_out(
    "its threads wait for what they hold themselves, until another thread releases it: a deadlock,"
    " of which kvsync tells them, unless the release comes first; so how it ends is chance. With"
    " detect_deadlocks=False it passes: see below"
)
DIFFERS = {
    "Lock.test_reacquire": UNDETECTED,
    "Lock.test_repr": REPR,
    "Lock.test_locked_repr": REPR,
    "Lock.test_timeout": ENDLESS,
    "Lock.test_at_fork_reinit": PRIVATE,
    "RLock.test_repr": REPR,
    "RLock.test_locked_repr": REPR,
    "RLock.test_timeout": ENDLESS,
    "RLock.test_release_save_unacquired": PRIVATE,
    "RLock.test_recursion_count": PRIVATE,
    "RLock.test__is_owned": PRIVATE,
    "Event.test_at_fork_reinit": PRIVATE,
    "Event.test_repr": REPR,
    "Condition.test_acquire": differs("its lock is a lock of the store, not one of threading"),
    "Semaphore.test_release_unacquired": differs("a semaphore is bounded: see BoundedSemaphore"),
    "Semaphore.test_acquire_contended": UNDETECTED,
    "Semaphore.test_multirelease": UNDETECTED,
    "Semaphore.test_repr": REPR,
    "BoundedSemaphore.test_acquire_contended": UNDETECTED,
    "BoundedSemaphore.test_multirelease": UNDETECTED,
    "BoundedSemaphore.test_repr": REPR,
    "Barrier.test_repr": REPR,
}
"""Each test that does not apply, and why. All the others pass, and those that are run do not.

Beside that one thing is not as in CPython: see `until_waiting`.
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kvsync.Store]:
    """One store for all, as users have it."""
    path = tmp_path_factory.mktemp("threading") / "store.db"
    with kvsync.open(path) as store:
        yield store
        assert_sound(store)


@pytest.fixture
def undetected(path: Path) -> Iterator[kvsync.Store]:
    with kvsync.open(path, detect_deadlocks=False) as store:
        yield store
        assert_sound(store)


def assert_sound(store: kvsync.Store) -> None:
    assert nothing_is_left(store)
    assert store.check().damage == ()


def nothing_is_left(store: kvsync.Store) -> bool:
    """No ticket and no pledge; a grant may be left, for some tests drop a lock that they hold."""
    return not any(
        store.engine.read(f"select * from {table}") for table in ("kvsync_ticket", "kvsync_pledge")
    )


def until_waiting(store: kvsync.Store, threads: int) -> None:
    """Until so many have a ticket; some tests block threads by other means, hence the end.

    The suites sleep for so many times 10 ms, for which a busy machine may not have the time.
    """
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        time.sleep(0.01)
        ((waiting,),) = store.engine.read(
            "select count(*) from kvsync_ticket where state = 'waiting'"
        )
        if waiting >= threads:
            return


_numbers = itertools.count()


def fresh() -> str:
    return f"name {next(_numbers)}"


def factories(store: kvsync.Store) -> dict[str, Callable[..., Any]]:
    """By the names that the suites use."""
    return {
        "locktype": lambda: store.lock(fresh()),
        "rlocktype": lambda: store.rlock(fresh()),
        "eventtype": lambda: store.event(fresh()),
        "condtype": lambda lock=None: store.condition(fresh(), lock),
        "semtype": lambda value=1: store.semaphore(fresh(), value),
        "barriertype": lambda parties, action=None, timeout=None: store.barrier(
            fresh(), parties, action=action, timeout=timeout
        ),
    }


SUITES = {
    "Lock": ("LockTests", "locktype"),
    "RLock": ("RLockTests", "locktype"),
    "Event": ("EventTests", "eventtype"),
    "Condition": ("ConditionTests", "condtype"),
    "Semaphore": ("SemaphoreTests", "semtype"),
    "BoundedSemaphore": ("BoundedSemaphoreTests", "semtype"),
    "Barrier": ("BarrierTests", "barriertype"),
}


def all_tests() -> list[str]:
    """All tests of all suites."""
    loader = unittest.TestLoader()
    return [
        f"{kind}.{test}"
        for kind, (suite, _) in SUITES.items()
        for test in loader.getTestCaseNames(getattr(lock_tests, suite))
    ]


@pytest.mark.parametrize("test", parameters(all_tests(), DIFFERS))
def test_it_passes_what_the_standard_library_does(
    shared: kvsync.Store, test: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or stands in the list of those that do not apply."""
    run(test, shared, monkeypatch)


@pytest.mark.parametrize("test", [test for test, why in DIFFERS.items() if why is UNDETECTED])
def test_it_passes_the_others_without_the_detection_of_deadlocks(
    undetected: kvsync.Store, test: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those in which threads wait for what they hold themselves."""
    run(test, undetected, monkeypatch)


def run(test: str, store: kvsync.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, name = test.split(".")
    monkeypatch.setattr(lock_tests, "wait_threads_blocked", lambda n: until_waiting(store, n))
    suite, attribute = SUITES[kind]
    made = factories(store)
    factory = made["rlocktype" if kind == "RLock" else attribute]
    case = type(kind, (getattr(lock_tests, suite),), {attribute: staticmethod(factory)})
    result = unittest.TestResult()
    case(name).run(result)
    problems = [text for _, text in (*result.errors, *result.failures)]
    assert not problems, problems[0]


def test_a_lock_that_its_own_thread_takes_again_is_the_difference(shared: kvsync.Store) -> None:
    """What is left out above: as in threading it waits, but it is told; nobody has to release."""
    for again in (shared.lock(fresh()), shared.semaphore(fresh(), 1)):
        with again, pytest.raises(kvsync.DeadlockError, match="which it holds itself"):
            again.acquire()


def test_most_of_the_standard_librarys_tests_apply() -> None:
    """And the list has grown by no misspelt name: those unknown here are new in later versions."""
    tests = set(all_tests())
    assert len(tests - DIFFERS.keys()) > 60
    assert DIFFERS.keys() - tests <= {"RLock.test_recursion_count"}

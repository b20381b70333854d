"""Calls that have to wait: a ticket is taken, then a grant is claimed, or the ticket withdrawn.

What they wait for is held by a thread of the same process, until somebody waits or is done with
waiting.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import kvsync
from stress.faults.call import Call, mine

_SHORTLY = 0.02
"""Seconds to wait for what does not come."""

_PATIENCE = 2.0
"""Seconds to wait for what comes, unless the fault keeps it from coming."""


@cache
def _others(store: kvsync.Store) -> kvsync.Lock:
    return store.lock("it")


@contextmanager
def _held(store: kvsync.Store, enough: Callable[[], object]) -> Iterator[None]:
    """Another has the lock, until there is `enough`, or the block is over."""
    lock, over = _others(store), threading.Event()

    def take() -> None:
        if not (lock.owned() or lock.acquire(timeout=_PATIENCE)):
            raise kvsync.StorageError("what a fault has left is in the way")

    def hold() -> None:
        while not (enough() or over.is_set()):
            time.sleep(0.001)
        lock.release()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(take).result()
        holding = pool.submit(hold)
        try:
            yield
        finally:
            over.set()
        holding.result()


def _acquire_in_line(store: kvsync.Store) -> None:
    lock = mine(store, "lock")
    if lock.owned():
        lock.release()
    with _held(store, lambda: store.lock("it").stats().waiters):
        if not lock.acquire(timeout=_PATIENCE):
            raise kvsync.StorageError("a fault keeps who held it from giving it back")


def _acquire_in_vain(store: kvsync.Store) -> None:
    """Unless a fault had the other's grant taken back before its time."""
    lock = mine(store, "lock")
    with _held(store, lambda: False):
        if lock.owned() or lock.acquire(timeout=_SHORTLY):
            lock.release()


def _wait_for_condition(store: kvsync.Store) -> None:
    condition = store.condition("it")
    with condition:
        assert not condition.wait(_SHORTLY)


def _locked(store: kvsync.Store) -> object:
    return store.lock("it").locked()


def _nothing(_: kvsync.Store) -> None:
    """Others see nothing of it: what it has left they find when they make the same calls."""


CALLS = {
    "lock.acquire in the line": Call(_acquire_in_line, _locked, holds=True),
    "lock.acquire in vain": Call(_acquire_in_vain, _locked, holds=True),
    "event.wait in vain": Call(
        lambda store: store.event("it").wait(_SHORTLY), lambda store: store.event("it").is_set()
    ),
    "condition.wait in vain": Call(_wait_for_condition, _nothing, holds=True),
    "queue.join in vain": Call(
        lambda store: store.queue("it").join(_SHORTLY),
        lambda store: store.queue("it").unfinished_tasks,
        lambda store: store.queue("it").put("item"),
        keeps=1,
    ),
}

"""That a store is fit for use: every kind of call works in it, and nothing is left taken."""

import queue
from contextlib import suppress

import kvsync

PATIENCE = 30.0
"""Seconds after which something is taken to be held for ever."""


def use(store: kvsync.Store, name: str) -> None:
    """Make one call of every kind, on what has that name, and undo it. Raises: what they raise."""
    store.counter(name).add()
    store.counters(name).add("label")
    _use_dict(store.dict(name))
    with store.transaction():
        store.counter(name).add()
        store.dict(name)["k"] = 1
    expect_free(store, name)
    _signal(store, name)
    _work(store.queue(name))


def use_some(store: kvsync.Store, name: str) -> None:
    """The same with few calls, where each is slow."""
    with store.lock(name, timeout=PATIENCE), store.transaction():
        store.dict(name)["k"] = store.counter(name).add()


def _use_dict(it: kvsync.Dict) -> None:
    it["k"] = 1
    assert it.increment("k") == 2
    assert it.compare_and_set("k", 2, 3)
    it.set("k", 4, ttl=60)
    assert it.pop("k") == 4


def expect_free(store: kvsync.Store, name: str) -> None:
    """Raises: AssertionError if anything of that name is held, and goes on to be."""
    for lock in (
        store.lock(name),
        store.rlock(name),
        store.rwlock(name).read(),
        store.rwlock(name).write(),
        store.semaphore(name, 1),
        store.election(name),
    ):
        assert lock.acquire(timeout=PATIENCE), f"{lock!r} is left taken"
        lock.release()


def _signal(store: kvsync.Store, name: str) -> None:
    event, barrier, once = store.event(name), store.barrier(name, 1), store.once(name)
    event.set()
    assert event.wait(0)
    event.clear()
    condition = store.condition(name)
    with condition:
        condition.notify()
    barrier.reset()
    assert barrier.wait(0) == 0
    once.reset()
    assert once.run(lambda: 7) == 7
    store.rate_limiter(name, 1000, per=1).try_acquire()


def _work(jobs: kvsync.Queue) -> None:
    jobs.reopen()
    jobs.put_many(["one", "two"])
    jobs.get(timeout=PATIENCE)
    jobs.reserve(timeout=PATIENCE).ack()
    jobs.purge()


def put_back(jobs: kvsync.Queue) -> int:
    """Have the items that the dead had in hand put back; returns how many there are in all."""
    with suppress(queue.Empty, kvsync.ShutDown):
        for task in jobs.reserve_many(9, timeout=0):
            task.give_back()
    stats = jobs.stats()
    assert not stats.in_flight, f"{stats.in_flight} items are left in the hands of the dead"
    return stats.depth + stats.delayed + len(jobs.dead)

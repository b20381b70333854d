"""The sides of the queue benchmark, each at its default settings."""

import json
import multiprocessing
import os
import queue
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from typing import Any

import kvsync
from benchmarks.peers import Peer, Unavailable
from benchmarks.peers.installed import installed
from benchmarks.peers.redis_server import Redis, connect

BATCH = 100
"""Items in a batch."""

ITEM = {"to": "ada@example.org", "template": "welcome", "attempt": 1}

_TEXT = json.dumps(ITEM)
_BRIEFLY = 0.1
"""Seconds for which a side that can wait does so, before its worker looks at the time."""

_context = multiprocessing.get_context("spawn")


class Line:
    """One queue, in a worker. Each call returns how many items it put, or took.

    Where a side has no batches, they are one item after the other.
    """

    poll: float | None = None
    """Seconds between two looks of one that finds nothing; None where `get` and `work` wait."""

    def put(self) -> int:
        raise NotImplementedError

    def get(self) -> int:
        """Take one for good."""
        raise NotImplementedError

    def work(self) -> int:
        """Take one and acknowledge it, or take it for good where it cannot be acknowledged."""
        return self.get()

    def put_many(self) -> int:
        return sum(self.put() for _ in range(BATCH))

    def get_many(self) -> int:
        return self._until_none(self.get)

    def work_many(self) -> int:
        return self._until_none(self.work)

    def _until_none(self, take: Callable[[], int]) -> int:
        return sum(takewhile(bool, (take() for _ in range(BATCH))))

    def rest(self) -> None:
        """Until the next look."""
        if self.poll is not None:
            time.sleep(self.poll)

    def wait(self) -> None:
        """Take one for good, however long that takes."""
        while not self.get():
            self.rest()


class Queuer(Peer):
    """A side that has a queue."""

    is_durable = True
    wakes = True
    """Whether one that waits is to be measured."""

    def prepare(self, folder: str, name: str) -> None:
        """In the parent, before any worker opens it: make the file, on which they would race."""
        self.line(folder, name)

    def line(self, folder: str, name: str) -> Line:
        """In a worker: the queue of that name."""
        raise NotImplementedError


class KvsyncQueue(Queuer):
    name = "kvsync"
    setting = (
        "`store.queue(name)`: WAL, synchronous=NORMAL; JSON; a `get` is woken by the `put`; worked"
        " off by `for task in jobs.tasks()`, batches by `reserve_many`"
    )

    def version(self) -> str:
        return installed("kvsync")

    def line(self, folder: str, name: str) -> Line:
        return _Kvsync(os.path.join(folder, f"{name}.db"))


class KvsyncByHand(KvsyncQueue):
    name = "kvsync by hand"
    setting = "the same, worked off by `reserve` and `ack`, which are a call and a commit each"
    wakes = False

    def line(self, folder: str, name: str) -> Line:
        return _KvsyncByHand(os.path.join(folder, f"{name}.db"))


class _Kvsync(Line):
    def __init__(self, path: str) -> None:
        self._store = kvsync.open(path)
        self._jobs = self._store.queue("jobs")
        self._tasks = self._jobs.tasks(_BRIEFLY)

    def put(self) -> int:
        self._jobs.put(ITEM)
        return 1

    def put_many(self) -> int:
        return len(self._jobs.put_many([ITEM] * BATCH))

    def get(self) -> int:
        with suppress(queue.Empty):
            self._jobs.get(timeout=_BRIEFLY)
            return 1
        return 0

    def get_many(self) -> int:
        with suppress(queue.Empty):
            return len(self._jobs.get_many(BATCH, timeout=_BRIEFLY))
        return 0

    def work(self) -> int:
        """Acknowledge what the last call took, and take one."""
        for _ in self._tasks:
            return 1
        self._tasks = self._jobs.tasks(_BRIEFLY)
        return 0

    def work_many(self) -> int:
        with suppress(queue.Empty):
            tasks = self._jobs.reserve_many(BATCH, _BRIEFLY)
            with self._store.transaction():
                for task in tasks:
                    task.ack()
            return len(tasks)
        return 0

    def wait(self) -> None:
        self._jobs.get()


class _KvsyncByHand(_Kvsync):
    def work(self) -> int:
        with suppress(queue.Empty):
            self._jobs.reserve(_BRIEFLY).ack()
            return 1
        return 0


class LiteQueueSide(Queuer):
    name = "litequeue"
    setting = (
        "WAL, synchronous=NORMAL; JSON text; `get` is `pop` alone; batches of `put` and `done` in"
        " its transaction, `pop` one by one; polls every 100 ms, as its example"
    )

    def version(self) -> str:
        return installed("litequeue")

    def line(self, folder: str, name: str) -> Line:
        return _LiteQueue(os.path.join(folder, f"{name}.db"))


class _LiteQueue(Line):
    poll = 0.1

    def __init__(self, path: str) -> None:
        from litequeue import LiteQueue

        self._queue = LiteQueue(path)

    def put(self) -> int:
        self._queue.put(_TEXT)
        return 1

    def put_many(self) -> int:
        with self._queue.transaction():
            return super().put_many()

    def get(self) -> int:
        return self._queue.pop() is not None

    def work(self) -> int:
        message = self._queue.pop()
        return message is not None and self._done(message)

    def work_many(self) -> int:
        messages = list(takewhile(bool, (self._queue.pop() for _ in range(BATCH))))
        with self._queue.transaction():
            return sum(map(self._done, messages))

    def _done(self, message: Any) -> bool:
        return bool(self._queue.done(message.message_id, claim_id=message.claim_id))


class PersistQueue(Queuer):
    name = "persist-queue"
    setting = (
        "`SQLiteQueue`: WAL, synchronous=FULL; pickle; no acknowledging, no batches; two processes"
        " can get the same item; a `get` looks every 10 s for what others put: not measured"
    )
    wakes = False

    def version(self) -> str:
        return installed("persist-queue")

    def line(self, folder: str, name: str) -> Line:
        from persistqueue import SQLiteQueue

        return _PersistQueue(SQLiteQueue(os.path.join(folder, name)))


class PersistAckQueue(PersistQueue):
    name = "persist-queue ack"
    setting = (
        "`SQLiteAckQueue`: as above, with `ack`; what is acknowledged stays and is read past,"
        " unless it is cleared away"
    )

    def line(self, folder: str, name: str) -> Line:
        from persistqueue import SQLiteAckQueue

        return _PersistAckQueue(SQLiteAckQueue(os.path.join(folder, name)))


class _PersistQueue(Line):
    poll = _BRIEFLY

    def __init__(self, opened: Any) -> None:
        self._queue = opened

    def put(self) -> int:
        self._queue.put(ITEM)
        return 1

    def get(self) -> int:
        return self._take() is not None

    def _take(self) -> Any:
        from persistqueue import Empty

        with suppress(Empty):
            return self._queue.get(block=False)


class _PersistAckQueue(_PersistQueue):
    def work(self) -> int:
        item = self._take()
        return item is not None and self._queue.ack(item) is not None


class Huey(Queuer):
    name = "huey"
    setting = (
        "`SqliteStorage`: WAL, synchronous=FULL; JSON bytes, without the task around them; no"
        " acknowledging, no batches; polls every 100 ms, as its consumer does at first"
    )

    def version(self) -> str:
        return installed("huey")

    def line(self, folder: str, name: str) -> Line:
        return _Huey(os.path.join(folder, f"{name}.db"))


class _Huey(Line):
    poll = 0.1

    def __init__(self, path: str) -> None:
        from huey.storage import SqliteStorage

        self._storage = SqliteStorage(filename=path)

    def put(self) -> int:
        self._storage.enqueue(_TEXT.encode())
        return 1

    def get(self) -> int:
        return self._storage.dequeue() is not None


class DiskCacheQueue(Queuer):
    name = "diskcache"
    setting = (
        "`push` and `pull`: WAL, synchronous=NORMAL; pickle; batches in `transact()`; no"
        " acknowledging; polls every 1 ms, as its own recipes do"
    )

    def version(self) -> str:
        return installed("diskcache")

    def line(self, folder: str, name: str) -> Line:
        return _DiskCache(os.path.join(folder, name))


class _DiskCache(Line):
    poll = 0.001

    def __init__(self, path: str) -> None:
        from diskcache import Cache

        self._cache = Cache(path)

    def put(self) -> int:
        self._cache.push(ITEM)
        return 1

    def put_many(self) -> int:
        with self._cache.transact():
            return super().put_many()

    def get(self) -> int:
        return self._cache.pull()[0] is not None

    def get_many(self) -> int:
        with self._cache.transact():
            return super().get_many()

    def work_many(self) -> int:
        return self.get_many()


class Honker(Queuer):
    name = "honker"
    setting = "durable queues as an SQLite extension"

    def version(self) -> str:
        installed("honker")
        raise Unavailable(
            "has no side here: no wheel for CPython 3.11 to 3.13 could be had to write it with"
        )


class RedisList(Redis, Queuer):
    setting = (
        "LPUSH and BRPOP, RPOP with a count for batches; unix socket, persistence as by default"
        " (snapshots now and then: not durable); no acknowledging"
    )
    is_durable = False

    def line(self, folder: str, name: str) -> Line:
        return _RedisList(connect(folder), name)


class _RedisList(Line):
    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    def put(self) -> int:
        self._client.lpush(self._name, _TEXT)
        return 1

    def put_many(self) -> int:
        self._client.lpush(self._name, *[_TEXT] * BATCH)
        return BATCH

    def get(self) -> int:
        return self._client.brpop(self._name, _BRIEFLY) is not None

    def get_many(self) -> int:
        return len(self._client.rpop(self._name, BATCH) or ()) or self.get()

    def work_many(self) -> int:
        return self.get_many()

    def wait(self) -> None:
        self._client.brpop(self._name)


class MultiprocessingQueue(Queuer):
    name = "multiprocessing"
    setting = (
        "`multiprocessing.Queue`: in memory, for the children of one process; a `put` returns"
        " before the item is on its way; pickle; no acknowledging, no batches"
    )
    is_durable = False

    def __init__(self) -> None:
        self._queues: dict[str, Any] = {}

    def version(self) -> str:
        return "the standard library's"

    def prepare(self, folder: str, name: str) -> None:
        del folder
        self._queues = {name: _context.Queue()}

    def line(self, folder: str, name: str) -> Line:
        del folder
        return _Multiprocessing(self._queues[name])


class _Multiprocessing(Line):
    def __init__(self, shared: Any) -> None:
        self._queue = shared
        self._queue.cancel_join_thread()  # nobody may be left who would take what is in it

    def put(self) -> int:
        self._queue.put(ITEM)
        return 1

    def get(self) -> int:
        with suppress(queue.Empty):
            self._queue.get(timeout=_BRIEFLY)
            return 1
        return 0

    def wait(self) -> None:
        self._queue.get()

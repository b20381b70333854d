"""The sides of the lock benchmark, each at its default settings."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from benchmarks.peers import Peer
from benchmarks.peers.installed import installed
from benchmarks.peers.redis_server import Redis, connect


class Locker(Peer):
    """A side that has a lock. `recovers` tells whether it outlives a killed holder by itself."""

    recovers = True

    def version(self) -> str:
        return installed(self.name)

    def locker(self, folder: str) -> tuple[Callable[[], object], Callable[[], object]]:
        """In a worker: what acquires and what releases the one lock that all workers share."""
        lock = self.lock(folder)
        return lock.acquire, lock.release

    def lock(self, folder: str) -> Any:
        """In a worker: the lock."""
        raise NotImplementedError


class KvsyncLock(Locker):
    name = "kvsync"
    setting = "`store.lock(name)`; the longest waiting is next, woken by the one before"

    def lock(self, folder: str) -> Any:
        import kvsync

        return kvsync.open(os.path.join(folder, "store.db")).lock("turn")


class FileLocker(Locker):
    name = "filelock"
    setting = "`FileLock(path)`: polls every 50 ms"

    def lock(self, folder: str) -> Any:
        from filelock import FileLock

        return FileLock(os.path.join(folder, "lock"))


class DiskCacheLock(Locker):
    name = "diskcache"
    setting = "`Lock(cache, key)`: polls every 1 ms; a killed holder keeps it for ever"
    recovers = False

    def lock(self, folder: str) -> Any:
        from diskcache import Cache, Lock

        return Lock(Cache(os.path.join(folder, "cache")), "turn")


class RedisLock(Redis, Locker):
    setting = "`client.lock(name)`, unix socket: polls every 100 ms; a killed holder keeps it"
    recovers = False

    def lock(self, folder: str) -> Any:
        return connect(folder).lock("turn")


class Fasteners(Locker):
    name = "fasteners"
    setting = "`InterProcessLock(path)`: polls, 10 ms at first, 100 ms at last"

    def lock(self, folder: str) -> Any:
        from fasteners import InterProcessLock

        return InterProcessLock(os.path.join(folder, "lock"))


class Portalocker(Locker):
    name = "portalocker"
    setting = "`Lock(path, timeout=60)`: polls every 250 ms"

    def lock(self, folder: str) -> Any:
        from portalocker import Lock

        return Lock(os.path.join(folder, "lock"), timeout=60)


class Floor(Locker):
    """What nobody can go below who notes in SQLite who has it: a pipe, and a commit on each side.

    No lock: whoever dies with the byte keeps it, and none is in any order.
    """

    name = "floor"
    setting = "no lock: `release` is one `update` and a byte into a FIFO, `acquire` the reverse"

    def version(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    @contextmanager
    def serving(self, folder: str) -> Iterator[None]:
        with closing(self._connect(folder)) as connection:
            connection.execute("pragma journal_mode=wal").fetchall()
            connection.execute("create table lock (holder integer)")
            connection.execute("insert into lock values (0)")
            path = os.path.join(folder, "fifo")
            os.mkfifo(path)
            descriptor = os.open(path, os.O_RDWR)
            try:
                os.write(descriptor, b".")
                yield
            finally:
                os.close(descriptor)

    def locker(self, folder: str) -> tuple[Callable[[], object], Callable[[], object]]:
        execute = self._connect(folder).execute
        descriptor = os.open(os.path.join(folder, "fifo"), os.O_RDWR)

        def note(holder: int) -> None:
            execute("update lock set holder = ? returning holder", (holder,)).fetchall()

        def acquire() -> None:
            os.read(descriptor, 1)
            note(os.getpid())

        def release() -> None:
            note(0)
            os.write(descriptor, b".")

        return acquire, release

    def _connect(self, folder: str) -> sqlite3.Connection:
        path = os.path.join(folder, "floor.db")
        connection = sqlite3.connect(path, isolation_level=None, timeout=60)
        connection.execute("pragma synchronous=normal").fetchall()
        return connection

"""The sides of the lock benchmark, each at its default settings."""

import os
from collections.abc import Callable
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

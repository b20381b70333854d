"""diskcache, the best known cache on SQLite."""

import os
from typing import Any

from benchmarks.crew import Step
from benchmarks.peers import Peer
from benchmarks.peers.installed import installed


class DiskCache(Peer):
    name = "diskcache"
    setting = (
        "WAL, synchronous=NORMAL, eviction as by default; int and str as they are, else pickle"
    )

    def version(self) -> str:
        return installed("diskcache")

    def adder(self, folder: str) -> Step:
        cache = self.mapping(folder)
        return lambda: cache.incr("hits")

    def total(self, folder: str) -> int:
        with self.mapping(folder) as cache:
            return int(cache["hits"])

    def mapping(self, folder: str) -> Any:
        from diskcache import Cache

        return Cache(os.path.join(folder, "cache"))

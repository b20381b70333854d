"""kvsync itself."""

import os
from typing import Any

import kvsync
from benchmarks.crew import Step
from benchmarks.peers import Peer
from benchmarks.peers.installed import installed


class Kvsync(Peer):
    name = "kvsync"
    setting = 'WAL, synchronous=NORMAL (durability="process"), JSON'

    def version(self) -> str:
        return installed("kvsync")

    def open(self, folder: str) -> kvsync.Store:
        return kvsync.open(os.path.join(folder, "store.db"))

    def adder(self, folder: str) -> Step:
        return self.open(folder).counter("hits").add

    def total(self, folder: str) -> int:
        with self.open(folder) as store:
            return store.counter("hits").value

    def mapping(self, folder: str) -> Any:
        return self.open(folder).dict("values")


class KvsyncBuffered(Kvsync):
    name = "kvsync buffered"
    setting = "as kvsync, `buffered(interval=0.1)`: SIGKILL loses up to 0.1 s of adds"
    weight = 100

    def adder(self, folder: str) -> Step:
        buffered = self.open(folder).counter("hits").buffered()
        add = buffered.add

        def add_a_hundred() -> None:
            for _ in range(100):
                add()

        return add_a_hundred

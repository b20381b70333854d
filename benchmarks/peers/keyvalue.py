"""keyvalue_sqlite, whose interface kvsync offers too."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.crew import Step
from benchmarks.peers import Peer
from benchmarks.peers.installed import installed


class KeyValue(Peer):
    name = "keyvalue_sqlite"
    setting = "rollback journal, synchronous=FULL, a connection for each call; JSON"

    def version(self) -> str:
        return installed("keyvalue_sqlite")

    @contextmanager
    def serving(self, folder: str) -> Iterator[None]:
        self.mapping(folder).set_default("hits", 0)  # makes the table, on which processes race
        yield

    def adder(self, folder: str) -> Step:
        store = self.mapping(folder)
        return lambda: store.atomic_add("hits", 1)

    def total(self, folder: str) -> int:
        return int(self.mapping(folder).get("hits"))

    def mapping(self, folder: str) -> Any:
        from keyvalue_sqlite import KeyValueSqlite

        return KeyValueSqlite(os.path.join(folder, "keyvalue.db"), "bench")

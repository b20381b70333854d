"""sqlitedict."""

import os
from typing import Any

from benchmarks.peers import Peer
from benchmarks.peers.installed import installed


class SqliteDictSide(Peer):
    name = "sqlitedict"
    setting = (
        "autocommit=True, rollback journal, synchronous=OFF (a power failure may damage it); pickle"
    )

    def version(self) -> str:
        return installed("sqlitedict")

    def mapping(self, folder: str) -> Any:
        from sqlitedict import SqliteDict

        return SqliteDict(os.path.join(folder, "sqlitedict.db"), autocommit=True)

"""The standard library's `dbm.sqlite3`, new in Python 3.13."""

import json
import os
import sys
from typing import Any

from benchmarks.peers import Peer, Unavailable


class DbmSqlite(Peer):
    name = "dbm.sqlite3"
    setting = "WAL, synchronous=FULL, autocommit; with JSON around it"

    def version(self) -> str:
        if sys.version_info < (3, 13):
            raise Unavailable("dbm.sqlite3 needs Python 3.13")
        return f"Python {sys.version.split()[0]}"

    def mapping(self, folder: str) -> Any:
        import dbm.sqlite3

        return _Mapping(dbm.sqlite3.open(os.path.join(folder, "dbm.db"), "c"))


class _Mapping:
    def __init__(self, database: Any) -> None:
        self._database = database

    def __getitem__(self, key: str) -> Any:
        return json.loads(self._database[key])

    def get(self, key: str, default: Any = None) -> Any:
        stored = self._database.get(key)
        return default if stored is None else json.loads(stored)

    def __setitem__(self, key: str, value: Any) -> None:
        self._database[key] = json.dumps(value)

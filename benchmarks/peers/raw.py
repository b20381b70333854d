"""The standard library's `sqlite3`, as a careful programmer would use it by hand."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from benchmarks.crew import Step
from benchmarks.peers import Peer

_ADD = """
    insert into counter (name, value) values (?, 1)
    on conflict (name) do update set value = value + 1 returning value
"""
_SET = """
    insert into item (key, value) values (?, ?)
    on conflict (key) do update set value = excluded.value
"""


class RawSqlite(Peer):
    name = "raw sqlite3"
    setting = "WAL, synchronous=NORMAL, autocommit, busy_timeout=60 s, else defaults; JSON"

    def version(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    @contextmanager
    def serving(self, folder: str) -> Iterator[None]:
        with closing(_connect(folder)) as connection:
            connection.execute("pragma journal_mode=wal").fetchall()
            connection.execute("create table counter (name text primary key, value integer)")
            connection.execute("create table item (key text primary key, value text)")
        yield

    def adder(self, folder: str) -> Step:
        execute = _connect(folder).execute

        def add() -> int:
            ((value,),) = execute(_ADD, ("hits",)).fetchall()
            return int(value)

        return add

    def total(self, folder: str) -> int:
        with closing(_connect(folder)) as connection:
            ((value,),) = connection.execute("select value from counter").fetchall()
        return int(value)

    def mapping(self, folder: str) -> Any:
        return _Mapping(_connect(folder))


class _Mapping:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def __getitem__(self, key: str) -> Any:
        rows = self._execute("select value from item where key = ?", (key,)).fetchall()
        if not rows:
            raise KeyError(key)
        return json.loads(rows[0][0])

    def get(self, key: str, default: Any = None) -> Any:
        rows = self._execute("select value from item where key = ?", (key,)).fetchall()
        return json.loads(rows[0][0]) if rows else default

    def __setitem__(self, key: str, value: Any) -> None:
        self._execute(_SET, (key, json.dumps(value))).fetchall()


def _connect(folder: str) -> sqlite3.Connection:
    path = os.path.join(folder, "raw.db")
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("pragma synchronous=normal").fetchall()
    return connection

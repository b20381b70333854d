"""A counter by the `sqlite3` module alone, as it is often written. Broken twins use it."""

import sqlite3
import threading

_SETTINGS = "pragma journal_mode=wal; pragma synchronous=normal"
_TABLE = "create table if not exists plain (name text primary key, value integer)"
_ADD = (
    "insert into plain values ('hits', 1)"
    " on conflict (name) do update set value = value + 1 returning value"
)


class PlainCounter:
    """Waits for locks by SQLite's busy timeout; a connection for each thread."""

    def __init__(self, path: str) -> None:
        self._path = path + "-plain"
        self._here = threading.local()

    def add(self) -> int:
        ((value,),) = self._connection().execute(_ADD).fetchall()
        return int(value)

    @property
    def value(self) -> int:
        rows = self._connection().execute("select value from plain").fetchall()
        return int(rows[0][0]) if rows else 0

    def _connection(self) -> sqlite3.Connection:
        if not hasattr(self._here, "connection"):
            self._here.connection = sqlite3.connect(self._path, timeout=60, isolation_level=None)
            self._here.connection.executescript(_SETTINGS)
            self._here.connection.execute(_TABLE)
        connection: sqlite3.Connection = self._here.connection
        return connection

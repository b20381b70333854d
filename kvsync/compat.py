"""KeyValueSqlite: keyvalue_sqlite 1.0.7 on kvsync's engine, in the same files.

A table for each dict, `key TEXT PRIMARY KEY UNIQUE NOT NULL, value TEXT`, the values as JSON. Both
libraries may have a file open at once: ours wait for SQLite's lock as the other does, and look
at nothing that it does not keep up to date.

The other library shows keys in two orders, and so does this one: `keys` and the ranges in key
order, everything else in the order of the rows. `set` replaces the row, so the key moves to the
end; `atomic_add` changes it where it is.
"""

import json
import math
import os
import re
from collections.abc import (
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    ValuesView,
)
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from kvsync import codec as codecs
from kvsync.engine import Transaction
from kvsync.engine.sqlite import SqliteEngine
from kvsync.errors import (
    InvalidKeyError,
    InvalidNameError,
    KeyTypeError,
    KvsyncError,
    NotANumberError,
)
from kvsync.primitives.mapping import MISSING, add_numbers
from kvsync.primitives.primitive import check_name
from kvsync.store import Store
from kvsync.store import open as open_store

_RESERVED = ("kvsync_", "sqlite_")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BATCH = 4096  # SQLite takes more, but looks for each parameter's name among all of them


class KeyValueSqlite(MutableMapping[str, Any]):
    """A dict in a table of a SQLite file: a drop-in for keyvalue_sqlite 1.0.7.

    A file that it makes is in WAL mode. One that is there keeps its journal mode, unless `wal` is
    true, and stays readable by keyvalue_sqlite; both may write to it at the same time. The table
    is made at once, and nothing of kvsync's own before `store` is used.

    Args:
        db_path: a path, or a URL `sqlite:///path`. Missing folders are made.
        table_name: any text but names that begin with `kvsync_` or `sqlite_`; a `-` in it stands
            for `_`; None for "default_table".
        timeout: seconds for which a call waits for other writers before it raises BusyError.
        wal: put a file that is in another journal mode into WAL mode, for good.
        durability, mode, allow_network: as for `kvsync.open`.

    Raises: StorePathError (a ValueError) for an empty path and ":memory:"; InvalidNameError;
        OpenError and its kin if the file cannot be used. Every method raises KeyTypeError (a
        KeyError and a TypeError) for a key that is no str, InvalidKeyError for one with a lone
        surrogate, and BusyError. Whatever writes raises EncodeError for a value that JSON cannot
        hold, NaN and infinities among them, before anything is written; whatever returns values,
        DecodeError for one that is no JSON. ClosedError, StoreReplacedError and StorageError as any
        call of a `Store`.

    Example:
        >>> db = KeyValueSqlite("app.db", "settings")
        >>> db.set_default("visits", "1")
        >>> db.atomic_add("visits", "2")
        >>> db["visits"]
        '3'
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str],
        table_name: str | None = None,
        timeout: float = 60,
        *,
        wal: bool = False,
        durability: str = "process",
        mode: int = 0o600,
        allow_network: bool = False,
    ) -> None:
        self._table_name = _check_table("default_table" if table_name is None else table_name)
        self._table = _quoted(self._table_name)
        self._options: dict[str, Any] = {
            "durability": durability,
            "mode": mode,
            "allow_network": allow_network,
        }
        self._timeout, self._wal = timeout, wal
        self._store = open_store(db_path, busy_timeout=timeout, **self._options)
        self._db_path = os.fspath(db_path).removeprefix("sqlite:///")
        self._engine = SqliteEngine(
            self._store.path, busy_timeout=timeout, with_schema=False, **self._options
        )
        try:
            if wal:
                self._require_wal()
            self.create_table()
        except BaseException:
            with suppress(KvsyncError):
                self.close()
            raise

    @property
    def db_path(self) -> str:
        """The path as it was given, without `sqlite:///`."""
        return self._db_path

    @property
    def table_name(self) -> str:
        """The table, with `_` for each `-`."""
        return self._table_name

    @property
    def timeout(self) -> float:
        """Seconds for which a call waits for other writers."""
        return self._timeout

    @property
    def store(self) -> Store:
        """The Store on the same file; inside its transactions this dict's calls are part of them.

        Its first use makes kvsync's tables in the file.
        """
        return self._store

    def create_table(self) -> None:
        """Make the table unless it is there; the constructor has done it."""
        if not self._engine.read(
            "select 1 from sqlite_schema"
            " where type in ('table', 'view') and name = :name collate nocase",
            {"name": self._table_name},
        ):
            self._engine.write(
                f"create table if not exists {self._table}"
                " (key TEXT PRIMARY KEY UNIQUE NOT NULL, value TEXT)"
            )

    def _require_wal(self) -> None:
        if self._engine.read("pragma journal_mode") != [("wal",)]:
            self._engine.convert_to_wal()

    # --- one key ------------------------------------------------------------------------------

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        rows = self._engine.read(self._select_value, {"key": _check_key(key)})
        return _decode(rows[0][0]) if rows else default

    def get_or_raise(self, key: str) -> Any:
        """The value of `key`. Raises: KeyError if it is not there."""
        value = self.get(key, MISSING)
        if value is MISSING:
            raise KeyError(f'Missing key: "{key}"')
        return value

    def has_key(self, key: str) -> bool:
        """Whether `key` is there."""
        return bool(
            self._engine.read(
                f"select 1 from {self._table} where key = :key", {"key": _check_key(key)}
            )
        )

    def set(self, key: str, val: Any) -> None:
        """Make `val` the value of `key`."""
        self._engine.write(self._replace, _entry(key, val))

    def set_default(self, key: str, val: Any) -> None:
        """Make `val` the value of `key` unless it has one; returns None, see `setdefault`."""
        self._engine.write(self._insert, _entry(key, val))

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value of `key`; if it is not there, set to `default` first. Atomic."""
        value = self.get(key, MISSING)
        if value is not MISSING:
            return value
        entry = _entry(key, default)

        def work(transaction: Transaction) -> Any:
            transaction.execute(self._insert, entry)
            return _decode(transaction.execute(self._select_value, {"key": key})[0][0])

        return self._engine.transact(work)

    def remove(self, key: str, ignore_missing_key: bool = False) -> None:
        """Remove `key`. Raises: KeyError if it is not there, unless `ignore_missing_key`."""
        removed = self._engine.write(self._delete, {"key": _check_key(key)})
        if not removed and not ignore_missing_key:
            raise KeyError(key)

    def pop(self, key: str, default: Any = MISSING) -> Any:
        """Remove `key` and return its value; `default`, or else KeyError, if it is not there."""
        here = {"key": _check_key(key)}

        def work(transaction: Transaction) -> Any:
            rows = transaction.execute(self._delete, here)
            return _decode(rows[0][0]) if rows else default  # what cannot be read is not removed

        value = self._engine.transact(work)
        if value is MISSING:
            raise KeyError(key)
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove and return the last item, as `dict.popitem`. Raises: KeyError if there is none."""

        def work(transaction: Transaction) -> tuple[str, Any]:
            rows = transaction.execute(
                f"select key, value from {self._table} order by rowid desc limit 1"
            )
            if not rows:
                raise KeyError("popitem(): the dict is empty")
            ((key, stored),) = rows
            value = _decode(stored)  # unreadable: it stays
            transaction.execute(self._delete, {"key": key})
            return key, value

        return self._engine.transact(work)

    def atomic_add(self, key: str, value: float | str) -> None:
        """Add `value` to the number at `key`, or make it the number there if there is none.

        Both may be numbers or text that spells one: what was text stays text.

        Raises: NotANumberError (a TypeError) if either is no number; CounterOverflowError if an
        integer sum exceeds 64 bits or a float sum is infinite. Nothing is changed then.
        """
        here: dict[str, object] = {"key": _check_key(key)}
        amount = _number(value)

        def work(transaction: Transaction) -> None:
            rows = transaction.execute(self._select_value, here)
            old = _decode(rows[0][0]) if rows else 0
            here["value"] = _encode(_sum(old, amount))
            transaction.execute(self._update if rows else self._insert, here)

        self._engine.transact(work)

    def __getitem__(self, key: str) -> Any:
        return self.get_or_raise(key)

    def __setitem__(self, key: str, item: Any) -> None:
        self.set(key, item)

    def __delitem__(self, key: str) -> None:
        self.remove(key)

    def __contains__(self, key: object) -> bool:
        return self.has_key(key)  # type: ignore[arg-type]  # it refuses what is no str

    def __missing__(self, key: str) -> None:
        """Raises: KeyError, always."""
        raise KeyError(f"Missing key {key}")

    # --- many keys ----------------------------------------------------------------------------

    def get_many(self, a_set: Iterable[str]) -> dict[str, Any]:
        """The values of those keys that are there, from one moment for each 4,096 keys."""
        wanted = list(dict.fromkeys(map(_check_key, a_set)))
        found: dict[str, Any] = {}
        for start in range(0, len(wanted), _BATCH):
            found.update(self._some(wanted[start : start + _BATCH]))
        return {key: _decode(found[key]) for key in wanted if key in found}

    def _some(self, keys: list[str]) -> Iterable[tuple[str, Any]]:
        # As many parameters as the next power of two: each statement is kept once prepared.
        size = 1 << (len(keys) - 1).bit_length()
        marks = ", ".join(f":k{i}" for i in range(size))
        rows = self._engine.read(
            f"select key, value from {self._table} where key in ({marks})",
            {f"k{i}": keys[min(i, len(keys) - 1)] for i in range(size)},
        )
        return ((key, stored) for key, stored in rows)

    # `a_dict` can be given by name, as it can to keyvalue_sqlite.
    def update(self, a_dict: Any = (), **more: Any) -> None:  # type: ignore[override]
        """As `dict.update`, in one commit."""
        items = a_dict.items() if isinstance(a_dict, Mapping) else a_dict
        self._write_all(self._replace, dict(items, **more))

    def insert_or_ignore(self, a_dict: Mapping[str, Any]) -> None:
        """Set those keys that are not there yet, in one commit."""
        self._write_all(self._insert, a_dict)

    def _write_all(self, sql: str, items: Mapping[str, Any]) -> None:
        entries = [_entry(key, value) for key, value in items.items()]

        def work(transaction: Transaction) -> None:
            for entry in entries:
                transaction.execute(sql, entry)

        if entries:
            self._engine.transact(work)

    def clear(self) -> None:
        """Remove everything in this table."""
        self._engine.write(f"delete from {self._table}")

    # --- in key order -------------------------------------------------------------------------

    def keys(self) -> list[str]:  # type: ignore[override]  # the drop-in's promise
        """A list of the keys, in key order."""
        rows = self._engine.read(f"select key from {self._table} order by key")
        return [key for (key,) in rows]

    def key_range(self, key_low: str, key_high: str) -> list[str]:
        """The keys from `key_low` to `key_high`, both included, in key order."""
        return [key for (key,) in self._between("key", key_low, key_high)]

    def get_range(self, key_low: str, key_high: str) -> list[tuple[str, Any]]:
        """The items from `key_low` to `key_high`, both included, in key order."""
        rows = self._between("key, value", key_low, key_high)
        return [(key, _decode(stored)) for key, stored in rows]

    def dict_range(self, key_low: str, key_high: str) -> dict[str, Any]:
        """The items of `get_range`, as a dict in that order."""
        return dict(self.get_range(key_low, key_high))

    def _between(self, columns: str, low: str, high: str) -> list[tuple[Any, ...]]:
        return self._engine.read(
            f"select {columns} from {self._table} where key between :low and :high order by key",
            {"low": _check_key(low), "high": _check_key(high)},
        )

    # --- in the order of the rows -------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything, from one moment, as a dict."""
        rows = self._engine.read(f"select key, value from {self._table} order by rowid")
        return {key: _decode(stored) for key, stored in rows}

    def items(self) -> ItemsView[str, Any]:
        """The items of `to_dict()`."""
        return self.to_dict().items()

    def values(self) -> ValuesView[Any]:
        """The values of `to_dict()`."""
        return self.to_dict().values()

    def __iter__(self) -> Iterator[str]:
        rows = self._engine.read(f"select key from {self._table} order by rowid")
        return (key for (key,) in rows)

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self))

    def __len__(self) -> int:
        ((length,),) = self._engine.read(f"select count(*) from {self._table}")
        return int(length)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self.to_dict() == dict(other.items())

    __hash__ = None  # type: ignore[assignment]  # as a dict

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return self.to_dict() | dict(other.items())

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]  # as dict's: `|` takes less
        self.update(other)
        return self

    # --- the object ---------------------------------------------------------------------------

    def close(self) -> None:
        """Give up this handle and its `store`: calls raise ClosedError from now on. Idempotent.

        Raises: TransactionError inside a transaction.
        """
        self._engine.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        options = self._options | {"wal": self._wal}
        place = (self._store.path, self._table_name, self._timeout)
        return _open_again, (type(self), place, options)

    def __repr__(self) -> str:
        items = self.to_dict()
        indent = 4 if len(items) > 1 else None
        return json.dumps(items, sort_keys=True, indent=indent, ensure_ascii=False)

    # --- statements ---------------------------------------------------------------------------

    @property
    def _select_value(self) -> str:
        return f"select value from {self._table} where key = :key"

    @property
    def _insert(self) -> str:
        return f"insert or ignore into {self._table} (key, value) values (:key, :value)"

    @property
    def _replace(self) -> str:
        # Not an upsert: that would leave the key where it is in the order of the rows.
        return f"insert or replace into {self._table} (key, value) values (:key, :value)"

    @property
    def _update(self) -> str:
        return f"update {self._table} set value = :value where key = :key"

    @property
    def _delete(self) -> str:
        return f"delete from {self._table} where key = :key returning value"


def _open_again(
    kind: type[KeyValueSqlite], place: tuple[str, str, float], options: dict[str, Any]
) -> KeyValueSqlite:
    return kind(*place, **options)


# --- tables and keys --------------------------------------------------------------------------


def _check_table(name: str) -> str:
    """The table for that name. Raises: TypeError, InvalidNameError."""
    name = check_name(name).replace("-", "_")
    if name.lower().startswith(_RESERVED):
        raise InvalidNameError(f"the table name {name!r} is reserved: it begins with {name[:7]!r}")
    return name


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _check_key(key: object) -> str:
    """The key itself. Raises: KeyTypeError, InvalidKeyError."""
    if not isinstance(key, str):
        raise KeyTypeError(f"a key is a str, not {type(key).__name__}: {key!r}")
    try:
        key.encode()  # a NUL, unlike elsewhere in kvsync, is allowed: files may hold such keys
    except UnicodeEncodeError as error:
        raise InvalidKeyError(f"the key {key[:80]!r} holds a lone surrogate") from error
    return key


# --- values -----------------------------------------------------------------------------------


class _Json:
    """JSON as keyvalue_sqlite writes it, and all that it may have written."""

    def dumps(self, value: Any) -> str:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
        text.encode()  # a lone surrogate is no text: UnicodeEncodeError, a ValueError
        return text

    def loads(self, stored: Any) -> Any:
        return json.loads(stored)


_JSON = _Json()


def _encode(value: Any) -> codecs.Stored:
    return codecs.encode(_JSON, value)


def _decode(stored: Any) -> Any:
    return codecs.decode(_JSON, stored)


def _entry(key: object, value: Any) -> dict[str, codecs.Stored]:
    return {"key": _check_key(key), "value": _encode(value)}


def _sum(old: Any, amount: float) -> float | str:
    """`old` and `amount`; text if `old` is. Raises: NotANumberError, CounterOverflowError."""
    total = add_numbers(_number(old), amount)
    return str(total) if isinstance(old, str) else total


def _number(value: Any) -> float:
    """The number that it is or, as text, spells. Raises: NotANumberError."""
    number = _spelled(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or _is_endless(number):
        what = repr(value[:80]) if isinstance(value, str) else type(value).__name__
        raise NotANumberError(f"cannot add up what is no number: {what}; nothing was changed")
    return number


def _spelled(text: str) -> float | None:
    """The number that the whole of `text` spells in decimal digits, or None."""
    try:
        if _INTEGER.fullmatch(text):
            return int(text)
    except ValueError:  # more digits than Python converts
        return None
    return float(text) if _DECIMAL.fullmatch(text) else None


def _is_endless(number: float) -> bool:
    return isinstance(number, float) and not math.isfinite(number)

"""The dict: a mapping from text to values that all processes share.

Every method that changes something is one write transaction, and a single statement where one
does. Reads see the last commit. Whatever goes through many keys does so in key order and in pages,
one short read each, so that it neither loads everything nor holds the log's reset up.

An entry whose `expires` lies in the past does not exist for any method. `_SWEEP` of them are
removed for good whenever a TTL is set, so that they do not pile up.
"""

import math
import sys
from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from kvsync import codec as codecs
from kvsync.codec import Codec, Stored
from kvsync.engine import Row, Transaction
from kvsync.errors import CounterOverflowError, NotANumberError
from kvsync.primitives.primitive import Home, Primitive, check_key
from kvsync.primitives.views import StreamedItems, StreamedValues

_LIVE = "(expires is null or expires > :now)"

# Rows of one key end in `expires`, for `Dict._alive` to judge: most have none.
_GET = "select value, expires from kvsync_dict where name = :name and key = :key"
_FIND = "select expires from kvsync_dict where name = :name and key = :key"
_SET = """
    insert into kvsync_dict (name, key, value, expires) values (:name, :key, :value, :expires)
    on conflict (name, key) do update set value = excluded.value, expires = excluded.expires
"""
_SET_IF_ABSENT = f"""
    {_SET} where kvsync_dict.expires <= :now
    returning value
"""
_REPLACE = "update kvsync_dict set value = :value where name = :name and key = :key"
_DELETE = """
    delete from kvsync_dict where name = :name and key = :key returning value, expires
"""
_SWEEP_EXPIRED = """
    delete from kvsync_dict where name = :name and key in (
        select key from kvsync_dict where name = :name and expires <= :now limit :sweep)
"""

_FIRST_PAGE, _LAST_PAGE = 32, 512
_PAGE_CHARACTERS = 1 << 20
_SWEEP = 10
_BATCH = 200


class Missing:
    """The type of `MISSING`."""

    def __repr__(self) -> str:
        return "kvsync.MISSING"

    def __reduce__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()
"""Stands for "no such key" in `Dict.compare_and_set`."""

_NO_DEFAULT: Final = Missing()


@dataclass(frozen=True)
class DictStats:
    """A dict at one moment: how many keys it has, and how many of these have a TTL."""

    name: str
    length: int
    expiring: int


class Dict(Primitive, MutableMapping[str, Any]):
    """A dict that survives and that all processes of the machine share.

    Values are JSON unless `codec` says otherwise: what comes back is a copy, so
    `d["a"]["b"] = 1` changes nothing; and `d[k] += 1` is a get and a set, between which another
    process may come: use `increment`, or a transaction.

    Args:
        codec: "json", "raw" (str and bytes as they are), "pickle" (unsafe where others can write
            the file: reading a pickle runs code), or an object with `dumps` and `loads`.

    Raises: in every method, KeyTypeError (a KeyError and a TypeError) for a key that is no str,
    and InvalidKeyError for one with a NUL or a lone surrogate. Whatever writes raises EncodeError
    for a value that the codec cannot hold, before anything is written; whatever returns a value,
    or compares it, raises DecodeError for one that another codec wrote. BusyError, ClosedError,
    StoreReplacedError as any call. The constructor raises TypeError and ValueError for what is no
    codec.

    Example:
        >>> settings = store.dict("settings")
        >>> settings["theme"] = "dark"
        >>> settings["theme"]
        'dark'
    """

    def __init__(self, store: Home, name: str, *, codec: str | Codec = "json") -> None:
        super().__init__(store, name)
        self._codec_option = codec
        self._codec = codecs.find(codec)
        self._decode = partial(codecs.decode, self._codec)  # each read calls it: one frame less

    def _options(self) -> dict[str, Any]:
        return {} if self._codec_option == "json" else {"codec": self._codec_option}

    # --- one key ------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        rows = self._alive(self._engine.read(_GET, self._at(key)))
        if not rows:
            raise KeyError(key)
        return self._decode(rows[0][0])

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        rows = self._engine.read(_GET, {"name": self._name, "key": check_key(key)})
        if rows and (rows[0][1] is None or self._alive(rows)):
            return self._decode(rows[0][0])
        return default

    def __contains__(self, key: object) -> bool:
        return bool(self._alive(self._engine.read(_FIND, self._at(key))))

    def __setitem__(self, key: str, value: Any) -> None:
        self._engine.write(_SET, self._entry(key, value))

    def set(self, key: str, value: Any, ttl: float | timedelta | None = None) -> None:
        """Like `d[key] = value`, and gone again `ttl` seconds later.

        Args:
            ttl: seconds, by the wall clock, so that it survives a reboot; None for no end.

        Raises: TypeError, ValueError unless that is a finite time above zero.
        """
        entry = self._entry(key, value)
        if ttl is None:
            self._engine.write(_SET, entry)
            return
        seconds = _seconds(ttl)

        def work(transaction: Transaction) -> None:
            entry["expires"] = transaction.now + seconds
            transaction.execute(_SET, entry)
            transaction.execute(
                _SWEEP_EXPIRED, {"name": self._name, "now": transaction.now, "sweep": _SWEEP}
            )

        self._engine.transact(work)

    def ttl(self, key: str) -> float | None:
        """Seconds until `key` goes; None if it stays. Raises: KeyError if it is not there."""
        rows = self._alive(self._engine.read(_FIND, self._at(key)))
        if not rows:
            raise KeyError(key)
        expires: float | None = rows[0][0]
        return None if expires is None else expires - self._engine.now()

    def __delitem__(self, key: str) -> None:
        if not self._alive(self._engine.write(_DELETE, self._at(key))):
            raise KeyError(key)

    def pop(self, key: str, default: Any = _NO_DEFAULT) -> Any:
        """Remove `key` and return its value; `default`, or else KeyError, if it is not there."""
        here = self._at(key)

        def work(transaction: Transaction) -> Any:
            rows = self._alive(transaction.execute(_DELETE, here))
            # Decoded in here: what cannot be read is not removed.
            return self._decode(rows[0][0]) if rows else default

        value = self._engine.transact(work)
        if value is _NO_DEFAULT:
            raise KeyError(key)
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove and return the first item in key order. Raises: KeyError if there is none."""

        def work(transaction: Transaction) -> tuple[str, Any]:
            rows = transaction.execute(
                f"select key, value from kvsync_dict where name = :name and {_LIVE}"
                " order by key limit 1",
                {"name": self._name, "now": transaction.now},
            )
            if not rows:
                raise KeyError("popitem(): the dict is empty")
            ((key, stored),) = rows
            value = self._decode(stored)  # unreadable: it stays
            transaction.execute(_DELETE, {"name": self._name, "key": key})
            return key, value

        return self._engine.transact(work)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value of `key`; if it is not there, set to `default` first. Atomic."""
        here = self._at(key)
        rows = self._alive(self._engine.read(_GET, here))
        if rows:
            return self._decode(rows[0][0])
        entry = self._entry(key, default)

        def work(transaction: Transaction) -> Any:
            entry["now"] = transaction.now
            rows = transaction.execute(_SET_IF_ABSENT, entry) or transaction.execute(_GET, here)
            return self._decode(rows[0][0])

        return self._engine.transact(work)

    def compare_and_set(self, key: str, expected: Any, new: Any) -> bool:
        """Set `key` to `new` if its value equals `expected`; returns whether it did. Keeps the TTL.

        `kvsync.MISSING` as `expected` stands for no such key, as `new` for removing it.
        """
        here = self._at(key)
        stored = None if new is MISSING else self._encode(new)

        def work(transaction: Transaction) -> bool:
            rows = self._alive(transaction.execute(_GET, here))
            current = self._decode(rows[0][0]) if rows else MISSING
            if current is not expected and current != expected:
                return False
            if stored is None:
                transaction.execute(_DELETE, here)
            else:
                self._put(transaction, here, stored, replace=bool(rows))
            return True

        return self._engine.transact(work)

    def increment(self, key: str, by: float = 1) -> Any:
        """Add `by` to the number at `key`, 0 if it is not there; returns the sum. Keeps the TTL.

        Raises: NotANumberError (a TypeError) if the value is no number; CounterOverflowError if
        an integer sum exceeds 64 bits or a float sum is infinite; TypeError if `by` is no number,
        ValueError if it is not finite. Nothing is changed then.
        """
        return self.increment_many({key: by})[key]

    def increment_many(self, amounts: Mapping[str, float]) -> dict[str, Any]:
        """`increment` for many keys in one commit, all or none; returns the sums by key.

        Raises: as `increment`.
        """
        entries = [(self._at(key), check_number(by)) for key, by in _snapshot(amounts).items()]

        def work(transaction: Transaction) -> dict[str, Any]:
            return {here["key"]: self._increment(transaction, here, by) for here, by in entries}

        return self._engine.transact(work)

    def _increment(self, transaction: Transaction, here: dict[str, Any], by: float) -> Any:
        rows = self._alive(transaction.execute(_GET, here))
        total = add_numbers(self._decode(rows[0][0]) if rows else 0, by)
        self._put(transaction, here, self._encode(total), replace=bool(rows))
        return total

    @staticmethod
    def _put(
        transaction: Transaction, here: dict[str, Any], stored: Stored, *, replace: bool
    ) -> None:
        """Store a value; replacing one keeps its TTL."""
        entry = here | {"value": stored, "expires": None}
        transaction.execute(_REPLACE if replace else _SET, entry)

    # --- many keys ----------------------------------------------------------------------------

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of those `keys` that are there, from one moment for each 200 keys."""
        wanted = list(dict.fromkeys(check_key(key) for key in keys))
        found: dict[str, Any] = {}
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            marks = ", ".join(f":k{i}" for i in range(len(batch)))
            rows = self._engine.read(
                f"select key, value from kvsync_dict where name = :name and {_LIVE}"
                f" and key in ({marks})",
                {f"k{i}": key for i, key in enumerate(batch)}
                | {"name": self._name, "now": self._engine.now()},
            )
            found.update((key, self._decode(value)) for key, value in rows)
        return {key: found[key] for key in wanted if key in found}

    def set_many(
        self,
        items: Mapping[str, Any] | Iterable[tuple[str, Any]],
        ttl: float | timedelta | None = None,
    ) -> None:
        """Set many keys in one commit, all or none.

        Args:
            ttl: seconds, as for `set`.

        Raises: as `set`.
        """
        seconds = None if ttl is None else _seconds(ttl)
        entries = [self._entry(key, value) for key, value in _snapshot(items).items()]

        def work(transaction: Transaction) -> None:
            for entry in entries:
                if seconds is not None:
                    entry["expires"] = transaction.now + seconds
                transaction.execute(_SET, entry)

        if entries:
            self._engine.transact(work)

    def update(self, other: Any = (), /, **more: Any) -> None:
        """As `dict.update`, in one commit."""
        self.set_many(_snapshot(other) | more)

    def clear(self) -> None:
        """Remove everything in one commit; for millions of keys, `store.delete` holds others up
        less. Raises: BusyError, ClosedError, StoreReplacedError as any call.
        """
        self._engine.write("delete from kvsync_dict where name = :name", {"name": self._name})

    # --- in key order -------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        return iter(self.range())

    def __reversed__(self) -> Iterator[str]:
        return iter(self.range(reverse=True))

    def __len__(self) -> int:
        ((length,),) = self._engine.read(
            "select (select count(*) from kvsync_dict where name = :name)"
            " - (select count(*) from kvsync_dict where name = :name and expires <= :now)",
            {"name": self._name, "now": self._engine.now()},
        )
        return int(length)

    def items(self) -> ItemsView[str, Any]:
        """Keys and values in key order, read a page at a time."""
        return StreamedItems(self)

    def values(self) -> ValuesView[Any]:
        """The values in the order of their keys, read a page at a time."""
        return StreamedValues(self)

    def _stream(self) -> Iterator[tuple[str, Any]]:
        return self.range().items()

    def range(
        self,
        low: str | None = None,
        high: str | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> "KeyRange":
        """The keys from `low` up to, but without, `high`, in code point order.

        Args:
            low: the first key, if it is there; None for the beginning.
            high: where to stop; None for the end.
            reverse: from the end to the beginning.
            limit: the number of keys at most.

        Raises: TypeError, ValueError unless `limit` is an int that is not negative.
        """
        for bound in (low, high):
            if bound is not None:
                check_key(bound)
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
            raise TypeError(f"limit is an int, not {limit!r}")
        if limit is not None and limit < 0:
            raise ValueError(f"limit cannot be negative: {limit}")
        return KeyRange(self, low or "", high, reverse=reverse, limit=limit)

    def prefix(self, prefix: str) -> "KeyRange":
        """The keys that begin with `prefix`, in code point order."""
        return KeyRange(self, check_key(prefix), _after_all_with(prefix), reverse=False, limit=None)

    # --- the object ---------------------------------------------------------------------------

    def stats(self) -> DictStats:
        """How many keys there are, and how many of them will expire. Blocks no writer."""
        ((expiring,),) = self._engine.read(
            "select count(*) from kvsync_dict where name = :name and expires > :now",
            {"name": self._name, "now": self._engine.now()},
        )
        return DictStats(self._name, len(self), expiring)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return _snapshot(self) == _snapshot(other)

    __hash__ = None  # type: ignore[assignment]  # as a dict

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return _snapshot(self) | _snapshot(other)

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return _snapshot(other) | _snapshot(self)

    def __ior__(self, other: Any) -> "Dict":  # type: ignore[misc]  # `|` makes a plain dict
        self.update(other)
        return self

    # --- rows ---------------------------------------------------------------------------------

    def _at(self, key: object) -> dict[str, Any]:
        return {"name": self._name, "key": check_key(key)}

    def _alive(self, rows: list[Row]) -> list[Row]:
        """The row of a key, or none if its time is past."""
        if rows and (expires := rows[0][-1]) is not None and expires <= self._engine.now():
            return []
        return rows

    def _entry(self, key: str, value: Any) -> dict[str, Any]:
        return {
            "name": self._name,
            "key": check_key(key),
            "value": self._encode(value),
            "expires": None,
        }

    def _encode(self, value: Any) -> Stored:
        return codecs.encode(self._codec, value)


class KeyRange:
    """Some keys of a dict, in order. Iterating reads them anew each time, a page at a time.

    A key that is there throughout is seen exactly once; one that comes or goes meanwhile may or
    may not be.

    Raises: while iterating, DecodeError for a value that another codec wrote; BusyError,
    ClosedError, StoreReplacedError as any call.
    """

    def __init__(
        self, of: Dict, low: str, high: str | None, *, reverse: bool, limit: int | None
    ) -> None:
        self._of = of
        self._low, self._high = low, high
        self._reverse, self._limit = reverse, limit

    def keys(self) -> Iterator[str]:
        """The keys; iterating gives the same."""
        return (key for (key,) in self._rows("key"))

    __iter__ = keys

    def items(self) -> Iterator[tuple[str, Any]]:
        """Keys and their values."""
        return ((key, self._of._decode(value)) for key, value in self._rows("key, value"))

    def values(self) -> Iterator[Any]:
        """The values, in the order of their keys."""
        return (value for _, value in self.items())

    def _rows(self, columns: str) -> Iterator[Row]:
        low, high, left = self._low, self._high, self._limit
        low_open = False
        size = _FIRST_PAGE
        while left is None or left > 0:
            page = size if left is None else min(size, left)
            rows = self._page(columns, low, high, page, low_open=low_open)
            yield from rows
            if len(rows) < page:
                return
            if self._reverse:
                high = rows[-1][0]
            else:
                low, low_open = rows[-1][0], True
            if left is not None:
                left -= len(rows)
            size = self._next_size(size, rows)

    def _page(
        self, columns: str, low: str, high: str | None, size: int, *, low_open: bool
    ) -> list[Row]:
        below = "" if high is None else " and key < :high"
        return self._of._engine.read(
            f"select {columns} from kvsync_dict where name = :name and {_LIVE}"
            f" and key {'>' if low_open else '>='} :low{below}"
            f" order by key {'desc' if self._reverse else 'asc'} limit :size",
            {
                "name": self._of.name,
                "now": self._of._engine.now(),
                "low": low,
                "high": high,
                "size": size,
            },
        )

    @staticmethod
    def _next_size(size: int, rows: list[Row]) -> int:
        """Twice as many, unless the values are so large that a page of them weighs much."""
        weight = sum(len(column) for row in rows for column in row)
        if weight > _PAGE_CHARACTERS:
            return max(1, size // 2)
        return min(_LAST_PAGE, size * 2)

    def __repr__(self) -> str:
        return f"<keys {self._low!r}..{self._high!r} of {self._of!r}>"


def _snapshot(items: Any) -> dict[str, Any]:
    """What `dict` makes of it; a mapping is streamed, where `dict` would get each value anew."""
    return dict(items.items() if isinstance(items, Mapping) else items)


def check_number(n: float) -> float:
    """The number itself. Raises: TypeError; ValueError for NaN and infinities."""
    if isinstance(n, bool) or not isinstance(n, int | float):
        raise TypeError(f"expected an int or a float, not {type(n).__name__}: {n!r}")
    if isinstance(n, float) and not math.isfinite(n):
        raise ValueError(f"cannot add {n!r}")
    return n


def add_numbers(old: Any, by: float) -> float:
    """The sum. Raises: NotANumberError, CounterOverflowError."""
    if isinstance(old, bool) or not isinstance(old, int | float):
        raise NotANumberError(f"the value is no number but {type(old).__name__}; left as it was")
    try:
        total = old + by
    except OverflowError as error:  # an int too large for a float
        raise CounterOverflowError(f"{old} + {by}: {error}") from error
    if isinstance(total, float):
        if not math.isfinite(total):
            raise CounterOverflowError(f"{old} + {by} is not finite")
    elif not -(2**63) <= total < 2**63:
        raise CounterOverflowError(f"{old} + {by} does not fit into 64 bits")
    return total


def _seconds(ttl: float | timedelta) -> float:
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"ttl is a number of seconds or a timedelta, not {ttl!r}")
    if not 0 < seconds <= sys.float_info.max:
        raise ValueError(f"ttl must be positive and finite, not {ttl!r}")
    return seconds


def _after_all_with(prefix: str) -> str | None:
    """The least key above all that begin with `prefix`; None where there is no such key."""
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return None
    last = ord(stem[-1]) + 1
    if 0xD800 <= last < 0xE000:
        last = 0xE000  # surrogates are no characters of a key
    return stem[:-1] + chr(last)

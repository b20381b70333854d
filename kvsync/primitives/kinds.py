"""The kinds of named things: which names are in use, and how to delete one piece by piece."""

from functools import partial
from typing import NamedTuple

from kvsync.engine import Engine, Transaction
from kvsync.primitives.items import GET, Items
from kvsync.primitives.primitive import check_name
from kvsync.session import MEND

_CHUNK = 1000


class _Kind(NamedTuple):
    """Where the things of a kind are: `rows` tells its rows, `live` those of them that count."""

    table: str
    name: str
    key: str
    rows: str
    live: str


_KINDS = {
    "dict": _Kind("kvsync_dict", "name", "key", "true", "(expires is null or expires > :now)"),
    "counter": _Kind("kvsync_counter", "label", "family", "family = ''", "true"),
    "counters": _Kind("kvsync_counter", "family", "label", "family <> ''", "true"),
    "rate_limiter": _Kind("kvsync_rate", "name", "name", "true", "true"),
    "once": _Kind("kvsync_once", "name", "name", "true", "true"),
    "event": _Kind("kvsync_event", "name", "name", "true", "true"),
    "barrier": _Kind("kvsync_barrier", "name", "name", "true", "true"),
    "queue": _Kind("kvsync_queue_past", "name", "name", "true", "true"),
}

_PASSING = "lock", "semaphore", "election", "condition"
"""Kinds of which nothing is left when nobody holds one, or waits for it."""

_IN_USE = """
    select name from kvsync_grant where space = :kind and units > 0
    union select name from kvsync_ticket where space = :kind order by name
"""

# By the ids that there were at first: what is put meanwhile, by those who wait for room too, stays.
_DELETE_ITEMS = """
    delete from kvsync_item where queue = :name and (state, place, id) in (
        select state, place, id from kvsync_item
        where queue = :name and state in (-1, 0, 1, 3) and id <= :last limit :chunk)
    returning state in (0, 1)
"""
_FORGET_QUEUE = """
    delete from kvsync_queue where name = :name
    and not exists (select 1 from kvsync_item where queue = :name and state > -2)
"""


def names(engine: Engine, kind: str) -> list[str]:
    """The names of that kind in use, sorted. Raises: ValueError for another kind."""
    if kind in _PASSING:
        return [name for (name,) in engine.read(_IN_USE, {"kind": kind})]
    table, name, _, rows_of, live = _kind(kind)
    found: list[str] = []
    # From each name straight to the next one: a distinct over all rows would read them all.
    while rows := engine.read(
        f"select {name} from {table} where {rows_of} and {live} and {name} > :after"
        f" order by {name} limit 1",
        {"after": found[-1] if found else "", "now": engine.now()},
    ):
        found.append(rows[0][0])
    return found


def delete(engine: Engine, kind: str, name: str) -> None:
    """Remove all rows of that name, a chunk a commit. Raises: ValueError for another kind."""
    if kind in _PASSING:
        raise ValueError(f"{kind}s are not deleted: nothing is left of one when nobody uses it")
    table, column, key, condition, _ = _kind(kind)
    check_name(name)
    if kind == "queue":
        _delete_queue(engine, name)
        return
    rows: list[object] | None = None
    while rows is None or len(rows) == _CHUNK:
        rows = list(
            engine.write(
                f"delete from {table} where {condition} and {column} = :name and {key} in ("
                f"select {key} from {table} where {condition} and {column} = :name limit :chunk)"
                " returning 1",
                {"name": name, "chunk": _CHUNK},
            )
        )


def _delete_queue(engine: Engine, name: str) -> None:
    for (last,) in engine.read("select last from kvsync_queue where name = :name", {"name": name}):
        while engine.transact(partial(_delete_items, engine, name, last)) == _CHUNK:
            pass


def _delete_items(engine: Engine, name: str, last: int, transaction: Transaction) -> int:
    """Some of them, and after the last ones the queue itself; returns how many."""
    here = {"name": name}
    Items(engine, name).count_in(transaction)
    rows = transaction.execute(_DELETE_ITEMS, {**here, "last": last, "chunk": _CHUNK})
    transaction.execute(
        "update kvsync_item set size = size - :gone where queue = :name and state = -2",
        {**here, "gone": sum(was_in_line for (was_in_line,) in rows)},
    )
    if len(rows) < _CHUNK:
        transaction.execute(_FORGET_QUEUE, here)
        transaction.execute(
            "update kvsync_item set shut = 0, got = 0 where queue = :name and state = -2", here
        )
    MEND[GET](engine, transaction, name)
    return len(rows)


def _kind(kind: str) -> _Kind:
    try:
        return _KINDS[kind]
    except (KeyError, TypeError):
        known = ", ".join(map(repr, (*_KINDS, *_PASSING)))
        raise ValueError(f"unknown kind {kind!r}: one of {known}") from None

"""Each call of KeyValueSqlite that writes."""

from collections.abc import Callable
from functools import cache

import kvsync
from stress.faults.call import Call


@cache
def _legacy(store: kvsync.Store) -> kvsync.KeyValueSqlite:
    return kvsync.KeyValueSqlite(store.path, "legacy")


def _fill(store: kvsync.Store) -> None:
    kvsync.KeyValueSqlite(store.path, "legacy").update({"a": 1, "b": 2})


def _contents(store: kvsync.Store) -> object:
    return kvsync.KeyValueSqlite(store.path, "legacy").to_dict()


def _on_legacy(perform: Callable[[kvsync.KeyValueSqlite], object]) -> Call:
    return Call(lambda store: perform(_legacy(store)), _contents, _fill, durability="process")


def _delete(legacy: kvsync.KeyValueSqlite) -> None:
    """The second time it may be gone."""
    if "a" in legacy:
        del legacy["a"]


CALLS = {
    "KeyValueSqlite.atomic_add": _on_legacy(lambda it: it.atomic_add("a", 1)),
    "KeyValueSqlite.update": _on_legacy(lambda it: it.update({"a": 2, "b": 3})),
    "KeyValueSqlite.set": _on_legacy(lambda it: it.set("a", 5)),
    "KeyValueSqlite[k] = v": _on_legacy(lambda it: it.__setitem__("c", 6)),
    "KeyValueSqlite.set_default": _on_legacy(lambda it: it.set_default("c", 3)),
    "KeyValueSqlite.setdefault": _on_legacy(lambda it: it.setdefault("c", 3)),
    "KeyValueSqlite.insert_or_ignore": _on_legacy(lambda it: it.insert_or_ignore({"a": 9, "c": 3})),
    "KeyValueSqlite.remove": _on_legacy(lambda it: it.remove("a", ignore_missing_key=True)),
    "del KeyValueSqlite[k]": _on_legacy(_delete),
    "KeyValueSqlite.pop": _on_legacy(lambda it: it.pop("a", None)),
    "KeyValueSqlite.popitem": _on_legacy(lambda it: it.popitem()),
    "KeyValueSqlite.clear": _on_legacy(lambda it: it.clear()),
    "KeyValueSqlite.create_table": Call(
        lambda store: kvsync.KeyValueSqlite(store.path, "another").create_table(),
        lambda _store: None,
        durability="process",
    ),
}

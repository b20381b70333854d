"""Names: which are allowed, what each kind keeps apart, and how a name is deleted."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.testing import ManualClock
from tests.undone import undone

SQL = '"; drop table kvsync_dict; --'

ODD = {
    "one character": "x",
    "1,000 characters": "x" * 1000,
    "1,000 characters of 4 bytes": "🙂" * 1000,
    "SQL": SQL,
    "SQL in single quotes": "' or '1'='1",
    "a named parameter": ":name",
    "wildcards": "%_*?[a]",
    "reserved by SQLite": "sqlite_master",
    "one of our tables": "kvsync_meta",
    "white space": " \t\n",
    "unicode": "größe Ω 名前 \U0010ffff",
    "not normalised": "e\u0301",
    "a path": "../../etc/passwd",
}

odd = pytest.mark.parametrize("name", ODD.values(), ids=ODD)

BAD = {"empty": "", "1,001 characters": "x" * 1001, "10 KB": "x" * 10_000}
BAD |= {"NUL": "a\0b", "a lone surrogate": "a\ud800"}


def makers(store: kvsync.Store) -> dict[str, Any]:
    return {
        "dict": store.dict,
        "counter": store.counter,
        "counters": store.counters,
        "label": store.counters("family").counter,
    }


kinds = pytest.mark.parametrize("kind", ["dict", "counter", "counters", "label"])


@kinds
@odd
def test_an_odd_name_is_a_name_like_any_other(store: kvsync.Store, kind: str, name: str) -> None:
    made, plain = makers(store)[kind](name), makers(store)[kind]("plain")
    fill(made)
    assert filled(made)
    assert not filled(plain)
    assert made.name == name
    if kind != "label":
        assert store.names(kind) == [name]
        store.delete(kind, name)
        assert store.names(kind) == []


@odd
def test_an_odd_key_is_a_key_like_any_other(store: kvsync.Store, name: str) -> None:
    values = store.dict(name)
    values[name] = name
    assert values[name] == values.pop(name) == name


@kinds
@pytest.mark.parametrize("name", BAD.values(), ids=BAD)
def test_a_bad_name_is_refused_at_once(store: kvsync.Store, kind: str, name: str) -> None:
    with pytest.raises(kvsync.InvalidNameError) as caught:
        makers(store)[kind](name)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 500


@kinds
@pytest.mark.parametrize("name", [None, 1, b"name", ["name"], Path("name")])
def test_a_name_that_is_no_text_is_a_type_error(store: kvsync.Store, kind: str, name: Any) -> None:
    with pytest.raises(TypeError):
        makers(store)[kind](name)


def test_names_that_differ_by_case_or_form_are_different(store: kvsync.Store) -> None:
    names = ["\u00e9", "A", "a", "a ", "e\u0301"]
    for i, name in enumerate(names):
        store.dict(name)["k"] = i
        store.counter(name).add(i + 1)
    assert store.names("dict") == store.names("counter") == sorted(names)
    assert [store.dict(name)["k"] for name in names] == [0, 1, 2, 3, 4]
    assert [store.counter(name).value for name in names] == [1, 2, 3, 4, 5]


def test_the_kinds_are_apart(store: kvsync.Store) -> None:
    """A dict, a counter, a family and a label of one name are four things."""
    for made in (maker("same") for maker in makers(store).values()):
        assert not filled(made)
        fill(made)
    assert store.names("dict") == ["same"]
    assert store.names("counter") == ["same"]
    assert store.names("counters") == ["family", "same"]
    store.delete("counter", "same")
    assert store.names("counter") == []
    assert store.names("counters") == ["family", "same"]
    assert store.counters("family")["same"] == 1
    store.delete("counters", "family")
    assert store.names("counters") == ["same"]
    assert store.dict("same") == {"k": 1}


def test_names_are_sorted_and_hold_something(store: kvsync.Store) -> None:
    for name in ("b", "a", "c", "\U0010ffff", "\uffff"):
        store.dict(name)["k"] = 1
    del store.dict("b")["k"]
    store.dict("never written")
    store.counter("a").reset()
    assert store.names("dict") == ["a", "c", "\uffff", "\U0010ffff"]
    assert store.names("counter") == []


def test_a_dict_whose_entries_have_all_expired_is_not_in_use(path: Path) -> None:
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        store.dict("gone").set_many({"a": 1, "b": 2}, ttl=5)
        store.dict("stays").set("a", 1, ttl=10)
        store.dict("stays").set("b", 1, ttl=5)
        clock.advance(5)
        assert store.names("dict") == ["stays"]


def test_delete_removes_all_of_a_name_and_nothing_else(store: kvsync.Store) -> None:
    """More than two chunks of a thousand rows."""
    store.dict("d").set_many((f"{i:05}", i) for i in range(2500))
    store.dict("e")["k"] = 1
    store.counters("f").add_many({f"{i}": 1 for i in range(2500)})
    store.counters("g").add("k")
    store.delete("dict", "d")
    store.delete("counters", "f")
    assert len(store.dict("d")) == len(store.counters("f")) == 0
    assert store.names("dict") == ["e"]
    assert store.names("counters") == ["g"]


def test_delete_of_exactly_one_chunk_and_of_nothing_end(store: kvsync.Store) -> None:
    store.dict("d").set_many((f"{i:05}", i) for i in range(1000))
    store.delete("dict", "d")
    store.delete("dict", "d")
    store.delete("dict", "never there")
    assert store.names("dict") == []


def test_delete_inside_a_transaction_is_part_of_it(store: kvsync.Store) -> None:
    store.dict("d").set_many((f"{i:05}", i) for i in range(1500))
    with undone(store):
        store.delete("dict", "d")
        assert store.names("dict") == []
    assert len(store.dict("d")) == 1500


@pytest.mark.parametrize("kind", ["", "lock", "Dict", "dict; --", "kvsync_dict", None, 1, []])
def test_an_unknown_kind_is_refused(store: kvsync.Store, kind: Any) -> None:
    with pytest.raises(ValueError, match="'dict', 'counter', 'counters'"):
        store.names(kind)
    with pytest.raises(ValueError, match="'dict', 'counter', 'counters'"):
        store.delete(kind, "name")


def test_delete_refuses_a_bad_name(store: kvsync.Store) -> None:
    with pytest.raises(kvsync.InvalidNameError):
        store.delete("dict", "")
    with pytest.raises(TypeError):
        store.delete("dict", 1)  # type: ignore[arg-type]


def test_sql_in_names_and_keys_leaves_the_tables_as_they_were(path: Path) -> None:
    tables = "select name, sql from sqlite_schema order by name"
    with kvsync.open(path) as store:
        store.dict("d")["k"] = 1
        before = store.engine.read(tables)
        values = store.dict(SQL)
        values[SQL] = SQL
        values.increment_many({SQL + "1": 1})
        assert values.get_many([SQL, SQL + "1"]) == {SQL: SQL, SQL + "1": 1}
        assert list(values.prefix('";')) == [SQL, SQL + "1"]
        store.counters(SQL).add_many({SQL: 1})
        assert store.names("dict") == [SQL, "d"]
        assert store.engine.read(tables) == before
    with sqlite3.connect(path) as raw:
        assert raw.execute("select count(*) from kvsync_dict").fetchall() == [(3,)]
    raw.close()


def fill(made: Any) -> None:
    if isinstance(made, kvsync.Dict):
        made["k"] = 1
    elif isinstance(made, kvsync.Counters):
        made.add("k")
    else:
        made.add()


def filled(made: Any) -> bool:
    return bool(made.value if isinstance(made, kvsync.Counter) else made)

"""KeyValueSqlite, held against the real keyvalue_sqlite 1.0.7: alone, in its files, beside it.

What takes the fixture `kv` runs on both libraries with the same assertions. The rest is what ours
promises beyond the other, or where the other's code belies its own documentation.
"""

import contextlib
import inspect
import itertools
import json
import os
import pickle
import random
import sqlite3
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import keyvalue_sqlite
import pytest

import kvsync
from kvsync import KeyValueSqlite
from tests.processes import run_all

Original = keyvalue_sqlite.KeyValueSqlite

NAMES = [
    "with space",
    'a "quoted" one',
    "it's",
    "x); drop table t; --",
    "[a]",
    "Größe 漢字",
    "order",
]


@pytest.fixture(params=[KeyValueSqlite, Original], ids=["kvsync", "keyvalue_sqlite"])
def kind(request: pytest.FixtureRequest) -> Any:
    """Ours, then the original."""
    return request.param


@pytest.fixture
def kv(kind: Any, path: Path) -> Iterator[Any]:
    """An empty dict of either kind."""
    with closing(kind(str(path), "a-table")) as made:
        yield made


@pytest.fixture
def ours(path: Path) -> Iterator[KeyValueSqlite]:
    """An empty dict of our kind."""
    with KeyValueSqlite(path) as made:
        yield made


@contextlib.contextmanager
def closing(kv: Any) -> Iterator[Any]:
    """End ours; the original has nothing to end."""
    yield kv
    if isinstance(kv, KeyValueSqlite):
        kv.close()


@contextlib.contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """A plain connection, for a look behind the scenes."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def rows(path: Path, sql: str) -> list[Any]:
    with raw(path) as connection:
        return connection.execute(sql).fetchall()


def journal_mode(path: Path) -> str:
    ((mode,),) = rows(path, "pragma journal_mode")
    return str(mode)


# --- the same on both -------------------------------------------------------------------------


def test_every_public_name_of_the_original_is_there_with_the_same_parameters() -> None:
    """Also by name; ours may take more, as long as it is optional."""
    for name, theirs in inspect.getmembers(Original, inspect.isfunction):
        if name.startswith("_") and not name.startswith("__"):
            continue
        mine = inspect.signature(getattr(KeyValueSqlite, name)).parameters
        wanted = inspect.signature(theirs).parameters
        assert list(mine)[: len(wanted)] == list(wanted) or name == "__contains__", name
        for key, parameter in wanted.items():
            assert mine[key].kind == parameter.kind or key == "self", (name, key)
            if parameter.default is not parameter.empty:
                assert mine[key].default == parameter.default, (name, key)


def test_it_knows_its_path_table_and_timeout(kind: Any, path: Path) -> None:
    """A `-` in the table's name is stored as `_`, and the URL's scheme is cut off."""
    with closing(kind(f"sqlite:///{path}", "my-table", 7)) as kv:
        assert (kv.db_path, kv.table_name, kv.timeout) == (str(path), "my_table", 7)


def test_the_defaults_are_the_originals(kind: Any, path: Path) -> None:
    """A minute of patience and one table."""
    with closing(kind(str(path))) as kv:
        assert (kv.table_name, kv.timeout) == ("default_table", 60)


def test_missing_folders_are_made(kind: Any, tmp_path: Path) -> None:
    """All of them."""
    with closing(kind(str(tmp_path / "a" / "b" / "c.db"))) as kv:
        kv["k"] = 1
    assert (tmp_path / "a" / "b" / "c.db").exists()


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1, 2**70, 1.5, 1e300, "", "text", "ü漢😀\0", [], [1, [2]], {"a": {"b": None}}],
)
def test_what_json_holds_comes_back(kv: Any, value: Any) -> None:
    """By every way of writing."""
    kv.set("set", value)
    kv["item"] = value
    kv.set_default("default", value)
    kv.update({"update": value})
    kv.insert_or_ignore({"insert": value})
    assert list(kv.to_dict().values()) == [value] * 5
    assert kv.get("set") == kv["item"] == kv.get_or_raise("default") == value


def test_the_stored_text_is_the_same_to_the_letter(tmp_path: Path) -> None:
    """Keys sorted, spaces, no escapes: other readers of the file see no difference."""
    value = {"b": [1, 2.0], "a": {"ü": "漢\n"}, "1": None}
    stored = []
    for kind in (KeyValueSqlite, Original):
        with closing(kind(str(tmp_path / kind.__module__))) as kv:
            kv.set("k", value)
            kv.update({"l": {2: 3}})
            kv.atomic_add("n", 5)
        stored.append(rows(tmp_path / kind.__module__, "select * from default_table"))
    assert stored[0] == stored[1]


def test_set_default_sets_only_what_is_absent(kv: Any) -> None:
    """It returns nothing."""
    assert kv.set_default("k", "1") is None
    assert kv.set_default("k", "2") is None
    assert kv.get("k") == "1"


def test_what_is_absent_is_a_key_error_or_the_default(kv: Any) -> None:
    """Each method in its way."""
    assert kv.get("k") is None
    assert kv.get("k", 5) == 5
    assert not kv.has_key("k")
    assert "k" not in kv
    for call in (kv.get_or_raise, kv.__getitem__, kv.__delitem__, kv.remove, kv.__missing__):
        with pytest.raises(KeyError):
            call("k")
    assert kv.remove("k", ignore_missing_key=True) is None


def test_a_stored_none_is_there(kv: Any) -> None:
    """Null is a value."""
    kv.set("k", None)
    assert kv.has_key("k")
    assert kv.get_or_raise("k") is None
    assert kv.get("k", 5) is None


def test_keys_come_in_key_order_and_the_rest_in_the_order_of_setting(kv: Any) -> None:
    """Setting a key again moves it to the end; adding to it does not."""
    for key in "dbac":
        kv[key] = 1
    kv["b"] = 2
    kv.atomic_add("d", 1)
    assert kv.keys() == list("abcd")
    assert list(kv) == list(kv.to_dict()) == [key for key, _ in kv.items()] == list("dacb")


def test_ranges_include_both_ends_and_come_in_key_order(kv: Any) -> None:
    """An upside-down range is empty."""
    kv.update({key: key.upper() for key in "dbaec"})
    assert kv.key_range("b", "d") == ["b", "c", "d"]
    assert kv.get_range("b", "cc") == [("b", "B"), ("c", "C")]
    assert list(kv.dict_range("d", "z").items()) == [("d", "D"), ("e", "E")]
    assert kv.key_range("d", "b") == kv.get_range("d", "b") == []
    assert kv.dict_range("d", "b") == {}


def test_get_many_returns_what_is_there_in_the_order_asked_for(kv: Any) -> None:
    """Any iterable of keys will do."""
    kv.update({str(n): n for n in range(300)})
    assert kv.get_many({"1", "2", "x"}) == {"1": 1, "2": 2}
    wanted = [str(n) for n in range(350, -1, -3)]
    assert list(kv.get_many(wanted).items()) == [(k, int(k)) for k in wanted if int(k) < 300]
    assert kv.get_many(()) == {}


def test_removing_and_clearing(kv: Any) -> None:
    """`len` and truth follow."""
    kv.update({"a": 1, "b": 2, "c": 3})
    kv.remove("a")
    del kv["b"]
    assert (len(kv), bool(kv)) == (1, True)
    kv.clear()
    assert (len(kv), bool(kv), kv.to_dict()) == (0, False, {})


def test_update_overwrites_and_insert_or_ignore_does_not(kv: Any) -> None:
    """Their argument has a name."""
    kv["a"] = 1
    kv.update(a_dict={"a": 2, "b": 2})
    kv.insert_or_ignore(a_dict={"b": 3, "c": 3})
    assert kv.to_dict() == {"a": 2, "b": 2, "c": 3}
    kv.update({})
    kv.insert_or_ignore({})
    assert len(kv) == 3


@pytest.mark.parametrize(
    ("old", "amount", "new"),
    [(1, 2, 3), (1, "2", 3), (1, 0.5, 1.5), (1.5, 1, 2.5), (1.5, 0.5, 2.0), (5, -7, -2)],
)
def test_adding_to_a_number(kv: Any, old: Any, amount: Any, new: Any) -> None:
    """An int stays an int, a float a float."""
    kv["n"] = old
    assert kv.atomic_add("n", amount) is None
    assert kv["n"] == new
    assert type(kv["n"]) is type(new)


@pytest.mark.parametrize(("amount", "new"), [(5, 5), ("2", 2), (1.5, 1.5), ("-2.5", -2.5)])
def test_adding_to_nothing_makes_a_number(kv: Any, amount: Any, new: Any) -> None:
    """Even where text was added."""
    kv.atomic_add("n", amount)
    assert kv["n"] == new
    assert type(kv["n"]) is type(new)


def test_it_shows_itself_as_json(kv: Any) -> None:
    """One line for one item, indented for more; sorted."""
    assert repr(kv) == str(kv) == "{}"
    kv["ü"] = [1]
    assert repr(kv) == str(kv) == '{"ü": [1]}'
    kv["a"] = {"c": 1, "b": 2}
    assert repr(kv) == json.dumps(kv.to_dict(), sort_keys=True, indent=4, ensure_ascii=False)


@pytest.mark.parametrize("key", [None, 1, b"k", 1.0, ("a",)])
def test_a_key_that_is_no_str_is_a_key_error(kv: Any, key: Any) -> None:
    """Wherever the original looks."""
    calls: list[Callable[[], Any]] = [
        lambda: kv.get(key),
        lambda: kv[key],
        lambda: kv.get_or_raise(key),
        lambda: kv.has_key(key),
        lambda: key in kv,
        lambda: kv.set(key, 1),
        lambda: kv.__setitem__(key, 1),
        lambda: kv.set_default(key, 1),
        lambda: kv.remove(key),
        lambda: kv.__delitem__(key),
        lambda: kv.update({"a": 1, key: 1}),
        lambda: kv.insert_or_ignore({"a": 1, key: 1}),
        lambda: kv.atomic_add(key, 1),
        lambda: kv.key_range(key, "z"),
        lambda: kv.key_range("a", key),
        lambda: kv.dict_range(key, "z"),
    ]
    for call in calls:
        with pytest.raises(KeyError):
            call()
    assert kv.to_dict() == {}


@pytest.mark.parametrize(
    "key", ["", "a\0b", "'; drop table a_table; --", ":key", "漢", "k" * 100_000]
)
def test_any_text_is_a_key(kv: Any, key: str) -> None:
    """NUL included, for files may hold such keys."""
    kv[key] = 1
    kv.atomic_add(key, 1)
    assert kv.keys() == kv.key_range(key, key) == list(kv.get_many([key])) == [key]
    assert kv[key] == 2
    assert "a" not in kv
    del kv[key]


def test_a_value_that_json_cannot_hold_is_a_type_error(kv: Any) -> None:
    """Nothing is written, of a whole update either."""
    for call in (kv.set, kv.set_default, kv.__setitem__):
        with pytest.raises(TypeError):
            call("k", object())
    for many in (kv.update, kv.insert_or_ignore):
        with pytest.raises(TypeError):
            many({"a": 1, "k": {1, 2}})
    with pytest.raises(TypeError):
        kv.set("k", {1: 1, "a": 1})  # keys that cannot be sorted
    assert kv.to_dict() == {}


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_a_lone_surrogate_is_a_value_error(kv: Any, text: str) -> None:
    """As a key and in a value."""
    for key, value in ((text, 1), ("k", text), ("k", [{"a": text}]), ("k", {text: 1})):
        with pytest.raises(ValueError, match="surrogate"):
            kv[key] = value
    assert kv.to_dict() == {}


def test_making_a_table_that_is_there_changes_nothing(kv: Any) -> None:
    """As often as you like."""
    kv["k"] = 1
    assert kv.create_table() is None
    assert kv.to_dict() == {"k": 1}


def test_tables_of_one_file_are_apart(kind: Any, path: Path) -> None:
    """And handles of one table are the same."""
    with closing(kind(str(path), "a")) as a, closing(kind(str(path), "b")) as b:
        a["k"], b["k"] = 1, 2
        with closing(kind(str(path), "a")) as again:
            assert again["k"] == a["k"] == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_calls_give_the_same_on_both(tmp_path: Path, seed: int) -> None:
    """Results, exceptions' kinds, and the orders of what is left."""
    random_ = random.Random(seed)
    with KeyValueSqlite(tmp_path / "ours.db") as ours:
        theirs = Original(str(tmp_path / "theirs.db"))
        for _ in range(150):
            name, arguments = _any_call(random_)
            assert _outcome(ours, name, arguments) == _outcome(theirs, name, arguments), name
        assert ours.keys() == theirs.keys()
        assert list(ours.to_dict().items()) == list(theirs.to_dict().items())


def _any_call(random_: random.Random) -> tuple[str, tuple[Any, ...]]:
    def key() -> str:
        return random_.choice("abcdefgh")

    def number() -> int:
        return random_.randrange(-9, 9)

    return random_.choice(
        [
            ("set", (key(), number())),
            ("set_default", (key(), number())),
            ("update", ({key(): number(), key(): number()},)),
            ("insert_or_ignore", ({key(): number(), key(): number()},)),
            ("atomic_add", (key(), number())),
            ("remove", (key(),)),
            ("remove", (key(), True)),
            ("get", (key(), number())),
            ("__getitem__", (key(),)),
            ("get_range", (key(), key())),
            ("get_many", ([key(), key()],)),
            ("__len__", ()),
            ("__repr__", ()),
        ]
    )


def _outcome(kv: Any, name: str, arguments: tuple[Any, ...]) -> Any:
    try:
        return getattr(kv, name)(*arguments)
    except KeyError as error:
        return "KeyError", error.args


# --- adding, as documented --------------------------------------------------------------------


def test_text_that_spells_a_number_stays_text(ours: KeyValueSqlite) -> None:
    """The example of the original's README."""
    ours.set_default("atomic_var", "1")
    ours.atomic_add("atomic_var", "2")
    assert ours["atomic_var"] == "3"


@pytest.mark.parametrize(
    ("old", "amount", "new"),
    [
        ("1", 2, "3"),
        ("1", 0.5, "1.5"),
        ("1.5", "-1.5", "0.0"),
        ("+7", "007", "14"),
        (".5", 1, "1.5"),
    ],
)
def test_adding_to_text(ours: KeyValueSqlite, old: str, amount: Any, new: str) -> None:
    """Signs, leading zeros and decimals are understood."""
    ours["n"] = old
    ours.atomic_add("n", amount)
    assert ours["n"] == new


@pytest.mark.parametrize(
    "value",
    [None, True, [1], {"a": 1}, "", "one", " 1", "1_0", "٣", "0x1", "nan", "inf", "9" * 5000],
)
def test_a_value_that_is_no_number_is_left_as_it_was(ours: KeyValueSqlite, value: Any) -> None:
    """The original overwrites it."""
    ours["n"] = value
    with pytest.raises(kvsync.NotANumberError) as caught:
        ours.atomic_add("n", 1)
    assert isinstance(caught.value, TypeError)
    assert ours["n"] == value


@pytest.mark.parametrize(
    "amount", [None, True, [1], "", "two", "1e999", float("nan"), float("inf")]
)
def test_an_amount_that_is_no_number_is_refused(ours: KeyValueSqlite, amount: Any) -> None:
    """Whether there is a number to add it to or not."""
    ours["n"] = 1
    for key in ("n", "absent"):
        with pytest.raises(kvsync.NotANumberError):
            ours.atomic_add(key, amount)
    assert ours.to_dict() == {"n": 1}


@pytest.mark.parametrize(
    ("old", "amount"),
    [
        (2**63 - 1, 1),
        (-(2**63), -1),
        (str(2**63 - 1), "1"),
        (0, 2**70),
        (10**400, 1.5),
        (1e308, 1e308),
    ],
)
def test_a_sum_past_64_bits_changes_nothing(ours: KeyValueSqlite, old: Any, amount: Any) -> None:
    """SQLite would turn it into a float."""
    ours["n"] = old
    with pytest.raises(kvsync.CounterOverflowError) as caught:
        ours.atomic_add("n", amount)
    assert isinstance(caught.value, OverflowError)
    assert ours["n"] == old


def test_sums_are_exact_up_to_the_last_of_64_bits(ours: KeyValueSqlite) -> None:
    """No detour through floats."""
    ours["n"] = 2**63 - 2
    ours.atomic_add("n", 1)
    assert ours["n"] == 2**63 - 1
    ours["f"] = 2.0**53
    ours.atomic_add("f", 2)
    assert ours["f"] == 2.0**53 + 2


# --- the rest of a dict -----------------------------------------------------------------------

try:
    from test.mapping_tests import BasicTestMappingProtocol
except ImportError:  # a Python that came without its own tests
    BasicTestMappingProtocol = None


@pytest.mark.skipif(
    BasicTestMappingProtocol is None, reason="SKIPPED: this Python came without its own tests"
)
class TestMappingProtocol(BasicTestMappingProtocol or object):  # type: ignore[misc]
    """CPython's own tests of a mapping; JSON turns the reference's tuple into a list."""

    @pytest.fixture(autouse=True)
    def fresh_tables(self, path: Path) -> None:
        names = (f"table {i}" for i in itertools.count())
        self.type2test = lambda: KeyValueSqlite(path, next(names))

    def _reference(self) -> dict[str, Any]:
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in super()._reference().items()
        }


# pytest collects every TestCase that the module names.
del BasicTestMappingProtocol


def test_it_is_a_mutable_mapping(ours: KeyValueSqlite) -> None:
    """So whatever takes one takes it."""
    assert isinstance(ours, MutableMapping)
    ours.update([("a", 1)], b=2)
    ours |= {"c": 3}
    assert {**ours} == dict(ours) == ours == {"a": 1, "b": 2, "c": 3}
    assert ours | {"a": 0} == {"a": 0, "b": 2, "c": 3}
    assert list(reversed(ours)) == ["c", "b", "a"]
    assert list(ours.values()) == [1, 2, 3]
    with pytest.raises(TypeError):
        hash(ours)


def test_pop_and_popitem(ours: KeyValueSqlite) -> None:
    """The last item goes first, as with a dict."""
    ours.update({"b": 1, "a": None, "c": 3})
    assert ours.popitem() == ("c", 3)
    assert ours.pop("a") is None
    assert ours.pop("a", 5) == 5
    with pytest.raises(KeyError):
        ours.pop("a")
    assert ours.to_dict() == {"b": 1}
    assert ours.popitem() == ("b", 1)
    with pytest.raises(KeyError):
        ours.popitem()


def test_setdefault_returns_what_is_there(ours: KeyValueSqlite) -> None:
    """Unlike `set_default`."""
    assert ours.setdefault("k", [1]) == [1]
    assert ours.setdefault("k", [2]) == [1]
    assert ours.setdefault("none") is None
    assert "none" in ours


def test_iterating_allows_changes(ours: KeyValueSqlite) -> None:
    """It goes through the keys of one moment."""
    ours.update({"a": 1, "b": 2})
    for key in ours:
        del ours[key]
        ours[key + key] = 0
    assert ours.keys() == ["aa", "bb"]


def test_get_many_takes_more_keys_than_fit_into_a_statement(ours: KeyValueSqlite) -> None:
    """In portions."""
    ours.update({str(n): n for n in range(100)})
    assert ours.get_many(str(n) for n in range(10_000)) == ours


def test_updating_from_itself_and_from_another(ours: KeyValueSqlite, tmp_path: Path) -> None:
    """Any mapping is read at once."""
    with KeyValueSqlite(tmp_path / "other.db") as other:
        other.update({"a": 1})
        ours.update(other)
        ours.update(ours)
        ours.insert_or_ignore(other)
    assert ours == {"a": 1}


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), [-float("inf")], {"a": float("nan")}]
)
def test_what_json_has_no_word_for_is_refused(ours: KeyValueSqlite, value: Any) -> None:
    """By every method that writes, before anything is written."""
    calls: list[Callable[[], Any]] = [
        lambda: ours.set("k", value),
        lambda: ours.set_default("k", value),
        lambda: ours.setdefault("k", value),
        lambda: ours.update({"a": 1, "k": value}),
        lambda: ours.insert_or_ignore({"a": 1, "k": value}),
    ]
    for call in calls:
        with pytest.raises(kvsync.EncodeError):
            call()
    assert ours == {}


def test_a_value_that_contains_itself_is_refused(ours: KeyValueSqlite) -> None:
    """And one nested too deeply."""
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    for value in (circle, deep):
        with pytest.raises(kvsync.EncodeError):
            ours["k"] = value
    assert ours == {}


@pytest.mark.parametrize("key", [None, 1, b"k"])
def test_a_key_that_is_no_str_is_a_type_error_too(ours: KeyValueSqlite, key: Any) -> None:
    """Also where the original does not look."""
    calls: list[Callable[[], Any]] = [
        lambda: ours.get(key),
        lambda: ours.pop(key, None),
        lambda: ours.setdefault(key, 1),
        lambda: ours.get_many(["a", key]),
        lambda: ours.get_range("a", key),
        lambda: ours.update([("a", 1), (key, 1)]),
    ]
    for call in calls:
        with pytest.raises(kvsync.KeyTypeError) as caught:
            call()
        assert isinstance(caught.value, KeyError)
        assert isinstance(caught.value, TypeError)
    assert ours == {}


def test_a_key_with_a_lone_surrogate_is_a_key_error(ours: KeyValueSqlite) -> None:
    """Reading included."""
    for call in (ours.get, ours.has_key, ours.remove, ours.pop):
        with pytest.raises(kvsync.InvalidKeyError):
            call("\ud800")


@pytest.mark.parametrize("name", NAMES)
def test_a_table_name_is_quoted_never_interpreted(path: Path, name: str) -> None:
    """Whatever stands in it, every method works and no other table is touched."""
    with KeyValueSqlite(path, "t") as bystander, KeyValueSqlite(path, name) as kv:
        bystander["k"] = 1
        kv.update({"a": 1, "b": 2})
        kv.atomic_add("a", 1)
        kv.set_default("c", 3)
        assert kv.setdefault("c") == kv.pop("c") == 3
        assert kv.get_many("ab") == kv.dict_range("a", "b") == kv.to_dict() == {"b": 2, "a": 2}
        assert kv.popitem() == ("b", 2)
        kv.remove("a")
        kv.clear()
        assert (len(kv), kv.keys(), list(kv)) == (0, [], [])
        assert bystander == {"k": 1}
    found = rows(path, "select name from sqlite_schema where type = 'table'")
    assert found == [("t",), (name.replace("-", "_"),)]


@pytest.mark.parametrize(
    "name",
    ["", "a\0b", "\ud800", "kvsync_dict", "KVSYNC_x", "kvsync-x", "sqlite_schema", "SQLite-x"],
)
def test_a_reserved_or_impossible_table_name_is_refused(tmp_path: Path, name: str) -> None:
    """Before anything is written: not even the folder is made."""
    with pytest.raises(kvsync.InvalidNameError) as caught:
        KeyValueSqlite(tmp_path / "folder" / "a.db", name)
    assert isinstance(caught.value, ValueError)
    assert os.listdir(tmp_path) == []


def test_a_table_name_that_is_no_str_is_a_type_error(path: Path) -> None:
    """At once."""
    with pytest.raises(TypeError):
        KeyValueSqlite(path, 5)  # type: ignore[arg-type]


def test_letters_case_does_not_make_another_table(path: Path) -> None:
    """SQLite's tables are the same whatever the case of their ASCII letters."""
    with KeyValueSqlite(path, "Table") as kv, KeyValueSqlite(path, "tABLE") as same:
        kv["k"] = 1
        assert same == {"k": 1}


# --- where it lies ----------------------------------------------------------------------------


def test_every_kind_of_path_leads_to_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare file name, an os.PathLike, URLs."""
    monkeypatch.chdir(path.parent)
    name = path.name
    for place in (path, str(path), name, f"./{name}", f"sqlite:///{name}", f"sqlite:///{path}"):
        with KeyValueSqlite(place) as kv:
            kv.atomic_add("n", 1)
            assert kv.store.path == str(path)
    assert rows(path, "select value from default_table") == [("6",)]


@pytest.mark.parametrize("place", ["", ":memory:", "sqlite:///", "sqlite:///:memory:"])
def test_what_is_no_file_is_a_value_error(place: str) -> None:
    """Processes could not share it."""
    with pytest.raises(kvsync.StorePathError) as caught:
        KeyValueSqlite(place)
    assert isinstance(caught.value, ValueError)


def test_what_cannot_be_a_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    """With an OSError, as the original says for what it cannot open."""
    text = tmp_path / "text"
    text.write_text("no database, but text of some length\n" * 50)
    before = text.read_bytes()
    for place in (tmp_path, text):
        with pytest.raises(OSError, match=r"directory|no SQLite database"):
            KeyValueSqlite(place)
    assert text.read_bytes() == before


def test_it_pickles_with_all_its_options(path: Path) -> None:
    """So it can be an argument of a spawned process."""
    with KeyValueSqlite(path, "t-t", 5, wal=True, mode=0o640) as kv:
        kv["k"] = 1
        with pickle.loads(pickle.dumps(kv)) as copy:
            assert (copy.table_name, copy.timeout, copy.store.busy_timeout) == ("t_t", 5, 5)
            assert copy == kv
            assert copy.__reduce__() == kv.__reduce__()
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_closed_one_says_so(path: Path) -> None:
    """Its store as well; other handles go on."""
    kv, other = KeyValueSqlite(path), KeyValueSqlite(path)
    kv.close()
    kv.close()
    for call in (kv.keys, lambda: kv.set("k", 1), kv.store.stats):
        with pytest.raises(kvsync.ClosedError):
            call()
    other["k"] = 1
    other.close()


def test_a_bad_option_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Those of `kvsync.open`."""
    for options in ({"timeout": -1}, {"durability": "high"}, {"mode": 0o777}):
        with pytest.raises(ValueError, match=r"durability|mode|busy_timeout"):
            KeyValueSqlite(tmp_path / "folder" / "a.db", **options)
    assert os.listdir(tmp_path) == []


# --- the store on the same file ---------------------------------------------------------------


def test_the_file_holds_no_table_of_kvsyncs_before_the_store_is_used(path: Path) -> None:
    """Then both kinds of table live side by side."""
    sql = "select name from sqlite_schema where type = 'table' and name like 'kvsync%'"
    with KeyValueSqlite(path) as kv:
        kv["k"] = 1
        store = kv.store
        assert rows(path, sql) == []
        store.dict("d")["k"] = 2
        assert rows(path, sql) != []
        assert kv == {"k": 1}


def test_the_store_has_the_same_options(path: Path) -> None:
    """Its patience and its durability."""
    with KeyValueSqlite(path, timeout=7, durability="power") as kv:
        stats = kv.store.stats()
        assert (stats.busy_timeout, stats.durability) == (7, "power")


def test_a_transaction_of_the_store_holds_this_dicts_calls(path: Path) -> None:
    """Those of every handle on the file: one commit, or nothing."""
    with KeyValueSqlite(path, "a") as a, KeyValueSqlite(path, "b") as b, kvsync.open(path) as store:
        with a.store.transaction():
            a.set("k", 1)
            b.atomic_add("k", 2)
            store.counter("c").add(3)
            assert rows(path, "select count(*) from a") == [(0,)]
        assert (a["k"], b["k"], store.counter("c").value) == (1, 2, 3)
        with contextlib.suppress(ZeroDivisionError), store.transaction():
            a.update({"k": 0, "l": 0})
            b.pop("k")
            raise ZeroDivisionError
        assert (a.to_dict(), b.to_dict()) == ({"k": 1}, {"k": 2})


def test_a_refused_addition_leaves_the_transaction_around_it_whole(ours: KeyValueSqlite) -> None:
    """Only what failed is undone."""
    with ours.store.transaction():
        ours["text"] = "x"
        with pytest.raises(kvsync.NotANumberError):
            ours.atomic_add("text", 1)
        ours["after"] = 1
    assert ours == {"text": "x", "after": 1}


def test_timeout_is_how_long_a_call_waits_for_other_writers(path: Path) -> None:
    """Also for those that know nothing of kvsync. Reading does not wait."""
    with KeyValueSqlite(path, timeout=0.05) as kv, raw(path) as other:
        kv["k"] = 1
        other.execute("begin immediate")
        for call in (lambda: kv.set("k", 2), lambda: kv.atomic_add("k", 1), lambda: kv.pop("k")):
            with pytest.raises(kvsync.BusyError):
                call()
        assert kv["k"] == 1
        other.execute("rollback")
        kv["k"] = 2


# --- files of the original --------------------------------------------------------------------

WRITTEN = {"a": 1, "b": "ü", "c": [1.5, None], "n": 7}


@pytest.fixture
def theirs(path: Path) -> Any:
    """A file that keyvalue_sqlite wrote, and its handle."""
    kv = Original(str(path), "my-table")
    kv.update(WRITTEN)
    return kv


def test_opening_and_reading_a_file_of_the_original_leaves_every_byte(
    theirs: Any, path: Path
) -> None:
    """No table, no pragma, no log beside it."""
    before = path.read_bytes()
    with KeyValueSqlite(path, "my-table") as ours:
        assert ours == theirs.to_dict() == WRITTEN
        assert list(ours) == list(theirs)
    assert path.read_bytes() == before
    assert not (path.parent / f"{path.name}-wal").exists()


def test_writing_to_a_file_of_the_original_keeps_its_journal_mode(theirs: Any, path: Path) -> None:
    """And it reads what we wrote."""
    with KeyValueSqlite(path, "my-table") as ours:
        ours.update({"d": {"x": "漢"}, "a": 2})
        ours.atomic_add("n", 1)
        ours.pop("b")
        ours.store.counter("c").add()
        assert (
            theirs.to_dict()
            == ours.to_dict()
            == {"c": [1.5, None], "n": 8, "d": {"x": "漢"}, "a": 2}
        )
    assert journal_mode(path) == "delete"
    assert rows(path, "pragma integrity_check") == [("ok",)]


def test_a_file_of_the_original_goes_into_wal_mode_when_asked_to(theirs: Any, path: Path) -> None:
    """For good; the original reads and writes on."""
    with KeyValueSqlite(path, "my-table", wal=True) as ours:
        assert ours.store.stats().journal_mode == "wal"
        ours["d"] = 4
        theirs.atomic_add("n", 1)
        assert theirs.to_dict() == ours.to_dict() == WRITTEN | {"d": 4, "n": 8}
    assert journal_mode(path) == "wal"
    with KeyValueSqlite(path, "my-table", wal=True) as ours:
        assert ours["d"] == 4


def test_a_file_in_use_is_not_converted(theirs: Any, path: Path) -> None:
    """It stays as it is, and its content with it."""
    with raw(path) as other:
        other.execute("begin")
        other.execute("select * from my_table").fetchall()
        with pytest.raises(kvsync.BusyError):
            KeyValueSqlite(path, "my-table", 0.05, wal=True)
        other.execute("commit")
    assert journal_mode(path) == "delete"
    assert theirs.to_dict() == WRITTEN


def test_a_file_that_it_makes_is_in_wal_mode_and_the_originals_too(path: Path) -> None:
    """With the original's columns."""
    with KeyValueSqlite(path, "my-table") as ours:
        ours.update(WRITTEN)
        theirs = Original(str(path), "my-table")
        theirs.set("new", "theirs")
        theirs.remove("a")
        assert theirs.to_dict() == ours.to_dict()
        assert ours["new"] == "theirs"
        second = Original(str(path), "second")
        second["k"] = 1
        with KeyValueSqlite(path, "second") as same:
            assert same == {"k": 1}
    assert journal_mode(path) == "wal"
    columns = [row[1:] for row in rows(path, "pragma table_info(my_table)")]
    assert columns == [("key", "TEXT", 1, None, 1), ("value", "TEXT", 0, None, 0)]


def test_a_reader_in_a_file_of_the_original_delays_a_commit_and_no_more(
    theirs: Any, path: Path
) -> None:
    """Without WAL readers and writers exclude each other: that ends in BusyError, not in a loss."""
    with KeyValueSqlite(path, "my-table", 0.05) as ours, raw(path) as other:
        other.execute("begin")
        other.execute("select * from my_table").fetchall()
        for call in (lambda: ours.set("a", 2), lambda: ours.atomic_add("n", 1)):
            with pytest.raises(kvsync.BusyError):
                call()
        other.execute("commit")
        ours.atomic_add("n", 1)
    assert theirs.to_dict() == WRITTEN | {"n": 8}


def test_what_the_original_let_into_its_files_can_be_read(theirs: Any, path: Path) -> None:
    """NaN, which it writes and JSON does not know; there is no adding to it."""
    theirs.set("nan", float("nan"))
    with KeyValueSqlite(path, "my-table") as ours:
        assert ours["nan"] != ours["nan"]
        assert "NaN" in repr(ours)
        with pytest.raises(kvsync.NotANumberError):
            ours.atomic_add("nan", 1)


def test_what_is_no_json_is_a_decode_error_and_stays(theirs: Any, path: Path) -> None:
    """The original's `atomic_add` can leave such values; others are in nobody's way."""
    theirs.atomic_add("broken", "two words")
    with KeyValueSqlite(path, "my-table") as ours:
        for call in (ours.get, ours.pop, ours.get_or_raise, lambda key: ours.atomic_add(key, 1)):
            with pytest.raises(kvsync.DecodeError) as caught:
                call("broken")
            assert isinstance(caught.value, ValueError)
        assert ours["a"] == 1
        assert "broken" in ours
        ours.remove("broken")
        assert ours == WRITTEN


def test_a_table_that_is_gone_is_a_storage_error_and_can_be_made_again(path: Path) -> None:
    """Never a bare error of SQLite's."""
    with KeyValueSqlite(path) as ours:
        with raw(path) as other:
            other.execute("drop table default_table")
        with pytest.raises(kvsync.StorageError):
            ours.keys()
        with pytest.raises(kvsync.StorageError):
            ours["k"] = 1
        ours.create_table()
        ours["k"] = 1
        assert ours == {"k": 1}


# --- many processes ---------------------------------------------------------------------------


def _add(kind: str, path: str, times: int) -> None:
    with closing(KeyValueSqlite(path) if kind == "kvsync" else Original(path)) as kv:
        for i in range(times):
            kv.atomic_add("shared", 1)
            kv.set(f"{kind} {os.getpid()} {i}", i)


@pytest.mark.parametrize("maker", ["kvsync", "keyvalue_sqlite"])
def test_both_libraries_add_in_several_processes_and_lose_nothing(path: Path, maker: str) -> None:
    """In a WAL file of ours and in a rollback-journal file of the original's."""
    _add(maker, str(path), 1)
    run_all(_add, [(kind, str(path), 40) for kind in ("kvsync", "keyvalue_sqlite") * 2])
    assert journal_mode(path) == ("wal" if maker == "kvsync" else "delete")
    with KeyValueSqlite(path) as ours:
        assert ours["shared"] == 161
        assert len(ours) == 162
        assert ours.store.check().damage == ()
    assert Original(str(path)).get("shared") == 161


def _open_and_set(path: str, number: int, wal: bool) -> None:
    with KeyValueSqlite(path, wal=wal) as kv:
        kv[str(number)] = number


@pytest.mark.parametrize("made_before", [False, True])
def test_many_processes_may_open_it_first(path: Path, made_before: bool) -> None:
    """A fresh file, and one of the original's that all of them want in WAL mode."""
    if made_before:
        Original(str(path))
    run_all(_open_and_set, [(str(path), number, True) for number in range(6)])
    with KeyValueSqlite(path) as kv:
        assert kv == {str(number): number for number in range(6)}
    assert journal_mode(path) == "wal"


def _add_through(kv: KeyValueSqlite, times: int) -> None:
    for _ in range(times):
        kv.atomic_add("n", "1")


def test_a_handle_can_be_given_to_spawned_processes(ours: KeyValueSqlite) -> None:
    """It is pickled on the way."""
    ours["n"] = "0"
    run_all(_add_through, [(ours, 100)] * 2)
    assert ours["n"] == "200"


def test_forked_children_go_on_with_the_parents_handle(ours: KeyValueSqlite) -> None:
    """With connections of their own."""
    ours["n"] = "0"
    run_all(_add_through, [(ours, 100)] * 2, method="fork")
    assert ours["n"] == "200"

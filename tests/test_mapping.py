"""The dict: one key, many keys, key order, bad input, transactions, and many processes."""

import json
import math
import sqlite3
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.testing import ManualClock
from tests.crowds import PROCESSES, ROUNDS, use_dict
from tests.processes import expect, run_all, running
from tests.undone import undone
from tests.values import NOT_JSON, Reversing


@pytest.fixture
def d(store: kvsync.Store) -> kvsync.Dict:
    return store.dict("d")


@pytest.fixture
def timed(timed_store: kvsync.Store) -> kvsync.Dict:
    """A dict whose clock stands still."""
    return timed_store.dict("d")


# --- one key --------------------------------------------------------------------------------------


def test_what_comes_back_is_a_copy(d: kvsync.Dict) -> None:
    d["a"] = {"b": 1}
    d["a"]["b"] = 2
    assert d["a"] == {"b": 1}


def test_two_objects_of_one_name_are_one_dict(store: kvsync.Store, path: Path) -> None:
    store.dict("d")["k"] = 1
    with kvsync.open(path) as other:
        assert other.dict("d") == store.dict("d") == {"k": 1}
        assert other.dict("e") == {}


def test_the_empty_key_and_empty_values_are_something(d: kvsync.Dict) -> None:
    d[""] = None
    d["none"] = None
    assert "" in d
    assert d[""] is None
    assert d.get("none", 1) is None
    assert d.setdefault("none", 1) is None
    assert d.pop("", 1) is None
    assert list(d) == ["none"]


def test_setdefault_does_not_touch_what_is_there(d: kvsync.Dict) -> None:
    assert d.setdefault("k", [1]) == [1]
    assert d.setdefault("k", [2]) == [1]
    assert d.setdefault("n") is None
    assert d == {"k": [1], "n": None}
    assert d.setdefault("k", object()) == [1]


def test_popitem_takes_the_first_in_key_order(d: kvsync.Dict) -> None:
    d.update(b=2, a=1)
    assert d.popitem() == ("a", 1)
    assert d.popitem() == ("b", 2)
    with pytest.raises(KeyError):
        d.popitem()


def test_pop_and_delete_of_what_is_not_there_name_the_key(d: kvsync.Dict) -> None:
    for attempt in (lambda: d["gone"], lambda: d.pop("gone"), lambda: d.ttl("gone")):
        with pytest.raises(KeyError, match="gone"):
            attempt()
    with pytest.raises(KeyError, match="gone"):
        del d["gone"]
    assert d.pop("gone", default=None) is None


def test_compare_and_set_sets_only_what_is_as_expected(d: kvsync.Dict) -> None:
    assert not d.compare_and_set("k", 1, 2)
    assert not d.compare_and_set("k", None, 2)
    assert "k" not in d
    assert d.compare_and_set("k", kvsync.MISSING, {"a": 1})
    assert not d.compare_and_set("k", kvsync.MISSING, 2)
    assert not d.compare_and_set("k", {"a": 2}, 2)
    assert d.compare_and_set("k", {"a": 1}, None)
    assert d.compare_and_set("k", None, kvsync.MISSING)
    assert "k" not in d
    assert d.compare_and_set("k", kvsync.MISSING, kvsync.MISSING)
    assert repr(kvsync.MISSING) == "kvsync.MISSING"


def test_increment_starts_at_zero_and_keeps_the_kind_of_number(d: kvsync.Dict) -> None:
    assert repr(d.increment("k")) == "1"
    assert repr(d.increment("k", -3)) == "-2"
    assert repr(d.increment("k", 0.5)) == "-1.5"
    assert repr(d.increment("k")) == "-0.5"
    assert repr(d["k"]) == "-0.5"
    d["f"] = 2**53 + 2.0
    assert repr(d.increment("f", 1e-9)) == repr(2**53 + 2.0)


@pytest.mark.parametrize("value", ["1", None, True, [1], {"a": 1}, ""])
def test_incrementing_what_is_no_number_leaves_it_as_it_was(d: kvsync.Dict, value: Any) -> None:
    d["k"] = value
    with pytest.raises(kvsync.NotANumberError) as caught:
        d.increment("k")
    assert isinstance(caught.value, TypeError)
    assert d["k"] == value


@pytest.mark.parametrize(
    ("value", "by"),
    [
        (2**63 - 1, 1),
        (-(2**63), -1),
        (0, 2**63),
        (2**200, -1),
        (1.7e308, 1.7e308),
        (-1.7e308, -1.7e308),
        (10**400, 1.5),
        (1.5, 10**400),
    ],
)
def test_a_sum_that_is_too_large_changes_nothing(d: kvsync.Dict, value: float, by: float) -> None:
    d["k"] = value
    with pytest.raises(OverflowError) as caught:
        d.increment("k", by)
    assert isinstance(caught.value, kvsync.CounterOverflowError)
    assert d["k"] == value


def test_an_integer_sum_reaches_both_ends_of_64_bits(d: kvsync.Dict) -> None:
    assert d.increment("k", 2**63 - 1) == 2**63 - 1
    assert d.increment("k", -(2**64) + 1) == -(2**63)
    assert d["k"] == -(2**63)


@pytest.mark.parametrize("by", [True, "1", None, [1], 1j])
def test_incrementing_by_what_is_no_number_is_a_type_error(d: kvsync.Dict, by: Any) -> None:
    with pytest.raises(TypeError):
        d.increment("k", by)
    with pytest.raises(TypeError):
        d.increment_many({"a": 1, "k": by})
    assert d == {}


@pytest.mark.parametrize("by", [math.nan, math.inf, -math.inf])
def test_incrementing_by_what_is_not_finite_is_a_value_error(d: kvsync.Dict, by: float) -> None:
    with pytest.raises(ValueError, match="cannot add"):
        d.increment("k", by)
    assert d == {}


def test_increment_many_is_all_or_nothing(store: kvsync.Store, d: kvsync.Dict) -> None:
    assert d.increment_many({"a": 1, "b": 2.5}) == {"a": 1, "b": 2.5}
    d["text"] = "x"
    with store.transaction():
        d["c"] = 1
        with pytest.raises(kvsync.NotANumberError):
            d.increment_many({"a": 1, "text": 1, "b": 1})
    assert d == {"a": 1, "b": 2.5, "c": 1, "text": "x"}
    assert d.increment_many({}) == {}


# --- time to live ---------------------------------------------------------------------------------


def test_an_expired_entry_does_not_exist_for_any_method(
    timed: kvsync.Dict, clock: ManualClock
) -> None:
    def expired() -> kvsync.Dict:
        timed.clear()
        timed.set("k", 5, ttl=10)
        timed["stays"] = 1
        clock.advance(10)
        return timed

    d = expired()
    assert "k" not in d
    assert d.get("k") is None
    assert d.get_many(["k", "stays"]) == {"stays": 1}
    assert list(d) == list(reversed(d)) == list(d.prefix("")) == ["stays"]
    assert list(d.items()) == [("stays", 1)]
    assert list(d.values()) == [1]
    assert len(d) == 1
    assert d == {"stays": 1}
    assert d.stats().length == 1
    assert d.stats().expiring == 0
    for attempt in (lambda: d["k"], lambda: d.ttl("k"), lambda: expired().pop("k")):
        with pytest.raises(KeyError):
            attempt()
    with pytest.raises(KeyError):
        del expired()["k"]
    assert expired().pop("k", None) is None
    assert expired().popitem() == ("stays", 1)
    assert expired().setdefault("k", 7) == 7
    assert d["k"] == 7
    assert expired().increment("k") == 1
    assert d.ttl("k") is None
    assert not expired().compare_and_set("k", 5, 6)
    assert d.compare_and_set("k", kvsync.MISSING, 6)
    assert d.ttl("k") is None


def test_an_entry_lives_until_its_ttl_is_over(timed: kvsync.Dict, clock: ManualClock) -> None:
    timed.set("k", 1, ttl=10)
    timed.set("t", 1, timedelta(minutes=1))
    clock.advance(9.5)
    assert timed["k"] == 1
    assert timed.ttl("k") == 0.5
    assert timed.ttl("t") == 50.5
    assert timed.stats().expiring == 2
    clock.advance(0.5)
    assert list(timed) == ["t"]


def test_setting_clears_the_ttl_and_changing_keeps_it(
    timed: kvsync.Dict, clock: ManualClock
) -> None:
    def fresh() -> kvsync.Dict:
        timed.set("k", 1, ttl=10)
        return timed

    fresh()["k"] = 2
    assert timed.ttl("k") is None
    fresh().set("k", 2)
    assert timed.ttl("k") is None
    fresh().set_many({"k": 2})
    assert timed.ttl("k") is None
    fresh().increment("k")
    assert timed.ttl("k") == 10
    fresh().compare_and_set("k", 1, 2)
    assert timed.ttl("k") == 10
    fresh().setdefault("k", 2)
    assert timed.ttl("k") == 10
    fresh().set("k", 2, ttl=20)
    assert timed.ttl("k") == 20
    clock.advance(20)
    assert len(timed) == 0


def test_set_many_gives_all_the_same_end(timed: kvsync.Dict, clock: ManualClock) -> None:
    timed.set_many({"a": 1, "b": 2}, ttl=timedelta(seconds=3))
    assert timed.ttl("a") == timed.ttl("b") == 3
    clock.advance(3)
    assert timed == {}


def test_what_has_expired_is_removed_for_good_in_time(
    timed: kvsync.Dict, clock: ManualClock
) -> None:
    """Else a cache that nobody clears would grow for ever."""
    timed.set_many({str(i): i for i in range(50)}, ttl=1)
    clock.advance(1)
    for _ in range(5):
        timed.set("fresh", 1, ttl=1)
    rows = timed.store.engine.read("select key from kvsync_dict")
    assert rows == [("fresh",)]


BAD_TTL = [0, 0.0, -1, -0.5, math.nan, math.inf, -math.inf, 10**400]
BAD_TTL += [timedelta(0), timedelta(days=-1)]


@pytest.mark.parametrize("ttl", BAD_TTL, ids=lambda ttl: repr(ttl)[:20])
def test_a_ttl_that_is_not_positive_and_finite_is_a_value_error(d: kvsync.Dict, ttl: Any) -> None:
    with pytest.raises(ValueError, match="ttl"):
        d.set("k", 1, ttl=ttl)
    with pytest.raises(ValueError, match="ttl"):
        d.set_many({"k": 1}, ttl=ttl)
    assert d == {}


@pytest.mark.parametrize("ttl", [True, False, "10", b"10", [10], 1j])
def test_a_ttl_that_is_no_number_is_a_type_error(d: kvsync.Dict, ttl: Any) -> None:
    with pytest.raises(TypeError, match="ttl"):
        d.set("k", 1, ttl=ttl)
    with pytest.raises(TypeError, match="ttl"):
        d.set_many({"k": 1}, ttl=ttl)
    assert d == {}


# --- many keys ------------------------------------------------------------------------------------


def test_get_many_keeps_the_order_asked_for(d: kvsync.Dict) -> None:
    d.update({f"{i:04}": i for i in range(450)})
    wanted = [f"{i:04}" for i in range(500, -1, -1)]
    assert list(d.get_many(iter(wanted)).items()) == [(k, int(k)) for k in wanted if k < "0450"]
    assert d.get_many(["0001", "0001", "none"]) == {"0001": 1}
    assert d.get_many([]) == {}


def test_set_many_takes_what_dict_takes(store: kvsync.Store, d: kvsync.Dict) -> None:
    d.set_many({"a": 1})
    d.set_many([("b", 2), ("b", 3)])
    d.set_many((str(i), i) for i in range(2))
    d.set_many({})
    d.update([("c", 4)], a=5)
    d.update()
    store.dict("e").update(d)
    assert store.dict("e") == d == {"0": 0, "1": 1, "a": 5, "b": 3, "c": 4}


@pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON)
def test_a_value_the_codec_cannot_hold_changes_nothing(store: kvsync.Store, value: Any) -> None:
    d = store.dict("d")
    d.set("k", 1, ttl=1000)
    d["other"] = 2

    attempts: list[Callable[[], Any]] = [
        lambda: d.__setitem__("k", value),
        lambda: d.set("k", value),
        lambda: d.set("k", value, ttl=5),
        lambda: d.setdefault("new", value),
        lambda: d.compare_and_set("k", 1, value),
        lambda: d.compare_and_set("new", kvsync.MISSING, value),
        lambda: d.set_many([("a", 1), ("k", value), ("z", 1)]),
        lambda: d.update({"a": 1, "k": value, "z": 1}),
    ]
    for attempt in attempts:
        with pytest.raises(kvsync.EncodeError):
            attempt()
        assert d == {"k": 1, "other": 2}
    assert d.ttl("k") is not None


def test_a_value_of_100_mb_comes_back(path: Path) -> None:
    value = b"\0\xff" * 50_000_000
    with kvsync.open(path) as store:
        values = store.dict("d", codec="raw")
        values["k"] = value
        assert values["k"] == value
        assert len(values) == 1


def test_update_is_one_commit(d: kvsync.Dict) -> None:
    """What fails while the arguments are still being read has changed nothing either."""

    def failing() -> Iterator[tuple[str, int]]:
        yield "a", 1
        raise LookupError

    with pytest.raises(LookupError):
        d.update(failing())
    with pytest.raises(kvsync.KeyTypeError):
        d.update({"a": 1, 2: 2})
    assert d == {}


def test_the_union_is_a_plain_dict(d: kvsync.Dict) -> None:
    d["a"] = 1
    assert d | {"b": 2} == {"a": 1, "b": 2}
    assert {"a": 0, "b": 2} | d == {"a": 1, "b": 2}
    assert type(d | {}) is type({} | d) is dict
    for other in (1, None, [("a", 1)]):
        with pytest.raises(TypeError):
            d | other  # type: ignore[operator]
        with pytest.raises(TypeError):
            other | d  # type: ignore[operator]
    same = d
    same |= {"c": 3}
    assert same is d
    assert d == {"a": 1, "c": 3}


def test_equality_is_that_of_dicts(d: kvsync.Dict) -> None:
    d.update(a=1, b=[2])
    assert d == {"b": [2], "a": 1}
    assert d == {"b": [2], "a": 1}
    assert d != {"a": 1}
    assert d != [("a", 1), ("b", [2])]
    assert d == d  # noqa: PLR0124
    with pytest.raises(TypeError):
        hash(d)


def test_the_views_are_those_of_a_dict(d: kvsync.Dict) -> None:
    d.update(a=1, b=[2])
    assert d.keys() & {"a", "z"} == {"a"}
    assert d.keys() == {"a", "b"}
    assert ("a", 1) in d.items()
    assert ("a", 2) not in d.items()
    assert ("z", 1) not in d.items()
    assert [2] in d.values()
    assert 3 not in d.values()
    assert len(d.keys()) == len(d.values()) == len(d.items()) == 2
    keys = d.keys()
    d["c"] = 3
    assert list(keys) == ["a", "b", "c"]


# --- bad keys -------------------------------------------------------------------------------------

BY_KEY: dict[str, Callable[[kvsync.Dict, Any], Any]] = {
    "d[key]": lambda d, key: d[key],
    "d[key] = value": lambda d, key: d.__setitem__(key, 1),
    "del d[key]": lambda d, key: d.__delitem__(key),
    "in": lambda d, key: key in d,
    "in keys()": lambda d, key: key in d.keys(),  # noqa: SIM118
    "get": lambda d, key: d.get(key),
    "get with a default": lambda d, key: d.get(key, 1),
    "set": lambda d, key: d.set(key, 1),
    "set with a ttl": lambda d, key: d.set(key, 1, ttl=1),
    "ttl": lambda d, key: d.ttl(key),
    "pop": lambda d, key: d.pop(key),
    "pop with a default": lambda d, key: d.pop(key, None),
    "setdefault": lambda d, key: d.setdefault(key, 1),
    "compare_and_set": lambda d, key: d.compare_and_set(key, kvsync.MISSING, 1),
    "increment": lambda d, key: d.increment(key),
    "increment_many": lambda d, key: d.increment_many({"a": 1, key: 1}),
    "get_many": lambda d, key: d.get_many(["a", key]),
    "set_many": lambda d, key: d.set_many([("a", 1), (key, 1)]),
    "update": lambda d, key: d.update([("a", 1), (key, 1)]),
    "range from": lambda d, key: d.range(key),
    "range to": lambda d, key: d.range("a", key),
    "prefix": lambda d, key: d.prefix(key),
}

by_key = pytest.mark.parametrize("method", BY_KEY.values(), ids=BY_KEY)


@by_key
@pytest.mark.parametrize("key", [1, b"bytes", ("a",), 1.5, True], ids=repr)
def test_a_key_that_is_no_text_is_a_key_error_and_a_type_error(
    d: kvsync.Dict, method: Callable[[kvsync.Dict, Any], Any], key: Any
) -> None:
    with pytest.raises(kvsync.KeyTypeError) as caught:
        method(d, key)
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, TypeError)
    assert type(key).__name__ in str(caught.value)
    assert d == {}


@pytest.mark.parametrize("name", sorted(BY_KEY.keys() - {"range from", "range to"}))
def test_none_is_no_key(d: kvsync.Dict, name: str) -> None:
    """But it is the open end of a range."""
    with pytest.raises(kvsync.KeyTypeError):
        BY_KEY[name](d, None)


@by_key
@pytest.mark.parametrize("key", ["a\0b", "\0", "\ud800", "x\udfff"], ids=ascii)
def test_a_nul_or_a_lone_surrogate_in_a_key_is_refused(
    d: kvsync.Dict, method: Callable[[kvsync.Dict, Any], Any], key: str
) -> None:
    with pytest.raises(kvsync.InvalidKeyError) as caught:
        method(d, key)
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, ValueError)
    str(caught.value).encode()
    assert d == {}


def test_an_unhashable_key_is_refused_as_any_other(d: kvsync.Dict) -> None:
    for name in ("d[key]", "in", "get", "pop", "get_many"):
        with pytest.raises(kvsync.KeyTypeError):
            BY_KEY[name](d, ["a"])


def test_long_keys_are_keys(d: kvsync.Dict) -> None:
    keys = ["x" * 10_240, "x" * 10_239 + "y", "🙂" * 10_240]
    d.update(dict.fromkeys(keys, 1))
    assert list(d) == keys
    assert d.get_many(keys) == dict.fromkeys(keys, 1)
    assert list(d.prefix("x" * 10_239)) == keys[:2]


def test_a_subclass_of_str_is_a_key(d: kvsync.Dict) -> None:
    class Text(str):
        __slots__ = ()

    d[Text("k")] = 1
    assert Text("k") in d
    assert d.get_many([Text("k")]) == {"k": 1}
    assert d == {"k": 1}


# --- key order ------------------------------------------------------------------------------------

UNICODE = ["", " ", "A", "a", "aa", "b", "é", "\ud7ff", "\ue000", "\uffff", "🙂", "\U0010ffff"]


def test_keys_come_in_code_point_order(d: kvsync.Dict) -> None:
    d.update({key: i for i, key in reversed(list(enumerate(UNICODE)))})
    assert list(d) == UNICODE == sorted(UNICODE)
    assert list(d.values()) == list(range(len(UNICODE)))
    assert list(reversed(d)) == UNICODE[::-1]


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 95, 96, 97, 1500])
def test_every_key_is_seen_once_wherever_the_pages_end(d: kvsync.Dict, size: int) -> None:
    keys = [f"{i:05}" for i in range(size)]
    d.set_many((key, int(key)) for key in keys)
    assert list(d) == list(d.range()) == list(d.range().keys()) == keys
    assert list(reversed(d)) == keys[::-1]
    assert list(d.items()) == [(key, int(key)) for key in keys]
    assert list(d.range(reverse=True).values()) == list(range(size))[::-1]
    assert len(d) == size
    for limit in {0, 1, 31, 32, 33, size, size + 1}:
        assert list(d.range(limit=limit)) == keys[:limit]
        assert list(d.range(limit=limit, reverse=True)) == keys[::-1][:limit]


def test_a_range_begins_at_low_and_ends_before_high(d: kvsync.Dict) -> None:
    d.update(dict.fromkeys("abcde", 1))
    assert list(d.range("b", "d")) == ["b", "c"]
    assert list(d.range("b", "d", reverse=True)) == ["c", "b"]
    assert list(d.range("b", "d", reverse=True, limit=1)) == ["c"]
    assert list(d.range("d")) == ["d", "e"]
    assert list(d.range(None, "b")) == ["a"]
    assert list(d.range("aa", "cc")) == ["b", "c"]
    assert list(d.range("c", "c")) == list(d.range("d", "b")) == list(d.range("", "")) == []
    assert list(d.range("b", "d").items()) == [("b", 1), ("c", 1)]


def test_a_range_can_be_gone_through_again(d: kvsync.Dict) -> None:
    keys = d.range("a")
    assert list(keys) == []
    d["b"] = 1
    assert list(keys) == list(keys) == ["b"]
    assert "'a'" in repr(keys)


@pytest.mark.parametrize(
    "prefix", ["", "a", "aa", "é", "\ud7ff", "\U0010ffff", "a\U0010ffff", "%", "_", "*", "zz"]
)
def test_a_prefix_finds_what_begins_with_it(d: kvsync.Dict, prefix: str) -> None:
    stems = [*UNICODE, "%", "_", "*", "a\U0010ffff", "a\U0010ffff\U0010ffff"]
    keys = sorted({stem + more for stem in stems for more in UNICODE})
    d.update(dict.fromkeys(keys, 1))
    assert list(d.prefix(prefix)) == [key for key in keys if key.startswith(prefix)]


@pytest.mark.parametrize("limit", [1.0, "1", True, [1]])
def test_a_limit_that_is_no_int_is_a_type_error(d: kvsync.Dict, limit: Any) -> None:
    with pytest.raises(TypeError, match="limit"):
        d.range(limit=limit)


def test_a_negative_limit_is_a_value_error(d: kvsync.Dict) -> None:
    with pytest.raises(ValueError, match="limit"):
        d.range(limit=-1)


@pytest.mark.parametrize("reverse", [False, True])
def test_what_stays_is_seen_once_while_the_loop_itself_inserts_and_deletes(
    d: kvsync.Dict, reverse: bool
) -> None:
    """Beside, before and behind each key; the keys already seen are deleted too."""
    stay = [f"{i:04}" for i in range(0, 1000, 2)]
    d.set_many((f"{i:04}", 0) for i in range(1000))
    seen = []
    for count, key in enumerate(d.range(reverse=reverse)):
        seen.append(key)
        at = int(key[:4])
        for i in (at - 1, at + 1, at + 33, at - 33, at + 500, at - 500):
            if i % 2:
                d.pop(f"{i:04}", None)
        d[f"{at:04}x{count}"] = 1
        if count % 7 == 0 and not key.endswith("0"):
            d[f"{999 - at:04}y"] = 1
    assert len(seen) == len(set(seen))
    assert [key for key in seen if key in set(stay)] == (stay[::-1] if reverse else stay)
    assert seen == sorted(seen, reverse=reverse)


def test_the_key_just_seen_may_be_deleted(d: kvsync.Dict) -> None:
    d.set_many((f"{i:04}", 0) for i in range(500))
    for key in d:
        del d[key]
    assert len(d) == 0


def churn(pipe: Any, store: kvsync.Store) -> None:
    """Insert and delete odd keys all over the range until told to stop."""
    d = store.dict("d")
    done = 0
    while not pipe.poll():
        for step in range(1, 2000, 14):
            d.set_many({f"{(step + done) % 2000 | 1:04}": 1})
            d.pop(f"{(step * 3 + done) % 2000 | 1:04}", None)
        done += 2
        if done == 2:
            pipe.send("ready")
    pipe.send(done)


def test_what_stays_is_seen_once_while_another_process_inserts_and_deletes(
    store: kvsync.Store,
) -> None:
    d = store.dict("d")
    stay = [f"{i:04}" for i in range(0, 2000, 2)]
    d.set_many((key, 1) for key in stay)
    with running(churn, store) as (_, pipe):
        assert expect(pipe) == "ready"
        for _ in range(15):
            seen = list(d)
            assert [key for key in seen if not int(key) % 2] == stay
            assert seen == sorted(set(seen))
            assert [key for key, _ in d.items() if not int(key) % 2] == stay
            assert list(d.get_many(stay)) == stay
        pipe.send("stop")
        assert expect(pipe) > 2


def test_what_stays_is_seen_once_while_another_thread_inserts_and_deletes(
    store: kvsync.Store,
) -> None:
    d = store.dict("d")
    stay = [f"{i:04}" for i in range(0, 1000, 2)]
    d.set_many((key, 1) for key in stay)
    stop = threading.Event()

    def work() -> None:
        i = 1
        while not stop.is_set():
            d[f"{i:04}"] = 1
            i = (i + 14) % 1000 | 1
            d.pop(f"{i:04}", None)

    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(work)
        try:
            for _ in range(10):
                assert [key for key in d if not int(key) % 2] == stay
        finally:
            stop.set()
        worker.result()


def empty_the_log(path: Path) -> tuple[Any, int]:
    """What SQLite says of a full checkpoint from outside, and the bytes then left in the log."""
    raw = sqlite3.connect(path, timeout=0)
    try:
        ((busy, _, _),) = raw.execute("pragma wal_checkpoint(truncate)").fetchall()
        return busy, Path(f"{path}-wal").stat().st_size
    finally:
        raw.close()


@pytest.mark.parametrize("view", ["__iter__", "items", "values", "keys"])
def test_a_paused_iteration_lets_the_log_be_emptied(
    store: kvsync.Store, path: Path, view: str
) -> None:
    d = store.dict("d")
    d.set_many((f"{i:04}", i) for i in range(1000))
    paused = iter(getattr(d, view)())
    first = [next(paused) for _ in range(40)]
    d["0000"] = "written while it rests"
    assert Path(f"{path}-wal").stat().st_size > 0
    assert run_all(empty_the_log, [(path,)], "fork") == [(0, 0)]
    assert len(first) + len(list(paused)) == 1000


def test_a_hundred_thousand_keys_are_not_loaded_at_once(store: kvsync.Store) -> None:
    d = store.dict("d")
    store.engine.write(
        "insert into kvsync_dict (name, key, value)"
        " with recursive n (i) as (select 0 union all select i + 1 from n where i < 99999)"
        " select 'd', printf('%06d', i), :value from n",
        {"value": json.dumps("x" * 100)},
    )
    tracemalloc.start()
    try:
        assert sum(1 for _ in d) == 100_000
        assert sum(1 for _ in d.items()) == 100_000
        assert len(d) == 100_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


def test_pages_of_large_values_are_small(store: kvsync.Store) -> None:
    """The first page apart, which is of 32 values whatever their size."""
    d = store.dict("d", codec="raw")
    d.set_many((f"{i:03}", b"x" * 100_000) for i in range(300))
    tracemalloc.start()
    try:
        assert sum(len(value) for value in d.values()) == 30_000_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12_000_000


# --- transactions ---------------------------------------------------------------------------------


def test_a_transaction_is_all_or_nothing(store: kvsync.Store, d: kvsync.Dict) -> None:
    d.update(a=1, b=2)
    with undone(store):
        d["a"] = 5
        d.clear()
        d.set("c", 1, ttl=9)
        assert d.increment("n") == 1
        assert d.setdefault("e", 1) == 1
        assert list(d) == ["c", "e", "n"]
    assert d == {"a": 1, "b": 2}
    with store.transaction():
        assert d.pop("a") == 1
        assert d.popitem() == ("b", 2)
        d["z"] = 1
    assert d == {"z": 1}


def test_an_inner_transaction_that_fails_is_undone_alone(
    store: kvsync.Store, d: kvsync.Dict
) -> None:
    with store.transaction():
        d["outer"] = 1
        with undone(store):
            d["outer"] = 2
            d["inner"] = 2
        assert d == {"outer": 1}
        with store.transaction():
            d["second"] = 3
    assert d == {"outer": 1, "second": 3}


def test_a_failed_call_inside_a_transaction_leaves_the_rest(
    store: kvsync.Store, d: kvsync.Dict
) -> None:
    store.dict("d", codec="raw")["bad"] = "no JSON"
    with store.transaction():
        d["a"] = 1
        for attempt in (
            lambda: d.pop("bad"),
            lambda: d.popitem() and d.popitem(),
            lambda: d.set_many({"b": 1, "c": object()}),
            lambda: d.increment_many({"a": 1, "bad": 1}),
            lambda: d.pop("never"),
        ):
            with pytest.raises((KeyError, ValueError)), store.transaction():
                attempt()
    assert list(d) == ["a", "bad"]
    assert d["a"] == 1


def test_other_threads_see_a_transaction_only_when_it_ends(
    store: kvsync.Store, d: kvsync.Dict
) -> None:
    with ThreadPoolExecutor(1) as other:
        with store.transaction():
            d["k"] = 1
            assert other.submit(d.get, "k").result() is None
            assert other.submit(len, d).result() == 0
        assert other.submit(d.get, "k").result() == 1


# --- the object -----------------------------------------------------------------------------------


def test_stats_are_frozen(d: kvsync.Dict) -> None:
    d["k"] = 1
    d.set("t", 1, ttl=1000)
    stats = d.stats()
    assert (stats.name, stats.length, stats.expiring) == ("d", 2, 1)
    with pytest.raises(FrozenInstanceError):
        stats.length = 3  # type: ignore[misc]


def test_the_repr_tells_what_it_is(store: kvsync.Store) -> None:
    assert repr(store.dict("d")) == f"<kvsync.Dict 'd' in {store!r}>"
    assert repr(store.dict("d", codec="raw")) == f"<kvsync.Dict 'd', codec='raw' in {store!r}>"
    assert store.dict("d").store is store
    assert store.dict("d").name == "d"


def write_all(items: list[tuple[kvsync.Dict, Any]]) -> list[str]:
    for d, value in items:
        d["k"] = value
    return [repr(d) for d, _ in items]


def test_a_dict_is_an_argument_of_a_spawned_process(store: kvsync.Store) -> None:
    sent = [
        store.dict("json"),
        store.dict("pickle", codec="pickle"),
        store.dict("own", codec=Reversing()),
    ]
    items = [(sent[0], [1]), (sent[1], (1, 2)), (sent[2], "abc")]
    (reprs,) = run_all(write_all, [(items,)])
    assert reprs[:2] == [repr(sent[0]), repr(sent[1])]
    assert [d["k"] for d in sent] == [[1], (1, 2), "abc"]
    assert store.dict("own", codec="raw")["k"] == "cba"


def test_threads_share_one_object(d: kvsync.Dict) -> None:
    def work(i: int) -> None:
        for n in range(100):
            d.increment("sum")
            d[f"{i}-{n}"] = n

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert d["sum"] == 800
    assert len(d) == 801


# --- many processes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[kvsync.Dict, list[int]]]:
    """What 16 spawned processes, 500 rounds each, left behind."""
    with kvsync.open(tmp_path_factory.mktemp("crowd") / "store.db") as store:
        whole = run_all(use_dict, [(store, me) for me in range(PROCESSES)])
        yield store.dict("d"), whole
        assert store.check().damage == ()


Crowd = tuple[kvsync.Dict, list[int]]


def test_no_increment_of_16_processes_is_lost(crowd: Crowd) -> None:
    assert crowd[0]["increments"] == PROCESSES * ROUNDS
    assert crowd[0]["many"] == 2 * PROCESSES * ROUNDS


def test_no_compare_and_set_of_16_processes_is_lost(crowd: Crowd) -> None:
    assert crowd[0]["swapped"] == PROCESSES * ROUNDS


def test_no_transaction_of_16_processes_is_lost_or_torn(crowd: Crowd) -> None:
    assert crowd[0]["last"] == crowd[0]["copy"] == PROCESSES * ROUNDS
    assert crowd[1] == [ROUNDS] * PROCESSES


def test_setdefault_of_16_processes_has_one_winner_each(crowd: Crowd) -> None:
    assert crowd[0]["firsts"] == ROUNDS

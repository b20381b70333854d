"""How values are stored: what each codec holds, what it refuses, and what happens to strangers."""

import enum
import json
import math
import pickle
from collections import OrderedDict, namedtuple
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kvsync
from kvsync import codec as codecs
from tests.values import NOT_JSON, Reversing, nested

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


not_json = pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON)


class Color(enum.IntEnum):
    RED = 1


class Returning:
    """A codec whose `dumps` returns just what it is told to."""

    def __init__(self, stored: Any) -> None:
        self.stored = stored

    def dumps(self, _: object) -> Any:
        return self.stored

    def loads(self, stored: Any) -> Any:
        return stored


# --- JSON -----------------------------------------------------------------------------------------


@given(value=JSON)
@settings(deadline=None, max_examples=200, database=None)
def test_json_reads_back_what_was_written(value: Any) -> None:
    back = codecs.decode(codecs.JSON, codecs.encode(codecs.JSON, value))
    assert repr(back) == repr(value)


@pytest.mark.parametrize(
    ("value", "back"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (namedtuple("Point", "x y")(1, 2), [1, 2]),
        (Color.RED, 1),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (2**200, 2**200),
        ("\0", "\0"),
        ("\U0010ffff\ufffe", "\U0010ffff\ufffe"),
        (-0.0, -0.0),
        (5e-324, 5e-324),
        (nested(100), nested(100)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_of_what_is_nearly_json(store: kvsync.Store, value: Any, back: Any) -> None:
    values = store.dict("d")
    values["k"] = value
    assert repr(values["k"]) == repr(back)


@not_json
def test_json_refuses_what_it_would_not_read_back(value: Any) -> None:
    with pytest.raises(kvsync.EncodeError) as caught:
        codecs.encode(codecs.JSON, value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "[-Infinity]", "", "{", "[" * 200_000, "'a'"])
def test_text_that_is_not_json_is_a_decode_error(text: str) -> None:
    with pytest.raises(kvsync.DecodeError):
        codecs.decode(codecs.JSON, text)


def test_json_keeps_text_readable_in_the_file() -> None:
    assert codecs.encode(codecs.JSON, {"größe": [1, "🙂"]}) == '{"größe":[1,"🙂"]}'


# --- the others -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["", "text", "a\0b", "ü\U0010ffff", "null", b"", b"\0\xff", b"text", b"null"]
)
def test_raw_keeps_text_text_and_bytes_bytes(store: kvsync.Store, value: str | bytes) -> None:
    values = store.dict("d", codec="raw")
    values["k"] = value
    assert values["k"] == value
    assert type(values["k"]) is type(value)
    assert dict(values.items()) == {"k": value}


def test_raw_takes_other_bytes_as_bytes(store: kvsync.Store) -> None:
    values = store.dict("d", codec="raw")
    values.set_many({"array": bytearray(b"ab"), "view": memoryview(b"abcd")[::2]})
    assert dict(values.items()) == {"array": b"ab", "view": b"ac"}


@pytest.mark.parametrize("value", [1, 1.5, None, ["a"], {"a": 1}, True, "\ud800"])
def test_raw_refuses_all_else(value: Any) -> None:
    with pytest.raises(kvsync.EncodeError):
        codecs.encode(codecs.find("raw"), value)


@pytest.mark.parametrize(
    "value", [(1, 2), {1: {2}}, Decimal("1.5"), math.inf, b"\0", "\ud800", Color.RED], ids=ascii
)
def test_pickle_holds_what_can_be_pickled(store: kvsync.Store, value: Any) -> None:
    values = store.dict("d", codec="pickle")
    values["k"] = value
    assert values["k"] == value


def test_pickle_refuses_what_cannot_be_pickled() -> None:
    with pytest.raises(kvsync.EncodeError):
        codecs.encode(codecs.find("pickle"), lambda: None)


def test_an_object_with_dumps_and_loads_is_a_codec(store: kvsync.Store) -> None:
    values = store.dict("d", codec=Reversing())
    values["k"] = "abc"
    assert values["k"] == "abc"
    assert store.dict("d", codec="raw")["k"] == "cba"


def test_a_module_with_dumps_and_loads_is_a_codec(store: kvsync.Store) -> None:
    values = store.dict("d", codec=pickle)
    values["k"] = (1, 2)
    assert store.dict("d", codec="pickle")["k"] == (1, 2)
    assert store.dict("d", codec=json).get("other") is None


@pytest.mark.parametrize("stored", [1, None, ["text"], bytearray(b"x"), "\ud800"], ids=ascii)
def test_what_a_codec_may_not_return_is_an_encode_error(store: kvsync.Store, stored: Any) -> None:
    values = store.dict("d", codec=Returning(stored))
    with pytest.raises(kvsync.EncodeError):
        values["k"] = "anything"
    assert len(values) == 0


def test_whatever_a_codec_raises_becomes_an_encode_or_decode_error() -> None:
    class Failing:
        def dumps(self, _: object) -> str:
            raise OSError("no")

        loads = dumps

    with pytest.raises(kvsync.EncodeError, match="no") as caught:
        codecs.encode(Failing(), 1)
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(kvsync.DecodeError, match="no") as caught:
        codecs.decode(Failing(), "1")
    assert isinstance(caught.value.__cause__, OSError)


def test_running_out_of_memory_is_not_taken_for_a_bad_value() -> None:
    class Hungry:
        def dumps(self, _: object) -> str:
            raise MemoryError

        loads = dumps

    with pytest.raises(MemoryError):
        codecs.encode(Hungry(), 1)
    with pytest.raises(MemoryError):
        codecs.decode(Hungry(), "1")


@pytest.mark.parametrize("name", ["", "yaml", "JSON", "json "])
def test_an_unknown_codec_is_refused_at_once(store: kvsync.Store, name: str) -> None:
    with pytest.raises(ValueError, match="'json', 'raw', 'pickle'"):
        store.dict("d", codec=name)


@pytest.mark.parametrize("codec", [None, 1, object(), b"json"])
def test_what_is_no_codec_is_refused_at_once(store: kvsync.Store, codec: Any) -> None:
    with pytest.raises(TypeError):
        store.dict("d", codec=codec)


# --- writer and reader differ ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("writer", "reader", "value"),
    [
        ("raw", "json", b"bytes"),
        ("raw", "json", "no JSON"),
        ("raw", "pickle", b"no pickle"),
        ("raw", "pickle", "text"),
        ("json", "pickle", {"a": 1}),
        ("pickle", "json", {"a": 1}),
    ],
)
def test_another_codec_s_value_is_a_decode_error_and_loses_nothing(
    store: kvsync.Store, writer: str, reader: str, value: Any
) -> None:
    written, read = store.dict("d", codec=writer), store.dict("d", codec=reader)
    written["k"] = value
    for attempt in (
        lambda: read["k"],
        lambda: read.get("k"),
        lambda: read.pop("k"),
        lambda: read.pop("k", None),
        read.popitem,
        lambda: read.setdefault("k", 1),
        lambda: read.get_many(["k"]),
        lambda: read.compare_and_set("k", 1, 2),
        lambda: read.increment("k"),
        lambda: read.increment_many({"before": 1, "k": 1}),
        lambda: list(read.items()),
        lambda: list(read.values()),
    ):
        with pytest.raises(kvsync.DecodeError):
            attempt()
    assert list(read) == ["k"]
    assert written == {"k": value}


def test_what_cannot_be_read_can_be_deleted_and_replaced(store: kvsync.Store) -> None:
    store.dict("d", codec="raw").update(a="no JSON", b="no JSON")
    values = store.dict("d")
    assert "a" in values
    assert len(values) == 2
    del values["a"]
    values["b"] = 1
    assert values == {"b": 1}

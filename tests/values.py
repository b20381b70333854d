"""Values that codecs refuse, and a codec of the user's own. Imports little: children load it."""

import math
from collections import OrderedDict
from decimal import Decimal
from typing import Any


def circle() -> list[Any]:
    circular: list[Any] = []
    circular.append({"inner": circular})
    return circular


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


NOT_JSON = {
    "a NaN": math.nan,
    "an infinity": math.inf,
    "a negative infinity inside": {"a": [1, -math.inf]},
    "a lone surrogate": "\ud800",
    "a lone surrogate inside": {"a": ["\udfff"]},
    "a lone surrogate in a key": {"\ud800": 1},
    "bytes": b"bytes",
    "a set": {1, 2},
    "an object": object(),
    "a decimal": Decimal(1),
    "a complex number": 1j,
    "a key that is an int": {1: "one"},
    "a key that is None": {None: 1},
    "a key that is a bool, deep inside": [({"a": {True: 1}},)],
    "a key that is a float, in an ordered dict": OrderedDict([(1.5, 1)]),
    "a circle": circle(),
    "what is nested too deeply": nested(200_000),
    "an int of more digits than Python will print": 10**5000,
}


class Reversing:
    """A codec of the user's: text back to front."""

    def dumps(self, value: str) -> str:
        return value[::-1]

    def loads(self, stored: str) -> str:
        return stored[::-1]

"""How values become what the database stores: JSON unless the caller asks otherwise.

JSON is stored as text, everything else as text or bytes. No codec but "pickle" can run code when
a hostile file is read.
"""

import json
import json.encoder
import pickle
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from kvsync.errors import DecodeError, EncodeError

Stored = str | bytes


@runtime_checkable
class Codec(Protocol):
    """What `codec=` accepts: an object with `dumps` and `loads`."""

    def dumps(self, value: Any, /) -> Stored:
        """What to store for `value`.

        Raises: TypeError or ValueError for a value that it cannot hold. What it raises becomes an
        EncodeError.
        """

    def loads(self, stored: Any, /) -> Any:
        """The value for which `dumps` returned `stored`.

        Raises: ValueError for what it cannot read. What it raises becomes a DecodeError.
        """


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _one_shot(encoder: json.JSONEncoder) -> Callable[[Any], str]:
    """Its `encode`, without all that this makes anew for each value: most of the time it takes."""
    make = getattr(json.encoder, "c_make_encoder", None)  # not in every Python
    if make is None:
        return encoder.encode
    parts = make(
        None,
        encoder.default,
        json.encoder.encode_basestring,
        encoder.indent,
        encoder.key_separator,
        encoder.item_separator,
        encoder.sort_keys,
        encoder.skipkeys,
        encoder.allow_nan,
    )
    return lambda value: "".join(parts(value, 0))


class JsonCodec:
    """JSON, strictly: what is written is what is read, tuples aside (they come back as lists).

    Refused, because reading would give something else or fail: NaN and infinities, mappings whose
    keys are not `str`, lone surrogates.
    """

    def __init__(self) -> None:
        encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        self._encode = _one_shot(encoder)
        decoder = json.JSONDecoder(parse_constant=_refuse_constant)
        self._decode = decoder.decode
        self._scan = decoder.scan_once  # type: ignore[attr-defined]  # all that `raw_decode` calls

    def dumps(self, value: Any) -> str:
        if type(value) is int:
            return repr(value)
        if isinstance(value, _CONTAINERS):
            _require_text_keys(value)
        return self._encode(value)

    def loads(self, stored: Any) -> Any:
        if type(stored) is not str:
            raise ValueError(f"expected JSON text, found {type(stored).__name__}")
        try:
            value, end = self._scan(stored, 0)
        except (ValueError, StopIteration):
            end = -1
        # Spaces around a value, and what is no JSON, need the slower look.
        return value if end == len(stored) else self._decode(stored)


class RawCodec:
    """`str` and `bytes` as they are, nothing else."""

    def dumps(self, value: Any) -> Stored:
        if isinstance(value, str):
            return value
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        raise TypeError(f"codec 'raw' holds str and bytes, not {type(value).__name__}")

    def loads(self, stored: Any) -> Any:
        return stored


class PickleCodec:
    """Any picklable object. Unsafe where others can write the file: loading a pickle runs code."""

    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)

    def loads(self, stored: Any) -> Any:
        if type(stored) is not bytes:
            raise ValueError(f"expected a pickle, found {type(stored).__name__}")
        return pickle.loads(stored)


JSON = JsonCodec()
_BY_NAME: dict[str, Codec] = {"json": JSON, "raw": RawCodec(), "pickle": PickleCodec()}
_CONTAINERS = (dict, list, tuple)


def find(codec: str | Codec) -> Codec:
    """The codec of that name, or the object itself where it has `dumps` and `loads`.

    Raises: ValueError for an unknown name, TypeError for an object without these methods.
    """
    if isinstance(codec, str):
        try:
            return _BY_NAME[codec]
        except KeyError:
            known = ", ".join(map(repr, _BY_NAME))
            raise ValueError(f"unknown codec {codec!r}: use {known}, or an object") from None
    if not isinstance(codec, Codec):
        raise TypeError(f"a codec needs the methods dumps and loads; {codec!r} has not")
    return codec


def encode(codec: Codec, value: Any) -> Stored:
    """What to store for `value`. Raises: EncodeError."""
    try:
        stored = codec.dumps(value)
        if isinstance(stored, str) and not stored.isascii():
            stored.encode()  # a lone surrogate is no text: UnicodeEncodeError, a ValueError
    except MemoryError:
        raise
    except Exception as error:  # a codec is the caller's code and may raise anything
        raise EncodeError(f"cannot store this {type(value).__name__}: {error}") from error
    if not isinstance(stored, str | bytes):
        raise EncodeError(f"{codec!r}.dumps returned {type(stored).__name__}, not str or bytes")
    return stored


def decode(codec: Codec, stored: Any) -> Any:
    """The value that `encode` was given. Raises: DecodeError."""
    try:
        return codec.loads(stored)
    except MemoryError:
        raise
    except Exception as error:
        raise DecodeError(
            f"cannot read the stored value, which another codec may have written: {error}"
        ) from error


def _require_text_keys(value: Any) -> None:
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"JSON would turn the key {key!r} into a str")
        value = value.values()
    for item in value:
        if isinstance(item, _CONTAINERS):
            _require_text_keys(item)

"""get, set, del, incr: one value each."""

import json
import sys
from typing import Any, NoReturn

import click

from kvsync.cli import stores
from kvsync.cli.options import Asked, Verb, pass_asked, positive, with_json, with_store
from kvsync.cli.output import emit, jsonable, loaded, say
from kvsync.primitives.mapping import MISSING
from kvsync.printable import printable


class NotFoundError(click.ClickException):
    """The store has no such thing."""


@click.command(cls=Verb)
@click.argument("dict_", metavar="DICT")
@click.argument("key")
@with_store
@with_json
@pass_asked
def get(asked: Asked, dict_: str, key: str) -> None:
    """Print a value of a dict.

    Text and bytes are printed as they are, all else as JSON; a terminal gets escapes for what
    would drive it. With --json, bytes are {"base64": ...}. Exit status 1 if it has no such key.
    """
    with stores.existing(asked) as store:
        # Raw: what another codec wrote is shown too, and a pickle is never loaded.
        stored = store.dict(dict_, codec="raw").get(key, MISSING)
    if stored is MISSING:
        raise NotFoundError(f"{dict_!r} has no key {key!r}")
    _show(loaded(stored), as_json=asked.json)


def _show(value: Any, *, as_json: bool) -> None:
    if as_json or not isinstance(value, str | bytes):
        emit(jsonable(value))
    elif sys.stdout.isatty():
        text = value if isinstance(value, str) else value.decode(errors="backslashreplace")
        say(printable(text, keep="\n\t"))
    elif isinstance(value, bytes):
        sys.stdout.buffer.write(value)
    else:
        say(value)


@click.command("set", cls=Verb)
@click.argument("dict_", metavar="DICT")
@click.argument("key")
@click.argument("value")
@click.option("--ttl", type=float, metavar="SECONDS", callback=positive, help="Then it goes.")
@with_store
@with_json
@pass_asked
def set_(asked: Asked, dict_: str, key: str, value: str, ttl: float | None) -> None:
    """Set a value of a dict.

    The store is made if need be. VALUE is JSON; what is no JSON is taken as text, and - for what
    stdin holds.
    """
    wanted = parsed(read_stdin() if value == "-" else value)
    with stores.made(asked) as store:
        store.dict(dict_).set(key, wanted, ttl=ttl)
    if asked.json:
        emit(wanted)


def parsed(text: str) -> Any:
    """A value as it was typed: JSON, else the text itself. Raises: UsageError."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text
    except RecursionError:
        raise click.UsageError("VALUE is nested too deeply") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def read_stdin() -> str:
    """All of it, without the end of its last line. Raises: UsageError."""
    require_stdin()
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"stdin is not UTF-8: {error}") from error
    return text.removesuffix("\n")


def require_stdin() -> None:
    """Raises: UsageError if it is closed, which is not the same as empty."""
    if sys.stdin is None:
        raise click.UsageError("stdin is closed: there is nothing to read")


@click.command("del", cls=Verb)
@click.argument("dict_", metavar="DICT")
@click.argument("key")
@with_store
@with_json
@pass_asked
def del_(asked: Asked, dict_: str, key: str) -> None:
    """Remove a key of a dict. Exit status 1 if it was not there."""
    with stores.existing(asked) as store:
        try:
            del store.dict(dict_)[key]
        except KeyError:
            raise NotFoundError(f"{dict_!r} has no key {key!r}") from None
    if asked.json:
        emit(True)


@click.command(cls=Verb)
@click.argument("counter")
@click.argument("n", type=int, default=1)
@click.option("--label", help="Of a family of counters, the one under this label.")
@with_store
@with_json
@pass_asked
def incr(asked: Asked, counter: str, n: int, label: str | None) -> None:
    """Add to a counter, and print its new value.

    N is 1 unless given, and may be negative. The store is made if need be.
    """
    with stores.made(asked) as store:
        if label is None:
            emit(store.counter(counter).add(n))
        else:
            emit(store.counters(counter).add(label, n))

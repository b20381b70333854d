"""put: items from the command line, or from the lines of stdin."""

import os
import queue
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import click

import kvsync
from kvsync.cli import stores
from kvsync.cli.options import Asked, Verb, finite, not_negative, pass_asked, with_json, with_store
from kvsync.cli.output import emit, say
from kvsync.cli.queue import named
from kvsync.cli.values import parsed, read_stdin, require_stdin

_CHUNK = 500
"""Items in one commit."""


@dataclass(frozen=True)
class How:
    """The options of a put."""

    delay: float
    priority: float
    key: str | None
    timeout: float | None

    @property
    def plain(self) -> dict[str, Any]:
        return {"delay": self.delay, "priority": self.priority, "timeout": self.timeout}


@click.command(cls=Verb)
@click.argument("name")
@click.argument("values", nargs=-1, metavar="[VALUE]...")
@click.option("--lines", is_flag=True, help="An item from each line of stdin, blank ones aside.")
@click.option(
    "--delay",
    type=float,
    default=0,
    metavar="SECONDS",
    callback=not_negative,
    help="For which nobody gets it.",
)
@click.option(
    "--priority", type=float, default=0, callback=finite, help="Items of a higher one go first."
)
@click.option("--key", help="Of which at most one item waits; exit status 1 if one does.")
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    callback=not_negative,
    help="For which to wait for room, if it is full; else for ever.",
)
@with_store
@with_json
@pass_asked
def put(asked: Asked, /, name: str, values: tuple[str, ...], lines: bool, **options: Any) -> None:
    """Put items into a queue, and print their ids.

    The store and the queue are made if need be. VALUE is JSON; what is no JSON is taken as text,
    and - for what stdin holds.
    """
    how = How(**options)
    _check(values, lines, how)
    texts = [read_stdin() if value == "-" else value for value in values]
    items = _items_of(_lines()) if lines else iter([[parsed(text) for text in texts]])
    ids: list[int] = []
    try:
        with stores.made(asked) as store:
            for some in _put_all(store, name, items, how):
                ids += some if asked.json else []
                if not asked.json:
                    say("\n".join(map(str, some)))
    except BaseException:
        if ids:
            emit(ids)  # they are in, whatever has become of the others
        raise
    if asked.json:
        emit(ids)


def _check(values: tuple[str, ...], lines: bool, how: How) -> None:
    if lines and values:
        raise click.UsageError("either VALUEs or --lines")
    if not lines and not values:
        raise click.UsageError("a VALUE is missing; --lines takes them from stdin")
    if how.key is not None and len(values) != 1:
        raise click.UsageError("a --key is one item's: give one VALUE")


def _lines() -> Iterator[list[bytes]]:
    """The lines of stdin, as many at a time as have come. Raises: UsageError if it is closed."""
    require_stdin()
    begun: list[bytes] = []  # the pieces of a line that has not ended
    while chunk := os.read(0, 1 << 16):
        first, *more = chunk.split(b"\n")
        begun.append(first)
        if more:
            yield [b"".join(begun), *more[:-1]]
            begun = more[-1:]
    yield [b"".join(begun)]


def _items_of(chunks: Iterable[list[bytes]]) -> Iterator[list[Any]]:
    """Raises: UsageError for a line that is no text."""
    number = 0
    for chunk in chunks:
        yield [_item(line, number + nth) for nth, line in enumerate(chunk, 1) if line.strip()]
        number += len(chunk)


def _item(line: bytes, number: int) -> Any:
    try:
        return parsed(line.removesuffix(b"\r").decode())
    except UnicodeDecodeError as error:
        raise click.UsageError(f"line {number} of stdin is not UTF-8: {error}") from error


def _put_all(
    store: kvsync.Store, name: str, chunks: Iterable[list[Any]], how: How
) -> Iterator[list[int]]:
    for chunk in chunks:
        items = iter(chunk)
        # Into a bounded queue one by one: many at once would wait until there is room for all.
        size = 1 if named.as_stored(store, name).maxsize else _CHUNK
        while some := list(islice(items, size)):
            yield _put(store, name, some, how)


def _put(store: kvsync.Store, name: str, items: list[Any], how: How) -> list[int]:
    """Raises: ClickException if it is full, or has an item of that key."""
    while True:
        jobs = store.queue(name, store.queue(name).stats().maxsize)
        try:
            if how.key is None:
                return jobs.put_many(items, **how.plain)
            if number := jobs.put(items[0], key=how.key, **how.plain):
                return [number]
        except kvsync.LimitError:
            continue  # somebody has just given it another size
        except kvsync.ShutDown:
            how_to = f"`kvsync queue reopen {shlex.quote(name)}` opens it again"
            raise click.ClickException(f"the queue {name!r} was shut down; {how_to}") from None
        except queue.Full as error:
            raise click.ClickException(str(error)) from None
        raise click.ClickException(f"an item of the key {how.key!r} waits in {name!r} already")

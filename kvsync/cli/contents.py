"""ls: what is in the store, or in one of its dicts and families of counters."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import click

import kvsync
from kvsync.cli import stores
from kvsync.cli.options import Asked, Verb, at_most_or_none, pass_asked, with_json, with_store
from kvsync.cli.output import dump, jsonable, loaded, remark
from kvsync.cli.parties import States
from kvsync.cli.values import NotFoundError
from kvsync.primitives.overview import lines

STORED = ("dict", "counter", "counters", "queue")
HELD = ("lock", "rlock", "rwlock", "semaphore", "election", "once")
"""Kinds of what is there as long as somebody holds it or waits."""

KINDS = (*STORED, *HELD)

TABLE_LIMIT = 1000
"""Rows of a table, unless --limit asks for another number."""

_MEASURE = {"dict": "entries", "counter": "value", "counters": "labels", "queue": "items"}
_ONE = {"entries": "entry", "labels": "label", "items": "item"}


@dataclass(frozen=True)
class Thing:
    """Something in the store.

    `number` is a counter's value, what is held its holders, else how many it has under its name.
    """

    kind: str
    name: str
    number: int
    waiters: int = 0

    @property
    def summary(self) -> dict[str, Any]:
        if self.kind in HELD:
            numbers = {"holders": self.number, "waiters": self.waiters}
            return {"kind": self.kind, "name": self.name, **numbers}
        return {"kind": self.kind, "name": self.name, _MEASURE[self.kind]: self.number}


@dataclass(frozen=True)
class Choice:
    """Which of the names, keys and labels to list."""

    prefix: str
    limit: int | None

    def of(self, pairs: Iterator[Any]) -> Iterator[Any]:
        return islice(pairs, self.limit)


@click.command(cls=Verb)
@click.argument("what", nargs=-1, metavar="[KIND|NAME]...")
@click.option("--prefix", default="", help="Only the names, keys or labels that begin with it.")
@click.option("--limit", type=at_most_or_none, help="So many at most (tables: 1000).")
@with_store
@with_json
@pass_asked
def ls(asked: Asked, what: tuple[str, ...], prefix: str, limit: int | None) -> None:
    """List what is in the store.

    A KIND is dict, counter, counters or queue (see kvsync queue); or lock, semaphore ... for what
    is held or waited for now (see kvsync locks). A NAME lists what is under it; where it is also
    the name of a kind, or of something of another kind, write KIND:NAME.
    """
    choice = Choice(prefix, limit)
    with stores.existing(asked) as store:
        kinds = [word for word in what if word in KINDS]
        named = [thing for word in what if word not in KINDS for thing in _called(store, word)]
        listed = _list(store, kinds, choice) if kinds or not what else None
        if asked.json:
            _emit(store, listed or [], named, choice)
        else:
            _show(store, listed, named, choice)


def _list(store: kvsync.Store, kinds: list[str], choice: Choice) -> list[Thing]:
    names = (
        (kind, name)
        for kind in kinds or STORED
        if kind in STORED
        for name in store.names(kind)
        if name.startswith(choice.prefix)
    )
    stored = (_thing(store, kind, name) for kind, name in names)
    held = (
        thing
        for thing in _held(store)
        if thing.kind in (kinds or HELD) and thing.name.startswith(choice.prefix)
    )
    return list(choice.of(chain(stored, held)))


def _held(store: kvsync.Store) -> list[Thing]:
    """By the living."""
    states = States(store)
    found = [
        Thing(line.kind, line.name, states.living(line.holders), states.living(line.waiters))
        for line in lines(store.engine)
        if line.kind in HELD
    ]
    there = [thing for thing in found if thing.number or thing.waiters]
    return sorted(there, key=lambda thing: HELD.index(thing.kind))


def _thing(store: kvsync.Store, kind: str, name: str) -> Thing:
    match kind:
        case "dict":
            return Thing(kind, name, len(store.dict(name)))
        case "counter":
            return Thing(kind, name, store.counter(name).value)
        case "queue":
            return Thing(kind, name, _items_left(store.queue(name).stats()))
    return Thing(kind, name, len(store.counters(name)))


def _items_left(stats: kvsync.QueueStats) -> int:
    """Those that somebody has in hand are in it still; dead letters are not."""
    return stats.depth + stats.delayed + stats.in_flight


def _called(store: kvsync.Store, word: str) -> list[Thing]:
    """All that has this name. Raises: NotFoundError if nothing has."""
    kind, colon, name = word.partition(":")
    wanted = [(kind, name)] if colon and kind in KINDS else [(kind, word) for kind in KINDS]
    found = [
        _thing(store, kind, name)
        for kind, name in wanted
        if kind in STORED and name in store.names(kind)
    ]
    found += [thing for thing in _held(store) if (thing.kind, thing.name) in wanted]
    if not found:
        raise NotFoundError(f"{store.path} holds nothing called {word!r}")
    return found


def _items(store: kvsync.Store, thing: Thing, choice: Choice) -> Iterator[tuple[str, Any]]:
    """What is under its name, in order, a page at a time."""
    if thing.kind == "dict":
        pairs = store.dict(thing.name, codec="raw").prefix(choice.prefix).items()
        return choice.of((key, loaded(stored)) for key, stored in pairs)
    labels = store.counters(thing.name).items() if thing.kind == "counters" else ()
    return choice.of(pair for pair in labels if pair[0].startswith(choice.prefix))


# --- for programs: an array of objects, those that were named with their items -----------------


def _emit(store: kvsync.Store, listed: list[Thing], named: list[Thing], choice: Choice) -> None:
    pieces = [iter([dump(thing.summary)]) for thing in listed]
    pieces += [_with_items(store, thing, choice) for thing in named]
    _write("[")
    for number, piece in enumerate(pieces):
        _write(",\n " if number else "")
        for part in piece:
            _write(part)
    _write("]\n")


def _with_items(store: kvsync.Store, thing: Thing, choice: Choice) -> Iterator[str]:
    """A piece at a time: a dict may be larger than memory."""
    if thing.kind in ("counter", "queue") or thing.kind in HELD:
        yield dump(thing.summary)
        return
    yield dump(thing.summary).removesuffix("}") + ', "items": {'
    for number, (key, value) in enumerate(_items(store, thing, choice)):
        yield f"{',' if number else ''}\n  {dump(key)}: {dump(jsonable(value))}"
    yield "}}"


def _write(text: str) -> None:
    click.echo(text, nl=False)


# --- for people --------------------------------------------------------------------------------


def _show(
    store: kvsync.Store, listed: list[Thing] | None, named: list[Thing], choice: Choice
) -> None:
    from kvsync.cli import tables

    if listed is not None:
        rows = ((thing.kind, thing.name, _holding(thing)) for thing in listed)
        tables.show(tables.table("kind", "name", "holds", cut=["name"]), rows)
    for thing in named:
        if thing.kind == "counter":
            tables.show(tables.table("counter", "value"), [(thing.name, f"{thing.number:,}")])
        elif thing.kind == "queue" or thing.kind in HELD:
            tables.show(tables.table(thing.kind, "has"), [(thing.name, _holding(thing))])
        else:
            _show_items(store, thing, choice)


def _show_items(store: kvsync.Store, thing: Thing, choice: Choice) -> None:
    from kvsync.cli import tables

    limit = TABLE_LIMIT if choice.limit is None else choice.limit
    some = Choice(choice.prefix, limit)
    rows = [(key, _text(value)) for key, value in _items(store, thing, some)]
    key = "label" if thing.kind == "counters" else "key"
    tables.show(tables.table(key, thing.name, cut=[key, thing.name]), rows)
    if choice.limit is None and len(rows) == limit < thing.number:
        remark(f"the first {limit:,} of {_holding(thing)}: see --limit, --json")


def _holding(thing: Thing) -> str:
    if thing.kind in HELD:
        from kvsync.cli.tables import counted

        holders = counted(thing.number, "holder", "holders")
        return f"{holders}, {counted(thing.waiters, 'waiter', 'waiters')}"
    measure = _MEASURE[thing.kind]
    if measure == "value":
        return f"{thing.number:,}"
    return f"{thing.number:,} {_ONE[measure] if thing.number == 1 else measure}"


def _text(value: Any) -> str:
    return f"<{len(value):,} bytes>" if isinstance(value, bytes) else dump(value)

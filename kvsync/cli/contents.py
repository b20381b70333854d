"""ls: what is in the store, or in one of its dicts and families of counters."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import click

import kvsync
from kvsync.cli import stores
from kvsync.cli.options import Asked, Verb, at_most_or_none, pass_asked, with_json, with_store
from kvsync.cli.output import dump, jsonable, loaded, remark
from kvsync.cli.parties import States, duration
from kvsync.cli.values import NotFoundError
from kvsync.primitives.overview import lines
from kvsync.primitives.rate import refilled_in

STORED = ("dict", "counter", "counters", "queue", "rate_limiter", "once", "event", "barrier")
"""Kinds of which something stays: what the store has by these names."""

HELD = ("lock", "rlock", "rwlock", "semaphore", "election", "once")
"""Kinds of what somebody holds."""

WAITED_FOR = (*HELD, "event", "condition", "barrier", "queue")
"""Kinds of what somebody holds or waits for."""

KINDS = tuple(dict.fromkeys((*STORED, *WAITED_FOR)))

TABLE_LIMIT = 1000
"""Rows of a table, unless --limit asks for another number."""

_IS_THERE = {"once": "done", "event": "set", "barrier": "broken"}
"""What it says of one of these that the store has something by its name."""

_WORDS = {
    "entries": ("entry", "entries"),
    "labels": ("label", "labels"),
    "items": ("item", "items"),
    "holders": ("holder", "holders"),
    "waiters": ("waiter", "waiters"),
}
"""One of what is counted, and several."""


@dataclass(frozen=True)
class Thing:
    """Something in the store, and what there is of it, each under its name in JSON."""

    kind: str
    name: str
    has: dict[str, Any]

    @property
    def summary(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, **self.has}


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

    A KIND is dict, counter, counters, queue (see kvsync queue), rate_limiter or once; or lock,
    rlock, rwlock, semaphore, election, condition, event or barrier for what is held or waited for
    now (see kvsync locks), and for events that are set and barriers that are broken. A NAME lists
    what is under it; where it is also the name of a kind, or of something of another kind, write
    KIND:NAME.
    """
    choice = Choice(prefix, limit)
    with stores.existing(asked) as store:
        kinds = [word for word in what if word in KINDS]
        named = [thing for word in what if word not in KINDS for thing in _called(store, word)]
        listed = _listed(store, kinds or KINDS, choice) if kinds or not what else None
        if asked.json:
            _emit(store, listed or [], named, choice)
        else:
            _show(store, listed, named, choice)


def _listed(store: kvsync.Store, kinds: Iterable[str], choice: Choice) -> list[Thing]:
    return list(choice.of(_found(store, kinds, lambda name: name.startswith(choice.prefix))))


def _found(
    store: kvsync.Store, kinds: Iterable[str], is_meant: Callable[[str], bool]
) -> Iterator[Thing]:
    """What there is of these kinds, kind by kind, whose names are meant."""
    states, crowds = States(store), defaultdict[tuple[str, str], Counter[str]](Counter)
    for line in lines(store.engine):
        holders, waiters = states.living(line.holders), states.living(line.waiters)
        crowds[line.kind, line.name].update(holders=holders, waiters=waiters)
    for kind in kinds:
        stored = set(store.names(kind)) if kind in STORED else set[str]()
        there = {name for (each, name), crowd in crowds.items() if each == kind and crowd.total()}
        for name in sorted(stored | there):
            if is_meant(name):
                has = _has(store, kind, name)
                if kind in _IS_THERE:
                    has[_IS_THERE[kind]] = name in stored
                if kind in HELD:
                    has["holders"] = crowds[kind, name]["holders"]
                if kind in WAITED_FOR:
                    has["waiters"] = crowds[kind, name]["waiters"]
                yield Thing(kind, name, has)


def _has(store: kvsync.Store, kind: str, name: str) -> dict[str, Any]:
    """Besides who holds it, who waits, and that it is there."""
    match kind:
        case "dict":
            return {"entries": len(store.dict(name))}
        case "counter":
            return {"value": store.counter(name).value}
        case "counters":
            return {"labels": len(store.counters(name))}
        case "queue":
            return {"items": _items_left(store.queue(name).stats())}
        case "rate_limiter":
            return {"refilled_in": round(refilled_in(store.engine, name), 3)}
    return {}


def _items_left(stats: kvsync.QueueStats) -> int:
    """Those that somebody has in hand are in it still; dead letters are not."""
    return stats.depth + stats.delayed + stats.in_flight


def _called(store: kvsync.Store, word: str) -> list[Thing]:
    """All that has this name. Raises: NotFoundError if nothing has."""
    kind, colon, rest = word.partition(":")
    kinds, wanted = ([kind], rest) if colon and kind in KINDS else (KINDS, word)
    found = list(_found(store, kinds, lambda name: name == wanted))
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
    if thing.kind not in ("dict", "counters"):
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
        if thing.kind in ("dict", "counters"):
            _show_items(store, thing, choice)
        else:
            heading = "value" if thing.kind == "counter" else "has"
            tables.show(tables.table(thing.kind, heading), [(thing.name, _holding(thing))])


def _show_items(store: kvsync.Store, thing: Thing, choice: Choice) -> None:
    from kvsync.cli import tables

    limit = TABLE_LIMIT if choice.limit is None else choice.limit
    some = Choice(choice.prefix, limit)
    rows = [(key, _text(value)) for key, value in _items(store, thing, some)]
    key = "label" if thing.kind == "counters" else "key"
    tables.show(tables.table(key, thing.name, cut=[key, thing.name]), rows)
    if choice.limit is None and len(rows) == limit < next(iter(thing.has.values())):
        remark(f"the first {limit:,} of {_holding(thing)}: see --limit, --json")


def _holding(thing: Thing) -> str:
    return ", ".join(_worded(measure, amount) for measure, amount in thing.has.items())


def _worded(measure: str, amount: float) -> str:
    from kvsync.cli.tables import counted

    if measure in _WORDS:
        return counted(int(amount), *_WORDS[measure])
    if measure == "refilled_in":
        return f"refilled in {duration(amount)}" if amount else "refilled"
    if measure == "value":
        return f"{amount:,}"
    return measure if amount else f"not {measure}"


def _text(value: Any) -> str:
    return f"<{len(value):,} bytes>" if isinstance(value, bytes) else dump(value)

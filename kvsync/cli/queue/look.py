"""ls, peek, dead: what is in queues, and what became of it. They take nothing out."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import click

import kvsync
from kvsync.cli import stores
from kvsync.cli.options import Asked, Verb, at_most, pass_asked, with_json, with_store
from kvsync.cli.output import dump, emit, jsonable, loaded, say, shortened
from kvsync.cli.parties import duration
from kvsync.cli.queue import named
from kvsync.printable import printable

_TABLE_LIMIT = 1000
"""Dead letters in a table, unless -n asks for another number."""

_QUEUES = "name ready delayed in-hand dead oldest put/s done/s maxsize waiting state".split()
_SPARE = "put/s done/s maxsize oldest".split()
_ITEMS = "id item key priority attempts age due-in".split()
_DEAD = "id attempts age error".split()


@click.command(cls=Verb)
@with_store
@with_json
@pass_asked
def ls(asked: Asked) -> None:
    """List the queues.

    With what is in them, the age of the oldest item, and how many items come and go in a second,
    by the last minute or two. Who waits, waits to get an item or, of a full queue, to put one.
    """
    with stores.existing(asked) as store:
        found = [store.queue(name).stats() for name in store.names("queue")]
    if asked.json:
        emit([asdict(each) for each in found])
    elif found:
        _show(
            _QUEUES,
            [_queue(each) for each in found],
            text=("name", "waiting", "state"),
            spare=_SPARE,
        )
    else:
        say("there are no queues")


def _queue(stats: kvsync.QueueStats) -> list[str]:
    return [
        stats.name,
        f"{stats.depth:,}",
        _unless_zero(stats.delayed),
        _unless_zero(stats.in_flight),
        _unless_zero(stats.dead),
        "" if stats.oldest_age is None else duration(stats.oldest_age),
        f"{stats.put_rate:,.1f}",
        f"{stats.done_rate:,.1f}",
        _unless_zero(stats.maxsize),
        _waiting(stats),
        "shut down" if stats.is_shutdown else "",
    ]


def _waiting(stats: kvsync.QueueStats) -> str:
    waiting = ((stats.getters, "to get"), (stats.putters, "to put"))
    return ", ".join(f"{count:,} {what}" for count, what in waiting if count)


def _unless_zero(number: float) -> str:
    return f"{number:,}" if number else ""


@click.command(cls=Verb)
@click.argument("name")
@click.option("-n", "count", type=at_most, default=10, show_default=True, help="How many.")
@with_store
@with_json
@pass_asked
def peek(asked: Asked, name: str, count: int) -> None:
    """Show the first items that wait.

    In the order in which they are going to be taken; those that are delayed come last.
    """
    with stores.existing(asked) as store:
        found = named.there(store, name).peek(count)
    if asked.json:
        emit([{**item._asdict(), "item": jsonable(loaded(item.item))} for item in found])
    elif found:
        _show(_ITEMS, [_item(each) for each in found], text=("item", "key"), long="item")
    else:
        say(f"nothing waits in {printable(repr(name))}")


def _item(item: kvsync.Item) -> list[str]:
    return [
        str(item.id),
        written(item.item),
        item.key or "",
        f"{item.priority:g}" if item.priority else "",
        _unless_zero(item.attempts),
        _ago(item.enqueued_at),
        "" if item.due is None else duration(max(0.0, item.due - time.time())),
    ]


@click.command(cls=Verb)
@click.argument("name")
@click.option("-n", "count", type=at_most, help="So many at most (tables: 1000).")
@click.option("--error", is_flag=True, help="The items, and all of their errors.")
@with_store
@with_json
@pass_asked
def dead(asked: Asked, name: str, count: int | None, error: bool) -> None:
    """Show the dead letters.

    Items that failed too often, or were buried; the oldest death first, with the last line of the
    error.
    """
    with stores.existing(asked) as store:
        letters = named.there(store, name).dead
        if asked.json:
            emit([_plain(letter) for letter in letters.list(count)])
        elif error:
            _tell(letters.list(count))
        else:
            _show_dead(letters, count)


def _plain(letter: kvsync.DeadLetter) -> dict[str, Any]:
    return {**asdict(letter), "item": jsonable(loaded(letter.item))}


def _show_dead(letters: kvsync.DeadLetters, count: int | None) -> None:
    rows = [_letter(each) for each in letters.list(count or _TABLE_LIMIT)]
    if not rows:
        say("there are no dead letters")
        return
    _show(_DEAD, rows, text=("error",), long="error")
    if count is None and len(rows) == _TABLE_LIMIT < (number := len(letters)):
        click.echo(f"the first {len(rows):,} of {number:,}: see -n, --json", err=True)


def _letter(letter: kvsync.DeadLetter) -> list[str]:
    lines = (letter.error or "").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return [str(letter.id), f"{letter.attempts:,}", _ago(letter.died_at), last]


def _tell(letters: Iterable[kvsync.DeadLetter]) -> None:
    from kvsync.cli.tables import counted

    for letter in letters:
        attempts = counted(letter.attempts, "attempt", "attempts")
        say(f"{letter.id}, {attempts}, dead for {_ago(letter.died_at)}: {written(letter.item)}")
        for line in (letter.error or "no error was told").splitlines():
            say(f"    {printable(line)}".rstrip())


def written(stored: Any) -> str:
    """An item as text that is safe on a terminal."""
    value = loaded(stored)
    return f"<{len(value):,} bytes>" if isinstance(value, bytes) else printable(dump(value))


def _ago(since: float) -> str:
    return duration(max(0.0, time.time() - since))


def _show(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    text: Sequence[str],
    *,
    long: str = "",
    spare: Sequence[str] = (),
) -> None:
    """A table of the columns that say something; all that is no `text` is a number.

    In a narrow terminal the `spare` columns go, and then the `long` one is cut.
    """
    from kvsync.cli import tables

    columns = tables.without(tables.filled(headings, rows), spare)
    headings, *cells = zip(*tables.narrowed(columns, long, shortened), strict=True)
    numbers = [heading for heading in headings if heading not in text]
    tables.show(tables.table(*headings, right=numbers), cells)

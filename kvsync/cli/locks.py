"""locks: who holds and who waits for what, once or again and again."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import click

import kvsync
from kvsync.cli import stores
from kvsync.cli.options import Asked, Verb, pass_asked, positive, with_json, with_store
from kvsync.cli.output import emit, say
from kvsync.cli.parties import States, cut, details, duration, moment, plainly, verb
from kvsync.engine.process import this_process
from kvsync.primitives.overview import Holding, Line, Party, lines

_HEADINGS = "name kind state host pid thread command since for lease token".split()
_NUMBERS = ("pid", "thread", "token")
_SPARE = ("thread", "token", "since")

_NAP = 0.5  # seconds
_AROUND = 5
"""Lines of a page that are not parties: of the time, the heading, who is left out, the cursor."""


@click.command(cls=Verb)
@click.option(
    "-i",
    "--interval",
    type=float,
    metavar="SECONDS",
    callback=positive,
    help="Again and again, with so many seconds between, until Ctrl-C.",
)
@with_store
@with_json
@pass_asked
def locks(asked: Asked, interval: float | None) -> None:
    """Show who holds and who waits for what.

    Locks, semaphores, elections and all else that is acquired or waited for. Of each name the
    holders come first, then those who wait, the next one first. A narrow terminal shows no thread,
    token or since. With -i it shows as many as it has lines for; with --json and -i, each look is a
    line.
    """
    with stores.existing(asked) as store:
        if interval is None:
            _print(asked, store)
        else:
            _repeat(asked, store, interval)


def _repeat(asked: Asked, store: kvsync.Store, interval: float) -> None:
    with suppress(KeyboardInterrupt):  # which is how this is meant to end
        while True:
            if not asked.json:
                _begin_page(interval)
            _print(asked, store, _room())
            sys.stdout.flush()
            _sleep(interval)


def _sleep(seconds: float) -> None:
    """In short naps: a Ctrl-C that comes just before one is answered after it."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _NAP))


def _begin_page(interval: float) -> None:
    if sys.stdout.isatty():
        click.clear()
    say(f"{time.strftime('%Y-%m-%d %H:%M:%S')}, every {duration(interval)}")


def _room() -> int | None:
    """Parties for which a terminal has lines; None where it is no terminal."""
    if not sys.stdout.isatty():
        return None
    return max(1, shutil.get_terminal_size().lines - _AROUND)


def _print(asked: Asked, store: kvsync.Store, most: int | None = None) -> None:
    found, states = lines(store.engine), States(store)
    if asked.json:
        emit([plainly(line, states) for line in found])
    elif found:
        _show(found, states, most)
    else:
        say("nobody holds anything or waits")


def _show(found: list[Line], states: States, most: int | None) -> None:
    from kvsync.cli import tables

    every = [row for line in found for row in _rows(line, states)]
    rows = every[:most]
    columns = tables.without(tables.filled(_HEADINGS, rows), _SPARE, long="command")
    columns = tables.narrowed(columns, "command", cut)
    headings, *cells = zip(*columns, strict=True)
    tables.show(tables.table(*headings, right=_NUMBERS), cells)
    if len(rows) < len(every):
        say(f"... {len(every) - len(rows):,} more")


def _rows(line: Line, states: States) -> Iterator[list[str]]:
    for party in (*line.holders, *line.waiters):
        yield [line.name, line.kind, _state(line, party, states), *_cells(party)]


def _state(line: Line, party: Party, states: States) -> str:
    state = states.of(party)
    return ", ".join(
        [verb(line, party), *details(line, party), *([] if state == "alive" else [state])]
    )


def _cells(party: Party) -> list[str]:
    lease = token = ""
    if isinstance(party, Holding):
        lease = "" if party.lease_left is None else duration(party.lease_left)
        token = str(party.token)
    return [
        "" if party.host == this_process().host else party.host,
        str(party.pid),
        str(party.ident or ""),
        party.command,
        moment(party),
        duration(party.age),
        lease,
        token,
    ]

"""stats, backup, adopt: the store as a file."""

import os
from contextlib import closing
from dataclasses import asdict
from typing import Any

import click

from kvsync.cli import stores
from kvsync.cli.options import Asked, Verb, pass_asked, with_json, with_store
from kvsync.cli.output import emit, say
from kvsync.cli.parties import States
from kvsync.engine.sqlite import SqliteEngine
from kvsync.printable import printable

# This command's settings, not the file's; and what `kvsync locks` shows.
_NOT_TOLD = ("durability", "busy_timeout", "lines")


@click.command(cls=Verb)
@with_store
@with_json
@pass_asked
def stats(asked: Asked) -> None:
    """Print how large the store is, and how many use it.

    Holders and waiters are those that live; the sessions are those of the dead too (see `kvsync
    doctor`).
    """
    with stores.existing(asked) as store:
        now, states = store.stats(), States(store)
        found = {k: v for k, v in asdict(now).items() if k not in _NOT_TOLD}
        found["holders"] = sum(states.living(line.holders) for line in now.lines)
        found["waiters"] = sum(states.living(line.waiters) for line in now.lines)
    if asked.json:
        emit(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    from kvsync.cli import tables

    readable = {
        "path": found["path"],
        "file": tables.size(found["file_bytes"]),
        "log": tables.size(found["wal_bytes"]),
        "journal mode": found["journal_mode"],
        "SQLite": found["sqlite_version"],
        "schema": str(found["schema"]),
        "dicts": f"{found['dicts']:,}",
        "counters": f"{found['counters']:,}",
        "queues": f"{found['queues']:,}",
        "sessions": f"{found['sessions']:,}",
        "holders": f"{found['holders']:,}",
        "waiters": f"{found['waiters']:,}",
    }
    tables.show(tables.table("", "store"), readable.items())


@click.command(cls=Verb)
@click.argument("target", type=click.Path(dir_okay=False))
@with_store
@with_json
@pass_asked
def backup(asked: Asked, target: str) -> None:
    """Copy the store to another file.

    TARGET is replaced by the store as it is at one moment. Others go on reading and writing
    meanwhile. A damaged store replaces nothing: exit status 1.
    """
    with closing(stores.as_it_is(stores.require_file(stores.location(asked)))) as engine:
        try:
            engine.backup(target)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    if asked.json:
        emit({"path": os.path.realpath(target), "file_bytes": os.stat(target).st_size})


@click.command(cls=Verb)
@click.argument("file", type=click.Path())
@with_json
@pass_asked
def adopt(asked: Asked, file: str) -> None:
    """Set a database to WAL mode, for good.

    So readers and writers of a file that keyvalue_sqlite made no longer wait for each other. From
    then on let only kvsync write it: other programs checkpoint unguarded, and old SQLites can
    lose rows by that (see `kvsync doctor`).
    """
    path = stores.require_file(file)
    with closing(stores.as_it_is(path)) as engine:
        before = _converted(engine)
    if asked.json:
        emit({"path": path, "before": before, "journal_mode": "wal"})
    else:
        was = "was in WAL mode already" if before == "wal" else f"is in WAL mode, was in {before}"
        say(f"{printable(path)} {was}")


def _converted(engine: SqliteEngine) -> str:
    """The mode that it had before."""
    before = engine.facts().journal_mode
    if before != "wal":
        engine.convert_to_wal()
    return before

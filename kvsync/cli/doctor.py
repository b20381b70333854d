"""doctor: a list of checks, each with a state and a sentence.

The first ones only look at the file from outside. The others need it opened; if that fails, why
is their one line.
"""

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from typing import Any

import click

import kvsync
from kvsync.cli import stores
from kvsync.cli.options import Asked, Verb, pass_asked, with_json, with_store
from kvsync.cli.output import emit, reason
from kvsync.cli.parties import cut
from kvsync.engine.gate import Sidecar
from kvsync.engine.location import NETWORK_FILESYSTEMS, filesystem
from kvsync.engine.process import Process
from kvsync.engine.schema import VERSION
from kvsync.engine.setup import has_wal_reset_bug
from kvsync.engine.sqlite import SqliteEngine
from kvsync.errors import CorruptError, KvsyncError, OpenError

LONG_LOG = 16 << 20
"""Bytes of `-wal` that are more than kvsync lets it grow to when all goes well."""

_NAMED = 5
"""Dead processes that a sentence names."""

_TOLD = ("host", "pid", "command")


@dataclass(frozen=True)
class Check:
    """What was found: `state` is "ok", "warning" or "problem"."""

    name: str
    state: str
    sentence: str
    dead: tuple[Process, ...] = ()

    @property
    def plain(self) -> dict[str, Any]:
        """It as JSON, with the dead if there are any."""
        found = asdict(self)
        found["dead"] = [{key: getattr(each, key) for key in _TOLD} for each in self.dead]
        return found if self.dead else {k: v for k, v in found.items() if k != "dead"}


@click.command(cls=Verb)
@click.option("--reap", is_flag=True, help="Free what dead processes held, and say whose it was.")
@with_store
@with_json
@pass_asked
def doctor(asked: Asked, reap: bool) -> int:
    """Look the store over.

    Exit status 1 if there is a problem; a warning is none. Changes nothing but what --reap says.
    The whole file is read; writers can go on meanwhile.
    """
    path = stores.require_file(stores.location(asked))
    checks = list(examined(path, reap=reap))
    healthy = all(check.state != "problem" for check in checks)
    if asked.json:
        emit({"path": path, "healthy": healthy, "checks": [check.plain for check in checks]})
    else:
        _show(path, checks)
    return 0 if healthy else 1


def _show(path: str, checks: list[Check]) -> None:
    from rich.text import Text

    from kvsync.cli import tables
    from kvsync.printable import printable

    heading = tables.table("check", "state", "finding", keep=["check", "state"])
    rows = [(c.name, tables.mark(c.state), Text(printable(c.sentence))) for c in checks]
    tables.console().print(Text(printable(path), "bold"), soft_wrap=True)
    tables.show(heading, rows)


def examined(path: str, *, reap: bool = False) -> Iterator[Check]:
    """Every check of the file at `path`, in order."""
    for look in OUTSIDE:
        yield look(path)
    with closing(stores.as_it_is(path, allow_network=True)) as engine:
        try:
            engine.facts()
        except CorruptError as error:
            yield Check("integrity", "problem", reason(error))
        except KvsyncError as error:
            yield Check("opening", "problem", reason(error))
        else:
            yield from (look(engine) for look in INSIDE)
            # Counted before the dead are reaped, with whom most of them go.
            before = left_behind(engine) if reap else set[str]()
            yield sessions(engine, reap=reap)
            yield doorbells(engine, before, reap=reap)


# --- from outside ------------------------------------------------------------------------------


def sqlite(_: str) -> Check:
    """The version, and whether it has the WAL-reset bug."""
    version = f"SQLite {sqlite3.sqlite_version}"
    if not has_wal_reset_bug():
        return Check("SQLite", "ok", f"{version} is free of the WAL-reset bug.")
    return Check(
        "SQLite",
        "ok",
        f"{version} has the WAL-reset bug: a checkpoint that races a commit can lose rows. kvsync"
        " is safe from it, for it checkpoints only behind its gate, with all other kvsync writers"
        " out. Let no other program write this file in WAL mode.",
    )


def file_system(path: str) -> Check:
    """Its type: a network's locks are not to be trusted."""
    kind = filesystem(path)
    if kind in NETWORK_FILESYSTEMS:
        sentence = f"{kind}: SQLite's locks do not hold between machines there. Use a local disk."
        return Check("file system", "problem", sentence)
    if not kind:
        return Check("file system", "warning", "Its type is unknown: see that it is local.")
    return Check("file system", "ok", f"{kind}, which is local.")


def hard_links(path: str) -> Check:
    """SQLite keeps a log for each name of a file, so there must be one."""
    count = os.stat(path).st_nlink
    if count == 1:
        return Check("hard links", "ok", "The file has one name.")
    sentence = (
        f"The file has {count} names, and SQLite keeps a separate log for each: writes get lost."
        " Copy it to a file of its own."
    )
    return Check("hard links", "problem", sentence)


def permissions(path: str) -> Check:
    """Whoever may use the file must be able to use all that lies beside it."""
    mode = _mode(path)
    if not os.access(path, os.R_OK | os.W_OK):
        sentence = f"The file is {_owned(path)}, {mode:03o}: this user may not read and write it."
        return Check("permissions", "problem", sentence)
    # As kvsync makes them: files alike, and whoever may read may pass through the folder.
    wanted = dict.fromkeys([path + "-wal", path + "-shm"], mode & 0o666)
    wanted |= _wanted_in_folder(Sidecar(path).folder, mode & 0o666)
    odd = [flaw for beside, right in wanted.items() if (flaw := _flaw(beside, right, path))]
    if odd:
        sentence = f"The file is {_owned(path)}, {mode:03o}, but {'; '.join(odd)}."
        return Check("permissions", "warning", sentence)
    return Check("permissions", "ok", f"{_owned(path)}, {mode:03o}, and all beside it alike.")


def _wanted_in_folder(folder: str, mode: int) -> dict[str, int]:
    try:
        found = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return {}  # the first writer makes it
    except PermissionError:
        found = []
    wanted = {folder: mode | (mode & 0o444) >> 2}
    for entry in found:
        is_folder = entry.is_dir(follow_symlinks=False)
        wanted |= _wanted_in_folder(entry.path, mode) if is_folder else {entry.path: mode}
    return wanted


def _flaw(beside: str, wanted: int, path: str) -> str | None:
    try:
        found, file = os.stat(beside), os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{os.path.basename(beside)} cannot be looked at ({error.strerror})"
    name, mode = os.path.basename(beside), stat.S_IMODE(found.st_mode)
    if mode != wanted:
        return f"{name} is {mode:03o}, not {wanted:03o}"
    # Members of a group that may write own what each of them made.
    shared = found.st_gid == file.st_gid and mode & 0o060 == 0o060
    if (found.st_uid, found.st_gid) != (file.st_uid, file.st_gid) and not shared:
        return f"{name} is {_owned(beside)}"
    return None


def _mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def _owned(path: str) -> str:
    found = os.stat(path)
    return f"{_named('pwd', found.st_uid)}:{_named('grp', found.st_gid)}"


def _named(database: str, number: int) -> str:
    import grp
    import pwd

    try:
        return pwd.getpwuid(number)[0] if database == "pwd" else grp.getgrgid(number)[0]
    except KeyError:
        return str(number)


# --- from inside -------------------------------------------------------------------------------


def journal_mode(engine: SqliteEngine) -> Check:
    """WAL, or what a foreign file came with."""
    mode = engine.facts().journal_mode
    if mode == "wal":
        return Check("journal mode", "ok", "WAL: readers and writers do not wait for each other.")
    sentence = (
        f"{mode}, a rollback journal: readers and writers wait for each other. If only kvsync"
        " uses the file, `kvsync adopt` sets WAL mode."
    )
    return Check("journal mode", "warning", sentence)


def tables(engine: SqliteEngine) -> Check:
    """The version of kvsync's tables."""
    if not stores.has_tables(engine):
        return Check("tables", "ok", "None of kvsync's: only KeyValueSqlite, or others, use it.")
    try:
        with kvsync.open(engine.path, allow_network=True) as store:
            found = store.engine.facts().schema
    except OpenError as error:
        return Check("tables", "problem", reason(error))
    if found > VERSION:
        sentence = f"Schema {found}, of a newer kvsync; this one has {VERSION}."
        return Check("tables", "warning", sentence)
    return Check("tables", "ok", f"Schema {found}, which is this kvsync's.")


def sizes(engine: SqliteEngine) -> Check:
    """The file's, and the log's, which must not grow for ever."""
    from kvsync.cli.tables import size

    facts = engine.facts()
    found = f"The file has {size(facts.file_bytes)}, its -wal {size(facts.wal_bytes)}"
    if facts.wal_bytes <= LONG_LOG:
        return Check("sizes", "ok", f"{found}.")
    sentence = f"{found}, which is long: some reader stays so long that it cannot be emptied."
    return Check("sizes", "warning", sentence)


def integrity(engine: SqliteEngine) -> Check:
    """What SQLite says of every page."""
    if engine.facts().journal_mode != "wal":
        sentence = "Not checked: without WAL mode, writers would have to wait for it."
        return Check("integrity", "ok", sentence)
    try:
        damage = engine.health().damage
    except KvsyncError as error:
        damage = (reason(error),)
    if not damage:
        return Check("integrity", "ok", "Every page is sound.")
    more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
    sentence = f"{damage[0]}{more}. Restore a backup, or try `sqlite3 FILE .recover`."
    return Check("integrity", "problem", sentence)


def sessions(engine: SqliteEngine, *, reap: bool) -> Check:
    """Of processes that died: what they held is freed by whoever wants it next, or by --reap."""
    if not stores.has_tables(engine):
        return Check("sessions", "ok", "None: only kvsync's own tables have them.")
    try:
        with kvsync.open(engine.path, allow_network=True) as store:
            # Not by its stats, which would pass over a stopped waiter: the doctor changes nothing.
            ((count,),) = store.engine.read("select count(*) from kvsync_session")
            gone = tuple(store.session.reap_all() if reap else store.session.dead().values())
    except KvsyncError as error:
        return Check("sessions", "problem" if reap else "warning", reason(error))
    if not gone:
        return Check("sessions", "ok", f"{count:,}, none of them dead.")
    if reap:
        return Check("sessions", "ok", f"Freed what was held by {_whose(gone)}.", gone)
    sentence = (
        f"{len(gone):,} of {count:,} dead: {_whose(gone)}. The next one who wants what they held"
        " frees it, or `kvsync doctor --reap` does."
    )
    return Check("sessions", "warning", sentence, gone)


def left_behind(engine: SqliteEngine) -> set[str]:
    """Doorbells of the dead; none while that cannot be told, which `doorbells` reports."""
    if engine.doorbells.count() and stores.has_tables(engine):
        with suppress(KvsyncError), kvsync.open(engine.path, allow_network=True) as store:
            return set(store.session.left_behind())
    return set()


def doorbells(engine: SqliteEngine, before: set[str], *, reap: bool) -> Check:
    """FIFOs of waiters that died: a new session sweeps them up now and then, or --reap does.

    `before` are those that were left behind before the dead were reaped.
    """
    count = engine.doorbells.count()
    if not (count or before) or not stores.has_tables(engine):
        return Check("doorbells", "ok", f"{count:,}.")
    try:
        with kvsync.open(engine.path, allow_network=True) as store:
            if reap:
                store.session.sweep()
            left = store.session.left_behind()
    except KvsyncError as error:
        return Check("doorbells", "warning", reason(error))
    if removed := len(before.difference(left)) if reap else 0:
        return Check("doorbells", "ok", f"Removed {removed:,} that the dead left behind.")
    if not left:
        return Check("doorbells", "ok", f"{count:,}, none of them left behind.")
    sentence = (
        f"{len(left):,} of {count:,} were left behind by the dead. Now and then a new process"
        " removes them, or `kvsync doctor --reap` does."
    )
    return Check("doorbells", "ok", sentence)


def _whose(gone: tuple[Process, ...]) -> str:
    named = [f"process {each.pid} ({cut(each.command, 60)})" for each in gone[:_NAMED]]
    more = f" and {len(gone) - _NAMED:,} more" if len(gone) > _NAMED else ""
    return ", ".join(named) + more


OUTSIDE: list[Callable[[str], Check]] = [sqlite, file_system, hard_links, permissions]
INSIDE: list[Callable[[SqliteEngine], Check]] = [journal_mode, tables, sizes, integrity]

"""Files that nobody should have to open: a store that was tampered with, or no store at all.

A hostile file is made from an original: a store in which everything was used, by a process that
died in the middle, with a log of commits that are not in the database file yet.
"""

import multiprocessing
import os
import pickle
import random
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import kvsync

LAST, LOGGED = 40, 20
"""Commits in the original, each an entry in a dict; so many of them are in the log alone."""


class Bomb:
    """Running code is what this does when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("/nowhere/bomb",)


def make_originals(folder: str) -> None:
    """The two of them, in a process of their own that dies; closed, and with a log."""
    child = multiprocessing.get_context("spawn").Process(target=_live_and_die, args=(folder,))
    child.start()
    child.join()
    assert child.exitcode == 0
    path = os.path.join(folder, "closed.db")
    for suffix in ("", "-wal"):
        shutil.copy(os.path.join(folder, "logged.db") + suffix, path + suffix)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)").fetchall()


def _live_and_die(folder: str) -> None:
    store = kvsync.open(os.path.join(folder, "logged.db"))
    _use_everything(store)
    for number in range(1, LAST + 1):
        if number == LAST - LOGGED + 1:
            with closing(sqlite3.connect(store.path)) as connection:
                connection.execute("pragma wal_checkpoint(truncate)").fetchall()
        with store.transaction():
            store.dict("log")[str(number)] = number
            store.counter("last").add()
    os._exit(0)


def _use_everything(store: kvsync.Store) -> None:
    entries = store.dict("entries")
    entries.update({f"key {number}": {"n": [number, "text" * number]} for number in range(50)})
    entries.set("for a while", 1, ttl=86_400)
    entries.set("gone", 1, ttl=0.000001)
    store.dict("entries", codec="raw")["bomb"] = pickle.dumps(Bomb())
    store.dict("numbers").update(a=1, b=2.5)
    store.counter("hits").add(5)
    store.counters("by").add_many({"a": 1, "b": 2})
    for kind in ("lock", "rlock", "election"):
        getattr(store, kind)(f"a {kind}").acquire()
    store.lock("leased", lease=0.01).acquire()
    store.semaphore("sem", 3).acquire(n=2)
    store.rwlock("rw").read().acquire()
    store.event("set").set()
    store.barrier("broken", 2).abort()
    store.once("done").run(lambda: {"result": 1})
    store.rate_limiter("rate", 10, per=60).try_acquire(3)
    jobs = store.queue("jobs", max_attempts=2)
    jobs.put_many(list(range(8)))
    jobs.put("late", delay=86_400)
    jobs.put("keyed", key="k", priority=5)
    jobs.reserve()
    jobs.reserve().bury("no good")
    jobs.reserve().retry(delay=0)
    kvsync.KeyValueSqlite(store.path, "legacy").update({"a": 1, "b": "text"})
    with sqlite3.connect(store.path) as connection:
        connection.execute(
            "insert into kvsync_ticket (space, name, id, kind, units, capacity, session, attempt,"
            " thread, doorbell, since, state) select 'lock', 'a lock', id, 'lock', 1, 1, id, 9,"
            " 't', doorbell, since, 'waiting' from kvsync_session"
        )
    connection.close()


# --- what is done to them -----------------------------------------------------------------------


class Target:
    """A path at which a hostile file is to be, with the dice that decide what it becomes."""

    def __init__(self, originals: str, path: str, chance: random.Random) -> None:
        self.path = path
        self.chance = chance
        self._originals = originals

    def put(self, original: str, *suffixes: str) -> None:
        """Copy an original there: the file, and the others of these suffixes."""
        for suffix in ("", *suffixes):
            shutil.copy(
                os.path.join(self._originals, original + ".db") + suffix, self.path + suffix
            )

    def put_log_at(self, suffix: str) -> None:
        """The log of an original where another file of the store is to be."""
        shutil.copy(os.path.join(self._originals, "logged.db-wal"), self.path + suffix)

    def either(self) -> None:
        self.put(*self.chance.choice((("closed",), ("logged", "-wal"))))

    def change(self, suffix: str, how: Callable[[bytearray, random.Random], bytearray]) -> None:
        """Rewrite one of its files."""
        file = Path(self.path + suffix)
        file.write_bytes(how(bytearray(file.read_bytes()), self.chance))

    def sql(self, *statements: str) -> None:
        """Whatever of them can be done."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("pragma ignore_check_constraints=on")
            connection.execute("pragma writable_schema=on")
            for statement in statements:
                with suppress(sqlite3.Error):
                    connection.execute(statement)


def _flip(data: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.choice((1, 1, 3, 30, 300))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def _flip_header(data: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(100)] = chance.choice((0, 1, 2, 127, 128, 255, chance.randrange(256)))
    return data


def _cut(data: bytearray, chance: random.Random) -> bytearray:
    return data[: chance.randrange(len(data))]


def _shuffle_pages(data: bytearray, chance: random.Random) -> bytearray:
    size = 2048
    for _ in range(chance.randint(1, 3)):
        source, target = (chance.randrange(len(data) // size) * size for _ in range(2))
        page = bytes(size) if chance.random() < 0.3 else data[source : source + size]
        data[target : target + size] = page
    return data


def _noise(data: bytearray, chance: random.Random) -> bytearray:
    return bytearray(chance.randbytes(chance.choice((0, 1, 15, 100, 4096, len(data)))))


def _on(suffix: str, how: Callable[[bytearray, random.Random], bytearray]) -> "Kind":
    """An original with a log, and one of its files changed."""

    def make(target: Target) -> None:
        target.put("logged", "-wal", "-shm")
        target.change(suffix, how)

    return make


def _flip_either(target: Target) -> None:
    target.either()
    target.change("", target.chance.choice((_flip, _flip_header, _cut, _shuffle_pages, _noise)))


def _miss_log(target: Target) -> None:
    target.put("logged", *target.chance.choice(((), ("-shm",))))


def _have_stale_log(target: Target) -> None:
    target.put("closed")
    for suffix in ("-wal", "-shm", "-journal"):
        if target.chance.random() < 0.6:
            target.put_log_at(suffix)
            if target.chance.random() < 0.5:
                target.change(suffix, _flip)


# --- rows and tables ----------------------------------------------------------------------------

_WILD = (
    "null",
    "''",
    "'x'",
    "0",
    "-1",
    "1",
    "2",
    "3",
    "1e308",
    "-1e308",
    "9e999",
    "9223372036854775807",
    "-9223372036854775808",
    "0.5",
    "x''",
    "x'ff00fe'",
    "x'80049526'",
    "cast(x'ff' as text)",
    "'../../victim'",
    "'{victim}'",
    "'\"x'",
    "'[' || hex(zeroblob(3000)) || ']'",
    "replace(hex(zeroblob(20000)), '00', '[')",
    "replace(hex(zeroblob(5000)), '00', '9')",
    "'NaN'",
    "'1e999'",
    "char(0)",
    "char(55296)",
    "zeroblob(100000)",
)


def _wild_rows(target: Target) -> None:
    target.put("closed")
    if target.chance.random() < 0.5:
        _come_from_elsewhere(target)
    for _ in range(target.chance.randint(1, 6)):
        table, column = target.chance.choice(_columns(target.path))
        value = target.chance.choice(_WILD).replace("{victim}", victim_of(target.path))
        one = f" where {column} is (select {column} from {table} limit 1)"
        where = target.chance.choice(("", one))
        target.sql(f"update or replace {table} set {column} = {value}{where}")


def _come_from_elsewhere(target: Target) -> None:
    """No moment in it is one of this boot of this machine; other columns tell then."""
    for table, column in _columns(target.path):
        if column == "clock":
            target.sql(f"update {table} set clock = 'of another boot'")


def _columns(path: str) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.Error):
        return connection.execute(
            "select t.name, c.name from sqlite_schema t join pragma_table_info(t.name) c"
            " where t.type = 'table' and t.name like 'kvsync%' order by 1, 2"
        ).fetchall()
    return []


_PLOTS = (
    "drop table {table}",
    "alter table {table} rename to elsewhere",
    "alter table {table} drop column {column}",
    "alter table {table} rename column {column} to other",
    "alter table {table} add column more text not null default 'x'",
    "create trigger plot after insert on {table} begin select load_extension('/nowhere/x'); end",
    "create trigger plot after update on {table} begin select load_extension('/nowhere/x'); end",
    "create trigger plot before delete on {table} begin select raise(ignore); end",
    "create trigger plot before insert on {table} begin select raise(abort, 'no'); end",
    "create trigger plot before update on {table} begin select raise(rollback, 'no'); end",
    "create trigger plot after insert on {table} begin delete from {table}; end",
    "create unique index plot on {table} ({column})",
    "create index plot on {table} (load_extension('/nowhere/x'))",
    "update sqlite_schema set sql = 'create table {table} (a, b)' where name = '{table}'",
    "update sqlite_schema set sql = 'create table' where name = '{table}'",
    "update sqlite_schema set rootpage = 2 where name = '{table}'",
    "update sqlite_schema set rootpage = 99999 where name = '{table}'",
    "update sqlite_schema set type = 'view' where name = '{table}'",
    "pragma user_version = 99",
    "pragma encoding = 'UTF-16'",
    "delete from kvsync_meta",
    "update kvsync_meta set value = 99",
    "delete from {table}",
)


def _plot(target: Target) -> None:
    target.put("closed")
    for _ in range(target.chance.randint(1, 3)):
        table, column = target.chance.choice(_columns(target.path) or [("kvsync_meta", "key")])
        plan = target.chance.choice(_PLOTS)
        target.sql(plan.replace("{table}", table).replace("{column}", column))


def _replace_table(target: Target) -> None:
    """A view, or a virtual table, where a table should be."""
    target.put("closed")
    table, _ = target.chance.choice(_columns(target.path))
    what = target.chance.choice(
        (
            f"create view {table} as select load_extension('/nowhere/x') as key, 1 as value",
            f"create view {table} as select * from {table}",
            f"create view {table} as with recursive r(n) as"
            " (select 1 union all select n + 1 from r) select n as key, n as value from r",
            f"create virtual table {table} using fts5(key, value)",
            f"create table {table} (key, value)",
            f"create table {table} (key, value, gone as (load_extension('/nowhere/x')))",
        )
    )
    target.sql(f"drop table {table}", what)


def _foreign(target: Target) -> None:
    """Another program's database."""
    modes = ("delete", "wal", "truncate", "persist")
    target.sql(
        f"pragma page_size={target.chance.choice((512, 1024, 4096, 65536))}",
        f"pragma encoding='{target.chance.choice(('UTF-8', 'UTF-16le', 'UTF-16be'))}'",
        f"pragma auto_vacuum={target.chance.randrange(3)}",
        f"pragma journal_mode={target.chance.choice(modes)}",
        "create table theirs (a, b)",
        "insert into theirs values (1, zeroblob(10000))",
    )


# --- no file, or more than a file ---------------------------------------------------------------


def _become(path: str, chance: random.Random) -> None:
    """Something that is no regular file, or leads to none."""
    what = chance.choice(("folder", "fifo", "socket", "loop", "dangling", "device", "fifo link"))
    if what == "folder":
        os.mkdir(path)
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif what == "loop":
        os.symlink(path, path)
    elif what == "dangling":
        os.symlink(path + "-nowhere/x", path)
    elif what == "device":
        os.symlink(chance.choice(("/dev/null", "/dev/zero", "/dev/full", "/dev/tty")), path)
    else:
        os.mkfifo(path + "-fifo")
        os.symlink(path + "-fifo", path)


def _be_no_file(target: Target) -> None:
    _become(target.path, target.chance)


def _have_odd_neighbour(target: Target) -> None:
    target.put("closed")
    _become(
        target.path + target.chance.choice(("-wal", "-shm", "-journal", "-kvsync")), target.chance
    )


def _have_odd_sidecar(target: Target) -> None:
    target.either()
    folder = target.path + "-kvsync"
    os.mkdir(folder)
    for name in ("gate", "claim", "setup.lock", "doorbells"):
        if target.chance.random() < 0.4:
            _become(os.path.join(folder, name), target.chance)


def _forbid(target: Target) -> None:
    """Rights that one is not given; they mean nothing to root, see `probe`."""
    target.either()
    modes = (0o000, 0o200, 0o400, 0o444, 0o600)
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            os.chmod(target.path + suffix, target.chance.choice(modes))
    if target.chance.random() < 0.5:
        os.mkdir(target.path + "-kvsync", target.chance.choice((0o000, 0o500, 0o300)))
    if target.chance.random() < 0.5:
        os.chmod(os.path.dirname(target.path), target.chance.choice((0o500, 0o300, 0o100)))


def _link(target: Target) -> None:
    target.either()
    other = target.path + "-other"
    target.chance.choice((os.link, os.rename))(target.path, other)
    if not os.path.exists(target.path):
        os.symlink(other, target.path)


def victim_of(path: str) -> str:
    """A file of somebody else's, which nobody may touch whatever a store says."""
    return os.path.join(os.path.dirname(path), "victim")


Kind = Callable[[Target], None]

KINDS: dict[str, Kind] = {
    "changed file": _flip_either,
    "changed log": _on("-wal", _flip),
    "cut log": _on("-wal", _cut),
    "noise for a log": _on("-wal", _noise),
    "changed index": _on("-shm", _flip),
    "noise for an index": _on("-shm", _noise),
    "no log": _miss_log,
    "stale log": _have_stale_log,
    "wild rows": _wild_rows,
    "plotted schema": _plot,
    "replaced table": _replace_table,
    "foreign file": _foreign,
    "no file": _be_no_file,
    "odd neighbour": _have_odd_neighbour,
    "odd sidecar": _have_odd_sidecar,
    "forbidden": _forbid,
    "linked": _link,
}

SHARE = {"changed file": 4, "wild rows": 6, "plotted schema": 3, "changed log": 2}
"""How many times as often as the others some kinds come."""

IN_FULL = {"changed index", "noise for an index"}
"""Kinds that take nothing away: all commits must be found."""

IN_PART = {"changed log", "cut log", "noise for a log", "no log"}
"""Kinds that can take commits of the log away, the later ones; those before must be found."""

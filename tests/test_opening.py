"""Opening: what may be a store, what may not, and what happens to the file when it may not."""

import errno
import fcntl
import grp
import itertools
import os
import pwd
import shutil
import sqlite3
import stat
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import kvsync
from kvsync.cli.doctor import examined
from kvsync.engine import gate, links, location, schema, setup
from tests.processes import in_thread, run_all, run_program


def test_opening_touches_no_file(path: Path) -> None:
    """So that `store = kvsync.open(...)` can stand at the top of a module."""
    kvsync.open(path).counter("hits")
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("form", [str, os.fspath, Path, "sqlite:///{}".format])
def test_a_store_opens_by_path_and_by_url(path: Path, form: object) -> None:
    """Paths, path objects and URLs lead to the same file."""
    with kvsync.open(form(path)) as store:  # type: ignore[operator]
        store.counter("hits").add()
        assert store.path == os.path.realpath(path)


def test_a_bare_file_name_lies_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And stays there when the program changes its folder later."""
    monkeypatch.chdir(tmp_path)
    with kvsync.open("bare.db") as store:
        monkeypatch.chdir("/")
        store.counter("hits").add()
    assert (tmp_path / "bare.db").exists()


def test_missing_folders_are_made(tmp_path: Path) -> None:
    """As deep as need be."""
    with kvsync.open(tmp_path / "a" / "b" / "store.db") as store:
        assert store.counter("hits").add() == 1


@pytest.mark.parametrize(
    "name",
    [
        "we ird.db",
        pytest.param("\udcff.db", id="no UTF-8"),
        "q?x=1.db",
        "100%.db",
        "#.db",
        "ü.db",
        "'\".db",
    ],
)
def test_any_file_name_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    """No part of a name is read as an option of SQLite's URLs."""
    with kvsync.open(tmp_path / name) as store:
        store.counter("hits").add()
    assert (tmp_path / name).exists()


@pytest.mark.parametrize(
    "bad", ["", ":memory:", "sqlite:///", "sqlite:///:memory:", "postgresql://host/db", "a\0b"]
)
def test_a_path_that_names_no_shared_file_is_refused(bad: str) -> None:
    """At once, as a ValueError."""
    with pytest.raises(kvsync.StorePathError):
        kvsync.open(bad)


@pytest.mark.parametrize("bad", [None, 3, b"bytes.db", object()])
def test_what_is_no_path_is_a_type_error(bad: object) -> None:
    """At once, too."""
    with pytest.raises(TypeError):
        kvsync.open(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"busy_timeout": -1}, ValueError),
        ({"busy_timeout": float("nan")}, ValueError),
        ({"busy_timeout": float("inf")}, ValueError),
        ({"busy_timeout": "1"}, TypeError),
        ({"busy_timeout": True}, TypeError),
        ({"durability": "maybe"}, ValueError),
        ({"mode": 0o7777}, ValueError),
        ({"mode": 0o400}, ValueError),
        ({"mode": "600"}, TypeError),
        ({"clock": 5}, TypeError),
    ],
)
def test_a_wrong_option_is_refused_at_once(
    path: Path, options: dict[str, object], error: type[Exception]
) -> None:
    """Before there is a file."""
    with pytest.raises(error):
        kvsync.open(path, **options)  # type: ignore[arg-type]


def test_a_second_durability_for_the_same_file_is_refused(path: Path) -> None:
    """Connections are shared, so one of the two would not get what it asked for."""
    with kvsync.open(path, durability="power"), pytest.raises(ValueError, match="power"):
        kvsync.open(path, durability="process")
    kvsync.open(path, durability="process").close()


@pytest.mark.parametrize(("durability", "level"), [("none", 0), ("process", 1), ("power", 3)])
def test_durability_decides_how_sqlite_syncs(path: Path, durability: str, level: int) -> None:
    """0 is OFF, 1 NORMAL, 3 EXTRA."""
    with kvsync.open(path, durability=durability) as store:
        assert store.engine.read("pragma synchronous") == [(level,)]


def _add_once(path: str) -> int:
    with kvsync.open(path) as store:
        return store.counter("hits").add()


def test_a_fresh_file_opens_in_many_processes_at_once(path: Path) -> None:
    """No error of any kind, and no add is lost; the stress suite does the same 200 times over."""
    assert sorted(run_all(_add_once, [(str(path),)] * 12)) == list(range(1, 13))


def test_a_folder_that_is_replaced_while_it_is_still_empty_does_no_harm(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes make it at the same time: the one's file finds the other's folder in place."""
    make, times = tempfile.mkstemp, iter([1, 2])

    def make_late(*args: Any, **options: Any) -> tuple[int, str]:
        if options.get("dir") == f"{path}-kvsync" and next(times, None):
            raise FileNotFoundError(2, "No such file or directory")
        return make(*args, **options)

    monkeypatch.setattr(tempfile, "mkstemp", make_late)
    assert _add_once(str(path)) == 1
    assert not list(times)


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    """As `tempfile` makes one; its permissions stay."""
    path.touch(0o640)
    with kvsync.open(path) as store:
        store.counter("hits").add()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


UNNAMED = os.O_TMPFILE

WITHOUT_COMMIT = """
import os, sqlite3, sys
path, *before = sys.argv[1:]
connection = sqlite3.connect(path, isolation_level=None)
for statement in before:
    connection.execute(statement)
connection.execute("pragma cache_size=1")  # so that the file is written to before the commit
connection.execute("begin immediate")
connection.execute("create table undone (text)")
connection.executemany("insert into undone values (?)", [("x" * 1000,)] * 100)
print("ok", flush=True)
os._exit(0)
"""
"""Ends, as by SIGKILL, in the middle of a transaction with a rollback journal."""


def test_a_new_file_comes_in_wal_mode_as_sqlite_would_make_it(path: Path) -> None:
    """As a whole, so that no moment of a maker's death leaves another mode, or part of a page."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"pragma page_size={setup._PAGE_SIZE}")
        connection.execute("pragma journal_mode=wal")
    assert path.read_bytes() == setup._first_page()


JOURNAL = struct.pack(">8s5I", bytes.fromhex("d9d505f920a163d7"), 0, 1, 0, 512, setup._PAGE_SIZE)
"""By which SQLite makes an empty file empty again (https://www.sqlite.org/fileformat2.html)."""


def test_an_empty_file_whose_maker_was_killed_in_the_middle_is_made_anew(path: Path) -> None:
    """SQLite sets WAL mode in a transaction, too: what the next one rolls back is that mode."""
    path.write_bytes(setup._first_page())
    Path(f"{path}-journal").write_bytes(JOURNAL.ljust(512, b"\0"))
    with kvsync.open(path) as store:
        assert store.counter("hits").add() == 1
        assert store.stats().journal_mode == "wal"
        assert store.engine.read("pragma synchronous") == [(1,)]
        assert store.engine.read("pragma page_size") == [(setup._PAGE_SIZE,)]
    assert not Path(f"{path}-journal").exists()


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, None])
def test_a_file_system_without_unnamed_files_will_do(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    """As an overlay of older kernels, or another system, which has no such flag."""

    def refuse(name: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & UNNAMED == UNNAMED:
            raise OSError(number, os.strerror(number or 0))
        return open_(name, flags, *more, **options)

    open_ = os.open
    if number is None:
        monkeypatch.delattr(os, "O_TMPFILE")
    else:
        monkeypatch.setattr(os, "open", refuse)
    with kvsync.open(path, mode=0o640) as store:
        assert store.counter("hits").add() == 1
        assert store.stats().journal_mode == "wal"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_full_disk_leaves_no_part_of_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda _, data: len(data) - 1)
    with kvsync.open(path) as store, pytest.raises(kvsync.OpenError, match="No space left"):
        store.counter("hits").add()
    assert not path.exists()


def test_a_foreign_file_whose_writer_was_killed_keeps_its_journal_mode(path: Path) -> None:
    run_program(WITHOUT_COMMIT, path, "create table orders as select 7 as id")
    assert Path(f"{path}-journal").exists()
    with kvsync.open(path) as store:
        assert store.counter("hits").add() == 1
        assert store.stats().journal_mode == "delete"
        assert store.engine.read("select id from orders") == [(7,)]
        assert store.engine.read("select name from sqlite_master where name = 'undone'") == []


@pytest.mark.parametrize("mode", ["delete", "persist", "truncate"])
def test_a_file_that_is_made_opens_though_another_process_sets_it_up(path: Path, mode: str) -> None:
    """And though its writer has a journal there, or has left one: nobody who was stopped in the
    middle of an opening holds up the others."""
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute(f"pragma journal_mode={mode}")
        writer.execute("create table orders (id integer)")
        assert _add_once(str(path)) == 1
        writer.execute("begin immediate")
        writer.execute("insert into orders values (7)")
        assert Path(f"{path}-journal").exists()
        with Path(f"{path}-kvsync/setup.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with kvsync.open(path, busy_timeout=0) as store:
                assert store.counter("hits").value == 1


def test_who_opens_a_foreign_file_waits_for_its_writer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has its journal there, and has locked the file even for readers."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as writer:
        writer.execute("create table orders (id integer)")
        writer.execute("begin exclusive")
        writer.execute("insert into orders values (7)")
        commits = [writer.commit]
        with kvsync.open(path, busy_timeout=0) as store, pytest.raises(kvsync.BusyError):
            store.counter("hits").add()
        monkeypatch.setattr(gate.Turn, "rest", lambda *_: commits.pop()())
        with kvsync.open(path) as store:
            assert store.counter("hits").add() == 1
            assert store.engine.read("select id from orders") == [(7,)]


# --- what is refused, and left as it was ------------------------------------------------------


def _refused(path: Path, error: type[Exception]) -> str:
    """Use the store at `path`, expect `error`; returns its message."""
    before = path.read_bytes() if path.is_file() else None
    with kvsync.open(path, busy_timeout=1) as store, pytest.raises(error) as caught:
        store.counter("hits").add()
    assert isinstance(caught.value, OSError)
    assert (path.read_bytes() if path.is_file() else None) == before
    return str(caught.value)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    """With its own words."""
    assert "directory" in _refused(tmp_path, kvsync.OpenError)


def test_a_fifo_is_refused(path: Path) -> None:
    """Opening it would hang."""
    os.mkfifo(path)
    assert "regular file" in _refused(path, kvsync.OpenError)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    """Somebody's notes are not to be overwritten."""
    path.write_text("milk, bread, butter\n" * 100)
    assert "no SQLite database" in _refused(path, kvsync.NotADatabaseError)


def test_a_file_in_the_way_of_a_folder_is_refused(tmp_path: Path) -> None:
    """`a/store.db` where `a` is a file."""
    (tmp_path / "a").write_text("")
    _refused(tmp_path / "a" / "store.db", kvsync.OpenError)


def test_a_file_that_is_a_mount_of_its_own_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `docker run -v app.db:/app.db` makes one: its log would lie in another folder."""
    sqlite3.connect(path).close()
    path.touch()
    monkeypatch.setattr(location, "_mounts", lambda: [("/", "ext4"), (str(path), "ext4")])
    assert "mount its folder" in _refused(path, kvsync.UnsafeFilesystemError)


def test_without_a_mount_table_the_file_system_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a container without /proc, or out of descriptors."""

    def fail(**_: object) -> None:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(location.psutil, "disk_partitions", fail)
    assert location.filesystem("/srv/store.db") == ""


def test_a_file_with_a_second_hard_link_is_refused(path: Path) -> None:
    """Each name would have its own log."""
    sqlite3.connect(path).close()
    path.touch()
    os.link(path, path.with_name("other.db"))
    assert "hard links" in _refused(path, kvsync.UnsafeFilesystemError)


def test_an_unwritable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the answer of the system is replaced."""
    monkeypatch.setattr(location.os, "access", lambda *_: False)
    assert "permission" in _refused(tmp_path / "store.db", kvsync.ReadOnlyError)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
NOBODY = 65534


@needs_root
def test_an_unprivileged_user_is_refused_in_a_folder_of_root(open_folder: Path) -> None:
    """With a real user, in a real process."""
    path = open_folder / "store.db"
    (message,) = run_all(_as_nobody, [(_refused, path, kvsync.ReadOnlyError)], "fork")
    assert "no permission to create files" in message


@needs_root
def test_a_folder_that_may_only_be_written_will_do(open_folder: Path) -> None:
    open_folder.chmod(0o333)
    path = open_folder / "store.db"
    assert run_all(_as_nobody, [(_add_once, str(path))], "fork") == [1]


@needs_root
def test_an_unprivileged_user_may_not_write_a_file_of_root(open_folder: Path) -> None:
    """It exists, and is root's alone."""
    path = open_folder / "store.db"
    with kvsync.open(path) as store:
        store.counter("hits").add()
    run_all(_as_nobody, [(_cannot_use, path)], "fork")


@needs_root
def test_who_may_not_read_a_store_hears_that_this_is_why(open_folder: Path) -> None:
    """From the library, and from the doctor."""
    path = open_folder / "store.db"
    with kvsync.open(path) as store:
        store.counter("hits").add()
    root = f"{pwd.getpwuid(0)[0]}:{grp.getgrgid(path.stat().st_gid)[0]}"
    (message, found) = run_all(_as_nobody, [(_may_not_read, path), (_examined, path)], "fork")
    assert message == f"cannot open {path}: this user may not read and write {path}"
    assert found["permissions"] == (
        "problem",
        f"The file is {root}, 600: this user may not read and write it.",
    )


def _may_not_read(path: Path) -> str:
    with kvsync.open(path) as store, pytest.raises(kvsync.OpenError) as caught:
        store.counter("hits").value  # noqa: B018
    assert caught.value.errno == errno.EACCES
    return str(caught.value)


def _examined(path: Path) -> dict[str, tuple[str, str]]:
    return {check.name: (check.state, check.sentence) for check in examined(str(path))}


def _as_nobody(function: Callable[..., Any], *arguments: Any) -> Any:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    return function(*arguments)


def _cannot_use(path: Path) -> None:
    with kvsync.open(path, busy_timeout=1) as store, pytest.raises(kvsync.KvsyncError):
        store.counter("hits").add()


def test_a_network_file_system_is_refused_unless_asked_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount table is replaced: there is no NFS server in a test."""
    monkeypatch.setattr(location, "filesystem", lambda _: "nfs4")
    assert "nfs4" in _refused(path, kvsync.UnsafeFilesystemError)
    with kvsync.open(path, allow_network=True) as store:
        assert store.counter("hits").add() == 1


def test_the_file_system_is_that_of_the_innermost_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later mount on the same point hides the earlier one."""
    mounts = [("/", "ext4"), ("/data", "xfs"), ("/data", "nfs4"), ("/database", "9p")]
    partition = type("Mount", (), {})

    def mount(point: str, kind: str) -> object:
        found = partition()
        found.mountpoint, found.fstype = point, kind
        return found

    monkeypatch.setattr(
        location.psutil, "disk_partitions", lambda **_: [mount(*each) for each in mounts]
    )
    assert location.filesystem("/data/store.db") == "nfs4"
    assert location.filesystem("/srv/store.db") == "ext4"


def _set_version(path: Path, key: str, value: int) -> None:
    with kvsync.open(path) as store:
        store.counter("hits").add()
        store.engine.write(
            "update kvsync_meta set value = :value where key = :key", {"key": key, "value": value}
        )


def test_a_schema_that_needs_a_newer_reader_is_refused(path: Path) -> None:
    """And named."""
    _set_version(path, "min_reader", schema.VERSION + 1)
    assert "upgrade kvsync" in _refused(path, kvsync.SchemaError)


def test_a_schema_that_needs_a_newer_writer_can_be_read_only(path: Path) -> None:
    """An old worker in a rolling deploy goes on reading."""
    _set_version(path, "min_writer", schema.VERSION + 1)
    with kvsync.open(path) as store:
        assert store.counter("hits").value == 1
        with pytest.raises(kvsync.SchemaError):
            store.counter("hits").add()
        with pytest.raises(kvsync.SchemaError), store.transaction():
            pass
        assert store.counter("hits").value == 1


def test_a_newer_schema_that_still_serves_us_is_used(path: Path) -> None:
    """A newer library added to it and left the minimum versions alone."""
    _set_version(path, "schema", schema.VERSION + 5)
    with kvsync.open(path) as store:
        assert store.counter("hits").add() == 2


def test_a_foreign_table_of_our_name_is_refused(path: Path) -> None:
    """Whatever it is, it is not ours to write into."""
    connection = sqlite3.connect(path)
    connection.execute("create table kvsync_meta (colour text)")
    connection.close()
    _refused(path, kvsync.SchemaError)


def test_a_foreign_database_keeps_its_tables_and_its_journal_mode(path: Path) -> None:
    """kvsync only adds its own tables."""
    connection = sqlite3.connect(path)
    connection.execute("create table orders (id integer)")
    connection.execute("insert into orders values (7)")
    connection.commit()
    connection.close()
    with kvsync.open(path) as store:
        assert store.counter("hits").add() == 1
        assert store.stats().journal_mode == "delete"
        assert store.engine.read("pragma synchronous") == [(2,)]
    connection = sqlite3.connect(path)
    assert connection.execute("select id from orders").fetchall() == [(7,)]
    connection.close()


def test_an_old_sqlite_is_refused_in_words(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`returning` came with 3.35."""
    monkeypatch.setattr(setup.sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(kvsync.UnsupportedSQLiteError, match=r"3\.35"):
        kvsync.open(path)


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)
def test_the_versions_with_the_wal_reset_bug_are_known(
    version: tuple[int, int, int], affected: bool
) -> None:
    """As SQLite's own documentation lists them."""
    assert setup.has_wal_reset_bug(version) is affected


# --- permissions ------------------------------------------------------------------------------


def test_all_that_lies_beside_the_file_has_its_permissions(path: Path) -> None:
    """For a group that shares a store; whatever the umask says."""
    with kvsync.open(path, mode=0o660) as store:
        store.counter("hits").add()
        folder = path.with_name(path.name + "-kvsync")
        files = [path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")]
        files += [*_doorbells(store), folder / "gate", folder / "claim", folder / "setup.lock"]
        for file in files:
            assert stat.S_IMODE(file.stat().st_mode) == 0o660, file
        for made in (folder, folder / "doorbells"):
            assert stat.S_IMODE(made.stat().st_mode) == 0o770, made


def _doorbells(store: kvsync.Store) -> list[Path]:
    """Those of this process, which others open to ring, or to watch it."""
    store.lock("job").acquire()
    found = list(Path(f"{store.path}-kvsync/doorbells").iterdir())
    assert found
    assert all(stat.S_ISFIFO(doorbell.stat().st_mode) for doorbell in found)
    return found


@needs_root
@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_root_and_another_user_share_a_store_both_ways(open_folder: Path, mode: int) -> None:
    """What root makes beside the file belongs to the file's owner, who can go on using it."""
    open_folder.chmod(0o777)
    path = open_folder / "store.db"
    run_all(_as_nobody, [(_make, path, mode)], "fork")
    with kvsync.open(path) as store:
        assert store.counter("hits").add() == 2
        run_all(_as_nobody, [(_add_once, str(path))], "fork")
        assert store.counter("hits").add() == 4
        beside = [*Path(f"{path}-kvsync").iterdir(), Path(f"{path}-wal"), Path(f"{path}-shm")]
        for made in [path, *beside]:
            assert made.stat().st_uid == NOBODY, made
            assert stat.S_IMODE(made.stat().st_mode) == mode, made
        for doorbell in _doorbells(store):
            assert doorbell.stat().st_uid == NOBODY
            assert stat.S_IMODE(doorbell.stat().st_mode) == mode


def _make(path: Path, mode: int) -> None:
    """The folder beside the store is left for root to make."""
    with kvsync.open(path, mode=mode) as store:
        store.counter("hits").add()
    shutil.rmtree(f"{path}-kvsync")


# --- the handle -------------------------------------------------------------------------------


def test_a_closed_store_says_so(path: Path) -> None:
    """Its primitives too; other handles on the file go on."""
    store, other = kvsync.open(path), kvsync.open(path)
    hits = store.counter("hits")
    hits.add()
    store.close()
    store.close()
    for call in (hits.add, lambda: hits.value, store.transaction().__enter__):
        with pytest.raises(kvsync.ClosedError):
            call()
    assert other.counter("hits").add() == 2
    other.close()


def test_a_store_that_is_closed_while_its_first_call_opens_it_stays_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kvsync.open(path).counter("hits").add()
    store = kvsync.open(path)
    prepare = setup.prepare_schema

    def close_after(*arguments: Any) -> schema.Versions:
        versions = prepare(*arguments)
        in_thread(store.close)
        return versions

    monkeypatch.setattr(setup, "prepare_schema", close_after)
    for _ in range(2):
        with pytest.raises(kvsync.ClosedError):
            store.counter("hits").add()


def at_each_line(
    function: Callable[..., Any], call: Callable[[], Any], meanwhile: Callable[[], Any]
) -> Iterator[Any]:
    """What `call` returns, which calls `function`, where `meanwhile` comes one line further on
    each time, until `function` has no more lines."""

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code is not function.__code__:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                meanwhile()
        return trace

    for line in itertools.count(1):
        left, before = line, sys.gettrace()
        sys.settrace(trace)
        try:
            result = call()
        finally:
            sys.settrace(before)
        if left > 0:
            assert line > 1, "it has no line"
            break
        yield result


def test_who_opens_a_file_while_its_last_handle_is_closed_joins_the_others(path: Path) -> None:
    """By another thread, wherever the one that closes it has come to."""
    opened: list[kvsync.Store] = []

    def open_too() -> None:
        opened.append(in_thread(partial(kvsync.open, path)))

    for _ in at_each_line(links.release, lambda: kvsync.open(path).close(), open_too):
        _assert_joined(path, opened)


def test_who_opens_a_file_while_its_last_handle_is_collected_joins_the_others(path: Path) -> None:
    """By the very call that opens it: the garbage collector comes where it likes."""
    last: list[kvsync.Store] = []

    def drop() -> None:
        last.clear()

    last.append(kvsync.open(path))
    for store in at_each_line(links.pool_of, lambda: kvsync.open(path), drop):
        assert not last
        _assert_joined(path, [store])
        last.append(kvsync.open(path))


@pytest.mark.parametrize("replaced", [False, True])
def test_who_opens_a_file_that_a_signals_handler_opens_just_then_joins_it(
    path: Path, replaced: bool
) -> None:
    """Though the file was replaced, or all of its handles were closed, before."""

    def begin() -> kvsync.Store:
        store = kvsync.open(path)
        if replaced:
            store.counter("hits").add()
            path.unlink()
        else:
            store.close()
        return store

    opened: list[kvsync.Store] = []
    last = begin()
    for store in at_each_line(
        links.pool_of, lambda: kvsync.open(path), lambda: opened.append(kvsync.open(path))
    ):
        _assert_joined(path, [store, *opened])
        opened.clear()
        last.close()
        last = begin()


def test_a_transaction_whose_handle_is_closed_meanwhile_is_joined_still(path: Path) -> None:
    """By what its thread does through a new one; another thread closed the last that there was."""
    store = kvsync.open(path)
    store.counter("hits").add()
    with store.transaction():
        in_thread(lambda: [store.close()])
        again = kvsync.open(path, busy_timeout=0)
        assert again.counter("hits").add() == 2
    with again:
        assert again.counter("hits").value == 2


def _assert_joined(path: Path, opened: list[kvsync.Store]) -> None:
    """Those stores, which are closed then, are in one transaction with one that is opened now."""
    with kvsync.open(path, busy_timeout=0) as other:
        hits = other.counter("hits")
        hits.add()
        while opened:
            with opened.pop() as store, store.transaction():
                hits.add()


def test_closing_leaves_no_descriptor_open(path: Path) -> None:
    """Neither of the database nor of the gate."""
    with kvsync.open(path) as store:
        store.counter("hits").add()
        assert _open_files(path) > 0
    assert _open_files(path) == 0


def test_a_store_that_is_dropped_leaves_no_descriptor_open(path: Path) -> None:
    """Users forget to close."""
    store = kvsync.open(path)
    store.counter("hits").add()
    del store
    assert _open_files(path) == 0


def _open_files(path: Path) -> int:
    links = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{entry}"))
        except FileNotFoundError:
            continue  # the listing's own descriptor
    return sum(link.startswith(str(path)) for link in links)


def test_a_temporary_store_goes_with_its_process() -> None:
    """And a child's end does not take it away."""
    (folder,) = run_all(_use_temporary, [()])
    assert not Path(folder).exists()


def _use_temporary() -> str:
    store = kvsync.temporary()
    store.counter("hits").add()
    run_all(_add_once, [(store.path,)], "fork")
    assert store.counter("hits").value == 2
    return str(Path(store.path).parent)


def test_a_handler_uses_a_file_to_which_its_thread_just_comes_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread has opened it, and the handler interrupts what this one has to make for it."""
    make = links.Place.__init__
    with kvsync.open(path) as store:
        assert in_thread(store.counter("hits").add) == 1

        def interrupted(place: links.Place, pool: links.Pool) -> None:
            monkeypatch.undo()
            assert store.lock("job").acquire()
            make(place, pool)

        monkeypatch.setattr(links.Place, "__init__", interrupted)
        assert store.counter("hits").add() == 2
        assert store.lock("job").locked()

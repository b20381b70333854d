"""Bringing a file to the state in which every process may use it without a further look.

A new file comes into its folder in WAL mode; an empty one is set to it, which does not wait for
other connections. So this, and making the tables, happen under a lock in the folder beside the
database. Once the tables are there the lock is never taken again. Every step looks first whether
another process has done it, and a process killed between two of them leaves what the next one
completes.
"""

import errno
import os
import sqlite3
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from functools import partial
from typing import Protocol, TypeVar
from urllib.parse import quote

from kvsync.engine import schema
from kvsync.engine.descriptors import Descriptor
from kvsync.engine.flock import TRY, UNLOCK, flock, unlock
from kvsync.engine.gate import Obstructed, Sidecar, Turn
from kvsync.engine.location import examine
from kvsync.errors import SchemaError, UnsafeFilesystemError, UnsupportedSQLiteError

DURABILITY = {"none": "off", "process": "normal", "power": "extra"}
"""What SQLite calls each `durability` (`pragma synchronous`).

FULL would be enough in WAL mode. A rollback journal is unlinked to commit, and as long as the
folder is not synced, a power failure can bring it back: SQLite rolls the acknowledged commit back.
"""

T = TypeVar("T")

_NEEDED = (3, 35, 0)
_CACHE_KIB = 65536  # at most, for each connection; only what was read takes memory
_CONNECT_PATIENCE = 0.1
# Seconds. Who closes the file's last connection locks it for a moment, and it is soon over.
_PAGE_SIZE = 2048  # a commit writes whole pages: small ones cost less, and fill the log later


def require_sqlite() -> None:
    """Raises: UnsupportedSQLiteError where SQLite has no `returning` clause."""
    if sqlite3.sqlite_version_info < _NEEDED:
        needed = ".".join(map(str, _NEEDED))
        raise UnsupportedSQLiteError(
            f"kvsync needs SQLite {needed} or newer; this Python has {sqlite3.sqlite_version}"
        )


def has_wal_reset_bug(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Whether this SQLite can lose rows when a checkpoint races a commit.

    3.7.0 to 3.51.2 can, but for the corrected 3.44.6 and 3.50.7
    (https://www.sqlite.org/wal.html, "The WAL-Reset Bug").
    """
    if version[:2] in ((3, 44), (3, 50)):
        return version[2] < (6 if version[1] == 44 else 7)
    return (3, 7, 0) <= version < (3, 51, 3)


def connect(path: str, durability: str) -> sqlite3.Connection:
    """A connection to an existing file, set up as kvsync needs it."""
    connection = sqlite3.connect(
        _address(path),
        uri=True,
        timeout=_CONNECT_PATIENCE,
        isolation_level=None,
        check_same_thread=False,  # a fork closes the connections of all threads
        cached_statements=256,
    )
    try:
        ((mode,),) = connection.execute("pragma journal_mode").fetchall()
        synchronous = DURABILITY[durability]
        if mode != "wal" and synchronous == "normal":
            synchronous = "full"  # NORMAL keeps a file sound through a power failure in WAL only
        for setting in (
            "busy_timeout=0",  # from here on waiting is in Python, where signals are heard
            "wal_autocheckpoint=0",  # see gate.py
            f"synchronous={synchronous}",
            "trusted_schema=off",  # a hostile file's views and triggers run no functions
            "cell_size_check=on",
            "temp_store=memory",
            f"cache_size=-{_CACHE_KIB}",
        ):
            connection.execute(f"pragma {setting}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


Retrying = Callable[[Callable[[], T]], T]
"""Takes a step, again after every obstacle."""


def prepare_file(
    sidecar: Sidecar,
    mode: int,
    *,
    allow_network: bool,
    retrying: Retrying[None],
    patience: float,
    alone: AbstractContextManager[object],
) -> None:
    """See to it that the file is there. A file that kvsync makes is in WAL mode.

    `alone` is entered while it is made, so that no other thread forks then. Not while others are
    waited for: a fork would have to wait too.

    Raises: what `examine` raises; what `retrying` and `set_wal` raise; BusyError; OSError.
    """
    path = sidecar.database
    examine(path, allow_network=allow_network)
    if _is_made(path):
        return

    def make() -> None:
        with alone:
            if not os.path.exists(path):
                _create(path, mode)
            if not _is_made(path):
                _begin_in_wal(path)

    _under_setup_lock(sidecar, mode, patience, lambda: retrying(make))


def _is_made(path: str) -> bool:
    """Not if it is empty; nor if it was, and whoever made a store of it was killed, or lost its
    power, as SQLite set WAL mode: that leaves a page, and the journal that makes it undone.
    """
    size = _size(path)
    return size > _PAGE_SIZE or (size > 0 and not _size(f"{path}-journal"))


def _size(path: str) -> int:
    """Bytes; 0 if there is no such file."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _create(path: str, mode: int) -> None:
    """A file with its first page, and exactly this mode, whatever the umask, from its first moment.

    Where it cannot come into its folder as a whole it is empty at first.
    """
    folder = os.path.dirname(path)
    # No `Descriptor`: one that a signal's exception lost would be closed later, and closing any of
    # the database drops the locks that SQLite has on it in this process.
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, mode)
    except (AttributeError, OSError) as error:  # not this system, or not this file system
        if getattr(error, "errno", errno.EOPNOTSUPP) not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
        os.fchmod(descriptor, mode)
        os.close(descriptor)
        return
    try:
        os.fchmod(descriptor, mode)
        if os.write(descriptor, page := _first_page()) != len(page):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
        # With a folder's descriptor, though the path is absolute: only then links are followed.
        with suppress(FileExistsError):
            os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor)
    finally:
        os.close(descriptor)
    _sync_folder(folder)


def _first_page() -> bytes:
    """Of a database without tables, in WAL mode: https://www.sqlite.org/fileformat2.html.

    SQLite could set that mode itself, but in a transaction with a rollback journal, in a file that
    others can see by then.
    """
    page = bytearray(_PAGE_SIZE)
    wal, change, pages, leaf, rows = 2, 1, 1, 13, 0
    struct.pack_into(">16sH6B", page, 0, b"SQLite format 3", _PAGE_SIZE, wal, wal, 0, 64, 32, 32)
    struct.pack_into(">2I", page, 24, change, pages)
    major, minor, patch = sqlite3.sqlite_version_info
    struct.pack_into(">2I", page, 92, change, major * 1_000_000 + minor * 1_000 + patch)
    struct.pack_into(">B3HB", page, 100, leaf, 0, rows, _PAGE_SIZE, 0)
    return bytes(page)


def _sync_folder(folder: str) -> None:
    """If it may be read, as those of others' drop boxes may not."""
    try:
        file = Descriptor(folder, os.O_RDONLY)
    except PermissionError:
        return
    with file:
        os.fsync(file.number)


def _begin_in_wal(path: str) -> None:
    """Unless the file has pages. A journal that nobody uses any more is rolled back by the look."""
    with closing(
        sqlite3.connect(_address(path), uri=True, timeout=_CONNECT_PATIENCE, isolation_level=None)
    ) as connection:
        ((pages,),) = connection.execute("pragma page_count").fetchall()
        if not pages:
            connection.execute(f"pragma page_size={_PAGE_SIZE}").fetchall()
            set_wal(connection, path)


def _address(path: str) -> str:
    """Of an existing file: who comes after it was deleted must not make a new one."""
    return f"file://{quote(os.fsencode(path))}?mode=rw"


def set_wal(connection: sqlite3.Connection, path: str) -> None:
    """Raises: UnsafeFilesystemError if SQLite answers with another mode; sqlite3.Error if busy."""
    ((mode,),) = connection.execute("pragma journal_mode=wal").fetchall()
    if mode != "wal":
        raise UnsafeFilesystemError(f"cannot use {path}: SQLite offers no WAL mode there")


class WithConnection(Protocol):
    """Calls a function with a connection, again after every obstacle."""

    def __call__(self, use: Callable[[sqlite3.Connection], T], /) -> T: ...


def prepare_schema(
    sidecar: Sidecar, with_connection: WithConnection, patience: float
) -> schema.Versions:
    """Make the tables unless they are there.

    A fork waits for whoever has a connection: nobody has one while it waits for the setup lock.

    Raises: SchemaError; BusyError; sqlite3.Error.
    """

    def make() -> None:
        if with_connection(schema.versions) is None:
            with_connection(partial(_create_behind_gate, sidecar))

    try:
        found = with_connection(schema.versions)
        if found is None:
            _under_setup_lock(sidecar, 0o600, patience, make)
            found = with_connection(schema.versions)
        assert found is not None
        schema.check(found, writing=False)
    except SchemaError as error:
        raise SchemaError(f"cannot open {sidecar.database}: {error}") from error
    return found


def _create_behind_gate(sidecar: Sidecar, connection: sqlite3.Connection) -> None:
    with sidecar.open(sidecar.gate) as gate:
        try:
            flock(gate.number, TRY)
            schema.create(connection)
        finally:
            unlock(gate.number, UNLOCK)


def _under_setup_lock(
    sidecar: Sidecar, mode: int, patience: float, action: Callable[[], None]
) -> None:
    """Raises: BusyError when patience is over, and what `action` raises."""
    with sidecar.open(sidecar.setup_lock, mode) as lock:
        try:
            turn = Turn(sidecar, patience, writing=False)
            while True:
                try:
                    flock(lock.number, TRY)
                    break
                except BlockingIOError:
                    turn.rest(Obstructed("another process was setting the store up"))
            action()
        finally:
            unlock(lock.number, UNLOCK)  # the first call: no exception can keep it locked

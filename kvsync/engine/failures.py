"""SQLite's errors in kvsync's words. Matches on error codes, never on texts."""

import errno
import os
import sqlite3

from kvsync.engine.gate import Obstructed
from kvsync.errors import (
    ClosedError,
    CorruptError,
    EncodeError,
    NotADatabaseError,
    OpenError,
    ReadOnlyError,
    StorageError,
    StoreReplacedError,
)

_BOTH = os.R_OK | os.W_OK
_PRIMARY = 0xFF
_DBMOVED = 1032  # SQLITE_READONLY_DBMOVED, which the sqlite3 module does not name everywhere


Failure = sqlite3.Error | OverflowError | UnicodeDecodeError

FAILURES = (sqlite3.Error, OverflowError, UnicodeDecodeError)
"""What the sqlite3 module raises: an OverflowError for text and bytes past 2 GB; and where SQLite's
message quotes text of a damaged file, it cannot even be told."""


def translated(error: Failure, path: str) -> Exception:
    """What to raise in the place of `error`; `Obstructed` where trying again can help."""
    if isinstance(error, OverflowError):
        return EncodeError(f"{path}: the value is larger than SQLite can hold: {error}")
    if isinstance(error, UnicodeDecodeError):
        return CorruptError(errno.EUCLEAN, f"{path} is damaged, and what it names is no text")
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # from the sqlite3 module itself
        kind = ClosedError if isinstance(error, sqlite3.ProgrammingError) else StorageError
        return kind(f"{path}: {error}")
    if code == _DBMOVED:
        return StoreReplacedError(f"{path} was deleted or replaced while it was open")
    match code & _PRIMARY:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Obstructed("another program's transaction was in the way")
        case sqlite3.SQLITE_NOTADB:
            return NotADatabaseError(f"{path} is no SQLite database, or an encrypted one")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_CONSTRAINT:  # which no row of ours breaks
            return CorruptError(errno.EUCLEAN, f"{path} is damaged: {error}")
        case sqlite3.SQLITE_FULL:
            return StorageError(errno.ENOSPC, f"{path}: no space left: {error}")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return ReadOnlyError(errno.EACCES, f"{path} cannot be written by this user: {error}")
        case sqlite3.SQLITE_CANTOPEN:
            return _not_opened(error, path)
        case sqlite3.SQLITE_TOOBIG:
            return EncodeError(f"{path}: the value is larger than SQLite can hold: {error}")
        case sqlite3.SQLITE_NOMEM:
            return MemoryError(f"{path}: {error}")
    return StorageError(errno.EIO, f"{path}: {error} ({error.sqlite_errorname})")


def _not_opened(error: Failure, path: str) -> OpenError:
    """SQLite does not tell which of the store's files keeps us out."""
    for file in (path, f"{path}-wal", f"{path}-shm"):
        if os.path.exists(file) and not os.access(file, _BOTH):
            sentence = f"cannot open {path}: this user may not read and write {file}"
            return OpenError(errno.EACCES, sentence)
    return OpenError(f"cannot open {path}: {error}")


def is_full(error: Exception) -> bool:
    """Whether there was no space left on the disk."""
    return (getattr(error, "sqlite_errorcode", 0) & _PRIMARY) == sqlite3.SQLITE_FULL

"""The engine, broken: transactions, the gate, the checkpoint, the disk."""

from kvsync.engine import checkpoint, setup
from kvsync.engine.checkpoint import Checkpoint
from kvsync.engine.descriptors import Descriptor
from kvsync.engine.failures import translated
from kvsync.engine.sqlite import SqliteEngine
from kvsync.engine.transaction import Block, SqliteTransaction
from stress.mutants.breaking import edit, put, put_item
from stress.mutants.mutant import caught_by

_GO_ON_IN_A_NEW_ONE = """try:
                rows = cursor.execute(text, row).fetchall()
            except sqlite3.OperationalError:
                cursor.execute("rollback")
                cursor.execute("pragma busy_timeout=10000")
                cursor.execute("begin immediate")
                rows = cursor.execute(text, row).fetchall()
"""
_CHECKPOINT = """finally:
            link.pool.checkpoint.if_due(link.connection)
"""


@caught_by("bank", "dict_cas")
def deferred_transaction() -> None:
    """A transaction takes the write lock at its first write, without the gate, and what meets
    another writer there goes on in a new transaction with what it has read in the old one."""
    edit(SqliteTransaction.begin, "begin immediate", "begin deferred")
    edit(SqliteTransaction.begin, "flock(link.gate, TRY)", "pass")
    edit(
        SqliteTransaction.execute,
        "rows = list(chain.from_iterable(map(cursor.execute, (text,), (row,))))\n",
        _GO_ON_IN_A_NEW_ONE,
    )


@caught_by("counters_in_transactions")
def rollback_forgotten() -> None:
    """A transaction that raises is committed."""
    edit(
        Block.__exit__,
        "elif error is None:\n                transaction.keep(",
        "else:\n                transaction.keep(",
    )


@caught_by("wal")
def no_checkpoint() -> None:
    """Nobody copies the log into the database, so it grows."""
    edit(Checkpoint.if_due, "if not due:", "if due or not due:")


@caught_by("wal")
def unguarded_checkpoint() -> None:
    """Nobody takes the gate, and whoever reads or writes copies a long log into the database, in
    SQLite's own way (PASSIVE)."""
    edit(SqliteTransaction.begin, "flock(link.gate, TRY)", "pass")
    edit(SqliteEngine._write_once, "flock(link.gate, TRY)", "pass")
    edit(Checkpoint.if_due, 'mode = "truncate" if', 'mode = "passive" if True or')
    put(checkpoint, "THRESHOLD", 1 << 20)
    for call in (SqliteEngine._read_once, SqliteEngine._write_once):
        edit(call, "finally:\n", _CHECKPOINT)


@caught_by("disk_full")
def full_disk_ignored() -> None:
    """A commit for which the disk had no room counts as done."""
    edit(
        SqliteTransaction._commit_once,
        "raise translated(error, self._path) from error",
        "if getattr(error, 'sqlite_errorcode', 0) & 0xFF != sqlite3.SQLITE_FULL:\n"
        "                raise translated(error, self._path) from error",
    )


@caught_by("io")
def failed_write_ignored() -> None:
    """A write that the disk refused counts as done."""
    refused = "(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)"
    failed = f"if getattr(error, 'sqlite_errorcode', 0) & 0xFF not in {refused}:\n"
    for step, told in (
        (SqliteEngine._write_once, "raise translated(error, self.path) from error"),
        (SqliteTransaction._commit_once, "raise translated(error, self._path) from error"),
    ):
        edit(step, told, f"{failed}                {told}\n            return []")


@caught_by("leaks")
def descriptors_kept() -> None:
    """What is closed beside the database, the gate for one, stays open."""
    edit(Descriptor.close, "_close(self._key)", "pass")
    edit(Descriptor.__init__, "weakref.ref(self, _lost.setdefault)", "weakref.ref(self)")


@caught_by("disk_full", "hostile")
def bare_errors() -> None:
    """What SQLite says of a full disk and of a damaged file comes out as SQLite's own error."""
    edit(
        translated,
        "match code & _PRIMARY:",
        "if code & _PRIMARY in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_CORRUPT,"
        " sqlite3.SQLITE_NOTADB):\n        return error\n    match code & _PRIMARY:",
    )


@caught_by("power")
def power_not_waited_for() -> None:
    """With durability "power" no commit waits for the disk."""
    put_item(setup.DURABILITY, "power", "off")


@caught_by("power")
def folder_not_synced() -> None:
    """With durability "power" a rollback journal that was unlinked may come back: `full` does not
    sync the folder."""
    put_item(setup.DURABILITY, "power", "full")


@caught_by("power")
def half_made_taken_for_made() -> None:
    """A new file is empty until SQLite has set WAL mode in it, and one that is not empty is taken
    for made."""
    edit(setup._create, "os.write(descriptor, page := _first_page()) != len(page)", "False")
    edit(
        setup._is_made,
        'size > _PAGE_SIZE or (size > 0 and not _size(f"{path}-journal"))',
        "size > 0",
    )

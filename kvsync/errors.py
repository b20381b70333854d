"""Every error that kvsync raises, grouped by the moment in which it occurs.

Each is a `KvsyncError` and also the built-in that people already catch. All of them pickle.
"""

import queue
import sys
import threading


class KvsyncError(Exception):
    """The root of everything that kvsync raises on its own account."""

    def __str__(self) -> str:
        # KeyError and OSError print their arguments in ways that would garble a sentence.
        return getattr(self, "strerror", None) or Exception.__str__(self)


# --- while naming and opening a store ---------------------------------------------------------


class OpenError(KvsyncError, OSError):
    """The store cannot be opened. Whatever is at its path was left as it was."""


class StorePathError(KvsyncError, ValueError):
    """The path or URL cannot name a store (empty, in memory, another database's scheme)."""


class NotADatabaseError(OpenError):
    """The file is no SQLite database."""


class UnsafeFilesystemError(OpenError):
    """The file lies where SQLite's locks or shared memory are not to be trusted."""


class SchemaError(OpenError):
    """The file's kvsync tables are newer than this library can use, or not kvsync's at all."""


class UnsupportedSQLiteError(KvsyncError, RuntimeError):
    """Python is linked with a SQLite that lacks what kvsync needs."""


# --- in any call ------------------------------------------------------------------------------


class BusyError(KvsyncError, TimeoutError):
    """SQLite's write lock could not be had within `busy_timeout`, or a call's shorter `timeout`.

    Nothing was changed, but where a call's own words say what else there may be.
    """


class ClosedError(KvsyncError, ValueError):
    """The store was closed, as with `ValueError: I/O operation on closed file`."""


class ForkError(KvsyncError, RuntimeError):
    """This process was forked in a way that makes its inherited store unsafe to use."""


class StoreReplacedError(KvsyncError, OSError):
    """The database file was deleted or replaced while it was open."""


class StorageError(KvsyncError, OSError):
    """The disk, the file system or SQLite refused; `errno` is set where it is known."""


class CorruptError(StorageError):
    """SQLite found the file damaged."""


class ReadOnlyError(StorageError, PermissionError):
    """This user may not write the store."""


# --- in a call's arguments --------------------------------------------------------------------


class InvalidNameError(KvsyncError, ValueError):
    """A name must be a non-empty `str` of at most 1,000 characters that UTF-8 can hold."""


class KeyTypeError(KvsyncError, KeyError, TypeError):
    """A key that is not a `str`."""


class InvalidKeyError(KvsyncError, KeyError, ValueError):
    """A `str` that cannot be a key: it holds a NUL or a lone surrogate."""


class EncodeError(KvsyncError, TypeError, ValueError):
    """The codec cannot hold this value. Nothing was written."""


class DecodeError(KvsyncError, ValueError):
    """What is stored was not written by this codec."""


class NotANumberError(KvsyncError, TypeError):
    """Arithmetic on a stored value that is no number. It was left as it was."""


class CounterOverflowError(KvsyncError, OverflowError):
    """The sum does not fit into 64 bits. Nothing was changed."""


# --- around transactions ----------------------------------------------------------------------


class TransactionError(KvsyncError, RuntimeError):
    """A call that the transaction open in this thread forbids."""


# --- while waiting ----------------------------------------------------------------------------


class AcquireTimeout(KvsyncError, TimeoutError):
    """What a `with` block or a `run` needs was not to be had within the timeout."""


class DeadlockError(KvsyncError, RuntimeError):
    """To wait on would be for ever: those who could end the wait wait for this thread in turn.

    Only circles of what is acquired are found, with no timeout and no lease in them: see
    `kvsync.open`.
    """


# --- around what is held ----------------------------------------------------------------------


class NotOwnedError(KvsyncError, RuntimeError):
    """This object holds nothing that it could release, or is not its owner's."""


class OverReleaseError(NotOwnedError, ValueError):
    """More permits than were acquired. None was given back."""


class LeaseLostError(KvsyncError, RuntimeError):
    """What was held is held no more: the lease ran out, or somebody took it away by force."""


class NotDoneError(KvsyncError, LookupError):
    """There is no result: nobody has done it yet, or not in this period."""


class StaleReceiptError(KvsyncError, RuntimeError):
    """This hand-out of an item is over: it was settled, or the item was given to another."""


class LimitError(KvsyncError, ValueError):
    """The same name is in use with another limit."""


class BrokenBarrierError(KvsyncError, threading.BrokenBarrierError):
    """Not all parties of the barrier will come: one timed out, died or aborted it."""


# --- around queues ----------------------------------------------------------------------------

if sys.version_info >= (3, 13):

    class ShutDown(KvsyncError, queue.ShutDown, RuntimeError):
        """The queue was shut down: it takes no items any more, or gives none any more."""

else:

    class ShutDown(KvsyncError, RuntimeError):
        """The queue was shut down: it takes no items any more, or gives none any more."""

"""kvsync: shared state and coordination for the processes of one machine, on one SQLite file.

    >>> import kvsync
    >>> store = kvsync.open("app.db")
    >>> store.counter("hits").add()
    1
    >>> with store.lock("nightly"):
    ...     pass

`kvsync.open` says what a store is opened with, `Store` what there is in it.

How the package is laid out; imports run downwards only, and import-linter holds that:

    cli                           the command
    compat, testing               KeyValueSqlite; what users' own tests need
    store                         open() and Store: wires the engine to the primitives
    primitives/                   one concept a file; know the engine's protocol, not SQLite
    waiting, deadlock             the only wait loop; when a wait can never end
    session                       who we are, whether another is alive, reaping the dead
    tokens                        fencing tokens
    engine/                       the seam to the database, the write gate, the fork rule
    errors, clock, codec, exits, forks, leftovers, printable, resting, threads   the ground
"""

from kvsync.clock import Clock
from kvsync.codec import Codec
from kvsync.compat import KeyValueSqlite
from kvsync.engine.sqlite import Health
from kvsync.errors import (
    AcquireTimeout,
    BrokenBarrierError,
    BusyError,
    ClosedError,
    CorruptError,
    CounterOverflowError,
    DeadlockError,
    DecodeError,
    EncodeError,
    ForkError,
    InvalidKeyError,
    InvalidNameError,
    KeyTypeError,
    KvsyncError,
    LeaseLostError,
    LimitError,
    NotADatabaseError,
    NotANumberError,
    NotDoneError,
    NotOwnedError,
    OpenError,
    OverReleaseError,
    ReadOnlyError,
    SchemaError,
    ShutDown,
    StaleReceiptError,
    StorageError,
    StorePathError,
    StoreReplacedError,
    TransactionError,
    UnsafeFilesystemError,
    UnsupportedSQLiteError,
)
from kvsync.primitives.barrier import Barrier, BarrierStats
from kvsync.primitives.buffered import BufferedCounter, BufferedCounterStats
from kvsync.primitives.condition import Condition, ConditionStats
from kvsync.primitives.counter import Counter, Counters, CountersStats, CounterStats
from kvsync.primitives.deadletters import DeadLetter, DeadLetters
from kvsync.primitives.election import Election
from kvsync.primitives.event import Event, EventStats
from kvsync.primitives.grants import Grant, Holder, Waiter
from kvsync.primitives.lock import Lock, Lockable, LockStats, RLock
from kvsync.primitives.mapping import MISSING, Dict, DictStats, KeyRange
from kvsync.primitives.once import Once, OnceStats
from kvsync.primitives.overview import Holding, Line, Waiting
from kvsync.primitives.queue import Item, Queue, QueueStats
from kvsync.primitives.rate import RateLimiter, RateLimiterStats
from kvsync.primitives.rwlock import ReadLock, RWLock, WriteLock
from kvsync.primitives.semaphore import Semaphore, SemaphoreStats
from kvsync.primitives.task import Task
from kvsync.primitives.work import Worked
from kvsync.store import Store, StoreStats, open, temporary

__all__ = [
    "MISSING",
    "AcquireTimeout",
    "Barrier",
    "BarrierStats",
    "BrokenBarrierError",
    "BufferedCounter",
    "BufferedCounterStats",
    "BusyError",
    "Clock",
    "ClosedError",
    "Codec",
    "Condition",
    "ConditionStats",
    "CorruptError",
    "Counter",
    "CounterOverflowError",
    "CounterStats",
    "Counters",
    "CountersStats",
    "DeadLetter",
    "DeadLetters",
    "DeadlockError",
    "DecodeError",
    "Dict",
    "DictStats",
    "Election",
    "EncodeError",
    "Event",
    "EventStats",
    "ForkError",
    "Grant",
    "Health",
    "Holder",
    "Holding",
    "InvalidKeyError",
    "InvalidNameError",
    "Item",
    "KeyRange",
    "KeyTypeError",
    "KeyValueSqlite",
    "KvsyncError",
    "LeaseLostError",
    "LimitError",
    "Line",
    "Lock",
    "LockStats",
    "Lockable",
    "NotADatabaseError",
    "NotANumberError",
    "NotDoneError",
    "NotOwnedError",
    "Once",
    "OnceStats",
    "OpenError",
    "OverReleaseError",
    "Queue",
    "QueueStats",
    "RLock",
    "RWLock",
    "RateLimiter",
    "RateLimiterStats",
    "ReadLock",
    "ReadOnlyError",
    "SchemaError",
    "Semaphore",
    "SemaphoreStats",
    "ShutDown",
    "StaleReceiptError",
    "StorageError",
    "Store",
    "StorePathError",
    "StoreReplacedError",
    "StoreStats",
    "Task",
    "TransactionError",
    "UnsafeFilesystemError",
    "UnsupportedSQLiteError",
    "Waiter",
    "Waiting",
    "Worked",
    "WriteLock",
    "open",
    "temporary",
]

__version__ = "0.1.0"

"""The store: one SQLite file that the processes of a machine share, and the maker of primitives."""

import atexit
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import util
from types import TracebackType
from typing import Any, TypedDict, Unpack

from kvsync.clock import Clock
from kvsync.codec import Codec
from kvsync.engine import location
from kvsync.engine.setup import DURABILITY
from kvsync.engine.sqlite import Health, SqliteEngine
from kvsync.forks import incarnation
from kvsync.primitives.arguments import Seconds
from kvsync.primitives.barrier import Barrier
from kvsync.primitives.buffered import flush_all_of
from kvsync.primitives.condition import Condition
from kvsync.primitives.counter import Counter, Counters
from kvsync.primitives.election import Election
from kvsync.primitives.event import Event
from kvsync.primitives.kinds import delete, names
from kvsync.primitives.lock import Lock, Lockable, RLock
from kvsync.primitives.mapping import Dict
from kvsync.primitives.once import Once
from kvsync.primitives.overview import Line, lines
from kvsync.primitives.queue import Queue
from kvsync.primitives.rate import RateLimiter
from kvsync.primitives.rwlock import RWLock
from kvsync.primitives.semaphore import Semaphore
from kvsync.session import Session


@dataclass(frozen=True)
class StoreStats:
    """A store at one moment; sizes in bytes, `busy_timeout` in seconds."""

    path: str
    file_bytes: int
    wal_bytes: int
    journal_mode: str
    durability: str
    busy_timeout: float
    sqlite_version: str
    schema: int
    dicts: int
    counters: int
    queues: int
    sessions: int
    """Store handles, in whichever processes, that held something or waited and are not closed."""
    lines: tuple[Line, ...]
    """All that is held or waited for, by name."""


class Store:
    """A handle on one file. `kvsync.open` makes it; `close` or a `with` block ends it.

    Handles are cheap, picklable, and usable from any thread; a file's handles in one process share
    their connections and join the same transaction. A forked child may go on using it.

    Raises: what makes a primitive touches no file, and raises TypeError and ValueError for bad
    arguments, InvalidNameError (a ValueError) among them. Any other call, of the store and of what
    it makes, raises BusyError after it has waited for other writers for `busy_timeout`, or for its
    own `timeout` if that is less, but a second at least; ClosedError, ForkError,
    StoreReplacedError, StorageError and its kin; and the first one what `open` says of it.
    """

    def __init__(self, engine: SqliteEngine, options: dict[str, Any]) -> None:
        self._sqlite = engine
        self._options = options
        self._session = Session(engine, detect_deadlocks=options.get("detect_deadlocks", True))

    @property
    def engine(self) -> SqliteEngine:
        """The seam to the database; primitives use it, programs need not."""
        return self._sqlite

    @property
    def session(self) -> Session:
        """What this handle is to other processes; primitives use it, programs need not."""
        return self._session

    @property
    def path(self) -> str:
        """The file, absolute and with links resolved."""
        return self._sqlite.path

    @property
    def busy_timeout(self) -> float:
        """Seconds for which a write waits for other writers before it raises BusyError."""
        return self._sqlite.busy_timeout

    # --- primitives ---------------------------------------------------------------------------

    def dict(self, name: str, *, codec: str | Codec = "json") -> Dict:
        """The dict of that name: see `Dict`.

        Args:
            codec: "json", "raw", "pickle", or an object with `dumps` and `loads`.
        """
        return Dict(self, name, codec=codec)

    def counter(self, name: str) -> Counter:
        """The counter of that name: see `Counter`."""
        return Counter(self, name)

    def counters(self, name: str) -> Counters:
        """The family of counters of that name: see `Counters`."""
        return Counters(self, name)

    def lock(
        self, name: str, *, timeout: Seconds | None = None, lease: Seconds | None = None
    ) -> Lock:
        """The lock of that name: see `Lock`.

        Args:
            timeout: seconds, or a timedelta, for which `acquire` and a `with` block wait unless
                told otherwise; None and -1 for ever.
            lease: seconds, or a timedelta, after which a grant ends by itself; None for never.
        """
        return Lock(self, name, timeout=timeout, lease=lease)

    def rlock(
        self, name: str, *, timeout: Seconds | None = None, lease: Seconds | None = None
    ) -> RLock:
        """The re-entrant lock of that name: see `RLock`.

        Args:
            timeout, lease: seconds, or timedeltas, as for `lock`.
        """
        return RLock(self, name, timeout=timeout, lease=lease)

    def semaphore(
        self,
        name: str,
        limit: int,
        *,
        timeout: Seconds | None = None,
        lease: Seconds | None = None,
    ) -> Semaphore:
        """The semaphore of that name: see `Semaphore`.

        Args:
            limit: permits that are held at a time, at most.
            timeout, lease: seconds, or timedeltas, as for `lock`.
        """
        return Semaphore(self, name, limit, timeout=timeout, lease=lease)

    def rwlock(
        self, name: str, *, timeout: Seconds | None = None, lease: Seconds | None = None
    ) -> RWLock:
        """The read-write lock of that name: see `RWLock`.

        Args:
            timeout, lease: seconds, or timedeltas, as for `lock`, of either side.
        """
        return RWLock(self, name, timeout=timeout, lease=lease)

    def election(
        self, name: str, *, timeout: Seconds | None = None, lease: Seconds | None = None
    ) -> Election:
        """The election of that name: see `Election`.

        Args:
            timeout: seconds, or a timedelta, for which a campaign waits unless told otherwise; None
                and -1 for ever.
            lease: seconds, or a timedelta, after which the lead ends by itself; None for never.
        """
        return Election(self, name, timeout=timeout, lease=lease)

    def rate_limiter(
        self, name: str, limit: int, *, per: Seconds, burst: int | None = None
    ) -> RateLimiter:
        """The rate limiter of that name: see `RateLimiter`.

        Args:
            limit: units in `per`.
            per: seconds, or a timedelta, from a nanosecond to ten years.
            burst: units that may go at once after a rest; None for `limit` of them.
        """
        return RateLimiter(self, name, limit, per=per, burst=burst)

    def once(self, name: str, *, per: Seconds | None = None, lease: Seconds | None = None) -> Once:
        """What is done once under that name: see `Once`.

        Args:
            per: seconds, or a timedelta, after which it is done again; None for never.
            lease: seconds, or a timedelta, after which a run that is not over loses its turn, and
                another may run beside it; None for none. You rarely need one.
        """
        return Once(self, name, per=per, lease=lease)

    def queue(
        self,
        name: str,
        maxsize: int = 0,
        *,
        max_attempts: int = 5,
        visibility: Seconds | None = None,
        retry_delay: Seconds = 1.0,
        codec: str | Codec = "json",
    ) -> Queue:
        """The queue of that name: see `Queue`.

        Args:
            maxsize: items that it holds at most; 0 for any number.
            max_attempts: after which an item that fails goes to the dead letters.
            visibility: seconds for which a worker may have an item; None until it is settled or
                the worker dies.
            retry_delay: seconds between the first and the second attempt; then it doubles.
            codec: of the items: "json", "raw" (str and bytes as they are), "pickle" (unsafe where
                others can write the file), or an object with `dumps` and `loads`.

        Raises: TypeError, ValueError for arguments, a codec of an unknown name among them.
        """
        return Queue(
            self,
            name,
            maxsize,
            max_attempts=max_attempts,
            visibility=visibility,
            retry_delay=retry_delay,
            codec=codec,
        )

    def event(self, name: str) -> Event:
        """The event of that name: see `Event`."""
        return Event(self, name)

    def condition(self, name: str, lock: Lock | RLock | None = None) -> Condition:
        """The condition of that name, on its rlock or on the lock given: see `Condition`.

        Raises: TypeError for what is neither lock; ValueError for one of another store.
        """
        return Condition(self, name, lock)

    def barrier(
        self,
        name: str,
        parties: int,
        *,
        action: Callable[[], object] | None = None,
        timeout: Seconds | None = None,
    ) -> Barrier:
        """The barrier of that name: see `Barrier`.

        Args:
            parties: threads that wait for each other.
            action: called by the one that comes last, before anybody goes on.
            timeout: seconds, or a timedelta, for which `wait` waits unless told otherwise; None
                for ever.
        """
        return Barrier(self, name, parties, action=action, timeout=timeout)

    # --- transactions -------------------------------------------------------------------------

    def transaction(self, *, guard: Lockable | None = None) -> AbstractContextManager[None]:
        """Make every call of this thread on this file, inside the block, one commit.

        If the block raises, nothing of it happened. An inner block is part of the outer one; if
        it raises, what it did is undone, and the outer may go on. Other threads and processes see
        nothing until the outermost ends, and none of them can write meanwhile: keep it short.

        Args:
            guard: what must be held through the object given (a lock, an election ...), from the
                beginning to the commit, or nothing happens. That of an inner block must be held
                until the outermost commits, or nothing of that happens either. A thread that has a
                grant of its own there goes by that one, even if it was lost; only one that has none
                goes by another thread's. Of several permits, or readings, none may be lost.

        Raises: BusyError after `busy_timeout` if others go on writing; with a guard,
        NotOwnedError and LeaseLostError, TypeError for what cannot be held, ValueError if it is
        another file's, and StoreReplacedError if it is held in the file that was here before.
        Inside, TransactionError for a call that would have to wait, and for a call from another
        asyncio task or greenlet of this thread.
        """
        if guard is None:
            return self._sqlite.transaction()
        if not isinstance(guard, Lockable):
            raise TypeError(
                "a guard is a lock, a semaphore, an election, or the read() or write() side of an"
                f" rwlock, not {guard!r}"
            )
        if guard.store.path != self.path:
            raise ValueError(f"{guard!r} cannot guard a transaction on {self.path!r}")

        def check() -> None:
            # A path is no proof: what is held in a file that was replaced is held there alone.
            self._sqlite.forbid_other_file(guard.store.engine)
            # Nobody else writes in between, so nobody can take it away; but a lease can end.
            guard.ensure_held()

        return self._sqlite.transaction(check)

    # --- the whole ----------------------------------------------------------------------------

    def names(self, kind: str) -> list[str]:
        """The names in use of one kind: "dict", "counter", "counters", "rate_limiter", "once" or
        "queue"; for "event" those that are set, for "barrier" those that are broken; for "lock"
        (with rlock and rwlock), "semaphore", "election" and "condition" those that somebody holds
        or waits for.

        They are sorted. Blocks no writer. Raises: ValueError for an unknown kind.
        """
        return names(self._sqlite, kind)

    def delete(self, kind: str, name: str) -> None:
        """Remove what has this name, a thousand rows at a time, so that others can write between.

        Of a queue that is all its items, dead letters and those in hand included, and that it was
        shut down. Who waits for an item goes on waiting, `join` returns, and who waits for room
        puts its item into the queue anew.

        Raises: ValueError for an unknown kind, and for one of which there is nothing to delete: of
        a lock, semaphore, election or condition nothing is left when nobody uses it; TypeError,
        InvalidNameError for what is no name; BusyError, ClosedError, StoreReplacedError as any
        call, and then some of it may be gone.
        """
        delete(self._sqlite, kind, name)

    def stats(self) -> StoreStats:
        """Sizes, settings, what is in it, who holds and who waits for what.

        Blocks no writer, but to pass over a stopped waiter.
        """
        file = self._sqlite.facts()
        return StoreStats(
            path=self.path,
            file_bytes=file.file_bytes,
            wal_bytes=file.wal_bytes,
            journal_mode=file.journal_mode,
            durability=self._sqlite.durability,
            busy_timeout=self.busy_timeout,
            sqlite_version=file.sqlite_version,
            schema=file.schema,
            dicts=len(self.names("dict")),
            counters=len(self.names("counter")) + len(self.names("counters")),
            queues=len(self.names("queue")),
            sessions=self._sqlite.read("select count(*) from kvsync_session")[0][0],
            lines=tuple(lines(self._sqlite)),
        )

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy one consistent state to `path`, replacing that file in one step at the end.

        Readers and writers go on meanwhile. The copy is checked before that step, for a damaged
        store must not replace a good copy: that reads all of it once more, which takes time for a
        large one.

        Raises: CorruptError if the store is damaged; StorageError if the copy cannot be written,
        or a log beside `path` shows that it is in use; TransactionError inside a transaction;
        ValueError if `path` is the store itself. The file at `path` is as it was then.
        """
        self._sqlite.backup(os.fspath(path))

    def check(self) -> Health:
        """Read the whole file and report damage: see `Health`. Blocks no writer."""
        return self._sqlite.health()

    def close(self) -> None:
        """Give this handle up, and all that is held through it. Idempotent.

        Its primitives raise ClosedError from now on. Its buffered counters are flushed first.

        Raises: what their `flush` raises, BusyError and StorageError as any call, and then the
        store stays open; TransactionError inside a transaction.
        """
        self._sqlite.forbid_in_transaction("close")
        flush_all_of(self)
        self._session.close()
        self._sqlite.close()
        self._session.wake()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_again, (self.path, self._options)

    def __repr__(self) -> str:
        return f"kvsync.open({self.path!r})"


def open(
    location_: str | os.PathLike[str],
    /,
    *,
    busy_timeout: float = 30.0,
    durability: str = "process",
    mode: int = 0o600,
    allow_network: bool = False,
    detect_deadlocks: bool = True,
    clock: Clock | None = None,
) -> Store:
    """A store on the file at that path or `sqlite:///` URL. Touches no file until it is used.

    That makes the file, and the folders above it, unless they are there. So it can stand at the top
    of a module, and be used by forked and spawned children alike.

    Args:
        busy_timeout: seconds for which a write waits for other writers before BusyError.
        durability: "process": nothing acknowledged is lost when a process dies, the last commits
            may be when the power fails; "power": nothing then either, each commit waits for the
            disk; "none": after a power failure the file may be damaged.
        mode: permissions of the file if it is made, and with it of all that lies beside it.
        allow_network: accept a network file system, where the caller vouches that only one
            machine uses the file.
        detect_deadlocks: raise DeadlockError for waits that cannot end; False for programs in
            which another thread releases what a waiting one holds. No circle is seen that passes
            through a wait with a timeout, a grant with a lease, or a wait for an event, a
            condition, a barrier or a queue.
        clock: another source of time, for tests.

    Raises: StorePathError for an empty path, ":memory:", or another scheme; ValueError and
        TypeError for bad options; UnsupportedSQLiteError if Python's SQLite is too old. The first
        use raises OpenError and its kin if the file cannot be used, ReadOnlyError if this user may
        not, and TransactionError inside a transaction on a file that has no tables of kvsync's yet.
    """
    options = {
        "busy_timeout": _check_timeout(busy_timeout),
        "durability": _check_durability(durability),
        "mode": _check_mode(mode),
        "allow_network": allow_network,
        "detect_deadlocks": bool(detect_deadlocks),
        "clock": _check_clock(clock),
    }
    return _open_again(location.resolve(location_), options)


class Options(TypedDict, total=False):
    """The options of `open`."""

    busy_timeout: float
    durability: str
    mode: int
    allow_network: bool
    detect_deadlocks: bool
    clock: Clock | None


def temporary(**options: Unpack[Options]) -> Store:
    """A store on a private file that is removed when this process ends: for tests and scripts.

    Children of this process may use it while the process lives.

    Args:
        options: `busy_timeout`, `durability`, `mode`, `allow_network`, `detect_deadlocks` and
            `clock`, as `open` takes them.

    Raises: as `open`.
    """
    folder = tempfile.mkdtemp(prefix="kvsync-")
    maker = incarnation()

    def remove() -> None:
        if incarnation() == maker:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    util.Finalize(None, remove, exitpriority=-100)
    return open(os.path.join(folder, "store.db"), **options)


def _open_again(path: str, options: dict[str, Any]) -> Store:
    settings = {key: value for key, value in options.items() if key != "detect_deadlocks"}
    return Store(SqliteEngine(path, **settings), options)


def _check_timeout(busy_timeout: float) -> float:
    if isinstance(busy_timeout, bool) or not isinstance(busy_timeout, int | float):
        raise TypeError(f"busy_timeout is a number of seconds, not {busy_timeout!r}")
    if not 0 <= busy_timeout < math.inf:
        raise ValueError(f"busy_timeout is finite and not negative, not {busy_timeout!r}")
    return float(busy_timeout)


def _check_durability(durability: str) -> str:
    if durability not in DURABILITY:
        known = ", ".join(map(repr, DURABILITY))
        raise ValueError(f"durability is one of {known}, not {durability!r}")
    return durability


def _check_clock(clock: Clock | None) -> Clock | None:
    if clock is not None and not (hasattr(clock, "wall") and hasattr(clock, "boot")):
        raise TypeError(f"a clock has the methods wall and boot, as ManualClock does: {clock!r}")
    return clock


def _check_mode(mode: int) -> int:
    if isinstance(mode, bool) or not isinstance(mode, int):
        raise TypeError(f"mode is an int such as 0o600, not {mode!r}")
    if mode & ~0o666 or mode & 0o600 != 0o600:
        raise ValueError(f"mode must give its owner 0o600, and nothing past 0o666, not {mode:#o}")
    return mode

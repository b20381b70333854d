"""The engine on SQLite: single statements, transactions, and the waiting between attempts."""

import errno
import logging
import os
import sqlite3
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, starmap
from operator import attrgetter, itemgetter
from types import CodeType
from typing import TypeVar

from kvsync.clock import Clock, SystemClock
from kvsync.engine import Engine, LateParams, Params, Row, Transaction, schema, setup
from kvsync.engine.descriptors import Descriptor
from kvsync.engine.doorbell import Doorbells
from kvsync.engine.failures import FAILURES, translated
from kvsync.engine.flock import TRY, UNLOCK, flock, unlock
from kvsync.engine.gate import Obstructed, Turn
from kvsync.engine.links import (
    CHECK_EVERY,
    SPOILT,
    Pin,
    Place,
    Pool,
    current_task,
    pool_of,
    release,
    takes_link,
)
from kvsync.engine.location import filesystem
from kvsync.engine.shapes import require_shapes
from kvsync.engine.statements import statements
from kvsync.engine.transaction import Block, SqliteTransaction, interrupts_a_write, run
from kvsync.errors import (
    BusyError,
    ClosedError,
    CorruptError,
    KvsyncError,
    OpenError,
    StorageError,
    StoreReplacedError,
    TransactionError,
)
from kvsync.threads import make_way

T = TypeVar("T")

_monotonic = time.monotonic
_nothing, _gate = itemgetter(slice(0)), attrgetter("gate")
_exhaust: Callable[[Iterator[object]], None] = deque[object](maxlen=0).extend
"""Takes all of its steps in one call into C, if they are C's."""

_log = logging.getLogger("kvsync")


@dataclass(frozen=True)
class Facts:
    """A database file at one moment; sizes in bytes."""

    sqlite_version: str
    journal_mode: str
    schema: int
    file_bytes: int
    wal_bytes: int


@dataclass(frozen=True)
class Health:
    """What `kvsync doctor` wants to know of a database: `damage` is empty where all is well."""

    facts: Facts
    filesystem: str
    has_wal_reset_bug: bool
    damage: tuple[str, ...]


class SqliteEngine:
    """One handle on one file; connections are shared with the file's other handles."""

    def __init__(
        self,
        path: str,
        *,
        busy_timeout: float,
        durability: str,
        mode: int,
        allow_network: bool = False,
        with_schema: bool = True,
        clock: Clock | None = None,
    ) -> None:
        setup.require_sqlite()
        self._pool = pool_of(path, durability, id(self))
        self.path = path
        self.busy_timeout = busy_timeout
        self.durability = durability
        self._mode = mode
        self._allow_network = allow_network
        self._with_schema = with_schema
        self._readable = self._writable = self._closed = False
        self._versions: schema.Versions | None = None
        self._pin: Pin | None = None
        clock = clock or SystemClock()
        self._wall, self.boot = clock.wall, clock.boot
        self.doorbells = Doorbells(self._pool.sidecar)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def now(self) -> float:
        transaction = self._pool.place().transaction
        return self._wall() if transaction is None else transaction.now

    def stamp(self) -> object:
        # Two commits within one tick of the file system's clock can look like one.
        for path in (f"{self.path}-wal", self.path):
            with suppress(OSError):
                file = os.stat(path)
                return path, file.st_ino, file.st_size, file.st_mtime_ns
        return object()

    # --- single statements --------------------------------------------------------------------

    def read(self, sql: str, params: Params = {}) -> list[Row]:
        if not self._readable:
            self._prepare()
        place = self._pool.place()
        if place.transaction is not None and (joined := self.open_transaction(place)):
            return joined.join().execute(sql, params)
        try:
            return self._read_once(place, sql, params)
        except Obstructed as obstacle:
            return self.wait(obstacle, lambda: self._read_once(place, sql, params), writing=False)

    @takes_link
    def _read_once(self, place: Place, sql: str, params: Params) -> list[Row]:
        link = place.take()
        try:
            if _monotonic() >= link.trusted_until:
                link.verify()
            statement = statements[sql]
            rows = link.cursor.execute(statement.text, statement.values(params)).fetchall()
            require_shapes(statement, link.cursor, rows, self.path)
            return rows
        except FAILURES as error:
            link.failed(error)  # a value that does not decode leaves its statement half done
            raise translated(error, self.path) from error
        except (StoreReplacedError, CorruptError):
            raise  # from before the statement, or after its last row
        except BaseException:
            link.cursor.close()  # a statement that is not fetched would hold on to the log
            link.generation = SPOILT
            raise
        finally:
            place.give(link)

    def write(
        self,
        sql: str,
        params: LateParams = {},
        *,
        patience: float | None = None,
        sure: bool = False,
        urgent: bool = False,
        into: list[Row] | None = None,
        telling: Iterator[object] | None = None,
    ) -> list[Row]:
        if not self._writable:
            self.place_for_writing()
        place = self._pool.place()
        if place.transaction is not None and (joined := self.open_transaction(place)):
            if into is not None:
                return []
            row = params() if callable(params) else params
            return joined.join(writing=True).execute(sql, row)
        try:
            return self._write_once(
                place, sql, params, polite=not urgent, sure=sure, into=into, telling=telling
            )
        except Obstructed as obstacle:
            return self.wait(
                obstacle,
                lambda: self._write_once(
                    place, sql, params, polite=False, sure=sure, into=into, telling=telling
                ),
                patience=patience,
                urgent=urgent,
            )

    @takes_link
    def _write_once(  # noqa: PLR0912 (in one frame: this is where all writes spend their time)
        self,
        place: Place,
        sql: str,
        params: LateParams,
        *,
        polite: bool,
        sure: bool,
        into: list[Row] | None,
        telling: Iterator[object] | None,
    ) -> list[Row]:
        link = place.take()
        try:
            if _monotonic() >= link.slice_end:
                link.begin_slice(polite=polite)
            elif sure:
                link.verify()
            flock(link.gate, TRY)
            if link.looks_first:
                link.make_room()
            statement = statements[sql]
            text, row = statement.text, statement.values(params() if callable(params) else params)
            if into is None:
                rows = link.cursor.execute(text, row).fetchall()
            else:
                rows = into
                # One call into C, in which SQLite commits before it lets go of the only row: no
                # exception of a signal can come in between, nor before others are told.
                found = chain.from_iterable(map(link.cursor.execute, (text,), (row,)))
                if telling is None:
                    into.extend(found)
                else:
                    noting = starmap(into.extend, ((found,),))
                    leaving = map(unlock, map(_gate, (link,)), (UNLOCK,))  # none, in a child
                    ways = starmap(make_way, map(_nothing, into))
                    _exhaust(chain(noting, telling, leaving, ways))
            require_shapes(statement, link.cursor, rows, self.path)
            link.writes += 1
            if link.writes >= CHECK_EVERY and telling is None:  # else the gate may be unlocked
                link.look_after_log()
            return rows
        except BlockingIOError:
            raise Obstructed("another process was writing") from None
        except FAILURES as error:
            link.failed(error)  # a value that does not decode leaves its statement half done
            raise translated(error, self.path) from error
        except (Obstructed, StoreReplacedError, CorruptError):
            raise  # from before the statement, or after its last row
        except BaseException:
            link.cursor.close()  # a statement that is not fetched would keep the write lock
            link.generation = SPOILT
            raise
        finally:
            # The first call here: no signal's exception can keep the gate locked.
            if link.gate >= 0:
                unlock(link.gate, UNLOCK)
            place.give(link)

    # --- transactions -------------------------------------------------------------------------

    def transact(
        self,
        work: Callable[[Transaction], T],
        *,
        patience: float | None = None,
        urgent: bool = False,
        bulk: bool = False,
    ) -> T:
        place = self.place_for_writing()
        outer = self.open_transaction(place)
        if outer is not None:
            return outer.join(writing=True).nested(work)
        return run(self, place, work, patience, urgent=urgent, bulk=bulk)

    def transaction(self, check: Callable[[], object] = bool) -> Block:
        return Block(self, check)

    def open_transaction(self, place: Place) -> SqliteTransaction | None:
        """This thread's transaction, unless a signal cut off the end of its block: see there."""
        transaction = place.transaction
        if transaction is not None and transaction.block is not None:
            for error in (sys.exception(), getattr(sys, "last_value", None)):
                if transaction.ends_in(error):
                    transaction.end()
                    return None
        return transaction

    def place_for_writing(self) -> Place:
        """This thread's place. Raises: SchemaError if the tables are for newer libraries."""
        if not self._writable:
            self._prepare()
            if self._versions is not None and not self._writable:
                schema.check(self._versions, writing=True)
        return self._pool.place()

    def after_commit(self, call: Callable[[], object]) -> None:
        joined = self.open_transaction(self._pool.place())
        if joined is None:
            call()
        else:
            joined.after_commit(call)

    # --- waiting ------------------------------------------------------------------------------

    def wait(
        self,
        obstacle: Obstructed,
        attempt: Callable[[], T],
        *,
        writing: bool = True,
        patience: float | None = None,
        urgent: bool = False,
    ) -> T:
        """Try until it succeeds.

        Raises: BusyError after `patience` seconds, and never after more than `busy_timeout`.
        """
        if writing and self._interrupts_a_write():
            raise interrupts_a_write(self.path)
        patience = self.busy_timeout if patience is None else min(patience, self.busy_timeout)
        turn = Turn(self._pool.sidecar, patience, writing=writing, urgent=urgent)
        try:
            while True:
                turn.rest(obstacle)
                try:
                    return attempt()
                except Obstructed as again:
                    obstacle = again
        finally:
            if turn.claim is not None:
                # The first call here: no signal's exception can keep it locked.
                unlock(turn.claim.number, UNLOCK)
                turn.claim.close()
            del obstacle  # its traceback keeps this frame, and all that called it

    def _interrupts_a_write(self) -> bool:
        """Whether a call that holds, or may hold, the gate is further down on this very stack."""
        frame = sys._getframe().f_back
        while frame is not None:
            if frame.f_code in _GATED:
                link = frame.f_locals.get("link")
                if link is not None and link.pool is self._pool:
                    return True
            frame = frame.f_back
        return False

    # --- opening ------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """On the first call: make the file and the tables, or refuse them."""
        self._refuse_if_closed()
        place = self._pool.place()
        task = current_task()
        if task in place.opening:
            raise BusyError(
                f"{self.path}: called from a signal handler that interrupted its opening"
            )
        try:
            place.opening.add(task)  # in here: a signal's exception can come right after it
            self._prepare_file(self._pool)
            if self._with_schema:
                self._prepare_schema(self._pool)
        except FAILURES as error:
            raise translated(error, self.path) from error
        except OSError as error:  # of descriptors, of the mount table: whatever is not ours yet
            if isinstance(error, KvsyncError):
                raise
            raise OpenError(error.errno, f"cannot open {self.path}: {error.strerror}") from error
        finally:
            place.opening.discard(task)
        self._readable = True
        self._writable = self._versions is None or self._versions.min_writer <= schema.VERSION
        if self._closed:  # by another thread, which may have come before that
            self._readable = self._writable = False
            self._refuse_if_closed()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.path}: this store is closed")

    def _prepare_file(self, pool: Pool) -> None:
        if pool.identity is None:
            setup.prepare_file(
                pool.sidecar,
                self._mode,
                allow_network=self._allow_network,
                retrying=partial(self._patiently, writing=False),
                patience=self.busy_timeout,
                alone=pool.lock,
            )
            _tell_of_wal_reset_bug()
        with pool.lock:
            self._pin = pool.pin()

    def _prepare_schema(self, pool: Pool) -> None:
        transaction = pool.place().transaction
        if transaction is not None:
            self._versions = self._joined_versions(transaction)
            return

        def with_connection(use: Callable[[sqlite3.Connection], T]) -> T:
            return self._patiently(lambda: self._use_link(use))

        self._versions = setup.prepare_schema(pool.sidecar, with_connection, self.busy_timeout)

    def _joined_versions(self, transaction: SqliteTransaction) -> schema.Versions:
        found = schema.versions(transaction.join().connection)
        if found is None:
            raise TransactionError(f"{self.path}: use the store once before the transaction begins")
        schema.check(found, writing=False)
        return found

    def _patiently(self, step: Callable[[], T], *, writing: bool = True) -> T:
        """Run `step`, again after every obstacle, with SQLite's errors translated."""

        def attempt() -> T:
            try:
                return step()
            except BlockingIOError:
                raise Obstructed("another process was writing") from None
            except FAILURES as error:
                raise translated(error, self.path) from error

        try:
            return attempt()
        except Obstructed as obstacle:
            return self.wait(obstacle, attempt, writing=writing)

    def sync(self) -> None:
        # Opening the log is harmless, for SQLite holds no locks on it. With a rollback journal
        # there is none: a commit is an unlink there, which the folder makes last.
        for path in (f"{self.path}-wal", os.path.dirname(self.path)):
            try:
                file = Descriptor(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageError(error.errno, f"cannot sync {path}: {error.strerror}") from error
            with file:
                os.fsync(file.number)

    # --- looking after the file ---------------------------------------------------------------

    def backup(self, target: str) -> None:
        """Copy one consistent state to the file `target`, replacing it in one step.

        Readers and writers go on meanwhile. The whole copy is read, to see that it is sound.

        Raises: CorruptError if it is not, and then `target` is as it was; TransactionError inside
        a transaction.
        """
        self.forbid_in_transaction("backup")
        target = os.path.realpath(target)
        folder, name = os.path.split(target)
        if target == self.path:
            raise ValueError(f"{target} is the store itself: copy it to another file")
        for suffix in ("-wal", "-journal"):
            if os.path.exists(target + suffix) and os.path.getsize(target + suffix):
                raise StorageError(
                    f"cannot replace {target}: {target + suffix} shows that it is in use, or was"
                    " not closed cleanly, and would be read into the copy; remove both first"
                )
        try:
            self._copy_beside(folder, name)
        except OSError as error:
            if isinstance(error, KvsyncError):
                raise
            raise StorageError(error.errno, f"cannot write {target}: {error.strerror}") from error

    def _copy_beside(self, folder: str, name: str) -> None:
        descriptor, copy = tempfile.mkstemp(prefix=f".{name}-", dir=folder)
        os.close(descriptor)
        try:
            self._patiently(lambda: self._with_link(lambda source: _copy(source, copy)))
            self._patiently(lambda: _require_sound(copy, self.path))
            os.replace(copy, os.path.join(folder, name))
        finally:
            for path in (copy, copy + "-wal", copy + "-shm"):
                with suppress(FileNotFoundError):
                    os.unlink(path)

    def convert_to_wal(self) -> None:
        """Set WAL mode for good. Raises: BusyError while others use the file."""
        self.forbid_in_transaction("convert_to_wal")

        def convert() -> None:
            self._pool.close()  # SQLite changes the mode for the file's only connection
            self._with_link(lambda connection: setup.set_wal(connection, self.path))

        self._patiently(convert)
        self._pool.close()  # `synchronous` depends on the mode

    def _with_link(self, use: Callable[[sqlite3.Connection], T]) -> T:
        if not self._readable:
            self._prepare()
        return self._use_link(use)

    @takes_link
    def _use_link(self, use: Callable[[sqlite3.Connection], T]) -> T:
        place = self._pool.place()
        link = place.take()
        try:
            return use(link.connection)
        finally:
            place.give(link)

    def facts(self) -> Facts:
        ((journal_mode,),) = self.read("pragma journal_mode")
        return Facts(
            sqlite_version=sqlite3.sqlite_version,
            journal_mode=journal_mode,
            schema=self._versions.schema if self._versions else 0,
            file_bytes=os.stat(self.path).st_size,
            wal_bytes=self._pool.checkpoint.size(),
        )

    def health(self) -> Health:
        """Look the file over; reads it all. Blocks no writer."""
        try:
            damage = [text for (text,) in self.read("pragma integrity_check") if text != "ok"]
        except CorruptError as error:
            damage = [str(error)]
        return Health(
            facts=self.facts(),
            filesystem=filesystem(self.path),
            has_wal_reset_bug=setup.has_wal_reset_bug(),
            damage=tuple(damage),
        )

    def is_in_transaction(self) -> bool:
        return self.open_transaction(self._pool.place()) is not None

    def forbid_in_transaction(self, what: str) -> None:
        """Raises: TransactionError where `what` would have to wait for the transaction's end."""
        if self.is_in_transaction():
            raise TransactionError(f"{what} cannot be called inside a transaction")

    def forbid_other_file(self, other: Engine) -> None:
        if isinstance(other, SqliteEngine) and other._pool is self._pool:
            return
        if isinstance(other, SqliteEngine) and other._closed:
            raise ClosedError(f"{other.path}: this store is closed")
        raise StoreReplacedError(f"{self.path} was replaced by another file; open it again")

    def verify(self) -> None:
        self._refuse_if_closed()
        self._pool.verify()

    def close(self) -> None:
        self.forbid_in_transaction("close")
        self._closed = True  # first: who is just opening it looks at that last
        self._readable = self._writable = False
        release(self._pool, id(self))
        self._pin = None

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            release(self._pool, id(self))


def _copy(source: sqlite3.Connection, path: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as copy:
        source.backup(copy)


def _require_sound(copy: str, path: str) -> None:
    """Raises: CorruptError of `path`, whose copy it is."""
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        ((damage,),) = connection.execute("pragma quick_check(1)").fetchall()
    if damage != "ok":
        raise CorruptError(errno.EUCLEAN, f"{path} is damaged, so no copy was kept: {damage}")


_GATED: frozenset[CodeType] = frozenset(
    function.__code__
    for function in (
        SqliteEngine._write_once,
        SqliteTransaction.begin,
        SqliteTransaction.end,
        run,
    )
)


_told: set[str] = set()


def _tell_of_wal_reset_bug() -> None:
    """Once in each process."""
    if setup.has_wal_reset_bug() and not _told:
        _told.add(sqlite3.sqlite_version)
        _log.info(
            "kvsync: SQLite %s has the WAL-reset bug; kvsync checkpoints only while it keeps all"
            " its writers out, so its own processes cannot meet it",
            sqlite3.sqlite_version,
        )

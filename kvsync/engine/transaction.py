"""A write transaction in one thread and task, entered through the gate.

A signal's exception can come after any call returns and at the first instruction of any function,
which then is skipped as a whole. Hence:

- What must happen at the end is in a `finally`, begins with calls into C, and is called twice.
- What an interrupted block inside left half done must not be committed: `depth` tells, for it goes
  back only when the block has ended.
- The `with` block of a user can lose its `__exit__`. Its transaction then ends when the next call
  of this thread finds it in the exception that is being handled, or when the block is dropped.
"""

import sqlite3
import time
import weakref
from collections.abc import Callable
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from kvsync.engine import Params, Row
from kvsync.engine.failures import FAILURES, translated
from kvsync.engine.flock import TRY, UNLOCK, flock, unlock
from kvsync.engine.gate import Obstructed
from kvsync.engine.links import CHECK_EVERY, SPOILT, Link, Place, current_task, takes_link
from kvsync.engine.shapes import require_shapes
from kvsync.engine.statements import statements
from kvsync.errors import BusyError, ForkError, TransactionError
from kvsync.forks import incarnation

if TYPE_CHECKING:
    from kvsync.engine.sqlite import SqliteEngine

T = TypeVar("T")


class SqliteTransaction:
    """The outermost transaction of this thread on one file."""

    def __init__(self, engine: "SqliteEngine", place: Place) -> None:
        self.now = 0.0
        self.depth = 0
        self.committed = False
        self.block: weakref.ref[Block] | None = None
        self.works = False  # a call of kvsync's own is under way, which nobody may write into
        self._engine = engine
        self._place = place
        self._path = engine.path
        self._task = current_task()
        self._link: Link | None = None
        self._broken: Exception | None = None
        self._commits = False
        self._after_commit: list[Callable[[], object]] = []
        self._on_undo: list[Callable[[], object]] = []
        self._checks: list[Callable[[], object]] = []  # of blocks that have ended, kept for later
        self._marks: list[tuple[int, int]] = []  # how many of both each savepoint began with

    # --- beginning and ending -----------------------------------------------------------------

    @takes_link
    def begin(self, *, polite: bool) -> None:
        """One attempt; a polite one makes way for who claims the gate. Raises: Obstructed."""
        place = self._place
        link = place.take()
        try:
            if time.monotonic() >= link.slice_end:
                link.begin_slice(polite=polite)
            else:
                link.verify()
            flock(link.gate, TRY)
            if link.looks_first:
                link.make_room()
            link.cursor.execute("begin immediate")
            self.now = self._engine.now()
            self._link = link
            place.transaction = self
        except BlockingIOError:
            raise Obstructed("another process was writing") from None
        except FAILURES as error:
            raise translated(error, self._path) from error
        finally:
            if self._link is None:
                if link.gate >= 0:
                    unlock(link.gate, UNLOCK)
                place.give(link)

    def commit(self, *, bulk: bool = False) -> None:
        """Raises: TransactionError, BusyError, StorageError, and what the kept checks raise;
        nothing of it is kept then.
        """
        assert self._link is not None
        if self._broken is not None:
            raise TransactionError("nothing was committed") from self._broken
        if self.depth:
            raise TransactionError("nothing was committed: a block inside was interrupted")
        try:
            self._commit_once()
        except Obstructed as obstacle:  # in a rollback journal, readers block a commit
            self._engine.wait(obstacle, self._commit_once)
        if bulk or self._link.writes >= CHECK_EVERY:
            self._link.look_after_log(bulk=bulk)

    def _commit_once(self) -> None:
        assert self._link is not None
        for check in self._checks:  # in each attempt: it may have waited since the last one
            check()
        try:
            self._commits = True
            self._link.cursor.execute("commit")
        except FAILURES as error:
            self._commits = False
            self._link.note_full(error)
            raise translated(error, self._path) from error

    @takes_link
    def end(self) -> None:
        """Leave the gate; what is not committed is undone. In a forked child: only forget.

        What was committed is told to those who wait for it, by the calls that were to follow.

        Call it twice, the second time in a `finally`: a signal can skip or cut short one call.
        Until the gate is unlocked it can begin again.
        """
        link, place = self._link, self._place
        if place.transaction is self:
            place.transaction = None
        if link is not None and link.gate >= 0 and self.is_of_this_process:
            try:
                if link.connection.in_transaction:
                    link.cursor.execute("rollback")
                elif self._commits:
                    self.committed = True
                if not self.committed:
                    self._undo_since(0)
            except sqlite3.Error:
                link.generation = SPOILT  # closing the connection rolls back too
            finally:
                unlock(link.gate, UNLOCK)
                self._link = None
                place.give(link)
        # No link any more: a handler that interrupts the calls may wait for the gate.
        self._link = self.block = link = None
        while self.committed and self._after_commit:
            self._after_commit[0]()  # once more if a signal's exception came in it: it is a hint
            del self._after_commit[0]

    # --- inside -------------------------------------------------------------------------------

    def join(self, *, writing: bool = False) -> "SqliteTransaction":
        """This transaction, for a call of the same task.

        Who would write while it `works` has interrupted that work, whose statements are one step.
        Raises: TransactionError, ForkError; BusyError for that.
        """
        if self._task != current_task():
            raise TransactionError(
                "another task of this thread is inside a transaction on this store; a transaction"
                " must not be left waiting (no await, no switch of greenlets) before it ends"
            )
        if self._link is None or not self.is_of_this_process:
            raise ForkError(f"{self._path}: this transaction belongs to the parent process")
        if writing and self.works:
            raise interrupts_a_write(self._path)
        return self

    def execute(self, sql: str, params: Params = {}) -> list[Row]:
        if self._broken is not None:
            raise TransactionError("this transaction has already failed") from self._broken
        assert self._link is not None
        self._link.writes += 1
        statement = statements[sql]
        text, row = statement.text, statement.values(params)
        try:
            cursor = self._link.cursor
            # One call into C: a handler that came before the rows were fetched, and joined, would
            # run its own statement with this cursor, and they would be gone.
            rows = list(chain.from_iterable(map(cursor.execute, (text,), (row,))))
            require_shapes(statement, cursor, rows, self._path)
            return rows
        except FAILURES as error:
            self._link.failed(error)
            failure = translated(error, self._path)
            if isinstance(failure, Obstructed):
                failure = BusyError(f"{self._path}: {failure}")
            if not self._link.connection.in_transaction:
                self._broken = failure  # SQLite itself rolled back: a full disk, an I/O error
            raise failure from error

    def after_commit(self, call: Callable[[], object]) -> None:
        self._after_commit.append(call)

    def on_undo(self, call: Callable[[], object]) -> None:
        self._on_undo.append(call)

    def keep(self, check: Callable[[], object]) -> None:
        """Call it before the commit, unless what was done up to now is undone: it may forbid it."""
        self._checks.append(check)

    def _undo_since(self, mark: int) -> None:
        while len(self._on_undo) > mark:
            self._on_undo[-1]()
            del self._on_undo[-1]

    def nested(self, work: Callable[["SqliteTransaction"], T]) -> T:
        """What `work` returns; if it raises, what it did here is undone alone."""
        self.enter_savepoint()
        worked, self.works = self.works, True
        try:
            result = work(self)
            self.leave_savepoint()
            return result
        except BaseException:
            self.undo_savepoint()
            raise
        finally:
            self.works = worked

    def enter_savepoint(self) -> None:
        self.execute(f"savepoint kvsync_{self.depth}")
        self._marks[self.depth :] = [(len(self._on_undo), len(self._checks))]
        self.depth += 1

    def leave_savepoint(self) -> None:
        self.execute(f"release kvsync_{self.depth - 1}")
        self.depth -= 1

    def undo_savepoint(self) -> None:
        """If this fails or is interrupted, `depth` keeps the whole from being committed."""
        if self._broken is None:
            self.execute(f"rollback to kvsync_{self.depth - 1}")
            undone, kept = self._marks[self.depth - 1]
            self._undo_since(undone)
            del self._checks[kept:]
            self.leave_savepoint()

    @property
    def connection(self) -> sqlite3.Connection:
        assert self._link is not None
        return self._link.connection

    @property
    def is_of_this_process(self) -> bool:
        return self._place.process == incarnation()

    # --- a block whose end was skipped --------------------------------------------------------

    def ends_in(self, error: BaseException | None) -> bool:
        """Whether the traceback of `error`, or of one behind it, left this transaction's block."""
        block = self.block() if self.block is not None else None
        while block is not None and error is not None:
            traceback = error.__traceback__
            while traceback is not None:
                frame = traceback.tb_frame
                if frame.f_code in _ENDS and frame.f_locals.get("self") in (block, self):
                    return True
                traceback = traceback.tb_next
            error = error.__cause__ or error.__context__
        return False


def run(
    engine: "SqliteEngine",
    place: Place,
    work: Callable[[SqliteTransaction], T],
    patience: float | None,
    *,
    urgent: bool,
    bulk: bool,
) -> T:
    """What `work` returns, its statements one commit; nothing at all if it raises."""
    transaction = SqliteTransaction(engine, place)
    try:
        begin(engine, transaction, patience, urgent=urgent)
        transaction.works = True
        result = work(transaction)
        transaction.commit(bulk=bulk)
    finally:
        try:
            transaction.end()
        finally:
            transaction.end()
    return result


def begin(
    engine: "SqliteEngine",
    transaction: SqliteTransaction,
    patience: float | None = None,
    *,
    urgent: bool = False,
) -> None:
    """Begin, waiting for others. Raises: BusyError."""
    try:
        transaction.begin(polite=not urgent)
    except Obstructed as obstacle:
        engine.wait(
            obstacle, lambda: transaction.begin(polite=False), patience=patience, urgent=urgent
        )


def interrupts_a_write(path: str) -> BusyError:
    """What a call is told that cannot wait for the write in the middle of which it comes."""
    return BusyError(
        f"{path}: called from a signal handler or finalizer that interrupted a write of this"
        " thread, which cannot go on before the handler returns"
    )


class Block:
    """A user's `with store.transaction():`; an inner one is a savepoint of the outermost.

    `check` raises where the block must not begin, or not be committed. It is called in here and not
    by a block around this one: an interrupt in between would leave open what `ends_in` cannot tell.
    An inner block is not committed as it ends: the transaction keeps its check until it is, and an
    interrupt that kept it from that leaves the savepoint open, so that nothing is committed.
    """

    def __init__(self, engine: "SqliteEngine", check: Callable[[], object] = bool) -> None:
        self._engine = engine
        self._check = check
        self._outermost = False
        self._transaction: SqliteTransaction | None = None

    def __enter__(self) -> None:
        if self._transaction is not None:
            raise TransactionError("this transaction has already begun; ask the store for another")
        place = self._engine.place_for_writing()
        outer = self._engine.open_transaction(place)
        if outer is not None:
            self._transaction = outer.join(writing=True)
            outer.enter_savepoint()
            self._check_inner(outer)
            return
        self._transaction = transaction = SqliteTransaction(self._engine, place)
        self._outermost = True
        # The callback runs only if the block is dropped unended: `end` lets go of the reference.
        transaction.block = weakref.ref(self, lambda _: transaction.end())
        try:
            begin(self._engine, transaction)
            self._check()
        except BaseException:
            transaction.end()
            raise

    def _check_inner(self, outer: SqliteTransaction) -> None:
        try:
            self._check()
        except BaseException:
            outer.undo_savepoint()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        transaction = self._transaction
        assert transaction is not None
        try:
            if not transaction.is_of_this_process:
                if error is None:
                    raise ForkError("this transaction belongs to the parent process")
            elif not self._outermost and error is None:
                self._check_inner(transaction)
                transaction.keep(self._check)
                transaction.leave_savepoint()
            elif not self._outermost:
                transaction.undo_savepoint()
            elif error is None:
                transaction.keep(self._check)
                transaction.commit()
        finally:
            if self._outermost:
                try:
                    transaction.end()
                finally:
                    transaction.end()


_ENDS = frozenset(
    function.__code__
    for function in (
        Block.__enter__,
        Block.__exit__,
        SqliteTransaction.commit,
        SqliteTransaction.end,
    )
)

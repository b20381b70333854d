"""The seam to the database: all that a primitive may know of it.

SQL passed through here keeps to what SQLite and PostgreSQL both speak
(`insert ... on conflict ... do update ... returning`, named parameters `:name`), and takes "now"
from the transaction or the engine, never from SQL.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from kvsync.engine.doorbell import Doorbells

T = TypeVar("T")

Row = tuple[Any, ...]
Params = Mapping[str, object]
LateParams = Params | Callable[[], Params]
"""Or a call that finds them out when their turn has come."""


class Transaction(Protocol):
    """An open write transaction: no one else writes until it ends."""

    @property
    def now(self) -> float:
        """Wall time in seconds since 1970, the same throughout the transaction."""

    @property
    def committed(self) -> bool:
        """Whether it has ended, and what it did is in the database."""

    def execute(self, sql: str, params: Params = ...) -> list[Row]:
        """Run one statement; returns all its rows."""

    def nested(self, work: "Callable[[Transaction], T]") -> T:
        """What `work` returns; if it raises, what it did here is undone alone."""

    def after_commit(self, call: Callable[[], object]) -> None:
        """Call it once the whole is committed, outside of the transaction; a kill may prevent it.

        What a savepoint undid is called too: good for hints only.
        """

    def on_undo(self, call: Callable[[], object]) -> None:
        """Call it if what was done up to now is undone, while nobody else can write.

        A kill may prevent it; and it may be called again if an exception interrupts it.
        """


class Engine(Protocol):
    """One database, seen from one process. Usable from any thread.

    Every method may raise `BusyError`, `ClosedError`, `ForkError`, `StoreReplacedError` and
    `StorageError`; none lets an error of the driver through.
    """

    @property
    def url(self) -> str:
        """What `kvsync.open` takes to open this database again, in this or another process."""

    @property
    def busy_timeout(self) -> float:
        """Seconds for which a call waits for other writers, at most."""

    def now(self) -> float:
        """Wall time in seconds since 1970; inside a transaction of this thread, the same always."""

    def boot(self) -> float:
        """Seconds on a clock that never jumps: for waits and leases."""

    def stamp(self) -> object:
        """Another one than before if anybody has committed since, or may have.

        Cheaper than to read. It may come a moment before the commit can be read, and once in a
        while it does not change.
        """

    def after_commit(self, call: Callable[[], object]) -> None:
        """Call it now, or, inside a transaction, as `Transaction.after_commit` does."""

    @property
    def doorbells(self) -> "Doorbells":
        """How the processes that use this database wake each other."""

    def read(self, sql: str, params: Params = ...) -> list[Row]:
        """One reading statement, on the last committed state or inside the open transaction."""

    def write(
        self,
        sql: str,
        params: LateParams = ...,
        *,
        patience: float | None = None,
        sure: bool = False,
        urgent: bool = False,
        into: list[Row] | None = None,
        telling: Iterator[object] | None = None,
    ) -> list[Row]:
        """One writing statement: a transaction of its own, or part of the open one.

        For who must know whether it was committed, even if a signal's exception comes right then:
        its one row is in the list `into` if and only if it was. So nothing is done, and nothing
        returned, inside an open transaction, which commits later. `telling` tells others of it: it
        is iterated as soon as the row is there, in one step with it, if it is C's and so is what it
        iterates. They wait for what was done: the turn to write ends before anything else is seen
        to, and who was woken is made way for.

        `params` that are a call are found out when the turn to write has come, and anew at each
        attempt: what was found out before is as old as the wait for the turn was long, and a lease
        that began then could be over. BusyError comes after `patience` seconds, if that is less
        than the `busy_timeout`. `sure` looks right before whether the database is still the one
        that was opened; without, that was seen a moment ago. `urgent` is as in `transact`.
        """

    def transact(
        self,
        work: Callable[[Transaction], T],
        *,
        patience: float | None = None,
        urgent: bool = False,
        bulk: bool = False,
    ) -> T:
        """What `work` returns, its statements one commit; nothing at all if it raises.

        Inside a transaction of the same thread and task it joins that one: what it did is undone
        if it raises, and committed when the outermost commits. BusyError comes after `patience`
        seconds, if that is less than the `busy_timeout`. What is `urgent` does not first make way
        for another process whose turn to write has come: others wait for what it does. What is
        `bulk` is one of many in a row that change much: the chores that follow come in small
        portions, for all others wait for each.
        """

    def transaction(self, check: Callable[[], object] = ...) -> AbstractContextManager[None]:
        """`transact` as a `with` block, for users: every call of this thread is part of it.

        `check` is called inside, first and last: if it raises, nothing of the block is kept. That
        of an inner block is called once more before the outermost commits, which it does not then.
        """

    def sync(self) -> None:
        """Wait until what is committed would survive a power failure."""

    def is_in_transaction(self) -> bool:
        """Whether this thread is inside a transaction."""

    def forbid_in_transaction(self, what: str) -> None:
        """For calls that would wait. Raises: TransactionError inside a transaction."""

    def forbid_other_file(self, other: "Engine") -> None:
        """For calls that rely on what another handle knows of the database at the same place.

        Raises: StoreReplacedError if that is not the one which this handle has open.
        """

    def verify(self) -> None:
        """For who relies on what it was told. Raises: StoreReplacedError, ClosedError."""

    def close(self) -> None:
        """Give up this handle; the last one on a database closes its connections."""

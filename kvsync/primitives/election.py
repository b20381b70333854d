"""Elections: one leader at a time among those who campaign."""

from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from typing import Any, TypeVar

from kvsync.errors import (
    AcquireTimeout,
    ForkError,
    KvsyncError,
    LeaseLostError,
    NotOwnedError,
    TransactionError,
)
from kvsync.forks import generation
from kvsync.primitives.arguments import (
    UNSET,
    Seconds,
    Unset,
    check_blocking,
    check_callable,
    check_wait,
)
from kvsync.primitives.grants import Grant, Holder
from kvsync.primitives.lock import Lockable
from kvsync.primitives.primitive import Home
from kvsync.threads import this_thread

T = TypeVar("T")


class Election(Lockable):
    """Who campaigns becomes the leader in turn, and stays it until it resigns or dies.

    `timeout` is for how many seconds a campaign waits, None for ever; `lease`, after how many the
    lead ends by itself, None for never. You rarely need a lease.

    A leader that is in doubt steps down: if the store cannot be asked, it leads no more, and gives
    the lead up as soon as it can. What the store says may change right after: for work that must
    not be done by two, pass the election as the guard of a transaction.

    What `campaign` wins is this object's, for all its threads. What a `run` or a `with` block wins
    is its thread's own. If it loses that it leads no more, and no guard of its holds, until it has
    won anew or left: not even if another thread has won through the same object meanwhile.

    Example:
        >>> election = store.election("scheduler")
        >>> election.campaign()
        True
        >>> election.is_leader()
        True
        >>> election.resign()
    """

    _space = _kind = "election"

    def __init__(self, store: Home, name: str, **options: Any) -> None:
        super().__init__(store, name, **options)
        # Won by a `run` or a block whose thread is inside and has not given it up itself. (A set,
        # but one that is added to without a call.)
        self._inside: dict[Grant, bool] = {}
        # The last one that is for all threads. Who wins it notes that a moment later: until then
        # the others wait for it, as they would had they come before.
        self._for_all: Grant | None = None

    def campaign(self, blocking: bool = True, timeout: Seconds | Unset | None = UNSET) -> bool:
        """Wait to become the leader, for up to `timeout` seconds; returns whether this object is.

        None and -1 wait for ever, 0 is one try; left out, the constructor's timeout holds. Returns
        at once if it is the leader already. Threads that campaign through one object wait each in a
        place of its own; the lead of one is that of all. But what another thread has won by a `run`
        or a `with` block ends with that, and first. Raises: as `Lock.acquire`.
        """
        seconds = check_blocking(blocking, timeout, self._timeout)
        won = self._lead() or self._win(seconds)
        return won is not None or self._lead() is not None  # another thread may have won meanwhile

    def acquire(self, blocking: bool = True, timeout: Seconds | Unset | None = UNSET) -> bool:
        """As `campaign`, but it waits for the end of this object's own lead as for any other.

        Raises: as `Lock.acquire`.
        """
        return self._win(check_blocking(blocking, timeout, self._timeout)) is not None

    def _win(self, timeout: float | None) -> Grant | None:
        """A lead that is all threads'."""
        won = self._acquire(timeout)
        if won is not None:
            self._for_all = won
        return won

    def _lead(self) -> Grant | None:
        """That of our grants which is current, unless it is another thread's own.

        Forgets those that are not: what is lost stays lost.
        """
        for grant in self._ours():
            if not self._is_current(grant):
                self._units.take_out(grant)
            elif grant is self._for_all or grant.thread == this_thread():
                return grant
        return None

    def _is_current(self, grant: Grant) -> bool:
        """Raises: KvsyncError where that cannot be told; then we have stepped down.

        Not so where it is only this caller that cannot ask: within another task's transaction, or
        in one that has failed (TransactionError), or in a child, whose lead it is not (ForkError).
        """
        try:
            return self._units.is_current(grant)
        except (TransactionError, ForkError):
            raise
        except KvsyncError:
            self._units.give_up(grant)
            raise

    def resign(self) -> None:
        """Let the next one lead.

        Any thread may, with what another has won too, be it by a `run` or a `with` block: that
        raises LeaseLostError as it ends.

        Raises: NotOwnedError if this object does not lead, LeaseLostError if not any more;
        TransactionError inside a transaction; BusyError and StorageError as any call, and then the
        lead is given up as soon as the store can be written.
        """
        self.release()

    def release(self) -> None:
        """The same as `resign`. Raises: as that."""
        grant = self._grant()
        self._units.release(grant)
        if grant.thread == this_thread():
            self._inside.pop(grant, None)

    def _latest(self) -> Grant | None:
        return self._mine() or super()._latest()

    def _mine(self) -> Grant | None:
        """This thread's last grant, though it be lost: inside a run or a block that stays its."""
        mine = super()._mine()
        return max(self._inside_here() + ([mine] if mine else []), key=_token, default=None)

    def _inside_here(self) -> list[Grant]:
        here = generation(), this_thread()
        return [grant for grant in self._inside.copy() if (grant.process, grant.thread) == here]

    def is_leader(self) -> bool:
        """Whether this object leads now; where that cannot be told it steps down.

        Inside a `run` or a `with` block that won the lead, whether this thread leads.
        Once the lead was lost this is False until the next campaign is won. A leader that has
        stepped down gives its place up as soon as the store can be reached.

        Raises: TransactionError, and the lead goes on, where another task of this thread is inside
        a transaction, or this one is inside a transaction that has failed.
        """
        mine = self._mine() if self._inside_here() else None
        try:
            return any(self._is_current(grant) for grant in ([mine] if mine else self._ours()))
        except TransactionError:
            raise
        except KvsyncError:
            return False

    def leader(self) -> Holder | None:
        """Who leads; None if nobody does. Blocks no writer, but to pass over a stopped waiter."""
        return self.holder()

    def run(self, func: Callable[[], T], *, timeout: Seconds | Unset | None = UNSET) -> T:
        """Campaign, call `func` as the leader, and resign; returns what `func` returned.

        If this object leads already by a `campaign`, or by a `run` or a `with` block that this
        thread is in, `func` is called at once, and that lead goes on afterwards. If it leads by
        another thread's `run` or `with` block, that one ends first.

        `timeout` is seconds to campaign, None for ever; left out, the constructor's holds.

        Raises: what `func` raises; AcquireTimeout if the lead was not won in time; LeaseLostError
        if it ended before `func` did, unless `func` has resigned what this `run` had won;
        TransactionError inside a transaction, unless this object leads already, and where another
        task of this thread is inside one; DeadlockError if the campaign could never end; TypeError
        for what cannot be called; TypeError, ValueError for a bad timeout, a negative one among
        them; BusyError, ClosedError, StoreReplacedError as any call.
        """
        check_callable(func)
        seconds = self._timeout if isinstance(timeout, Unset) else check_wait(timeout)
        lead = self._lead()
        if lead is None:
            return self._run_in_turn(func, seconds)
        result = func()
        if not self._is_current(lead):
            raise self._units.lost(lead)
        return result

    def _run_in_turn(self, func: Callable[[], T], timeout: float | None) -> T:
        won: Grant | None = None
        try:
            won = self._acquire(timeout)
            if won is None:
                raise AcquireTimeout(
                    f"election {self._name!r} was not won in time{self._units.held_by()}"
                )
            self._inside[won] = True
            result = func()
        except BaseException:
            try:
                with suppress(LeaseLostError, NotOwnedError):
                    self._leave(won)
            finally:
                with suppress(KvsyncError):
                    self._leave(won)  # a signal's exception can skip one call as a whole
            raise
        try:
            self._leave(won)
        finally:
            with suppress(KvsyncError):
                self._leave(won)
        return result

    def _leave(self, won: Grant | None) -> None:
        """The end of a run or a block; nothing if it has ended."""
        if won is None:
            return
        resigned = self._inside.pop(won, None) is None  # by this thread itself
        if won.depth:
            self._units.release(won)
        elif not resigned:
            raise self._units.lost(won)  # in doubt, or by another thread, it was given up

    # --- `with` -------------------------------------------------------------------------------

    def _begin(self) -> Grant:
        inside = self._inside
        grant = super()._begin()
        inside[grant] = True  # nothing is called from there to here, so no signal comes in
        return grant

    def _end(self, grant: Grant | None, error: BaseException | None) -> None:
        own = self._grant() if grant is None else grant
        if own.depth or own in self._inside:
            self._leave(own)
        else:
            super()._end(own, error)

    def _is_inside(self, grant: Grant, depth: int) -> bool:
        return grant in self._inside or super()._is_inside(grant, depth)


_token = attrgetter("token")

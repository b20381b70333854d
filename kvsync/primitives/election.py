"""Elections: one leader at a time among those who campaign."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from kvsync.errors import AcquireTimeout, KvsyncError, LeaseLostError
from kvsync.primitives.arguments import UNSET, Seconds, Unset, check_blocking
from kvsync.primitives.grants import Grant, Holder
from kvsync.primitives.lock import Lockable

T = TypeVar("T")


class Election(Lockable):
    """Who campaigns becomes the leader in turn, and stays it until it resigns or dies.

    A leader that is in doubt steps down: if the store cannot be asked, it leads no more, and gives
    the lead up as soon as it can. What the store says may change right after: for work that must
    not be done by two, pass the election as the guard of a transaction.

    Example:
        >>> election = store.election("scheduler")
        >>> election.campaign()
        True
        >>> election.is_leader()
        True
        >>> election.resign()
    """

    _space = _kind = "election"

    def campaign(self, blocking: bool = True, timeout: Seconds | Unset | None = UNSET) -> bool:
        """Wait to become the leader, for up to `timeout` seconds; returns whether this object is.

        Returns at once if it is the leader already. Raises: as `Lock.acquire`.
        """
        seconds = check_blocking(blocking, timeout, self._timeout)
        return self._leads() or self._acquire(seconds) is not None

    def _leads(self) -> bool:
        """Whether one of our grants is current. Forgets the others: what is lost stays lost."""
        for grant in self._ours():
            if self._is_current(grant):
                return True
            self._forget(grant)
        return False

    def _is_current(self, grant: Grant) -> bool:
        """Raises: KvsyncError where that cannot be told; then we have stepped down."""
        try:
            return self._units.is_current(grant)
        except KvsyncError:
            self._units.give_up(grant)
            raise

    def _forget(self, grant: Grant) -> None:
        with suppress(ValueError):  # another thread was faster
            self._units.held.remove(grant)

    def resign(self) -> None:
        """Let the next one lead. Raises: NotOwnedError, LeaseLostError."""
        self.release()

    def is_leader(self) -> bool:
        """Whether this object leads now; where that cannot be told it steps down.

        Once the lead was lost this is False until the next campaign is won. A leader that has
        stepped down gives its place up as soon as the store can be reached.
        """
        try:
            return any(self._is_current(grant) for grant in self._ours())
        except KvsyncError:
            return False

    def leader(self) -> Holder | None:
        """Who leads; None if nobody does."""
        return self.holder()

    def run(self, func: Callable[[], T], *, timeout: Seconds | Unset | None = UNSET) -> T:
        """Campaign, call `func` as the leader, and resign; returns what `func` returned.

        Raises: what `func` raises; AcquireTimeout; LeaseLostError if the lead was lost meanwhile.
        """
        if not self.campaign(timeout=timeout):
            raise AcquireTimeout(f"election {self._name!r} was not won in time")
        try:
            result = func()
        except BaseException:
            with suppress(LeaseLostError):
                self._end_of_run()
            raise
        self._end_of_run()
        return result

    def _end_of_run(self) -> None:
        if self._ours():  # else `func` has resigned
            self.resign()

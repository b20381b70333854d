"""Locks: one unit, which one holder at a time has, freed when its holder dies."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from kvsync.errors import AcquireTimeout, LeaseLostError, NotOwnedError
from kvsync.forks import generation
from kvsync.primitives.arguments import (
    UNSET,
    Seconds,
    Unset,
    check_blocking,
    check_lease,
    check_positive,
    check_timeout,
)
from kvsync.primitives.blocks import Enterable
from kvsync.primitives.grants import WHOLE, Grant, Holder, Waiter
from kvsync.primitives.primitive import Home, Primitive
from kvsync.primitives.units import Units
from kvsync.threads import Thread, this_thread

SPACE = "lock"
"""Where the names of lock, rlock and rwlock are: they exclude each other."""


@dataclass(frozen=True)
class LockStats:
    """A lock at one moment: who holds it, and who waits for it, the next one first."""

    name: str
    holders: tuple[Holder, ...]
    waiters: tuple[Waiter, ...]


class Lockable(Enterable, Primitive):
    """What all that is acquired and released has in common.

    A grant belongs to the object that acquired it: any thread may release it through that object,
    and nobody else may. It ends with `release`, with the process, or with `store.close()`. A `with`
    block gives back its own grant, or what its thread took in its place, and nothing of another
    thread. `timeout` and `lease` are seconds, or timedeltas.
    """

    _space: ClassVar[str] = SPACE
    _kind: ClassVar[str]

    def __init__(
        self,
        store: Home,
        name: str,
        *,
        timeout: Seconds | None = None,
        lease: Seconds | None = None,
    ) -> None:
        Primitive.__init__(self, store, name)
        Enterable.__init__(self)
        self._timeout = check_timeout(timeout)
        self._lease = check_lease(lease)
        self._units = Units(store.session, self._space, name, self._capacity())

    def _capacity(self) -> int:
        return WHOLE

    def _options(self) -> dict[str, Any]:
        options = {"timeout": self._timeout, "lease": self._lease}
        return {key: value for key, value in options.items() if value is not None}

    def acquire(self, blocking: bool = True, timeout: Seconds | Unset | None = UNSET) -> bool:
        """Take it, waiting for up to `timeout` seconds; returns whether it was taken.

        None and -1 wait for ever, 0 is one try; left out, the constructor's timeout holds. Those
        who wait are served in the order in which they came.

        Raises: DeadlockError if the wait could never end; TransactionError inside a transaction;
        TypeError, ValueError for arguments that are no such times; BusyError, ClosedError,
        StoreReplacedError as any call.
        """
        return self._acquire(check_blocking(blocking, timeout, self._timeout)) is not None

    def _acquire(self, timeout: float | None) -> Grant | None:
        return self._units.acquire(self._kind, self._capacity(), timeout, self._lease)

    def release(self) -> None:
        """Give it back; the next in line has it when this returns.

        Raises: NotOwnedError if this object does not hold it; LeaseLostError if it was lost
        meanwhile, and somebody else may have had it; BusyError, and then it is not this object's
        any more, and free as soon as the store is; TransactionError inside a transaction, and then
        it is held still.
        """
        self._units.release(self._grant())

    def _grant(self) -> Grant:
        """The grant that this object has. Raises: NotOwnedError."""
        grant = self._latest()
        if grant is None:
            raise self._not_owned()
        return grant

    def _not_owned(self) -> NotOwnedError:
        return NotOwnedError(f"{self._kind} {self._name!r} is not held by this object")

    def _latest(self) -> Grant | None:
        """This thread's last grant, else another thread's; a forked child has none of them."""
        held = self._units.held[:]
        if len(held) == 1 and held[0].process == generation():
            return held[0]  # whichever thread's: that need not be asked, and takes longer
        return self._mine() or next(reversed(self._ours()), None)

    def _mine(self) -> Grant | None:
        """This thread's last grant."""
        here, process = this_thread(), generation()
        for grant in self._units.held[::-1]:
            if grant.process == process and grant.thread == here:
                return grant
        return None

    def _ours(self) -> list[Grant]:
        return [grant for grant in self._units.held[:] if grant.process == generation()]

    def _of_caller(self) -> list[Grant]:
        """The grants that decide whether this caller holds it."""
        grant = self._latest()
        return [] if grant is None else [grant]

    def _with_all(self, act: Callable[[list[Grant]], None]) -> None:
        """Do that with all of them, but those that another thread has given back meanwhile.

        Raises: NotOwnedError if there are none; LeaseLostError if `act` finds one that is lost.
        """
        given_back: set[Grant] = set()
        while grants := [each for each in self._of_caller() if each not in given_back]:
            try:
                return act(grants)
            except LeaseLostError:
                gone = {*grants} - {*self._of_caller()}
                gone |= {each for each in grants if self._units.is_given_back(each)}
                if not gone:
                    raise
                given_back |= gone
        raise self._not_owned()

    def _begin(self) -> Grant:
        grant = self._acquire(self._timeout)
        if grant is None:
            raise AcquireTimeout(
                f"{self._kind} {self._name!r} was not to be had for {self._timeout:g} s"
                f"{self._units.held_by()}"
            )
        return grant

    def _end(self, grant: Grant | None, _error: BaseException | None) -> None:
        """Its own grant; if that was given back within, what its thread has taken since."""
        if grant is None:
            self.release()
            return
        own = grant if grant in self._ours() else self._mine()
        if own is None:
            raise NotOwnedError(f"{self._kind} {self._name!r} was given back within its block")
        self._units.release(own)

    # --- how it stands ------------------------------------------------------------------------

    def locked(self) -> bool:
        """Whether anybody holds it. The dead do not, nor does whoever's lease is over.

        Raises: ClosedError, StoreReplacedError as any call.
        """
        return bool(self._units.holders())

    def owned(self) -> bool:
        """Whether this object holds it now; of several grants, whether all are held.

        Raises: ClosedError, StoreReplacedError as any call.
        """
        try:
            self.ensure_held()
        except (NotOwnedError, LeaseLostError):
            return False
        return True

    def ensure_held(self) -> None:
        """Return if this object holds it now; of several grants, if all are held.

        Raises: NotOwnedError if it does not, LeaseLostError if not any more; ClosedError,
        StoreReplacedError as any call.
        """
        self._with_all(self._units.ensure_current)

    @property
    def token(self) -> int | None:
        """The fencing token of this object's grant: larger than that of every earlier grant.

        Of several grants it is that of the last, of this thread's if it has any.
        """
        grant = self._latest()
        return grant.token if grant is not None else None

    def holder(self) -> Holder | None:
        """Who holds it; None if nobody does.

        Raises: ClosedError, StoreReplacedError as any call.
        """
        return next(iter(self._units.holders()), None)

    def stats(self) -> LockStats:
        """Holders and waiters. Blocks no writer, but to pass over a stopped waiter."""
        return LockStats(self._name, tuple(self._units.holders()), tuple(self._units.waiters()))

    # --- leases and force ---------------------------------------------------------------------

    def extend(self, seconds: Seconds) -> None:
        """Let the lease end that many seconds from now.

        Careful: what was acquired without a lease has one from then on. It ends by itself, even
        while its holder lives and works, unless it is extended again in time.

        Of several grants all are extended, or none if any of them is lost.

        Raises: NotOwnedError, LeaseLostError; TypeError, ValueError unless `seconds` is a finite
        time above zero; BusyError, ClosedError, StoreReplacedError as any call.
        """
        lasts = check_positive("seconds", seconds)
        self._with_all(partial(self._units.extend, seconds=lasts))

    def force_release(self) -> list[Holder]:
        """Take it away from whoever holds it; returns who did, the dead and the late included.

        The former holder is not stopped: it finds out when it releases or extends, and its guarded
        transactions are refused.

        Raises: BusyError, ClosedError, StoreReplacedError as any call.
        """
        return self._units.force_release()


class Shared(Lockable):
    """What one object may hold several times, each time by a grant with a lease of its own."""

    def _of_caller(self) -> list[Grant]:
        here, ours = this_thread(), self._ours()
        return [grant for grant in ours if grant.thread == here] or ours


class Lock(Lockable):
    """A lock that any thread of any process may take, one at a time, in the order of asking.

    Not re-entrant: see `RLock`. If its holder dies, the next in line has it. `timeout` is how long
    to wait, `lease` how long to hold at most, as seconds or timedeltas; you rarely need a lease.

    Example:
        >>> with store.lock("nightly") as grant:
        ...     grant.token > 0
        True
    """

    _kind = "lock"


class RLock(Lockable):
    """A lock that the thread which holds it may take again; it is free after as many releases.

    The owner is the thread, through whichever object of this store. `timeout` and `lease` are as in
    `Lock`. Where the thread has lost it, `acquire` raises LeaseLostError at once, until it has
    released it as often as it had taken it.
    """

    _kind = "rlock"

    def _acquire(self, timeout: float | None) -> Grant | None:
        # Looked up before: between having the grant and noting it, no signal can come in.
        name, owned = self._name, self._owned
        grant = owned.get(self._key())
        if grant is None or not grant.depth:
            grant = super()._acquire(timeout)
            if grant is not None:
                owned[name, grant.process, grant.thread] = grant
            return grant
        if not self._units.is_current(grant):
            raise self._units.lost(grant)
        grant.require_own()
        grant.depth += 1
        return grant

    def release(self) -> None:
        """Undo one `acquire`; the last one gives it back.

        Raises: NotOwnedError if this thread does not hold it; LeaseLostError, from each of them, if
        it was lost meanwhile; the last one also as `Lock.release`.
        """
        grant = self._grant()
        if grant.depth > 1:
            grant.depth -= 1
            if not self._units.is_current(grant):
                raise self._units.lost(grant)
            return
        try:
            self._units.release(grant)
        except LeaseLostError:
            self._owned.pop(self._key(), None)
            raise
        self._owned.pop(self._key(), None)

    def _end(self, _grant: Grant | None, _error: BaseException | None) -> None:
        self.release()  # which is this thread's alone

    def _is_inside(self, grant: Grant, depth: int) -> bool:
        """By what is held now, be it another grant since a condition was waited for."""
        return super()._is_inside(self._mine() or grant, depth)

    @property
    def _owned(self) -> dict[Any, Grant]:
        return self._units.session.reentrant

    def _key(self) -> tuple[str, int, Thread]:
        return self._name, generation(), this_thread()

    def _latest(self) -> Grant | None:
        return self._mine()

    def _mine(self) -> Grant | None:
        grant = self._owned.get(self._key())
        # A signal may have kept a released one from being taken out.
        return grant if grant is not None and grant.depth else None

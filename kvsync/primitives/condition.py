"""Conditions: wait, with a lock given back meanwhile, until another that has it notifies.

A ticket is 'waiting', then 'notified'; its owner takes it away once it has the lock back. Until
then it has a pledge, so that a notification whose receiver dies before it could use it goes to the
next. Notifying and waiting both happen under the lock, and giving that back and joining the line
is one transaction: so whoever notifies finds everybody in the line who looked before it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from kvsync.engine import Engine, Transaction
from kvsync.engine.doorbell import Doorbell
from kvsync.errors import KvsyncError, LeaseLostError, NotOwnedError
from kvsync.forks import generation
from kvsync.leftovers import with_cleanup
from kvsync.primitives.arguments import UNSET, Seconds, Unset, check_wait, check_whole
from kvsync.primitives.blocks import Enterable
from kvsync.primitives.grants import Grant, Waiter, serve, waiters
from kvsync.primitives.lock import SPACE, Lock, RLock
from kvsync.primitives.primitive import Home, Primitive
from kvsync.primitives.tickets import Tickets
from kvsync.session import MEND
from kvsync.threads import this_thread
from kvsync.waiting import GONE, WAITING, Wish, enter

T = TypeVar("T")

_SPACE = "condition"
_NOTIFIED = "notified"
_EVERYBODY = 1 << 31

_TRIES = 10
"""Times that interruptions are put off until the lock is had; more of them are meant."""

_GIVE_BACK = """
    update kvsync_unit set session = 0
    where space = :space and name = :name and token = :token and session = :session
    and (expires is null or expires > :boot)
    returning token
"""


@dataclass(frozen=True)
class ConditionStats:
    """A condition at one moment: its lock's name, and who waits, the first one first."""

    name: str
    lock: str
    waiters: tuple[Waiter, ...]


class Condition(Enterable, Primitive):
    """Lets those who have a lock wait for a change that others, when they have it, tell of.

    The lock is an `RLock` or `Lock` of the same store: by default the rlock of the condition's
    name. Who waits on one condition must use one lock. Those who wait are notified in the order in
    which they came; a notification whose receiver dies before it has the lock goes to the next.

    Raises: TypeError for what is neither lock; ValueError for one of another store.

    Example:
        >>> changed = store.condition("changed")
        >>> with changed:
        ...     changed.wait_for(lambda: True)
        True
    """

    def __init__(self, store: Home, name: str, lock: Lock | RLock | None = None) -> None:
        Primitive.__init__(self, store, name)
        Enterable.__init__(self)
        self._given = lock
        self._lock = RLock(store, name) if lock is None else _check(lock, store)
        self._session = store.session
        self._tickets = Tickets(self._engine, _SPACE, name)

    def _options(self) -> dict[str, Any]:
        return {} if self._given is None else {"lock": self._given}

    # --- the lock -----------------------------------------------------------------------------

    @property
    def lock(self) -> Lock | RLock:
        """The lock. Waiting gives it back and takes it anew: the token is another then."""
        return self._lock

    def acquire(self, blocking: bool = True, timeout: Seconds | Unset | None = UNSET) -> bool:
        """Take the lock, waiting for up to `timeout` seconds; returns whether it was taken.

        Raises: as `acquire` of the lock.
        """
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """Give the lock back. Raises: as `release` of the lock."""
        self._lock.release()

    def _begin(self) -> Grant:
        return self._lock._begin()

    def _end(self, grant: Grant | None, error: BaseException | None) -> None:
        try:
            self._lock._end(grant, error)
        except NotOwnedError:
            if error is None:
                raise
            # It could not be taken back after a wait, and `error` tells why.

    def _is_inside(self, grant: Grant, depth: int) -> bool:
        return self._lock._is_inside(grant, depth)

    # --- waiting ------------------------------------------------------------------------------

    def wait(self, timeout: Seconds | None = None) -> bool:
        """Give the lock back, wait until notified, and take it again; returns whether it was.

        `timeout` is seconds to wait for the notification, None for ever; taking the lock again has
        no limit. An RLock is given back however often it was taken. Whatever is raised, by a
        signal's handler too, the lock is held again, unless that fails itself; then the lock's
        error is raised.

        Raises: NotOwnedError without the lock, LeaseLostError; DeadlockError if the lock could
        never be had again, for who has it waits for what this thread holds besides;
        TransactionError inside a transaction; TypeError, ValueError for a bad timeout, a negative
        one among them; BusyError, ClosedError, StoreReplacedError as any call.
        """
        seconds = check_wait(timeout)
        self._engine.forbid_in_transaction("wait")
        held = self._held()
        wish = self._tickets.wish(self._session, self._session.patience(seconds))
        lost = (LeaseLostError,)  # it was not ours to give back
        leave = partial(self._session.undo, partial(self._leave, wish))
        wait = partial(with_cleanup, partial(self._wait_and_return, wish, held), leave, lost)
        return with_cleanup(wait, partial(self._insist_to_take_back, held), lost)

    def wait_for(self, predicate: Callable[[], T], timeout: Seconds | None = None) -> T:
        """Wait until `predicate()` is true; returns what it said last.

        It is called with the lock held, at once and after every notification, for up to `timeout`
        seconds; None for ever. Raises: as `wait`, and what it raises.
        """
        seconds = check_wait(timeout)
        self._engine.forbid_in_transaction("wait")
        self._held()
        deadline = None if seconds is None else self._engine.boot() + seconds
        while not (result := predicate()):
            left = None if deadline is None else deadline - self._engine.boot()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def _wait_and_return(self, wish: Wish, held: Grant) -> bool:
        notified = self._wait(wish, held)
        self._take_back(held)
        if notified:
            self._tickets.depart_in_time(self._session, wish)
        return notified

    def _wait(self, wish: Wish, held: Grant) -> bool:
        """Whether the ticket was notified; it is still there then."""
        with self._session.doorbell() as doorbell:
            ticket = self._engine.transact(
                partial(self._enter, wish, held, doorbell), patience=self._tickets.patience(wish)
            )
            self._forget(held)
            state = self._tickets.until_told(self._session, wish, ticket, doorbell)
        if state == WAITING:
            give_up = partial(self._give_up, wish, ticket)
            state = self._engine.transact(give_up, patience=self._tickets.patience(wish))
        # Gone before its time, by the end of the session: let the caller look for itself.
        return state == _NOTIFIED or (state == GONE and not self._tickets.is_over(wish))

    def _enter(
        self, wish: Wish, held: Grant, doorbell: Doorbell | None, transaction: Transaction
    ) -> int:
        """Give the lock back and join the line, in one moment."""
        row = {
            "space": SPACE,
            "name": self._lock.name,
            "token": held.token,
            "session": held.session,
            "boot": self._engine.boot(),
        }
        if not transaction.execute(_GIVE_BACK, row):
            raise self._lock._units.lost(held)
        serve(SPACE, self._engine, transaction, self._lock.name)
        return enter(self._session, transaction, wish, doorbell)

    def _give_up(self, wish: Wish, ticket: int, transaction: Transaction) -> str:
        """The ticket's state at the end of its time; one that was not notified leaves."""
        state, _ = self._tickets.state(transaction, ticket)
        if state == WAITING:
            self._tickets.leave(transaction, self._session, wish)
        return state

    def _leave(self, wish: Wish, patience: float | None) -> None:
        self._engine.transact(partial(self._pass_on, wish), patience=patience)

    def _pass_on(self, wish: Wish, transaction: Transaction) -> None:
        """Leave the line, whatever came of it; somebody else has what we were notified of."""
        left = self._tickets.leave(transaction, self._session, wish)
        if left is not None and left[1] == _NOTIFIED:
            _notify(self._tickets, transaction, 1)

    # --- the lock, around a wait --------------------------------------------------------------

    def _held(self) -> Grant:
        """The lock's grant. Raises: NotOwnedError, LeaseLostError."""
        self._lock.ensure_held()
        return self._lock._grant()

    def _take_back(self, held: Grant) -> None:
        """Have the lock, as deep as before; good to begin again after an interruption.

        It may not have been given back yet, or been taken already.
        """
        if self._lock._units.is_current(held):
            return
        self._forget(held)
        grant = self._taken_since(held) or self._lock._acquire(None)
        assert grant is not None
        grant.depth = held.depth
        if isinstance(self._lock, RLock):
            self._lock._owned[self._lock._key()] = grant

    def _insist_to_take_back(self, held: Grant) -> None:
        """The same; what a signal's handler raises meanwhile is raised after that."""
        interruption: BaseException | None = None
        for _ in range(_TRIES):
            try:
                self._take_back(held)
                break
            except KvsyncError:
                raise
            except BaseException as error:
                interruption = error
        if interruption is not None:
            raise interruption

    def _taken_since(self, held: Grant) -> Grant | None:
        here = (generation(), this_thread())
        for grant in list(self._lock._units.held):
            if grant.token > held.token and (grant.process, grant.thread) == here:
                return grant
        return None

    def _forget(self, held: Grant) -> None:
        """It is not held any more."""
        self._lock._units.take_out(held)
        if isinstance(self._lock, RLock) and self._lock._latest() is held:
            del self._lock._owned[self._lock._key()]

    # --- notifying ----------------------------------------------------------------------------

    def notify(self, n: int = 1) -> None:
        """Wake `n` of those who wait, or as many as there are; they go on as they get the lock.

        In a transaction they wake when that commits.

        Raises: NotOwnedError without the lock, LeaseLostError; TypeError, ValueError unless `n` is
        an int above zero; BusyError, ClosedError, StoreReplacedError as any call.
        """
        self._notify(check_whole("n", n))

    def notify_all(self) -> None:
        """Wake all who wait, as `notify` does. Raises: as that."""
        self._notify(_EVERYBODY)

    def _notify(self, n: int) -> None:
        def work(transaction: Transaction) -> None:
            self._lock.ensure_held()
            _notify(self._tickets, transaction, n)

        self._engine.transact(work)

    def stats(self) -> ConditionStats:
        """Who waits. Blocks no writer."""
        waiting = waiters(self._session, _SPACE, self._name)
        return ConditionStats(self._name, self._lock.name, tuple(waiting))


def _check(lock: Lock | RLock, store: Home) -> Lock | RLock:
    if not isinstance(lock, Lock | RLock):
        raise TypeError(f"a condition's lock is a Lock or an RLock, not {lock!r}")
    if lock.store.engine.url != store.engine.url:
        raise ValueError(f"{lock!r} is in another store")
    return lock


def _notify(tickets: Tickets, transaction: Transaction, n: int) -> None:
    tickets.forget_overdue(transaction)
    told = tickets.first(transaction, n)
    for ticket in told:
        tickets.tell(transaction, ticket, _NOTIFIED)
        tickets.pledge(transaction, ticket)
    if told:
        tickets.ring_first(transaction)


def _mend(engine: Engine, transaction: Transaction, name: str) -> None:
    """The dead may have been notified: somebody else is, for each of them."""
    tickets = Tickets(engine, _SPACE, name)
    tickets.ring_first(transaction)
    if broken := tickets.take_broken(transaction):
        _notify(tickets, transaction, len(broken))


MEND[_SPACE] = _mend

"""Barriers: a number of parties wait until all of them are there, then all go on.

A party's ticket is 'waiting'. As soon as as many wait as the barrier has parties, the last of them
is told to 'act'; when it has run the action, all of them are told that they are 'through', in one
transaction. Newcomers wait meanwhile: their tickets come after that of the one that acts. So many
tickets, in their order, as the barrier has parties are a round: they pass together.

Invariants, each true after every commit:

- At most one ticket acts, the last one of its round; all others of that wait before it.
- While none acts, fewer than `parties` wait.
- Who waits or acts has a pledge: to come through. Whoever leaves in another way breaks the barrier
  for its own round and those behind it, in the transaction in which its ticket goes; the dead do so
  as they are reaped. So the parties that pass together all get through, or none does; and a round
  that is complete is not broken by who came after it.
- All who wait or act have the same number of parties: their tickets' `capacity`.
- A row in kvsync_barrier means that it is broken: nobody comes in, and who waits or acts then is of
  a round that was complete before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from kvsync.engine import Engine, Transaction
from kvsync.engine.doorbell import Doorbell
from kvsync.errors import BrokenBarrierError, LimitError
from kvsync.forks import require_own
from kvsync.leftovers import with_cleanup
from kvsync.primitives.arguments import UNSET, Seconds, Unset, check_wait, check_whole
from kvsync.primitives.grants import Waiter, waiters
from kvsync.primitives.primitive import Home, Primitive
from kvsync.primitives.tickets import Tickets
from kvsync.session import MEND
from kvsync.waiting import GONE, WAITING, Wish, enter

SPACE = "barrier"
ACT, _THROUGH, _BROKEN = "act", "through", "broken"

_OTHER_PARTIES = """
    select capacity from kvsync_ticket where space = :space and name = :name
    and state in ('waiting', 'act') and capacity <> :parties limit 1
"""
_BEHIND = """
    select id, capacity from kvsync_ticket where space = :space and name = :name
    and state = 'waiting' and id > :acting order by id
"""


@dataclass(frozen=True)
class BarrierStats:
    """A barrier at one moment: its parties, and who waits for the others, the first one first."""

    name: str
    parties: int
    broken: bool
    waiters: tuple[Waiter, ...]


@dataclass(frozen=True)
class _Place:
    """How a ticket of ours stands; the number is its place among those who got through."""

    state: str
    ticket: int = 0
    number: int | None = None


class Barrier(Primitive):
    """Lets `parties` threads, of whichever processes, wait for each other.

    Whoever waits and leaves without getting through breaks the barrier for those who wait with it:
    by its timeout, by an error, or by its death. Who were all there before it came, and wait for
    the end of their action, get through all the same. It stays broken, also when all processes have
    ended, until `reset`. A differing number of parties is adopted when nobody waits; else `wait`
    raises LimitError. `timeout` is seconds, or a timedelta.

    Example:
        >>> store.barrier("start", 1).wait()
        0
    """

    def __init__(
        self,
        store: Home,
        name: str,
        parties: int,
        *,
        action: Callable[[], object] | None = None,
        timeout: Seconds | None = None,
    ) -> None:
        super().__init__(store, name)
        if action is not None and not callable(action):
            raise TypeError(f"an action is called without arguments, not {action!r}")
        self._parties = check_whole("parties", parties)
        self._action = action
        self._timeout = check_wait(timeout)
        self._session = store.session
        self._tickets = Tickets(self._engine, SPACE, name)

    def _options(self) -> dict[str, Any]:
        options = {"action": self._action, "timeout": self._timeout}
        given = {key: value for key, value in options.items() if value is not None}
        return {"parties": self._parties, **given}

    # --- waiting ------------------------------------------------------------------------------

    def wait(self, timeout: Seconds | Unset | None = UNSET) -> int:
        """Wait until all are there; returns a number from 0 to `parties` - 1, each to one of them.

        The one that comes last has the highest number, and runs its own `action`, if it has one,
        before anybody goes on. `timeout` is in seconds; None is for ever, and left out, the
        constructor's holds. Once it is over the barrier is broken, even if another's action runs,
        for all but those who were all there before we came; who runs its own waits for nobody any
        more, and may take longer, as in `threading`.

        Raises: BrokenBarrierError; what the action raises; ForkError in a child that was forked in
        the action, which is its parent's; LimitError if others wait with another number of parties;
        TransactionError inside a transaction; ValueError for a negative timeout; BusyError,
        ClosedError, StoreReplacedError as any call.
        """
        seconds = self._timeout if isinstance(timeout, Unset) else check_wait(timeout)
        self._engine.forbid_in_transaction("wait")
        patience = self._session.patience(seconds)
        # Who died here with nobody beside it has broken it for nobody.
        self._session.reap(self._tickets.sessions(), patience.left())
        wish = self._tickets.wish(self._session, patience, self._parties)
        break_off = partial(self._session.undo, partial(self._break_off, wish))
        place = with_cleanup(partial(self._wait, wish), break_off)
        if place.state != _THROUGH or place.number is None:
            raise BrokenBarrierError(f"barrier {self._name!r} is broken")
        return place.number

    def _wait(self, wish: Wish) -> _Place:
        with self._session.doorbell() as doorbell:
            place = self._engine.transact(
                partial(self._enter, wish, doorbell), patience=self._tickets.patience(wish)
            )
            if place.state == WAITING:
                self._tickets.until_told(self._session, wish, place.ticket, doorbell)
                settle = partial(self._settle, wish, place.ticket)
                place = self._engine.transact(settle, patience=self._tickets.patience(wish))
        if place.state == ACT:
            self._act(wish)
            finish = partial(self._finish, wish, place.ticket)
            place = self._engine.transact(finish, patience=self._tickets.patience(wish))
        return place

    def _act(self, wish: Wish) -> None:
        """A child that was forked in the action, and comes out of it too, acts for nobody."""
        if self._action is not None:
            self._action()
        require_own(wish.process)

    def _enter(self, wish: Wish, doorbell: Doorbell | None, transaction: Transaction) -> _Place:
        if self.broken:
            return _Place(_BROKEN)
        spared = _spared(self._tickets, transaction)
        if self._tickets.forget_overdue(transaction, behind=spared):
            _break(self._tickets, transaction, spared)
            return _Place(_BROKEN)
        self._check_parties(transaction)
        ticket = enter(self._session, transaction, wish, doorbell)
        self._tickets.pledge(transaction, ticket)
        if self._choose(transaction) != ticket:
            self._tickets.ring_first(transaction)  # it watches us from now on
            return _Place(WAITING, ticket)
        if self._action is None:
            return self._finish(wish, ticket, transaction)
        return _Place(ACT, ticket)

    def _check_parties(self, transaction: Transaction) -> None:
        place = {**self._tickets.here, "parties": self._parties}
        for (found,) in transaction.execute(_OTHER_PARTIES, place):
            raise LimitError(
                f"others wait at barrier {self._name!r} for {found} parties, not {self._parties};"
                " a new number is adopted when nobody waits"
            )

    def _choose(self, transaction: Transaction) -> int | None:
        """If all are there, tell the last of them to act; returns its ticket."""
        if self._tickets.first(transaction, 1, ACT):
            return None
        there = self._tickets.first(transaction, self._parties)
        if len(there) < self._parties:
            return None
        self._tickets.tell(transaction, there[-1], ACT)
        return there[-1]

    def _settle(self, wish: Wish, ticket: int, transaction: Transaction) -> _Place:
        """What became of our wait; only one who is to act keeps its ticket."""
        state, number = self._tickets.state(transaction, ticket)
        if state == ACT:
            return _Place(ACT, ticket)
        self._forsake(wish, transaction)
        return _Place(_BROKEN if state == GONE else state, ticket, number)

    def _finish(self, wish: Wish, ticket: int, transaction: Transaction) -> _Place:
        """Let all of them through, ourselves last, unless it was broken meanwhile."""
        tickets = self._tickets
        state, _ = tickets.state(transaction, ticket)
        if state == ACT:
            others = tickets.first(transaction, self._parties - 1)
            for number, other in enumerate(others):
                tickets.tell(transaction, other, _THROUGH, number)
                tickets.redeem(transaction, other)
            state = _THROUGH
        tickets.leave(transaction, self._session, wish)
        self._choose(transaction)
        tickets.ring_first(transaction)
        return _Place(state, ticket, self._parties - 1)

    def _break_off(self, wish: Wish, patience: float | None) -> None:
        self._engine.transact(partial(self._forsake, wish), patience=patience)

    def _forsake(self, wish: Wish, transaction: Transaction) -> None:
        """Leave; who was not told that it is through breaks the barrier."""
        left = self._tickets.leave(transaction, self._session, wish)
        if left is not None and left[1] in (WAITING, ACT):
            _break(self._tickets, transaction, _spared(self._tickets, transaction, left[0]))

    # --- how it stands ------------------------------------------------------------------------

    @property
    def parties(self) -> int:
        """How many are needed to pass."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many wait for others now; the dead do not."""
        rows = self._engine.read(
            "select session, count(*) from kvsync_ticket"
            " where space = :space and name = :name and state = 'waiting' group by session",
            self._tickets.here,
        )
        return sum(count for session, count in rows if not self._session.is_dead(session))

    @property
    def broken(self) -> bool:
        """Whether it is broken: who comes gets BrokenBarrierError until it is reset."""
        return bool(
            self._engine.read(
                "select 1 from kvsync_barrier where name = :name", {"name": self._name}
            )
        )

    def stats(self) -> BarrierStats:
        """Parties, waiters and whether it is broken. Blocks no writer."""
        waiting = waiters(self._session, SPACE, self._name)
        return BarrierStats(self._name, self._parties, self.broken, tuple(waiting))

    def reset(self) -> None:
        """Make it as new. Who waits gets BrokenBarrierError, and may wait again at once.

        Raises: BusyError, ClosedError, StoreReplacedError as any call.
        """
        self._engine.transact(self._reset)

    def _reset(self, transaction: Transaction) -> None:
        _break(self._tickets, transaction)
        transaction.execute("delete from kvsync_barrier where name = :name", {"name": self._name})

    def abort(self) -> None:
        """Break it: who waits gets BrokenBarrierError, and so does who comes, until `reset`.

        Raises: BusyError, ClosedError, StoreReplacedError as any call.
        """
        self._engine.transact(partial(_break, self._tickets))


def _spared(tickets: Tickets, transaction: Transaction, left: int | None = None) -> int:
    """The last ticket of the rounds that are complete without the one that left; or 0.

    If that is None, without whoever comes now. While none acts no round is complete; and if it was
    the one that acted that left, nobody gets through.
    """
    acting = tickets.first(transaction, 1, ACT)
    if not acting or (left is not None and left < acting[0]):
        return 0
    (spared,) = acting
    behind = transaction.execute(_BEHIND, {**tickets.here, "acting": spared})
    for place, (ticket, parties) in enumerate(behind, 1):
        if place % parties == 0 and (left is None or ticket < left):
            spared = ticket
    return spared


def _break(tickets: Tickets, transaction: Transaction, spared: int = 0) -> None:
    """For all who wait or act, or for those behind the ticket `spared`; and for who comes."""
    transaction.execute(
        "insert into kvsync_barrier (name, since) values (:name, :since) on conflict do nothing",
        {"name": tickets.name, "since": transaction.now},
    )
    for state in (WAITING, ACT):
        tickets.tell_all(transaction, _BROKEN, among=state, behind=spared)
    tickets.redeem_all(transaction, behind=spared)


def _mend(engine: Engine, transaction: Transaction, name: str) -> None:
    """The dead who waited or acted will not come through; if nobody waits with them, no matter."""
    tickets = Tickets(engine, SPACE, name)
    dead = tickets.take_broken(transaction)
    if not dead:
        return
    spared = _spared(tickets, transaction, min(dead))
    if any(tickets.first(transaction, 1, state, behind=spared) for state in (WAITING, ACT)):
        _break(tickets, transaction, spared)


MEND[SPACE] = _mend

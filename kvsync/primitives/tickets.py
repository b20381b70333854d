"""Lines of those who wait to be told: at an event, a condition, a barrier.

A ticket of such a line wants no units. It waits until somebody sets its state, in the transaction
that changes what it waits for, and rings; then its owner takes it away. What else there is of a
name, with invariants that are true after every commit:

    kvsync_pledge    a row for each ticket whose owner owes something to the others: it was
                     notified, or is a party of a barrier. It goes when that is done. Unlike the
                     ticket it does not go with the session, so a pledge without a ticket means
                     that its owner died and left it open (`take_broken`).
    kvsync_unit      a row, of no units, for each pledge of the living: for the head of a line
                     watches those who hold something of its name, and so learns of their death.

- A ticket goes by its owner, whatever cuts the wait short, or with its session.
- Whoever takes a waiting ticket out of the line rings the one behind it, which has another
  predecessor to watch now; whoever gives a pledge rings the head.
- Who finds itself told rings the next that were told the same: who told them may have been killed
  before it rang.
"""

from dataclasses import dataclass
from functools import partial

from kvsync.engine import Engine, Row, Transaction
from kvsync.engine.doorbell import Doorbell
from kvsync.engine.process import this_process
from kvsync.errors import BusyError
from kvsync.forks import require_own
from kvsync.session import GATE_PATIENCE, Patience, Session
from kvsync.waiting import GONE, WAITING, Wait, Wish, ring

_TELL = """
    update kvsync_ticket set state = :state, token = :number
    where space = :space and name = :name and id = :ticket
    returning doorbell
"""
_TELL_ALL = """
    update kvsync_ticket set state = :state
    where space = :space and name = :name and state = :among and id > :behind
    returning doorbell
"""
_FORGET_OVERDUE = """
    delete from kvsync_ticket
    where space = :space and name = :name and state = 'waiting' and deadline <= :boot
    and id > :behind
    and session in (select id from kvsync_session where clock = :clock)
    returning id
"""
_LEAVE = """
    delete from kvsync_ticket
    where space = :space and name = :name and session = :session and attempt = :attempt
    returning id, state, token
"""
_HOLD = """
    insert into kvsync_unit (space, name, slot, token, kind, units, capacity, session, attempt,
        thread, since, ticket)
    select space, name, id, id, kind, units, capacity, session, attempt, thread, :since, id
    from kvsync_ticket where space = :space and name = :name and id = :ticket
"""
_TAKE_BROKEN = """
    delete from kvsync_pledge
    where space = :space and name = :name and ticket not in (
        select id from kvsync_ticket where space = :space and name = :name)
    returning ticket
"""
_STATE = """
    select state, token from kvsync_ticket where space = :space and name = :name and id = :ticket
"""
_TOLD_TOO = """
    select doorbell from kvsync_ticket
    where space = :space and name = :name and state = :state and id > :ticket
    order by id limit 2
"""


@dataclass(frozen=True)
class Tickets:
    """The tickets of one name."""

    engine: Engine
    space: str
    name: str

    @property
    def here(self) -> dict[str, object]:
        """The parameters of statements that tell which line."""
        return {"space": self.space, "name": self.name}

    # --- one's own place ----------------------------------------------------------------------

    def wish(self, session: Session, patience: Patience, capacity: int = 0) -> Wish:
        """What a caller waits for who has that patience."""
        session.begin(patience.left())
        session.undo_leftovers(patience.left())
        attempt, deadline = session.next_attempt(), patience.deadline
        return Wish(self.space, self.name, self.space, attempt, deadline, capacity=capacity)

    def patience(self, wish: Wish) -> float | None:
        """Seconds for which its first transaction may wait for SQLite's write lock."""
        return wish.patience(self.engine.boot())

    def is_over(self, wish: Wish) -> bool:
        return wish.is_over(self.engine.boot())

    def until_told(
        self, session: Session, wish: Wish, ticket: int, doorbell: Doorbell | None
    ) -> str:
        """The state that somebody gave the ticket; WAITING when the deadline is over; or GONE."""
        with Wait(session, wish, ticket, doorbell) as wait:
            state = wait.until_served()
        if state not in (WAITING, GONE):
            place = {**self.here, "state": state, "ticket": ticket}
            for (bell,) in self.engine.read(_TOLD_TOO, place):
                if bell is not None:
                    self.engine.doorbells.ring(bell)
            wait.leave()
        return state

    def leave(self, transaction: Transaction, session: Session, wish: Wish) -> Row | None:
        """Take that attempt's ticket away; returns its id, state and number, if it is there."""
        require_own(wish.process)
        mine = {**self.here, "session": session.id, "attempt": wish.attempt}
        left = None
        for left in transaction.execute(_LEAVE, mine):
            self.redeem(transaction, left[0])
            if left[1] == WAITING:
                self.ring_first(transaction, behind=left[0])
        return left

    def depart(self, session: Session, wish: Wish, patience: float | None = None) -> Row | None:
        """`leave`, in a transaction of its own; it may be repeated."""
        work = partial(self.leave, session=session, wish=wish)
        return self.engine.transact(work, patience=patience)

    def depart_in_time(self, session: Session, wish: Wish) -> Row | None:
        """The same at the end of a wait: while the store is busy, None, and it is done later."""
        try:
            return self.depart(session, wish, GATE_PATIENCE)
        except BusyError:
            session.undo_later(partial(self.depart, session, wish))
            return None

    # --- the others ---------------------------------------------------------------------------

    def first(
        self, transaction: Transaction, limit: int, state: str = WAITING, behind: int = 0
    ) -> list[int]:
        """The first tickets of that state in the line, or behind that ticket in it."""
        rows = transaction.execute(
            "select id from kvsync_ticket where space = :space and name = :name"
            " and state = :state and id > :behind order by id limit :limit",
            {**self.here, "state": state, "limit": limit, "behind": behind},
        )
        return [ticket for (ticket,) in rows]

    def state(self, transaction: Transaction, ticket: int) -> tuple[str, int | None]:
        """A ticket's state and number."""
        return _found(transaction.execute(_STATE, {**self.here, "ticket": ticket}))

    def look(self, ticket: int) -> tuple[str, int | None]:
        """The same, as it was committed last."""
        return _found(self.engine.read(_STATE, {**self.here, "ticket": ticket}))

    def tell(
        self, transaction: Transaction, ticket: int, state: str, number: int | None = None
    ) -> None:
        """Give a ticket its state, and ring."""
        row = {**self.here, "ticket": ticket, "state": state, "number": number}
        for (doorbell,) in transaction.execute(_TELL, row):
            ring(self.engine, transaction, doorbell)

    def tell_all(
        self, transaction: Transaction, state: str, among: str = WAITING, behind: int = 0
    ) -> None:
        """The same for all tickets of the state `among`, or for those behind that ticket."""
        row = {**self.here, "state": state, "among": among, "behind": behind}
        for (doorbell,) in transaction.execute(_TELL_ALL, row):
            ring(self.engine, transaction, doorbell)

    def ring_first(self, transaction: Transaction, behind: int = 0) -> None:
        """Ring the first that waits behind that ticket: it has others to watch now."""
        for (doorbell,) in transaction.execute(
            "select doorbell from kvsync_ticket where space = :space and name = :name"
            " and state = 'waiting' and id > :behind order by id limit 1",
            {**self.here, "behind": behind},
        ):
            ring(self.engine, transaction, doorbell)

    def forget_overdue(self, transaction: Transaction, behind: int = 0) -> int:
        """Take away who has not withdrawn though its deadline is over; returns how many.

        Of those behind that ticket alone.
        """
        when = {"boot": self.engine.boot(), "clock": this_process().clock, "behind": behind}
        forgotten = transaction.execute(_FORGET_OVERDUE, {**self.here, **when})
        for (ticket,) in forgotten:
            self.ring_first(transaction, behind=ticket)
        return len(forgotten)

    def sessions(self) -> list[int]:
        """Whose tickets there are."""
        rows = self.engine.read(
            "select distinct session from kvsync_ticket where space = :space and name = :name",
            self.here,
        )
        return [session for (session,) in rows]

    # --- pledges ------------------------------------------------------------------------------

    def pledge(self, transaction: Transaction, ticket: int) -> None:
        """From now on its owner owes something."""
        transaction.execute(
            "insert into kvsync_pledge (space, name, ticket) values (:space, :name, :ticket)",
            {**self.here, "ticket": ticket},
        )
        transaction.execute(_HOLD, {**self.here, "ticket": ticket, "since": transaction.now})

    def redeem(self, transaction: Transaction, ticket: int) -> None:
        """It owes no more."""
        for table in ("kvsync_pledge", "kvsync_unit"):
            transaction.execute(
                f"delete from {table} where space = :space and name = :name and ticket = :ticket",
                {**self.here, "ticket": ticket},
            )

    def redeem_all(self, transaction: Transaction, behind: int = 0) -> None:
        """Nobody in this line owes anything, or nobody behind that ticket."""
        for table in ("kvsync_pledge", "kvsync_unit"):
            transaction.execute(
                f"delete from {table} where space = :space and name = :name and ticket > :behind",
                {**self.here, "behind": behind},
            )

    def take_broken(self, transaction: Transaction) -> list[int]:
        """Take away the pledges that the dead left open; returns the tickets that they had."""
        transaction.execute(
            "delete from kvsync_unit where space = :space and name = :name and session = 0",
            self.here,
        )
        return [ticket for (ticket,) in transaction.execute(_TAKE_BROKEN, self.here)]


def _found(rows: list[Row]) -> tuple[str, int | None]:
    return rows[0] if rows else (GONE, None)

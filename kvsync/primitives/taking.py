"""Taking items out of a queue, at once or after a wait in the line of those who want one.

What an interrupted call has got goes back. Of what was handed out the rows tell whose it is. Of
what was taken for good only this process knows, and whether that was committed: see `_Taken`.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

from kvsync.codec import Codec, decode
from kvsync.engine import Engine, Row, Transaction
from kvsync.engine.doorbell import Doorbell
from kvsync.engine.process import this_process
from kvsync.errors import CorruptError, KvsyncError, NotOwnedError, ShutDown
from kvsync.forks import generation
from kvsync.primitives.items import DEAD, GET, GRANTED, READY, SHUT, TAKEN, Hand, Items, Kept
from kvsync.session import Patience, Session
from kvsync.waiting import HOLDERS, WAITING, Wait, Wish, enter

Undo = Callable[["Attempt"], None]

_TEND_EVERY = 0.1
"""Seconds after which who takes an item looks whether others have died with theirs."""


class Attempt:
    """One call that takes items, up to `count` of them. `values` are what they say."""

    kind: str

    def __init__(
        self, session: Session, items: Items, count: int, codec: Codec, patience: Patience
    ) -> None:
        self.session = session
        self.items = items
        self.count = count
        self.patience = patience
        self.values: dict[int, Any] = {}
        self.in_hand: set[int] = set()
        """The receipts of what its caller was handed, and has not settled."""
        self.unreadable: Kept | None = None
        self.has_waited = False
        """Whether there was nothing to take at once."""
        self._codec = codec
        self._numbered = False
        self._process = generation()

    @cached_property
    def number(self) -> int:
        """What the rows that it makes bear."""
        self._numbered = True
        return self.session.next_attempt()

    def take_one(self, patience: float | None) -> list[Kept]:
        """The first ready item, if one statement can take it. Raises: DecodeError."""
        raise NotImplementedError

    def take(self, transaction: Transaction) -> list[Kept]:
        """What is ready, and nobody waits for. Raises: ShutDown, DecodeError."""
        raise NotImplementedError

    def claim_one(self, ticket: int, patience: float | None) -> list[Kept]:
        """What was given to that ticket, if one statement is enough. Raises: DecodeError."""
        raise NotImplementedError

    def claim(self, ticket: int, transaction: Transaction) -> list[Kept]:
        """The same, and some more; nothing if it has passed on."""
        raise NotImplementedError

    def _rest(self, transaction: Transaction) -> int:
        """How many more it may take with the one that it was given, which it keeps in any case."""
        return 0 if self.items.is_closed(transaction) else self.count - 1

    def undo(self, patience: float | None) -> None:
        """Put back whatever it has got, and leave the line; may be repeated.

        Not in a child that was forked meanwhile, by a signal's handler: it is the parent's.
        """
        if self.is_of_this_process():
            self._undo(patience)

    def is_of_this_process(self) -> bool:
        """Whether it was begun in this one, and not in one that forked it."""
        return self._process == generation()

    def _undo(self, patience: float | None) -> None:
        if self._numbered:
            self.session.engine.transact(self._leave, patience=patience)
        self.in_hand.clear()

    def _leave(self, transaction: Transaction) -> None:
        session = self.session.id
        transaction.execute(
            "delete from kvsync_ticket where space = 'queue' and name = :queue"
            " and session = :session and attempt = :attempt",
            {"queue": self.items.queue, "session": session, "attempt": self.number},
        )
        self.items.give_back(transaction, session, self.number)

    def bury(self, error: str) -> None:
        """Put what it could not read among the dead letters, before anybody else is given it.

        In a forked child it does nothing, as `undo`.
        """
        if not self.is_of_this_process():
            return
        self.session.engine.transact(partial(self._bury, error), patience=self.patience.left())

    def _bury(self, error: str, transaction: Transaction) -> None:
        kept, was = self._where_it_was(transaction)
        if self.items.move(transaction, kept, DEAD, was=was, at=transaction.now, error=error):
            self.items.serve(transaction)

    def _where_it_was(self, transaction: Transaction) -> tuple[Kept, int]:
        """Before it was taken, for that was undone: given to our ticket, or ready."""
        kept = self.unreadable
        assert kept is not None
        if self._numbered and transaction.execute(
            "select 1 from kvsync_item where queue = :queue and state = -1 and place = :receipt"
            " and id = :id and session = :session and attempt = :attempt",
            {
                "queue": self.items.queue,
                "receipt": kept.place,
                "id": kept.id,
                "session": self.session.id,
                "attempt": self.number,
            },
        ):
            return kept, TAKEN
        return kept._replace(place=-kept.priority), READY

    def _read(self, kept: list[Kept]) -> list[Kept]:
        """Inside the transaction, so that what cannot be read is not taken. Raises: DecodeError."""
        for self.unreadable in kept:
            self.values[self.unreadable.id] = decode(self._codec, self.unreadable.value)
        return kept


class Reserving(Attempt):
    """Items are handed out until they are settled."""

    kind = "reserve"

    def __init__(
        self,
        session: Session,
        items: Items,
        count: int,
        codec: Codec,
        patience: Patience,
        max_attempts: int,
        visibility: float | None,
    ) -> None:
        super().__init__(session, items, count, codec, patience)
        # Before the transaction: a session that was begun in it would go with a rollback.
        self._hand = Hand(session.id, self.number, max_attempts, visibility)
        self._next: list[Kept] = []

    def take_after(self, number: int, receipt: int) -> bool:
        """Acknowledge that hand-out and have another item, in one commit; or do neither.

        Whether it did: then `take_one` tells what it has.
        """
        self._next = self.items.hand_on(number, receipt, self._our_hand)
        return bool(self._next)

    def _our_hand(self) -> Hand:
        """Raises: NotOwnedError in a child that a signal's handler has forked in this call."""
        if not self.is_of_this_process():
            raise NotOwnedError("the item is in the hand of the process that forked this one")
        return self._hand

    def take_one(self, patience: float | None) -> list[Kept]:
        if self.count > 1:
            return []
        return self._read(self._next or self.items.hand_out_one(self._hand, patience))

    def take(self, transaction: Transaction) -> list[Kept]:
        return self._read(self.items.hand_out(transaction, self.count, self._hand))

    def claim_one(self, ticket: int, patience: float | None) -> list[Kept]:
        if self.count > 1:
            return []
        return self._read(self.items.claim_one(ticket, self._hand, patience))

    def claim(self, ticket: int, transaction: Transaction) -> list[Kept]:
        first = self.items.claim(transaction, ticket, self._hand)
        if first is None:
            return []
        rest = self._rest(transaction)
        more = self.items.hand_out(transaction, rest, self._hand) if rest else []
        return self._read([first, *more])


class Relay:
    """For who works off one item after the other: to acknowledge the last takes the next as well.

    In one commit, where one statement can do that, and nothing else is to be seen to first. Else
    the last is acknowledged, and the attempt at the next begins after that.
    """

    def __init__(
        self, session: Session, items: Items, begin: Callable[[], Reserving], undo: Undo
    ) -> None:
        self.ahead: Reserving | None = None
        """An attempt that may have the next item, until who works has that in hand."""
        self.thread: int | None = None
        """The one that is through with the last item, and wants the next. No other goes on."""
        self._last: Reserving | None = None
        self._session = session
        self._items = items
        self._begin = begin
        self._undo = undo

    def attempt(self) -> Reserving:
        """At the next item. It is `ahead` until the caller says otherwise.

        Not in a child that was forked meanwhile, by a signal's handler: that is the parent's.
        """
        attempt = self.ahead
        if attempt is None or not attempt.is_of_this_process():
            attempt = self._begin()
        self._last = attempt
        return attempt

    def hand_on(self, number: int, receipt: int) -> bool:
        """Acknowledge that hand-out; whether it was current.

        Once for each item it takes the next, so that there is never more than one `ahead`.
        """
        if self.thread == threading.get_ident():
            self.thread = None
            if self._may_be_more() and self._take_after(number, receipt):
                return True
        return self._items.acknowledge(number, receipt)

    def _may_be_more(self) -> bool:
        """Not for who had to wait for the last one. What was left undone goes before the next one.

        In a transaction the end of the block itself is left, until that commits.
        """
        waited = self._last is None or self._last.has_waited
        return not waited and not self._session.has_leftovers()

    def _take_after(self, number: int, receipt: int) -> bool:
        self.ahead = attempt = self._begin()  # before it can take anything
        try:
            if attempt.take_after(number, receipt):
                return True
        except CorruptError:
            raise  # it may have come after the commit
        except KvsyncError:
            self.ahead = None
            raise
        self.ahead = None
        return False

    def undo(self) -> None:
        """Put back what was taken, and never came into the hand of who works."""
        if self.ahead is not None:
            self._undo(self.ahead)
            self.ahead = None


class Getting(Attempt):
    """Items are taken for good."""

    kind = "get"

    def __init__(
        self, session: Session, items: Items, count: int, codec: Codec, patience: Patience
    ) -> None:
        super().__init__(session, items, count, codec, patience)
        self._taken: list[_Taken] = []

    def take_one(self, patience: float | None) -> list[Kept]:
        return self._for_good(partial(self.items.take_one, patience=patience))

    def take(self, transaction: Transaction) -> list[Kept]:
        return self._note(transaction, self.items.take(transaction, self.count))

    def claim_one(self, ticket: int, patience: float | None) -> list[Kept]:
        claim = partial(self.items.claim_one_for_good, ticket=ticket, patience=patience)
        return self._for_good(claim)

    def _for_good(self, take: Callable[[list[Row]], list[Kept]]) -> list[Kept]:
        """By one statement, whose row is noted by the commit itself."""
        if self.count > 1:
            return []
        row: list[Row] = []
        self._taken.append(_Taken(self.items, None, row))
        return self._read(take(row))

    def claim(self, ticket: int, transaction: Transaction) -> list[Kept]:
        first = self.items.claim(transaction, ticket, None)
        if first is None:
            return []
        rest = self._rest(transaction)
        more = self.items.take(transaction, rest) if rest else []
        return self._note(transaction, [first, *more])

    def _note(self, transaction: Transaction, kept: list[Kept]) -> list[Kept]:
        if self._read(kept):
            self._taken.append(_Taken(self.items, transaction, kept))
        return kept

    def _where_it_was(self, transaction: Transaction) -> tuple[Kept, int]:
        for taken in self._taken:
            taken.put_back_in(transaction)
        return super()._where_it_was(transaction)

    def _undo(self, patience: float | None) -> None:
        for taken in self._taken:
            taken.put_back(patience)
        super()._undo(patience)


class _Taken:
    """What a transaction took for good; if it is gone, that goes back, and only once.

    Without a transaction it is a statement of its own, whose row comes with its commit.
    """

    def __init__(self, items: Items, transaction: Transaction | None, rows: Sequence[Row]) -> None:
        self._items = items
        self._rows = rows
        self._transaction = transaction
        self._back: Transaction | None = None

    def put_back(self, patience: float | None) -> None:
        is_back = self._back is not None and self._back.committed
        if self._rows and not is_back:
            self._items.engine.transact(self._restore, patience=patience)

    def _restore(self, transaction: Transaction) -> None:
        self.put_back_in(transaction)
        self._items.serve(transaction)

    def put_back_in(self, transaction: Transaction) -> None:
        """The lines are still to be served."""
        if self._is_committed() or self._is_gone_in(transaction):
            self._back = transaction
            for row in self._rows:
                self._items.restore(transaction, Kept._make(row))

    def _is_committed(self) -> bool:
        return self._transaction is None or self._transaction.committed

    def _is_gone_in(self, transaction: Transaction) -> bool:
        """Whether it was taken within this very transaction, and that was not undone yet."""
        return transaction is self._transaction and not self._items.is_ready(
            transaction, Kept._make(self._rows[0])
        )


class Taking:
    """How one queue object takes items."""

    def __init__(self, session: Session, items: Items) -> None:
        self._session = session
        self._engine: Engine = session.engine
        self._items = items
        self._tended = 0.0

    def take(self, attempt: Attempt) -> list[Kept]:
        """At least one item.

        Raises: queue.Empty when its time is over; ShutDown; DecodeError;
        TransactionError if it would have to wait in a transaction. After any other exception, or
        when the caller is interrupted before it returns, `undo` puts back what was taken.
        """
        patience = attempt.patience
        self._session.undo_leftovers(patience.left())
        self._tend(patience)
        found = (
            attempt.take_one(patience.left())
            or self._engine.transact(attempt.take, patience=patience.left())
            or self._after_a_look(attempt, patience)
        )
        if not found:
            raise queue.Empty
        return found

    def undo(self, attempt: Attempt) -> None:
        """Put back what it has got; what cannot be done now is done as soon as it can be."""
        self._session.undo(attempt.undo)

    def look_after_others(self) -> None:
        """See to what the dead and the slow have in hand; while that cannot be, they have it."""
        patience = self._session.patience(0)
        with suppress(KvsyncError):
            # More of it for what did not go into one transaction; but no longer than it may wait,
            # and not where the queue is damaged, so that none of it goes.
            while self._look_after_others(patience) and patience.left():
                self._engine.transact(self._items.serve, patience=patience.left())

    def _tend(self, patience: Patience) -> None:
        """Now and then, see to what the dead and the slow have in hand."""
        if time.monotonic() - self._tended >= _TEND_EVERY:
            self._tended = time.monotonic()
            self._look_after_others(patience)

    def _look_after_others(self, patience: Patience) -> bool:
        """Whether there was anything to see to."""
        boot, ours = self._engine.boot(), this_process().clock
        sessions, overdue = set(), False
        here = {"name": self._items.queue}
        for role, session, clock, *ends in self._engine.read(HOLDERS[GET], here):
            if role == "holder":
                sessions.add(session)
                overdue |= clock == ours and any(end is not None and end <= boot for end in ends)
        dead = self._session.reap(sessions, patience.left())
        if overdue:
            self._engine.transact(self._items.serve, patience=patience.left())
        return bool(dead) or overdue

    def _after_a_look(self, attempt: Attempt, patience: Patience) -> list[Kept]:
        changed = self._look_after_others(patience)
        if patience.timeout == 0:
            try_once = partial(self._try, attempt)
            while True:
                found = self._engine.transact(try_once, patience=patience.left())
                if found or not changed:
                    return found
                # What the dead had may be the next dead one's.
                changed = self._look_after_others(patience)
        self._engine.forbid_in_transaction(f"a {attempt.kind} that has to wait")
        self._session.begin(patience.left())
        attempt.has_waited = True
        number, deadline = attempt.number, patience.deadline
        wish = Wish(GET, self._items.queue, attempt.kind, number, deadline, claims=True)
        with self._session.doorbell() as doorbell:
            return self._queue(attempt, wish, doorbell)

    def _try(self, attempt: Attempt, transaction: Transaction) -> list[Kept]:
        """Raises: ShutDown if there will be none."""
        self._items.serve(transaction)
        found = attempt.take(transaction)
        if not found and self._items.is_over(transaction):
            raise self._shut_down()
        return found

    def _shut_down(self) -> ShutDown:
        return ShutDown(f"the queue {self._items.queue!r} was shut down; reopen() opens it again")

    def _queue(self, attempt: Attempt, wish: Wish, doorbell: Doorbell | None) -> list[Kept]:
        while True:
            found, ticket = self._engine.transact(
                partial(self._enter, attempt, wish, doorbell),
                patience=wish.patience(self._engine.boot()),
            )
            if found:
                return found
            with Wait(self._session, wish, ticket, doorbell) as wait:
                while (state := wait.until_served()) == GRANTED:
                    if found := self._claim(attempt, ticket, wish):
                        wait.leave()
                        return found
            patience = wish.patience(self._engine.boot())
            if state == WAITING:
                withdraw = partial(self._withdraw, attempt, ticket)
                found = self._engine.transact(withdraw, patience=patience)
                wait.leave()
                return found
            if state == SHUT:
                self._engine.transact(partial(self._withdraw, attempt, ticket), patience=patience)
                raise self._shut_down()
            if wish.is_over(self._engine.boot()):
                return []

    def _enter(
        self, attempt: Attempt, wish: Wish, doorbell: Doorbell | None, transaction: Transaction
    ) -> tuple[list[Kept], int]:
        """What there is; if there is nothing, a ticket."""
        found = self._try(attempt, transaction)
        return found, 0 if found else enter(self._session, transaction, wish, doorbell)

    def _claim(self, attempt: Attempt, ticket: int, wish: Wish) -> list[Kept]:
        """What was given to that ticket; nothing if it has passed on."""
        boot = self._engine.boot
        return attempt.claim_one(ticket, wish.patience(boot())) or self._engine.transact(
            partial(attempt.claim, ticket), patience=wish.patience(boot()), urgent=True
        )

    def _withdraw(self, attempt: Attempt, ticket: int, transaction: Transaction) -> list[Kept]:
        """Leave the line; what was given in this very instant is kept."""
        found = attempt.claim(ticket, transaction)
        if not found:
            self._items.dismiss(transaction, ticket)
            self._items.give(transaction)
        return found

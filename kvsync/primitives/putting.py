"""Putting items into a queue: at once, or, while it is full, after a wait in the line for room.

Who waits has left its items with its ticket. Whoever makes room lets them in, whether their putter
is awake or not; so a putter that is stopped holds up nobody, and when its time is over it asks no
more. Who has a key learns only then whether an item of that key is in the queue: those before it in
the line may still give up.
"""

import queue
from functools import partial

from kvsync.engine import Transaction
from kvsync.engine.doorbell import Doorbell
from kvsync.errors import BusyError, LimitError, ShutDown
from kvsync.leftovers import with_cleanup
from kvsync.primitives.items import PUT, SERVED, SHUT, Draft, Items
from kvsync.primitives.tickets import Tickets
from kvsync.session import Patience, Session
from kvsync.waiting import GONE, WAITING, Wish, enter


class Putting:
    """How one queue object puts items."""

    def __init__(self, session: Session, items: Items, maxsize: int) -> None:
        self._session = session
        self._engine = session.engine
        self._items = items
        self._maxsize = maxsize
        self._tickets = Tickets(session.engine, PUT, items.queue)

    def put(self, drafts: list[Draft], patience: Patience) -> list[int] | None:
        """Their ids, in order; None if an item of the first one's key is in the queue already.

        All or none are put. Raises: queue.Full when the time is over; ShutDown; LimitError;
        TransactionError if it would have to wait in a transaction.
        """
        if len(drafts) == 1 and (found := self._items.put_one(drafts[0], self._maxsize, patience)):
            return found
        ids = self._at_once(drafts, patience)
        if ids is None or ids:
            return ids
        if patience.timeout == 0:
            raise self._full()
        self._engine.forbid_in_transaction("a put that has to wait for room")
        wish = self._tickets.wish(self._session, patience)
        withdraw = partial(self._session.undo, partial(self._withdraw, wish))
        return with_cleanup(partial(self._wait, drafts, wish), withdraw, (queue.Full, ShutDown))

    def _at_once(self, drafts: list[Draft], patience: Patience) -> list[int] | None:
        """What can be had without a wait, though the dead stand in the way; [] if nothing can."""
        while True:
            try:
                work = partial(self._try, drafts)
                ids = self._engine.transact(work, patience=patience.left())
            except LimitError:
                if not self._session.reap(self._items.users(), patience.left()):
                    raise
            else:
                if ids is None or ids:
                    return ids
                if not self._session.reap(self._items.first_asking(), patience.left()):
                    return ids

    def _full(self) -> queue.Full:
        return queue.Full(f"the queue {self._items.queue!r} holds {self._maxsize} items")

    def _try(self, drafts: list[Draft], transaction: Transaction) -> list[int] | None:
        ids = self._put(drafts, transaction)
        if ids is None or ids:
            return ids
        self._items.serve(transaction)  # time alone may have made room
        self._items.settle(transaction, self._maxsize)
        return self._put(drafts, transaction)

    def _put(self, drafts: list[Draft], transaction: Transaction) -> list[int] | None:
        key = drafts[0].key
        if key is not None and self._items.has_key(transaction, key):
            self._items.require_open(transaction)
            return None
        return self._items.put(transaction, drafts, self._maxsize)

    def _wait(self, drafts: list[Draft], wish: Wish) -> list[int] | None:
        with self._session.doorbell() as doorbell:
            while True:
                done, ids, ticket = self._engine.transact(
                    partial(self._ask, drafts, wish, doorbell),
                    patience=self._tickets.patience(wish),
                )
                if done:
                    return ids
                self._tickets.until_told(self._session, wish, ticket, doorbell)
                left = self._leave_in_time(wish, ticket)
                if left is None and not self._tickets.is_over(wish):
                    continue
                state, last = left or ("", 0)
                if state == SERVED:
                    return list(range(last - len(drafts) + 1, last + 1)) if last else None
                if state == SHUT:
                    raise ShutDown(f"the queue {self._items.queue!r} was shut down")
                raise self._full()

    def _ask(
        self, drafts: list[Draft], wish: Wish, doorbell: Doorbell | None, transaction: Transaction
    ) -> tuple[bool, list[int] | None, int]:
        """Whether it was done at once, and the ids; else the ticket."""
        ids = self._try(drafts, transaction)
        if ids is None or ids:
            return True, ids, 0
        ticket = enter(self._session, transaction, wish, doorbell)
        self._items.ask(transaction, drafts, ticket, self._session.id)
        return False, None, ticket

    def _leave_in_time(self, wish: Wish, ticket: int) -> tuple[str, int] | None:
        """`_leave`; while the store is busy, what that would find, and it is done later.

        What has been put is put. Who waits still may have been let in by who keeps the store busy,
        so that is not known to be over.
        """
        try:
            return self._engine.transact(
                partial(self._leave, wish), patience=self._tickets.patience(wish)
            )
        except BusyError:
            state, last = self._tickets.look(ticket)
            if state == WAITING or (state == GONE and not self._tickets.is_over(wish)):
                raise
            self._session.undo_later(partial(self._withdraw, wish))
            return state, last or 0

    def _leave(self, wish: Wish, transaction: Transaction) -> tuple[str, int] | None:
        """Its ticket's state and last id (0: its key was there); what still waited is withdrawn."""
        left = self._tickets.leave(transaction, self._session, wish)
        if left is None:
            return None
        ticket, state, last = left
        if state != SERVED:
            self._items.withdraw(transaction, ticket)
        return state, last or 0

    def _withdraw(self, wish: Wish, patience: float | None) -> None:
        self._engine.transact(partial(self._leave, wish), patience=patience)

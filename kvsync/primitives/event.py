"""Events: a flag that any process sets, and that any number of them wait for."""

from dataclasses import dataclass
from functools import partial

from kvsync.engine import Engine, Transaction
from kvsync.engine.doorbell import Doorbell
from kvsync.leftovers import with_cleanup
from kvsync.primitives.arguments import Seconds, check_wait
from kvsync.primitives.grants import Waiter, waiters
from kvsync.primitives.primitive import Home, Primitive
from kvsync.primitives.tickets import Tickets
from kvsync.session import MEND
from kvsync.waiting import GONE, Wish, enter

_SPACE = "event"
_SERVED = "served"


@dataclass(frozen=True)
class EventStats:
    """An event at one moment: whether it is set, and who waits for that, the first one first."""

    name: str
    is_set: bool
    waiters: tuple[Waiter, ...]


class Event(Primitive):
    """A flag, clear until somebody sets it. It keeps its state when all processes have ended.

    `set` wakes all who wait at that moment, even if `clear` follows at once.

    Example:
        >>> ready = store.event("ready")
        >>> ready.set()
        >>> ready.wait(timeout=5)
        True
    """

    def __init__(self, store: Home, name: str) -> None:
        super().__init__(store, name)
        self._session = store.session
        self._tickets = Tickets(self._engine, _SPACE, name)

    def is_set(self) -> bool:
        """Whether it is set now. Blocks no writer."""
        return bool(
            self._engine.read("select 1 from kvsync_event where name = :name", {"name": self._name})
        )

    def set(self) -> None:
        """Set it, and wake all who wait. In a transaction they wake when that commits.

        Raises: BusyError, ClosedError, StoreReplacedError as any call.
        """
        self._engine.transact(self._set)

    def _set(self, transaction: Transaction) -> None:
        # Nobody waits while it is set: who comes looks first, in one transaction.
        if transaction.execute(
            "insert into kvsync_event (name, since) values (:name, :since)"
            " on conflict do nothing returning 1",
            {"name": self._name, "since": transaction.now},
        ):
            self._tickets.tell_all(transaction, _SERVED)

    def clear(self) -> None:
        """Clear it. Who was woken before stays so.

        Raises: BusyError, ClosedError, StoreReplacedError as any call.
        """
        self._engine.write("delete from kvsync_event where name = :name", {"name": self._name})

    def wait(self, timeout: Seconds | None = None) -> bool:
        """Wait until it is set, for up to `timeout` seconds; returns whether it was set meanwhile.

        None waits for ever, 0 is one look.

        Raises: TransactionError inside a transaction; TypeError, ValueError for a bad timeout, a
        negative one among them; BusyError, ClosedError, StoreReplacedError as any call.
        """
        seconds = check_wait(timeout)
        self._engine.forbid_in_transaction("wait")
        if self.is_set():
            return True
        if seconds == 0:
            return False
        wish = self._tickets.wish(self._session, self._session.patience(seconds))
        depart = partial(self._tickets.depart, self._session, wish)
        return with_cleanup(partial(self._wait, wish), partial(self._session.undo, depart))

    def _wait(self, wish: Wish) -> bool:
        with self._session.doorbell() as doorbell:
            while True:
                ticket = self._engine.transact(
                    partial(self._enter, wish, doorbell), patience=self._tickets.patience(wish)
                )
                if ticket is None:
                    return True
                state = self._tickets.until_told(self._session, wish, ticket, doorbell)
                if state != GONE:
                    left = self._tickets.depart_in_time(self._session, wish)
                    return state == _SERVED or (left is not None and left[1] == _SERVED)
                if self._tickets.is_over(wish):
                    return False

    def _enter(self, wish: Wish, doorbell: Doorbell | None, transaction: Transaction) -> int | None:
        """A ticket; None if it is set."""
        return None if self.is_set() else enter(self._session, transaction, wish, doorbell)

    def stats(self) -> EventStats:
        """How it stands. Blocks no writer."""
        waiting = waiters(self._session, _SPACE, self._name)
        return EventStats(self._name, self.is_set(), tuple(waiting))


def _mend(_engine: Engine, _transaction: Transaction, _name: str) -> None:
    """Nothing: nobody who waits for an event is in the way of another."""


MEND[_SPACE] = _mend

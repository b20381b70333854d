"""Tasks: items that somebody has in hand, until they are settled."""

import errno
import math
import random
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from kvsync.engine import Transaction
from kvsync.errors import (
    CorruptError,
    KvsyncError,
    NotOwnedError,
    StaleReceiptError,
    TransactionError,
)
from kvsync.forks import generation
from kvsync.leftovers import Step
from kvsync.primitives.arguments import Seconds, check_delay, check_positive
from kvsync.primitives.blocks import Leave, Skipped
from kvsync.primitives.frames import NOTHING, Delivery, is_ending_a_block
from kvsync.primitives.items import DEAD, DELAYED, IN_HAND, READY, Items, Kept
from kvsync.session import Session

Error = str | BaseException

LONGEST_DELAY = 3600.0
"""Seconds between two attempts, at most, unless the caller or the queue says otherwise."""


class Stop(BaseException):
    """A signal asked to stop, while there was nothing to finish, or for the second time."""


_INTERRUPTS = KeyboardInterrupt, GeneratorExit, Stop, Skipped
_NO_FAILURE: tuple[type[BaseException], ...] = (*_INTERRUPTS, SystemExit)
"""What ends the worker, and says nothing of its item."""

_Settlement = Callable[[Transaction], bool]


class Retries(NamedTuple):
    """How often an item is tried, and how many seconds after the first time the second is due."""

    most: int
    delay: float


class _Enter(property):
    """`__enter__` as `Task` has it: from the look at it until it has returned all is in C.

    So no signal comes in between `reserve` and its block.
    """

    def __call__(self, task: "Task") -> "Task":
        return task  # for ExitStack, which looks it up at the class


class _Exit(property):
    """`__exit__`, likewise: see `Leave`."""

    def __call__(self, task: "Task", *what: Any) -> None:
        task(*what)


class Task:
    """An item that was handed out to this worker. Use it as a `with` block.

    Leaving the block cleanly acknowledges it. An exception puts it back for another attempt after
    a while, with its traceback, or among the dead letters after the last one, and goes on its way;
    KeyboardInterrupt, SystemExit and GeneratorExit put it back as if it had never been handed out,
    but SystemExit of a handler that `Queue.work` has called is a failure.
    Where that fails itself (the store is busy, the disk is full), its error comes out, and is what
    the attempt failed of; the item goes back before this store's next call that takes something,
    and so it does where the block ended in a transaction that was then rolled back. A signal's
    exception can end it at any instant: if it skips the block's very end, that puts the item back
    as KeyboardInterrupt does.
    After `ack`, `retry` or `bury` leaving the block does nothing more, unless that was rolled back
    with a transaction: then it is settled as if they had not been called.

    Example:
        >>> with jobs.reserve() as task:
        ...     print(task.item)
    """

    def __init__(
        self,
        session: Session,
        items: Items,
        kept: Kept,
        item: Any,
        retries: Retries,
        delivery: Delivery,
        in_hand: set[int],
        end: Callable[[int, int], bool],
    ) -> None:
        """`in_hand` has the receipts of those that its attempt got, and that are not settled.

        `end` acknowledges an id and a receipt where a block ends cleanly.
        """
        self.item = item
        self.id = kept.id
        """The same in every hand-out: a key for results."""
        self.attempts = kept.attempts
        """Which attempt this is, from 1 on."""
        self.enqueued_at = kept.since
        """Wall time of its `put`."""
        self.receipt = _receipt(items, kept)
        """Of this hand-out, and of no other."""
        self.priority = kept.priority
        self.key = kept.key
        self.error = kept.error
        """What went wrong at the last attempt, or None."""
        self.is_done = False
        """Whether it was acknowledged."""
        self._session = session
        self._items = items
        self._kept = kept
        self._retries = retries
        self._delivery = delivery
        self._settled = False
        self._no_failure = _NO_FAILURE
        self._end_well = end
        self._process = generation()
        self._in_hand = in_hand
        in_hand.add(self.receipt)
        session.keep(in_hand)

    def ack(self) -> None:
        """It is done: take it away for good. In a transaction it goes when that commits.

        Raises: StaleReceiptError if this hand-out is over; NotOwnedError, as do all others that
        change something, in a forked child: the item is its parent's.
        """
        self._acknowledge(self._items.acknowledge)

    def retry(self, delay: Seconds | None = None, error: Error | None = None) -> bool:
        """Put it back for another attempt `delay` seconds from now; returns whether there is one.

        After the last attempt it goes to the dead letters instead. Left out, the delay doubles
        from attempt to attempt, beginning with the queue's `retry_delay`, up to an hour, or to
        that if it is longer, and is then shortened at random by up to a half. `error` is text, or
        an exception: then it is that one's, with its traceback if it has one.

        Raises: StaleReceiptError if this hand-out is over; ValueError for a delay that is negative
        or not finite; TypeError for what is no delay, or no error.
        """
        self._settle(self._failing(error, None if delay is None else check_delay(delay)))
        return not self._is_last()

    def bury(self, error: Error | None = None) -> None:
        """Put it among the dead letters, with that error, as in `retry`.

        Raises: StaleReceiptError if this hand-out is over; TypeError for what is no error.
        """
        self._settle(partial(self._dead, _told(error), 0.0))

    def give_back(self) -> None:
        """Put it back into its old place, as if it had never been handed out.

        Raises: StaleReceiptError if this hand-out is over.
        """
        self._settle(self._return)

    def extend(self, seconds: Seconds) -> None:
        """Have it for that many seconds from now on, however long it was before.

        Careful: what was handed out without a `visibility` has an end from then on. Then it is
        given to another, even while its worker lives and works, unless it is extended again in
        time.

        Raises: StaleReceiptError if this hand-out is over; TypeError, ValueError unless it is a
        finite time above zero.
        """
        lasts = check_positive("seconds", seconds)
        self._check_owner()
        if not self._items.extend(self.id, self.receipt, lasts):
            raise self._stale()

    def is_current(self) -> bool:
        """Whether it is still in this worker's hand."""
        return bool(
            self._items.engine.read(f"select 1 from kvsync_item where {IN_HAND}", self._here())
        )

    if TYPE_CHECKING:

        def __enter__(self) -> "Task": ...

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None: ...
    else:
        __enter__ = _Enter(partial(partial, partial({}.get, None)))
        __exit__ = _Exit(Leave)

    def __call__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """A block of it has ended."""
        try:
            self._end(error)
        except KvsyncError:
            self.__dict__["_gone"] = NOTHING  # hides the class's
            raise
        self.__dict__["_gone"] = NOTHING

    def _gone(self) -> None:
        """A block's `__exit__` goes that has not come to its end, or that was only looked at."""
        if is_ending_a_block(sys._getframe().f_back):
            with suppress(KvsyncError):
                self._end(Skipped())

    def _end(self, error: BaseException | None) -> None:
        if not self._is_ours():
            return  # a forked child that leaves the block: the item is its parent's
        if self._items.engine.is_in_transaction():
            self._settle_unless_committed(error)
        try:
            self._leave(error)
        except StaleReceiptError:
            raise
        except KvsyncError as failure:
            self._settle_later(error or failure)
            raise
        except BaseException as cut:
            try:
                if self.is_current():
                    self._leave(error)  # a signal's exception comes when it is done
            except KvsyncError:
                self._settle_later(error or cut)
            raise

    def _settle_later(self, error: BaseException) -> Step:
        step = partial(self._leave, error)
        self._session.undo_before_next(step)
        return step

    def _settle_unless_committed(self, error: BaseException | None) -> None:
        """What is done now is undone with the transaction, or with a block of it.

        While that is open no other thread can write, so what is noted here waits for its end.
        """
        step = self._settle_later(error or TransactionError("what it was settled in failed"))

        def forget() -> None:
            with suppress(KvsyncError):
                if not self.is_current():
                    self._session.forget(step)

        self._items.engine.after_commit(forget)

    def _leave(self, error: BaseException | None, patience: float | None = None) -> None:
        if not self._is_ours() or (self._settled and not self.is_current()):
            return
        if error is None:
            self._acknowledge(self._end_well)
            return
        step = self._return if isinstance(error, self._no_failure) else self._failing(error)
        try:
            self._settle(step, patience)
        except StaleReceiptError as stale:
            error.add_note(str(stale))  # what was raised inside is what matters

    def _count_exits(self) -> None:
        """From now on SystemExit is a failed attempt: it came out of a handler."""
        self._no_failure = _INTERRUPTS

    def _abandon(self) -> None:
        """Its loop was left unsettled, and nobody knows why: a failed attempt, at once followed by
        another. Does nothing if it is settled, or is somebody else's.
        """
        if self._is_ours() and self.is_current():
            with suppress(StaleReceiptError):
                self.retry(0, f"its loop was left, unsettled, at attempt {self.attempts}")

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a task belongs to the process that took it: send its item")

    def __repr__(self) -> str:
        return (
            f"<kvsync.Task {self.id} of {self._items.queue!r}, attempt {self.attempts},"
            f" receipt {self.receipt}>"
        )

    def _here(self) -> dict[str, object]:
        return {"queue": self._items.queue, "receipt": self.receipt, "id": self.id}

    def _acknowledge(self, settle: Callable[[int, int], bool]) -> None:
        self._check_owner()
        acknowledged = settle(self.id, self.receipt)
        self._in_hand.discard(self.receipt)
        if not acknowledged:
            raise self._stale()
        self._settled = self.is_done = True
        self._delivery.received()

    def _settle(self, step: _Settlement, patience: float | None = None) -> None:
        self._check_owner()
        settled = self._items.engine.transact(step, patience=patience)
        self._in_hand.discard(self.receipt)
        if not settled:
            raise self._stale()
        self._settled, self.is_done = True, False
        self._delivery.received()

    def _check_owner(self) -> None:
        if not self._is_ours():
            raise NotOwnedError(f"{self!r} is in the hand of the process that forked this one")

    def _is_ours(self) -> bool:
        return generation() == self._process

    def _is_last(self) -> bool:
        return self.attempts >= self._retries.most

    def _failing(self, error: Error | None, seconds: float | None = None) -> _Settlement:
        seconds = self._backoff() if seconds is None else seconds
        return partial(self._dead if self._is_last() else self._again, _told(error), seconds)

    def _return(self, transaction: Transaction) -> bool:
        return self._move(transaction, READY, attempts=self.attempts - 1)

    def _again(self, error: str | None, seconds: float, transaction: Transaction) -> bool:
        if not seconds:
            return self._move(transaction, READY, error=error)
        return self._move(transaction, DELAYED, at=transaction.now + seconds, error=error)

    def _dead(self, error: str | None, _: float, transaction: Transaction) -> bool:
        return self._move(transaction, DEAD, at=transaction.now, error=error)

    def _move(self, transaction: Transaction, state: int, **how: Any) -> bool:
        moved = self._items.move(transaction, self._kept, state, **how)
        if moved:
            self._items.serve(transaction)
        return moved

    def _backoff(self) -> float:
        # "Equal jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        first = self._retries.delay
        doubled = first * 2.0 ** min(self.attempts - 1, 60)
        return min(doubled, max(LONGEST_DELAY, first)) * random.uniform(0.5, 1)

    def _stale(self) -> StaleReceiptError:
        return StaleReceiptError(
            f"{self!r} is not in hand any more: it was settled, or its time ran out and it was"
            " given to another"
        )


def _told(error: Error | None) -> str | None:
    if isinstance(error, BaseException):
        return "".join(traceback.format_exception(error)).rstrip("\n")
    if error is None or isinstance(error, str):
        return error
    raise TypeError(f"an error is a str or an exception, not {error!r}")


def _receipt(items: Items, kept: Kept) -> int:
    """Raises: CorruptError for one that kvsync cannot have given."""
    if math.isfinite(kept.place):
        return int(kept.place)
    what = f"a receipt of {items.queue!r} is {kept.place}"
    raise CorruptError(errno.EUCLEAN, f"{items.engine.url} is damaged: {what}")

"""Queues: items that any process puts, and that any process gets once, or works off."""

import logging
import queue
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from threading import get_ident
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from kvsync.codec import Codec, Stored, decode, encode, find
from kvsync.engine import Transaction
from kvsync.engine.doorbell import Doorbell
from kvsync.errors import DecodeError, ShutDown
from kvsync.leftovers import with_cleanup
from kvsync.primitives.arguments import (
    UNSET,
    Seconds,
    Unset,
    check_delay,
    check_positive,
    check_wait,
    check_whole,
    shown,
)
from kvsync.primitives.deadletters import DeadLetters
from kvsync.primitives.frames import Delivery
from kvsync.primitives.items import (
    CLOSED,
    CLOSING,
    GET,
    JOIN,
    LATELY,
    OPEN,
    PUT,
    SERVED,
    Draft,
    Items,
    Kept,
)
from kvsync.primitives.loops import was_left_on_purpose
from kvsync.primitives.primitive import Home, Primitive, check_key
from kvsync.primitives.putting import Putting
from kvsync.primitives.taking import Attempt, Getting, Relay, Reserving, Taking
from kvsync.primitives.task import Retries, Task
from kvsync.primitives.tickets import Tickets
from kvsync.primitives.work import UNREADABLE, Handler, Worked, work
from kvsync.session import Patience
from kvsync.waiting import GONE, WAITING, Wish, enter

T = TypeVar("T")

_CHUNK = 1000
_SHOWN = "id, value, priority, key, since, attempts"
_PEEK = f"""
    select {_SHOWN}, due from (
        select * from (
            select {_SHOWN}, null as due, place from kvsync_item
            where queue = :queue and state = 0 order by place, id limit :count) as ready
        union all select * from (
            select {_SHOWN}, null, -priority as place from kvsync_item
            where queue = :queue and state = 1 and place <= :now
            order by -priority, id limit :count) as ripe
        union all select * from (
            select {_SHOWN}, place, null from kvsync_item
            where queue = :queue and state = 1 and place > :now
            order by place, id limit :count) as unripe
    ) as waiting
    order by due is not null, coalesce(due, place), id limit :count
"""
_STATS = """
    with recursive priorities (place) as (
        select min(place) from kvsync_item where queue = :queue and state = 0
        union all select (
            select min(place) from kvsync_item
            where queue = :queue and state = 0 and place > priorities.place)
        from priorities where place is not null)
    select coalesce(maxsize, :maxsize), coalesce(shut, 0), coalesce(size, 0), coalesce(older, :now),
        case when mark > :lately then last - older_last else 0 end,
        case when mark > :lately then last - size - purged - older_done else 0 end,
        (select count(*) from kvsync_item
            where queue = :queue and state = 1 and place > :now) as delayed,
        (select count(*) from kvsync_item where queue = :queue and state = -1) as taken,
        (select count(*) from kvsync_item where queue = :queue and state = 3) as dead,
        (select min(since) from (
            select since from kvsync_item where queue = :queue and state = -1
            union all select since from kvsync_item
                where queue = :queue and state = 1 and place <= :now
            union all select (
                select since from kvsync_item
                where queue = :queue and state = 0 and kvsync_item.place = priorities.place
                order by id limit 1) as since from priorities) as oldest) as since
    from (select 1) as always left join kvsync_queue on name = :queue
"""

_WHO_WAITS = """
    select space, session, count(*) from kvsync_ticket
    where space in ('queue', 'queue-put') and name = :queue
    group by space, session
"""

_log = logging.getLogger("kvsync")

_ORDERLY = (queue.Empty, ShutDown, DecodeError)
"""What a call that takes items raises when it has seen to everything."""


class Item(NamedTuple):
    """An item that waits in a queue; times are wall time."""

    id: int
    item: Any
    priority: float
    key: str | None
    enqueued_at: float
    attempts: int
    due: float | None
    """When it becomes ready, if it is delayed."""


@dataclass(frozen=True)
class QueueStats:
    """A queue at one moment. Rates are items per second, over the last minute or two.

    They are 0 if nothing was put or taken for two minutes.
    """

    name: str
    maxsize: int
    is_shutdown: bool
    depth: int
    """Items that could be got now."""
    delayed: int
    in_flight: int
    """Items that are reserved."""
    dead: int
    oldest_age: float | None
    """Seconds since the oldest of those in line or in flight was put."""
    put_rate: float
    done_rate: float
    getters: int
    """Calls of the living that wait for an item; `putters` wait for room."""
    putters: int


class Queue(Primitive):
    """A first-in, first-out queue, after `queue.Queue`, that outlives its processes.

    `get` takes an item for good: at most once. `reserve` hands it out until it is acknowledged: at
    least once, for it comes back when its worker dies (at once), fails (after a while), or is
    longer about it than `visibility`. Items of a higher priority go first. Who waits, for an item
    or for room, is served in the order of asking.

    Example:
        >>> jobs = store.queue("jobs")
        >>> jobs.put({"to": "ada@example.org"})
        1
        >>> with jobs.reserve(timeout=5) as task:
        ...     print(task.item["to"])
        ada@example.org
    """

    def __init__(
        self,
        store: Home,
        name: str,
        maxsize: int = 0,
        *,
        max_attempts: int = 5,
        visibility: Seconds | None = None,
        retry_delay: Seconds = 1.0,
        codec: str | Codec = "json",
    ) -> None:
        super().__init__(store, name)
        self._maxsize = _check_maxsize(maxsize)
        self._visibility = _check_visibility(visibility)
        self._retries = Retries(check_whole("max_attempts", max_attempts), check_delay(retry_delay))
        self._codec_given, self._codec = codec, find(codec)
        self._session = store.session
        self._items = Items(self._engine, name)
        self._taking = Taking(store.session, self._items)
        self._putting = Putting(store.session, self._items, self._maxsize)
        self._joiners = Tickets(self._engine, JOIN, name)

    def _options(self) -> dict[str, Any]:
        return {
            "maxsize": self._maxsize,
            "max_attempts": self._retries.most,
            "visibility": self._visibility,
            "retry_delay": self._retries.delay,
            "codec": self._codec_given,
        }

    @property
    def maxsize(self) -> int:
        """Items that it holds at most, ready and delayed; 0 for any number."""
        return self._maxsize

    # --- putting ------------------------------------------------------------------------------

    def put(
        self,
        item: Any,
        block: bool = True,
        timeout: Seconds | None = None,
        *,
        delay: Seconds = 0,
        priority: float = 0,
        key: str | None = None,
    ) -> int | None:
        """Put an item; returns its id, or None if an item of that `key` waits in it already.

        While it is full it waits for room, up to `timeout` seconds, in the order of asking. Inside
        a transaction the item is there when that commits.

        Args:
            delay: seconds for which nobody gets it.
            priority: items of a higher one go first.
            key: of which at most one item waits in the queue. If it is full, that is decided when
                there is room. An item that comes back loses its key if another has it by then.

        Raises: queue.Full; ShutDown after `shutdown`; EncodeError, and TypeError and ValueError
        for arguments, before anything is written; LimitError if the queue is in use with another
        `maxsize`; TransactionError if it would have to wait inside a transaction; BusyError as any
        call, and, after a wait for room, also where nobody can tell whether the item was let in
        just before its time was over, for who may have done so keeps the store busy.
        """
        draft = self._draft(item, delay, priority, key)
        ids = self._putting.put([draft], self._patience(timeout, block=block))
        return ids[0] if ids else None

    def put_nowait(self, item: Any) -> int | None:
        """`put(item, block=False)`. Raises: as `put`."""
        return self.put(item, block=False)

    def put_many(
        self,
        items: Iterable[Any],
        block: bool = True,
        timeout: Seconds | None = None,
        *,
        delay: Seconds = 0,
        priority: float = 0,
    ) -> list[int]:
        """Put all of them, one after the other, in one commit, or none; returns their ids.

        It waits for room for all, up to `timeout` seconds; for `delay` seconds nobody gets them.

        Raises: as `put`, ShutDown for no items too; ValueError for more than `maxsize`.
        """
        drafts = [self._draft(item, delay, priority, None) for item in items]
        if 0 < self._maxsize < len(drafts):
            raise ValueError(f"{len(drafts)} items never fit into {self._maxsize}")
        patience = self._patience(timeout, block=block)
        if drafts:
            return self._putting.put(drafts, patience) or []
        if self.is_shutdown:
            raise ShutDown(f"the queue {self._name!r} was shut down; reopen() opens it again")
        return []

    def _patience(self, timeout: Seconds | None, *, block: bool = True) -> Patience:
        seconds = check_wait(timeout)
        return self._session.patience(seconds if block else 0)

    def _draft(self, item: Any, delay: Seconds, priority: float, key: str | None) -> Draft:
        seconds = check_delay(delay)
        return Draft(
            encode(self._codec, item),
            _check_priority(priority),
            None if key is None else check_key(key),
            self._engine.now() + seconds if seconds else None,
        )

    # --- taking -------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: Seconds | None = None) -> Any:
        """Take the first item for good, after waiting up to `timeout` seconds; returns it.

        If the process dies right then the item is lost: use `reserve` where that matters. An
        exception from a signal loses nothing. Who uses `join` says `task_done` after each; one that
        dies before never does, see there.

        Raises: queue.Empty; ShutDown after `shutdown` when there is nothing left, at once if that
        was immediate; DecodeError for what the codec cannot read, which then is among the dead
        letters; TransactionError if it would have to wait inside a transaction; TypeError and
        ValueError for a bad timeout, before anything is taken.
        """
        return self._get(1, self._patience(timeout, block=block))[0]

    def get_nowait(self) -> Any:
        """`get(block=False)`. Raises: as `get`."""
        return self.get(block=False)

    def get_many(self, n: int, block: bool = True, timeout: Seconds | None = None) -> list[Any]:
        """Take up to `n` items for good, as many as there are.

        It waits for the first one only, for up to `timeout` seconds.

        Raises: as `get`; TypeError, ValueError unless `n` is an int above zero.
        """
        patience = self._patience(timeout, block=block)
        return self._get(check_whole("n", n), patience)

    def _get(self, n: int, patience: Patience) -> list[Any]:
        attempt = self._getting(n, patience)
        return self._unless_cut(attempt, partial(self._values, attempt))

    def _getting(self, n: int, patience: Patience) -> Getting:
        return Getting(self._session, self._items, n, self._codec, patience)

    def _values(self, attempt: Attempt) -> list[Any]:
        return list(map(itemgetter(1), self._take(attempt)))

    def reserve(
        self, timeout: Seconds | None = None, *, visibility: Seconds | Unset | None = UNSET
    ) -> Task:
        """Have the first item handed out, after waiting up to `timeout` seconds.

        Args:
            visibility: seconds after which it is given to another if it is not settled by then;
                None for ever. Left out, the queue's holds. A worker that dies gives its item back
                at once in any case.

        Raises: as `get`; queue.Empty if there is none in time; TransactionError inside a
        transaction; TypeError, ValueError for a bad visibility.
        """
        attempt = self._reserving(1, visibility, self._patience(timeout))
        return self._tasks(attempt, sys._getframe().f_back)[0]

    def reserve_many(
        self, n: int, timeout: Seconds | None = None, *, visibility: Seconds | Unset | None = UNSET
    ) -> list[Task]:
        """Have up to `n` items handed out, as many as there are.

        It waits for the first one only, for up to `timeout` seconds; `visibility`, in seconds, is
        as for `reserve`. To settle them all in one commit, do so in a `store.transaction()`.

        Raises: as `reserve`; TypeError, ValueError unless `n` is an int above zero.
        """
        patience = self._patience(timeout)
        attempt = self._reserving(check_whole("n", n), visibility, patience)
        return self._tasks(attempt, sys._getframe().f_back)

    def _reserving(
        self, n: int, visibility: Seconds | Unset | None, patience: Patience
    ) -> Reserving:
        self._engine.forbid_in_transaction("reserve")
        seconds = (
            self._visibility if isinstance(visibility, Unset) else _check_visibility(visibility)
        )
        self._session.begin(patience.left())
        most = self._retries.most
        return Reserving(self._session, self._items, n, self._codec, patience, most, seconds)

    def _tasks(
        self, attempt: Attempt, caller: FrameType | None = None, relay: Relay | None = None
    ) -> list[Task]:
        return self._unless_cut(attempt, partial(self._handed_out, attempt, caller, relay))

    def _handed_out(
        self, attempt: Attempt, caller: FrameType | None, relay: Relay | None
    ) -> list[Task]:
        taken = self._take(attempt)
        delivery = Delivery(caller, partial(self._taking.undo, attempt))
        retries, in_hand = self._retries, attempt.in_hand
        end = self._items.acknowledge if relay is None else relay.hand_on
        return [
            Task(self._session, self._items, kept, item, retries, delivery, in_hand, end)
            for kept, item in taken
        ]

    def _unless_cut(self, attempt: Attempt, take: Callable[[], T]) -> T:
        return with_cleanup(take, partial(self._taking.undo, attempt), _ORDERLY)

    def _take(self, attempt: Attempt) -> list[tuple[Kept, Any]]:
        try:
            found = self._taking.take(attempt)
        except DecodeError as error:
            attempt.bury(str(error))
            self._taking.undo(attempt)
            raise
        return [(kept, attempt.values[kept.id]) for kept in found]

    def tasks(
        self, timeout: Seconds | None = None, *, visibility: Seconds | Unset | None = UNSET
    ) -> Generator[Task, None, None]:
        """Reserve one item after the other, until none comes for `timeout` seconds or shutdown.

        Going on to the next one acknowledges the last, unless it is settled; where the next is
        there, in the commit that takes it. Leaving the loop early gives the last one back at once:
        by `break` or `return` as if it had never been handed out; by an exception as a failed
        attempt, and after the last one it is a dead letter. Ctrl-C counts as well, for an iterator
        is not told what it was left by, and so does closing it, or keeping it after its loop. With
        `with task:` around the loop's body all is as in `reserve`.

        What the codec cannot read is logged, is a dead letter, and does not end the loop.

        Raises: StaleReceiptError on going on, if another has the last one by then; TransactionError
        inside a transaction; TypeError, ValueError for arguments, once the loop begins.
        """
        relay = self._relay(timeout, visibility)
        try:
            while True:
                begun = False
                try:
                    with self._next(relay) as task:
                        relay.ahead, relay.thread, begun = None, None, True
                        try:
                            yield task
                        except GeneratorExit:
                            if not was_left_on_purpose(sys._getframe().f_back):
                                task._abandon()
                            raise
                        relay.thread = get_ident()
                except (queue.Empty, ShutDown):
                    if begun:
                        raise
                    return
                except DecodeError:
                    if begun:
                        raise
                    relay.ahead = None
                    _log.exception(UNREADABLE, self._name)
        except BaseException:
            # Twice, for an exception of a signal can skip one call as a whole.
            try:
                relay.undo()
            finally:
                relay.undo()
            raise

    def _next(self, relay: Relay) -> Task:
        return self._tasks(relay.attempt(), sys._getframe().f_back, relay)[0]

    def _relay(self, timeout: Seconds | None, visibility: Seconds | Unset | None) -> Relay:
        seconds = check_wait(timeout)

        def begin() -> Reserving:
            return self._reserving(1, visibility, self._session.patience(seconds))

        return Relay(self._session, self._items, begin, self._taking.undo)

    def work(
        self,
        handler: Handler,
        timeout: Seconds | None = None,
        *,
        visibility: Seconds | Unset | None = UNSET,
    ) -> Worked:
        """Call `handler(task)` for one item after the other; returns how many were acknowledged.

        It goes on until none comes for `timeout` seconds, until the queue is shut down and empty,
        or until SIGTERM or SIGINT: the first one ends the waiting, or lets the handler come to its
        end; a second one interrupts the handler, and its item goes back as if never handed out.
        What the handler raises counts as a failed attempt. An Exception is logged, and the work
        goes on. Anything else ends it and comes out, SystemExit too, whatever its status: a handler
        that wants to end the work without a failed attempt settles its task first, by `ack` or
        `give_back`. KeyboardInterrupt and GeneratorExit give the item back uncounted. A SystemExit
        that the program's handler of another signal raises in there counts too: nobody can tell it
        from the handler's own. What the codec cannot read is logged, and is a dead letter.

        Signals are heard where Python hears them, in the main thread of the program, and only those
        that the program does not ignore. A child that the handler forks hears them as if there were
        no `work`. If the program has a handler of its own for such a signal, that is called once no
        item is in hand any more. If not, `work` just returns. The number that it returns has the
        signal as `ended_by`, else None: by that a loop around `work` knows when to end.

        Example:
            >>> if jobs.work(handle, timeout=60).ended_by:
            ...     raise SystemExit

        Raises: TypeError, before it takes anything, for a handler that cannot be called; TypeError,
        ValueError for other arguments; TransactionError inside a transaction; BusyError as any
        call, also where an item could not be settled: that is done as for a `Task`.
        """
        if not callable(handler):
            raise TypeError(f"a handler is called with a task, which {handler!r} cannot be")
        relay = self._relay(timeout, visibility)
        return work(
            self._name,
            handler,
            relay,
            lambda attempt: self._tasks(attempt, relay=relay)[0],
            self._taking.undo,
        )

    # --- done with ----------------------------------------------------------------------------

    def task_done(self) -> None:
        """Say that an item that was got is done with. In a transaction it is when that commits.

        Raises: ValueError if none is left.
        """
        if not self._engine.transact(self._items.task_done):
            raise ValueError("task_done() called more often than items were got")

    def join(self, timeout: Seconds | None = None) -> bool:
        """Wait until all items are done with; returns whether they were, within `timeout` seconds.

        `shutdown(immediate=True)` ends it too, and what is left is not done with: False.
        Done with is what was acknowledged or died, and what was got once `task_done` was called.
        Nobody notes who got it, so it is waited for even if that process is dead: for ever, unless
        `shutdown(immediate=True)` and `reopen` strike it out. What was reserved has no such debt.

        Raises: TransactionError inside a transaction; TypeError, ValueError for a bad timeout.
        """
        seconds = check_wait(timeout)
        self._engine.forbid_in_transaction("join")
        wish = self._joiners.wish(self._session, self._session.patience(seconds))
        depart = partial(self._joiners.depart, self._session, wish)
        return with_cleanup(partial(self._join, wish), partial(self._session.undo, depart))

    def _join(self, wish: Wish) -> bool:
        with self._session.doorbell() as doorbell:
            while True:
                done, ticket = self._engine.transact(
                    partial(self._await_end, wish, doorbell), patience=self._joiners.patience(wish)
                )
                if not ticket:
                    return done
                state = self._joiners.until_told(self._session, wish, ticket, doorbell)
                self._joiners.depart_in_time(self._session, wish)
                if state not in (WAITING, GONE):
                    return state == SERVED
                if self._joiners.is_over(wish):
                    return False

    def _await_end(
        self, wish: Wish, doorbell: Doorbell | None, transaction: Transaction
    ) -> tuple[bool, int]:
        """Whether all is done; and a ticket, unless there is nothing to wait for."""
        self._items.serve(transaction)
        if not self._items.unfinished():
            return True, 0
        if self._items.is_closed(transaction):
            return False, 0
        return False, enter(self._session, transaction, wish, doorbell)

    @property
    def unfinished_tasks(self) -> int:
        """Items that are not done with: what `join` waits for."""
        return self._items.unfinished()

    # --- the whole ----------------------------------------------------------------------------

    def qsize(self) -> int:
        """How many items could be got now; another process may change that at any time.

        What the dead had in hand, or who is longer about it than `visibility`, is among them.
        """
        self._taking.look_after_others()
        rows = self._engine.read(
            "select size - (select count(*) from kvsync_item"
            " where queue = :queue and state = 1 and place > :now)"
            " from kvsync_queue where name = :queue and shut < 2",
            {"queue": self._name, "now": self._engine.now()},
        )
        return int(rows[0][0]) if rows else 0

    def empty(self) -> bool:
        """Whether there is nothing to get now."""
        return not self.qsize()

    def full(self) -> bool:
        """Whether it holds `maxsize` items, delayed ones included."""
        self._taking.look_after_others()
        rows = self._engine.read(
            "select size from kvsync_queue where name = :queue", {"queue": self._name}
        )
        return bool(0 < self._maxsize <= (rows[0][0] if rows else 0))

    def shutdown(self, immediate: bool = False) -> None:
        """Take no more items, in any process, until `reopen`: puts raise ShutDown.

        What it holds can still be got; then that raises ShutDown too, though others may still have
        items in hand. Who waits is sent home then: what comes back after that (its worker died,
        say) is got by who asks again. With `immediate` ShutDown comes at once, and `join` returns:
        the items stay for a later `reopen`. What is in hand may still be settled. To call it again
        changes nothing, unless it is immediate now. In a transaction it holds when that commits.

        Raises: BusyError, ClosedError, StoreReplacedError as any call.
        """
        self._engine.transact(partial(self._shut, CLOSED if immediate else CLOSING))

    def reopen(self) -> None:
        """Go on after a `shutdown`.

        After an immediate one it begins anew: what was got before needs no `task_done` any more.
        One that was not shut down stays as it is. In a transaction it holds when that commits.

        Raises: as `shutdown`.
        """
        self._engine.transact(partial(self._shut, OPEN))

    def _shut(self, state: int, transaction: Transaction) -> None:
        if self._items.count(transaction) is None:
            self._items.settle(transaction, self._maxsize)
        transaction.execute(
            "update kvsync_item set shut = :shut,"
            " got = case when :shut = 0 and shut = 2 then 0 else got end"
            " where queue = :queue and state = -2 and (shut < :shut or :shut = 0)",
            {"queue": self._name, "shut": state},
        )
        self._items.serve(transaction)

    @property
    def is_shutdown(self) -> bool:
        """Whether it was shut down."""
        rows = self._engine.read(
            "select shut from kvsync_queue where name = :queue", {"queue": self._name}
        )
        return bool(rows and rows[0][0])

    @property
    def dead(self) -> DeadLetters:
        """The items that failed too often, or were buried."""
        return DeadLetters(self, self._items, self._codec, self._taking.look_after_others)

    def peek(self, n: int = 1) -> list[Item]:
        """The first `n` items that wait, those that are delayed at the end; takes none.

        Raises: DecodeError, which names the item that the codec cannot read; TypeError, ValueError
        unless `n` is an int above zero.
        """
        here = {"queue": self._name, "count": check_whole("n", n), "now": self._engine.now()}
        self._taking.look_after_others()
        return [
            Item(number, self._readable(number, value), *rest)
            for number, value, *rest in self._engine.read(_PEEK, here)
        ]

    def _readable(self, number: int, value: Stored) -> Any:
        try:
            return decode(self._codec, value)
        except DecodeError as error:
            raise DecodeError(f"item {number} of {self._name!r}: {error}") from error

    def purge(self) -> int:
        """Remove all items that wait, delayed ones included, for good; returns how many.

        It does so a thousand at a time, so that others can write in between. What they put after
        the call stays.

        Raises: BusyError as any call, and what is removed by then stays removed.
        """
        removed = 0
        self._taking.look_after_others()
        for (last,) in self._engine.read(
            "select last from kvsync_queue where name = :queue", {"queue": self._name}
        ):
            while chunk := self._engine.transact(partial(self._purge_some, last), bulk=True):
                removed += chunk
        return removed

    def _purge_some(self, last: int, transaction: Transaction) -> int:
        removed = self._items.purge(transaction, _CHUNK, last)
        self._items.serve(transaction)
        return removed

    def stats(self) -> QueueStats:
        """How it stands. Holds no writer up for longer than an item's return takes."""
        self._taking.look_after_others()
        now = self._engine.now()
        here = {"queue": self._name, "maxsize": self._maxsize, "now": now, "lately": now - LATELY}
        (
            (
                maxsize,
                shut,
                size,
                older,
                put,
                done,
                delayed,
                taken,
                dead,
                oldest,
            ),
        ) = self._engine.read(_STATS, here)
        waiting = self._who_waits()
        seconds = max(now - older, 1.0)
        return QueueStats(
            name=self._name,
            maxsize=maxsize,
            is_shutdown=bool(shut),
            depth=size - delayed,
            delayed=delayed,
            in_flight=taken,
            dead=dead,
            oldest_age=None if oldest is None else max(0.0, now - oldest),
            put_rate=put / seconds,
            done_rate=max(0, done - taken) / seconds,
            getters=waiting[GET],
            putters=waiting[PUT],
        )

    def _who_waits(self) -> Counter[str]:
        """How many calls of the living are in each of its lines."""
        waiting = Counter[str]()
        for space, session, calls in self._engine.read(_WHO_WAITS, {"queue": self._name}):
            if not self._session.is_dead(session):
                waiting[space] += calls
        return waiting


def _check_maxsize(maxsize: int) -> int:
    if isinstance(maxsize, bool) or not isinstance(maxsize, int):
        raise TypeError(f"maxsize is an int, not {maxsize!r}")
    if maxsize >= 1 << 31:
        raise ValueError(f"maxsize is below 2**31, not {shown(maxsize)}")
    return max(0, maxsize)


def _check_visibility(visibility: Seconds | None) -> float | None:
    return None if visibility is None else check_positive("visibility", visibility)


def _check_priority(priority: float) -> float:
    if isinstance(priority, bool) or not isinstance(priority, int | float):
        raise TypeError(f"a priority is a number, not {priority!r}")
    if not -(2**53) <= priority <= 2**53:
        raise ValueError(f"a priority is within 2**53 either way, not {shown(priority)}")
    return float(priority)

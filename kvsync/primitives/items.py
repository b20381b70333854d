"""The rows of a queue: its items, where each of them is, and the lines of those who wait.

    kvsync_queue     one row for each queue: `last` is the id of the newest item, `size` counts the
                     items that are ready or delayed, `got` those that `get` has taken and
                     `task_done` not yet told of, `purged` those that `purge` has removed;
                     `receipts` is the highest receipt so far. What is neither in line, handed
                     out nor purged is done: `_DONE`. It is a view of two rows: what most calls
                     need is in the queue's tally (TALLY), which the view kvsync_tally tells,
                     the rest in kvsync_queue_past.
    kvsync_item      one row for each item. Its `state` and `place` say where it is, and are part of
                     the key, so an item is moved by one statement and found by a seek:

        TALLY      no item, but the queue's own numbers
        TAKEN      place: the receipt of this hand-out; `claim_by` is set while it has been given to
                   one who waits, `ticket`, and not been claimed
        READY      place: minus its priority; then the order is that of the ids
        DELAYED    place: the wall time when it becomes ready; the queue's `due` is the first
        ASKING     place: the ticket of who waits to put it into a full queue
        DEAD       place: the wall time of its death

                     The first that is ready so lies beside what is in hand and the tally, mostly on
                     one page of the file, and a commit costs by the page. So that putting one
                     writes a single page too, the tally does not count it. The views do, and so
                     does who takes it away, or what came after it.

What is done most is one statement each, while there is nothing else to see to: putting a single
item; giving it to the first who waits for one; taking it, also in exchange for the last one, which
is done with; and claiming what was given. All but the first change a view, whose triggers change
the items, the tally and the ticket.

Three lines of tickets, each in the order of asking: who wants an item ("queue"), who wants to put
one ("queue-put"), who waits until all is done ("queue-join").

Invariants, each true after every commit:

- An item is one row, from the commit of its `put` until it is got, acknowledged or purged.
- The items with ids above the tally's `last` are those that it does not count, and their ids follow
  it without a gap: they are READY at place 0, in the order of their puts, and the first of them to
  go is the first of that place. Whoever takes away another than that counts them in before.
- A ticket of "queue" is 'waiting' only if no item is READY. So whoever finds one READY is next.
- Items of one place are handed out in the order of their ids; one that comes back has its old id.
- Nobody is ASKING while there is room for the first who asks, or while its key is in the queue.
  The first is one whose time is not over: see `admit`.
- Of one key one item is READY or DELAYED. Any number may be ASKING: each is decided on in its turn.
- A hand-out has a receipt that no other ever had; who settles an item must name it.
- Whatever makes an item ready, makes room or ends the last item serves the lines in the same
  transaction (`serve`, or the part of it that is concerned). What time and death alone change,
  whoever looks sees to: the heads of the lines, and who takes an item, now and then.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from kvsync.clock import end_of
from kvsync.codec import Stored
from kvsync.engine import Engine, Params, Row, Transaction
from kvsync.engine.doorbell import SERVED as WAS_SERVED
from kvsync.engine.process import this_process
from kvsync.errors import KvsyncError, LimitError, ShutDown
from kvsync.leftovers import with_cleanup
from kvsync.primitives.grants import CLAIM_TIME
from kvsync.primitives.tickets import Tickets
from kvsync.session import MEND, Patience
from kvsync.threads import make_way
from kvsync.waiting import FIRST, HOLDERS, PASSED, WAITING, drop, ring, ring_served, turn

TALLY, TAKEN, READY, DELAYED, ASKING, DEAD = range(-2, 4)
GET, PUT, JOIN = "queue", "queue-put", "queue-join"
"""The spaces of the three lines."""

_COUNTED = READY, DELAYED
"""What a queue's `size` counts."""

GRANTED, SERVED, SHUT = "granted", "served", "shut"
"""How a wait in them ends well; and that the queue was shut down."""

OPEN, CLOSING, CLOSED = range(3)
"""`shut`: takes items; gives those that it has; gives none either."""

_MARK_EVERY = 60.0
"""Seconds between two marks, from which the rates are reckoned."""

LATELY = 2 * _MARK_EVERY
"""Seconds of which the rates tell, at most. Who was idle for so long begins anew."""

_REST = 0.001
"""Seconds. Who gives an item after such a rest makes way for whoever waited for it."""

_CHUNK = 500
"""Items moved in one transaction, at most, where time makes many ready at once."""

_COLUMNS = "place, id, priority, value, key, since, attempts, error"

_DONE = """
    last - size - purged
        - (select count(*) from kvsync_item where queue = :queue and state = -1)
"""
_MARK = f"""
    update kvsync_queue_past set older = :older, older_last = mark_last, older_done = mark_done,
        (mark_last, mark_done) = (select last, {_DONE} from kvsync_queue where name = :queue)
    where name = :queue
"""
_NEW = """
    insert into kvsync_queue (name, maxsize, shut, last, size, got, purged, receipts, mark,
        mark_last, mark_done, older, older_last, older_done)
    values (:queue, :maxsize, 0, 0, 0, 0, 0, :receipts, :now, 0, 0, :now, 0, 0)
"""
_USERS = """
    select session from kvsync_ticket where space in ('queue', 'queue-put') and name = :queue
    union select session from kvsync_item where queue = :queue and state = -1
"""
_ASKS_FIRST = """
    select session from kvsync_ticket
    where space = 'queue-put' and name = :queue and state = 'waiting' order by id limit 1
"""
_SOMEBODY_WAITS = """
    select 1 from kvsync_ticket
    where space = 'queue' and name = :queue and state = 'waiting' limit 1
"""
_ITS_TALLY = "queue = :queue and state = -2"
_MORE = f"""
    update kvsync_item
    set (last, size) = (select last + :count, size + :count from kvsync_tally where queue = :queue)
    where {_ITS_TALLY} and shut = 0 and (
        maxsize = 0
        or (select size from kvsync_tally where queue = :queue) + :count <= maxsize)
"""
_ADMIT = f"""
    {_MORE} and maxsize = :maxsize and (
        maxsize = 0
        or not exists (select 1 from kvsync_item where queue = :queue and state = 2))
    returning last, mark, exists ({_SOMEBODY_WAITS})
"""
_INSERT = """
    insert into kvsync_item (queue, state, place, id, priority, value, key, since, attempts, error,
        due, session)
    values (:queue, :state, :place, :id, :priority, :value, :key, :since, :attempts, :error, :due,
        :session)
"""
_PUT = """
    insert into kvsync_item (queue, state, place, id, priority, value, key, since, attempts)
    values (:queue, :state, :place, :id, :priority, :value, :key, :since, 0)
"""
_HAS_ROOM = f"""
    queue = :queue and shut = 0 and maxsize = :maxsize
    and (maxsize = 0 or (size < maxsize
        and not exists (select 1 from kvsync_item where queue = :queue and state = 2)))
    and mark <= :now and mark > :now - {_MARK_EVERY}
"""
"""That one item may be put, with nothing else to see to before."""

_PUT_ONE = f"""
    insert into kvsync_item (queue, state, place, id, priority, value, since, attempts)
    select :queue, 0, 0, last + 1, 0, :value, :now, 0
    from kvsync_tally where {_HAS_ROOM} and not exists ({_SOMEBODY_WAITS})
    returning id
"""
"""An item of priority 0 without delay and key, if there is room and nobody waits for room or for an
item. It writes the item alone: see the invariant of those that the tally does not count."""

_PUT_OR_GIVE_ONE = f"""
    insert into kvsync_item_in (queue, id, priority, value, since, receipt, ticket, session,
        attempt, claim_by, doorbell, behind)
    select :queue, last + 1, :priority, :value, :now, receipts + 1, next.id, next.session,
        next.attempt, :claim_by, next.doorbell, behind.doorbell
    from kvsync_tally
        left join kvsync_ticket as next
        on next.space = 'queue' and next.name = :queue and next.id = (
            select min(id) from kvsync_ticket
            where space = 'queue' and name = :queue and state = 'waiting')
        left join kvsync_ticket as behind
        on behind.space = 'queue' and behind.name = :queue and behind.id = (
            select min(id) from kvsync_ticket
            where space = 'queue' and name = :queue and state = 'waiting' and id > next.id)
    where {_HAS_ROOM}
    and (next.id is null or due is null or due > :now)
    and (next.deadline is null or next.deadline > :boot)
    and (behind.deadline is null or behind.deadline > :boot)
    returning id, doorbell, behind as doorbell
"""
"""The same of any priority, and though somebody waits for an item: the head of that line is given
it, for then no other is ready, or due. Says whom to ring: who was given it, and the one behind, who
has another to watch now. Where it puts nothing, `Items.put` does the rest."""

_SERVED_AND_BEHIND = """
    select doorbell as served, null as behind from kvsync_ticket
    where space = 'queue' and name = :queue and state = 'granted'
    union all
    select * from (
        select null, doorbell from kvsync_ticket
        where space = 'queue' and name = :queue and state = 'waiting' order by id limit 1) as first
"""
IN_HAND = "queue = :queue and state = -1 and place = :receipt and id = :id and claim_by is null"
"""An item in the hand of who names its receipt."""

_FIRST_ONE = f"""
    from kvsync_tally, (
        select {_COLUMNS} from kvsync_item where queue = :queue and state = 0
        order by place, id limit 1)
    where queue = :queue and shut < 2 and mark <= :now and mark > :now - {_MARK_EVERY}
    and (due is null or due > :now)
    and not exists (select 1 from kvsync_item where queue = :queue and state = 2)
"""
_OUT = f"{_COLUMNS}, queue, session, attempt, max_attempts, taken, until, receipt"
_FIRST_OUT = """
    place, id, priority, value, key, since, attempts + 1, error, queue, :session, :attempt,
        :max_attempts, :now, :until, receipts + 1
"""
_AS_KEPT = "receipt as place, id, priority, value, key, since, attempts, error"
_HAND_OUT_ONE = f"""
    insert into kvsync_item_out ({_OUT}) select {_FIRST_OUT} {_FIRST_ONE} returning {_AS_KEPT}
"""
"""The first ready item, if there is nothing else to see to; else `Items.hand_out` does it."""

_HAND_ON = f"""
    insert into kvsync_item_out ({_OUT}, done, done_id) select {_FIRST_OUT}, :receipt, :id
    {_FIRST_ONE} and exists (select 1 from kvsync_item where {IN_HAND}) returning {_AS_KEPT}
"""
"""The same to who had another in hand, which is done with now. As there is one in hand again, no
join has come to its end."""

_GET_ONE = f"""
    insert into kvsync_item_got (queue, {_COLUMNS})
    select queue, {_COLUMNS} {_FIRST_ONE} returning {_COLUMNS}
"""
"""The same for good; else `Items.take` goes on."""

_FIRST = f"""
    select {_COLUMNS} from kvsync_item where queue = :queue and state = 0
    order by place, id limit :count
"""
_TAKEN_AWAY = f"""
    update kvsync_item set (last, size, got) = (
        select last, size - :count, got + :count from kvsync_tally where queue = :queue)
    where {_ITS_TALLY} and shut < 2
    returning maxsize, mark
"""
_SPAN = """
    select place, id from kvsync_item where queue = :queue and state = :state
    order by place, id limit :count
"""
_REMOVE = """
    delete from kvsync_item
    where queue = :queue and state = :state and (place, id) <= (:place, :id)
"""
_PURGE = """
    delete from kvsync_item where queue = :queue and (state, place, id) in (
        select state, place, id from kvsync_item
        where queue = :queue and state between 0 and 1 and id <= :last limit :count)
    returning 1
"""
_HANDED_OUT = f"""
    update kvsync_item set (last, size, receipts) = (
        select last, size - :count, receipts + :span from kvsync_tally where queue = :queue)
    where {_ITS_TALLY} and shut < 2
    returning maxsize, mark, receipts
"""
_HAND_OUT = """
    update kvsync_item set state = -1, place = id + :shift, attempts = attempts + 1,
        session = :session, attempt = :attempt, max_attempts = :max_attempts, taken = :now,
        until = :until
    where queue = :queue and state = 0 and (place, id) <= (:place, :id)
"""
_GIVE = """
    update kvsync_item set state = -1, place = :receipt, session = :session, attempt = :attempt,
        ticket = :ticket, taken = :now, claim_by = :claim_by
    where queue = :queue and state = 0 and place = :place and id = :id
"""
_ACKNOWLEDGE = f"delete from kvsync_item where {IN_HAND} returning 1"
_ACKNOWLEDGE_IF_NOBODY_JOINS = f"""
    delete from kvsync_item where {IN_HAND}
        and not exists (select 1 from kvsync_ticket where space = 'queue-join' and name = :queue)
    returning 1
"""
_EXTEND = f"update kvsync_item set until = :until where {IN_HAND} returning 1"
_PUT_OFF = f"""
    update kvsync_item set until = :until where {IN_HAND} and until <= :until returning 1
"""
_CLAIM = f"""
    insert into kvsync_item_given (queue, {_COLUMNS}, max_attempts, until, ticket)
    select queue, place, id, priority, value, key, since, attempts + 1, error, :max_attempts,
        :until, ticket
    from kvsync_item_given where queue = :queue and ticket = :ticket returning {_COLUMNS}
"""
_CLAIM_FOR_GOOD = f"""
    delete from kvsync_item_given where queue = :queue and ticket = :ticket returning {_COLUMNS}
"""
"""What was given to a ticket, by its owner; the ticket goes. (The first is no update, for of a view
that is updated SQLite 3.40 returns whole numbers as integers.)"""

_MOVE = """
    update kvsync_item set state = :state, place = :at, attempts = :attempts,
        error = coalesce(:error, error), session = null, attempt = null, ticket = null,
        max_attempts = null, until = null, claim_by = null, due = null, taken = null,
        key = case when :state between 0 and 1 and exists (
            select 1 from kvsync_item as other where other.queue = :queue
            and other.key = kvsync_item.key and other.state between 0 and 1) then null else key end
    where queue = :queue and state = :was and place = :place and id = :id
    returning id
"""
_RESTORED = f"""
    update kvsync_item set size = size + 1, got = case when got > 0 then got - 1 else 0 end
    where {_ITS_TALLY} and last >= :id and not exists (
        select 1 from kvsync_item where queue = :queue and id = :id and state <> 2)
    returning 1
"""
_LOST = """
    select place, kvsync_item.id, priority, attempts, max_attempts, claim_by, ticket
    from kvsync_item left join kvsync_session on kvsync_session.id = kvsync_item.session
    where queue = :queue and state = -1 and (kvsync_session.id is null
        or (clock = :clock and (until <= :boot or claim_by <= :boot)))
    limit :count
"""
_IS_DUE = "select 1 from kvsync_queue where name = :queue and due <= :now"
_DUE = """
    update kvsync_item set state = 0, place = -priority
    where queue = :queue and state = 1 and (place, id) in (
        select place, id from kvsync_item where queue = :queue and state = 1 and place <= :now
        order by place, id limit :count)
    returning id
"""
_SEND_AWAY = """
    delete from kvsync_item where queue = :queue and state = 2 and place = :ticket
    and exists (
        select 1 from kvsync_item as other where other.queue = :queue
        and other.key = kvsync_item.key and other.key is not null and other.state between 0 and 1)
    returning id
"""
_WANTING = """
    select kvsync_ticket.id, session, attempt, kvsync_ticket.doorbell, deadline, clock
    from kvsync_ticket left join kvsync_session on kvsync_session.id = kvsync_ticket.session
    where space = 'queue' and name = :queue and state = 'waiting'
    and not exists (select 1 from kvsync_queue where name = :queue and shut = 2)
    order by kvsync_ticket.id limit 1
"""
_HOLDERS = """
    select 'holder', kvsync_item.session, clock, min(until), min(claim_by)
    from kvsync_item left join kvsync_session on kvsync_session.id = kvsync_item.session
    where queue = :name and state = -1 group by kvsync_item.session, clock
    union all
    select 'due', null, null, due, null from kvsync_queue where name = :name and due is not null
"""


class Kept(NamedTuple):
    """An item as it is stored."""

    place: float
    id: int
    priority: float
    value: Stored
    key: str | None
    since: float
    attempts: int
    error: str | None


class Draft(NamedTuple):
    """An item that is to be put; `due` is the wall time before which nobody gets it."""

    value: Stored
    priority: float = 0.0
    key: str | None = None
    due: float | None = None


class Hand(NamedTuple):
    """Who takes items, and for how many seconds (None: until they are settled)."""

    session: int
    attempt: int
    max_attempts: int
    visibility: float | None = None


class Count(NamedTuple):
    """What a queue's row says."""

    maxsize: int
    shut: int
    size: int


class Items:
    """The items of one queue; each method is a part of a transaction."""

    def __init__(self, engine: Engine, queue: str) -> None:
        self.engine = engine
        self.queue = queue
        self._here = {"queue": queue}
        self._gave = False
        """Whether somebody waited for the last item: then somebody may for the next."""
        self._gave_last = 0.0  # on the boot clock

    # --- the queue's row ----------------------------------------------------------------------

    def count(self, transaction: Transaction) -> Count | None:
        """None if there is no such queue yet."""
        rows = transaction.execute(
            "select maxsize, shut, size from kvsync_queue where name = :queue", self._here
        )
        return Count._make(rows[0]) if rows else None

    def count_in(self, transaction: Transaction) -> None:
        """Let the tally count what was put. To do before others than the first are taken away."""
        transaction.execute(
            "update kvsync_item set (last, size) = ("
            f" select last, size from kvsync_tally where queue = :queue) where {_ITS_TALLY}",
            self._here,
        )

    def is_over(self, transaction: Transaction) -> bool:
        """Whether it was shut down, and there is nothing to get any more."""
        count = self.count(transaction)
        return count is not None and bool(count.shut) and (count.shut == CLOSED or not count.size)

    def is_closed(self, transaction: Transaction) -> bool:
        """Whether it was shut down at once: what it has, nobody takes."""
        count = self.count(transaction)
        return count is not None and count.shut == CLOSED

    def require_open(self, transaction: Transaction) -> Count | None:
        """Its row, if it has one. Raises: ShutDown."""
        count = self.count(transaction)
        if count is not None and count.shut:
            raise ShutDown(f"the queue {self.queue!r} was shut down; reopen() opens it again")
        return count

    def settle(self, transaction: Transaction, maxsize: int) -> None:
        """Make the queue, or adopt another size of it while nobody waits and nothing is out.

        Raises: ShutDown; LimitError, which the dead among its `users` may be the cause of.
        """
        now = transaction.now
        # Receipts go on above those of a queue of that name that was deleted.
        new = {**self._here, "maxsize": maxsize, "receipts": int(now * 1e6), "now": now}
        transaction.execute(_NEW, new)
        count = self.require_open(transaction)
        assert count is not None
        if count.maxsize != maxsize:
            self._resize(transaction, count.maxsize, maxsize)

    def _resize(self, transaction: Transaction, old: int, new: int) -> None:
        if transaction.execute(
            "select 1 from kvsync_ticket where space in ('queue', 'queue-put') and name = :queue"
            " union all select 1 from kvsync_item where queue = :queue and state in (-1, 2)"
            " limit 1",
            self._here,
        ):
            raise LimitError(
                f"queue {self.queue!r} is in use with a maxsize of {old}, not {new}; a new one is"
                " adopted when nobody waits and no item is handed out"
            )
        transaction.execute(
            f"update kvsync_item set maxsize = :maxsize where {_ITS_TALLY}",
            {**self._here, "maxsize": new},
        )

    def users(self) -> list[int]:
        """The sessions for whose sake its size stays: they wait, or have items in hand."""
        return [session for (session,) in self.engine.read(_USERS, self._here)]

    def first_asking(self) -> list[int]:
        """The session that nobody who wants room may overtake, if one waits for it."""
        return [session for (session,) in self.engine.read(_ASKS_FIRST, self._here)]

    def _mark(self, transaction: Transaction, mark: float) -> None:
        """Every minute in which something happens, note how much had happened before."""
        since = transaction.now - mark
        if 0 <= since < _MARK_EVERY:
            return
        # After a pause both marks are new: what was before it is not of the last minutes.
        for older in (mark,) if 0 <= since < LATELY else (mark, transaction.now):
            transaction.execute(_MARK, {**self._here, "older": older})
        transaction.execute(
            f"update kvsync_item set mark = :now where {_ITS_TALLY}",
            {**self._here, "now": transaction.now},
        )

    # --- in -----------------------------------------------------------------------------------

    def put(self, transaction: Transaction, drafts: list[Draft], maxsize: int) -> list[int]:
        """Their ids, in order; nothing if there is no room for them, or the queue is not settled.

        Only the caller knows whether another item has a draft's key: see `has_key`.
        """
        wanted = {**self._here, "count": len(drafts), "maxsize": maxsize}
        rows = transaction.execute(_ADMIT, wanted)
        if not rows:
            return []
        ((last, mark, somebody_waits),) = rows
        ids = list(range(last - len(drafts) + 1, last + 1))
        for number, draft in zip(ids, drafts, strict=True):
            self._put(transaction, draft, number)
        self._mark(transaction, mark)
        if somebody_waits:
            self._ripen(transaction)
            self.give(transaction)
        return ids

    def put_one(self, draft: Draft, maxsize: int, patience: Patience) -> list[int]:
        """A commit of its own: its id, or nothing if there is more to it than that."""
        if draft.due is not None or draft.key is not None:
            return []

        def row() -> Params:
            return {**self._first(), "maxsize": maxsize, "value": draft.value}

        if not draft.priority and not self._gave:
            for put in self.engine.write(_PUT_ONE, row, patience=patience.left()):
                return list(put)
            if not self.engine.read(_SOMEBODY_WAITS, self._here):
                return []
        give = partial(self._put_or_give_one, draft, row, patience.left())
        return with_cleanup(give, self._ring_again, (KvsyncError,))

    def _put_or_give_one(
        self, draft: Draft, row: Callable[[], Params], patience: float | None
    ) -> list[int]:
        def row_to_give() -> Params:
            boot = self.engine.boot()
            more = {"priority": draft.priority, "boot": boot, "claim_by": boot + CLAIM_TIME}
            return {**row(), **more}

        rows = self.engine.write(_PUT_OR_GIVE_ONE, row_to_give, patience=patience)
        for _, given_to, behind in rows:
            ring_served(self.engine, given_to, behind)
            self._gave = given_to is not None
            if self._gave:
                self._make_way_after_a_rest()
        return [row[0] for row in rows]

    def _make_way_after_a_rest(self) -> None:
        """For who was given the item; but who puts one after the other goes on to its next."""
        before, self._gave_last = self._gave_last, self.engine.boot()
        if self._gave_last - before > _REST:
            make_way()

    def _ring_again(self) -> None:
        """We may have given an item, and been interrupted before we rang."""
        with suppress(KvsyncError):
            for served, behind in self.engine.read(_SERVED_AND_BEHIND, self._here):
                ring_served(self.engine, served, behind)

    def _put(self, transaction: Transaction, draft: Draft, number: int) -> None:
        value, priority, key, due = draft
        state, place = _beginning(priority, due)
        row = {
            "queue": self.queue,
            "state": state,
            "place": place,
            "id": number,
            "priority": priority,
            "value": value,
            "key": key,
            "since": transaction.now,
        }
        transaction.execute(_PUT, row)
        if due is not None:
            self._note_due(transaction, due)

    def ask(self, transaction: Transaction, drafts: list[Draft], ticket: int, session: int) -> None:
        """Let them wait for room under that ticket."""
        for number, draft in enumerate(drafts):
            self._insert(transaction, draft, ASKING, ticket, number, session=session)

    def _insert(
        self,
        transaction: Transaction,
        draft: Draft,
        state: int,
        place: float,
        number: int,
        **more: object,
    ) -> None:
        row = {
            **self._here,
            **draft._asdict(),
            "state": state,
            "place": place,
            "id": number,
            "since": transaction.now,
            "attempts": 0,
            "error": None,
            "session": None,
            **more,
        }
        transaction.execute(_INSERT, row)

    def has_key(self, transaction: Transaction, key: str) -> bool:
        """Whether an item of that key is in the queue. One that asks to be may still give up."""
        return bool(
            transaction.execute(
                "select 1 from kvsync_item where queue = :queue and key = :key"
                " and key is not null and state between 0 and 1",
                {**self._here, "key": key},
            )
        )

    def withdraw(self, transaction: Transaction, ticket: int) -> None:
        """They ask no more."""
        transaction.execute(
            "delete from kvsync_item where queue = :queue and state = 2 and place = :ticket",
            {**self._here, "ticket": ticket},
        )
        self.admit(transaction)

    def _note_due(self, transaction: Transaction, due: float) -> None:
        if transaction.execute(
            f"update kvsync_item set due = :due where {_ITS_TALLY}"
            " and (due is null or due > :due) returning 1",
            {**self._here, "due": due},
        ):
            Tickets(self.engine, GET, self.queue).ring_first(transaction)

    # --- out ----------------------------------------------------------------------------------

    def take(self, transaction: Transaction, count: int) -> list[Kept]:
        """Take the first ready items away for good. Raises: ShutDown."""
        rows = self._first_ready(transaction, count)
        if not rows:
            return []
        after = self._count_off(transaction, _TAKEN_AWAY, {"count": len(rows)})
        place, number = rows[-1][:2]
        row = {"queue": self.queue, "state": READY, "place": place, "id": number}
        transaction.execute(_REMOVE, row)
        self._after_taking(transaction, *after)
        return list(map(Kept._make, rows))

    def take_one(self, row: list[Row], patience: float | None) -> list[Kept]:
        """A commit of its own: the first ready item; nothing if there is more to it than that.

        It is in `row` if and only if that is committed, whatever interrupts this.
        """
        rows = self.engine.write(_GET_ONE, self._first, patience=patience, into=row)
        return list(map(Kept._make, rows))

    def hand_out(self, transaction: Transaction, count: int, hand: Hand) -> list[Kept]:
        """The first ready items, in their new places: the receipts. Raises: ShutDown.

        Their receipts are as far apart as their ids, so that one statement hands them all out.
        """
        rows = self._first_ready(transaction, count)
        if not rows:
            return []
        first = list(map(Kept._make, rows))
        ids = [kept.id for kept in first]
        counted = {"count": len(ids), "span": max(ids) - min(ids) + 1}
        *after, receipt = self._count_off(transaction, _HANDED_OUT, counted)
        shift = receipt - max(ids)
        self._hand_out(transaction, first[-1], shift, hand)
        self._after_taking(transaction, *after)
        return [_handed_out(kept, shift) for kept in first]

    def hand_out_one(self, hand: Hand, patience: float | None) -> list[Kept]:
        """A commit of its own: the first ready item; nothing if there is more to it than that."""
        rows = self.engine.write(
            _HAND_OUT_ONE, lambda: self._handed(self._first(), hand), patience=patience, sure=True
        )
        return list(map(Kept._make, rows))

    def hand_on(self, number: int, receipt: int, hand: Callable[[], Hand]) -> list[Kept]:
        """A commit of its own: that hand-out is done with, and the first ready item handed out.

        Neither, and nothing, if there is more to it than that. `hand` is asked while no other
        process can write.
        """
        done = {"id": number, "receipt": receipt}
        rows = self.engine.write(
            _HAND_ON, lambda: self._handed({**self._first(), **done}, hand()), sure=True
        )
        return list(map(Kept._make, rows))

    def _first_ready(self, transaction: Transaction, count: int) -> list[Row]:
        """Those that nobody waits for: what is due by now goes first to who does."""
        if transaction.execute(_IS_DUE, {"queue": self.queue, "now": transaction.now}):
            self._ripen(transaction)
            self._serve_lines(transaction)
        return transaction.execute(_FIRST, {"queue": self.queue, "count": count})

    def _first(self) -> Params:
        return {"queue": self.queue, "now": self.engine.now()}

    def _hand_out(self, transaction: Transaction, last: Kept, shift: int, hand: Hand) -> None:
        row = {
            "queue": self.queue,
            "place": last.place,
            "id": last.id,
            "shift": shift,
            "now": transaction.now,
        }
        transaction.execute(_HAND_OUT, self._handed(row, hand))

    def _handed(self, row: Params, hand: Hand) -> Params:
        """The same, and to whom, and until when: that begins now."""
        return {**row, **hand._asdict(), "until": end_of(hand.visibility, self.engine.boot)}

    def _count_off(self, transaction: Transaction, sql: str, counted: dict[str, int]) -> Row:
        rows = transaction.execute(sql, {"queue": self.queue, **counted})
        if not rows:
            raise ShutDown(f"the queue {self.queue!r} was shut down at once; reopen() opens it")
        return rows[0]

    def _after_taking(self, transaction: Transaction, maxsize: int, mark: float) -> None:
        """Only now, for it can put others before those that are taken."""
        self._mark(transaction, mark)
        if maxsize:
            self.admit(transaction)

    def claim(self, transaction: Transaction, ticket: int, hand: Hand | None) -> Kept | None:
        """Take up what was given to that ticket, to keep it for a while or (None) for good.

        None if it has passed on. The ticket goes, or waits again in its old place.
        """
        if hand is None:
            rows = transaction.execute(_CLAIM_FOR_GOOD, self._given(ticket))
        else:
            rows = transaction.execute(_CLAIM, self._handed(self._given(ticket), hand))
        if not rows:
            self._return(transaction, ticket)
            return None
        return Kept._make(rows[0])

    def claim_one(self, ticket: int, hand: Hand, patience: float | None) -> list[Kept]:
        """A commit of its own: what was given to that ticket, if it has not passed on."""
        rows = self.engine.write(
            _CLAIM,
            lambda: self._handed(self._given(ticket), hand),
            patience=patience,
            sure=True,
            urgent=True,
        )
        return list(map(Kept._make, rows))

    def claim_one_for_good(self, row: list[Row], ticket: int, patience: float | None) -> list[Kept]:
        """The same for good. It is in `row` if and only if that is committed: see `take_one`."""
        given = self._given(ticket)
        rows = self.engine.write(_CLAIM_FOR_GOOD, given, patience=patience, urgent=True, into=row)
        return list(map(Kept._make, rows))

    def _given(self, ticket: int) -> dict[str, object]:
        return {"queue": self.queue, "ticket": ticket}

    def _return(self, transaction: Transaction, ticket: int) -> None:
        if turn(transaction, self._getter(ticket), GRANTED, WAITING):
            self._serve_lines(transaction)

    # --- settling -----------------------------------------------------------------------------

    def acknowledge(self, number: int, receipt: int) -> bool:
        """It is done with; whether that hand-out was current. A commit of its own."""
        here = {"queue": self.queue, "id": number, "receipt": receipt}
        return bool(self.engine.write(_ACKNOWLEDGE_IF_NOBODY_JOINS, here)) or self.engine.transact(
            partial(self._acknowledge, here)
        )

    def _acknowledge(self, here: Params, transaction: Transaction) -> bool:
        """The same where somebody may wait until all is done."""
        rows = transaction.execute(_ACKNOWLEDGE, here)
        if rows:
            self.tell_joiners(transaction)
        return bool(rows)

    def extend(self, number: int, receipt: int, seconds: float) -> bool:
        """It is in hand for so long from now on; whether that hand-out was current. A commit."""
        item = {"queue": self.queue, "id": number, "receipt": receipt}

        def extended() -> Params:
            return {**item, "until": self.engine.boot() + seconds}

        return bool(self.engine.write(_PUT_OFF, extended)) or self.engine.transact(
            lambda transaction: self._extend(extended(), transaction)
        )

    def _extend(self, item: Params, transaction: Transaction) -> bool:
        """The same where it may be over sooner than those know who wait for it."""
        rows = transaction.execute(_EXTEND, item)
        for space in (GET, JOIN) if rows else ():
            Tickets(self.engine, space, self.queue).ring_first(transaction)
        return bool(rows)

    def task_done(self, transaction: Transaction) -> bool:
        """One that was got is done with; False if there is none."""
        rows = transaction.execute(
            f"update kvsync_item set got = got - 1 where {_ITS_TALLY} and got > 0 returning"
            " exists (select 1 from kvsync_ticket where space = 'queue-join' and name = :queue)",
            self._here,
        )
        if any(somebody_waits for (somebody_waits,) in rows):
            self.tell_joiners(transaction)
        return bool(rows)

    def move(
        self,
        transaction: Transaction,
        kept: Kept,
        state: int,
        *,
        was: int = TAKEN,
        at: float | None = None,
        attempts: int | None = None,
        error: str | None = None,
    ) -> bool:
        """Put it elsewhere; whether it was there. The lines are still to be served."""
        if was == READY:
            self.count_in(transaction)
        if not transaction.execute(
            _MOVE,
            {
                **self._here,
                "was": was,
                "place": kept.place,
                "id": kept.id,
                "state": state,
                "at": -kept.priority if at is None else at,
                "attempts": kept.attempts if attempts is None else attempts,
                "error": error and _storable(error),
            },
        ):
            return False
        if change := (state in _COUNTED) - (was in _COUNTED):
            transaction.execute(
                f"update kvsync_item set size = size + :change where {_ITS_TALLY}",
                {**self._here, "change": change},
            )
        if state == DELAYED and at is not None:
            self._note_due(transaction, at)
        return True

    def restore(self, transaction: Transaction, kept: Kept) -> None:
        """Put back what was taken for good, in its old place. The lines are still to be served.

        What is damaged goes back as it was; what was in a queue that was deleted is gone with it,
        though there is another of that name, if that has an item of its id.
        """
        if not transaction.execute(_RESTORED, {**self._here, "id": kept.id}):
            return
        place = -kept.priority if isinstance(kept.priority, float) else kept.place
        key = kept.key
        if key is not None and self.has_key(transaction, key):
            key = None
        more = {"since": kept.since, "attempts": kept.attempts, "error": kept.error}
        draft = Draft(kept.value, kept.priority, key)
        self._insert(transaction, draft, READY, place, kept.id, **more)

    def is_ready(self, transaction: Transaction, kept: Kept) -> bool:
        """Whether it stands in its old place."""
        return bool(
            transaction.execute(
                "select 1 from kvsync_item where queue = :queue and state = 0 and place = :place"
                " and id = :id",
                {**self._here, "place": -kept.priority, "id": kept.id},
            )
        )

    def give_back(self, transaction: Transaction, session: int, attempt: int) -> None:
        """All that this attempt has got, as if it had never been handed out."""
        for *row, claim_by in transaction.execute(
            f"select {_COLUMNS}, claim_by from kvsync_item where queue = :queue and state = -1"
            " and session = :session and attempt = :attempt",
            {**self._here, "session": session, "attempt": attempt},
        ):
            kept = Kept._make(row)
            self.move(transaction, kept, READY, attempts=kept.attempts - (claim_by is None))
        self.serve(transaction)

    # --- the lines ----------------------------------------------------------------------------

    def serve(self, transaction: Transaction) -> None:
        """See to what time and death have changed, and to all who wait."""
        self._recover(transaction)
        self._ripen(transaction)
        self._serve_lines(transaction)

    def _serve_lines(self, transaction: Transaction) -> None:
        """All who wait: for an item first, for whoever is given one makes room."""
        self.give(transaction)
        self.admit(transaction)
        self.tell_joiners(transaction)
        self._tell_shut(transaction)

    def _recover(self, transaction: Transaction) -> None:
        """What the dead had, and what was out for too long, goes back to its old place."""
        now = {"boot": self.engine.boot(), "clock": this_process().clock, "count": _CHUNK}
        for place, number, priority, attempts, most, claim_by, ticket in transaction.execute(
            _LOST, {**self._here, **now}
        ):
            kept = Kept(place, number, priority, "", None, 0, attempts, None)
            if claim_by is None and attempts >= (most or 1):
                error = f"its worker died, or did not finish in time, at attempt {attempts}"
                self.move(transaction, kept, DEAD, at=transaction.now, error=error)
                continue
            if claim_by is not None:
                self._skip(transaction, ticket)
            self.move(transaction, kept, READY)

    def _skip(self, transaction: Transaction, ticket: int) -> None:
        turn(transaction, self._getter(ticket), GRANTED, PASSED)

    def dismiss(self, transaction: Transaction, ticket: int) -> None:
        """Out of the line of those who wait for an item."""
        drop(transaction, self._getter(ticket))

    def _getter(self, ticket: int) -> Params:
        return {"space": GET, "name": self.queue, "ticket": ticket}

    def purge(self, transaction: Transaction, count: int, last: int) -> int:
        """Remove up to that many items that wait, with ids up to `last`; returns how many."""
        self.count_in(transaction)
        here = {**self._here, "count": count, "last": last}
        removed = len(transaction.execute(_PURGE, here))
        here = {**self._here, "removed": removed}
        transaction.execute(
            f"update kvsync_item set size = size - :removed where {_ITS_TALLY}", here
        )
        transaction.execute(
            "update kvsync_queue_past set purged = purged + :removed where name = :queue", here
        )
        return removed

    def _ripen(self, transaction: Transaction) -> None:
        """What is due becomes ready: in turns, if it is very much."""
        transaction.execute(_DUE, {**self._here, "now": transaction.now, "count": _CHUNK})
        transaction.execute(
            "update kvsync_item set due = (select min(place) from kvsync_item"
            f" where queue = :queue and state = 1) where {_ITS_TALLY}",
            self._here,
        )

    def admit(self, transaction: Transaction) -> None:
        """Let in who asks and has not given up, while there is room."""
        Tickets(self.engine, PUT, self.queue).forget_overdue(transaction)
        transaction.execute(
            "delete from kvsync_item where queue = :queue and state = 2 and place not in ("
            " select id from kvsync_ticket where space = 'queue-put' and name = :queue)",
            self._here,
        )
        while askers := transaction.execute(
            "select place, count(*) from kvsync_item where queue = :queue and state = 2"
            " group by place order by place limit 1",
            self._here,
        ):
            ((ticket, count),) = askers
            if not self._let_in(transaction, int(ticket), count):
                return
            self.give(transaction)

    def _let_in(self, transaction: Transaction, ticket: int, count: int) -> bool:
        """Whether its turn has come; it is told that nothing was put if its key is there by now."""
        if transaction.execute(_SEND_AWAY, {**self._here, "ticket": ticket}):
            Tickets(self.engine, PUT, self.queue).tell(transaction, ticket, SERVED)
            return True
        rows = transaction.execute(f"{_MORE} returning last", {**self._here, "count": count})
        if not rows:
            return False
        last: int = rows[0][0]
        asked = transaction.execute(
            "select id, priority, due from kvsync_item"
            " where queue = :queue and state = 2 and place = :ticket order by id",
            {**self._here, "ticket": ticket},
        )
        for number, (nth, priority, due) in enumerate(asked, last - count + 1):
            state, at = _beginning(priority, due)
            transaction.execute(
                "update kvsync_item set state = :state, place = :at, id = :number, due = null,"
                " session = null where queue = :queue and state = 2 and place = :ticket"
                " and id = :nth",
                {
                    **self._here,
                    "state": state,
                    "at": at,
                    "number": number,
                    "ticket": ticket,
                    "nth": nth,
                },
            )
            if due is not None:
                self._note_due(transaction, due)
        Tickets(self.engine, PUT, self.queue).tell(transaction, ticket, SERVED, last)
        return True

    def give(self, transaction: Transaction) -> None:
        """Give the ready items to those who wait, one each, and ring."""
        while wanting := transaction.execute(_WANTING, self._here):
            ((ticket, session, attempt, doorbell, deadline, clock),) = wanting
            if clock == this_process().clock and _is_over(deadline, self.engine.boot()):
                self.dismiss(transaction, ticket)
                continue
            here = {**self._here, "state": READY, "count": 1}
            first = transaction.execute(_SPAN, here)
            if not first:
                ring(self.engine, transaction, doorbell)  # it has others to watch now
                return
            self._give(transaction, first[0], ticket, session, attempt)
            ring(self.engine, transaction, doorbell, WAS_SERVED)

    def _give(
        self, transaction: Transaction, first: Row, ticket: int, session: int, attempt: int
    ) -> None:
        *_, receipt = self._count_off(transaction, _HANDED_OUT, {"count": 1, "span": 1})
        row = {
            **self._here,
            "place": first[0],
            "id": first[1],
            "receipt": receipt,
            "session": session,
            "attempt": attempt,
            "ticket": ticket,
            "claim_by": self.engine.boot() + CLAIM_TIME,
            "now": transaction.now,
        }
        transaction.execute(_GIVE, row)
        transaction.execute(
            "update kvsync_ticket set state = 'granted', token = :receipt"
            " where space = 'queue' and name = :queue and id = :ticket",
            {**self._given(ticket), "receipt": receipt},
        )

    def unfinished(self) -> int:
        """Items that were put and are not done with: neither got, acknowledged nor dead."""
        ((number,),) = self.engine.read(
            "select coalesce((select size + got from kvsync_queue where name = :queue), 0)"
            " + (select count(*) from kvsync_item where queue = :queue and state = -1) as size",
            self._here,
        )
        return int(number)

    def tell_joiners(self, transaction: Transaction) -> None:
        """Wake who waits until all is done, if it is."""
        if not self.unfinished():
            Tickets(self.engine, JOIN, self.queue).tell_all(transaction, SERVED)

    def _tell_shut(self, transaction: Transaction) -> None:
        """Wake who can get, or put, nothing more."""
        count = self.count(transaction)
        if count is None or not count.shut:
            return
        Tickets(self.engine, PUT, self.queue).tell_all(transaction, SHUT)
        transaction.execute(
            "delete from kvsync_item where queue = :queue and state = 2", self._here
        )
        if count.shut == CLOSED or not count.size:
            Tickets(self.engine, GET, self.queue).tell_all(transaction, SHUT)
        if count.shut == CLOSED:
            Tickets(self.engine, JOIN, self.queue).tell_all(transaction, SHUT)


def _beginning(priority: float, due: float | None) -> tuple[int, float]:
    """The state and the place of an item that has just come in."""
    return (READY, -priority) if due is None else (DELAYED, due)


def _storable(text: str) -> str:
    """Without the lone surrogates that a file name in an error's text may hold."""
    return text.encode(errors="backslashreplace").decode()


def _handed_out(kept: Kept, shift: int) -> Kept:
    _, number, priority, value, key, since, attempts, error = kept
    return Kept(number + shift, number, priority, value, key, since, attempts + 1, error)


def _is_over(deadline: float | None, boot: float) -> bool:
    return deadline is not None and deadline <= boot


def _mend(engine: Engine, transaction: Transaction, name: str) -> None:
    Items(engine, name).serve(transaction)


for each in (GET, PUT, JOIN):
    MEND[each] = _mend
    HOLDERS[each] = _HOLDERS
HOLDERS[PUT] = FIRST  # whoever else asks

"""Grants: the rows that say who holds what, and the line of those who want it.

A lock has one unit, which its holder takes; so does each reader of a read-write lock, and a writer
takes them all; a semaphore has as many as its limit. What there is of a name:

    kvsync_unit      one row for each grant that is, or was: a row of session 0 is free, and used
                     again, so that taking and releasing a lock changes one row in its place. It
                     keeps its token, for the next one must be larger. Those of a session other
                     than 0 are the view kvsync_grant. A grant is given ('claim_by' is set) or
                     claimed (null).
    kvsync_ticket    one row for each waiter: 'waiting' -> 'granted' -> gone, when it has claimed;
                     'granted' -> 'passed' -> 'waiting' if it did not claim in time. Granted means
                     that there is such a grant, or was: then who would claim it goes back.

Where the only holder gives all there is to the head of the line, that is handed over: the ticket
goes at once, into the grant's row, and a word is sent to the doorbell (see there). Who waits and
reads it holds the grant, and nothing is written, unless it has a lease, which begins with a claim.
Who looks before it has come claims the grant. Who comes when the time to claim is over takes the
word back, and then the ticket is 'passed', in its old place; or does not find it, for it was read,
so the grant is held. (It may not have been sent yet, or never, for who should have was killed right
then. Its owner is taken for a holder all the same, and is one as soon as it looks.)

Invariants, each true after every commit:

- The units of a name's grants never exceed its capacity, leases that are over included.
- A ticket is granted only if no waiting one of that name is before it. Nobody is served past the
  line, so the fast way in is open only while there is no ticket.
- Whatever frees units, or takes a ticket away, serves the line in the same transaction (`serve`, or
  `HAND_OVER`, which comes to the same), so a line whose head fits never rests. What time alone
  frees, the head of the line sees to.
- A token is larger than every earlier one of its name, and than all of earlier boots: see
  `tokens.py`, by which free rows go in the end. A grant is released by its token and its session.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from kvsync.engine import Engine, Row, Transaction
from kvsync.engine.doorbell import LOOK, SERVED
from kvsync.engine.process import in_words, this_process
from kvsync.errors import ForkError, KvsyncError
from kvsync.forks import FORKED, generation
from kvsync.session import MEND, Session
from kvsync.threads import Thread, this_thread
from kvsync.tokens import EPOCH
from kvsync.waiting import GRANTED, PASSED, drop, ring, turn

WHOLE = 1 << 31
"""All units of what has no limit of its own: as many readers are never there."""

CLAIM_TIME = 1.0
"""Seconds after which a grant that was given and not claimed passes on: its waiter is stopped."""

_COLUMNS = """
    insert into kvsync_unit (space, name, slot, token, kind, units, capacity, session, attempt,
        thread, since, expires, claim_by, ticket)
"""
_SLOT_AND_TOKEN = f"""
    coalesce(
        (select min(slot) from kvsync_unit where space = :space and name = :name and session = 0),
        (select max(slot) + 1 from kvsync_unit where space = :space and name = :name),
        0),
    1 + (select max(token) from (
        select coalesce(
            (select max(token) from kvsync_unit where space = :space and name = :name),
            (select max(floor) from kvsync_boot)) as token
        union all select epoch * {EPOCH} from kvsync_boot) as tokens)
"""
_IN_THAT_SLOT = """
    on conflict (space, name, slot) do update set token = excluded.token, kind = excluded.kind,
        units = excluded.units, capacity = excluded.capacity, session = excluded.session,
        attempt = excluded.attempt, thread = excluded.thread, since = excluded.since,
        expires = excluded.expires, claim_by = excluded.claim_by, ticket = excluded.ticket,
        doorbell = null
    returning token, slot
"""
CLAIMED = "claim_by = null, ticket = null, doorbell = null"
"""What is set where it is known that a grant is held."""

TAKE_ALL = f"""
    update kvsync_unit set token = token + 1, kind = :kind, units = :units, capacity = :capacity,
        session = :session, attempt = :attempt, thread = :thread, since = :since,
        expires = :expires, {CLAIMED}
    where space = :space and name = :name and slot = 0 and session = 0
    and token >= (select max(epoch) * {EPOCH} from kvsync_boot)
    and not exists (select 1 from kvsync_ticket where space = :space and name = :name)
    and not exists (
        select 1 from kvsync_unit as other
        where other.space = :space and other.name = :name and other.slot > 0
        and (other.session <> 0 or other.token > kvsync_unit.token))
    returning token, slot
"""
"""All units, past an empty line: the row of slot 0 is changed in its place if it is there, if it
remembers the largest token, and if nobody holds any. It does less work than `TAKE`; where it finds
nothing, the line does the rest."""

TAKE = f"""
    {_COLUMNS}
    select :space, :name, {_SLOT_AND_TOKEN}, :kind, :units, :capacity, :session, :attempt, :thread,
        :since, :expires, null, null
    where not exists (select 1 from kvsync_ticket where space = :space and name = :name)
    and not exists (
        select 1 from kvsync_grant
        where space = :space and name = :name and capacity <> :capacity)
    and :units + (
        select coalesce(sum(units), 0) from kvsync_grant where space = :space and name = :name
    ) <= :capacity
    {_IN_THAT_SLOT}
"""
"""Some units, past an empty line, if there are enough left."""

JOIN = f"""
    {_COLUMNS}
    select :space, :name, {_SLOT_AND_TOKEN}, :kind, :units, :capacity, :session, :attempt,
        held.thread, :since, :boot + :lease, null, null
    from kvsync_grant as held
    where held.space = :space and held.name = :name and held.id = :within
    and held.session = :session and (held.expires is null or held.expires > :boot)
    {_IN_THAT_SLOT}
"""
"""More of what a grant of the same session holds already, for the same thread."""

_GIVE = f"""
    {_COLUMNS}
    select space, name, {_SLOT_AND_TOKEN}, kind, units, capacity, session, attempt, thread,
        :since, :boot + lease, :boot + :claim_time, id
    from kvsync_ticket where space = :space and name = :name and id = :ticket
    {_IN_THAT_SLOT}
"""
_FREE = """
    update kvsync_unit set session = 0
    where space = :space and name = :name and slot = :slot and token = :token
    and session = :session
"""
FREE = f"{_FREE} returning expires"
FREE_IF_NOBODY_WAITS = f"""
    {_FREE} and not exists (select 1 from kvsync_ticket where space = :space and name = :name)
    returning expires
"""
HAND_OVER = f"""
    update kvsync_unit set token = kvsync_unit.token + 1, kind = line.kind, units = line.units,
        capacity = line.capacity, session = line.session, attempt = line.attempt,
        thread = line.thread, since = :since, expires = :boot + line.lease,
        claim_by = :boot + {CLAIM_TIME}, ticket = line.id, doorbell = line.doorbell,
        asked = line.since, lease = line.lease, deadline = line.deadline
    from kvsync_ticket as line
    where kvsync_unit.space = :space and kvsync_unit.name = :name and slot = :slot
    and kvsync_unit.token = :token and kvsync_unit.session = :session
    and (expires is null or expires > :boot)
    and line.space = :space and line.name = :name and line.id = (
        select min(id) from kvsync_ticket
        where space = :space and name = :name and state = 'waiting')
    and line.units = line.capacity and line.doorbell between '0' and 'g'
    and (line.deadline is null or line.deadline > :boot)
    and not exists (
        select 1 from kvsync_unit as other
        where other.space = :space and other.name = :name and other.slot <> :slot
        and (other.session <> 0 or other.token > :token))
    returning doorbell, ticket, (
        select doorbell from kvsync_ticket
        where space = :space and name = :name and state = 'waiting' and id > kvsync_unit.ticket
        order by id limit 1) as doorbell
"""
"""What the only holder has, to the head of the line, which wants all there is. It is what freeing
it and `serve` come to, in less work; where it finds nothing, these do it. The next token is of the
same epoch: since the last one was given no boot has begun, for who was given it lives. Says who
is told: the next one, who was served, and the one behind, who has another to watch now. (What is no
text, as a doorbell's name is, lies before all texts or behind them.)"""

CLAIM = """
    update kvsync_given set expires = :boot + lease, token = token, slot = slot, units = units
    where space = :space and name = :name and ticket = :ticket and session <> 0
    returning token, slot, units
"""
"""What was given to a ticket, by its owner; the ticket goes."""

CLAIM_HANDED = f"""
    update kvsync_unit set {CLAIMED}, expires = :boot + lease
    where space = :space and name = :name and ticket = :ticket and doorbell is not null
    and session <> 0
    returning token, slot, units
"""
"""The same of what was handed over."""

_HANDED = """
    select ticket, doorbell, lease from kvsync_unit
    where space = :space and name = :name and token = :token and session <> 0
    and doorbell is not null and claim_by is not null
"""
_PASS = """
    insert into kvsync_ticket (id, space, name, kind, units, capacity, session, attempt, thread,
        doorbell, since, lease, deadline, state, token)
    select ticket, space, name, kind, units, capacity, session, attempt, thread, doorbell, asked,
        lease, deadline, 'passed', token
    from kvsync_unit where space = :space and name = :name and token = :token and session <> 0
"""

_HELD = """
    update kvsync_unit set claim_by = null
    where space = :space and name = :name and token = :token
"""

_GRANTS = """
    select id, units, expires, claim_by, case when expires is not null or claim_by is not null
        then (select clock from kvsync_session where kvsync_session.id = session) end
    from kvsync_grant where space = :space and name = :name
"""
_TICKETS = """
    select id, units, capacity, doorbell, deadline, case when deadline is not null
        then (select clock from kvsync_session where kvsync_session.id = session) end
    from kvsync_ticket
    where space = :space and name = :name and state = 'waiting' and id > :last
    order by id limit :page
"""
_PAGE = 4
"""Tickets that are read at once."""

_NEXT = """
    select doorbell, state from kvsync_ticket
    where space = :space and name = :name and id > :ticket and state <> 'passed'
    order by id limit 1
"""
_GRANTED = """
    select doorbell from kvsync_ticket
    where space = :space and name = :name and state = 'granted'
"""

_HOLDERS = """
    select kvsync_grant.session, expires, claim_by, clock,
        coalesce(host, '?'), coalesce(pid, 0), coalesce(command, '?'), thread, kind, units,
        kvsync_grant.id, kvsync_grant.since, kvsync_grant.doorbell is not null
    from kvsync_grant left join kvsync_session on kvsync_session.id = kvsync_grant.session
    where space = :space and name = :name order by kvsync_grant.id
"""
_WAITERS = """
    select kvsync_ticket.session, coalesce(host, '?'), coalesce(pid, 0), coalesce(command, '?'),
        thread, kind, kvsync_ticket.since, units
    from kvsync_ticket left join kvsync_session on kvsync_session.id = kvsync_ticket.session
    where space = :space and name = :name and state <> 'granted' order by kvsync_ticket.id
"""


@dataclass(eq=False)
class Grant:
    """What is held. `token` is the fencing token: larger than that of every earlier grant.

    Its depth is 0 once it was released; from the moment in which that begins it is leaving.
    """

    token: int
    name: str
    units: int = 1
    lease: float | None = None
    slot: int = 0
    session: int = 0
    attempt: int = 0
    since: float = 0.0  # on the boot clock
    process: int = field(default_factory=generation)  # see `forks.py`
    thread: Thread = field(default_factory=this_thread)
    depth: int = 1
    is_leaving: bool = False
    noted_in: list["Grant"] = field(default_factory=list)  # of the object that acquired it

    def require_own(self) -> None:
        """Raises: ForkError in a child that was forked in the middle of a call with it."""
        if self.process != generation():
            raise ForkError(FORKED)

    def __repr__(self) -> str:
        units = counted(self.units)
        return f"Grant(token={self.token}, name={self.name!r}, units={units}, lease={self.lease})"


def counted(units: int) -> int:
    """Units as people count them: what is had as a whole is one thing."""
    return 1 if units == WHOLE else units


class Holder(NamedTuple):
    """Who holds something. `since` is wall time; `lease_left`, in seconds, is None without a lease
    that we can tell.
    """

    host: str
    pid: int
    command: str
    thread: str
    kind: str
    units: int
    token: int
    since: float
    lease_left: float | None


class Waiter(NamedTuple):
    """Who waits for something; `since` is wall time."""

    host: str
    pid: int
    command: str
    thread: str
    kind: str
    units: int
    since: float


def serve(
    space: str,
    engine: Engine,
    transaction: Transaction,
    name: str,
    *,
    news: bool = True,
    mine: int | None = None,
) -> None:
    """End what time has ended, give what is free to the head of the line, and ring.

    Without `news` nothing has changed for those in the line so far, and none of them is rung in
    vain; nor is ever the ticket `mine`, whose owner asks.
    """
    boot, here = engine.boot(), {"space": space, "name": name}
    used = 0
    for row in transaction.execute(_GRANTS, here):
        token, units, expires, claim_by, clock = row
        if is_over(expires, clock, boot):
            ended = end(space, name, engine, transaction, token)
        elif is_over(claim_by, clock, boot):
            ended = end(space, name, engine, transaction, token, unless_held=True)
        else:
            ended = False
        news |= ended
        used += 0 if ended else units
    last, found = 0, _PAGE
    while found == _PAGE:
        rows = transaction.execute(_TICKETS, {**here, "last": last, "page": _PAGE})
        found = len(rows)
        for last, units, capacity, doorbell, deadline, clock in rows:
            if deadline is not None and deadline <= boot and clock == this_process().clock:
                drop(transaction, {**here, "ticket": last})
                news = True
                continue
            fits = used + units <= capacity
            if last != mine and (fits or news):
                # The new head is rung too: it has others to watch now.
                ring(engine, transaction, doorbell, SERVED if fits else LOOK)
            if not fits:
                return
            _give(transaction, {**here, "ticket": last, "boot": boot})
            used += units
            news = True


def is_over(end: float | None, clock: str | None, boot: float) -> bool:
    """Whether that moment has come, by the clock that we share with whoever has the grant."""
    return end is not None and clock == this_process().clock and end <= boot


def ring_next(
    engine: Engine, transaction: Transaction, ticket: dict[str, Any], *, if_granted: bool = False
) -> None:
    """Wake who stands behind that ticket, and watches its owner, who leaves the line.

    There may be others to watch now. And who gave to both may have died before it rang.
    """
    for doorbell, state in transaction.execute(_NEXT, ticket):
        if state == GRANTED:
            ring(engine, transaction, doorbell, SERVED)
        elif not if_granted:
            ring(engine, transaction, doorbell)


def ring_granted(engine: Engine, transaction: Transaction, here: dict[str, Any]) -> None:
    """Wake those of a name who were given something and have not claimed it."""
    for (doorbell,) in transaction.execute(_GRANTED, here):
        ring(engine, transaction, doorbell, SERVED)


def end(
    space: str,
    name: str,
    engine: Engine,
    transaction: Transaction,
    token: int,
    *,
    unless_held: bool = False,
) -> bool:
    """Take a grant away from whoever has it; returns whether it did.

    If it was given and not taken up, its waiter is skipped until it stirs. `unless_held` leaves it
    to who has taken it up without a claim.
    """
    this = {"space": space, "name": name, "token": token}
    for ticket, doorbell, lease in transaction.execute(_HANDED, this):
        # With a lease it is not taken up before it is claimed, whatever was read.
        if lease is not None or engine.doorbells.take_back(doorbell, ticket, transaction.on_undo):
            transaction.execute(_PASS, this)
        elif unless_held:
            transaction.execute(_HELD, this)
            return False
    rows = transaction.execute(
        "update kvsync_unit set session = 0 where space = :space and name = :name"
        " and token = :token and session <> 0 returning ticket",
        this,
    )
    for (ticket,) in rows:
        turn(transaction, {**this, "ticket": ticket}, GRANTED, PASSED)
    return bool(rows)


def _give(transaction: Transaction, row: dict[str, Any]) -> None:
    ((token, _),) = transaction.execute(
        _GIVE, {**row, "claim_time": CLAIM_TIME, "since": transaction.now}
    )
    transaction.execute(
        "update kvsync_ticket set state = 'granted', token = :token"
        " where space = :space and name = :name and id = :ticket",
        {**row, "token": token},
    )


def holders(session: Session, space: str, name: str) -> list[Holder]:
    """Who holds units of that name, first come first; `session` is who asks.

    What time has ended is not held, nor is what the dead have: whoever comes takes it.
    """
    boot = session.engine.boot()
    rows = _recorded(session.engine, space, name)
    if any(handed and is_over(row[2], row[3], boot) for *row, handed in rows):
        settle(session.engine, space, name)
        rows = _recorded(session.engine, space, name)
    dead = _dead(session, rows)
    if dead and _recorded(session.engine, space, name) != rows:
        return holders(session, space, name)  # it may have been handed on before its holder ended
    return [_holder(row, boot) for row in rows if row[0] not in dead and not _has_ended(row, boot)]


def _has_ended(row: Row, boot: float) -> bool:
    """Whether it is known to: what was handed over may have been taken up without a trace."""
    _, expires, claim_by, clock, *_, handed = row
    return is_over(expires, clock, boot) or (not handed and is_over(claim_by, clock, boot))


def settle(engine: Engine, space: str, name: str) -> None:
    """Find out of what was handed over whether it is held, as whoever comes would."""
    with suppress(KvsyncError):  # if it cannot be found out now
        engine.transact(partial(serve, space, engine, name=name), patience=0.0)


def _dead(session: Session, rows: Iterable[Row]) -> set[int]:
    """Those of the sessions, with which the rows begin, that are dead."""
    return {each for each in {row[0] for row in rows} if session.is_dead(each)}


def held_by(session: Session, space: str, name: str) -> str:
    """ "; held by process 4711 (python app.py) and 2 more", to end a message with.

    It is "" if nobody is known to: a message must not fail for lack of it.
    """
    found: list[Holder] = []
    with suppress(KvsyncError, OSError):
        found = holders(session, space, name)
    if not found:
        return ""
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"; held by {in_words(found[0].pid, found[0].command, found[0].host)}{more}"


def recorded_holders(engine: Engine, space: str, name: str) -> list[Holder]:
    """The same, with the dead and with those whose time is over: nobody has taken it from them."""
    return [_holder(row, engine.boot()) for row in _recorded(engine, space, name)]


def _recorded(engine: Engine, space: str, name: str) -> list[Row]:
    return engine.read(_HOLDERS, {"space": space, "name": name})


def _holder(row: Row, boot: float) -> Holder:
    _, expires, _, clock, host, pid, command, thread, kind, units, token, since, _ = row
    known = expires is not None and clock == this_process().clock
    left = max(0.0, expires - boot) if known else None
    return Holder(host, pid, command, thread, kind, counted(units), token, since, left)


def waiters(session: Session, space: str, name: str) -> list[Waiter]:
    """Who waits for units of that name, the next one first, without the dead; `session` asks."""
    rows = session.engine.read(_WAITERS, {"space": space, "name": name})
    dead = _dead(session, rows)
    return [
        Waiter._make([*who, counted(units), since])
        for each, *who, since, units in rows
        if each not in dead
    ]


for each in ("lock", "semaphore", "election", "once"):
    MEND[each] = partial(serve, each)

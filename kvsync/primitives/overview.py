"""Who holds and who waits for what, across all names, at one moment.

Blocks no writer, but to pass over a stopped waiter: whether what was handed over is held can only
be told as whoever comes next would, by taking its word back (see grants.py).

A line is all there is of one name: those who hold it and those who wait, in the order in which they
are served. What is waited for without units (an event, a condition, a barrier) has no holders: the
rows of no units that are there for watches (see tickets.py) hold nothing. A queue has three lines:
of those who want an item, who want to put one, and who wait for its end.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import psutil

from kvsync.engine import Engine, Row, Transaction
from kvsync.engine.process import Process, lives, this_process
from kvsync.primitives.barrier import ACT
from kvsync.primitives.barrier import SPACE as BARRIER
from kvsync.primitives.grants import counted, end, is_over, settle
from kvsync.primitives.items import GET, JOIN, PUT
from kvsync.session import Session, mend
from kvsync.waiting import PASSED

# One statement, so one moment: a hand-over between two looks would show a thread twice, or never.
_ALL = """
    select 'grant', kvsync_grant.id, space, name, kind, units, capacity, kvsync_grant.session,
        thread, kvsync_grant.since, expires, claim_by, host, pid, command, clock,
        kvsync_grant.doorbell is not null
    from kvsync_grant left join kvsync_session on kvsync_session.id = kvsync_grant.session
    where units > 0
    union all
    select state, kvsync_ticket.id, space, name, kind, units, capacity, kvsync_ticket.session,
        thread, kvsync_ticket.since, deadline, null, host, pid, command, clock, 0
    from kvsync_ticket left join kvsync_session on kvsync_session.id = kvsync_ticket.session
    where state in ('waiting', 'passed', 'act')
"""
_OF_QUEUES = {GET: GET, PUT: "put", JOIN: "join"}
"""What those wait to do who stand there; in the first line, each says whether to get or reserve."""

_STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


@dataclass(frozen=True)
class Party:
    """A thread in a line. `since` is wall time, in seconds since 1970; `age` is in seconds."""

    host: str
    pid: int
    command: str
    thread: str
    """The same for all that this thread holds and waits for; "" if deadlocks are not detected."""
    kind: str
    units: int
    since: float
    age: float
    session: int

    @property
    def ident(self) -> int | None:
        """The thread's `threading.get_ident()`, where it is recorded."""
        ident = self.thread.rpartition("/")[2]
        return int(ident) if ident.isdecimal() else None


@dataclass(frozen=True)
class Holding(Party):
    """Who holds something. `lease_left`, in seconds, is None without a lease that we can tell."""

    token: int
    lease_left: float | None
    claimed: bool
    """False while its waiter has not taken up what it was given."""


@dataclass(frozen=True)
class Waiting(Party):
    """Who waits. `timeout_left`, in seconds, is None for ever, and where we cannot tell."""

    ticket: int
    timeout_left: float | None
    passed: bool
    """Whether its turn came while it was stopped: others go first until it wakes."""
    parties: int | None
    """How many a barrier takes, of those who wait at one."""
    acts: bool
    """Whether it runs a barrier's action: all parties have come, and the others wait for it."""


@dataclass(frozen=True)
class Line:
    """A name that somebody holds or waits for; the waiters in their order."""

    space: str
    name: str
    holders: tuple[Holding, ...]
    waiters: tuple[Waiting, ...]

    @property
    def kind(self) -> str:
        """What it is called as: lock, rlock and rwlock share their names."""
        if self.space in _OF_QUEUES:
            return GET
        kinds = {party.kind for party in (*self.holders, *self.waiters)}
        if kinds <= {"read", "write"}:
            return "rwlock"
        return kinds.pop() if len(kinds) == 1 else self.space


def lines(engine: Engine) -> list[Line]:
    """Every line there is, sorted by name."""
    now, boot = engine.now(), engine.boot()
    found: dict[tuple[str, str], list[Party]] = defaultdict(list)
    rows = engine.read(_ALL)
    if unsettled := {row[2:4] for row in rows if _is_unsettled(row, boot)}:
        for line in unsettled:
            settle(engine, *line)
        rows = engine.read(_ALL)
    for row in rows:
        found[row[3], row[2]].append(_party(row, now, boot))
    return [_line(space, name, found[name, space]) for name, space in sorted(found)]


def _is_unsettled(row: Row, boot: float) -> bool:
    """It was handed over, and the time is over to say whether it is held."""
    claim_by, *_, clock, handed = row[11:]
    return bool(handed) and is_over(claim_by, clock, boot)


def _line(space: str, name: str, parties: list[Party]) -> Line:
    holders = sorted((p for p in parties if isinstance(p, Holding)), key=lambda p: p.token)
    waiters = sorted((p for p in parties if isinstance(p, Waiting)), key=lambda p: p.ticket)
    return Line(space, name, tuple(holders), tuple(waiters))


def _party(row: tuple[Any, ...], now: float, boot: float) -> Party:
    what, number, space, _, kind, units, capacity, session, thread, since, *rest = row
    end, claim_by, *process = rest
    host, pid, command, clock, handed = process
    left = max(0.0, end - boot) if end is not None and clock == this_process().clock else None
    common = {
        "host": host or "?",
        "pid": pid or 0,
        "command": command or "?",
        "thread": thread,
        "kind": _OF_QUEUES.get(kind, kind),
        "units": counted(units),
        "since": since,
        "age": max(0.0, now - since),
        "session": session,
    }
    if what == "grant":
        claimed = bool(handed) or claim_by is None
        return Holding(**common, token=number, lease_left=left, claimed=claimed)
    return Waiting(
        **common,
        ticket=number,
        timeout_left=left,
        passed=what == PASSED,
        parties=capacity if space == BARRIER else None,
        acts=what == ACT,
    )


def state_of(session: Session, party: Party) -> str:
    """How its process is: "dead" where that is proven, "stopped" where it shows, else "alive"."""
    if session.is_dead(party.session):
        return "dead"
    process = session.process(party.session)
    return "stopped" if process and _is_stopped(process) else "alive"


def _is_stopped(process: Process) -> bool:
    if process.pid_namespace != this_process().pid_namespace or not lives(process):
        return False  # that pid is another's here
    try:
        return psutil.Process(process.pid).status() in _STOPPED
    except psutil.Error:
        return False


def take_away(engine: Engine, line: Line, tokens: Collection[int]) -> list[int]:
    """End those grants of the line, and no others: who has got it since keeps it.

    Returns the tokens that were still held. Whoever held them finds out: see `Lock.force_release`.
    """

    def work(transaction: Transaction) -> list[int]:
        space, name = line.space, line.name
        taken = [token for token in tokens if end(space, name, engine, transaction, token)]
        mend(engine, transaction, space, name)
        return taken

    return engine.transact(work)

"""Deadlocks: threads, of any processes, whose waits for each other can never end.

A thread that waits can go on once the units it wants are free and all who are ahead of it in its
line have been served. So it may go on some day if enough of those units are held by threads that
may go on: *enough*, not all, for one of several holders of a semaphore can be the one that helps.
Whoever does not wait may go on, and so may who waits with a deadline, or is not awake to wait.
Starting from these, the rest is worked out until nothing changes (the reduction of a general
resource graph: R. C. Holt, "Some deadlock properties of computer systems", ACM Computing Surveys 4
(3), 1972). The threads that are left are stuck. A lease ends by itself, and so makes no one stuck.

Each stuck thread has its obstacles: the stuck threads that hold what it wants, or, if enough is
free, the first one of the line that it stands in. As long as these stay stuck, so does it. A knot
is a set of threads of which each can be reached from each by way of obstacles, and nobody else.
Every stuck thread is in a knot, or waits for one. So it is enough that one of each knot gives up,
the one who came last: who waits outside of a knot may go on when that has come undone.

A knot is there to stay unless somebody gives up, so it is seen by who comes last, at once.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from kvsync.engine import Engine, Row
from kvsync.engine.process import in_words

Line = tuple[str, str]
"""A space, and a name in it."""

_A_HOLDER_WAITS = """
    select 1 from kvsync_ticket as mine
    join kvsync_grant on kvsync_grant.space = mine.space and kvsync_grant.name = mine.name
    join kvsync_ticket as other on other.thread = kvsync_grant.thread
    where mine.space = :space and mine.name = :name and mine.id = :ticket and expires is null
    and other.thread <> '' and other.deadline is null and other.state = 'waiting' limit 1
"""
_GRAPH = """
    select 'grant', id, space, name, kind, units, capacity, session, attempt, thread,
        case when expires is null then 0 else 1 end
    from kvsync_grant
    union all
    select 'ticket', id, space, name, kind, units, capacity, session, attempt, thread,
        case when units > 0 and deadline is null and state = 'waiting' then 0 else 1 end
    from kvsync_ticket
"""
_HELD_ELSEWHERE = """
    select 1 from kvsync_grant
    where space = :space and name = :name and thread = :thread and session <> :session
"""
_PROCESS = "select pid, command from kvsync_session where id = :id"
_SIDES = {"read": "the read side of rwlock", "write": "the write side of rwlock"}


class Edge(NamedTuple):
    """A grant, or a ticket; `ends` tells that it will be over without help."""

    id: int
    space: str
    name: str
    kind: str
    units: int
    capacity: int
    session: int
    attempt: int
    thread: str
    ends: int

    @property
    def line(self) -> Line:
        return self.space, self.name


class Step(NamedTuple):
    """A ticket on the way round, and whether the next one's thread holds what it waits for."""

    ticket: Edge
    is_held: bool


@dataclass(frozen=True)
class Knot:
    """The tickets of threads that can never go on, and a way round, beginning with the last."""

    tickets: list[Edge]
    way: list[Step]

    def __iter__(self) -> Iterator[Edge]:
        return iter(self.tickets)


def circle(engine: Engine, line: Line, ticket: int) -> Knot | None:
    """The knot of which that ticket, in that line, came last; None where there is none.

    Who holds what it waits for does not wait, mostly; so that is asked first, for it costs little.
    The graph then is read in one statement, so at one moment: of two looks the second could see
    what the first had not.
    """
    space, name = line
    if not engine.read(_A_HOLDER_WAITS, {"space": space, "name": name, "ticket": ticket}):
        return None
    graph = _Graph(engine.read(_GRAPH))
    mine = graph.stuck_ticket(ticket)
    return graph.knot_closed_by(mine) if mine is not None else None


class _Graph:
    """Who waits for whom. `_stuck` has the tickets of the stuck threads, line by line, in order."""

    def __init__(self, rows: list[Row]) -> None:
        edges = [(what, Edge._make(columns)) for what, *columns in rows]
        grants = [edge for what, edge in edges if what == "grant" and not edge.ends]
        tickets = [edge for what, edge in edges if what == "ticket"]
        self._ticket_of = _waiting(tickets)
        self._stuck: dict[Line, list[Edge]] = defaultdict(list)
        for ticket in sorted(self._ticket_of.values()):
            self._stuck[ticket.line].append(ticket)
        self._grants: dict[Line, list[Edge]] = defaultdict(list)
        self._held: dict[str, list[Edge]] = defaultdict(list)
        self._kept: dict[Line, int] = defaultdict(int)  # units that the stuck hold
        for grant in grants:
            if self._is_kept(grant):
                self._grants[grant.line].append(grant)
                self._held[grant.thread].append(grant)
                self._kept[grant.line] += grant.units
        self._reduce()

    def _is_kept(self, grant: Edge) -> bool:
        """Whether its thread waits, and so does not give it back.

        What it took since that wait began a signal's handler took in the middle of it, which does
        not wait. (Of what it took through another handle that cannot be told.)
        """
        ticket = self._ticket_of.get(grant.thread)
        if ticket is None:
            return False
        return ticket.session != grant.session or ticket.attempt >= grant.attempt

    def _reduce(self) -> None:
        """Let go on whoever can, until nobody can; each ticket and each grant is met once."""
        lines = list(self._stuck)
        while lines:
            line = lines.pop()
            served = 0
            for ticket in self._stuck[line]:
                if not self._fits(ticket):
                    break
                served += 1
                del self._ticket_of[ticket.thread]
                for grant in self._held[ticket.thread]:
                    self._kept[grant.line] -= grant.units
                    lines.append(grant.line)
            del self._stuck[line][:served]

    def _fits(self, ticket: Edge) -> bool:
        return self._kept[ticket.line] + ticket.units <= ticket.capacity

    def stuck_ticket(self, ticket: int) -> Edge | None:
        return next((each for each in self._ticket_of.values() if each.id == ticket), None)

    def _obstacles(self, ticket: Edge) -> list[Edge]:
        """Never empty: else the ticket's thread could go on."""
        if self._fits(ticket):
            return [self._stuck[ticket.line][0]]
        threads = dict.fromkeys(grant.thread for grant in self._grants[ticket.line])
        return [self._ticket_of[thread] for thread in threads if thread in self._ticket_of]

    def knot_closed_by(self, mine: Edge) -> Knot | None:
        """The knot that it is in, if it came last of all in there."""
        knot = self._reached_from(mine)
        if max(knot) != mine.id or any(mine.id not in self._reached_from(e) for e in knot.values()):
            return None
        return Knot(list(knot.values()), [self._step(each) for each in self._way_round(mine)])

    def _reached_from(self, start: Edge) -> dict[int, Edge]:
        """All that it waits for, directly or not, by their ids."""
        found: dict[int, Edge] = {}
        following = [start]
        while following:
            for each in self._obstacles(following.pop()):
                if each.id not in found:
                    found[each.id] = each
                    following.append(each)
        return found

    def _way_round(self, start: Edge) -> list[Edge]:
        """The shortest way from a ticket of a knot back to itself."""
        ways, seen = [[start]], set()
        for way in ways:  # it grows meanwhile: shorter ways come first
            for each in self._obstacles(way[-1]):
                if each.id == start.id:
                    return way
                if each.id not in seen:
                    seen.add(each.id)
                    ways.append([*way, each])
        raise AssertionError("a knot has a way round")

    def _step(self, ticket: Edge) -> Step:
        return Step(ticket, is_held=not self._fits(ticket))


def _waiting(tickets: list[Edge]) -> dict[str, Edge]:
    """By thread, where it waits without end.

    A thread can have several tickets: a signal's handler waits while what it interrupted waits
    too. The last one tells whether the thread is stuck; what the others are given passes on.
    """
    last = {ticket.thread: ticket for ticket in sorted(tickets)}
    return {thread: each for thread, each in last.items() if thread and not each.ends}


def describe(engine: Engine, knot: Knot) -> str:
    """Who waits for what held by whom, all the way round."""
    me = knot.way[0].ticket
    if len(knot.way) == 1:
        return f"this thread waits for {_what(me)}, which it holds itself{_advice(engine, me)}"
    whoms = [step.ticket for step in [*knot.way[1:], knot.way[0]]]
    return "a deadlock: " + "; ".join(
        f"{_who(engine, step.ticket, me)} waits for {_what(step.ticket)},"
        f" {'held by' if step.is_held else 'where it stands behind'} {_who(engine, whom, me)}"
        for step, whom in zip(knot.way, whoms, strict=True)
    )


def _what(ticket: Edge) -> str:
    return f"{_SIDES.get(ticket.kind, ticket.kind)} {ticket.name!r}"


def _advice(engine: Engine, ticket: Edge) -> str:
    if ticket.kind == "lock":
        return "; a lock that its own thread may take again is an rlock"
    if ticket.kind == "rlock" and engine.read(_HELD_ELSEWHERE, ticket._asdict()):
        return " through another handle of this store; only through that one may it take it again"
    return ""


def _who(engine: Engine, ticket: Edge, me: Edge) -> str:
    if ticket.id == me.id:
        return "this thread"
    found = engine.read(_PROCESS, {"id": ticket.session})
    pid, command = found[0] if found else (0, "?")
    return f"{in_words(pid, command)}, thread {ticket.thread.rpartition('/')[2]}"

"""Waiting: the only wait loop there is.

Who waits has a ticket, a row that others read and serve in the order of its id, and sleeps at its
doorbell. It wakes because somebody served it and rang; or because the kernel says that a process
has ended which it watches; or, as a safety net, after a while. Whatever woke it, it then reads the
truth from the database, so a ring that is lost costs time and nothing else.

The chain of watches: the head of the line watches those who hold what it waits for, every other
waiter its predecessor. So a death anywhere in the line is noticed at once, and wakes nobody else.
Who is stopped notices nothing: whoever wakes by the safety net does the work of the head too, and
sees to a head that is dead, or whose time is over. The nearer to the head, the sooner it wakes, so
that however long the line is, few look often; others glance whether they have come nearer. And who
stays in its place for a while tells the one behind it, which may think that it is further back; who
is served after a long wait, or gives up, tells those who have come near by that, who may be between
two glances far apart.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from kvsync import deadlock
from kvsync.engine import Engine, Params, Transaction
from kvsync.engine.doorbell import LOOK, SERVED, Doorbell, Watch
from kvsync.engine.process import this_process
from kvsync.engine.words import Given, handed_to
from kvsync.errors import DeadlockError, KvsyncError
from kvsync.forks import incarnation, require_own
from kvsync.session import MEND, Session, patience_until

HEAD_NETS = (0.1, 2.0)
"""Seconds after which the head of a line looks again though nothing woke it: at first, and, doubled
each time, at last. Who holds is watched, so it is for rings that others could not send any more."""

_NETS = (0.5, 0.9, 5.0)
"""The same for the others, by how many are ahead: one, two, or more. A head that is stopped holds
up the line for one of the first two, and for the time to claim a grant."""

_GLANCES = (0.9, 5.0)
"""Seconds after which who has more ahead glances whether it has come nearer: while anything changes
in the store, and, doubled each time that nothing did, at last."""

_LOOKS_AT_MUTE = (0.0005, 0.1)
"""Seconds between two looks at a process that no watch tells of, or that has closed its doorbell
but not ended yet: at first, and, doubled each time, at last."""

_SEARCHES = (0.1, 5.0)
"""The same between two searches for a deadlock. Who closes a circle sees it at its first; later
ones are for what was no circle yet, for somebody in it had just been served, and did not claim."""

_NAP = 0.02
"""Seconds between two looks where the system has no doorbells."""

WAITING, GRANTED, PASSED, GONE = "waiting", "granted", "passed", "gone"
"""A ticket that waits; that was given what it waits for; that did not claim it, and is skipped;
that is no more."""

_ENTER = """
    insert into kvsync_ticket (space, name, id, kind, units, capacity, session, attempt, thread,
        doorbell, since, lease, deadline, state)
    select :space, :name, max(id) + 1, :kind, :units, :capacity, :session, :attempt, :thread,
        :doorbell, :since, :lease, :deadline, 'waiting'
    from kvsync_last_ticket where typeof(id) = 'integer' and id >= 0
    returning id
"""
_TURN = """
    update kvsync_ticket set state = :after
    where space = :space and name = :name and id = :ticket and state = :before
    returning id
"""
_DROP = "delete from kvsync_ticket where space = :space and name = :name and id = :ticket"
_AHEAD = """
    select id, session from kvsync_ticket
    where space = :space and name = :name and id < :ticket and state = 'waiting'
    order by id desc limit 3
"""
_LOOK = f"""
    select 'me' as role, session, state, null as expires, null as claim_by
    from kvsync_ticket where space = :space and name = :name and id = :ticket
    union all
    select 'me', session, '{GRANTED}', null, null from kvsync_grant
    where space = :space and name = :name and ticket = :ticket and doorbell is not null
    union all
    select 'ahead', session, null, id, null from ({_AHEAD}) as predecessors
    union all
"""
_BEHIND = """
    select doorbell from kvsync_ticket
    where space = :space and name = :name and id > :ticket and state = 'waiting'
    order by id limit 3
"""
_HOLDERS = """
    select 'holder', kvsync_grant.session, kvsync_session.clock, expires, claim_by
    from kvsync_grant left join kvsync_session on kvsync_session.id = kvsync_grant.session
    where space = :space and name = :name
"""
FIRST = """
    select 'holder', session, clock, deadline, null from (
        select session, deadline from kvsync_ticket
        where space = :space and name = :name and id < :ticket and state = 'waiting'
        order by id limit 1) as first
    left join kvsync_session on kvsync_session.id = session
"""
"""Whoever might fit where the head of the line does not is held up by that one, until its time is
over."""

HOLDERS: dict[str, str] = {}
"""By the space, where it is not by grants that others are held up: SQL of such rows.

A role 'holder' has its session, that one's clock, and two moments of the boot clock at which it may
lose what it has; a role 'due' has, as the first moment, a wall time at which there will be more.
"""


@dataclass
class Wish:
    """What somebody waits for, and how."""

    space: str
    name: str
    kind: str
    attempt: int
    deadline: float | None = None  # on the boot clock
    units: int = 0  # none: it waits to be told, not for units
    capacity: int = 0
    lease: float | None = None
    claims: bool = False  # what it is given: then a ring that it was is enough to try
    process: int = field(default_factory=incarnation)  # whose call it is: no forked child's

    def patience(self, boot: float) -> float | None:
        """Seconds for which, from now on, a call may wait for SQLite's write lock."""
        return patience_until(self.deadline, boot)

    def is_over(self, boot: float) -> bool:
        """Whether its time has passed."""
        return self.deadline is not None and boot >= self.deadline

    @property
    def holders(self) -> str:
        """SQL of who holds it up: who wants less than all might fit where the head does not."""
        held_up = HOLDERS.get(self.space, _HOLDERS)
        return f"{held_up} union all {FIRST}" if 0 < self.units < self.capacity else held_up


@dataclass
class _View:
    """The line as one waiter sees it at one moment."""

    state: str = GONE
    ahead: int | None = None  # the predecessor's session
    place: int = 0  # how many are ahead; of more than 3 nobody asks
    holders: tuple[int, ...] = ()
    due: float | None = None  # when a lease or the time to claim a grant ends

    @property
    def watched(self) -> set[int]:
        return {self.ahead} if self.ahead is not None else set(self.holders)


def enter(session: Session, transaction: Transaction, wish: Wish, doorbell: Doorbell | None) -> int:
    """Take a ticket; returns its id. Raises: ForkError in a child forked since it was wished."""
    require_own(wish.process)
    row = {
        **vars(wish),
        "session": session.id,
        "thread": session.thread,
        "doorbell": doorbell.mark.name if doorbell else None,
        "since": transaction.now,
    }
    ((ticket,),) = transaction.execute(_ENTER, row)
    return int(ticket)


def turn(transaction: Transaction, ticket: Params, before: str, after: str) -> bool:
    """Give a ticket, named with its line, another state; whether it had the one before."""
    return bool(transaction.execute(_TURN, {**ticket, "before": before, "after": after}))


def drop(transaction: Transaction, ticket: Params) -> None:
    """Take it away."""
    transaction.execute(_DROP, ticket)


class Wait:
    """One ticket's wait."""

    def __init__(
        self, session: Session, wish: Wish, ticket: int, doorbell: Doorbell | None
    ) -> None:
        self._session = session
        self._engine = session.engine
        self._wish = wish
        self._ticket = ticket
        self._here = {"ticket": ticket, "space": wish.space, "name": wish.name}
        self._doorbell = doorbell
        self._watches: dict[int, Watch] = {}
        self._mute: set[int] = set()  # sessions that no watch tells of
        self._head_net = HEAD_NETS[0]
        self._next_look_at_mute = _LOOKS_AT_MUTE[0]
        self._searched, self._search_pause = -_SEARCHES[1], _SEARCHES[0]
        self._began = time.monotonic()
        self._told = -1  # our place, when we last told who is behind
        self._stamp: object = None  # of the store, when we last glanced
        self._calm = False  # it was the same as the one before
        self._glance = _GLANCES[0]
        self._served = False  # says the last ring
        self._word: Given | None = None  # which was read: nobody can take it back any more

    def __enter__(self) -> "Wait":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # else it was left, or waits no more
            self._watch_only(set())

    def until_served(self) -> str:
        """The ticket's state once it waits no more; WAITING when the deadline is over.

        GRANTED may be no more than what a ring says: to claim is to know. Raises: DeadlockError.
        """
        quiet, slept = True, False
        while True:
            view = self._look()
            if view.state == PASSED:
                self._stir()
                continue
            now = self._engine.boot()
            if view.state != WAITING or self._wish.is_over(now):
                self._watch_only(set())
                return view.state
            if view.due is not None and view.due <= now and view.ahead is None:
                self._transact(self._mend)
                continue
            self._watch_only(view.watched)
            if self._session.reap(self._mute & view.watched, self._patience()):
                self._transact(self._mend)  # which fails where our line is damaged
                continue
            if slept and view.ahead is not None and self._stand_in(view, now):
                continue  # who is the head now may be dead, too
            if slept:
                self._tell_who_is_behind(view)
            if quiet:
                self._refuse_deadlock()
            quiet = slept = self._sleep(view, now)
            if self._served:
                return GRANTED

    def _look(self) -> _View:
        view, ours = _View(), this_process().clock
        ahead: list[tuple[int, int]] = []
        holders: list[int] = []
        ends: list[float | None] = []
        look = _LOOK + self._wish.holders
        for role, session, text, expires, claim_by in self._engine.read(look, self._here):
            if role == "me":
                view.state = text
            elif role == "ahead":
                ahead.append((expires, session))
            elif role == "due":
                ends.append(self._engine.boot() + expires - self._engine.now())
            else:
                holders.append(session)
                ends += [claim_by, expires] if text == ours else []
        view.place = len(ahead)
        view.ahead = max(ahead)[1] if ahead else None
        view.holders = tuple(holders)
        view.due = min((end for end in ends if end is not None), default=None)
        return view

    def _stir(self) -> None:
        """We were stopped when our turn came: back into the line, in our old place."""

        def work(transaction: Transaction) -> None:
            turn(transaction, self._here, PASSED, WAITING)
            self._mend(transaction)

        self._transact(work)

    def _transact(self, work: Callable[[Transaction], None]) -> None:
        """The store may be busy for no longer than the wait may last, or a second."""
        self._engine.transact(work, patience=self._patience())

    def _patience(self) -> float | None:
        return self._wish.patience(self._engine.boot())

    def _mend(self, transaction: Transaction) -> None:
        MEND[self._wish.space](self._engine, transaction, self._wish.name)

    def _stand_in(self, view: _View, now: float) -> bool:
        """See to what the head of the line would, for it may be stopped; whether there was any."""
        overdue = view.due is not None and view.due <= now
        if not self._session.reap(view.holders, self._patience()) and not overdue:
            return False
        self._transact(self._mend)  # which fails where our line is damaged
        return True

    def _tell_who_is_behind(self, view: _View) -> None:
        """It was not rung when it came nearer to the head, and may sleep for too long."""
        if view.place == self._told or view.place >= len(_NETS) - 1:
            return
        self._told = view.place
        self._ring_behind(slice(1))

    def leave(self) -> None:
        """Done by who was served, or gives up: tells who has come near by that.

        Second and third now may still put off glances, but only in a line that rested: who puts
        one off has made three before, and those ahead of it have waited for longer. Where that
        cannot be done, what was served is kept all the same. And to close the watch of who watches
        one process alone, as the next in line does, can wait for `tidy`.
        """
        if len(self._watches) > 1:
            self._watch_only(set())
        self._watches.clear()
        if time.monotonic() - self._began > 2 * _GLANCES[0]:
            with suppress(KvsyncError):
                self._ring_behind(slice(1, None))

    def _ring_behind(self, places: slice) -> None:
        for (doorbell,) in self._engine.read(_BEHIND, self._here)[places]:
            if doorbell is not None:
                self._engine.doorbells.ring(doorbell)

    def _watch_only(self, sessions: set[int]) -> None:
        for session in self._watches.keys() - sessions:
            self._watches.pop(session).close()
        self._mute &= sessions
        for session in sessions - self._watches.keys() - self._mute:
            watch = self._session.watch(session)
            if watch is None:
                self._mute.add(session)
            else:
                self._watches[session] = watch

    def _sleep(self, view: _View, now: float) -> bool:
        """Until there is something to look at; returns whether nothing woke us."""
        ends = [self._net(view)]
        if self._mute:
            ends.append(self._next_look_at_mute)
            self._next_look_at_mute = min(2 * self._next_look_at_mute, _LOOKS_AT_MUTE[1])
        if self._wish.deadline is not None:
            ends.append(self._wish.deadline - now)
        if view.due is not None and view.ahead is None:
            ends.append(view.due - now)
        seconds = max(0.0, min(ends))
        if self._doorbell is None:
            time.sleep(min(seconds, _NAP))
            require_own(self._wish.process)
            return True
        if view.place < len(_NETS):
            rings, gone = self._doorbell.wait(self._watches.values(), seconds)
        else:
            rings, gone = self._listen_and_glance(self._doorbell, seconds)
        self._hear(rings)
        for session, watch in list(self._watches.items()) if gone else ():
            if watch in gone:
                # It is dying, or has closed its descriptors: a watch would wake us at once again.
                self._watches.pop(session).close()
                self._mute.add(session)
                self._next_look_at_mute = _LOOKS_AT_MUTE[0]
        if rings or gone:
            self._head_net = HEAD_NETS[0]
        return not rings and not gone

    def _hear(self, rings: bytes) -> None:
        self._word = handed_to(self._ticket, rings) or self._word
        self._served = self._wish.claims and (SERVED in rings or self._word is not None)

    def take_word(self) -> Given | None:
        """What was read of our ticket, once."""
        word, self._word = self._word, None
        return word

    def _listen_and_glance(self, doorbell: Doorbell, seconds: float) -> tuple[bytes, list[Watch]]:
        """What woke us: rings, and watches whose process is gone; neither if we came nearer."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > self._glance:
            rings, gone = doorbell.wait(self._watches.values(), self._glance)
            if rings or gone or self._has_come_nearer():
                return rings, gone
        rings, gone = doorbell.wait(self._watches.values(), left)
        if seconds > _GLANCES[0] and not rings and not gone:
            self._has_come_nearer()  # or has not: it tells how soon the next glance is due
        return rings, gone

    def _has_come_nearer(self) -> bool:
        """So near that the next net is shorter. While nobody commits anything we have not.

        What was about to be committed at the last glance may not have been to be read yet, under
        the same stamp: so only the second one of two that are equal tells that all is calm.
        """
        before, self._stamp = self._stamp, self._engine.stamp()
        was_calm, self._calm = self._calm, self._stamp == before
        if was_calm and self._calm:
            self._glance = min(2 * self._glance, _GLANCES[1])
            return False
        self._glance = _GLANCES[0]
        return len(self._engine.read(_AHEAD, self._here)) < len(_NETS)

    def _net(self, view: _View) -> float:
        if view.place:
            return _NETS[min(view.place, len(_NETS)) - 1]
        net, self._head_net = self._head_net, min(2 * self._head_net, HEAD_NETS[1])
        return net

    def _refuse_deadlock(self) -> None:
        wish = self._wish
        if not wish.units or wish.deadline is not None or not self._session.detects_deadlocks:
            return
        now = time.monotonic()
        if now < self._searched + self._search_pause:
            return
        self._searched, self._search_pause = now, min(2 * self._search_pause, _SEARCHES[1])
        circle = deadlock.circle(self._engine, (wish.space, wish.name), self._ticket)
        if circle and not self._session.reap(each.session for each in circle):
            raise DeadlockError(deadlock.describe(self._engine, circle))


def ring(
    engine: Engine, transaction: Transaction, doorbell: str | None, ring: bytes = LOOK
) -> None:
    """Once committed, wake who listens there."""
    if doorbell is not None:
        transaction.after_commit(partial(engine.doorbells.ring, doorbell, ring))


def ring_served(engine: Engine, served: str | None, behind: str | None) -> None:
    """Once committed, wake who was served, and who stands behind it: it has another to watch."""
    for doorbell, what in ((served, SERVED), (behind, LOOK)):
        if doorbell is not None:
            engine.after_commit(partial(engine.doorbells.ring, doorbell, what))

"""Units of a named thing, as one object acquires and releases them: see `grants.py`."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import Any

from kvsync.clock import end_of
from kvsync.engine import Params, Row, Transaction
from kvsync.engine.doorbell import Doorbell
from kvsync.engine.words import Given, to_whom
from kvsync.errors import BusyError, KvsyncError, LeaseLostError, LimitError, NotOwnedError
from kvsync.forks import generation, require_own
from kvsync.leftovers import may_succeed_later, with_cleanup
from kvsync.primitives.grants import (
    CLAIM,
    CLAIM_HANDED,
    CLAIMED,
    FREE,
    FREE_IF_NOBODY_WAITS,
    HAND_OVER,
    JOIN,
    TAKE,
    TAKE_ALL,
    Grant,
    Holder,
    Waiter,
    end,
    held_by,
    holders,
    recorded_holders,
    ring_granted,
    ring_next,
    serve,
    waiters,
)
from kvsync.primitives.tickets import Tickets
from kvsync.session import GATE_PATIENCE, Patience, Session
from kvsync.waiting import GONE, GRANTED, WAITING, Wait, Wish, drop, enter, turn

_MOMENT = 0.001
"""Seconds. Who has held something for longer is likely to be waited for: `release` tries that
first."""

_Release = Callable[[Grant, float | None], list[Row]]
"""A way to give back a grant, with seconds of patience; returns what went."""

_OTHER_LIMIT = """
    select session, capacity from kvsync_grant
    where space = :space and name = :name and capacity <> :capacity
    union all
    select session, capacity from kvsync_ticket
    where space = :space and name = :name and capacity <> :capacity
    limit 8
"""
_HOLDING_OR_FIRST = """
    select session from kvsync_grant where space = :space and name = :name
    union all
    select session from (
        select session from kvsync_ticket where space = :space and name = :name
        order by id limit 1) as first
"""
_WAITING = """
    select session from kvsync_ticket
    where space = :space and name = :name and state = 'waiting' order by id limit 8
"""
_EXTEND = f"""
    update kvsync_unit set expires = :expires, {CLAIMED}
    where space = :space and name = :name and token = :token and session = :session
    and (expires is null or expires > :boot)
    returning token
"""
_PUT_OFF = f"""
    update kvsync_unit set expires = :expires, {CLAIMED}
    where space = :space and name = :name and token = :token and session = :session
    and expires > :boot and expires <= :expires
    returning token
"""
_OF_ATTEMPT = "where space = :space and name = :name and session = :session and attempt = :attempt"


class Units:
    """The units of one name, as one object sees them: `held` are this object's grants.

    Any thread adds to them and takes out of them at any time, each in one step: whoever goes
    through them goes through a copy.
    """

    def __init__(self, session: Session, space: str, name: str, capacity: int) -> None:
        self.session = session
        self.space, self.name, self.capacity = space, name, capacity
        self.held: list[Grant] = []
        self._engine = session.engine
        self._here = {"space": space, "name": name}

    # --- acquiring ----------------------------------------------------------------------------

    def acquire(
        self, kind: str, units: int, timeout: float | None, lease: float | None
    ) -> Grant | None:
        """A grant, after waiting up to `timeout` seconds (None: for ever), or None.

        Raises: DeadlockError, LimitError, TransactionError. Whatever is raised, by a signal's
        handler too, nothing of the attempt stays.
        """
        self._engine.forbid_in_transaction("acquire")
        patience = self.session.patience(timeout)
        self.session.begin(patience.left())
        self.session.undo_leftovers(patience.left())
        self.session.forget_now_and_then(self.space, self.name)
        wish = self._wish(kind, patience.deadline, units, lease)
        return with_cleanup(partial(self._acquire, wish, patience), self._undoing(wish))

    def _acquire(self, wish: Wish, patience: Patience) -> Grant | None:
        grant = self._take(wish, patience) or self._after_a_look(wish, patience)
        require_own(wish.process)
        if grant is not None:
            self._note(grant)
        return grant

    def _note(self, grant: Grant) -> None:
        """Ours from now on."""
        for each in self.held[:]:
            if not each.depth:  # a signal has kept it from being taken out
                self.take_out(each)
        self.held.append(grant)
        self.session.keep(self.held)

    def take_out(self, grant: Grant) -> None:
        """It is not held any more, by this object or by the other one that acquired it."""
        if grant in grant.noted_in:
            with suppress(ValueError):  # another thread was faster
                grant.noted_in.remove(grant)

    def _wish(self, kind: str, deadline: float | None, units: int, lease: float | None) -> Wish:
        attempt, capacity = self.session.next_attempt(), self.capacity
        return Wish(
            self.space, self.name, kind, attempt, deadline, units, capacity, lease, claims=True
        )

    def _take(self, wish: Wish, patience: Patience) -> Grant | None:
        """At once, or not at all."""
        wanted = {**vars(wish), "session": self.session.id, "thread": self.session.thread}

        def row() -> Params:
            require_own(wish.process)
            expires = end_of(wish.lease, self._engine.boot)
            return {**wanted, "since": self._engine.now(), "expires": expires}

        rows = self._engine.write(
            TAKE_ALL if wish.units == self.capacity else TAKE,
            row,
            patience=patience.left(),
            sure=True,
        )
        return self._grant(rows[0], wish) if rows else None

    def _after_a_look(self, wish: Wish, patience: Patience) -> Grant | None:
        """See to the dead; then try again, or wait."""
        self.session.reap(self._sessions(_HOLDING_OR_FIRST), patience.left())
        way = self._try_once if patience.timeout == 0 else self._queue
        while True:
            try:
                return way(wish, patience)
            except LimitError:
                if not self._reap_up_to_the_living(_OTHER_LIMIT, patience):
                    raise

    def _try_once(self, wish: Wish, patience: Patience) -> Grant | None:
        once = partial(self._try, replace(wish, deadline=None))
        while True:
            given = self._engine.transact(once, patience=patience.left())
            if given is not None:
                return self._grant(given, wish)
            if not self._reap_up_to_the_living(_WAITING, patience):
                return None

    def _reap_up_to_the_living(self, query: str, patience: Patience) -> bool:
        """Of sessions any of which is an obstacle; whether there were dead ones."""
        sessions = dict.fromkeys(self._sessions(query))
        dead = list(takewhile(self.session.is_dead, sessions))
        return bool(self.session.reap(dead, patience.left()))

    def _try(self, wish: Wish, transaction: Transaction) -> Given | None:
        """Join the line and leave it again, in one moment."""
        ticket, given = self._enter(wish, None, transaction)
        return self._withdraw(ticket, wish, transaction) if given is None else given

    def _queue(self, wish: Wish, patience: Patience) -> Grant | None:
        with self.session.doorbell() as doorbell:
            while True:
                ticket, given = self._engine.transact(
                    partial(self._enter, wish, doorbell), patience=patience.left()
                )
                grant = self._grant_for(wish)
                if given is not None:
                    return self._fill(grant, given)
                with Wait(self.session, wish, ticket, doorbell) as wait:
                    while (state := wait.until_served()) == GRANTED:
                        if given := self._take_up(ticket, wish, wait.take_word()):
                            wait.leave()
                            return self._fill(grant, given)
                if state == WAITING:
                    given = self._withdraw_in_time(ticket, wish)
                    wait.leave()
                    return None if given is None else self._fill(grant, given)
                assert state == GONE
                if wish.is_over(self._engine.boot()):
                    return None

    def _enter(
        self, wish: Wish, doorbell: Doorbell | None, transaction: Transaction
    ) -> tuple[int, Given | None]:
        """Join the line; returns the ticket, and what it was given if it was served at once."""
        if self._other_limit(transaction) is not None:
            self._serve(transaction)  # what time has ended is in nobody's way
            self._check_limit(transaction)
        ticket = enter(self.session, transaction, wish, doorbell)
        serve(self.space, self._engine, transaction, self.name, news=False, mine=ticket)
        return ticket, self._claim(ticket, wish, transaction)

    def _take_up(self, ticket: int, wish: Wish, read: Given | None) -> Given | None:
        """What was given to that ticket; None if it has passed on.

        Who has read the word has it already, without a write; but a lease begins now.
        """
        if read is None:
            return self._claim_at_once(ticket, wish, CLAIM)
        if wish.lease is not None:
            return self._claim_at_once(ticket, wish, CLAIM_HANDED)
        self._engine.verify()  # another database there may have a ticket of this number
        return read

    def _claim_at_once(self, ticket: int, wish: Wish, claim: str) -> Given | None:
        """`_claim`, in a transaction of its own; all units are claimed by one statement."""
        patience = wish.patience(self._engine.boot())
        if wish.units == self.capacity:
            rows = self._engine.write(
                claim,
                partial(self._claiming, ticket, wish),
                patience=patience,
                sure=True,
                urgent=True,
            )
            if rows:
                return rows[0][:2]
        work = partial(self._claim, ticket, wish)
        return self._engine.transact(work, patience=patience, urgent=True)

    def _claim(self, ticket: int, wish: Wish, transaction: Transaction) -> Given | None:
        """The grant given to that ticket; None if it has passed on."""
        mine = self._claiming(ticket, wish)
        rows = transaction.execute(CLAIM, mine) or transaction.execute(CLAIM_HANDED, mine)
        if not rows:
            self._return(ticket, transaction)
            return None
        token, slot, units = rows[0]
        if units < self.capacity:  # else nobody else can have been given any
            place = {**self._here, "ticket": ticket}
            ring_next(self._engine, transaction, place, if_granted=True)
        return token, slot

    def _claiming(self, ticket: int, wish: Wish) -> Params:
        require_own(wish.process)
        return {**self._here, "ticket": ticket, "boot": self._engine.boot()}

    def _return(self, ticket: int, transaction: Transaction) -> None:
        """What was given is gone already (by force, or by its lease): back to the old place."""
        if turn(transaction, {**self._here, "ticket": ticket}, GRANTED, WAITING):
            self._serve(transaction)

    def _withdraw_in_time(self, ticket: int, wish: Wish) -> Given | None:
        """At the end of its time: while the store is busy it is as good as gone, and goes later."""
        try:
            work = partial(self._withdraw, ticket, wish)
            return self._engine.transact(work, patience=GATE_PATIENCE)
        except BusyError:
            self.session.undo_later(partial(self._undo, wish))
            return None

    def _withdraw(self, ticket: int, wish: Wish, transaction: Transaction) -> Given | None:
        """Leave the line; what was given in this very instant is kept."""
        given = self._claim(ticket, wish, transaction)
        if given is None:
            place = {**self._here, "ticket": ticket}
            ring_next(self._engine, transaction, place)
            drop(transaction, place)
            transaction.execute(
                "update kvsync_unit set session = 0 where space = :space and name = :name"
                " and ticket = :ticket and session <> 0",
                place,
            )
            # For who was ahead of it nothing has changed.
            serve(self.space, self._engine, transaction, self.name, news=False)
        return given

    def _undoing(self, wish: Wish) -> Callable[[], None]:
        return partial(self.session.undo, partial(self._undo, wish))

    def _undo(self, wish: Wish, patience: float | None) -> None:
        """Nothing of this attempt stays, whatever it had come to."""

        def work(transaction: Transaction) -> None:
            require_own(wish.process)
            mine = {**self._here, "session": self.session.id, "attempt": wish.attempt}
            for (ticket,) in transaction.execute(
                f"delete from kvsync_ticket {_OF_ATTEMPT} returning id", mine
            ):
                ring_next(self._engine, transaction, {**self._here, "ticket": ticket})
            transaction.execute(f"update kvsync_unit set session = 0 {_OF_ATTEMPT}", mine)
            self._serve(transaction)

        for grant in self.held[:]:
            if grant.attempt == wish.attempt:
                self.take_out(grant)
        self._engine.transact(work, patience=patience)

    def _check_limit(self, transaction: Transaction) -> None:
        found = self._other_limit(transaction)
        if found is not None:
            raise LimitError(
                f"{self.space} {self.name!r} is in use with a limit of {found}, not"
                f" {self.capacity}; a new limit is adopted when nobody holds it or waits"
            )

    def _other_limit(self, transaction: Transaction) -> int | None:
        rows = transaction.execute(_OTHER_LIMIT, {**self._here, "capacity": self.capacity})
        return rows[0][1] if rows else None

    def join(
        self,
        within: Grant,
        kind: str,
        units: int,
        lease: float | None,
        timeout: float | None = None,
    ) -> Grant:
        """More of what `within` holds already, past the line: nobody else can hold any of it.

        It is the same thread's, whichever calls this.

        Raises: LeaseLostError if `within` is not held any more.
        """
        self._engine.forbid_in_transaction("acquire")
        patience = self.session.patience(timeout)
        wish = self._wish(kind, None, units, lease)

        def work(transaction: Transaction) -> Given | None:
            require_own(wish.process)
            row = {
                **vars(wish),
                "session": within.session,
                "since": transaction.now,
                "boot": self._engine.boot(),
                "within": within.token,
            }
            found = transaction.execute(JOIN, row)
            return found[0] if found else None

        def join() -> Grant:
            given = self._engine.transact(work, patience=patience.left())
            if given is None:
                raise self.lost(within)
            grant = self._grant(given, wish)
            require_own(wish.process)
            grant.thread = within.thread
            self._note(grant)
            return grant

        return with_cleanup(join, self._undoing(wish))

    # --- releasing ----------------------------------------------------------------------------

    def release(self, grant: Grant) -> None:
        """Give it back; who is next in line has it when this returns.

        It is not ours any more after this, whatever it raises but TransactionError and
        NotOwnedError: what the store cannot do now is done as soon as it can, for nobody else
        could, and all would wait for ever.

        Raises: LeaseLostError if it was lost before; NotOwnedError if another call has given it
        back meanwhile; TransactionError. A signal's exception comes when it is done, or is seen to
        as above.
        """
        self._engine.forbid_in_transaction("release")
        if grant.process != generation():
            raise NotOwnedError(f"{self.space} {self.name!r} was acquired by the parent process")
        try:
            grant.is_leaving = True  # before others can see that the store has it no more
            current = self._release(grant)
            given_back = not grant.depth
            self._forget(grant)
        except KvsyncError as error:
            if may_succeed_later(error):
                self.give_up(grant)
                error.add_note(f"{self.space} {self.name!r} is released as soon as that is over")
            else:
                self._forget(grant)
            raise
        except BaseException:
            try:
                self.session.undo(partial(self._release, grant))  # it may have been done before
            finally:
                self._forget(grant)
            raise
        if not current and given_back:
            raise NotOwnedError(f"{self.space} {self.name!r} was given back already")
        if not current:
            raise self.lost(grant)

    def give_up(self, grant: Grant) -> None:
        """It is not ours any more from now on, and free as soon as the store can be written."""
        self._forget(grant)
        self.session.undo_later(partial(self._release, grant))

    def _release(self, grant: Grant, patience: float | None = None) -> bool:
        """Whether it was still ours. A lease that is over is not, taken by others or not."""
        boot = self._engine.boot()
        ways: tuple[_Release, ...] = self._free_if_nobody_waits, self._hand_over, self._drop
        if grant.units < self.capacity:
            ways = self._free_if_nobody_waits, self._drop  # for there may be other holders
        elif boot - grant.since > _MOMENT:
            ways = self._hand_over, self._free_if_nobody_waits, self._drop
        for way in ways:
            if rows := way(grant, patience):
                break
        return any(expires is None or expires > boot for (expires,) in rows)

    def _leaving(self, grant: Grant, *, for_another: bool = False) -> Params:
        """What the statements go by that free it, found out when they have their turn."""
        grant.require_own()
        mine: dict[str, Any] = {
            "space": self.space,
            "name": self.name,
            "slot": grant.slot,
            "token": grant.token,
            "session": grant.session,
        }
        if for_another:
            mine["boot"], mine["since"] = self._engine.boot(), self._engine.now()
        return mine

    def _free_if_nobody_waits(self, grant: Grant, patience: float | None) -> list[Row]:
        leaving = partial(self._leaving, grant)
        return self._engine.write(FREE_IF_NOBODY_WAITS, leaving, patience=patience)

    def _hand_over(self, grant: Grant, patience: float | None) -> list[Row]:
        rows: list[Row] = []
        self._engine.write(
            HAND_OVER,
            partial(self._leaving, grant, for_another=True),
            patience=patience,
            sure=True,
            urgent=True,
            into=rows,
            telling=self._engine.doorbells.saying(rows, to_whom(grant.token + 1, grant.slot)),
        )
        for _, _, behind in rows:
            if behind is not None:
                self._engine.doorbells.ring(behind)
        return [(None,) for _ in rows]

    def _drop(self, grant: Grant, patience: float | None) -> list[Row]:
        def work(transaction: Transaction) -> list[Row]:
            rows = transaction.execute(FREE, self._leaving(grant))
            if not rows:  # we may have given it to others, and been interrupted before we rang
                ring_granted(self._engine, transaction, self._here)
            self._serve(transaction)
            return rows

        return self._engine.transact(work, patience=patience, urgent=True)

    def _forget(self, grant: Grant) -> None:
        grant.depth = 0
        self.take_out(grant)
        self._engine.doorbells.tidy()  # what was watched while it was waited for

    def shrink(self, grant: Grant, left: int) -> None:
        """Give back all but so many of its units; as `release`. Raises: LeaseLostError.

        Does nothing if no more are left; a signal's handler may have seen to that meanwhile.
        """
        self._engine.forbid_in_transaction("release")

        def work(transaction: Transaction) -> bool:
            grant.require_own()
            rows = transaction.execute(
                f"update kvsync_unit set units = :left, {CLAIMED}"
                " where space = :space and name = :name"
                " and token = :token and session = :session and units > :left"
                " and (expires is null or expires > :boot) returning token",
                {
                    **self._row_of(grant),
                    "left": left,
                    "boot": self._engine.boot(),
                },
            )
            self._serve(transaction)
            return bool(rows)

        def step(patience: float | None = None) -> bool:
            return self._engine.transact(work, patience=patience)

        # Setting what is left, and never more than there is: repeating it, or late, does no harm.
        try:
            current = step()
        except KvsyncError as error:
            if may_succeed_later(error):
                grant.units = min(left, grant.units)
                self.session.undo_later(step)
                error.add_note("they are released as soon as that is over")
            raise
        except BaseException:
            self.session.undo(step)
            grant.units = min(left, grant.units)
            raise
        if grant.units <= left or not grant.depth:
            return
        grant.units = left
        if not current:
            self._forget(grant)
            raise self.lost(grant)

    def force_release(self) -> list[Holder]:
        """Take all grants away from whoever holds them; returns who did.

        They find out: their release and guarded transactions raise LeaseLostError.
        """

        def work(transaction: Transaction) -> list[Holder]:
            holders = recorded_holders(self._engine, self.space, self.name)
            for holder in holders:
                end(self.space, self.name, self._engine, transaction, holder.token)
            self._serve(transaction)
            return holders

        return self._engine.transact(work)

    # --- what is held -------------------------------------------------------------------------

    def extend(self, grants: list[Grant], seconds: float) -> None:
        """Let all their leases end that many seconds from now; none's if one of them is lost.

        Raises: LeaseLostError.
        """

        def work(transaction: Transaction) -> None:
            boot, sooner = self._engine.boot(), False
            for grant in grants:
                row = {**self._row_of(grant), "boot": boot, "expires": boot + seconds}
                if transaction.execute(_PUT_OFF, row):
                    continue
                if not transaction.execute(_EXTEND, row):
                    raise self.lost(grant)
                sooner = True
            if sooner:  # than the head of the line knows, which sleeps until then
                Tickets(self._engine, self.space, self.name).ring_first(transaction)

        self._engine.transact(work)

    def ensure_current(self, grants: list[Grant]) -> None:
        """Raises: LeaseLostError if one of them is not held any more."""
        for grant in grants:
            if not self.is_current(grant):
                raise self.lost(grant)

    def is_current(self, grant: Grant) -> bool:
        """Whether it is still held: nobody else can have got it."""
        if not grant.depth:
            return False  # given up, though the store may not know it yet
        ends = self._ends(grant)
        return any(expires is None or expires > self._engine.boot() for (expires,) in ends)

    def is_given_back(self, grant: Grant) -> bool:
        """Whether its release has begun, and the store has it no more, but this object still."""
        return grant.is_leaving and grant in self.held and not self._ends(grant)

    def _ends(self, grant: Grant) -> list[Row]:
        """When its lease ends, by the boot clock, as the store has it; nothing if it has not."""
        return self._engine.read(
            "select expires from kvsync_grant"
            " where space = :space and name = :name and id = :token and session = :session",
            self._row_of(grant),
        )

    def _row_of(self, grant: Grant) -> dict[str, Any]:
        """By what its row is known, as long as it is this session's."""
        return {**self._here, "token": grant.token, "session": grant.session}

    def lost(self, grant: Grant) -> LeaseLostError:
        return LeaseLostError(
            f"{self.space} {self.name!r} is not held any more under the token {grant.token}: its"
            " lease ran out, or it was taken away by force"
        )

    def holders(self) -> list[Holder]:
        """Who holds units now, first come first."""
        return holders(self.session, self.space, self.name)

    def held_by(self) -> str:
        """The same in words, to end a message with; "" if nobody is known to."""
        return held_by(self.session, self.space, self.name)

    def waiters(self) -> list[Waiter]:
        """Who waits, the next one first, without the dead."""
        return waiters(self.session, self.space, self.name)

    # --- within -------------------------------------------------------------------------------

    def _serve(self, transaction: Transaction) -> None:
        serve(self.space, self._engine, transaction, self.name)

    def _sessions(self, query: str) -> list[int]:
        rows = self._engine.read(query, {**self._here, "capacity": self.capacity})
        return [session for session, *_ in rows]

    def _grant(self, given: Given, wish: Wish) -> Grant:
        return self._fill(self._grant_for(wish), given)

    def _grant_for(self, wish: Wish) -> Grant:
        """What it will be when it is given. (Made before a wait, it is not made after.)"""
        return Grant(
            0,
            self.name,
            wish.units,
            wish.lease,
            session=self.session.id,
            attempt=wish.attempt,
            noted_in=self.held,
        )

    def _fill(self, grant: Grant, given: Given) -> Grant:
        grant.token, grant.slot = given
        grant.since = self._engine.boot()
        return grant

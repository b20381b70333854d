"""Rate limits: so many in so much time, over all processes together, exactly.

The generic cell rate algorithm (ITU-T Recommendation I.371, annex A), also known as the leaky
bucket as a meter. The state is one moment, the theoretical arrival time `tat`: when everything
granted so far would have gone through at the steady rate of one unit each `per / limit`. Granting
n units moves it to `max(tat, now) + n * unit`, and is due once that lies no further ahead than
`burst * unit`. So in any time W no more than `burst + limit * W / per` are granted.

All moments are whole numbers of 2**-32 nanoseconds (ticks) on the boot clock, so nothing drifts,
and a unit is rounded up, so nothing is granted too much. The boot clock is read inside the write
transaction, hence it never goes back from one grant to the next.

Who waits has its slot at once: it moves `tat` as if its slot had come, and sleeps until then. So
slots are in the order of asking. `reserved` is the latest moment at which anything granted so far
is due. On another boot clock (after a reboot, mostly) `tat` is taken from its wall time, and nobody
who had a slot is there any more.

Limiters of one name may have different limits. Each moves the one `tat` by what its units take at
its own rate, and never back. But of what lies ahead each counts no more than its own burst, used up
at `reserved`: what is due goes by `min(tat, reserved + burst * unit)` in the place of `tat`. Let D
be the largest `burst * unit` of those who used the name. Then, whoever uses it meanwhile:

- A grant that is due at t leaves `tat <= t + D`, hence always `tat <= reserved + D`. For either it
  counted all of `tat`, and t is no less than the new one less its own burst; or it counted less,
  and then t is after `reserved` by as much as it moves `tat`, if not by more.
- All together are granted, in any time W, units that take W + D at most. Where they have one rate,
  that is the largest burst and `limit * W / per`. For who took the first of these found `tat`, or
  the moment, no earlier than that time begins, and the last left it no later than D after the end.
- Each by itself is granted `burst + limit * W / per` at most, as if it were alone: it counts no
  less than it has had itself, which is never more than its burst ahead of `reserved`.
- Nobody waits for longer than its own n units take, from `reserved` on. So who comes with a burst
  of years, by mistake, keeps no other out: while that lasts, they have their rate, and their burst
  after a rest.

No burst takes longer than `_LONGEST`, so nothing but damage leaves `tat` further ahead of
`reserved` than that; it is clamped there.

Each change of the row bears the number of the attempt that made it. Who gives its slot back puts
the row before it in place again, and only while the row still bears its own number. Whoever closes
the store does that for those who wait through it, which are told by ClosedError. An attempt is
its process's alone: a child that a signal's handler forks in the middle of it takes nothing by it,
has nothing of it, and gives nothing back.
"""

import secrets
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from kvsync.engine import Engine, Row, Transaction
from kvsync.engine.process import this_process
from kvsync.errors import (
    BusyError,
    ClosedError,
    CounterOverflowError,
    TransactionError,
)
from kvsync.forks import incarnation, require_own
from kvsync.primitives.arguments import Seconds, check_positive, check_timeout, check_whole
from kvsync.primitives.primitive import Home, Primitive
from kvsync.resting import REST, near
from kvsync.session import Rest, patience_of

_SECOND = 1_000_000_000 << 32
_MICROSECOND = 1_000 << 32
_NANOSECOND = 1 << 32
"""In ticks."""

_YEAR = 365 * 86_400
_LONGEST = 10 * _YEAR
"""Seconds, for a burst to refill: sums of some of these still fit into 64 bits of nanoseconds."""

_LAST = ((1 << 63) - 1) * _NANOSECOND
"""The latest `tat` that the database can hold, some 292 years after the boot."""

_NAP = 1.0
"""Seconds of sleep, at most: while the machine is suspended the boot clock goes on, sleep not."""

_SELECT = """
    select clock, tat, fraction, reserved, wall, attempt from kvsync_rate where name = :name
"""
_PUT = """
    insert into kvsync_rate (name, clock, tat, fraction, reserved, wall, attempt)
    values (:name, :clock, :tat, :fraction, :reserved, :wall, :attempt)
    on conflict (name) do update set clock = excluded.clock, tat = excluded.tat,
        fraction = excluded.fraction, reserved = excluded.reserved, wall = excluded.wall,
        attempt = excluded.attempt
"""
_PUT_BACK = """
    update kvsync_rate set clock = :clock, tat = :tat, fraction = :fraction,
        reserved = :reserved, wall = :wall, attempt = :attempt
    where name = :name and attempt = :undone
"""
_FORGET_RESTING = """
    delete from kvsync_rate where name in (
        select name from (
            select name from kvsync_rate where name > :behind order by name limit :some) as next
        union all
        select name from (select name from kvsync_rate order by name limit :some) as first)
    and (clock = :clock and tat < :boot or clock <> :clock and wall < :wall)
"""
_LOOKED_AT = 6
"""Names that whoever adds one looks at, and as many of the first ones of all."""

_DAY = 86_400.0
"""Seconds that the wall clock, by which those of another boot rest, may be wrong."""


@dataclass(frozen=True)
class RateLimiterStats:
    """A rate limiter at one moment.

    `available` units could be had at once; one more after `retry_after` seconds, 0 if there are.
    """

    name: str
    limit: int
    per: float
    burst: int
    available: int
    retry_after: float


class _State(NamedTuple):
    """The row's columns but for the name; `wall` is the same moment as `tat` and `fraction`."""

    clock: str
    tat: int  # nanoseconds
    fraction: int  # ticks
    reserved: int  # nanoseconds
    wall: float
    attempt: int


class _Slot(NamedTuple):
    """When units are due, and what the state becomes if they are taken; all in ticks."""

    now: int
    counted: int  # in the place of `tat` before they are taken, or the moment if that is later
    due: int
    tat: int
    reserved: int


class _Attempt:
    """One call's change of the row: its number, what was there before, and where it waits."""

    def __init__(self) -> None:
        self.process = incarnation()  # first: a child that is forked after it has it too
        self.number = secrets.randbits(62)  # `random` repeats itself in forked children
        self.before: _State | None = None
        self.rest: Rest | None = None


class RateLimiter(Primitive):
    """At most `limit` units per `per` seconds, for all processes together.

    `burst` units may go at once after a rest, by default `limit` of them: in any `per` seconds at
    most `burst + limit` are granted, and `limit` in the long run. With `burst=1` they are evenly
    spaced. What was used survives a restart, and by the wall clock a reboot.

    The limits are this object's; other objects of this name may have others, and share what was
    used. Each keeps its own limits, whatever the others do. All together, where they have one rate,
    keep those of the largest burst. Where not, a unit counts for the `per / limit` seconds of who
    takes it, and in any W seconds no more are granted than count for W and for the longest burst.
    Who has a smaller burst need not wait for a larger one to refill: it goes on at its own rate,
    behind those who wait.

    Raises: TypeError; ValueError unless `limit` and `burst` are above zero, `per` is from a
    nanosecond to ten years, and a burst is there again within ten years.

    Example:
        >>> mails = store.rate_limiter("mails", 100, per=60)
        >>> mails.try_acquire()
        True
    """

    def __init__(
        self, store: Home, name: str, limit: int, *, per: Seconds, burst: int | None = None
    ) -> None:
        super().__init__(store, name)
        self._limit = check_whole("limit", limit)
        self._per = check_positive("per", per)
        self._burst = self._limit if burst is None else check_whole("burst", burst)
        if not 1e-9 <= self._per <= _LONGEST:
            raise ValueError(f"per is from a nanosecond to ten years, not {per!r}")
        self._unit = -(-round(self._per * 1e9) * _NANOSECOND // self._limit)
        self._depth = self._burst * self._unit
        if self._depth > _LONGEST * _SECOND:
            raise ValueError(f"a burst of {self._burst} would take more than ten years to refill")
        # A float clock does not tell moments this close apart. Less than a unit, it lets no more
        # through in any time that is a whole number of units.
        self._slack = min(self._unit, _MICROSECOND)

    def _options(self) -> dict[str, Any]:
        return {"limit": self._limit, "per": self._per, "burst": self._burst}

    @property
    def limit(self) -> int:
        """Units per `per` seconds."""
        return self._limit

    @property
    def per(self) -> float:
        """Seconds in which `limit` units become available."""
        return self._per

    @property
    def burst(self) -> int:
        """Units that may go at once."""
        return self._burst

    # --- acquiring ----------------------------------------------------------------------------

    def try_acquire(self, n: int = 1) -> bool:
        """Take `n` units if they are available now; returns whether they were.

        It waits for no units, only for other writers, and for those about a second. Inside a
        transaction it is part of that: rolled back, nothing was taken.

        Raises: ValueError for more than `burst`, which are never available, and for less than one;
        TypeError for what is no int; BusyError, ClosedError, StoreReplacedError as any call. With
        BusyError nothing was taken.
        """
        return self.acquire(n, timeout=0)

    def acquire(self, n: int = 1, timeout: Seconds | None = None) -> bool:
        """Take `n` units, waiting for up to `timeout` seconds; returns whether they were taken.

        None and -1 wait for ever. Slots are given out in the order of asking, so the wait is known
        at once: if it is longer than `timeout`, the answer is False right away, and nothing was
        taken. An exception that ends the wait (KeyboardInterrupt) gives the units back if nobody
        has asked for some after this call; else they are spent, for the slots behind are fixed.
        So does who closes the store meanwhile, which ends the wait by ClosedError. The units of a
        process that is killed while it waits are spent.

        Raises: ValueError for more than `burst`; TypeError, ValueError for other bad arguments;
        TransactionError inside a transaction if it would have to wait; ForkError in a child that a
        signal's handler forks meanwhile, for the slot is its parent's; CounterOverflowError (an
        OverflowError) for a slot so far ahead that 64 bits of nanoseconds cannot tell what is used
        with it, as after some 280 years; BusyError, ClosedError, StoreReplacedError as any call.
        With TransactionError, CounterOverflowError and BusyError nothing was taken.
        """
        self._check(n)
        seconds = check_timeout(timeout)
        deadline = None if seconds is None else self._now() + _ticks(seconds)
        # A refusal needs no write lock: it was true at one moment of this call.
        if not _fits(self._look(n), deadline):
            return False
        attempt = _Attempt()
        try:
            work = partial(self._take, n, deadline, attempt, self._may_sleep())
            slot = self._engine.transact(work, patience=patience_of(seconds))
            if slot is not None:
                self._sleep_until(slot.due, attempt)
                require_own(attempt.process)
            return slot is not None
        except (BusyError, TransactionError):
            raise  # from before the commit
        except BaseException:
            self._store.session.undo(partial(self._undo, attempt))
            raise

    def _check(self, n: int) -> None:
        if check_whole("n", n) > self._burst:
            raise ValueError(f"{n} units can never be had at once of a burst of {self._burst}")

    def _may_sleep(self) -> bool:
        try:
            self._engine.forbid_in_transaction("acquire")
        except TransactionError:
            return False
        return True

    def _take(
        self,
        n: int,
        deadline: int | None,
        attempt: _Attempt,
        may_sleep: bool,
        transaction: Transaction,
    ) -> _Slot | None:
        require_own(attempt.process)  # two rows of one number could not be told apart
        attempt.before = _state(transaction.execute(_SELECT, {"name": self._name}))
        slot = self._slot(attempt.before, n, transaction.now)
        if not _fits(slot, deadline):
            return None
        if slot.due > slot.now and not may_sleep:
            raise TransactionError(
                f"rate limiter {self._name!r}: {n} units are to be had in"
                f" {_seconds(slot.due - slot.now):.3g} s, and nothing can wait in a transaction"
            )
        if slot.tat > _LAST:
            years = _seconds(slot.due - slot.now) / _YEAR
            raise CounterOverflowError(
                f"rate limiter {self._name!r}: {n} units are to be had in {years:.0f} years, and"
                " what is used with them does not fit into 64 bits of nanoseconds"
            )
        if slot.due > slot.now:
            attempt.rest = self._store.session.rest(partial(self._undo, attempt))
        tat, fraction = divmod(slot.tat, _NANOSECOND)
        reserved = -(-slot.reserved // _NANOSECOND)
        wall = transaction.now + _seconds(slot.tat - slot.now)
        state = _State(this_process().clock, tat, fraction, reserved, wall, attempt.number)
        transaction.execute(_PUT, {"name": self._name, **state._asdict()})
        if attempt.before is None:
            self._forget_resting(transaction, slot.now)
        return slot

    def _forget_resting(self, transaction: Transaction, now: int) -> None:
        """Some of the limiters of which nothing is used any more: a row says no more than none.

        No name is read: of one that is damaged others do not hear.
        """
        rested = now // _NANOSECOND - round(REST * 1e9)
        here = {"behind": near(self._name), "some": _LOOKED_AT, "clock": this_process().clock}
        wall = transaction.now - _DAY
        transaction.execute(_FORGET_RESTING, {**here, "boot": rested, "wall": wall})

    def _sleep_until(self, due: int, attempt: _Attempt) -> None:
        if attempt.rest is None:  # it was due when it was taken
            return
        while (left := _seconds(due - self._now())) > 0:
            attempt.rest.sleep(min(left, _NAP))
            self._engine.verify()
        if attempt.rest.end() is None:
            raise ClosedError("this store was closed during a wait")

    def _undo(self, attempt: _Attempt, patience: float | None) -> None:
        self._engine.transact(partial(self._give_back, attempt), patience=patience)

    def _give_back(self, attempt: _Attempt, transaction: Transaction) -> None:
        """As if it had never been taken, if the row is still as the attempt left it.

        Raises: ForkError in a child that was forked meanwhile, by a signal's handler.
        """
        require_own(attempt.process)
        here = {"name": self._name, "undone": attempt.number}
        if attempt.before is None:
            transaction.execute(
                "delete from kvsync_rate where name = :name and attempt = :undone", here
            )
        else:
            transaction.execute(_PUT_BACK, {**here, **attempt.before._asdict()})

    # --- how it stands ------------------------------------------------------------------------

    def retry_after(self, n: int = 1) -> float:
        """Seconds until `n` units can be had, if nobody else takes any: 0.0 for now.

        Blocks no writer. Raises: ValueError for more than `burst`, and for less than one; TypeError
        for what is no int.
        """
        self._check(n)
        slot = self._look(n)
        return _seconds(slot.due - slot.now)

    def stats(self) -> RateLimiterStats:
        """Limits, and what is available. Blocks no writer."""
        slot = self._look(1)
        used = slot.counted - slot.now
        available = max(0, min(self._burst, (self._depth + self._slack - 1 - used) // self._unit))
        wait = _seconds(slot.due - slot.now)
        return RateLimiterStats(self._name, self._limit, self._per, self._burst, available, wait)

    def reset(self) -> None:
        """Forget what was used; a whole burst is available. Who waits keeps its slot.

        Raises: BusyError, ClosedError, StoreReplacedError as any call.
        """
        self._engine.write("delete from kvsync_rate where name = :name", {"name": self._name})

    # --- the arithmetic -----------------------------------------------------------------------

    def _now(self) -> int:
        """The boot clock in ticks, to the nanosecond."""
        return int(self._engine.boot() * 1e9) * _NANOSECOND

    def _look(self, n: int) -> _Slot:
        state = _state(self._engine.read(_SELECT, {"name": self._name}))
        return self._slot(state, n, self._engine.now())

    def _slot(self, state: _State | None, n: int, wall: float) -> _Slot:
        """The next slot for `n` units."""
        now = self._now()
        tat, reserved = _used(state, now, wall)
        counted = max(now, min(tat, reserved + self._depth))
        needed = n * self._unit
        due = counted + needed - self._depth
        latest = max(now, due, reserved)
        soon = due if due - now >= self._slack else now
        return _Slot(now, counted, soon, max(now, tat) + needed, latest)


def _used(state: _State | None, now: int, wall: float) -> tuple[int, int]:
    """`tat` and `reserved` in ticks of this boot clock."""
    if state is None:
        return now, now
    tat = state.tat * _NANOSECOND + state.fraction
    reserved = state.reserved * _NANOSECOND
    if state.clock != this_process().clock:
        ahead = tat - reserved
        tat = now + _ticks(max(0.0, state.wall - wall))
        reserved = min(now, tat - ahead)  # slots after that are void
    return min(tat, reserved + _LONGEST * _SECOND), reserved


def refilled_in(engine: Engine, name: str) -> float:
    """Seconds until nothing that was taken of that limiter counts any more, whatever its limits."""
    state = _state(engine.read(_SELECT, {"name": name}))
    if state is None:
        return 0.0
    ours = state.clock == this_process().clock
    return max(0.0, state.tat / 1e9 - engine.boot() if ours else state.wall - engine.now())


def _fits(slot: _Slot, deadline: int | None) -> bool:
    return deadline is None or slot.due <= max(slot.now, deadline)


def _state(rows: list[Row]) -> _State | None:
    return _State._make(rows[0]) if rows else None


def _ticks(seconds: float) -> int:
    return round(min(seconds, 100 * _LONGEST) * _SECOND)


def _seconds(ticks: int) -> float:
    return ticks / _SECOND

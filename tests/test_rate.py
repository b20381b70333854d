"""Rate limits: never more than allowed, in the order of asking, nothing lost to interruptions."""

import math
import os
import pickle
import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.clock import SystemClock
from kvsync.engine.process import this_process
from kvsync.primitives import rate
from kvsync.resting import REST
from kvsync.session import Rest
from kvsync.testing import ManualClock
from tests.interrupted import at_each_point
from tests.lines import calling
from tests.processes import (
    PATIENCE,
    eventually,
    expect,
    in_thread,
    kill,
    on_both_sides,
    run_all,
    running,
)
from tests.undone import undone

STATE = "select * from kvsync_rate order by name"


@pytest.fixture
def still(timed_store: kvsync.Store) -> kvsync.Store:
    """A store in which time stands still."""
    return timed_store


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> list[float]:
    """The naps that were taken; they move the clock on and take no time."""
    taken: list[float] = []

    def nap(_: Rest, seconds: float) -> None:
        taken.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(Rest, "sleep", nap)
    return taken


def when_asleep(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> None:
    """Let the next nap call this, and those after it take none."""
    calls = [call]

    def nap(*_: object) -> None:
        assert calls, "it sleeps again"
        calls.pop()()

    monkeypatch.setattr(Rest, "sleep", nap)


# --- how much ---------------------------------------------------------------------------------


def test_a_burst_goes_at_once_and_then_one_each_unit_of_time(
    still: kvsync.Store, clock: ManualClock
) -> None:
    """The bucket is full after a rest, never fuller."""
    limiter = still.rate_limiter("mails", 4, per=2, burst=3)
    for _ in range(2):
        assert [limiter.try_acquire() for _ in range(5)] == [True] * 3 + [False] * 2
        for _ in range(10):
            clock.advance(0.25)
            assert not limiter.try_acquire()
            clock.advance(0.25)
            assert limiter.try_acquire()
            assert not limiter.try_acquire()
        clock.advance(1000)


def test_a_burst_is_as_large_as_the_limit_unless_told(still: kvsync.Store) -> None:
    """And evenly spaced where it is one."""
    assert still.rate_limiter("a", 7, per=timedelta(minutes=1)).burst == 7
    assert still.rate_limiter("a", 7, per=timedelta(minutes=1)).per == 60
    spaced = still.rate_limiter("b", 7, per=1, burst=1)
    assert [spaced.try_acquire() for _ in range(3)] == [True, False, False]


def test_nothing_drifts_where_a_unit_is_no_whole_number(
    still: kvsync.Store, clock: ManualClock
) -> None:
    """Neither one too many nor one too few in a thousand thirds of a second."""
    limiter = still.rate_limiter("thirds", 3, per=1)
    assert limiter.try_acquire(3)
    for _ in range(1000):
        clock.advance(1 / 3)
        assert limiter.try_acquire()
        assert not limiter.try_acquire()


def test_several_units_are_had_together_or_not_at_all(
    still: kvsync.Store, clock: ManualClock
) -> None:
    """More than a burst are never had."""
    limiter = still.rate_limiter("bytes", 10, per=1, burst=10)
    assert limiter.try_acquire(6)
    assert not limiter.try_acquire(5)
    assert limiter.try_acquire(4)
    assert not limiter.try_acquire()
    clock.advance(0.5)
    assert not limiter.try_acquire(6)
    assert limiter.try_acquire(5)
    for call in (limiter.try_acquire, limiter.acquire, limiter.retry_after):
        with pytest.raises(ValueError, match="never"):
            call(11)


@pytest.mark.parametrize("seed", range(6))
def test_no_window_holds_more_than_allowed_and_no_refusal_is_without_need(
    still: kvsync.Store, clock: ManualClock, seed: int
) -> None:
    """Against a bucket of exact fractions; and, over all pairs of grants, against the promise."""
    chance = random.Random(seed)
    limit, burst = chance.randint(1, 30), chance.randint(1, 20)
    per = chance.choice([0.001, 0.1, 1.0, 7.0, 3600.0])
    limiter = still.rate_limiter("any", limit, per=per, burst=burst)
    speed, grain = Fraction(limit) / Fraction(per), Fraction(1, 10**6)
    level, last = Fraction(burst), Fraction(clock.boot())
    grants: list[tuple[Fraction, int]] = []
    for _ in range(250):
        clock.advance(per / limit * chance.choice([0.0, 0.01, 0.5, 1.0, 1.7, 5.0]))
        now, n = Fraction(clock.boot()), chance.randint(1, burst)
        level, last = min(Fraction(burst), level + (now - last) * speed), now
        if limiter.try_acquire(n):
            level -= n
            grants.append((now, n))
        else:
            assert level < n
    for first, (begin, _) in enumerate(grants):
        total = 0
        for end, n in grants[first:]:
            total += n
            assert total <= burst + (end - begin + grain) * speed


def try_many(limiter: kvsync.RateLimiter, times: int) -> int:
    return sum(limiter.try_acquire() for _ in range(times))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_all_processes_together_have_what_one_has(store: kvsync.Store, method: str) -> None:
    """Not one more, not one less; the limiter travels to them as an argument."""
    limiter = store.rate_limiter("shared", 50, per=1_000_000)
    assert sum(run_all(try_many, [(limiter, 40)] * 4, method)) == 50


def acquire_many(limiter: kvsync.RateLimiter, times: int) -> list[float]:
    moments = []
    for _ in range(times):
        assert limiter.acquire(timeout=PATIENCE)
        moments.append(SystemClock.boot())
    return moments


def test_processes_that_wait_are_never_too_early(store: kvsync.Store) -> None:
    """By the kernel's clock: the last of twenty not before nineteen units of time are over."""
    limiter = store.rate_limiter("shared", 200, per=1, burst=1)
    begin = SystemClock.boot()
    moments = sorted(chain(*run_all(acquire_many, [(limiter, 10)] * 2)))
    for count, moment in enumerate(moments):
        assert moment - begin >= count / 200 - 1e-6


# --- waiting ----------------------------------------------------------------------------------


def test_acquire_sleeps_until_its_slot_is_due(still: kvsync.Store, naps: list[float]) -> None:
    """In naps of a second, for a clock that goes on while the machine is suspended."""
    limiter = still.rate_limiter("slow", 1, per=2.5)
    assert limiter.acquire()
    assert naps == []
    assert limiter.acquire()
    assert naps == pytest.approx([1, 1, 0.5])
    assert limiter.acquire(timeout=2.5)
    assert sum(naps) == pytest.approx(5)


def test_a_slot_that_comes_too_late_is_refused_at_once(
    still: kvsync.Store, naps: list[float]
) -> None:
    """And nothing was taken."""
    limiter = still.rate_limiter("slow", 1, per=2)
    limiter.acquire()
    before = still.engine.read(STATE)
    for timeout in (0, 0.001, 1.999, timedelta(seconds=1)):
        assert not limiter.acquire(timeout=timeout)
    assert naps == []
    assert still.engine.read(STATE) == before


@pytest.mark.parametrize("forever", [None, -1, float("inf"), 1e300])
def test_these_timeouts_wait_as_long_as_it_takes(
    still: kvsync.Store, naps: list[float], forever: float | None
) -> None:
    """None, -1, infinity, and what is as good as it."""
    limiter = still.rate_limiter("slow", 1, per=1000)
    assert limiter.acquire(timeout=forever)
    assert limiter.acquire(timeout=forever)
    assert sum(naps) == pytest.approx(1000)


def test_slots_are_in_the_order_of_asking(
    still: kvsync.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes while others sleep has the slot behind theirs; a try does not pass them."""
    limiter = still.rate_limiter("line", 1, per=1)
    begin, dues = clock.boot(), []

    def another() -> None:
        assert limiter.retry_after() == 2
        when_asleep(monkeypatch, lambda: clock.advance(2))
        assert limiter.acquire()
        dues.append(clock.boot() - begin)
        assert not limiter.try_acquire()

    limiter.acquire()
    when_asleep(monkeypatch, another)
    assert limiter.acquire()
    assert dues == [2]


class Interrupted(BaseException):
    """A signal's."""


def interrupt() -> None:
    raise Interrupted


def test_an_interrupted_wait_gives_its_slot_back(
    still: kvsync.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it had never asked."""
    limiter = still.rate_limiter("slow", 1, per=1)
    limiter.acquire()
    before = still.engine.read(STATE)
    when_asleep(monkeypatch, interrupt)
    with pytest.raises(Interrupted):
        limiter.acquire()
    assert still.engine.read(STATE) == before
    clock.advance(1)
    assert limiter.try_acquire()


def test_a_slot_with_others_behind_it_is_spent(
    still: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For theirs are fixed."""
    limiter = still.rate_limiter("slow", 1, per=1)
    limiter.acquire()

    def meanwhile() -> None:
        take_slot(limiter)
        raise Interrupted

    when_asleep(monkeypatch, meanwhile)
    with pytest.raises(Interrupted):
        limiter.acquire()
    assert limiter.retry_after() == 3


def test_the_last_in_line_give_their_slots_back_one_after_the_other(
    still: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one first, and then the one that has become the last."""
    limiter = still.rate_limiter("slow", 1, per=1)
    limiter.acquire()

    def meanwhile() -> None:
        when_asleep(monkeypatch, interrupt)
        with pytest.raises(Interrupted):
            limiter.acquire()
        assert limiter.retry_after() == 2
        raise Interrupted

    when_asleep(monkeypatch, meanwhile)
    with pytest.raises(Interrupted):
        limiter.acquire()
    assert limiter.retry_after() == 1


def take_slot(limiter: kvsync.RateLimiter) -> None:
    """As one does who then sleeps on for good."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rate.RateLimiter, "_sleep_until", lambda *_: None)
        assert limiter.acquire()


@pytest.mark.parametrize("used", [0, 1, 2])
def test_an_interruption_anywhere_takes_nothing(
    still: kvsync.Store, naps: list[float], used: int
) -> None:
    """Of a first call, of one that is served at once, and of one that sleeps."""
    limiter = still.rate_limiter("slow", 2, per=1)

    def begin() -> list[Any]:
        limiter.reset()
        assert not used or limiter.try_acquire(used)
        return still.engine.read(STATE)

    before = begin()
    for _ in at_each_point(limiter.acquire):
        assert still.engine.read(STATE) == before
        before = begin()
    assert bool(naps) == (used == 2)


def test_reset_in_between_leaves_nothing_to_give_back(
    still: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot of another time is not restored over the new state."""
    limiter = still.rate_limiter("slow", 1, per=1)
    limiter.acquire()

    def meanwhile() -> None:
        limiter.reset()
        assert limiter.try_acquire()
        raise Interrupted

    when_asleep(monkeypatch, meanwhile)
    with pytest.raises(Interrupted):
        limiter.acquire()
    assert limiter.retry_after() == 1


def test_a_child_that_is_forked_in_a_wait_gives_nothing_back(
    still: kvsync.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slot is its parent's."""
    limiter = still.rate_limiter("slow", 1, per=1)
    limiter.acquire()
    children: list[int] = []

    def fork() -> None:
        children.append(os.fork())
        if not children[0]:
            raise Interrupted
        os.waitpid(children[0], 0)
        clock.advance(1)

    when_asleep(monkeypatch, fork)
    try:
        limiter.acquire()
    finally:
        if not children[0]:
            os._exit(0)
    assert limiter.retry_after() == 1


@pytest.mark.parametrize(
    ("used", "place"),
    [(0, "before"), (0, "behind"), (1, "before"), (1, "behind"), (1, "asleep")],
)
def test_a_child_that_is_forked_in_an_acquire_has_nothing_of_it(
    still: kvsync.Store, monkeypatch: pytest.MonkeyPatch, clock: ManualClock, used: int, place: str
) -> None:
    """Before the slot is taken, behind that, or in the sleep: the one slot is its parent's.

    Nor does the child give it back.
    """
    limiter = still.rate_limiter("slow", 1, per=1)
    assert not used or limiter.try_acquire()
    children: list[int] = []

    def fork(*_: object) -> None:
        if not children:
            children.append(os.fork())
            if children[0]:
                os.waitpid(children[0], 0)

    def nap(*_: object) -> None:
        if place == "asleep":
            fork()
        clock.advance(1)

    def after(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = function(*arguments)
            fork()
            return result

        return call

    monkeypatch.setattr(Rest, "sleep", nap)
    if place == "before":
        monkeypatch.setattr(rate.RateLimiter, "_may_sleep", after(rate.RateLimiter._may_sleep))
    elif place == "behind":
        monkeypatch.setattr(rate.RateLimiter, "_sleep_until", after(lambda *_: clock.advance(used)))
    got, answer = on_both_sides(limiter.acquire, children)
    assert answer == "ForkError"
    assert got is True
    assert limiter.retry_after() == 1


def wait_for_a_slot(pipe: Any, limiter: kvsync.RateLimiter) -> None:
    pipe.send("ready")
    limiter.acquire()


def test_a_killed_waiters_slot_is_spent(store: kvsync.Store) -> None:
    """Nobody else is let through too early, and nobody waits for it."""
    limiter = store.rate_limiter("slow", 1, per=1000)
    limiter.acquire()
    with running(wait_for_a_slot, limiter) as (child, pipe):
        expect(pipe)
        eventually(lambda: limiter.retry_after() > 1000)
        kill(child)
    assert 1000 < limiter.retry_after() <= 2000
    assert not limiter.acquire(timeout=1000)


# --- whose store is closed --------------------------------------------------------------------


def test_close_tells_those_who_wait_and_gives_their_slots_back(
    still: kvsync.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, not when they wake by themselves; and of all of them, whoever came first."""
    monkeypatch.setattr(rate, "_NAP", 10 * PATIENCE)
    limiter = still.rate_limiter("slow", 1, per=1)
    assert limiter.acquire()
    before = still.engine.read(STATE)
    other = kvsync.open(still.path, clock=clock)
    with ExitStack() as stack:
        calls = []
        for count in range(1, 4):
            calls.append(stack.enter_context(calling(other.rate_limiter("slow", 1, per=1).acquire)))
            eventually(lambda ahead=count + 1: limiter.retry_after() == ahead)
        other.close()
        for call in calls:
            with pytest.raises(kvsync.ClosedError):
                call.result()
    assert still.engine.read(STATE) == before


def test_close_spends_a_slot_with_others_behind_it(still: kvsync.Store, clock: ManualClock) -> None:
    """For theirs are fixed."""
    limiter = still.rate_limiter("slow", 1, per=1)
    assert limiter.acquire()
    other = kvsync.open(still.path, clock=clock)
    with calling(other.rate_limiter("slow", 1, per=1).acquire) as call:
        eventually(lambda: limiter.retry_after() == 2)
        with calling(limiter.acquire) as behind:
            eventually(lambda: limiter.retry_after() == 3)
            other.close()
            with pytest.raises(kvsync.ClosedError):
                call.result()
            assert limiter.retry_after() == 3
            clock.advance(2)
            assert behind.result()


def test_close_takes_nothing_from_who_has_waited(
    still: kvsync.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was given is used."""
    limiter = still.rate_limiter("slow", 1, per=1)
    assert limiter.acquire()
    with kvsync.open(still.path, clock=clock) as other:
        when_asleep(monkeypatch, lambda: clock.advance(1))
        assert other.rate_limiter("slow", 1, per=1).acquire()
    assert limiter.retry_after() == 1


def test_a_handler_that_closes_the_store_in_a_wait_ends_it(
    still: kvsync.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the thread that waits itself."""
    limiter = still.rate_limiter("slow", 1, per=1)
    assert limiter.acquire()
    before = still.engine.read(STATE)
    other = kvsync.open(still.path, clock=clock)
    when_asleep(monkeypatch, other.close)
    with pytest.raises(kvsync.ClosedError):
        other.rate_limiter("slow", 1, per=1).acquire()
    assert still.engine.read(STATE) == before


@pytest.mark.parametrize(("kind", "place"), [(rate.RateLimiter, "_may_sleep"), (Rest, "sleep")])
def test_a_close_that_has_only_begun_ends_an_acquire(
    still: kvsync.Store,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    kind: type,
    place: str,
) -> None:
    """Before it takes a slot; or asleep, though it be due by then: what was given back is not had.

    The engine does not know of it yet.
    """
    limiter = still.rate_limiter("slow", 1, per=1)
    assert limiter.acquire()
    before = still.engine.read(STATE)
    other = kvsync.open(still.path, clock=clock)

    def close(*_: object) -> bool:
        other.session.close()
        if kind is Rest:
            clock.advance(1)
        return True

    monkeypatch.setattr(kind, place, close)
    with pytest.raises(kvsync.ClosedError):
        other.rate_limiter("slow", 1, per=1).acquire()
    assert still.engine.read(STATE) == before
    other.close()


def test_a_file_that_is_deleted_in_a_wait_ends_it(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or those who make another would have the same units."""
    with kvsync.open(path, clock=clock) as store:
        limiter = store.rate_limiter("slow", 1, per=1)
        assert limiter.acquire()
        when_asleep(monkeypatch, lambda: (path.unlink(), clock.advance(1)))
        with pytest.raises(kvsync.StoreReplacedError):
            limiter.acquire()


def test_a_store_that_is_closed_while_it_is_busy_is_closed_all_the_same(
    still: kvsync.Store, clock: ManualClock
) -> None:
    """The slot is spent, then."""
    limiter = still.rate_limiter("slow", 1, per=1)
    assert limiter.acquire()
    other = kvsync.open(still.path, clock=clock, busy_timeout=0)
    with calling(other.rate_limiter("slow", 1, per=1).acquire) as call:
        eventually(lambda: limiter.retry_after() == 2)
        with still.transaction():
            still.counter("any").add()
            in_thread(lambda: (other.close(), True))
        with pytest.raises(kvsync.ClosedError):
            call.result()
    assert limiter.retry_after() == 2


# --- the rest ---------------------------------------------------------------------------------


def test_a_refusal_waits_for_no_writer(path: Path) -> None:
    """While another thread keeps the write lock, with no patience for it."""
    with kvsync.open(path, busy_timeout=0) as store:
        limiter = store.rate_limiter("slow", 1, per=1000)
        assert limiter.try_acquire()
        inside, over = threading.Event(), threading.Event()

        def write() -> None:
            with store.transaction():
                inside.set()
                over.wait(PATIENCE)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            assert inside.wait(PATIENCE)
            assert not limiter.try_acquire()
            with pytest.raises(kvsync.BusyError):
                store.rate_limiter("other", 1, per=1).try_acquire()
        finally:
            over.set()
            writer.join(PATIENCE)
        assert store.rate_limiter("other", 1, per=1).try_acquire()


def test_in_a_transaction_it_is_part_of_it(still: kvsync.Store) -> None:
    """What is undone was not taken."""
    limiter = still.rate_limiter("slow", 2, per=1)
    with undone(still):
        assert limiter.try_acquire(2)
        assert limiter.retry_after() == 0.5
    assert limiter.retry_after(2) == 0
    with still.transaction():
        assert limiter.acquire()
        assert limiter.try_acquire()
    assert not limiter.try_acquire()


def test_nothing_waits_in_a_transaction(still: kvsync.Store, naps: list[float]) -> None:
    """It raises where it would, takes nothing, and the transaction may go on."""
    limiter = still.rate_limiter("slow", 1, per=1)
    with still.transaction():
        assert limiter.acquire()
        for timeout in (None, 1, 5):
            with pytest.raises(kvsync.TransactionError, match="wait"):
                limiter.acquire(timeout=timeout)
        assert not limiter.acquire(timeout=0.5)
        assert limiter.retry_after() == 1
    assert limiter.retry_after() == 1
    assert naps == []


def test_retry_after_tells_when(still: kvsync.Store, clock: ManualClock) -> None:
    """Not before, and then indeed."""
    limiter = still.rate_limiter("slow", 7, per=3)
    assert limiter.retry_after(7) == 0
    assert limiter.try_acquire(7)
    for n in (7, 3, 1, 5, 7):
        clock.advance(limiter.retry_after(n) * 0.99)
        assert not limiter.try_acquire(n)
        clock.advance(limiter.retry_after(n))
        assert limiter.try_acquire(n)


def test_stats_tell_what_is_available(still: kvsync.Store, clock: ManualClock) -> None:
    """Before the first use, in between, and when more is reserved than there is."""
    limiter = still.rate_limiter("mails", 4, per=2)
    assert limiter.stats() == rate.RateLimiterStats("mails", 4, 2.0, 4, 4, 0.0)
    limiter.acquire(3)
    assert limiter.stats().available == 1
    limiter.acquire()
    assert limiter.stats().available == 0
    assert limiter.stats().retry_after == 0.5
    take_slot(limiter)
    assert limiter.stats().available == 0
    assert limiter.stats().retry_after == 1
    clock.advance(1.5)
    assert limiter.stats().available == 2


def test_reset_forgets_what_was_used(still: kvsync.Store) -> None:
    """As does deleting the name."""
    limiter = still.rate_limiter("slow", 2, per=1000)
    assert limiter.try_acquire(2)
    limiter.reset()
    assert limiter.try_acquire(2)
    assert still.names("rate_limiter") == ["slow"]
    still.delete("rate_limiter", "slow")
    assert still.names("rate_limiter") == []
    assert limiter.try_acquire(2)


@pytest.mark.parametrize(
    "name",
    ["client-{n}", "client-{n:04}", "{n}", "{n}:GET:/items/search", "10.0.0.{n}/http", "{key}"],
)
def test_limiters_that_rest_do_not_pile_up(
    still: kvsync.Store, clock: ManualClock, name: str
) -> None:
    """One for each client, say; and each that is in use stays as it is. All begin with none."""
    busy = [still.rate_limiter(f"{n:x}-busy", 1, per=1e6) for n in range(16)]
    assert all(limiter.try_acquire() for limiter in busy)
    before = still.engine.read(STATE)
    for n in range(2000):
        key = random.Random(n).randbytes(8).hex()
        assert still.rate_limiter(name.format(n=n, key=key), 5, per=1).try_acquire(5)
        clock.advance(0.5)
    assert len(still.engine.read(STATE)) < 600
    assert [row for row in still.engine.read(STATE) if row in before] == before
    assert not any(limiter.try_acquire() for limiter in busy)


def test_limiters_that_were_used_a_moment_ago_stay(still: kvsync.Store, clock: ManualClock) -> None:
    """Or those of the busy would go and come again with every call."""
    for n in range(rate._LOOKED_AT):
        assert still.rate_limiter(f"a{n}", 1000, per=1).try_acquire()
    clock.advance(REST - 1)
    assert still.rate_limiter("a", 1, per=1).try_acquire()
    assert len(still.engine.read(STATE)) == rate._LOOKED_AT + 1


def test_a_damaged_limiter_keeps_nobody_from_another(
    still: kvsync.Store, clock: ManualClock
) -> None:
    """Who adds one looks at it without reading it."""
    for name in "ab":
        assert still.rate_limiter(name, 1, per=1).try_acquire()
    still.engine.write(
        "update kvsync_rate set name = x'ff', wall = 'never', tat = 'soon' where name = 'a'"
    )
    clock.advance(1000)
    for name in ("a", "b", "c"):
        assert still.rate_limiter(name, 1, per=1).try_acquire()


def test_a_limiter_of_another_boot_rests_by_the_wall_clock(
    still: kvsync.Store, clock: ManualClock
) -> None:
    """Which may be wrong: so a day later."""
    assert still.rate_limiter("b", 1, per=10).try_acquire()
    still.engine.write("update kvsync_rate set clock = 'of another boot', tat = 0")
    for seconds, names in ((80_000, ["a", "b"]), (10_000, ["a"])):
        clock.advance(seconds)
        limiter = still.rate_limiter("a", 1, per=1)
        for _ in range(20):
            limiter.reset()
            assert limiter.try_acquire()
        assert [name for name, *_ in still.engine.read(STATE)] == names


def test_names_are_apart_and_objects_of_one_name_are_not(still: kvsync.Store) -> None:
    """A copy by pickle included; its repr tells its limits."""
    limiter = still.rate_limiter("one", 1, per=1000)
    assert limiter.try_acquire()
    assert not still.rate_limiter("one", 1, per=1000).try_acquire()
    assert not pickle.loads(pickle.dumps(limiter)).acquire(timeout=0)
    assert still.rate_limiter("two", 1, per=1000).try_acquire()
    assert repr(limiter).startswith("<kvsync.RateLimiter 'one', limit=1, per=1000.0, burst=1 in")


def test_what_was_used_survives_a_restart(path: Path, clock: ManualClock) -> None:
    """The state is in the file."""
    with kvsync.open(path, clock=clock) as store:
        assert store.rate_limiter("slow", 2, per=1000).try_acquire(2)
    with kvsync.open(path, clock=clock) as store:
        assert store.rate_limiter("slow", 2, per=1000).retry_after() == 500


def test_other_limits_under_the_name_start_from_what_they_can_express(
    still: kvsync.Store, clock: ManualClock
) -> None:
    """A burst of years used up under the old limits keeps nobody out for years.

    Nor does it end because others have used the name since.
    """
    old = still.rate_limiter("changed", 5, per=86_400 * 365)
    assert old.try_acquire(5)
    limiter = still.rate_limiter("changed", 10, per=1)
    assert limiter.retry_after() == 0.1
    assert limiter.retry_after(10) == 1
    for _ in range(20):
        assert not limiter.try_acquire()
        clock.advance(0.1)
        assert limiter.try_acquire()
    clock.advance(1)
    assert limiter.try_acquire(10)
    clock.advance(86_400)
    assert not old.try_acquire()


def test_a_smaller_burst_under_the_name_does_not_refill_a_larger_one(
    still: kvsync.Store, naps: list[float]
) -> None:
    """It has its own rate behind it, and what it has is used too."""
    large = still.rate_limiter("mixed", 10, per=10)
    small = still.rate_limiter("mixed", 10, per=10, burst=1)
    assert large.try_acquire(10)
    for seconds in range(1, 4):
        assert small.acquire()
        assert sum(naps) == pytest.approx(seconds)
        assert not large.try_acquire()
        assert large.retry_after() == pytest.approx(1)
    assert large.acquire()
    assert sum(naps) == pytest.approx(4)


def test_slots_behind_which_a_larger_burst_had_some_are_not_given_twice(
    still: kvsync.Store, clock: ManualClock
) -> None:
    """Who has the larger one need not wait behind them, but they stay where they are."""
    small = still.rate_limiter("mixed", 1, per=1)
    large = still.rate_limiter("mixed", 10, per=10, burst=100)
    for _ in range(5):
        take_slot(small)
    assert large.try_acquire()
    assert small.retry_after() == 5
    clock.advance(5)
    assert small.try_acquire()


@pytest.mark.parametrize("has_one_rate", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_limiters_of_one_name_keep_their_limits_each_and_together(
    still: kvsync.Store,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    has_one_rate: bool,
) -> None:
    """Over all pairs of grants, against what the head of the module promises."""
    chance = random.Random(seed)
    limits = [
        (1 if has_one_rate else chance.randint(1, 9), chance.choice([1, 1, 3, 10, 50]))
        for _ in range(chance.randint(2, 4))
    ]
    limiters = [still.rate_limiter("mixed", limit, per=2, burst=burst) for limit, burst in limits]
    units = [Fraction(2, limit) for limit, _ in limits]
    depths = [unit * burst for unit, (_, burst) in zip(units, limits, strict=True)]
    grain = Fraction(1, 10**6)
    dues: list[int] = []
    monkeypatch.setattr(rate.RateLimiter, "_sleep_until", lambda _, due, *__: dues.append(due))
    grants: list[tuple[Fraction, int, int]] = []
    for _ in range(200):
        clock.advance(float(chance.choice(units)) * chance.choice([0.0, 0.0, 0.1, 1.0, 3.0]))
        if chance.random() < 0.02:
            clock.advance(float(max(depths)))
        who = chance.randrange(len(limits))
        n = chance.randint(1, chance.choice([1, limits[who][1]]))
        now, wait = Fraction(clock.boot()), limiters[who].retry_after(n)
        last = max((due for due, *_ in grants), default=Fraction(0))
        assert wait <= max(Fraction(0), last + n * units[who] - now) + grain
        if wait and chance.random() < 0.8:
            assert not limiters[who].try_acquire(n)
            continue
        assert limiters[who].acquire(n)
        due = Fraction(dues[-1], rate._SECOND)
        assert abs(due - now - Fraction(wait)) <= grain
        grants.append((due, who, n))
    assert len({who for _, who, _ in grants}) == len(limits)
    grants.sort()
    for first, (begin, *_) in enumerate(grants):
        spent = [Fraction(0)] * len(limits)
        for end, who, n in grants[first:]:
            spent[who] += n * units[who]
            assert spent[who] <= depths[who] + end - begin + grain
            assert sum(spent) <= max(depths) + end - begin + grain


def test_a_damaged_moment_that_no_burst_reaches_counts_as_the_longest(
    still: kvsync.Store, clock: ManualClock
) -> None:
    """And others have their rate all the same."""
    limiter = still.rate_limiter("slow", 2, per=1)
    assert limiter.try_acquire()
    still.engine.write("update kvsync_rate set tat = :tat", {"tat": (1 << 63) - 1})
    for _ in range(3):
        assert not limiter.try_acquire()
        clock.advance(0.5)
        assert limiter.try_acquire()
    decade = 3650 * 86_400
    assert still.rate_limiter("slow", 1, per=decade).retry_after() == pytest.approx(decade)


class TwoClocks:
    """Wall time and boot time apart, as a reboot leaves them."""

    def __init__(self, wall: float, boot: float) -> None:
        self.seconds, self.since_boot = wall, boot

    def wall(self) -> float:
        return self.seconds

    def boot(self) -> float:
        return self.since_boot


@pytest.mark.parametrize(
    ("passed", "wait"),
    [(0, 100), (30, 70), (100, 0), (10_000, 0), (-5, 100), (-10_000, 100)],
)
def test_after_a_reboot_the_wall_clock_tells_what_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch, passed: float, wait: float
) -> None:
    """Never more than a burst's worth, though the wall clock be set back."""
    clock = TwoClocks(wall=1_000_000.0, boot=500_000.0)
    with kvsync.open(path, clock=clock) as store:
        limiter = store.rate_limiter("slow", 1, per=100)
        assert limiter.try_acquire()
        reboot(monkeypatch)
        clock.seconds, clock.since_boot = clock.seconds + passed, 3.0
        assert limiter.retry_after() == pytest.approx(wait)
        assert limiter.try_acquire() is (wait == 0)


@pytest.mark.parametrize("wall", [math.inf, -math.inf, 1e308, -1e308])
def test_a_wall_time_beyond_all_times_of_another_boot_is_the_end_of_one_side(
    still: kvsync.Store, wall: float
) -> None:
    """Which a damaged file may hold: at most a burst is to be waited for, at least nothing."""
    limiter = still.rate_limiter("api", 10, per=60)
    assert limiter.try_acquire(3)
    still.engine.write("update kvsync_rate set clock = 'another', wall = :wall", {"wall": wall})
    left = 0 if wall > 0 else 10
    assert limiter.stats().available == left
    assert limiter.try_acquire(10) == bool(left)
    assert limiter.retry_after(10) == 60


def test_slots_of_those_who_slept_through_no_reboot_are_void(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten had slots; none of them is there any more."""
    clock = TwoClocks(wall=1_000_000.0, boot=500_000.0)
    with kvsync.open(path, clock=clock) as store:
        limiter = store.rate_limiter("slow", 1, per=100)
        for _ in range(10):
            take_slot(limiter)
        assert limiter.retry_after() == 1000
        reboot(monkeypatch)
        clock.seconds, clock.since_boot = clock.seconds + 20, 3.0
        assert limiter.retry_after() == pytest.approx(100)


def reboot(monkeypatch: pytest.MonkeyPatch) -> None:
    later = this_process()._replace(boot="another boot")
    monkeypatch.setattr(rate, "this_process", lambda: later)


def test_long_periods_and_large_numbers_are_exact_too(
    still: kvsync.Store, clock: ManualClock
) -> None:
    """Two thousand million bytes a second, and one in ten years."""
    fast = still.rate_limiter("bytes", 2**31 - 1, per=1)
    assert fast.try_acquire(2**31 - 1)
    clock.advance(0.5)
    assert fast.stats().available == pytest.approx(2**30, rel=1e-5)
    tiny = still.rate_limiter("fractions of a nanosecond", 1_500_000_000, per=1, burst=200)
    assert try_many(tiny, 300) == 200
    slow = still.rate_limiter("decade", 1, per=timedelta(days=3650))
    for _ in range(20):
        take_slot(slow)
    assert slow.retry_after() == 20 * 3650 * 86_400.0
    for limit, per, burst in [(1, 1e-10, 1), (1, 1e300, 1), (1, 86_400 * 3650, 2)]:
        with pytest.raises(ValueError, match="ten years"):
            still.rate_limiter("beyond", limit, per=per, burst=burst)


def test_a_slot_beyond_all_moments_is_refused(still: kvsync.Store) -> None:
    """With an error that says so, and nothing is taken; who cannot wait so long hears no."""
    decade = 3650 * 86_400.0
    limiter = still.rate_limiter("decade", 1, per=decade)
    for _ in range(29):
        take_slot(limiter)
    before = still.engine.read(STATE)
    for forever in (None, -1, math.inf, 1e300, 30 * decade):
        with pytest.raises(kvsync.CounterOverflowError, match="290 years"):
            limiter.acquire(timeout=forever)
    for timeout in (0, 1, 28 * decade):
        assert not limiter.acquire(timeout=timeout)
    assert limiter.retry_after() == 29 * decade
    assert limiter.stats().available == 0
    assert still.engine.read(STATE) == before
    limiter.reset()
    assert limiter.try_acquire()

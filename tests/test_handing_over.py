"""How units pass from one to the next: by which way, by which ring, and under which token."""

import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import kvsync
from kvsync.engine import descriptors
from kvsync.engine.doorbell import LOOK, SERVED, Doorbells, Watch
from kvsync.engine.words import handed_to, word
from kvsync.primitives.grants import CLAIM_TIME, WHOLE, Grant, end
from kvsync.primitives.units import Units
from kvsync.session import MEND
from kvsync.testing import ManualClock
from kvsync.tokens import EPOCH
from kvsync.waiting import Wait, Wish, enter
from tests.interrupted import after_each_call
from tests.lines import Call, doorbells, queued
from tests.processes import PATIENCE, eventually

NAME = "job"
HOUR = 3600.0


@pytest.fixture
def store(timed_store: kvsync.Store) -> kvsync.Store:
    """One whose time moves when the test says so."""
    return timed_store


def next_word(store: kvsync.Store) -> bytes:
    """What will be sent to the head of the line."""
    ((ticket, token, slot),) = store.engine.read(
        "select min(kvsync_ticket.id), kvsync_unit.token + 1, slot from kvsync_unit, kvsync_ticket"
    )
    return word(ticket, token, slot)


def _number_of_who_waits(store: kvsync.Store, name: str) -> int:
    lock, rival = store.lock(name), store.lock(name)
    lock.acquire()
    with queued(rival.acquire, lock) as waiter:
        ((number,),) = store.engine.read(
            "select id from kvsync_ticket where name = :name", {"name": name}
        )
        lock.release()
        assert waiter.result()
        rival.release()
    return int(number)


def test_no_ticket_has_the_number_of_an_earlier_one(store: kvsync.Store) -> None:
    """In whichever line, though one comes back: what is said to it late is said to nobody else."""
    numbers = [_number_of_who_waits(store, name) for name in ("a", "b", "a")]
    store.engine.write(
        "insert into kvsync_ticket (space, name, id, kind, units, capacity, session, attempt,"
        " thread, since, state) values ('lock', 'c', :id, 'lock', 1, 1, :session, 1, '', 0,"
        " 'passed')",
        {"id": numbers[0], "session": store.session.id},
    )
    numbers.append(_number_of_who_waits(store, "a"))
    assert numbers == sorted({*numbers})


@pytest.mark.parametrize("held", [0.0, 0.0005, 1000.0])
def test_the_next_one_has_it_however_long_it_was_held(
    store: kvsync.Store, clock: ManualClock, held: float
) -> None:
    lock = store.lock(NAME)
    lock.acquire()
    with queued(store.lock(NAME).acquire, lock) as waiter:
        clock.advance(held)
        lock.release()
        assert waiter.result()
        assert len(lock.stats().holders) == 1


@pytest.mark.parametrize("held", [0.0, 1000.0])
def test_what_was_taken_away_is_lost_however_long_it_was_held(
    store: kvsync.Store, clock: ManualClock, held: float
) -> None:
    lock, other = store.lock(NAME), store.lock(NAME)
    lock.acquire()
    other.force_release()
    other.acquire()
    clock.advance(held)
    with pytest.raises(kvsync.LeaseLostError):
        lock.release()
    assert other.owned()


@dataclass
class Held:
    """A row of `kvsync_unit`; ours, if its session is."""

    slot: int
    token: int
    units: int
    capacity: int
    session: int
    expires: float | None


@dataclass
class Ticket:
    """A row of `kvsync_ticket`."""

    units: int
    capacity: int
    lease: float | None
    deadline: float | None
    state: str


_MINE, _OTHER = 7, 8
_OURS = EPOCH + 5
_HOURS = st.sampled_from([None, None, None, HOUR, -HOUR])
_UNITS = st.sampled_from([2, 2, 1])
_HELD = st.builds(
    Held,
    slot=st.just(1),
    token=st.sampled_from([_OURS] * 6 + [_OURS + 1]),
    units=_UNITS,
    capacity=st.just(2),
    session=st.sampled_from([_MINE] * 6 + [_OTHER, 0]),
    expires=_HOURS,
)
_OTHERS = st.lists(
    st.builds(
        Held,
        slot=st.sampled_from([0, 2]),
        token=st.sampled_from([_OURS - 2, _OURS - 1, _OURS + 2]),
        units=st.just(1),
        capacity=st.just(2),
        session=st.sampled_from([0, 0, 0, _OTHER, _MINE]),
        expires=st.none(),
    ),
    max_size=1,
)
_LINE = st.lists(
    st.builds(
        Ticket,
        units=_UNITS,
        capacity=st.just(2),
        lease=st.sampled_from([None, 1.5]),
        deadline=_HOURS,
        state=st.sampled_from(["waiting"] * 6 + ["granted", "passed"]),
    ),
    min_size=1,
    max_size=4,
)


class Moment:
    """What is held and who waits at one moment; it can be had again and again."""

    def __init__(self, store: kvsync.Store, held: list[Held], line: list[Ticket]) -> None:
        self._store, self._held, self._line = store, held, line

    def again(self) -> None:
        now = {"boot": self._store.engine.boot(), "name": NAME}
        for table in ("kvsync_unit", "kvsync_ticket"):
            self._store.engine.write(f"delete from {table}")
        for unit in self._held:
            self._store.engine.write(
                "insert or replace into kvsync_unit (space, name, slot, token, kind, units,"
                " capacity, session, attempt, thread, since, expires) values ('lock', :name, :slot,"
                " :token, 'lock', :units, :capacity, :session, 1, 'one', 1.0, :boot + :expires)",
                {**now, **vars(unit)},
            )
        for id, ticket in enumerate(self._line, 1):
            self._store.engine.write(
                "insert into kvsync_ticket (id, space, name, kind, units, capacity, session,"
                " attempt, thread, doorbell, since, lease, deadline, state) values (:id, 'lock',"
                " :name, 'lock', :units, :capacity, :id, :id, 'one', 'bell ' || :id, 1.0, :lease,"
                " :boot + :deadline, :state)",
                {**now, **vars(ticket), "id": id},
            )

    def found(self) -> list[Any]:
        """Where units have their slots is nobody's business."""
        grants = "select * from kvsync_grant order by id, units, session"  # the last: doorbell
        tickets = "select id, * from kvsync_ticket order by id"
        return [self._store.engine.read(sql) for sql in (grants, tickets)]


@settings(max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(held=_HELD, others=_OTHERS, line=_LINE)
def test_handing_over_is_what_freeing_and_serving_come_to(
    store: kvsync.Store,
    rings: list[tuple[str, bytes]],
    held: Held,
    others: list[Held],
    line: list[Ticket],
) -> None:
    """But for the ticket, which is gone. Or it does nothing at all."""
    assert store.session.id  # it has begun, and with it this boot's epoch
    units = Units(store.session, "lock", NAME, 2)
    moment = Moment(store, [*others, held], line)
    moment.again()
    before = moment.found()
    rings.clear()
    grant = Grant(_OURS, NAME, slot=1, session=_MINE)
    handed = units._hand_over(grant, None)
    after, rung = moment.found(), rings[:]
    event(f"handed over: {bool(handed)}")
    if not handed:
        assert after == before
        assert rung == []
        return
    (bell, told), *others_rung = rung
    ((ticket, given_token),) = [
        (each, said[0]) for each in range(1, 9) if (said := handed_to(each, told))
    ]
    moment.again()
    rings.clear()
    ((expires,),) = units._drop(grant, None)
    assert expires is None or expires > store.engine.boot()
    assert rings == [(bell, SERVED), *others_rung]
    grants, tickets = moment.found()
    assert tickets == sorted([*after[1], *(each for each in tickets if each[0] == ticket)])
    given = [(*each[:-1], bell) if each[0] == given_token else each for each in grants]
    assert given == after[0]


@given(line=_LINE)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_taken_back_is_as_it_was_but_passed(
    store: kvsync.Store, line: list[Ticket]
) -> None:
    assert store.session.id
    units = Units(store.session, "lock", NAME, 2)
    held = Held(1, _OURS, 2, 2, _MINE, None)
    moment = Moment(store, [held], line)
    moment.again()
    _, before = moment.found()
    if not units._hand_over(Grant(_OURS, NAME, slot=1, session=_MINE), None):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Doorbells, "take_back", lambda *_: True)
        assert store.engine.transact(
            lambda transaction: end("lock", NAME, store.engine, transaction, _OURS + 1)
        )
    state, token = -2, -1
    passed = [list(each) for each in before]
    head = next(each for each in passed if each[state] == "waiting")
    head[state], head[token] = "passed", _OURS + 1
    assert moment.found() == [[], [tuple(each) for each in passed]]


def test_a_lock_that_is_waited_for_changes_hands_in_one_statement(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is claimed in one."""
    monkeypatch.setattr(Units, "_drop", None)
    lock = store.lock(NAME)
    lock.acquire()
    with ExitStack() as stack:
        calls = [stack.enter_context(queued(store.lock(NAME).acquire, lock)) for _ in range(2)]
        monkeypatch.setattr(Units, "_claim", None)
        lock.release()
        assert calls[0].result()
        monkeypatch.undo()
        lock.force_release()
        assert calls[1].result()


def test_a_ring_alone_gives_nothing(store: kvsync.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is told that it was served, and was not, goes on waiting."""
    claims: list[Any] = []
    claim = Units._claim

    def noted(self: Units, *arguments: Any) -> Any:
        claims.append(claim(self, *arguments))
        return claims[-1]

    lock = store.lock(NAME)
    lock.acquire()
    with queued(store.lock(NAME).acquire, lock) as waiter:
        monkeypatch.setattr(Units, "_claim", noted)
        store.engine.doorbells.ring(doorbells(store)[0], SERVED)
        eventually(lambda: claims == [None])
        assert lock.owned()
        assert len(lock.stats().waiters) == 1
        lock.release()
        assert waiter.result()


def test_who_was_served_is_told_so_and_who_comes_first_then_is_told_to_look(
    store: kvsync.Store, rings: list[tuple[str, bytes]]
) -> None:
    lock = store.lock(NAME)
    lock.acquire()
    with ExitStack() as stack:
        calls = [stack.enter_context(queued(store.lock(NAME).acquire, lock)) for _ in range(3)]
        first, second, _ = doorbells(store)
        word = next_word(store)
        rings.clear()
        lock.release()
        assert rings == [(first, word), (second, LOOK)]
        assert calls[0].result()
        lock.force_release()
        assert calls[1].result()
        lock.force_release()
        assert calls[2].result()


def test_who_hands_over_makes_way_for_whom_it_woke(
    store: kvsync.Store,
    path: Path,
    rings: list[tuple[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who may write at once: nobody has the gate then."""
    ways: list[int] = []

    def note() -> None:
        with open(f"{path}-kvsync/gate", "rb") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ways.append(len(rings))

    lock = store.lock(NAME)
    monkeypatch.setattr("kvsync.engine.sqlite.make_way", note)
    lock.acquire()
    lock.release()
    assert ways == []
    lock.acquire()
    with queued(store.lock(NAME).acquire, lock) as waiter:
        rings.clear()
        lock.release()
        assert ways == [1]
        assert waiter.result()


def test_who_was_served_after_a_long_wait_tells_who_has_come_near(
    store: kvsync.Store, rings: list[tuple[str, bytes]], has_rested: Callable[[], None]
) -> None:
    """The second and third now, who may look seldom; the first one was told already."""
    lock = store.lock(NAME)
    lock.acquire()
    with ExitStack() as stack:
        calls = [stack.enter_context(queued(store.lock(NAME).acquire, lock)) for _ in range(5)]
        first, second, third, fourth, _ = doorbells(store)
        word = next_word(store)
        rings.clear()
        has_rested()
        lock.release()
        assert calls[0].result()
        assert rings[0] == (first, word)
        # By who has released it, and who was served, at the same time.
        assert sorted(rings[1:]) == sorted((each, LOOK) for each in (second, third, fourth))
        for call in calls[1:]:
            lock.force_release()
            assert call.result()


def test_who_was_served_has_it_though_nobody_behind_can_be_told(
    store: kvsync.Store,
    rings: list[tuple[str, bytes]],
    has_rested: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = store.lock(NAME)
    lock.acquire()
    with queued(store.lock(NAME).acquire, lock) as call:
        has_rested()

        def fail(*_: object) -> None:
            rings.clear()
            raise kvsync.BusyError("the store is busy")

        monkeypatch.setattr(Wait, "_ring_behind", fail)
        lock.release()
        assert call.result() is True
    assert rings == []


def test_who_gives_up_after_a_long_wait_tells_who_has_come_near_by_that(
    store: kvsync.Store,
    clock: ManualClock,
    rings: list[tuple[str, bytes]],
    has_rested: Callable[[], None],
) -> None:
    """The first one behind it is told anyhow."""
    lock = store.lock(NAME)
    lock.acquire()
    with ExitStack() as stack:
        calls = [
            stack.enter_context(queued(partial(store.lock(NAME).acquire, timeout=time), lock))
            for time in (10, None, None, None, None)
        ]
        bell, first, second, third, _ = doorbells(store)
        has_rested()
        clock.advance(20)
        rings.clear()
        store.engine.doorbells.ring(bell)
        assert not calls[0].result()
        assert rings[1:] == [(each, LOOK) for each in (first, second, third)]
        for call in calls[1:]:
            lock.force_release()
            assert call.result()


def test_several_that_were_served_after_a_long_wait_tell_who_has_come_near(
    store: kvsync.Store, rings: list[tuple[str, bytes]], has_rested: Callable[[], None]
) -> None:
    """However many were served at once, those that are second and third then are told."""
    gate = store.semaphore(NAME, 3)
    gate.acquire(n=3)
    with ExitStack() as stack:
        calls = [stack.enter_context(queued(gate.acquire, gate)) for _ in range(6)]
        *_, second, third = doorbells(store)
        rings.clear()
        has_rested()
        gate.release(3)
        for call in calls[:3]:
            assert call.result()
        assert {(second, LOOK), (third, LOOK)} <= set(rings)
        gate.release(3)
        for call in calls[3:]:
            assert call.result()


def test_who_joins_the_line_rings_nobody(
    store: kvsync.Store, rings: list[tuple[str, bytes]]
) -> None:
    lock = store.lock(NAME)
    lock.acquire()
    with ExitStack() as stack:
        calls = [stack.enter_context(queued(store.lock(NAME).acquire, lock)) for _ in range(3)]
        assert rings == []
        lock.release()
        for call in calls:
            assert call.result()
            lock.force_release()


def test_who_tries_in_vain_rings_nobody(
    store: kvsync.Store, rings: list[tuple[str, bytes]]
) -> None:
    """The line is as it was: who polls keeps nobody awake."""
    lock = store.lock(NAME)
    lock.acquire()
    with ExitStack() as stack:
        calls = [stack.enter_context(queued(store.lock(NAME).acquire, lock)) for _ in range(2)]
        assert not store.lock(NAME).acquire(blocking=False)
        assert not store.rwlock(NAME).read().acquire(timeout=0)
        assert rings == []
        lock.release()
        for call in calls:
            assert call.result()
            lock.force_release()


def test_who_gives_up_rings_the_one_behind_it_and_nobody_else(
    store: kvsync.Store, clock: ManualClock, rings: list[tuple[str, bytes]]
) -> None:
    """Which has another to watch then; the head of the line has not."""
    lock = store.lock(NAME)
    lock.acquire()
    times = [None, 10, None, 10]
    with ExitStack() as stack:
        calls = [
            stack.enter_context(queued(partial(store.lock(NAME).acquire, timeout=time), lock))
            for time in times
        ]
        _, second, third, last = doorbells(store)
        clock.advance(20)
        rings.clear()
        for each, call in ((last, calls[3]), (second, calls[1])):
            store.engine.doorbells.ring(each)
            assert not call.result()
        assert rings == [(last, LOOK), (second, LOOK), (third, LOOK)]
        lock.release()
        for call in calls[::2]:
            assert call.result()
            lock.force_release()


def test_who_joins_after_a_lease_is_over_rings_who_gets_it(
    store: kvsync.Store, clock: ManualClock, rings: list[tuple[str, bytes]]
) -> None:
    leased, lock = store.lock(NAME, lease=10), store.lock(NAME)
    leased.acquire()
    with queued(lock.acquire, lock) as waiter:
        (first,) = doorbells(store)
        rings.clear()
        clock.advance(20)
        assert not store.lock(NAME).acquire(blocking=False)
        assert waiter.result()
    assert rings[:1] in ([(first, SERVED)], [])  # the waiter's own look may come before


def test_a_line_longer_than_what_is_read_at_once_is_served_at_once(store: kvsync.Store) -> None:
    lock = store.rwlock(NAME)
    with ExitStack() as stack:
        lock.write().acquire()
        readers = [
            stack.enter_context(queued(store.rwlock(NAME).read().acquire, lock)) for _ in range(9)
        ]
        lock.write().release()
        assert all(reader.result() for reader in readers)
        assert len(lock.stats().holders) == 9


def test_a_writers_token_is_larger_than_those_of_all_readers_before(store: kvsync.Store) -> None:
    tokens: list[int] = []
    for _ in range(3):
        for _ in range(3):
            readers = [store.rwlock(NAME).read() for _ in range(3)]
            for reader in readers:
                with reader as grant:
                    tokens.append(grant.token)
            for reader in readers:
                reader.acquire()
                tokens.append(reader.token or 0)
            for reader in reversed(readers):
                reader.release()
        for _ in range(2):
            with store.rwlock(NAME).write() as grant:
                tokens.append(grant.token)
    assert tokens == sorted(set(tokens))


def enter_and_sleep(other: kvsync.Store, wish: Wish) -> None:
    """As who is stopped then; its boot clock is not the others'."""
    session = other.session
    session.begin(None)
    other.engine.transact(lambda transaction: enter(session, transaction, wish, None))
    row = {"id": session.id}
    other.engine.write("update kvsync_session set clock = 'another' where id = :id", row)


@pytest.mark.parametrize("kind", ["lock", "queue"])
def test_who_waits_behind_a_gift_on_another_boot_clock_sleeps(
    store: kvsync.Store,
    path: Path,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Nobody else can tell whether the time to claim it is over."""
    lock, jobs = store.lock(NAME), store.queue(NAME)
    slept, sleep = Event(), Wait._sleep
    mends: list[str] = []

    def mend(*_: object) -> None:
        mends.append(kind)
        assert len(mends) < 10, "it does not sleep"

    def note(self: Wait, *arguments: Any) -> bool:
        slept.set()
        return sleep(self, *arguments)

    with kvsync.open(path, clock=clock) as other:
        if kind == "lock":
            lock.acquire()
            enter_and_sleep(other, Wish(kind, NAME, "lock", 1, units=WHOLE, capacity=WHOLE))
            lock.release()
        else:
            enter_and_sleep(other, Wish(kind, NAME, "reserve", 1))
            jobs.put("a")
        clock.advance(2 * CLAIM_TIME)
        monkeypatch.setattr(Wait, "_sleep", note)
        with monkeypatch.context() as patch:
            patch.setitem(MEND, kind, mend)
            call = Call(store.lock(NAME).acquire if kind == "lock" else jobs.reserve)
            eventually(lambda: slept.is_set() or call.is_over)
            assert slept.is_set(), call.result()
        other.close()
        assert call.result()
        call.end()


class Waking(NamedTuple):
    """Somebody waits, and somebody else does what it waits for."""

    line: Any
    prepare: Callable[[], Any]
    wait: Callable[[], Any]
    wake: Callable[[], Any]
    is_to_come: Callable[[], bool]
    """Whether `wake` has not come about yet."""


def _passing(held: Any, rival: Any, wake: Callable[[], Any] | None = None) -> Waking:
    def wait() -> None:
        with rival:
            pass

    return Waking(held, held.acquire, wait, wake or held.release, held.owned)


def _event(store: kvsync.Store) -> Waking:
    flag = store.event(NAME)
    return Waking(flag, flag.clear, flag.wait, flag.set, lambda: not flag.is_set())


WAKINGS: dict[str, Callable[[kvsync.Store], Waking]] = {
    "release": lambda store: _passing(store.lock(NAME), store.lock(NAME)),
    "release of some": lambda store: _passing(
        store.rwlock(NAME).read(), store.rwlock(NAME).write()
    ),
    "force": lambda store: _passing(
        store.lock(NAME), store.lock(NAME), store.lock(NAME).force_release
    ),
    "event": _event,
}


@pytest.mark.usefixtures("head_waits_to_be_woken")
@pytest.mark.parametrize("make", WAKINGS.values(), ids=WAKINGS)
def test_whatever_interrupts_who_wakes_the_next_one_it_wakes(
    store: kvsync.Store, make: Callable[[kvsync.Store], Waking]
) -> None:
    """Between the commit and the ring, too, and while it rings."""
    waking = make(store)
    waking.prepare()
    with ExitStack() as stack:
        waiter = stack.enter_context(queued(waking.wait, waking.line))
        for place in after_each_call(waking.wake):
            if waking.is_to_come():
                waking.wake()
            try:
                waiter.result()
            except AssertionError:
                pytest.fail(f"it is not woken: {place}")
            stack.close()
            waking.prepare()
            waiter = stack.enter_context(queued(waking.wait, waking.line))
        waiter.result()


def watches() -> int:
    """How many this process has open: FIFOs, to be written to."""
    modes = [
        fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        for number, _ in list(descriptors._open.values())
        if stat.S_ISFIFO(os.fstat(number).st_mode)
    ]
    return modes.count(os.O_WRONLY)


@pytest.fixture
def _tidy() -> None:
    """What other tests have left is closed."""
    descriptors.close_lost()
    assert watches() == 0


def wait_for(lock: kvsync.Lock, other: kvsync.Lock) -> None:
    """Take a lock that has to be waited for, from who is as good as another process."""
    other.acquire()
    with queued(lock.acquire, other) as waiter, pytest.MonkeyPatch.context() as patch:
        eventually(lambda: any(isinstance(key(), Watch) for key in list(descriptors._open)))
        patch.setattr(Doorbells, "tidy", lambda _: None)
        other.release()
        assert waiter.result()


@pytest.mark.usefixtures("_tidy")
def test_of_what_waits_have_watched_one_at_most_is_left_open(store: kvsync.Store) -> None:
    """Until what was waited for is given back: closing takes time, and who has just been served is
    in a hurry."""
    locks = [store.lock(f"{NAME}-{number}") for number in range(20)]
    for lock in locks:
        wait_for(lock, store.lock(lock.name))
        assert watches() == 1
    locks[0].release()
    assert watches() == 0


@pytest.mark.usefixtures("_tidy")
def test_what_is_left_of_a_wait_is_closed_with_the_store(path: Path) -> None:
    with kvsync.open(path) as store:
        wait_for(store.lock(NAME), store.lock(NAME))
        assert watches() == 1
    assert watches() == 0


@pytest.mark.usefixtures("_tidy")
def test_a_wait_that_watched_several_closes_them_at_its_end(store: kvsync.Store) -> None:
    """There may be any number of them: the holders of a semaphore."""
    with ExitStack() as stack:
        others = [stack.enter_context(kvsync.open(store.path)) for _ in range(3)]
        held = [other.semaphore(NAME, 3) for other in others]
        ours = store.semaphore(NAME, 3)
        for each in held:
            each.acquire()
        with queued(ours.acquire, ours) as waiter:
            eventually(lambda: watches() == 3)
            held[0].release()
            assert waiter.result()
        assert watches() == 0


@pytest.mark.usefixtures("_tidy")
def test_a_wait_in_vain_leaves_nothing_open(path: Path) -> None:
    with kvsync.open(path) as store, store.lock(NAME):
        assert not store.lock(NAME).acquire(timeout=0.001)
        assert watches() == 0


@pytest.mark.usefixtures("_tidy")
def test_a_wait_that_is_kept_keeps_no_watch(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a cycle of references."""
    kept: list[Wait] = []
    leave = Wait.leave

    def leave_and_keep(self: Wait) -> None:
        leave(self)
        kept.append(self)

    monkeypatch.setattr(Wait, "leave", leave_and_keep)
    with kvsync.open(store.path) as other:
        lock = store.lock(NAME)
        wait_for(lock, other.lock(NAME))
        lock.release()
        assert kept
        assert watches() == 0


@pytest.mark.usefixtures("_tidy")
def test_an_exception_that_a_program_keeps_keeps_no_watch(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        assert watches() == 1
        raise LookupError

    with kvsync.open(store.path) as other, other.lock(NAME):
        monkeypatch.setattr(Wait, "_sleep", fail)
        with pytest.raises(LookupError) as kept:
            store.lock(NAME).acquire(timeout=PATIENCE)
        assert watches() == 0
    assert kept

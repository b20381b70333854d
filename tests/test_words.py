"""The word that hands a lock over: who reads it has it, and whatever becomes of it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvsync
from kvsync.engine import Row, Transaction, sqlite
from kvsync.engine.doorbell import LOOK, SERVED, Doorbell, Doorbells
from kvsync.engine.shapes import require_shapes
from kvsync.engine.statements import Statement, statements
from kvsync.engine.words import handed_to, word
from kvsync.primitives.grants import CLAIM_TIME, HAND_OVER
from kvsync.primitives.overview import lines
from kvsync.primitives.units import Units
from kvsync.testing import ManualClock
from kvsync.waiting import Wait
from tests.interrupted import after_each_call
from tests.lines import Call, doorbells, queued
from tests.processes import eventually, expect, running, stop

NAME = "job"


@pytest.fixture
def store(timed_store: kvsync.Store) -> kvsync.Store:
    """One whose time moves when the test says so."""
    return timed_store


@pytest.fixture
def lock(store: kvsync.Store) -> kvsync.Lock:
    """It is held."""
    lock = store.lock(NAME)
    assert lock.acquire()
    return lock


_naps: list[Doorbell] = []
"""The doorbells that this process has slept at."""


pytestmark = pytest.mark.usefixtures("head_waits_to_be_woken", "others_wait_to_be_woken")


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are noted."""
    wait = Doorbell.wait

    def noted(self: Doorbell, *arguments: Any) -> Any:
        _naps.append(self)
        return wait(self, *arguments)

    monkeypatch.setattr(Doorbell, "wait", noted)


@contextmanager
def asleep(function: Callable[[], Any], line: Any) -> Iterator[Call]:
    """`queued`, once the caller has looked and will not again unless it is woken."""
    before = len(_naps)
    with queued(function, line) as call:
        eventually(lambda: len(_naps) > before)
        yield call


def row(store: kvsync.Store) -> dict[str, Any]:
    """Of the grant."""
    names = ("ticket", "token", "slot", "claim_by", "doorbell", "expires")
    (values,) = store.engine.read(f"select {', '.join(names)} from kvsync_unit where session <> 0")
    return dict(zip(names, values, strict=True))


def word_of(store: kvsync.Store) -> bytes:
    """The one that belongs to the grant."""
    found = row(store)
    return word(found["ticket"], found["token"], found["slot"])


@pytest.fixture
def unsent(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on nobody rings, and nobody looks unless it is rung; call it for that to end."""
    before = {name: getattr(Doorbells, name) for name in ("ring", "saying")}
    monkeypatch.setattr(Doorbells, "ring", lambda *_: None)
    monkeypatch.setattr(Doorbells, "saying", lambda *_: iter(()))

    def end() -> None:
        for name, method in before.items():
            monkeypatch.setattr(Doorbells, name, method)

    return end


# --- what it says ---------------------------------------------------------------------------------


@given(
    words=st.lists(st.tuples(*[st.integers(0, 1 << 62)] * 3), unique_by=lambda each: each[0]),
    between=st.sampled_from([b"", LOOK, SERVED, LOOK + SERVED]),
)
def test_each_word_is_found_among_the_rings(
    words: list[tuple[int, int, int]], between: bytes
) -> None:
    rings = between + between.join(word(*each) for each in words) + between
    for ticket, token, slot in words:
        assert handed_to(ticket, rings) == (token, slot)
    assert handed_to(-1, rings) is None


@pytest.mark.parametrize(
    "rings", [b"", b"!", b"+", b"=", b"=7", b"=7:1:2", b"7:1:2;", b"=7;", b"=7:1:x;", b"=7:1:2:3;"]
)
def test_what_is_no_whole_word_says_nothing(rings: bytes) -> None:
    assert handed_to(7, rings) is None
    assert handed_to(7, rings + b"=77:1:2;") is None


# --- who reads it ---------------------------------------------------------------------------------


def test_who_reads_it_has_the_lock_and_writes_nothing(
    store: kvsync.Store, lock: kvsync.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Units, "_claim_at_once", None)
    rival = store.lock(NAME)
    with asleep(rival.acquire, lock) as waiter:
        lock.release()
        assert waiter.result()
        found = row(store)
        assert (found["token"], found["claim_by"] is None) == (rival.token, False)
        assert rival.owned()
        assert rival.stats().waiters == ()
        rival.release()
    assert not rival.locked()


def test_what_was_read_is_not_taken_back(
    store: kvsync.Store, lock: kvsync.Lock, clock: ManualClock
) -> None:
    """However long it is held; who comes writes down that it is."""
    rival = store.lock(NAME)
    with asleep(rival.acquire, lock) as waiter:
        lock.release()
        assert waiter.result()
        assert row(store)["claim_by"] is not None
        clock.advance(CLAIM_TIME)
        assert rival.locked()
        assert not lock.acquire(blocking=False)
        assert row(store)["claim_by"] is None
        clock.advance(1000)
        with asleep(lock.acquire, rival) as again:
            rival.release()
            assert again.result()
        assert lock.owned()


def test_a_lease_begins_when_the_word_is_read(
    store: kvsync.Store, lock: kvsync.Lock, clock: ManualClock, unsent: Callable[[], None]
) -> None:
    rival = store.lock(NAME, lease=10)
    with asleep(rival.acquire, lock) as waiter:
        lock.release()
        word, found = word_of(store), row(store)
        clock.advance(0.5)
        unsent()
        store.engine.doorbells.ring(found["doorbell"], word)
        assert waiter.result()
        assert row(store)["expires"] == found["expires"] + 0.5
        assert row(store)["claim_by"] is None


@pytest.mark.parametrize("kind", ["lock", "write"])
def test_extending_or_shrinking_what_was_handed_over_keeps_it(
    store: kvsync.Store, clock: ManualClock, kind: str
) -> None:
    first, second = (store.rwlock(NAME) for _ in range(2))
    held = first.write()
    held.acquire()
    with asleep(second.write().acquire, first) as waiter:
        held.release()
        assert waiter.result()
        assert row(store)["claim_by"] is not None
        if kind == "lock":
            second.write().extend(1000)
        else:
            second.write().downgrade()
        assert row(store)["claim_by"] is None
        clock.advance(2 * CLAIM_TIME)
        assert not first.write().acquire(blocking=False)
        assert first.read().acquire(blocking=False) == (kind == "write")


def test_a_replaced_database_is_noticed_by_who_reads_it(
    store: kvsync.Store, lock: kvsync.Lock, unsent: Callable[[], None], path: Path
) -> None:
    """Another database at that place may have a ticket of that number."""
    with asleep(store.lock(NAME).acquire, lock) as waiter:
        lock.release()
        word, bell = word_of(store), row(store)["doorbell"]
        path.rename(path.with_name("away"))
        unsent()
        store.engine.doorbells.ring(bell, word)
        with pytest.raises(kvsync.StoreReplacedError):
            waiter.result()
        path.with_name("away").rename(path)


def test_who_would_hand_it_over_in_a_replaced_database_writes_nothing(
    store: kvsync.Store, lock: kvsync.Lock, clock: ManualClock, path: Path
) -> None:
    """Into its log, that is, which the database that is there now may have for its own."""
    log = Path(f"{path}-wal")
    clock.advance(1)  # so that handing it over is tried first
    with asleep(store.lock(NAME).acquire, lock):
        store.counter("any").add()  # it looks, so that other writes do not for a moment
        path.rename(path.with_name("away"))
        before = log.read_bytes()
        with pytest.raises(kvsync.StoreReplacedError):
            lock.release()
        assert log.read_bytes() == before
        path.with_name("away").rename(path)


# --- who does not ---------------------------------------------------------------------------------


def test_who_looks_before_it_comes_claims_and_it_does_no_harm_after(
    store: kvsync.Store, lock: kvsync.Lock, clock: ManualClock, unsent: Callable[[], None]
) -> None:
    """A word that nobody has read, of a wait that is over."""
    rival = store.lock(NAME)
    with asleep(rival.acquire, lock) as waiter:
        lock.release()
        late, bell = word_of(store), row(store)["doorbell"]
        unsent()
        store.engine.doorbells.ring(bell)
        assert waiter.result()
        assert row(store)["claim_by"] is None
        assert row(store)["doorbell"] is None
        store.engine.doorbells.ring(bell, late)
        clock.advance(2 * CLAIM_TIME)
        assert not lock.acquire(blocking=False)
        # The next one who waits at that doorbell does not take it for its own.
        with asleep(lock.acquire, rival) as next_one:
            assert doorbells(store) == [bell]
            assert not next_one.is_over
            rival.release()
            assert next_one.result()
            assert lock.owned()


def wait_for_it(pipe: Any, path: str) -> None:
    lock = kvsync.open(path).lock(NAME)
    pipe.send("waits")
    lock.acquire()
    pipe.send(lock.token)
    pipe.recv()


@pytest.fixture
def stopped(store: kvsync.Store, lock: kvsync.Lock) -> Iterator[tuple[Any, Any]]:
    """A process that is stopped while it waits, and its pipe."""
    with running(wait_for_it, store.path) as (child, pipe):
        expect(pipe)
        eventually(lambda: lock.stats().waiters)
        stop(child, store.path)
        yield child, pipe


def test_what_is_not_read_in_time_passes_on_and_its_owner_has_its_old_place(
    store: kvsync.Store, lock: kvsync.Lock, clock: ManualClock, stopped: tuple[Any, Any]
) -> None:
    child, pipe = stopped
    before = lock.stats().waiters
    lock.release()
    assert lock.stats().waiters == ()
    assert not lock.acquire(blocking=False)
    clock.advance(CLAIM_TIME)
    assert lock.acquire(blocking=False)
    assert lock.stats().waiters == before
    with asleep(store.lock(NAME).acquire, lock) as behind:
        os.kill(child.pid, signal.SIGCONT)
        eventually(lambda: _states(store) == ["waiting", "waiting"])
        lock.release()
        assert expect(pipe) == row(store)["token"]
        assert not behind.is_over
        pipe.send("end")
        assert behind.result()


def _states(store: kvsync.Store) -> list[str]:
    return [state for (state,) in store.engine.read("select state from kvsync_ticket order by id")]


def test_a_refused_call_does_not_make_a_holder_of_who_has_not_read_it(
    store: kvsync.Store, lock: kvsync.Lock, clock: ManualClock, stopped: tuple[Any, Any]
) -> None:
    """It had taken the word back, and that was undone with the rest."""
    assert stopped
    with pytest.raises(kvsync.LimitError):
        Units(store.session, "lock", NAME, 2).acquire("lock", 1, 0, None)
    lock.release()
    clock.advance(CLAIM_TIME)
    with pytest.raises(kvsync.LimitError):
        Units(store.session, "lock", NAME, 2).acquire("lock", 1, 0, None)
    assert lock.acquire(blocking=False)


def test_who_asks_finds_out_that_it_is_not_held(
    store: kvsync.Store, lock: kvsync.Lock, clock: ManualClock, stopped: tuple[Any, Any]
) -> None:
    lock.release()
    assert lock.holder().pid == stopped[0].pid
    clock.advance(CLAIM_TIME)
    assert not lock.locked()
    (line,) = lines(store.engine)
    assert line.holders == ()
    assert [each.passed for each in line.waiters] == [True]


def test_what_cannot_be_found_out_now_is_held(
    store: kvsync.Store, lock: kvsync.Lock, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as is known: the store is busy."""

    def busy(*_: object, **__: object) -> None:
        raise kvsync.BusyError("the store is busy")

    rival = store.lock(NAME)
    with asleep(rival.acquire, lock) as waiter:
        lock.release()
        assert waiter.result()
        clock.advance(CLAIM_TIME)
        monkeypatch.setattr(type(store.engine), "transact", busy)
        assert rival.locked()
        (line,) = lines(store.engine)
        assert [each.claimed for each in line.holders] == [True]
        monkeypatch.undo()


def test_who_lists_finds_out_too(
    store: kvsync.Store, lock: kvsync.Lock, clock: ManualClock, stopped: tuple[Any, Any]
) -> None:
    lock.release()
    clock.advance(CLAIM_TIME)
    (line,) = lines(store.engine)
    assert line.holders == ()
    assert [each.session for each in line.waiters] == [store.session.id + 1]
    assert stopped


def test_with_a_lease_it_is_not_held_before_it_is_claimed(
    store: kvsync.Store, lock: kvsync.Lock, clock: ManualClock, unsent: Callable[[], None]
) -> None:
    """Who was stopped between reading and claiming has its old place."""
    with asleep(store.lock(NAME, lease=0.5).acquire, lock) as waiter:
        lock.release()
        bell = row(store)["doorbell"]
        clock.advance(0.5)
        assert lock.acquire(blocking=False)
        assert _states(store) == ["passed"]
        unsent()
        store.engine.doorbells.ring(bell)
        eventually(lambda: _states(store) == ["waiting"])
        lock.release()
        assert waiter.result()


def test_force_takes_it_back_from_who_has_not_read_it(
    store: kvsync.Store, lock: kvsync.Lock, stopped: tuple[Any, Any]
) -> None:
    lock.release()
    (holder,) = lock.force_release()
    assert holder.pid == stopped[0].pid
    assert _states(store) == ["passed"]
    assert lock.acquire(blocking=False)


def test_who_never_got_it_is_taken_for_a_holder_and_is_one(
    store: kvsync.Store,
    lock: kvsync.Lock,
    clock: ManualClock,
    unsent: Callable[[], None],
) -> None:
    """Who should have sent it was killed right then, and its owner is stopped until later."""
    rival = store.lock(NAME)
    with asleep(rival.acquire, lock) as waiter:
        lock.release()
        bell = row(store)["doorbell"]
        clock.advance(CLAIM_TIME)
        assert not lock.acquire(blocking=False)
        assert row(store)["claim_by"] is None
        assert not waiter.is_over
        unsent()
        store.engine.doorbells.ring(bell)
        assert waiter.result()
        assert rival.owned()
        assert row(store)["doorbell"] is None


def test_at_the_end_of_its_time_who_has_not_read_it_has_it(
    store: kvsync.Store, lock: kvsync.Lock, clock: ManualClock, unsent: Callable[[], None]
) -> None:
    rival = store.lock(NAME)
    with asleep(lambda: rival.acquire(timeout=10), lock) as waiter:
        lock.release()
        bell = row(store)["doorbell"]
        clock.advance(20)
        unsent()
        store.engine.doorbells.ring(bell)
        assert waiter.result()
        assert rival.owned()


def test_an_exception_of_a_handler_after_it_was_read_leaves_nothing(
    store: kvsync.Store, lock: kvsync.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with asleep(store.lock(NAME).acquire, lock) as waiter:
        monkeypatch.setattr(Units, "_take_up", interrupted)
        lock.release()
        with pytest.raises(KeyboardInterrupt):
            waiter.result()
    assert lock.acquire(blocking=False)


# --- once, and never twice ------------------------------------------------------------------------


def test_a_release_that_is_undone_sends_it_no_second_time(
    store: kvsync.Store, lock: kvsync.Lock, rings: list[tuple[str, bytes]]
) -> None:
    grant = lock._units.held[0]
    with asleep(store.lock(NAME).acquire, lock) as waiter:
        rings.clear()
        lock.release()
        assert waiter.result()
        assert [told for _, told in rings] == [word_of(store)]
        assert not lock._units._release(grant)
        assert rings[1:] == []


def test_a_release_that_is_interrupted_sends_it_all_the_same(
    store: kvsync.Store, lock: kvsync.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after its commit: else its owner, if it were stopped, would seem to hold it."""

    def interrupted(statement: Statement, *more: Any) -> None:
        require_shapes(statement, *more)
        if statement is statements[HAND_OVER]:
            monkeypatch.setattr(sqlite, "require_shapes", require_shapes)
            raise KeyboardInterrupt

    monkeypatch.setattr(Units, "_claim_at_once", None)
    with asleep(store.lock(NAME).acquire, lock) as waiter:
        monkeypatch.setattr(sqlite, "require_shapes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lock.release()
        assert waiter.result()


def test_a_child_that_is_forked_in_the_middle_sends_it_no_second_time(
    store: kvsync.Store, lock: kvsync.Lock, bell: Doorbell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after the commit, where a program's code may run then: in a finalizer."""
    saying = Doorbells.saying
    children: list[int] = []

    def fork_before(self: Doorbells, rows: list[Row], word: bytes) -> Iterator[object]:
        forking = (children.append(os.fork()) for _ in rows)
        return chain(forking, saying(self, rows, word))

    with asleep(store.lock(NAME).acquire, lock) as waiter:
        real = doorbells(store)[0]
        store.engine.write("update kvsync_ticket set doorbell = :name", {"name": bell.mark.name})
        monkeypatch.setattr(Doorbells, "saying", fork_before)
        monkeypatch.setattr("kvsync.engine.doorbell._PYTHON_RUNS_IN_C", True)
        try:
            lock.release()
        finally:
            if children == [0]:
                os._exit(0)
        assert os.waitpid(children[0], 0)[1] == 0
        said = _all_rings(bell)
        assert word_of(store) in said
        assert said.count(b"=") == 1
        store.engine.doorbells.ring(real)
        assert waiter.result()


@pytest.mark.parametrize(
    ("doorbell", "is_handed"),
    [("d/../../../other", True), ("../../other", False), (b"../../other", False)],
)
def test_what_is_no_doorbell_is_told_nothing(
    store: kvsync.Store, lock: kvsync.Lock, path: Path, doorbell: str | bytes, is_handed: bool
) -> None:
    """Whatever the database says: it may lead to any file of this user."""
    other = path.parent / "other"
    other.write_text("untouched")
    (path.parent / f"{path.name}-kvsync" / "doorbells" / "d").mkdir()
    (grant,) = lock._units.held
    change = "update kvsync_ticket set doorbell = :doorbell"
    with asleep(store.lock(NAME).acquire, lock) as waiter:
        (real,) = doorbells(store)
        store.engine.write(change, {"doorbell": doorbell})
        handed = lock._units._hand_over(grant, None)
        assert bool(handed) == is_handed
        assert other.read_text() == "untouched"
        if handed:
            store.engine.doorbells.ring(real)
        else:
            store.engine.write(change, {"doorbell": real})
            lock.release()
        assert waiter.result()


def _all_rings(bell: Doorbell) -> bytes:
    rings = b""
    with suppress(BlockingIOError):
        while True:
            rings += os.read(bell.number, 1 << 16)
    return rings


@pytest.fixture
def bell(store: kvsync.Store) -> Iterator[Doorbell]:
    """One that nobody listens at."""
    assert store.session.id
    bell = store.engine.doorbells.install()
    yield bell
    bell.close()


def test_who_takes_it_back_leaves_all_else_and_a_ring(store: kvsync.Store, bell: Doorbell) -> None:
    """A thread has the same doorbell for all that it waits for."""
    name = bell.mark.name
    assert name is not None
    taken = partial(store.engine.doorbells.take_back, name, 7, lambda _: None)
    assert not taken()
    assert _all_rings(bell) == b""
    others = LOOK + word(6, 1, 0) + SERVED
    for ring in (LOOK, word(6, 1, 0), word(7, 2, 0), SERVED):
        store.engine.doorbells.ring(name, ring)
    assert taken()
    assert not taken()
    assert _all_rings(bell) == others + LOOK + LOOK
    bell.close()
    assert not taken()


@pytest.mark.parametrize("how", ["all", "savepoint", "savepoint kept, all", "kept"])
def test_what_was_taken_back_lies_there_again_if_that_is_undone(
    store: kvsync.Store, bell: Doorbell, how: str
) -> None:
    name, mine, other = bell.mark.name, word(7, 1, 0), word(6, 1, 0)
    assert name is not None
    for ring in (mine, other):
        store.engine.doorbells.ring(name, ring)

    def take(transaction: Transaction) -> None:
        assert store.engine.doorbells.take_back(name, 7, transaction.on_undo)
        if how == "savepoint":
            raise LookupError

    def work(transaction: Transaction) -> None:
        if "savepoint" not in how:
            take(transaction)
        else:
            with suppress(LookupError):
                transaction.nested(take)
            with suppress(LookupError):  # what is undone here is not that
                transaction.nested(lambda _: {}["nothing"])
            assert (mine in _peek(bell)) == (how == "savepoint")
        if how.endswith("all"):
            raise LookupError

    with suppress(LookupError):
        store.engine.transact(work)
    rings = _all_rings(bell)
    assert rings.count(mine) == (how != "kept")
    assert rings.count(other) == 1


def _peek(bell: Doorbell) -> bytes:
    rings = _all_rings(bell)
    os.write(bell.number, rings or LOOK)
    return rings


def test_an_exception_wherever_it_comes_loses_nothing_that_lay_there(
    store: kvsync.Store, bell: Doorbell
) -> None:
    """Nor does anything come twice."""
    name, mine, other = bell.mark.name, word(7, 1, 0), word(6, 1, 0)
    assert name is not None

    def take() -> None:
        _all_rings(bell)
        for ring in (mine, other):
            store.engine.doorbells.ring(name, ring)
        store.engine.transact(
            lambda transaction: store.engine.doorbells.take_back(name, 7, transaction.on_undo)
        )

    for _ in after_each_call(take):
        rings = _all_rings(bell)
        assert rings.count(mine) <= 1
        assert rings.count(other) <= 1


def test_a_child_that_is_forked_after_it_was_read_has_nothing(
    store: kvsync.Store, lock: kvsync.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a signal's handler."""
    children: list[int] = []
    rival = store.lock(NAME)
    hear = Wait._hear

    def hear_and_fork(self: Wait, rings: bytes) -> None:
        hear(self, rings)
        if not children:
            children.append(os.fork())

    def acquire() -> bool:
        acquired = False
        try:
            acquired = rival.acquire()
        except kvsync.ForkError:
            if children == [0]:
                os._exit(7)
        finally:
            if children == [0]:
                os._exit(1)
        return acquired

    with asleep(acquire, lock) as waiter:
        monkeypatch.setattr(Wait, "_hear", hear_and_fork)
        lock.release()
        assert waiter.result()
    _, status = os.waitpid(children[0], 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert rival.owned()


def test_a_child_that_is_forked_after_that_holds_nothing(
    store: kvsync.Store, lock: kvsync.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its call ends by an error, be it the last step: what it acquired is the parent's."""
    children: list[int] = []
    rival = store.lock(NAME)
    verify = type(store.engine).verify

    def verify_and_fork(engine: Any) -> None:
        verify(engine)
        children.append(os.fork())

    def acquire() -> bool:
        try:
            return rival.acquire()
        except kvsync.ForkError:
            if children == [0]:
                os._exit(1 if rival.owned() else 7)
            raise
        finally:
            if children == [0]:
                os._exit(2)

    with asleep(acquire, lock) as waiter:
        monkeypatch.setattr(type(store.engine), "verify", verify_and_fork)
        lock.release()
        assert waiter.result()
    _, status = os.waitpid(children[0], 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert rival.owned()

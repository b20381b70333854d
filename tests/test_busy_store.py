"""A store that is busy for longer than anybody's patience: errors come in time, and nothing stays.

What cannot be given back or withdrawn then goes as soon as the store is free again, without anybody
asking for it: the process lives, so nobody else may take it away.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from queue import Empty, Full
from typing import Any

import pytest

import kvsync
from kvsync.engine.sqlite import SqliteEngine
from kvsync.leftovers import Leftovers, Step
from kvsync.primitives.taking import Taking
from kvsync.primitives.tickets import Tickets
from kvsync.primitives.units import Units
from kvsync.session import GATE_PATIENCE, Rest, Session
from kvsync.testing import ManualClock
from kvsync.waiting import Wait
from tests.lines import calling, queued
from tests.processes import PATIENCE, eventually, in_thread
from tests.queues import taken, waiting

NAME = "line"


class Hog:
    """Another program that has the write lock from `begin` to `end`."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def begin(self) -> None:
        self._connection.execute("pragma busy_timeout=60000")
        self._connection.execute("begin immediate")

    def end(self) -> None:
        self._connection.execute("rollback")

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def impatient(path: Path) -> Iterator[kvsync.Store]:
    with kvsync.open(path, busy_timeout=0.01) as store:
        store.lock("first").acquire()  # the session begins
        store.lock("first").force_release()
        yield store


@pytest.fixture
def hog(impatient: kvsync.Store, path: Path) -> Iterator[Hog]:  # noqa: ARG001  # made before
    hog = Hog(path)
    yield hog
    hog.close()


def rows(store: kvsync.Store) -> list[tuple[Any, ...]]:
    """Who holds, or waits for, what."""
    return store.engine.read(
        "select space, name, 'holds' from kvsync_grant"
        " union all select space, name, state from kvsync_ticket"
    )


THINGS: dict[str, Callable[[kvsync.Store], Any]] = {
    "lock": lambda store: store.lock(NAME),
    "rlock": lambda store: store.rlock(NAME),
    "semaphore": lambda store: store.semaphore(NAME, 2),
    "read": lambda store: store.rwlock(NAME).read(),
    "write": lambda store: store.rwlock(NAME).write(),
    "condition": lambda store: store.condition(NAME),
}
things = pytest.mark.parametrize("make", THINGS.values(), ids=THINGS)


@things
def test_what_a_block_held_is_free_once_the_store_is(
    impatient: kvsync.Store, hog: Hog, make: Callable[[kvsync.Store], Any]
) -> None:
    with pytest.raises(kvsync.BusyError), make(impatient):
        hog.begin()
    assert rows(impatient)
    hog.end()
    eventually(lambda: rows(impatient) == [])


def test_what_a_run_held_is_free_once_the_store_is(impatient: kvsync.Store, hog: Hog) -> None:
    with pytest.raises(kvsync.BusyError):
        impatient.election(NAME).run(hog.begin)
    hog.end()
    eventually(lambda: rows(impatient) == [])
    with pytest.raises(kvsync.BusyError):
        impatient.once(NAME).run(hog.begin)
    hog.end()
    eventually(lambda: rows(impatient) == [])


def test_permits_are_given_back_in_part_once_the_store_is_free(
    impatient: kvsync.Store, hog: Hog
) -> None:
    permits = impatient.semaphore(NAME, 5)
    permits.acquire(n=3)
    permits.acquire()
    hog.begin()
    with pytest.raises(kvsync.BusyError):
        permits.release(3)
    hog.end()
    eventually(lambda: permits.free() == 4)
    permits.release()
    assert permits.free() == 5


@things
def test_after_a_release_that_met_a_busy_store_it_is_not_ours(
    impatient: kvsync.Store, hog: Hog, make: Callable[[kvsync.Store], Any]
) -> None:
    """It is about to be free: it can be had again, and is not taken for held by this thread."""
    thing = make(impatient)
    thing.acquire()
    hog.begin()
    with pytest.raises(kvsync.BusyError) as caught:
        thing.release()
    assert "released as soon as" in "".join(caught.value.__notes__)
    with pytest.raises(kvsync.NotOwnedError):
        thing.release()
    hog.end()
    assert thing.acquire()
    thing.release()
    assert rows(impatient) == []


def interrupt_and_occupy(hog: Hog, patch: pytest.MonkeyPatch) -> Callable[..., None]:
    """In the place of a call: it is interrupted, and from then on the store is busy."""

    def interrupt(*_: object, **__: object) -> None:
        patch.undo()
        hog.begin()
        raise KeyboardInterrupt

    return interrupt


@things
def test_a_release_that_is_interrupted_while_the_store_is_busy_comes_later(
    impatient: kvsync.Store,
    hog: Hog,
    make: Callable[[kvsync.Store], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what the interrupt raised comes out, not that the store was busy."""
    thing = make(impatient)
    thing.acquire()
    monkeypatch.setattr(Units, "_release", interrupt_and_occupy(hog, monkeypatch))
    with pytest.raises(KeyboardInterrupt):
        thing.release()
    with pytest.raises(kvsync.NotOwnedError):
        thing.release()
    hog.end()
    eventually(lambda: rows(impatient) == [])
    assert thing.acquire()
    thing.release()


def test_permits_whose_release_is_interrupted_while_the_store_is_busy_come_later(
    impatient: kvsync.Store, hog: Hog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In part, and all: of several grants the last one too."""
    permits = impatient.semaphore(NAME, 9)
    for n in (2, 2, 3):
        permits.acquire(n=n)
    with monkeypatch.context() as patch:
        patch.setattr(impatient.engine, "transact", interrupt_and_occupy(hog, patch))
        with pytest.raises(KeyboardInterrupt):
            permits.release(1)
    hog.end()
    eventually(lambda: permits.free() == 3)
    with monkeypatch.context() as patch:
        patch.setattr(Units, "_release", interrupt_and_occupy(hog, patch))
        with pytest.raises(KeyboardInterrupt):
            permits.release(5)
    hog.end()
    eventually(lambda: permits.free() == 8)
    permits.release()
    assert rows(impatient) == []


def test_a_downgrade_that_is_interrupted_while_the_store_is_busy_comes_later(
    impatient: kvsync.Store, hog: Hog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may read once the store is free."""
    lock = impatient.rwlock(NAME)
    lock.write().acquire()
    with monkeypatch.context() as patch:
        patch.setattr(lock.write()._units, "release", interrupt_and_occupy(hog, patch))
        with pytest.raises(KeyboardInterrupt):
            lock.write().downgrade()
    hog.end()
    with kvsync.open(impatient.path) as patient:
        assert patient.rwlock(NAME).read().acquire(timeout=PATIENCE)


def test_a_party_that_meets_a_busy_store_breaks_its_barrier(
    impatient: kvsync.Store, path: Path, hog: Hog
) -> None:
    """Those who wait with it are not left waiting."""
    with kvsync.open(path) as patient:
        barrier = patient.barrier(NAME, 2)
        with queued(barrier.wait, barrier) as other:
            with pytest.raises(kvsync.BusyError):
                impatient.barrier(NAME, 2, action=hog.begin).wait()
            hog.end()
            with pytest.raises(kvsync.BrokenBarrierError):
                other.result()


def test_who_is_interrupted_while_the_store_is_busy_leaves_the_line(
    impatient: kvsync.Store, path: Path, hog: Hog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: Wait) -> str:
        hog.begin()
        raise KeyboardInterrupt

    with kvsync.open(path) as patient, patient.lock(NAME):
        monkeypatch.setattr(Wait, "until_served", interrupt)
        with pytest.raises(KeyboardInterrupt):
            impatient.lock(NAME).acquire()
        assert len(rows(impatient)) == 2
        hog.end()
        eventually(lambda: len(rows(impatient)) == 1)


def test_whose_time_is_over_while_the_store_is_busy_has_not_got_it(
    impatient: kvsync.Store, path: Path, hog: Hog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout is a timeout; and its place in the line goes later."""

    def until_the_end(wait: Wait) -> str:
        hog.begin()
        return until_served(wait)

    until_served = Wait.until_served
    with kvsync.open(path) as patient, patient.lock(NAME):
        monkeypatch.setattr(Wait, "until_served", until_the_end)
        assert impatient.lock(NAME).acquire(timeout=0.01) is False
        hog.end()
        eventually(lambda: len(rows(impatient)) == 1)
        assert impatient.event(NAME).wait(0.01) is False
        hog.end()
        eventually(lambda: len(rows(impatient)) == 1)


BRIEF: dict[str, Callable[[kvsync.Store], Any]] = {
    "a try": lambda store: store.lock(NAME).acquire(blocking=False),
    "lock": lambda store: store.lock(NAME).acquire(timeout=0.01),
    "semaphore": lambda store: store.semaphore(NAME, 1).acquire(timeout=0.01),
    "event": lambda store: store.event(NAME).wait(0.01),
    "barrier": lambda store: store.barrier(NAME, 2).wait(0.01),
    "election": lambda store: store.election(NAME).campaign(timeout=0.01),
    "get": lambda store: store.queue(NAME).get(timeout=0.01),
    "put": lambda store: store.queue(NAME).put("a", timeout=0.01),
    "put of a key": lambda store: store.queue(NAME).put("a", timeout=0.01, key="k"),
    "put at once": lambda store: store.queue(NAME).put_nowait("a"),
    "put many": lambda store: store.queue(NAME).put_many("ab", timeout=0.01),
    "join": lambda store: store.queue(NAME).join(0.01),
    "reserve": lambda store: store.queue(NAME).reserve(0.01),
}


@pytest.mark.parametrize("call", BRIEF.values(), ids=BRIEF)
def test_a_brief_call_does_not_wait_for_the_whole_busy_timeout(
    path: Path, call: Callable[[kvsync.Store], Any]
) -> None:
    """Nor does the next one wait for what the first has left."""
    with kvsync.open(path, busy_timeout=PATIENCE) as store:
        store.lock("first").acquire()
        hog = Hog(path)
        hog.begin()
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(kvsync.BusyError):
                call(store)
        assert time.monotonic() - began < PATIENCE / 2
        hog.end()
        hog.close()


def test_a_writer_that_briefly_wants_to_read_does_not_either(path: Path) -> None:
    with kvsync.open(path, busy_timeout=PATIENCE) as store:
        both = store.rwlock(NAME)
        both.write().acquire()
        hog = Hog(path)
        hog.begin()
        began = time.monotonic()
        with pytest.raises(kvsync.BusyError):
            both.read().acquire(timeout=0.01)
        assert time.monotonic() - began < PATIENCE / 2
        hog.end()
        hog.close()


def test_who_is_interrupted_in_a_rate_limiters_line_does_not_either(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its slot is given back as soon as the store is free."""
    with kvsync.open(path, busy_timeout=PATIENCE) as store:
        limiter = store.rate_limiter(NAME, 1, per=PATIENCE)
        limiter.acquire()
        hog = Hog(path)

        def interrupt(*_: object) -> None:
            hog.begin()
            raise KeyboardInterrupt

        monkeypatch.setattr(Rest, "sleep", interrupt)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            limiter.acquire()
        assert time.monotonic() - began < PATIENCE / 2
        hog.end()
        eventually(lambda: limiter.retry_after() <= PATIENCE)
        hog.close()


@pytest.mark.parametrize("epoch", [True, False], ids=["same boot", "new boot"])
@pytest.mark.parametrize("call", BRIEF.values(), ids=BRIEF)
def test_a_brief_call_that_is_the_first_of_its_process_does_not_either(
    path: Path, call: Callable[[kvsync.Store], Any], epoch: bool
) -> None:
    """Though its session has to begin, and the epoch of this boot."""
    with kvsync.open(path, busy_timeout=PATIENCE) as store:
        if epoch:
            kvsync.open(path, busy_timeout=PATIENCE).lock("first").acquire()
        else:
            store.counter("made").add()
        hog = Hog(path)
        hog.begin()
        began = time.monotonic()
        with pytest.raises(kvsync.BusyError):
            call(store)
        assert time.monotonic() - began < PATIENCE / 2
        hog.end()
        hog.close()


TAKEN: dict[str, tuple[Callable[[kvsync.Store], Any], Callable[[kvsync.Store], Any]]] = {
    "a try": (lambda store: store.lock(NAME).acquire(), BRIEF["a try"]),
    "lock": (lambda store: store.lock(NAME).acquire(), BRIEF["lock"]),
    "get": (lambda store: store.queue(NAME).reserve(), BRIEF["get"]),
    "get_nowait": (
        lambda store: store.queue(NAME).reserve(),
        lambda store: store.queue(NAME).get_nowait(),
    ),
}


@pytest.mark.parametrize(("take", "call"), TAKEN.values(), ids=TAKEN)
def test_a_brief_call_does_not_wait_for_it_as_it_sees_to_the_dead(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    take: Callable[[kvsync.Store], Any],
    call: Callable[[kvsync.Store], Any],
) -> None:
    """The store turns busy in the middle of the call."""
    hog = Hog(path)

    def is_dead(_: Session, __: int) -> bool:
        hog.begin()
        return True

    with kvsync.open(path, busy_timeout=PATIENCE) as store, kvsync.open(path) as other:
        other.queue(NAME).put("a")
        take(other)
        store.lock("first").acquire()
        began = time.monotonic()
        with monkeypatch.context() as patch:
            patch.setattr(Session, "is_dead", is_dead)
            with pytest.raises(kvsync.BusyError):
                call(store)
        assert time.monotonic() - began < PATIENCE / 2
        hog.end()
        hog.close()


def test_a_try_does_not_wait_for_it_after_a_look_at_the_dead(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kvsync.open(path, busy_timeout=PATIENCE) as store:
        jobs, hog = store.queue(NAME), Hog(path)
        jobs.put("a")
        jobs.get()
        monkeypatch.setattr(Taking, "_tend", lambda *_: None)
        monkeypatch.setattr(Taking, "_look_after_others", lambda *_: hog.begin())
        began = time.monotonic()
        with pytest.raises(kvsync.BusyError):
            jobs.get_nowait()
        assert time.monotonic() - began < PATIENCE / 2
        hog.end()
        hog.close()


def test_what_was_left_in_a_parent_is_not_its_childs(impatient: kvsync.Store, hog: Hog) -> None:
    lock = impatient.lock(NAME)
    lock.acquire()
    hog.begin()
    with pytest.raises(kvsync.BusyError):
        lock.release()
    hog.end()
    child = os.fork()
    if not child:
        try:
            with impatient.lock(NAME):
                pass
            os._exit(0)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    eventually(lambda: rows(impatient) == [])


def test_who_has_to_wait_for_leftovers_waits_no_longer_than_its_patience_without_a_thread(
    impatient: kvsync.Store, hog: Hog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process at its limit has none to take them back; the next call that can begin one does."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(kvsync.BusyError), impatient.lock(NAME):
            hog.begin()
        hog.end()
        with pytest.raises(kvsync.BusyError, match="earlier call"):
            impatient.lock("other").acquire(timeout=0.01)
        assert rows(impatient) == [("lock", NAME, "holds")]
    with impatient.lock(NAME):
        assert rows(impatient) == [("lock", NAME, "holds")]
    assert rows(impatient) == []


def fail_once(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """A signal's exception comes as the next thread is at that method."""

    def fail(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(threading.Thread, method, original)
        raise KeyboardInterrupt

    original = getattr(threading.Thread, method)
    monkeypatch.setattr(threading.Thread, method, fail)


@pytest.mark.parametrize("method", ["__init__", "start"])
def test_a_signal_as_the_worker_begins_leaves_nothing_behind(
    impatient: kvsync.Store, hog: Hog, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Nobody calls anything afterwards."""
    lock = impatient.lock(NAME)
    lock.acquire()
    hog.begin()
    fail_once(monkeypatch, method)
    with pytest.raises(KeyboardInterrupt):
        lock.release()
    hog.end()
    eventually(lambda: rows(impatient) == [])
    assert lock.acquire(timeout=PATIENCE)


class Overtaken(list[Step]):
    """Steps to which another is added in the very moment in which they are first found done."""

    def __init__(self, overtake: Callable[[], None]) -> None:
        super().__init__()
        self._overtakes = [overtake]

    def __bool__(self) -> bool:
        found = len(self) > 0
        if not found and self._overtakes:
            self._overtakes.pop()()
        return found


def test_what_is_added_as_a_worker_ends_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second worker, if there is one, comes to its work only when the first is no more."""
    workers: list[threading.Thread] = []
    done: list[str] = []

    def work(leftovers: Leftovers) -> None:
        workers.append(threading.current_thread())
        for earlier in workers[:-1]:
            earlier.join(PATIENCE)
        original(leftovers)

    original = Leftovers._work
    monkeypatch.setattr(Leftovers, "_work", work)
    leftovers = Leftovers()
    leftovers._steps = Overtaken(lambda: leftovers.add(lambda _: done.append("second")))
    leftovers.add(lambda _: done.append("first"))
    eventually(lambda: done == ["first", "second"])


def test_several_workers_take_nothing_back_twice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be more than one: a signal can keep the first from being known."""
    inside, go = threading.Semaphore(0), threading.Event()
    done: list[str] = []

    def step(_: float) -> None:
        inside.release()
        go.wait(PATIENCE)
        done.append("step")

    leftovers = Leftovers()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "is_alive", lambda _: False)
        leftovers.add(step)
        assert inside.acquire(timeout=PATIENCE)
        leftovers.begin()
    assert not inside.acquire(timeout=0.1)
    go.set()
    leftovers.settle(PATIENCE)
    eventually(lambda: leftovers._worker is None)
    assert done == ["step"]


def test_a_step_that_does_not_end_keeps_nobody_waiting_for_ever() -> None:
    """Though no attempt is ever in vain."""
    go = threading.Event()
    leftovers = Leftovers()
    leftovers.add(lambda _: go.wait(PATIENCE))
    try:
        with calling(lambda: leftovers.settle(0.01)) as call, pytest.raises(kvsync.BusyError):
            call.result()
    finally:
        go.set()
    leftovers.settle(PATIENCE)


def as_its_wait_begins(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """That comes between the ticket of the next one who waits to be told, and its sleep."""

    def until_told(self: Tickets, *arguments: Any) -> str:
        monkeypatch.setattr(Tickets, "until_told", original)
        happens()
        return original(self, *arguments)

    original = Tickets.until_told
    monkeypatch.setattr(Tickets, "until_told", until_told)


def test_what_was_let_in_before_the_store_was_busy_is_put(
    impatient: kvsync.Store, hog: Hog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is told of an error would put it once more."""
    jobs = impatient.queue(NAME, 1)
    jobs.put("a")

    def make_room() -> None:
        assert jobs.get() == "a"
        hog.begin()

    as_its_wait_begins(monkeypatch, make_room)
    number = jobs.put("b", timeout=PATIENCE)
    hog.end()
    eventually(lambda: rows(impatient) == [])
    assert [(each.id, each.item) for each in jobs.peek(2)] == [(number, "b")]


def test_a_put_of_which_nobody_knows_whether_it_was_let_in_does_not_say_full(
    impatient: kvsync.Store, hog: Hog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who keeps the store busy may have done so. Nobody does it later."""
    jobs = impatient.queue(NAME, 1)
    jobs.put("a")
    as_its_wait_begins(monkeypatch, hog.begin)
    with pytest.raises(kvsync.BusyError):
        jobs.put("b", timeout=0.01)
    hog.end()
    assert jobs.get() == "a"
    eventually(lambda: rows(impatient) == [])
    assert jobs.peek(2) == []


def test_who_waits_to_put_is_told_of_a_shutdown_though_the_store_is_busy(
    impatient: kvsync.Store, hog: Hog, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = impatient.queue(NAME, 1)
    jobs.put("a")

    def shut() -> None:
        jobs.shutdown()
        hog.begin()

    as_its_wait_begins(monkeypatch, shut)
    with pytest.raises(kvsync.ShutDown):
        jobs.put("b")
    hog.end()
    eventually(lambda: rows(impatient) == [])
    assert [each.item for each in jobs.peek(2)] == ["a"]


def test_a_task_whose_end_was_cut_short_while_the_store_was_busy_goes_back(
    impatient: kvsync.Store, hog: Hog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is settled before the next call that takes something, however its block was left."""
    jobs = impatient.queue(NAME, retry_delay=0)
    jobs.put("a")
    task, leave = jobs.reserve(0), kvsync.Task._leave

    def cut_short(*_: object) -> None:
        monkeypatch.setattr(kvsync.Task, "_leave", leave)
        raise KeyboardInterrupt

    monkeypatch.setattr(kvsync.Task, "_leave", cut_short)
    with pytest.raises(KeyboardInterrupt), task:
        hog.begin()
    hog.end()
    again = jobs.reserve(PATIENCE)
    assert (again.id, again.attempts) == (task.id, 1)


def test_a_transaction_waits_for_nothing_that_an_earlier_call_has_left(
    path: Path,
) -> None:
    """It has the write lock, without which that cannot be taken back."""
    with kvsync.open(path, busy_timeout=PATIENCE) as store:
        jobs = store.queue(NAME, retry_delay=0)
        jobs.put_many("ab")
        task = jobs.reserve(0)
        store.session.undo_before_next(lambda patience: task._settle(task._return, patience))
        with store.transaction():
            assert jobs.get() == "b"
            assert store.session._leftovers._steps
        assert jobs.get(timeout=PATIENCE) == "a"


def test_the_time_of_a_first_call_is_not_counted_anew_after_its_session(
    impatient: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that took to begin."""
    clock = ManualClock()
    impatient.lock(NAME).acquire()
    with kvsync.open(impatient.path, clock=clock) as store:
        begin = Session.begin

        def begin_late(session: Session, patience: float | None) -> None:
            begin(session, patience)
            clock.advance(2 * PATIENCE)

        monkeypatch.setattr(Session, "begin", begin_late)
        assert not store.lock(NAME).acquire(timeout=2 * PATIENCE)
        with pytest.raises(Full):
            jobs = store.queue(NAME, 1)
            jobs.put("a")
            jobs.put("b", timeout=2 * PATIENCE)


def test_a_session_that_could_not_begin_leaves_no_doorbell(
    impatient: kvsync.Store, hog: Hog
) -> None:
    doorbells = impatient.engine.doorbells.count()
    hog.begin()
    with kvsync.open(impatient.path, busy_timeout=0.01) as store:
        for _ in range(3):
            with pytest.raises(kvsync.BusyError):
                store.lock(NAME).acquire(timeout=0)
    hog.end()
    assert impatient.engine.doorbells.count() == doorbells


CLAIMS: dict[str, Callable[[kvsync.Queue], Any]] = {
    "get": lambda jobs: jobs.get(timeout=PATIENCE),
    "get_many": lambda jobs: jobs.get_many(2, timeout=PATIENCE),
    "reserve": lambda jobs: jobs.reserve(PATIENCE),
    "reserve_many": lambda jobs: jobs.reserve_many(2, PATIENCE),
}


@pytest.mark.parametrize("take", CLAIMS.values(), ids=CLAIMS)
def test_who_was_given_an_item_waits_for_the_store_no_longer_than_its_time(
    impatient: kvsync.Store,
    hog: Hog,
    monkeypatch: pytest.MonkeyPatch,
    take: Callable[[kvsync.Queue], Any],
) -> None:
    """And the item goes back as soon as the store is free."""
    patiences: list[float | None] = []

    def give_up(*_: object, patience: float | None = None, **__: object) -> None:
        patiences.append(patience)
        raise kvsync.BusyError("it is")

    def until_given(wait: Wait) -> str:
        state = until_served(wait)
        hog.begin()
        monkeypatch.setattr(SqliteEngine, "wait", give_up)  # the put may have had to wait
        return state

    jobs = impatient.queue(NAME)
    jobs.put("first")
    jobs.get()
    until_served = Wait.until_served
    monkeypatch.setattr(Wait, "until_served", until_given)
    with waiting(lambda: take(jobs), impatient) as call:
        jobs.put("a")
        with pytest.raises(kvsync.BusyError):
            call.result()
    assert patiences
    assert all(patience is not None and patience <= PATIENCE for patience in patiences)
    hog.end()
    eventually(lambda: (taken(impatient), jobs.qsize()) == ([], 1))


@pytest.fixture
def slow(
    timed_store: kvsync.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float], None]:
    """From then on each write of this thread waits for so many seconds, if its patience lasts."""

    def slow(seconds: float) -> None:
        def late(call: Callable[..., Any]) -> Callable[..., Any]:
            def wait(engine: Any, *arguments: Any, **options: Any) -> Any:
                if threading.get_ident() == ours and not engine.is_in_transaction():
                    patience = options.get("patience")
                    lasts = 30.0 if patience is None else patience
                    clock.advance(min(seconds, lasts))
                    if lasts < seconds:
                        raise kvsync.BusyError("it is")
                return call(engine, *arguments, **options)

            return wait

        monkeypatch.setattr(SqliteEngine, "write", late(SqliteEngine.write))
        monkeypatch.setattr(SqliteEngine, "transact", late(SqliteEngine.transact))

    def sleep(wait: Wait, _: object, now: float) -> bool:
        assert wait._wish.deadline is not None
        clock.advance(max(0.0, wait._wish.deadline - now))
        return False

    ours = threading.get_ident()
    assert timed_store.session.id  # it has begun
    monkeypatch.setattr(Wait, "_sleep", sleep)
    return slow


IN_VAIN: dict[str, tuple[float, Callable[[kvsync.Queue], Any]]] = {
    "get": (3, lambda jobs: jobs.get(timeout=3)),
    "get at once": (0, lambda jobs: jobs.get_nowait()),
    "get_many": (3, lambda jobs: jobs.get_many(2, timeout=3)),
    "reserve": (3, lambda jobs: jobs.reserve(3)),
    "reserve at once": (0, lambda jobs: jobs.reserve(0)),
    "put": (3, lambda jobs: jobs.put("b", timeout=3)),
    "put at once": (0, lambda jobs: jobs.put_nowait("b")),
    "put of a key": (3, lambda jobs: jobs.put("b", timeout=3, key="k")),
    "put many": (3, lambda jobs: jobs.put_many("b", timeout=3)),
}


@pytest.mark.parametrize("seconds", [0.4, 0.9, 2.7])
@pytest.mark.parametrize(("timeout", "call"), IN_VAIN.values(), ids=IN_VAIN)
def test_all_steps_of_a_call_have_one_time_together(
    timed_store: kvsync.Store,
    clock: ManualClock,
    slow: Callable[[float], None],
    timeout: float,
    call: Callable[[kvsync.Queue], Any],
    seconds: float,
) -> None:
    """Each of them could wait for as long, and a second more to leave the line."""
    jobs = timed_store.queue(NAME, 1)
    jobs.put("a")
    if call in [IN_VAIN[name][1] for name in IN_VAIN if not name.startswith("put")]:
        jobs.get()
    began = clock.boot()
    slow(seconds)
    with pytest.raises((kvsync.BusyError, Full, Empty)):
        call(jobs)
    assert clock.boot() - began <= max(timeout, GATE_PATIENCE) + GATE_PATIENCE


HELD: dict[str, tuple[float, Callable[[kvsync.Store], bool]]] = {
    "lock": (3, lambda store: store.lock(NAME).acquire(timeout=3)),
    "lock at once": (0, lambda store: store.lock(NAME).acquire(blocking=False)),
    "permits": (3, lambda store: store.semaphore(NAME, 3).acquire(timeout=3, n=2)),
    "permits at once": (0, lambda store: store.semaphore(NAME, 3).acquire(timeout=0, n=2)),
    "to read": (3, lambda store: store.rwlock("book").read().acquire(timeout=3)),
    "to write at once": (0, lambda store: store.rwlock("book").write().acquire(timeout=0)),
}


@pytest.mark.parametrize("seconds", [0.4, 0.9, 2.7])
@pytest.mark.parametrize(("timeout", "call"), HELD.values(), ids=HELD)
def test_all_steps_of_a_try_have_one_time_together(
    timed_store: kvsync.Store,
    clock: ManualClock,
    slow: Callable[[float], None],
    timeout: float,
    call: Callable[[kvsync.Store], bool],
    seconds: float,
) -> None:
    """Of what another thread has. Who has stood in its line has a second more to leave it."""
    for way in (
        timed_store.lock(NAME),
        timed_store.semaphore(NAME, 3),
        timed_store.semaphore(NAME, 3),
        timed_store.rwlock("book").write(),
    ):
        assert in_thread(way.acquire)
    began = clock.boot()
    slow(seconds)
    with suppress(kvsync.BusyError):
        assert not call(timed_store)
    assert clock.boot() - began <= timeout + GATE_PATIENCE


def test_what_cannot_be_read_is_buried_within_the_time_of_the_call(
    timed_store: kvsync.Store, clock: ManualClock, slow: Callable[[float], None]
) -> None:
    timed_store.queue(NAME, codec="raw").put("no JSON")
    began = clock.boot()
    slow(1.6)
    with pytest.raises(kvsync.BusyError):
        timed_store.queue(NAME).get(timeout=3)
    assert clock.boot() - began <= 3


def test_a_barrier_sees_to_the_dead_within_the_time_of_the_call(
    timed_store: kvsync.Store,
    clock: ManualClock,
    slow: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(*_: object) -> list[int]:
        monkeypatch.setattr(Session, "reap", reap)
        clock.advance(2)
        return []

    barrier, reap = timed_store.barrier(NAME, 2), Session.reap
    monkeypatch.setattr(Session, "reap", late)
    began = clock.boot()
    slow(0)
    with pytest.raises(kvsync.BrokenBarrierError):
        barrier.wait(3)
    assert clock.boot() - began == 3


WAITS: dict[str, Callable[[kvsync.Store], Any]] = {
    "lock": lambda store: store.lock(NAME).acquire(timeout=PATIENCE),
    "permit": lambda store: store.semaphore(NAME, 1).acquire(timeout=PATIENCE),
    "get": lambda store: store.queue(NAME).get(timeout=PATIENCE),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_who_waits_briefly_does_not_wait_for_it_in_the_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, wait: Callable[[kvsync.Store], Any]
) -> None:
    """As it sees to what time has ended, for one. The wait is to be over soon once it is there."""
    sleep = Wait._sleep

    def sleep_until_it_is_over(wait: Wait, *_: Any) -> bool:
        monkeypatch.setattr(Wait, "_sleep", sleep)
        wait._wish.deadline = wait._engine.boot() + 0.2
        hog.begin()
        wait._transact(wait._mend)
        return True

    with (
        closing(Hog(path)) as hog,
        kvsync.open(path, busy_timeout=PATIENCE) as store,
        kvsync.open(path) as other,
    ):
        other.lock(NAME).acquire()
        other.semaphore(NAME, 1).acquire()
        store.lock("first").acquire()
        monkeypatch.setattr(Wait, "_sleep", sleep_until_it_is_over)
        began = time.monotonic()
        with pytest.raises(kvsync.BusyError):
            wait(store)
        assert time.monotonic() - began < PATIENCE / 2
        hog.end()

"""Deadlocks: who waits in a circle is told, one of them, and nobody else ever is."""

import os
import random
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kvsync
from kvsync import deadlock
from kvsync.testing import ManualClock
from tests.processes import PATIENCE, eventually, expect, kill, run_all, running


def make(store: kvsync.Store, kind: str, name: str, **options: Any) -> Any:
    """Something that one has alone; a number makes it a semaphore of that many permits."""
    if kind in ("read", "write"):
        return getattr(store.rwlock(name, **options), kind)()
    if kind.isdigit():
        return store.semaphore(name, int(kind), **options)
    return getattr(store, kind)(name, **options)


def knots(store: kvsync.Store) -> list[deadlock.Knot]:
    """All that are there, each as the one who came last sees it."""
    tickets = store.engine.read("select space, name, id from kvsync_ticket order by id")
    found = [deadlock.circle(store.engine, (*line,), ticket) for *line, ticket in tickets]
    return [knot for knot in found if knot is not None]


# --- processes --------------------------------------------------------------------------------


def follow(pipe: Any, path: str) -> None:
    """Take what the pipe names, one thing after the other; give all back on a deadlock."""
    with kvsync.open(path) as store:
        for kind, name in iter(pipe.recv, None):
            try:
                make(store, kind, name).acquire()
            except kvsync.DeadlockError as error:
                pipe.send(str(error))
                break
            pipe.send("has it")


def waiters(store: kvsync.Store) -> int:
    ((count,),) = store.engine.read("select count(*) from kvsync_ticket")
    return int(count)


IN_WORDS = {"lock": "lock", "1": "semaphore", "write": "the write side of rwlock"}


@pytest.mark.parametrize("kinds", [["lock"] * 2, ["lock"] * 3, ["lock", "1", "write"]])
def test_of_processes_in_a_circle_one_is_told_and_the_others_go_on(
    store: kvsync.Store, kinds: list[str]
) -> None:
    """The one who closed it; it is told who waits for what, held by whom, all the way round."""
    things = [(kind, f"n{number}") for number, kind in enumerate(kinds)]
    wanted = [*things[1:], things[0]]
    with ExitStack() as stack:
        crew = [stack.enter_context(running(follow, store.path)) for _ in kinds]
        for (_, pipe), thing in zip(crew, things, strict=True):
            pipe.send(thing)
            assert expect(pipe) == "has it"
        for number, (_, pipe) in enumerate(crew):
            if number:
                eventually(lambda number=number: waiters(store) == number)
            pipe.send(wanted[number])
        *others, (_, last) = crew
        error = expect(last)
        whos = [
            *(rf"process {child.pid} \(.+?\), thread \d+" for child, _ in others),
            "this thread",
        ]
        whoms = [*whos[1:], whos[0]]
        steps = [
            f"{who} waits for {IN_WORDS[kind]} '{name}', held by {whom}"
            for who, (kind, name), whom in zip(whos, wanted, whoms, strict=True)
        ]
        assert re.fullmatch("a deadlock: " + "; ".join([steps[-1], *steps[:-1]]), error)
        for _, pipe in reversed(others):
            assert expect(pipe) == "has it"
            pipe.send(None)


ORDERLY = [("lock", "a"), ("2", "b"), ("write", "c"), ("read", "c"), ("lock", "d"), ("1", "e")]


def take_in_order(path: str, seed: int, times: int) -> None:
    """Two things at a time, always the one with the lesser name first."""
    chance = random.Random(seed)
    with kvsync.open(path) as store:
        for _ in range(times):
            first, second = sorted(chance.sample(ORDERLY, 2), key=lambda thing: thing[1])
            if first[1] != second[1]:
                with make(store, *first), make(store, *second):
                    os.sched_yield()


def test_who_takes_things_in_order_never_meets_a_deadlock(store: kvsync.Store) -> None:
    """However many do it at once."""
    run_all(take_in_order, [(store.path, seed, 150) for seed in range(4)])
    assert waiters(store) == 0


def take_in_disorder(path: str, seed: int, times: int) -> int:
    """Two things at a time, in any order; begins again after a deadlock."""
    chance, errors = random.Random(seed), 0
    with kvsync.open(path) as store:
        for _ in range(times):
            first, second = chance.sample(ORDERLY, 2)
            try:
                with make(store, *first), make(store, *second):
                    os.sched_yield()
            except kvsync.DeadlockError:
                errors += 1
    return errors


def test_who_takes_things_in_disorder_never_waits_for_ever(store: kvsync.Store) -> None:
    """Each circle ends, and nothing is left behind."""
    run_all(take_in_disorder, [(store.path, seed, 60) for seed in range(3)])
    assert waiters(store) == 0
    assert store.engine.read("select count(*) from kvsync_grant") == [(0,)]


# --- kinds ------------------------------------------------------------------------------------


class Actor:
    """A thread that makes one call after the other: it holds what it took before."""

    def __init__(self, store: kvsync.Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1)

    def takes(self, thing: Any, **options: Any) -> "Actor":
        assert self._thread.submit(partial(thing.acquire, **options)).result(PATIENCE)
        return self

    def waits(self, thing: Any, **options: Any) -> "Future[bool]":
        """Once it stands in line."""
        before = waiters(self._store)
        future = self._thread.submit(partial(thing.acquire, **options))
        eventually(lambda: waiters(self._store) > before or future.done())
        assert not future.done(), f"it did not wait: {future.exception()}"
        return future

    def end(self) -> None:
        self._thread.shutdown(wait=False)


@pytest.fixture
def actor(store: kvsync.Store) -> Iterator[Callable[[], Actor]]:
    """Makes one more."""
    actors: list[Actor] = []

    def another() -> Actor:
        actors.append(Actor(store))
        return actors[-1]

    yield another
    for each in actors:
        each.end()


KINDS = ["lock", "rlock", "1", "write", "election"]


@pytest.mark.parametrize("one", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_things_of_all_kinds_make_a_circle(
    store: kvsync.Store, actor: Callable[[], Actor], one: str, other: str
) -> None:
    """Two threads, two things, in opposite order."""
    a, b, again = make(store, one, "a"), make(store, other, "b"), make(store, one, "a")
    b.acquire()
    waiter = actor().takes(a).waits(make(store, other, "b"))
    with pytest.raises(kvsync.DeadlockError, match=r"'a', held by process .*'b', held by this"):
        again.acquire()
    assert not waiter.done()
    b.release()
    assert waiter.result(PATIENCE)


def test_a_reader_and_a_writer_make_a_circle(
    store: kvsync.Store, actor: Callable[[], Actor]
) -> None:
    """The writer waits for two readers, of whom one waits for what the writer has."""
    lock, book = store.lock("lock"), store.rwlock("book")
    lock.acquire()
    actor().takes(store.rwlock("book").read())
    reading = store.rwlock("book").read()
    waiter = actor().takes(reading).waits(store.lock("lock"))
    with pytest.raises(kvsync.DeadlockError, match="the write side of rwlock 'book', held by proc"):
        book.write().acquire()
    assert not waiter.done()
    lock.release()
    assert waiter.result(PATIENCE)


def test_a_thread_that_waits_for_itself_is_told_what_it_holds(store: kvsync.Store) -> None:
    """Of a semaphore it must hold so much that the rest does not suffice."""
    semaphore = store.semaphore("pool", 2)
    semaphore.acquire()
    assert semaphore.acquire()
    with pytest.raises(kvsync.DeadlockError, match=r"semaphore 'pool', which it holds itself$"):
        semaphore.acquire()
    with store.lock("job"), pytest.raises(kvsync.DeadlockError, match=r"itself; .* rlock"):
        store.lock("job").acquire()


def test_a_thread_is_told_that_it_holds_an_rlock_through_another_handle(
    store: kvsync.Store,
) -> None:
    """Only through that one may it take it again."""
    with kvsync.open(store.path) as another, another.rlock("job"):
        with pytest.raises(kvsync.DeadlockError, match="through another handle of this store"):
            store.rlock("job").acquire()
        assert another.rlock("job").acquire()
        another.rlock("job").release()


def test_a_waiter_outside_of_the_circle_gets_its_turn(
    store: kvsync.Store, actor: Callable[[], Actor]
) -> None:
    """It came before the circle was closed, and waits for what is in it."""
    a, b = store.lock("a"), store.lock("b")
    b.acquire()
    inside = actor().takes(a).waits(store.lock("b"))
    outside = actor().waits(store.lock("a"))
    with pytest.raises(kvsync.DeadlockError) as caught:
        store.lock("a").acquire()
    assert "behind" not in str(caught.value)
    assert not inside.done()
    assert not outside.done()
    b.release()
    assert inside.result(PATIENCE)
    a.release()
    assert outside.result(PATIENCE)


# --- who may go on ----------------------------------------------------------------------------


def test_one_holder_who_can_free_a_permit_is_enough(
    store: kvsync.Store, actor: Callable[[], Actor]
) -> None:
    """Though all the others are stuck; when that one waits for them too, it is a deadlock."""
    lock, pool = store.lock("lock"), [store.semaphore("pool", 2) for _ in range(3)]
    pool[0].acquire()  # this thread's
    one = actor().takes(pool[1])
    other = actor().takes(lock)
    for_lock = one.waits(store.lock("lock"))
    for_permit = other.waits(pool[2])
    assert knots(store) == []
    with pytest.raises(kvsync.DeadlockError):
        store.lock("lock").acquire()
    assert not for_lock.done()
    assert not for_permit.done()
    pool[0].release()
    assert for_permit.result(PATIENCE)
    lock.release()
    assert for_lock.result(PATIENCE)


def test_who_waits_with_a_timeout_is_not_stuck(path: Path) -> None:
    """It may go on when that is over, and so may who waits for it."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store, ended(Actor(store), Actor(store)) as (one, other):
        a, b = store.lock("a"), store.lock("b")
        for_b = one.takes(a) and other.takes(b) and one.waits(store.lock("b"), timeout=60)
        for_a = other.waits(store.lock("a"))
        assert knots(store) == []
        clock.advance(61)
        assert not for_b.result(PATIENCE)
        a.release()
        assert for_a.result(PATIENCE)


def test_a_circle_that_closes_later_is_found(store: kvsync.Store) -> None:
    """Though nobody joins a line then: who came last of those in it looks again."""
    with ended(Actor(store), Actor(store)) as (one, other):
        a, b = store.lock("a"), store.lock("b")
        for_b = one.takes(a) and other.takes(b) and one.waits(store.lock("b"), timeout=PATIENCE)
        for_a = other.waits(store.lock("a"))
        assert knots(store) == []
        store.engine.write("update kvsync_ticket set deadline = null")
        with pytest.raises(kvsync.DeadlockError):
            for_a.result(PATIENCE)
        b.release()
        assert for_b.result(PATIENCE)


def test_what_is_held_for_a_lease_makes_nobody_stuck(path: Path) -> None:
    """It ends by itself."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store, ended(Actor(store), Actor(store)) as (one, other):
        b = store.lock("b")
        one.takes(store.lock("a", lease=10))
        for_b = other.takes(b) and one.waits(store.lock("b"))
        for_a = other.waits(store.lock("a"))
        assert knots(store) == []
        clock.advance(11)
        assert for_a.result(PATIENCE)
        b.release()
        assert for_b.result(PATIENCE)


def test_who_asked_for_no_detection_is_not_stuck(store: kvsync.Store) -> None:
    """Another thread may release what it holds."""
    with (
        kvsync.open(store.path, detect_deadlocks=False) as free,
        ended(Actor(free), Actor(store)) as (one, other),
    ):
        a, b = free.lock("a"), store.lock("b")
        for_b = one.takes(a) and other.takes(b) and one.waits(free.lock("b"))
        for_a = other.waits(store.lock("a"))
        assert knots(store) == []
        a.release()
        assert for_a.result(PATIENCE)
        b.release()
        assert for_b.result(PATIENCE)


@contextmanager
def ended(*actors: Actor) -> Iterator[tuple[Actor, ...]]:
    yield actors
    for each in actors:
        each.end()


def test_a_waiting_process_that_dies_is_no_circle(store: kvsync.Store) -> None:
    """What it held goes to who would have closed the circle."""
    a, b = store.lock("a"), store.lock("b")
    a.acquire()
    with running(follow, store.path) as (child, pipe):
        pipe.send(("lock", "b"))
        assert expect(pipe) == "has it"
        pipe.send(("lock", "a"))
        eventually(lambda: waiters(store) == 1)
        kill(child)
        assert b.acquire()
    assert a.owned()


# --- any scene at all -------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    thread: int
    line: str
    units: int
    leased: bool


@dataclass(frozen=True)
class Waiting:
    id: int
    thread: int
    line: str
    units: int
    ends: bool


@dataclass(frozen=True)
class Scene:
    """Who holds what, and who waits for what."""

    capacity: dict[str, int]
    held: tuple[Held, ...]
    waiting: tuple[Waiting, ...]

    def stuck(self) -> set[int]:
        """The threads that are left when all who can go on have done so, and given all back."""
        held = [each for each in self.held if not each.leased]
        waiting = list(self.waiting)
        while True:
            asleep = {each.thread for each in waiting}
            held = [each for each in held if each.thread in asleep]
            goes = next((each for each in waiting if self._may_go(each, held, waiting)), None)
            if goes is None:
                return asleep
            waiting.remove(goes)

    def _may_go(self, ticket: Waiting, held: list[Held], waiting: list[Waiting]) -> bool:
        used = sum(each.units for each in held if each.line == ticket.line)
        first = min(each.id for each in waiting if each.line == ticket.line)
        fits = used + ticket.units <= self.capacity[ticket.line]
        return ticket.ends or (ticket.id == first and fits)

    def write(self, store: kvsync.Store) -> None:
        """As rows of the store."""
        with store.transaction():
            for table in ("kvsync_unit", "kvsync_ticket"):
                store.engine.write(f"delete from {table}")
            for slot, each in enumerate(self.held):
                store.engine.write(
                    "insert into kvsync_unit (space, name, slot, token, kind, units, capacity,"
                    " session, attempt, thread, since, expires) values ('lock', :line, :slot,"
                    " :slot, 'lock', :units, :capacity, 1, 0, :thread, 0, :expires)",
                    self._row(each) | {"slot": slot, "expires": 1.0 if each.leased else None},
                )
            for each in self.waiting:
                store.engine.write(
                    "insert into kvsync_ticket (id, space, name, kind, units, capacity, session,"
                    " attempt, thread, since, deadline, state) values (:id, 'lock', :line, 'lock',"
                    " :units, :capacity, 0, 0, :thread, 0, :deadline, 'waiting')",
                    self._row(each) | {"deadline": 1.0 if each.ends else None},
                )

    def _row(self, each: Held | Waiting) -> dict[str, Any]:
        return vars(each) | {"capacity": self.capacity[each.line], "thread": name(each.thread)}


def name(thread: int) -> str:
    return f"1.2.3/{thread}"


def number(ticket: deadlock.Edge) -> int:
    return int(ticket.thread.rpartition("/")[2])


LINES = "abcd"
THREADS = range(7)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """No more is held than there is; each thread waits once, seldom for what it holds itself."""
    chance = random.Random(draw(st.integers(0, 1 << 32)))
    capacity = {line: chance.choice([1, 1, 2, 3]) for line in LINES}
    free, held = dict(capacity), []
    for line in LINES * 2:
        units = chance.randint(0, free[line])
        if units:
            held.append(Held(chance.choice(THREADS), line, units, chance.random() < 0.05))
            free[line] -= units
    waiting = []
    for id, thread in enumerate(chance.sample(THREADS, chance.randint(3, len(THREADS))), 1):
        own = {each.line for each in held if each.thread == thread}
        others = [line for line in LINES if line not in own or chance.random() < 0.1]
        line = chance.choice(others or LINES)
        units = chance.randint(1, capacity[line])
        waiting.append(Waiting(id, thread, line, units, chance.random() < 0.05))
    return Scene(capacity, tuple(held), tuple(waiting))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kvsync.Store]:
    """A store for scenes, one after the other."""
    with kvsync.open(tmp_path_factory.mktemp("stage") / "store.db") as store:
        yield store


@settings(deadline=None, max_examples=500, database=None)
@given(scene=scenes())
def test_every_deadlock_is_found_and_nothing_else(stage: kvsync.Store, scene: Scene) -> None:
    """Against a model that lets threads go on one by one."""
    scene.write(stage)
    stuck, found = scene.stuck(), knots(stage)
    assert bool(found) == bool(stuck)
    members = [number(ticket) for knot in found for ticket in knot]
    assert len(members) == len(set(members)), "two of one knot would give up"
    assert set(members) <= stuck
    for knot in found:
        inside = {number(ticket) for ticket in knot}
        assert knot.way[0].ticket.id == max(ticket.id for ticket in knot)
        assert scene_where_others_go_on(scene, inside).stuck() >= inside, "no deadlock by itself"
        assert inside >= {number(step.ticket) for step in knot.way}
        assert_leads_round(scene, knot)


@settings(deadline=None, max_examples=100, database=None)
@given(scene=scenes())
def test_all_go_on_when_those_who_are_told_give_up(stage: kvsync.Store, scene: Scene) -> None:
    """Round by round, until nobody is stuck."""
    while scene.stuck():
        scene.write(stage)
        gone = {number(knot.way[0].ticket) for knot in knots(stage)}
        assert gone
        scene = scene_without_waits_of(scene, gone)


def scene_where_others_go_on(scene: Scene, inside: set[int]) -> Scene:
    return scene_without_waits_of(scene, set(THREADS) - inside)


def scene_without_waits_of(scene: Scene, threads: set[int]) -> Scene:
    return replace(scene, waiting=tuple(w for w in scene.waiting if w.thread not in threads))


def assert_leads_round(scene: Scene, knot: deadlock.Knot) -> None:
    """Each on the way waits for the next, as it says."""
    following = [*knot.way[1:], knot.way[0]]
    for step, (after, _) in zip(knot.way, following, strict=True):
        if step.is_held:
            held = [each.line for each in scene.held if each.thread == number(after)]
            assert step.ticket.name in held
        else:
            assert after.name == step.ticket.name
            assert after.id < step.ticket.id


def test_a_circle_that_may_come_undone_by_another_ones_end_is_left_alone(
    stage: kvsync.Store,
) -> None:
    """Its members wait for a permit, which one of the other circle will give back."""
    one, two, three, four = (Held(n, line, 1, False) for n, line in enumerate("abcd", 1))
    permit = Held(3, "b", 1, False)
    waits = [(3, "d"), (4, "c"), (2, "a"), (1, "b")]
    scene = Scene(
        {"a": 1, "b": 2, "c": 1, "d": 1},
        (one, two, permit, three, four),
        tuple(Waiting(id, thread, line, 1, False) for id, (thread, line) in enumerate(waits, 1)),
    )
    assert scene.stuck() == {1, 2, 3, 4}
    scene.write(stage)
    (knot,) = knots(stage)
    assert [number(ticket) for ticket, _ in knot.way] == [4, 3]
    assert scene_without_waits_of(scene, {4}).stuck() == set()


def test_a_wait_inside_a_signals_handler_hides_the_one_it_interrupted(
    stage: kvsync.Store,
) -> None:
    """What that is given meanwhile passes on, so nobody waits for it."""
    held = (Held(1, "a", 1, False), Held(2, "b", 1, False))
    circle = (Waiting(1, 1, "b", 1, False), Waiting(2, 2, "a", 1, False))
    scene = Scene(dict.fromkeys(LINES, 1), held, circle)
    scene.write(stage)
    assert [[number(ticket) for ticket in knot] for knot in knots(stage)] == [[1, 2]]
    for ends, line in ((False, "c"), (True, "b")):
        replace(scene, waiting=(*circle, Waiting(3, 2, line, 1, ends))).write(stage)
        assert knots(stage) == []
    replace(scene, waiting=(*circle, Waiting(3, 2, "b", 1, False))).write(stage)
    assert [knot.way[0].ticket.id for knot in knots(stage)] == [3]


def test_what_a_signals_handler_holds_while_its_thread_waits_is_given_back(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on, so who waits for that waits for nobody who is stuck."""
    first, second = store.lock("first"), store.lock("second")
    has_it, ask = threading.Event(), threading.Event()
    searching: list[int] = []
    circle = deadlock.circle

    def search(*line: Any) -> deadlock.Knot | None:
        found = circle(*line)
        searching.append(threading.get_ident())
        return found

    def hold_and_ask() -> None:
        with first:
            has_it.set()
            assert ask.wait(PATIENCE)
            with second:
                pass

    def handler(*_: object) -> None:
        with second:
            ask.set()
            eventually(lambda: other.ident in searching or not other.is_alive())

    def interrupt() -> None:
        eventually(lambda: waiters(store) == 1)
        os.kill(os.getpid(), signal.SIGUSR1)

    def in_time(function: Callable[[], None]) -> None:
        try:
            function()
        except kvsync.DeadlockError as error:
            told.append(str(error))

    told: list[str] = []
    other = threading.Thread(target=in_time, args=(hold_and_ask,))
    interrupter = threading.Thread(target=interrupt)
    monkeypatch.setattr(deadlock, "circle", search)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        other.start()
        assert has_it.wait(PATIENCE)
        interrupter.start()
        assert first.acquire(timeout=-1)
        first.release()
    finally:
        for thread in (other, interrupter):
            thread.join(PATIENCE)
        signal.signal(signal.SIGUSR1, before)
    assert told == []

"""Queues whose calls are cut short by an exception at each point: nothing is lost, left or twice.

Of what a call that was cut short was to do, all is done or nothing.
"""

import itertools
import json
import os
import queue
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

import kvsync
from kvsync import session as session_module
from kvsync import waiting as wait_loop
from kvsync.engine import transaction as transaction_module
from kvsync.engine.sqlite import SqliteEngine
from kvsync.primitives import items as items_module
from tests.interrupted import (
    Interrupt,
    after_each_call,
    at_each_instruction,
    at_each_point,
    handling_within,
)
from tests.lines import calling
from tests.queues import NAME, SETTLEMENTS, items, taken, tickets
from tests.undone import undone

TAKES: dict[str, Callable[..., Any]] = {
    "get": lambda jobs, timeout=None: jobs.get(timeout=timeout),
    "get many": lambda jobs, timeout=None: jobs.get_many(2, timeout=timeout),
    "reserve": kvsync.Queue.reserve,
    "reserve many": lambda jobs, timeout=None: jobs.reserve_many(2, timeout),
}
takes = pytest.mark.parametrize("take", TAKES.values(), ids=TAKES)
sweeps = pytest.mark.parametrize("sweep", [at_each_point, after_each_call])


def fill(jobs: kvsync.Queue) -> None:
    """Two items, which have been handed out once already."""
    jobs.put_many("ab")
    for task in jobs.reserve_many(2):
        task.retry(0)


def state(jobs: kvsync.Queue) -> list[tuple[Any, ...]]:
    """All that waits; nobody has anything in hand, nor stands in a line."""
    assert taken(jobs.store) == []
    assert tickets(jobs.store) == []
    assert jobs.unfinished_tasks == jobs.qsize()
    return [(each.item, each.attempts, each.priority, each.key) for each in jobs.peek(99)]


@sweeps
@takes
def test_an_interrupted_taking_puts_it_back(
    store: kvsync.Store, take: Callable[..., Any], sweep: Callable[..., Any]
) -> None:
    """As it was, in its old place."""
    jobs = store.queue(NAME)
    fill(jobs)
    before = state(jobs)
    for point in sweep(lambda: take(jobs)):
        assert state(jobs) == before, point


def test_a_statement_has_its_row_if_and_only_if_it_was_committed(store: kvsync.Store) -> None:
    """So who takes an item knows, even if a signal comes between the commit and the return."""
    engine, numbers, rows = store.engine, itertools.count(1), []
    engine.write("create table made (id integer primary key)")

    def make() -> None:
        rows.clear()
        made = {"id": next(numbers)}
        engine.write("insert into made (id) values (:id) returning id", made, into=rows)

    outcomes = set()
    for point in at_each_instruction(make, SqliteEngine._write_once.__code__, "into.extend("):
        assert rows == engine.read("select id from made where id = :id", {"id": point + 1})
        outcomes.add(bool(rows))
    assert outcomes == {True, False}


def put_in_time(
    monkeypatch: pytest.MonkeyPatch, jobs: kvsync.Queue, put: Callable[[], Any]
) -> None:
    """In place of a waiter's first look: another thread does `put`, and then it looks."""

    def put_and_look(self: wait_loop.Wait) -> Any:
        if self._wish.name == jobs.name and not taken(jobs.store):
            with calling(put) as call:
                call.result()
        return look(self)

    look = wait_loop.Wait._look
    monkeypatch.setattr(wait_loop.Wait, "_look", put_and_look)


@takes
def test_an_interrupted_wait_for_an_item_loses_none(
    store: kvsync.Store, take: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it comes: before the item, with it, and after it."""
    jobs, puts = store.queue(NAME), 0

    def put() -> None:
        nonlocal puts
        puts += 1
        jobs.put_many("ab")

    put_in_time(monkeypatch, jobs, put)
    for _ in at_each_point(lambda: take(jobs)):
        assert [attempts for _, attempts, *_ in state(jobs)] == [0] * 2 * puts
        jobs.purge()
        puts = 0


@pytest.mark.parametrize("count", [1, 2])
def test_what_an_interrupted_reserve_puts_back_keeps_no_session_alive(
    store: kvsync.Store, count: int
) -> None:
    """Nor does the next one look through more because of it, though others have much in hand."""
    jobs = store.queue(NAME)
    fill(jobs)
    with kvsync.open(store.path) as other:
        for _ in range(40):
            other.session.keep(["something"])
        for point in at_each_point(lambda: jobs.reserve_many(count)):
            assert in_hand(store) == [], point


def in_hand(store: kvsync.Store) -> list[Any]:
    """What this handle's session is kept alive for."""
    proof = store.session._life().proof
    return [held for held, its in session_module._kept.values() if its is proof and held]


@takes
def test_an_interrupted_wait_in_vain_leaves_nothing(
    store: kvsync.Store, take: Callable[..., Any]
) -> None:
    jobs = store.queue(NAME)
    jobs.put("a")
    jobs.get()
    jobs.task_done()

    def wait() -> None:
        with suppress(queue.Empty):
            take(jobs, 0.001)

    for _ in at_each_point(wait):
        assert state(jobs) == []


@sweeps
def test_an_interrupted_put_has_put_all_or_nothing(
    store: kvsync.Store, sweep: Callable[..., Any]
) -> None:
    jobs = store.queue(NAME)
    seen = set()
    for _ in sweep(lambda: jobs.put_many("ab", priority=1)):
        seen.add(tuple(state(jobs)))
        jobs.purge()
    assert seen <= {(), (("a", 0, 1.0, None), ("b", 0, 1.0, None))}


def test_an_interrupted_wait_for_room_has_put_it_or_not(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, if at all; nor does it ask for room any more."""
    jobs = store.queue(NAME, 1)

    def make_room(self: wait_loop.Wait) -> Any:
        if self._wish.space == "queue-put" and jobs.peek()[0].item == "a":
            with calling(lambda: (jobs.get(), jobs.task_done())) as call:
                call.result()
        return look(self)

    look = wait_loop.Wait._look
    monkeypatch.setattr(wait_loop.Wait, "_look", make_room)
    jobs.put("a")
    seen = set()
    for _ in at_each_point(lambda: jobs.put("b", key="k")):
        seen.add(tuple(state(jobs)))
        assert len(items(store)) == jobs.qsize()
        jobs.purge()
        jobs.put("a")
    assert seen - {()} == {(("a", 0, 0.0, None),), (("b", 0, 0.0, "k"),)}


def test_an_interrupted_wait_in_a_full_queue_leaves_nothing(store: kvsync.Store) -> None:
    jobs = store.queue(NAME, 1)
    jobs.put("a")

    def put() -> None:
        with suppress(queue.Full):
            jobs.put_many(["b"], timeout=0.001)

    for _ in at_each_point(put):
        assert [item for item, *_ in state(jobs)] == ["a"]
        assert len(items(store)) == 1


@pytest.mark.parametrize("done", [True, False])
def test_an_interrupted_join_leaves_no_ticket(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    jobs = store.queue(NAME)

    def finish(self: wait_loop.Wait) -> Any:
        if self._wish.space == "queue-join" and done:
            jobs.purge()
        return look(self)

    look = wait_loop.Wait._look
    monkeypatch.setattr(wait_loop.Wait, "_look", finish)
    jobs.put("a")
    for _ in at_each_point(lambda: jobs.join(None if done else 0.001)):
        assert tickets(store) == []
        if not jobs.qsize():
            jobs.put("a")


@sweeps
@pytest.mark.parametrize("settle", SETTLEMENTS.values(), ids=SETTLEMENTS)
def test_an_interrupted_settlement_is_made_or_not(
    store: kvsync.Store, settle: Callable[[kvsync.Task], Any], sweep: Callable[..., Any]
) -> None:
    """In a block the item does not stay in hand in either case."""
    jobs = store.queue(NAME)

    def work() -> None:
        with jobs.reserve() as task:
            begun.append(task)
            settle(task)

    begun: list[kvsync.Task] = []
    jobs.put("a")
    for point in sweep(work):
        assert taken(store) == [], point
        assert tickets(store) == [], point
        assert len(items(store)) <= 1, point
        jobs.purge()
        jobs.dead.purge()
        jobs.put("a")


@sweeps
@pytest.mark.parametrize("error", [None, ValueError("no"), SystemExit()], ids=str)
def test_interrupted_as_it_leaves_the_block_it_is_settled_all_the_same(
    store: kvsync.Store, error: BaseException | None, sweep: Callable[..., Any]
) -> None:
    """Or it goes back, as if it had never been handed out, where its very end was skipped."""
    jobs = store.queue(NAME, max_attempts=1)
    settled = {None: (0, 0), ValueError: (0, 1), SystemExit: (1, 0)}[type(error) if error else None]

    def work() -> None:
        try:
            with jobs.reserve():
                worked.append(True)
                if error:
                    raise error
        except (ValueError, SystemExit):
            pass

    worked: list[bool] = []
    outcomes = []
    jobs.put("a")
    for point in sweep(work):
        assert tickets(store) == [], point
        assert taken(store) == [], point
        left = (jobs.qsize(), len(jobs.dead))
        if worked:
            outcomes.append(left)
        elif left != (0, 0):  # else it was taken for good by the block's end
            assert left == (1, 0), point
        worked.clear()
        jobs.purge()
        jobs.dead.purge()
        jobs.put("a")
    assert set(outcomes) <= {settled, (1, 0)}
    assert outcomes.count(settled) > 1


def test_a_task_that_is_only_looked_at_stays_in_hand(store: kvsync.Store) -> None:
    """Whoever looks whether it can be entered and left; or lets go of it on purpose."""
    jobs = store.queue(NAME)
    jobs.put_many("abc")
    task = jobs.reserve()
    assert hasattr(task, "__enter__")
    assert hasattr(task, "__exit__")
    assert callable(task.__exit__)
    assert task.is_current()
    jobs.reserve()
    assert [each.id for each in jobs.reserve_many(1)] == [3]
    del task
    assert len(taken(store)) == 3


@pytest.mark.parametrize("constants", [10, 300])
def test_the_end_of_a_block_is_recognised_however_long_the_code_around_it(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch, constants: int
) -> None:
    """A signal's exception comes at the first instruction of what ends it."""

    def skipped(*_: Any) -> None:
        raise Interrupt

    jobs = store.queue(NAME)
    jobs.put("a")
    lines = ['"""A script."""', *(f"x = {number}.5" for number in range(constants))]
    script = "\n".join([*lines, "with jobs.reserve() as task:", "    pass", ""])
    monkeypatch.setattr(kvsync.Task, "__call__", skipped)
    with pytest.raises(Interrupt):
        exec(compile(script, "script", "exec"), {"jobs": jobs})
    assert taken(store) == []
    assert jobs.qsize() == 1


@pytest.mark.parametrize("take", [kvsync.Queue.reserve, partial(kvsync.Queue.reserve_many, n=1)])
def test_what_was_handed_out_and_never_came_to_its_caller_goes_back(
    store: kvsync.Store, take: Callable[[kvsync.Queue], Any]
) -> None:
    """As where a signal's exception comes just as the call returns. Here C lets go of it."""
    jobs = store.queue(NAME)
    jobs.put("a")
    before = state(jobs)
    deque(map(take, [jobs]), maxlen=0)
    assert state(jobs) == before


def test_an_interrupted_loop_has_nothing_in_hand(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put_many("ab")

    def loop() -> None:
        for task in jobs.tasks(timeout=0):
            assert task.item

    for _ in at_each_point(loop, sparing=[kvsync.Queue.tasks.__code__]):
        assert taken(store) == []
        assert len(items(store)) == jobs.qsize()
        jobs.purge()
        jobs.put_many("ab")


@takes
def test_in_a_transaction_that_goes_on_nothing_is_lost(
    store: kvsync.Store, take: Callable[..., Any]
) -> None:
    """The block swallows the interrupt, and commits."""
    jobs = store.queue(NAME)
    fill(jobs)
    before = state(jobs)

    def go_on() -> None:
        with store.transaction():
            try:
                take(jobs, 0)
            except Interrupt:
                cut.append(True)
            except kvsync.TransactionError:
                return

    cut: list[bool] = []
    for _ in at_each_point(lambda: [go_on(), cut and again(cut)]):
        assert state(jobs) == before


def again(cut: list[bool]) -> None:
    cut.clear()
    raise Interrupt


def test_a_rolled_back_get_that_was_interrupted_is_put_back_once(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    fill(jobs)
    before = state(jobs)

    def get() -> None:
        with undone(store):
            jobs.get()

    for _ in at_each_point(get):
        assert state(jobs) == before


@pytest.mark.parametrize("anew", [[], ["c"], ["c", "d"]], ids=["deleted", "with one", "with two"])
def test_an_interrupted_taking_puts_nothing_into_a_queue_that_was_deleted(
    store: kvsync.Store, anew: list[str]
) -> None:
    """Nor into the next one of that name, whose items have their ids."""
    jobs = store.queue(NAME)
    jobs.put_many("ab")
    attempt = jobs._getting(2, jobs._patience(0))
    jobs._take(attempt)
    store.delete("queue", NAME)
    jobs.put_many(anew)
    attempt.undo(None)
    assert [each.item for each in jobs.peek(9)] == anew
    assert jobs.unfinished_tasks == jobs.qsize() == len(anew)
    jobs.put("e")
    assert jobs.get_many(9) == [*anew, "e"]


class Forking:
    """JSON; in the middle of a reading a signal's handler forks, and the child ends by an error."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error
        self.child: int | None = None

    def dumps(self, value: Any) -> str:
        return json.dumps(value)

    def loads(self, text: str) -> Any:
        if self.child is None:
            self.child = os.fork()
            if not self.child:
                raise self.error
            os.waitpid(self.child, 0)
        return json.loads(text)


@pytest.mark.parametrize("error", [Interrupt, ValueError])
@takes
def test_a_child_that_was_forked_in_a_taking_puts_nothing_back(
    store: kvsync.Store, take: Callable[..., Any], error: type[BaseException]
) -> None:
    """What was taken is its parent's. Nor is it a dead letter, though the child cannot read it."""
    codec = Forking(error)
    jobs = store.queue(NAME, codec=codec)
    jobs.put("a")
    taken = None
    try:
        taken = take(jobs)
    finally:
        if not codec.child:
            os._exit(0)
    assert taken
    assert jobs.qsize() == len(jobs.dead) == 0


FILES = [module.__file__ for module in (transaction_module, items_module)]


def test_a_handler_that_reads_in_the_middle_of_a_call_changes_nothing_of_it(
    store: kvsync.Store,
) -> None:
    """Another statement is run between any two steps of a transaction."""
    jobs, hits = store.queue(NAME), store.counter("hits")
    hits.add(7)
    seen: list[int] = []

    def put_and_get() -> None:
        assert len(jobs.put_many("abc")) == 3
        assert jobs.get_many(3) == ["a", "b", "c"]

    for place in handling_within(FILES, put_and_get, lambda: seen.append(hits.value)):
        assert jobs.qsize() == 0, place
        jobs.put("d")
        assert jobs.get(timeout=0) == "d", place
    assert set(seen) == {7}


@pytest.mark.parametrize("take", ["get many", "reserve many"])
def test_what_a_handler_puts_in_the_middle_of_a_call_is_put_or_refused(
    store: kvsync.Store, take: str
) -> None:
    """And is not taken with the items that the call had in view."""
    jobs = store.queue(NAME)
    put: list[str] = []

    def handler() -> None:
        with suppress(kvsync.BusyError):
            jobs.put("urgent", priority=1)
            put.append("urgent")

    def call() -> None:
        for each in TAKES[take](jobs):
            if isinstance(each, kvsync.Task):
                each.ack()
            put.remove(each.item if isinstance(each, kvsync.Task) else each)

    put += "abc"
    jobs.put_many("abc")
    for place in handling_within(FILES, call, handler):
        assert sorted(each.item for each in jobs.peek(99)) == sorted(put), place
        assert jobs.stats().in_flight == 0, place
        jobs.purge()
        put[:] = "abc"
        jobs.put_many("abc")

"""How an item comes to one who waits for it: by which way, by which ring, and to whom."""

import queue
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import kvsync
from kvsync.engine.doorbell import LOOK, SERVED
from kvsync.primitives.grants import CLAIM_TIME
from kvsync.primitives.items import ASKING, DEAD, DELAYED, GET, READY, TAKEN, Draft, Items, Kept
from kvsync.primitives.taking import Getting, Reserving
from kvsync.session import Patience
from kvsync.testing import ManualClock
from kvsync.waiting import Wish, enter
from tests.conftest import Occupy
from tests.interrupted import after_each_call
from tests.lines import doorbells
from tests.processes import eventually
from tests.queues import NAME, tickets, waiting

HOUR = 3600.0

TAKES: dict[str, Callable[[kvsync.Queue], Any]] = {
    "get": kvsync.Queue.get,
    "reserve": lambda jobs: jobs.reserve().item,
}
takes = pytest.mark.parametrize("take", TAKES.values(), ids=TAKES)


@pytest.fixture
def store(timed_store: kvsync.Store) -> kvsync.Store:
    """One whose time moves when the test says so."""
    return timed_store


@dataclass
class Row:
    """The row of `kvsync_queue`; its `size` and `due` are what its items make them.

    Behind its items come others that were put, and the tally has not counted.
    """

    maxsize: int
    shut: int
    mark: float  # seconds ago
    uncounted: int


@dataclass
class Ticket:
    """A row of `kvsync_ticket`, in the line of those who want an item."""

    state: str
    deadline: float | None
    session: int
    has_doorbell: bool


_OURS, _GONE = 1, 99
_LAST = 50
_DRAFTS = st.builds(Draft, value=st.just('"new"'), priority=st.sampled_from([0.0, 7.0, -7.0]))
_QUEUES = st.builds(
    Row,
    maxsize=st.sampled_from([0, 0, 2]),
    shut=st.sampled_from([0] * 8 + [1, 2]),
    mark=st.sampled_from([0.0, 0.0, 30.0, 59.0, 60.0, 600.0, -1.0]),
    uncounted=st.sampled_from([0, 0, 1, 2]),
)
_ITEMS = st.lists(
    st.tuples(st.sampled_from([READY, DELAYED, ASKING, TAKEN, DEAD]), st.sampled_from([0.0, 7.0])),
    max_size=4,
)
_LINE = st.lists(
    st.builds(
        Ticket,
        state=st.sampled_from(["waiting"] * 4 + ["granted", "passed"]),
        deadline=st.sampled_from([None, None, None, HOUR, 0.0, -HOUR]),
        session=st.sampled_from([_OURS, _OURS, _GONE]),
        has_doorbell=st.sampled_from([True, True, False]),
    ),
    max_size=4,
)


class Moment:
    """A queue and its line at one moment, as a commit leaves them; it can be had again."""

    def __init__(
        self,
        store: kvsync.Store,
        queue: Row,
        items: list[tuple[int, float]],
        line: list[Ticket],
    ) -> None:
        if any(ticket.state == "waiting" for ticket in line):
            items = [(state, priority) for state, priority in items if state != READY]
            queue = replace(queue, uncounted=0)
        self._engine, self._queue, self._items, self._line = store.engine, queue, items, line

    def again(self) -> None:
        for table in ("queue", "item", "ticket"):
            self._engine.write(f"delete from kvsync_{table}")
        now, counted = self._engine.now(), [state in (READY, DELAYED) for state, _ in self._items]
        due = [now - 2 + id for id, (state, _) in enumerate(self._items, 1) if state == DELAYED]
        self._engine.write(
            "insert into kvsync_queue (name, maxsize, shut, last, size, got, purged, receipts,"
            " due, mark, mark_last, mark_done, older, older_last, older_done) values ('jobs',"
            " :maxsize, :shut, :last, :size, 3, 4, 70, :due, :mark, 5, 6, 0, 7, 8)",
            {
                **vars(self._queue),
                "last": _LAST,
                "size": sum(counted),
                "due": min(due, default=None),
                "mark": now - self._queue.mark,
            },
        )
        uncounted = [(_LAST + each, (READY, 0.0)) for each in range(1, self._queue.uncounted + 1)]
        for id, (state, priority) in [*enumerate(self._items, 1), *uncounted]:
            places = {READY: -priority, DELAYED: now - 2 + id, ASKING: 1000, TAKEN: 50 + id}
            self._engine.write(
                "insert into kvsync_item (queue, state, place, id, priority, value, since,"
                " attempts) values ('jobs', :state, :place, :id, :priority, '1', 1.0, 2)",
                {"state": state, "place": places.get(state, 1.0), "id": id, "priority": priority},
            )
        for id, ticket in enumerate(self._line, 1):
            self._engine.write(
                "insert into kvsync_ticket (id, space, name, kind, units, capacity, session,"
                " attempt, thread, doorbell, since, deadline, state, token) values (:id, 'queue',"
                " 'jobs', 'get', 0, 0, :session, :id, 'one', :doorbell, 1.0, :boot + :deadline,"
                " :state, case when :state = 'granted' then 60 end)",
                {
                    **vars(ticket),
                    "id": id,
                    "boot": self._engine.boot(),
                    "doorbell": f"bell {id}" if ticket.has_doorbell else None,
                },
            )

    def found(self) -> list[Any]:
        tables = ("kvsync_queue", "kvsync_item where state > -2", "kvsync_ticket")
        return [self._engine.read(f"select * from {each} order by 1, 2, 3, 4") for each in tables]


@settings(
    deadline=None, max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(draft=_DRAFTS, queue=_QUEUES, items=_ITEMS, line=_LINE)
def test_putting_in_one_statement_is_what_putting_and_giving_come_to(
    store: kvsync.Store,
    rings: list[tuple[str, bytes]],
    draft: Draft,
    queue: Row,
    items: list[tuple[int, float]],
    line: list[Ticket],
) -> None:
    """Or it does nothing at all."""
    assert store.session.id == _OURS
    jobs = Items(store.engine, NAME)
    moment = Moment(store, queue, items, line)
    moment.again()
    before = moment.found()
    rings.clear()
    put = jobs.put_one(draft, queue.maxsize, Patience(None, store.engine.boot))
    after, rung = moment.found(), rings[:]
    event(f"put: {bool(put)}, given: {before[2] != after[2]}")
    if not put:
        assert after == before
        assert rung == []
        return
    moment.again()
    rings.clear()
    again = store.engine.transact(partial(jobs.put, drafts=[draft], maxsize=queue.maxsize))
    assert (again, moment.found(), rings) == (put, after, rung)


@takes
def test_an_item_that_is_waited_for_is_given_in_one_statement_and_claimed_in_one(
    store: kvsync.Store, take: Callable[[kvsync.Queue], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = store.queue(NAME)
    jobs.put("first")
    jobs.get()
    with ExitStack() as stack:
        calls = [stack.enter_context(waiting(lambda: take(jobs), store)) for _ in range(2)]
        monkeypatch.setattr(Items, "put", None)
        monkeypatch.setattr(Items, "claim", None)
        for item, call in zip("ab", calls, strict=True):
            jobs.put(item)
            assert call.result() == item
        assert tickets(store) == []


@pytest.mark.usefixtures("head_waits_to_be_woken")
@takes
def test_whatever_interrupts_who_puts_an_item_who_was_given_it_is_woken(
    store: kvsync.Store, take: Callable[[kvsync.Queue], Any]
) -> None:
    """Between the commit and the ring, too."""
    jobs = store.queue(NAME)
    jobs.put("first")
    jobs.get()

    def last() -> int:
        ((last,),) = store.engine.read("select last from kvsync_queue")
        return int(last)

    before = last()
    with ExitStack() as stack:
        waiter = stack.enter_context(waiting(lambda: take(jobs), store))
        for place in after_each_call(lambda: jobs.put("a")):
            if last() == before:
                jobs.put("a")
            try:
                assert waiter.result() == "a"
            except AssertionError:
                pytest.fail(f"it is not woken: {place}")
            stack.close()
            before = last()
            waiter = stack.enter_context(waiting(lambda: take(jobs), store))
        assert waiter.result() == "a"


@takes
def test_what_fell_due_is_given_before_what_is_put(
    store: kvsync.Store,
    clock: ManualClock,
    rings: list[tuple[str, bytes]],
    take: Callable[[kvsync.Queue], Any],
) -> None:
    """Though who waits for it has not looked yet."""
    jobs = store.queue(NAME)
    jobs.put("due", delay=HOUR)
    with waiting(lambda: take(jobs), store) as call:
        clock.advance(HOUR)
        assert rings == []
        jobs.put("new")
        assert call.result() == "due"
        assert [left.item for left in jobs.peek()] == ["new"]


def test_what_is_claimed_is_as_if_it_had_been_taken_at_once(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put("a", priority=7)
    at_once = jobs.reserve()
    with waiting(jobs.reserve, store) as call:
        jobs.put("a", priority=7)
        claimed = call.result()
    for task in (at_once, claimed):
        assert repr((task.item, task.priority, task.attempts)) == "('a', 7.0, 1)"
        assert task.enqueued_at == store.engine.now()
        task.ack()
    assert jobs.unfinished_tasks == 0


@takes
def test_who_is_told_that_it_was_given_an_item_and_was_not_goes_on_waiting(
    store: kvsync.Store, take: Callable[[kvsync.Queue], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    claims: list[Any] = []
    claim = Items.claim

    def noted(self: Items, *arguments: Any) -> Any:
        claims.append(claim(self, *arguments))
        return claims[-1]

    jobs = store.queue(NAME)
    with waiting(lambda: take(jobs), store) as call:
        monkeypatch.setattr(Items, "claim", noted)
        store.engine.doorbells.ring(doorbells(store)[0], SERVED)
        eventually(lambda: claims == [None])
        assert tickets(store) == [("queue", "waiting")]
        jobs.put("a")
        assert call.result() == "a"


@pytest.mark.parametrize("put", [kvsync.Queue.put, lambda jobs, item: jobs.put_many([item])])
def test_who_was_given_an_item_is_told_so_and_who_comes_first_then_is_told_to_look(
    store: kvsync.Store, rings: list[tuple[str, bytes]], put: Callable[[kvsync.Queue, str], Any]
) -> None:
    """And nobody before the commit."""
    jobs = store.queue(NAME)
    jobs.put("first")
    jobs.get()
    with ExitStack() as stack:
        calls = [stack.enter_context(waiting(jobs.get, store)) for _ in range(3)]
        first, second, _ = doorbells(store)
        eventually(lambda: len(rings) == 2)  # each one that comes has the first one look
        rings.clear()
        with store.transaction():
            put(jobs, "a")
            assert rings == []
        assert rings[:2] == [(first, SERVED), (second, LOOK)]
        assert calls[0].result() == "a"
        for item, call in zip("bc", calls[1:], strict=True):
            put(jobs, item)
            assert call.result() == item


def test_who_gives_an_item_after_a_rest_makes_way_once_it_has_rung(
    store: kvsync.Store,
    clock: ManualClock,
    rings: list[tuple[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who puts one after the other goes on, and so does who gives none."""
    ways: list[bool] = []
    monkeypatch.setattr("kvsync.primitives.items.make_way", lambda: ways.append(bool(rings)))
    jobs = store.queue(NAME)
    jobs.put("first")
    jobs.get()
    with ExitStack() as stack:
        calls = [stack.enter_context(waiting(store.queue(NAME).get, store)) for _ in range(3)]
        rings.clear()
        jobs.put("a")
        assert ways == [True]
        jobs.put("b")
        assert ways == [True]
        clock.advance(0.01)
        jobs.put("c")
        assert ways == [True, True]
        assert {call.result() for call in calls} == {"a", "b", "c"}
    clock.advance(0.01)
    jobs.put("d")
    assert ways == [True, True]


def test_a_put_wakes_no_crowd(store: kvsync.Store, rings: list[tuple[str, bytes]]) -> None:
    """Only who is given the item, and who is first then, however many wait; and that one's next."""
    jobs = store.queue(NAME)
    jobs.put("first")
    jobs.get()
    with ExitStack() as stack:
        calls = [stack.enter_context(waiting(jobs.get, store)) for _ in range(8)]
        first_three = {*doorbells(store)[:3]}
        rings.clear()
        jobs.put("a")
        assert {doorbell for doorbell, _ in rings} <= first_three
        assert calls[0].result() == "a"
        jobs.put_many(range(7))


@pytest.mark.parametrize("take", [kvsync.Queue.get, kvsync.Queue.reserve])
def test_who_was_given_an_item_after_a_long_wait_tells_who_has_come_near(
    store: kvsync.Store,
    rings: list[tuple[str, bytes]],
    has_rested: Callable[[], None],
    take: Callable[[kvsync.Queue], Any],
) -> None:
    """However many were given one at once, those that are second and third then are told."""
    jobs = store.queue(NAME)
    with ExitStack() as stack:
        calls = [stack.enter_context(waiting(partial(take, jobs), store)) for _ in range(5)]
        *_, second, third = doorbells(store)
        rings.clear()
        has_rested()
        jobs.put_many("ab")
        for call in calls[:2]:
            assert call.result()
        assert {(second, LOOK), (third, LOOK)} <= set(rings)
        jobs.put_many("cde")
        for call in calls[2:]:
            assert call.result()


NEWCOMERS: dict[str, Callable[[kvsync.Queue], Any]] = {
    "get": kvsync.Queue.get_nowait,
    "get many": lambda jobs: jobs.get_many(5, block=False)[0],
    "reserve": lambda jobs: jobs.reserve(0).item,
    "reserve many": lambda jobs: jobs.reserve_many(5, 0)[0].item,
}
newcomers = pytest.mark.parametrize("come", NEWCOMERS.values(), ids=NEWCOMERS)


@pytest.mark.usefixtures("rings")
@newcomers
def test_what_fell_due_is_given_to_who_waits_and_then_to_who_comes(
    store: kvsync.Store,
    clock: ManualClock,
    come: Callable[[kvsync.Queue], Any],
) -> None:
    """Though none of those has looked yet; who comes then gets what is left."""
    jobs = store.queue(NAME)
    jobs.put_many("abc", delay=HOUR)
    with waiting(jobs.get, store) as first, waiting(jobs.get, store) as second:
        clock.advance(HOUR)
        assert come(jobs) == "c"
        assert [first.result(), second.result()] == ["a", "b"]


@pytest.mark.usefixtures("rings")
@newcomers
def test_a_single_item_that_fell_due_is_not_for_who_comes_then(
    store: kvsync.Store,
    clock: ManualClock,
    come: Callable[[kvsync.Queue], Any],
) -> None:
    jobs = store.queue(NAME)
    jobs.put("a", delay=HOUR)
    with waiting(jobs.get, store) as call:
        clock.advance(HOUR)
        with pytest.raises(queue.Empty):
            come(jobs)
        assert call.result() == "a"


@pytest.mark.usefixtures("rings")
@newcomers
def test_the_last_item_of_a_closing_queue_to_fall_due_sends_the_others_home(
    store: kvsync.Store,
    clock: ManualClock,
    come: Callable[[kvsync.Queue], Any],
) -> None:
    """Whoever comes in that moment; it is told the same."""
    jobs = store.queue(NAME)
    jobs.put("last", delay=HOUR)
    with waiting(jobs.get, store) as first, waiting(jobs.get, store) as second:
        jobs.shutdown()
        clock.advance(HOUR)
        with pytest.raises(kvsync.ShutDown):
            come(jobs)
        assert first.result() == "last"
        with pytest.raises(kvsync.ShutDown):
            second.result()


@pytest.mark.parametrize(
    "take",
    [lambda jobs: jobs.get_many(3), lambda jobs: [task.item for task in jobs.reserve_many(3)]],
    ids=["get many", "reserve many"],
)
def test_who_is_given_an_item_and_wants_more_leaves_to_the_next_what_fell_due(
    store: kvsync.Store,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    take: Callable[[kvsync.Queue], Any],
) -> None:
    """In the moment between; of that it takes what is left."""
    shortly = CLAIM_TIME / 4  # so that what is given to one is not yet another's

    def fall_due(*_: object) -> list[Kept]:
        clock.advance(shortly)
        return []

    jobs = store.queue(NAME)
    jobs.put_many("bc", delay=shortly)
    for kind in (Getting, Reserving):
        monkeypatch.setattr(kind, "claim_one", fall_due)
    with waiting(lambda: take(jobs), store) as first, waiting(jobs.get, store) as second:
        jobs.put("a")
        assert first.result() == ["a", "c"]
        assert second.result() == "b"


LOOKS: dict[str, Callable[[kvsync.Queue], Any]] = {
    "get": lambda jobs: jobs.get_many(1, timeout=0),
    "join": lambda jobs: jobs.join(0),
}


@pytest.mark.usefixtures("rings")
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_what_fell_due_makes_room_when_it_is_given(
    store: kvsync.Store,
    clock: ManualClock,
    look: Callable[[kvsync.Queue], Any],
) -> None:
    """Who waits for that is let in at once, whoever looks."""
    jobs = store.queue(NAME, 1)
    jobs.put("a", delay=HOUR)
    with (
        waiting(jobs.get, store) as call,
        waiting(lambda: jobs.put("b", delay=HOUR), store) as putter,
    ):
        clock.advance(HOUR)
        with suppress(queue.Empty):
            look(jobs)
        assert call.result() == "a"
        assert putter.result() == 2


@pytest.fixture
def in_line(store: kvsync.Store) -> int:
    """The ticket of one who waits for an item, and does nothing else."""
    jobs = store.queue(NAME)
    jobs.put("first")
    jobs.get()
    wish = Wish(GET, NAME, "get", store.session.next_attempt())
    return store.engine.transact(lambda transaction: enter(store.session, transaction, wish, None))


def test_who_is_given_an_item_has_the_whole_time_to_claim_it(
    store: kvsync.Store, occupy: Occupy, in_line: int
) -> None:
    """Though the put had to wait for longer than that."""
    occupy(2 * CLAIM_TIME)
    store.queue(NAME).put("a")
    ((ticket, claim_by),) = store.engine.read(
        "select ticket, claim_by from kvsync_item where state = -1"
    )
    assert (ticket, claim_by - store.engine.boot()) == (in_line, CLAIM_TIME)


@takes
def test_what_fell_due_while_the_store_was_busy_has_its_place(
    store: kvsync.Store, occupy: Occupy, take: Callable[[kvsync.Queue], Any]
) -> None:
    """When it is taken, not when that was asked for."""
    jobs = store.queue(NAME)
    jobs.put("due", delay=HOUR, priority=1)
    jobs.put("a")
    occupy(HOUR)
    assert take(jobs) == "due"


def test_what_fell_due_while_the_store_was_busy_is_given_before_what_is_put(
    store: kvsync.Store, occupy: Occupy, in_line: int
) -> None:
    jobs = store.queue(NAME)
    jobs.put("due", delay=HOUR)
    occupy(HOUR)
    jobs.put("new")
    taken = store.engine.read("select ticket, value from kvsync_item where state = -1")
    assert taken == [(in_line, '"due"')]

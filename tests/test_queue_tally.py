"""What a queue counts, whatever is done to it in whichever order.

Putting one item writes nothing but the item: the queue's tally is told later, by whoever changes it
or takes away another item than the first. See primitives/items.py.
"""

import queue
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kvsync
from kvsync import session
from kvsync.primitives import kinds
from tests.queues import NAME

Act = Callable[["Case"], Any]

FAR = 1000.0


class Case:
    """A queue, and what is in hand."""

    def __init__(self, store: kvsync.Store, maxsize: int) -> None:
        self.store = store
        self.jobs = store.queue(NAME, maxsize, max_attempts=2)
        self.tasks: list[kvsync.Task] = []
        self.newest = 0
        """The highest id so far."""

    def reserve(self, count: int) -> None:
        self.tasks += self.jobs.reserve_many(count, timeout=0)

    def settle(self, how: Callable[[kvsync.Task], Any]) -> None:
        if self.tasks:
            how(self.tasks.pop())

    def work_off(self, count: int) -> None:
        """So many, each in the commit that acknowledges the one before."""
        for _, _ in zip(range(count), self.jobs.tasks(0), strict=False):
            pass

    def delete_older(self) -> None:
        """As `Store.delete` does while others put."""
        engine = self.store.engine
        for (last,) in engine.read("select last / 2 as last from kvsync_queue"):
            engine.transact(partial(kinds._delete_items, engine, NAME, last))

    def undo(self, act: Act) -> None:
        """In a transaction that comes to nothing."""
        with suppress(ZeroDivisionError), self.store.transaction():
            act(self)
            raise ZeroDivisionError


def unreadable(case: Case) -> Any:
    """The second to go is what the codec cannot read, and moves to the dead letters."""
    rows = case.store.engine.read(
        "select place, id from kvsync_item where queue = :queue and state = 0 order by place, id"
        " limit 2",
        {"queue": NAME},
    )
    for place, number in rows[1:]:
        case.store.engine.write(
            "update kvsync_item set value = '{' where queue = :queue and state = 0"
            " and place = :place and id = :id",
            {"queue": NAME, "place": place, "id": number},
        )
        try:
            case.jobs.get_many(2, block=False)
        finally:
            case.store.engine.write("update kvsync_item set value = '1' where value = '{'")


ACTS: dict[str, Act] = {
    "put": lambda case: case.jobs.put("a", block=False),
    "put first": lambda case: case.jobs.put("b", block=False, priority=1),
    "put last": lambda case: case.jobs.put("c", block=False, priority=-1),
    "put later": lambda case: case.jobs.put("d", block=False, delay=FAR),
    "put in a moment": lambda case: case.jobs.put("e", block=False, delay=1e-6),
    "put under a key": lambda case: case.jobs.put("f", block=False, key="k"),
    "put many": lambda case: case.jobs.put_many("ghi", block=False),
    "get": lambda case: case.jobs.get(block=False),
    "get two": lambda case: case.jobs.get_many(2, block=False),
    "task_done": lambda case: case.jobs.task_done(),
    "reserve": lambda case: case.reserve(1),
    "reserve two": lambda case: case.reserve(2),
    "work off two": lambda case: case.work_off(2),
    "ack": lambda case: case.settle(kvsync.Task.ack),
    "retry": lambda case: case.settle(lambda task: task.retry(0)),
    "retry later": lambda case: case.settle(lambda task: task.retry(FAR)),
    "give back": lambda case: case.settle(kvsync.Task.give_back),
    "bury": lambda case: case.settle(kvsync.Task.bury),
    "redrive": lambda case: case.jobs.dead.redrive(),
    "purge": lambda case: case.jobs.purge(),
    "shut down": lambda case: case.jobs.shutdown(),
    "delete the older half": lambda case: case.delete_older(),
    "reopen": lambda case: case.jobs.reopen(),
    "put in vain": lambda case: case.undo(ACTS["put"]),
    "get in vain": lambda case: case.undo(ACTS["get"]),
    "unreadable": unreadable,
}
_REFUSED = (
    queue.Empty,
    queue.Full,
    kvsync.ShutDown,
    kvsync.DecodeError,
    kvsync.StaleReceiptError,
    ValueError,
)
"""What an act may come to; a `task_done` too many among it."""

_LIKELY: st.SearchStrategy[str] = st.sampled_from(["put"]) | st.sampled_from(list(ACTS))


def check(case: Case) -> None:
    engine = case.store.engine
    rows = engine.read("select last, size from kvsync_queue")
    if not rows:
        case.newest = 0  # one of that name begins anew
        assert engine.read("select id from kvsync_item") == []
        return
    ((last, size),) = rows
    items = engine.read("select state, place, id from kvsync_item where state > -2")
    ids = [id for _, _, id in items]
    assert len(set(ids)) == len(ids), "an id twice"
    case.newest = max([case.newest, *ids])
    assert last >= case.newest, "an id could come again"
    assert size == sum(state in (0, 1) for state, _, _ in items)
    ((counted,),) = engine.read("select last from kvsync_item where state = -2")
    uncounted = sorted(item for item in items if item[2] > counted)
    assert uncounted == [(0, 0, id) for id in range(counted + 1, last + 1)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with kvsync.open(tmp_path_factory.mktemp("tally") / "app.db", durability="none") as store:
        yield store


@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(maxsize=st.sampled_from([0, 0, 4]), acts=st.lists(_LIKELY, max_size=12))
def test_a_queue_counts_what_it_has(store: kvsync.Store, maxsize: int, acts: list[str]) -> None:
    case = Case(store, maxsize)
    try:
        for act in acts:
            with suppress(*_REFUSED):
                ACTS[act](case)
            check(case)
        expect_all_of_it(case)
    finally:
        for task in case.tasks:
            with suppress(kvsync.StaleReceiptError):
                task.ack()
        case.store.delete("queue", NAME)
        check(case)


def expect_all_of_it(case: Case) -> None:
    """As many as it says can be had, in the order of their priorities and ids."""
    case.jobs.reopen()
    order = "select id from kvsync_item where state = 0 order by -priority, id"
    expected = [id for (id,) in case.store.engine.read(order)]
    size = case.jobs.qsize()
    found = []
    with suppress(queue.Empty):
        while True:
            found.append(case.jobs.reserve(timeout=0).id)
    assert found[: len(expected)] == expected
    assert len(found) == size


@pytest.mark.parametrize(
    "statement",
    [
        f"select name from {kinds._KINDS['queue'].table} where name > :after order by name limit 1",
        "select * from kvsync_queue",
        session._HAS,
        session._TAKE_AWAY[-1],
    ],
)
def test_all_queues_are_found_without_reading_their_items(
    store: kvsync.Store, statement: str
) -> None:
    """Their tallies lie between them. A session's end asks for all queues, and so does `names`."""
    plan = [
        detail
        for *_, detail in store.engine.read(
            f"explain query plan {statement}", {"after": "", "session": 1}
        )
    ]
    of_items = [detail for detail in plan if " tally " in detail or " kvsync_item " in detail]
    assert all("queue=? AND state=?" in detail for detail in of_items)
    assert not any("ORDER BY" in detail for detail in plan)

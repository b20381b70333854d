"""What the tests of queues share. Imports little: children load it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import kvsync
from tests.lines import Call, calling
from tests.processes import eventually

NAME = "jobs"

SETTLEMENTS: dict[str, Callable[[kvsync.Task], Any]] = {
    "ack": kvsync.Task.ack,
    "retry": lambda task: task.retry(0),
    "retry later": lambda task: task.retry(1000),
    "bury": kvsync.Task.bury,
    "give back": kvsync.Task.give_back,
    "extend": lambda task: task.extend(1000),
}
"""All that changes something for an item that is in hand."""


_ITEMS = "select id from kvsync_item where state > -2"


def tickets(store: kvsync.Store) -> list[Any]:
    """Who stands in the lines of all queues, the first one first."""
    return store.engine.read("select space, state from kvsync_ticket order by id")


def items(store: kvsync.Store) -> list[Any]:
    """The ids of all items there are, whatever their state."""
    return sorted(number for (number,) in store.engine.read(_ITEMS))


def taken(store: kvsync.Store) -> list[Any]:
    """The ids of all items that somebody has in hand, or is about to."""
    return store.engine.read("select id from kvsync_item where state = -1 order by id")


@contextmanager
def waiting(function: Callable[[], Any], store: kvsync.Store) -> Iterator[Call]:
    """The call, begun in a thread, once it stands in a line."""
    before = len(tickets(store))
    with calling(function) as call:
        eventually(lambda: len(tickets(store)) > before or call.is_over)
        assert not call.is_over, f"it did not wait: {call.result()}"
        yield call

"""Calls that wait, made in threads: for tests about who gets what, and in which order."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.processes import PATIENCE, eventually


class Call:
    """A call in a thread of its own. The thread lives on until `end`, as its locks' owner."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None
        self._over, self._may_end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error
        self._over.set()
        self._may_end.wait(PATIENCE)

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def result(self) -> Any:
        """What it returned. Raises: what it raised; AssertionError if it hangs."""
        assert self._over.wait(PATIENCE), "the call hangs"
        if self._error is not None:
            raise self._error
        return self._result

    def end(self) -> None:
        self._may_end.set()
        if self.is_over:
            self._thread.join(PATIENCE)


@contextmanager
def calling(function: Callable[[], Any]) -> Iterator[Call]:
    """The call, begun; its thread ends on leaving."""
    call = Call(function)
    try:
        yield call
    finally:
        call.end()


@contextmanager
def queued(function: Callable[[], Any], line: Any) -> Iterator[Call]:
    """The same, once it stands in the line of that lock, semaphore or the like."""
    before = set(line.stats().waiters)
    with calling(function) as call:
        eventually(lambda: set(line.stats().waiters) - before or call.is_over)
        assert not call.is_over, f"it did not wait: {call.result()}"
        yield call


def until_waiting(store: Any, count: int) -> None:
    """Until so many stand in its lines, in whichever processes."""
    waiting = "select count(*) from kvsync_ticket where state = 'waiting'"
    eventually(lambda: store.engine.read(waiting) == [(count,)])


def doorbells(store: Any) -> list[str]:
    """Those of the line, the next one's first."""
    rows = store.engine.read("select doorbell from kvsync_ticket order by id")
    return [doorbell for (doorbell,) in rows]

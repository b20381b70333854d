"""Working off a queue until somebody asks to stop."""

import logging
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from kvsync.errors import ShutDown, StaleReceiptError
from kvsync.primitives.taking import Attempt
from kvsync.primitives.task import Stop, Task

Handler = Callable[[Task], object]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger("kvsync")


class _Ear:
    """Hears the signals. The first one waits for the task in hand; `wants_end` tells of it."""

    def __init__(self) -> None:
        self.wants_end = False
        self.is_busy = False

    def hear(self, _number: int, _frame: FrameType | None) -> None:
        again, self.wants_end = self.wants_end, True
        if again or not self.is_busy:
            raise Stop

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.hear) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def work(
    name: str,
    handler: Handler,
    begin: Callable[[], Attempt],
    reserve: Callable[[Attempt], Task],
    undo: Callable[[Attempt], None],
) -> int:
    """See `Queue.work`. `undo` puts back what an attempt has got, if it still has it."""
    ear, done = _Ear(), 0
    attempt = None
    try:
        with ear.listening():
            while not ear.wants_end:
                ear.is_busy = False
                attempt = begin()
                done += _settle(reserve(attempt), ear, handler, name)
    except (ShutDown, queue.Empty):
        pass
    except Stop:
        if attempt is not None:
            undo(attempt)
    return done


def _settle(task: Task, ear: _Ear, handler: Handler, name: str) -> bool:
    """Whether it was done, and acknowledged."""
    try:
        with task:
            ear.is_busy = True
            return _handle(task, handler, name)
    except StaleReceiptError as late:
        _log.warning("queue %r: %s", name, late)
        return False


def _handle(task: Task, handler: Handler, name: str) -> bool:
    try:
        handler(task)
    except Exception as error:
        _log.exception("queue %r: attempt %d of item %d failed", name, task.attempts, task.id)
        task.__exit__(type(error), error, error.__traceback__)
        return False
    return True

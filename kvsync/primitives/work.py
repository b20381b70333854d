"""Working off a queue until somebody asks to stop."""

import logging
import queue
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from kvsync.errors import DecodeError, KvsyncError, ShutDown, StaleReceiptError
from kvsync.forks import generation
from kvsync.primitives.taking import Attempt, Relay, Undo
from kvsync.primitives.task import Stop, Task

Handler = Callable[[Task], object]

UNREADABLE = "queue %r: an item cannot be read, and is a dead letter"
"""What is logged of it."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger("kvsync")


class Worked(int):
    """How many items `Queue.work` has acknowledged."""

    ended_by: signal.Signals | None = None
    """The signal that asked to stop, the first if there were several."""


class _Ear:
    """Hears the signals, and notes them in `heard`. The first one waits for the task in hand.

    What the program ignores stays ignored. From the moment when `is_over` is set signals are the
    program's again, whether they still come here first or not; and so they are in a child that the
    handler has forked.
    """

    def __init__(self) -> None:
        self._process = generation()
        self.heard: list[int] = []
        self.is_busy = True
        self.is_over = False
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        self._before = {number: old for number, old in handlers.items() if _can_be_changed(old)}
        self._hear_again()

    def _hear_again(self) -> None:
        """A task's handler may have let go of signals: asyncio sets to their defaults those that
        its loop has handled.
        """
        for number in self._before:
            now = signal.getsignal(number)
            if now != self._hear and _can_be_changed(now):
                signal.signal(number, self._hear)

    def restore(self) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) != handler:
                signal.signal(number, handler)

    def tell(self) -> None:
        """The program's own handlers hear what was heard here, now that all is settled.

        Python's, and the system's, would cut short a program that goes on after its work.
        """
        if generation() != self._process:
            return
        for number in self.heard:
            handler = self._before[number]
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, None)

    def goes_on(self) -> bool:
        """Whether nobody has asked to stop; who asks from now on interrupts."""
        self._hear_again()
        self.is_busy = False
        return not self.heard

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.is_over or generation() != self._process:
            self._pass_on(number, frame)
            return
        self.heard.append(number)
        if len(self.heard) > 1 or not self.is_busy:
            raise Stop

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        handler = self._before[number]
        if callable(handler):
            handler(number, frame)
        else:
            signal.signal(number, handler)
            signal.raise_signal(number)


def _can_be_changed(handler: Any) -> bool:
    """It does not ignore the signal, and Python has set it, so that it can be set again."""
    return handler not in (signal.SIG_IGN, None)


def work(
    name: str,
    handler: Handler,
    relay: Relay,
    reserve: Callable[[Attempt], Task],
    undo: Undo,
) -> Worked:
    """See `Queue.work`. `undo` puts back what an attempt has got, if it still has it."""
    ear, done = _Ear(), 0
    attempt = task = None
    try:
        ear.listen()
        while ear.goes_on():
            attempt, task = relay.attempt(), None
            relay.ahead = relay.thread = None
            try:
                task = reserve(attempt)
            except DecodeError:
                _log.exception(UNREADABLE, name)
                continue
            try:
                _settle(task, ear, handler, relay, name)
            finally:
                done += task.is_done
        relay.undo()  # it was asked to stop after it had the next one already
    except (ShutDown, queue.Empty):
        pass
    except BaseException as error:
        ear.is_over = True  # before anything is called, for a signal would be heard then
        try:
            # A task that could not be settled sees to that itself; a settled one has nothing left.
            if attempt is not None and (task is None or not isinstance(error, KvsyncError)):
                undo(attempt)
        finally:
            try:
                relay.undo()
            finally:
                relay.undo()  # twice, as below
        if not isinstance(error, Stop):
            raise
    finally:
        ear.is_over = True
        try:
            ear.restore()
        finally:
            ear.restore()  # an exception of another signal can skip one call as a whole
        ear.tell()
    worked = Worked(done)
    if ear.heard:
        worked.ended_by = signal.Signals(ear.heard[0])
    return worked


def _settle(task: Task, ear: _Ear, handler: Handler, relay: Relay, name: str) -> None:
    try:
        with task:
            ear.is_busy = True
            _handle(task, handler, name)
            if not ear.heard:
                relay.thread = threading.get_ident()
    except StaleReceiptError as late:
        _log.warning("queue %r: %s", name, late)


def _handle(task: Task, handler: Handler, name: str) -> None:
    try:
        handler(task)
    except SystemExit:
        task._count_exits()  # else an item that ends each of its workers would come for ever
        raise
    except Exception as error:
        _log.exception("queue %r: attempt %d of item %d failed", name, task.attempts, task.id)
        task.__exit__(type(error), error, error.__traceback__)

"""What calls left behind that were cut short, or for which the store was busy for too long.

Nobody else can take it back: what a living process holds is never taken from it. So a thread goes
on trying until it is done, or the store is gone.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from kvsync.errors import BusyError, CorruptError, KvsyncError, StorageError
from kvsync.threads import Background

T = TypeVar("T")

Step = Callable[[float], object]
"""Takes something back; may be repeated. It is given the seconds for which it may wait for the
store, and says by a BusyError or StorageError that it is to be tried again; by any other error,
that there is nothing to take back."""

_PATIENCE = 1.0
"""What it is given: who waits until all is done must not wait much longer than its own patience."""

_NAP, _LONGEST_NAP = 0.005, 0.2
"""Seconds between two attempts, at first and at last; the shorter also between two looks of who
waits until all is done."""

_log = logging.getLogger("kvsync")


class Leftovers:
    """Those of one session, in one process.

    Who adds takes no lock, for a signal handler may call anything in the middle of anything:

    - A step stays in the list until it is done, so an empty list means that nothing is left.
    - There may be several workers, of which one at a time works: some steps must not be taken twice
      at once. Their lock is theirs alone, and no signal's exception comes in their threads.
    - There is never none where a step was added. Who adds first notes the step and then looks for
      a worker; a worker first says that it ends and then looks for steps. So one sees the other.
      And one that was to begin, but was kept from it by a signal's exception, is not alive.
    """

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._worker: Background | None = None
        self._turn = threading.Lock()
        self._failures = 0

    def add(self, step: Step) -> None:
        """It is tried from now on; this does not wait. A signal's exception comes after that."""
        try:
            self.note(step)
            self.begin()
        except BaseException:
            self.note(step)
            self.begin()
            raise

    def note(self, step: Step) -> None:
        """The same, but from the next `settle` on: until then somebody may see to it by hand."""
        self._steps.append(step)

    def are_none(self) -> bool:
        """Whether there is nothing to take back."""
        return not self._steps

    def settle(self, patience: float) -> None:
        """Wait until all of it is done. Raises: BusyError if it is not after `patience` seconds.

        It was tried in vain meanwhile, if there was time for that: the attempt that is under way
        now may be an old one, and takes as long as the store lets it wait.
        """
        deadline, enough = time.monotonic() + patience, self._failures + 2
        while self._steps:
            self.begin()
            late = time.monotonic() - deadline
            if late >= _PATIENCE or (late >= 0 and self._failures >= enough):
                raise BusyError("what an earlier call has left cannot be taken back yet")
            time.sleep(_NAP)

    def drop(self, step: Step) -> None:
        """It is done, or need not be."""
        with suppress(ValueError):  # forgotten meanwhile
            self._steps.remove(step)

    def forget(self) -> None:
        """There is nothing to take back any more."""
        self._steps.clear()

    def begin(self) -> None:
        """Try what there is from now on; this does not wait."""
        worker = self._worker
        if not self._steps or (worker is not None and worker.is_alive()):
            return
        try:
            worker = Background(self._work, "leftovers")
            self._worker = worker  # before it can say that it ends
            worker.start()
        except RuntimeError:  # no thread is to be had: the process is at its limit, or ends
            self._failures += 1

    def _work(self) -> None:
        while True:
            with self._turn:
                self._do_all()
            self._worker = None
            if not self._steps:
                return

    def _do_all(self) -> None:
        nap = _NAP
        while steps := self._steps[:]:
            done = [step for step in steps if _is_done(step)]
            for step in done:
                self.drop(step)
            if not done:
                self._failures += 1
                time.sleep(nap)
                nap = min(2 * nap, _LONGEST_NAP)


def with_cleanup(
    call: Callable[[], T],
    cleanup: Callable[[], object],
    orderly: tuple[type[BaseException], ...] = (),
) -> T:
    """What `call` returns; if it raises, `cleanup` is called, which may be repeated.

    Not after what is `orderly`: then `call` has seen to that itself.

    Whatever the handler of an exception calls, a signal's can skip as a whole, for it can come at
    the first instruction of a function. So the handler stands here, where no call of it can be
    skipped but that of `cleanup`, which is then called again.
    """
    try:
        return call()
    except orderly:
        raise
    except BaseException:
        try:
            cleanup()
        except KvsyncError:
            raise
        except BaseException:
            cleanup()
            raise
        raise


def may_succeed_later(error: KvsyncError) -> bool:
    """Whether the store may be able to do it another time."""
    return isinstance(error, BusyError | StorageError) and not isinstance(error, CorruptError)


def _is_done(step: Step) -> bool:
    try:
        step(_PATIENCE)
    except KvsyncError as error:
        return not may_succeed_later(error)
    except Exception:
        _log.exception("kvsync: what a call has left could not be taken back")
    return True

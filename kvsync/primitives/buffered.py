"""Write-behind adds to a counter, for paths on which even one commit is too slow.

`add` appends to a deque, which is atomic: no lock that a signal handler could meet twice, that a
thread could hold at a fork, or that would cost more than the addition. A background thread commits
the sum once an interval, and ends when it has had nothing to do for a while.

While the program runs only that thread commits, for no signal is ever raised in it: an interrupt
between a commit and the note that it happened would count the sum twice. At the program's end the
main thread does, and does not try again what was interrupted. Moving the adds out of the deque is
one call into C, so they are always either in `_waiting` or in `_taken`.

At a fork the child starts from nothing: what was added before is the parent's to commit.
"""

import logging
import math
import os
import sys
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from itertools import repeat, starmap
from types import TracebackType

from kvsync.errors import BusyError, CounterOverflowError
from kvsync.exits import at_exit
from kvsync.primitives.counter import MAX, MIN, Counter, check_int
from kvsync.primitives.primitive import Home
from kvsync.threads import Background

_WIDEST = MAX - MIN
"""What takes a counter from one end of its range to the other: a larger add could never be
committed, and neither could those that came after it."""

_LIMIT = 10_000
"""Adds after which the thread is woken before its time, so that memory stays bounded."""

_IDLE_ROUNDS = 50
"""Intervals without an add after which the thread ends."""

_log = logging.getLogger("kvsync")


@dataclass(frozen=True)
class BufferedCounterStats:
    """A buffered counter at one moment: `pending` is the sum that is not committed yet."""

    name: str
    pending: int


class _Request:
    """Somebody waits for the next commit."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: BaseException | None = None


class BufferedCounter:
    """Adds to a counter in memory and commits the sum every `interval` seconds.

    At most the adds of the last interval, and of the commit then under way, are lost if this
    process is killed by SIGKILL or the power fails. None are lost at a normal exit, after an
    uncaught exception, or in `multiprocessing` children. Others see an add once it is committed.
    Leaving a `with` block closes it.

    Raises: TypeError, ValueError unless `interval` is a finite number above zero.

    Example:
        >>> hot = store.counter("hits").buffered(interval=0.1)
        >>> hot.add()
        >>> hot.flush()
    """

    def __init__(self, counter: Counter, *, interval: float = 0.1) -> None:
        if not isinstance(interval, int | float) or isinstance(interval, bool):
            raise TypeError(f"interval is a number of seconds, not {interval!r}")
        if not 0 < interval < math.inf:
            raise ValueError(f"interval must be positive and finite, not {interval!r}")
        self._counter = counter
        self._interval = interval
        self._begin()
        _live[id(self)] = weakref.ref(self)

    def _begin(self) -> None:
        self._waiting: deque[int] = deque()
        self._taken: list[int] = []
        self._requests: deque[_Request] = deque()
        self._commit_lock = threading.Lock()
        self._committing: set[int] = set()  # threads in a commit, or waiting for their turn
        self._start_lock = threading.RLock()
        self._wake = threading.Event()
        self._thread: Background | None = None
        self._failing = False

    @property
    def counter(self) -> Counter:
        """The counter behind it; its `value` lacks what is not committed yet."""
        return self._counter

    @property
    def name(self) -> str:
        """The counter's name."""
        return self._counter.name

    def add(self, n: int = 1) -> None:
        """Add `n` soon.

        Raises: TypeError for what is no int, CounterOverflowError for what no counter has room for.
        """
        if type(n) is not int or not -_WIDEST <= n <= _WIDEST:
            _check(n)
        self._waiting.append(n)
        if self._thread is None:
            self._start()
        elif len(self._waiting) > _LIMIT:
            self._wake.set()

    def sub(self, n: int = 1) -> None:
        """Subtract `n` soon. Raises: as `add`."""
        self.add(-check_int(n))

    def flush(self) -> None:
        """Commit what was added so far, and wait for it.

        Raises: what `Counter.add` raises, after which the sum is kept and tried again;
        TransactionError inside a transaction, for it would wait for its own thread; BusyError in a
        signal handler or finalizer that interrupted a commit of this thread, for the same reason.
        """
        self._counter.store.engine.forbid_in_transaction("flush")
        self._forbid_in_commit()
        if sys.is_finalizing():  # a finalizer calls, and no other thread runs any more
            self._commit()
            return
        request = _Request()
        self._requests.append(request)
        self._start()
        self._wake.set()
        request.done.wait()
        if request.error is not None:
            raise request.error

    def close(self) -> None:
        """Flush. A later `add` works still, and is flushed as any other. Raises: as `flush`."""
        self.flush()

    def stats(self) -> BufferedCounterStats:
        """How much is not committed yet. Touches no file."""
        return BufferedCounterStats(self.name, sum(self._taken) + sum(tuple(self._waiting)))

    def __enter__(self) -> "BufferedCounter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iadd__(self, n: int) -> "BufferedCounter":
        self.add(n)
        return self

    def __isub__(self, n: int) -> "BufferedCounter":
        self.sub(n)
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return _remake, (self._counter, self._interval)

    def __repr__(self) -> str:
        store = self._counter.store
        return f"<kvsync.BufferedCounter {self.name!r}, interval={self._interval!r} in {store!r}>"

    def __del__(self) -> None:
        _live.pop(id(self), None)

    # --- the thread ---------------------------------------------------------------------------

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None:
                at_exit(_commit_all)
                self._thread = Background(self._run, f"buffered-{self.name}")
                try:
                    self._thread.start()
                except RuntimeError:  # the interpreter is ending, or out of threads
                    self._thread = None
                    self._serve()
                except BaseException:
                    if not self._thread.is_alive():  # and never will be: the next add begins anew
                        self._thread = None
                    raise

    def _run(self) -> None:
        idle = 0
        while idle < _IDLE_ROUNDS:
            self._wake.wait(self._interval)
            self._wake.clear()
            idle = 0 if self._waiting or self._requests or self._taken else idle + 1
            self._serve()
        # An add that came after the last look sees no thread and starts one; one that came before
        # `None` was set is found here.
        self._thread = None
        if self._waiting or self._requests:
            self._start()

    def _serve(self) -> None:
        """One commit, and its outcome for all who asked before it began."""
        requests = list(starmap(self._requests.popleft, repeat((), len(self._requests))))
        error: BaseException | None = None
        try:
            self._commit()
        except Exception as failure:  # whatever it is, the thread and the sum outlive it
            error = failure
            if not requests and not self._failing:
                _log.warning("kvsync: %r keeps its sum and tries again: %s", self, failure)
        self._failing = error is not None
        for request in requests:
            request.error = error
            request.done.set()

    def _forbid_in_commit(self) -> None:
        if threading.get_ident() in self._committing:
            raise BusyError(
                f"{self!r}: called from a signal handler or finalizer that interrupted a commit of"
                " this thread, which cannot go on before the handler returns"
            )

    def _commit(self) -> None:
        self._forbid_in_commit()
        here = threading.get_ident()
        try:
            self._committing.add(here)
            self._commit_in_turn()
        finally:
            self._committing.discard(here)

    def _commit_in_turn(self) -> None:
        with self._commit_lock:
            try:
                self._commit_sum()
            except Exception:
                raise
            except BaseException:
                self._taken.clear()  # committed or not: unknown, so never once more
                raise

    def _commit_sum(self) -> None:
        self._taken.extend(starmap(self._waiting.popleft, repeat((), len(self._waiting))))
        if self._taken:
            self._taken[:] = [sum(self._taken)]
            self._counter.add(self._taken[0])
            self._taken.clear()


def _check(n: int) -> None:
    if not -_WIDEST <= check_int(n) <= _WIDEST:
        raise CounterOverflowError(f"no counter of 64 bits has room for {n}")


def _remake(counter: Counter, interval: float) -> BufferedCounter:
    return BufferedCounter(counter, interval=interval)


_live: dict[int, "weakref.ref[BufferedCounter]"] = {}


def _all() -> list[BufferedCounter]:
    return [counter for reference in list(_live.values()) if (counter := reference()) is not None]


def flush_all_of(store: Home) -> None:
    """Before a store is closed. Raises: as `BufferedCounter.flush`."""
    for counter in _all():
        if counter.counter.store is store and (counter._waiting or counter._taken):
            counter.flush()


def _commit_all() -> None:
    for counter in _all():
        try:
            counter._commit()
        except Exception as error:  # the others have theirs to commit
            _log.error("kvsync: %r could not commit its sum at exit: %s", counter, error)


def _begin_all() -> None:
    for counter in _all():
        counter._begin()


os.register_at_fork(after_in_child=_begin_all)

"""Once: one of all processes and threads does it, and everybody gets its result.

There is one unit of each name (see units.py), which whoever wants to run takes in turn. The mark,
a row with the result, is written by a transaction that first makes sure that the unit is held
still, so:

- Nobody runs while another does that holds its unit still; who gets its turn looks at the mark
  again before it runs.
- A run that raises, or dies, leaves no mark, and its unit passes to the next in line.
- Who lost its unit (by force, or by the end of its lease) does not write: another may run already.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from kvsync.codec import JSON, decode, encode
from kvsync.engine import Transaction
from kvsync.errors import (
    AcquireTimeout,
    KvsyncError,
    NotDoneError,
    NotOwnedError,
)
from kvsync.forks import generation
from kvsync.primitives.arguments import (
    Seconds,
    check_callable,
    check_lease,
    check_positive,
    check_wait,
)
from kvsync.primitives.grants import Grant, Holder, Waiter
from kvsync.primitives.primitive import Home, Primitive
from kvsync.primitives.units import Units

_SPACE = _KIND = "once"

_MARK = """
    insert into kvsync_once (name, value, since, token) values (:name, :value, :since, :token)
    on conflict (name) do update
    set value = excluded.value, since = excluded.since, token = excluded.token
"""


@dataclass(frozen=True)
class OnceStats:
    """At one moment: `since` is the wall time of the last success, None if there was none.

    `runner` is who runs it now, if anybody does; `waiters` wait for that, the next one first.
    """

    name: str
    done: bool
    since: float | None
    runner: Holder | None
    waiters: tuple[Waiter, ...]


class _Mark(NamedTuple):
    """A success: its result, its wall time, and the token under which it ran."""

    value: str
    since: float
    token: int


class Once(Primitive):
    """What one of us does for all: once, or once in each rolling period of `per` seconds.

    The period is wall time and begins with the last success, which survives restarts. The result
    is stored as JSON; None is a result like any other. With a `lease`, a run that is not over
    within so many seconds loses its turn: the next one runs, beside it, and what the late one
    returns does not count. `per`, `lease` and `timeout` are seconds, or timedeltas.

    Example:
        >>> store.once("greeting").run(lambda: "hello")
        'hello'
        >>> store.once("greeting").run(lambda: "never called")
        'hello'
    """

    def __init__(
        self,
        store: Home,
        name: str,
        *,
        per: Seconds | None = None,
        lease: Seconds | None = None,
    ) -> None:
        super().__init__(store, name)
        self._per = None if per is None else check_positive("per", per)
        self._lease = check_lease(lease)

    def _options(self) -> dict[str, Any]:
        options = {"per": self._per, "lease": self._lease}
        return {key: value for key, value in options.items() if value is not None}

    @property
    def per(self) -> float | None:
        """Seconds for which a success counts; None for ever."""
        return self._per

    def run(
        self,
        func: Callable[..., Any],
        /,
        *args: Any,
        timeout: Seconds | None = None,
        **kwargs: Any,
    ) -> Any:
        """The result of `func(*args, **kwargs)`, whoever calls it: one of us, one at a time, but
        for one that has lost its lease.

        If it is done already, that result; if somebody is running it, theirs, after waiting up to
        `timeout` seconds for their end (None: for ever; 0: not at all). If they raise or
        die, it is the turn of the next who waits. All get the result as JSON gives it back.

        Raises: what `func` raises, to its own caller alone; EncodeError if JSON cannot hold the
        result, and then it is not done; AcquireTimeout; DeadlockError if the wait could never end;
        LeaseLostError if the turn was lost during the run, by force or by the end of the lease, and
        `func` has returned: that does not count, for another may run it; DecodeError if
        the result that is stored is damaged; TransactionError inside a transaction; BusyError,
        ClosedError, StoreReplacedError as any call.
        """
        check_callable(func)
        seconds = check_wait(timeout)
        self._engine.forbid_in_transaction("run")
        before = self._last()
        if before is not None and self._counts(before):
            return decode(JSON, before.value)
        units = Units(self._store.session, _SPACE, self._name, 1)
        try:
            return self._run_in_turn(units, before, seconds, partial(func, *args, **kwargs))
        finally:
            try:
                _let_go(units)
            finally:
                _let_go(units)  # a signal's exception can skip one call as a whole

    def _run_in_turn(
        self, units: Units, before: _Mark | None, timeout: float | None, call: Callable[[], Any]
    ) -> Any:
        grant = units.acquire(_KIND, 1, timeout, self._lease)
        mark = self._last()
        # A success during our wait is ours too, even if its period is over by now.
        if mark is not None and (self._counts(mark) or before is None or mark.token > before.token):
            return decode(JSON, mark.value)
        if grant is None:
            raise AcquireTimeout(
                f"once {self._name!r} was not done within {timeout:g} s{units.held_by()}"
            )
        value = encode(JSON, call())
        self._engine.transact(partial(self._write, units, grant, value))
        return decode(JSON, value)

    def _write(self, units: Units, grant: Grant, value: object, transaction: Transaction) -> None:
        if grant.process != generation():
            raise NotOwnedError(
                f"once {self._name!r}: this process was forked during the run; its parent runs it"
            )
        units.ensure_current([grant])
        mark = {"value": value, "since": transaction.now, "token": grant.token}
        transaction.execute(_MARK, {"name": self._name, **mark})

    # --- how it stands ------------------------------------------------------------------------

    def done(self) -> bool:
        """Whether it is done, in this period: `run` would call nothing."""
        mark = self._last()
        return mark is not None and self._counts(mark)

    def result(self) -> Any:
        """What `run` would return without calling anything.

        Raises: NotDoneError; DecodeError if what is stored is damaged.
        """
        mark = self._last()
        if mark is None or not self._counts(mark):
            raise NotDoneError(f"once {self._name!r} is not done")
        return decode(JSON, mark.value)

    def reset(self) -> None:
        """Forget that it was done: the next `run` does it again.

        A run that is under way goes on, and counts. Raises: BusyError, ClosedError,
        StoreReplacedError as any call.
        """
        self._engine.write("delete from kvsync_once where name = :name", {"name": self._name})

    def stats(self) -> OnceStats:
        """How it stands, and who runs it or waits.

        Blocks no writer, but to pass over a stopped waiter.
        """
        mark = self._last()
        units = Units(self._store.session, _SPACE, self._name, 1)
        return OnceStats(
            self._name,
            mark is not None and self._counts(mark),
            mark.since if mark is not None else None,
            next(iter(units.holders()), None),
            tuple(units.waiters()),
        )

    def _last(self) -> _Mark | None:
        rows = self._engine.read(
            "select value, since, token from kvsync_once where name = :name", {"name": self._name}
        )
        return _Mark._make(rows[0]) if rows else None

    def _counts(self, mark: _Mark) -> bool:
        # Further ahead than a period, the wall clock was wrong then: it must not block for years.
        return self._per is None or abs(self._engine.now() - mark.since) < self._per


def _let_go(units: Units) -> None:
    """Release what this process holds of them.

    Errors say that it is lost, which the writing of the mark has told; that the store is closed; or
    that it is busy, and then it goes later.
    """
    for grant in units.held[:]:
        if grant.process == generation():
            with suppress(KvsyncError):
                units.release(grant)

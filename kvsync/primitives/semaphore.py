"""Semaphores: a limited number of permits, each freed when its holder dies."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from kvsync.errors import KvsyncError, OverReleaseError
from kvsync.forks import generation
from kvsync.primitives.arguments import UNSET, Seconds, Unset, check_blocking, check_whole
from kvsync.primitives.grants import Grant, Holder, Waiter
from kvsync.primitives.lock import Shared
from kvsync.primitives.primitive import Home
from kvsync.threads import this_thread

_Left = dict[Grant, int]
_Plan = list[tuple[Grant, int]]
"""How many permits of a grant are to be left."""


@dataclass(frozen=True)
class SemaphoreStats:
    """A semaphore at one moment: who holds permits, and who waits, the next one first."""

    name: str
    limit: int
    free: int
    holders: tuple[Holder, ...]
    waiters: tuple[Waiter, ...]


class Semaphore(Shared):
    """At most `limit` permits are held at a time, by whichever processes and threads.

    Bounded: more than was acquired cannot be released. A differing `limit` is adopted when nobody
    holds a permit or waits; else `acquire` raises LimitError. `timeout` and `lease` are seconds, or
    timedeltas.

    Each `acquire` has a lease of its own. `extend`, `ensure_held`, `owned` and guards go by all
    permits of the calling thread; where it has none, by all of the object. What is lost counts
    until it is released.

    Example:
        >>> with store.semaphore("downloads", 4):
        ...     pass
    """

    _space = _kind = "semaphore"

    def __init__(
        self,
        store: Home,
        name: str,
        limit: int,
        *,
        timeout: Seconds | None = None,
        lease: Seconds | None = None,
    ) -> None:
        self._limit = check_whole("limit", limit)
        self._turns: dict[int, threading.RLock] = {}  # by process: a fork can leave one taken
        self._left: _Left = {}  # permits, by what is being given back; never changed
        super().__init__(store, name, timeout=timeout, lease=lease)

    def _capacity(self) -> int:
        return self._limit

    def _options(self) -> dict[str, Any]:
        return {"limit": self._limit, **super()._options()}

    @property
    def limit(self) -> int:
        """How many permits there are."""
        return self._limit

    def acquire(
        self, blocking: bool = True, timeout: Seconds | Unset | None = UNSET, *, n: int = 1
    ) -> bool:
        """Take `n` permits at once, waiting for up to `timeout` seconds; returns whether they were.

        The arguments are those of `Lock.acquire`.

        Raises: as that; ValueError for more permits than there are; LimitError if the semaphore is
        in use with another limit.
        """
        if check_whole("n", n) > self._limit:
            raise ValueError(f"{n} permits can never be had of a limit of {self._limit}")
        return self._take(check_blocking(blocking, timeout, self._timeout), n) is not None

    def _take(self, timeout: float | None, n: int) -> Grant | None:
        return self._units.acquire(self._kind, n, timeout, self._lease)

    def _acquire(self, timeout: float | None) -> Grant | None:
        return self._take(timeout, 1)

    def release(self, n: int = 1) -> None:
        """Give back `n` of this object's permits, those that this thread acquired last first.

        Raises: OverReleaseError if it has fewer, and then gives back none; LeaseLostError if some
        of them were lost before, and then gives back the others; BusyError, and then they are not
        this object's any more, and free as soon as the store is; TransactionError inside a
        transaction.
        """
        self._release(check_whole("n", n), self._last_first)

    def _end(self, grant: Grant | None, _error: BaseException | None) -> None:
        self._release(1, self._last_first if grant is None else partial(self._of_block, grant))

    def _release(self, n: int, grants: Callable[[], list[Grant]]) -> None:
        self._engine.forbid_in_transaction("release")
        with self._turn():
            before, plan = self._begin_to_release(n, grants)
            try:
                self._give_back(plan)
            except KvsyncError:
                raise
            except BaseException:
                with suppress(KvsyncError):
                    self._give_back(plan)  # a signal's exception comes when it is done
                raise
            finally:
                self._left = dict(before)

    def _begin_to_release(self, n: int, grants: Callable[[], list[Grant]]) -> tuple[_Left, _Plan]:
        """What was being given back, and the plan. Of that nobody else plans to give anything back.

        A signal's handler may release in the middle of this thread's release.
        """
        while True:
            before = self._left
            plan = self._plan(n, grants())
            with_plan = before | dict(plan)
            if self._left is before:  # else a handler was faster; from here on none comes in
                self._left = with_plan
                return before, plan

    def _turn(self) -> threading.RLock:
        """Two threads of one object must not give back the same permit."""
        return self._turns.setdefault(generation(), threading.RLock())

    def _plan(self, n: int, grants: list[Grant]) -> _Plan:
        """Which grants to give back, and how many permits of each are to be left."""
        plan, left = [], n
        for grant in grants:
            units = min(grant.units, self._left.get(grant, grant.units))
            step = min(left, units)
            if step:
                plan.append((grant, units - step))
            left -= step
        if left:
            raise OverReleaseError(
                f"semaphore {self._name!r}: this object holds {n - left}, and cannot release {n}"
            )
        return plan

    def _last_first(self) -> list[Grant]:
        """This thread's grants, then the others', each from the last one to the first."""
        grants, here = self._ours()[::-1], this_thread()
        return sorted(grants, key=lambda grant: grant.thread != here)

    def _of_block(self, grant: Grant) -> list[Grant]:
        """Its own grant; if that was given back within, what its thread has taken since."""
        ours, here = self._ours()[::-1], this_thread()
        found = [grant] if grant in ours else [each for each in ours if each.thread == here]
        if not found:
            raise OverReleaseError(f"semaphore {self._name!r} was given back within its block")
        return found

    def _give_back(self, plan: _Plan) -> None:
        """Goes on where it was interrupted, if called again."""
        failure: KvsyncError | None = None
        for grant, left in plan:
            try:
                self._leave(grant, left)
            except KvsyncError as error:  # of that grant alone
                failure = error
        if failure is not None:
            raise failure

    def _leave(self, grant: Grant, left: int) -> None:
        if left == 0 and grant in self._units.held:
            self._units.release(grant)
        elif 0 < left < grant.units:
            self._units.shrink(grant, left)

    def locked(self) -> bool:
        """Whether no permit is free. Raises: ClosedError, StoreReplacedError as any call."""
        return self.free() == 0

    def free(self) -> int:
        """How many permits nobody holds. Raises: ClosedError, StoreReplacedError as any call."""
        return self._left_by(self._units.holders())

    def _left_by(self, holders: list[Holder]) -> int:
        """Those who hold may go by another, larger limit."""
        return max(0, self._limit - sum(holder.units for holder in holders))

    def holders(self) -> list[Holder]:
        """Who holds permits, first come first.

        Raises: ClosedError, StoreReplacedError as any call.
        """
        return self._units.holders()

    def stats(self) -> SemaphoreStats:  # type: ignore[override]  # the same, and more
        """Holders and waiters. Blocks no writer, but to pass over a stopped waiter."""
        holders = self._units.holders()
        return SemaphoreStats(
            self._name,
            self._limit,
            self._left_by(holders),
            tuple(holders),
            tuple(self._units.waiters()),
        )

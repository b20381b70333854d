"""Whether some order of the operations, each at a moment of its own call, fits a model.

The search of Wing and Gong, "Testing and verifying concurrent objects", Journal of Parallel and
Distributed Computing 17 (1993): an operation may come next if no other that is left had returned
before it was invoked; try it on the model, go on, and go back where nothing fits. With the
memory of Lowe, "Testing for linearizability", Concurrency and Computation 29 (2017): what follows
depends only on which operations were taken and on the model's state, so no such pair is tried
twice.

Operations of unknown outcome may come at any time after their invocation, and the search is over
without them. Of those that do the same, it takes the one that was invoked first. (One of unknown
outcome that has a return all the same was forgotten by `shrinking`: it came before that, or never.)
"""

import math
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

from stress.checkers import Violation
from stress.checkers.course import parts
from stress.checkers.models import Model, State
from stress.checkers.shrinking import shrunk
from stress.history import History, Operation, Outcome

LIMIT = 200_000
"""Pairs of taken operations and state after which a search is given up."""

_LIMIT_OF_SHRINKING = 100_000
"""For all searches in a part of a history together."""

_READABLE = 10
"""Operations that need not become fewer."""


class Undecided(Exception):
    """The search was given up."""


def is_linearizable(history: History, model: Model, limit: int = LIMIT) -> bool:
    """Whether the history is legal. Raises: Undecided after `limit` steps."""
    return _Search(model.completed(history), model, limit, (model.initial,)).succeeds()


def flaw(history: History, model: Model, limit: int = LIMIT) -> Violation | None:
    """What is illegal about it, if anything is. Raises: Undecided after `limit` steps."""
    if is_linearizable(history, model, limit):
        return None
    reason = f"not linearizable as a {type(model).__name__}"
    found = Violation(reason, tuple(history))
    for part in parts(history, model):
        shrinking = _Shrinking(part.states, model)
        if shrinking.is_illegal(part.operations, limit):
            kept, others = shrunk(part.operations, shrinking.is_illegal)
            if len(kept) < len(found.operations):
                others -= part.added
                found = Violation(reason, kept, others, part.before, part.states)
        if len(found.operations) <= _READABLE:
            break
    return found


class _Shrinking:
    """Searches from some states with a limit to all of their steps; what is not decided by then
    counts as legal."""

    def __init__(self, states: tuple[State, ...], model: Model) -> None:
        self._states = states
        self._model = model
        self._left = _LIMIT_OF_SHRINKING

    def is_illegal(self, operations: History, limit: int = 0) -> bool:
        """Which of the two is the shorter search depends on the model."""
        limit = limit or min(self._left, 20 * len(operations))
        return self._fails(_never_over(operations), limit) or self._fails(operations, limit)

    def _fails(self, operations: History, limit: int) -> bool:
        search = _Search(operations, self._model, limit, self._states)
        try:
            return not search.succeeds()
        except Undecided:
            return False
        finally:
            self._left -= len(search.seen)


def _never_over(history: History) -> History:
    return [each if each.known else replace(each, returned=None) for each in history]


class _Taken(NamedTuple):
    """The known operations before `base`, and those whose bits are set; and the state after."""

    base: int
    beyond: int
    """Bit i is the known operation `base + i`; bit 0 is never set."""

    optional: int
    latest: int
    """When the one that was invoked last was invoked."""

    state: State


class _Search:
    """The known operations in the order of their invocations, and `_Optional` the others."""

    def __init__(
        self, operations: Iterable[Operation], model: Model, limit: int, states: Iterable[State]
    ) -> None:
        ordered = sorted(operations, key=lambda operation: operation.invoked)
        self.seen = {_Taken(0, 0, 0, 0, state) for state in states}
        self._known = [each for each in ordered if each.known]
        self._optional = _Optional(ordered, model)
        self._model = model
        self._limit = limit

    def succeeds(self) -> bool:
        path = [iter(self.seen.copy())]
        while path:
            taken = next(path[-1], None)
            if taken is None:
                path.pop()
            elif taken.base == len(self._known):
                return True
            else:
                path.append(self._next(taken))
        return False

    def _next(self, taken: _Taken) -> Iterator[_Taken]:
        for following in self._following(taken):
            if following not in self.seen:
                if len(self.seen) >= self._limit:
                    raise Undecided
                self.seen.add(following)
                yield following

    def _following(self, taken: _Taken) -> Iterator[_Taken]:
        candidates, horizon = self._candidates(taken)
        for index in candidates:
            for state in self._model.after(taken.state, self._known[index]):
                yield self._with(taken, index, state)
        for bit, operation in self._optional.due(taken.optional, horizon, taken.latest):
            for state in self._model.after(taken.state, operation):
                if state != taken.state:
                    yield self._with_optional(taken, bit, operation, state)

    def _candidates(self, taken: _Taken) -> tuple[list[int], float]:
        """The known operations that may come next, and the first return of all that are left."""
        horizon, found = math.inf, []
        for index in range(taken.base, len(self._known)):
            operation = self._known[index]
            if operation.invoked > horizon:
                break
            if not taken.beyond >> (index - taken.base) & 1:
                found.append(index)
                horizon = min(horizon, operation.returned or 0)
        return found, horizon

    def _with(self, taken: _Taken, index: int, state: State) -> _Taken:
        base, beyond = taken.base, taken.beyond | 1 << (index - taken.base)
        while beyond & 1:
            base, beyond = base + 1, beyond >> 1
        latest = max(taken.latest, self._known[index].invoked)
        optional = self._optional.without_past(taken.optional, latest)
        return _Taken(base, beyond, optional, latest, state)

    def _with_optional(self, taken: _Taken, bit: int, operation: Operation, state: State) -> _Taken:
        latest = max(taken.latest, operation.invoked)
        optional = self._optional.without_past(taken.optional | bit, latest)
        return taken._replace(optional=optional, latest=latest, state=state)


class _Optional:
    """The operations of unknown outcome: first those that never returned, then those that did."""

    def __init__(self, ordered: Iterable[Operation], model: Model) -> None:
        unknown = [each for each in ordered if each.outcome is Outcome.UNKNOWN]
        self._open = [each for each in unknown if each.returned is None]
        self._over = [each for each in unknown if each.returned is not None]
        self._alike = list(_alike(self._open, model))
        self._all_over = list(accumulate((each.returned or 0 for each in self._over), max))

    def due(self, taken: int, horizon: float, latest: int) -> Iterator[tuple[int, Operation]]:
        """Those that may come next, with their bits; something was invoked at `latest`."""
        for index in _invoked(self._open, 0, horizon):
            if not taken >> index & 1 and taken & self._alike[index] == self._alike[index]:
                yield 1 << index, self._open[index]
        for index in _invoked(self._over, bisect_left(self._all_over, latest), horizon):
            bit = 1 << (len(self._open) + index)
            if not taken & bit and (self._over[index].returned or 0) >= latest:
                yield bit, self._over[index]

    def without_past(self, taken: int, latest: int) -> int:
        """It makes no difference any more whether those that are over were taken."""
        if not self._over:
            return taken
        past = (1 << bisect_left(self._all_over, latest)) - 1
        return taken & ~(past << len(self._open))


def _invoked(operations: list[Operation], start: int, horizon: float) -> Iterator[int]:
    """The indices, from `start` on, of those that were invoked by then."""
    for index in range(start, len(operations)):
        if operations[index].invoked > horizon:
            break
        yield index


def _alike(operations: Iterable[Operation], model: Model) -> Iterator[int]:
    """For each the bit of the one before it that does the same, or 0."""
    last: dict[Hashable, int] = {}
    for index, operation in enumerate(operations):
        likeness = model.likeness(operation)
        yield last.get(likeness, 0)
        last[likeness] = 1 << index

"""Whether some order of the operations, each at a moment of its own call, fits a model.

The search of Wing and Gong, "Testing and verifying concurrent objects", Journal of Parallel and
Distributed Computing 17 (1993): an operation may come next if no other that is left had returned
before it was invoked; try it on the model, go on, and go back where nothing fits. With the
memory of Lowe, "Testing for linearizability", Concurrency and Computation 29 (2017): what follows
depends only on which operations were taken and on the model's state, so no such pair is tried
twice.

Operations of unknown outcome have no return: they may come at any time after their invocation, and
the search is over without them. Of those that do the same, it takes the one that was invoked first.
"""

import math
from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

from stress.checkers import Violation
from stress.checkers.models import Model, State
from stress.checkers.shrinking import shrunk
from stress.history import History, Operation, Outcome

LIMIT = 200_000
"""Pairs of taken operations and state after which a search is given up."""

_LIMIT_OF_SHRINKING = 20_000


class Undecided(Exception):
    """The search was given up."""


def is_linearizable(history: History, model: Model, limit: int = LIMIT) -> bool:
    """Whether the history is legal. Raises: Undecided after `limit` steps."""
    return _Search(model.completed(history), model, limit).succeeds()


def flaw(history: History, model: Model, limit: int = LIMIT) -> Violation | None:
    """What is illegal about it, if anything is. Raises: Undecided after `limit` steps."""
    if is_linearizable(history, model, limit):
        return None
    kept, others = shrunk(history, lambda smaller: _is_illegal(smaller, model))
    return Violation(f"not linearizable as a {type(model).__name__}", kept, others)


def _is_illegal(history: History, model: Model) -> bool:
    try:
        return not is_linearizable(history, model, _LIMIT_OF_SHRINKING)
    except Undecided:
        return False


class _Taken(NamedTuple):
    """All known operations before `base`, and those whose bits are set; and the state after."""

    base: int
    beyond: int
    """Bit i is the known operation `base + i`; bit 0 is never set."""

    unknown: int
    state: State


class _Search:
    """The known operations in the order of their invocations, and the unknown ones likewise."""

    def __init__(self, operations: Iterable[Operation], model: Model, limit: int) -> None:
        ordered = sorted(operations, key=lambda operation: operation.invoked)
        self._known = [each for each in ordered if each.known]
        self._unknown = [each for each in ordered if each.outcome is Outcome.UNKNOWN]
        self._like_before = list(_like_before(self._unknown, model))
        self._model = model
        self._limit = limit

    def succeeds(self) -> bool:
        start = _Taken(0, 0, 0, self._model.initial)
        seen, path = {start}, [self._next(start)]
        if not self._known:
            return True
        while path:
            taken = next(path[-1], None)
            if taken is None:
                path.pop()
            elif taken not in seen:
                if taken.base == len(self._known):
                    return True
                self._remember(taken, seen)
                path.append(self._next(taken))
        return False

    def _remember(self, taken: _Taken, seen: set[_Taken]) -> None:
        if len(seen) >= self._limit:
            raise Undecided
        seen.add(taken)

    def _next(self, taken: _Taken) -> Iterator[_Taken]:
        candidates, horizon = self._candidates(taken)
        for index in candidates:
            for state in self._model.after(taken.state, self._known[index]):
                yield _with(taken, index, state)
        yield from self._with_unknown(taken, horizon)

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

    def _with_unknown(self, taken: _Taken, horizon: float) -> Iterator[_Taken]:
        for index, operation in enumerate(self._unknown):
            if operation.invoked > horizon:
                break
            if self._is_due(taken.unknown, index):
                for state in self._model.after(taken.state, operation):
                    if state != taken.state:
                        unknown = taken.unknown | 1 << index
                        yield _Taken(taken.base, taken.beyond, unknown, state)

    def _is_due(self, unknown: int, index: int) -> bool:
        before = self._like_before[index]
        return not unknown >> index & 1 and (before is None or bool(unknown >> before & 1))


def _with(taken: _Taken, index: int, state: State) -> _Taken:
    base, beyond = taken.base, taken.beyond | 1 << (index - taken.base)
    while beyond & 1:
        base, beyond = base + 1, beyond >> 1
    return _Taken(base, beyond, taken.unknown, state)


def _like_before(operations: Iterable[Operation], model: Model) -> Iterator[int | None]:
    """For each the index of the one before it that does the same."""
    last: dict[Hashable, int] = {}
    for index, operation in enumerate(operations):
        likeness = model.likeness(operation)
        yield last.get(likeness)
        last[likeness] = index

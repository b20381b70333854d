"""The states that an object can have been in while a history went on, and so a short end of it.

Of all orders that fit, these are enough: an operation takes effect as late as it can, which is when
it returns, or when another does that can only come after it. (After the just-in-time linearization
of Lowe, "Testing for linearizability".) So one pass over the returns finds the first that nothing
can explain, and, at each before it, all that the object can have come to. From there on, what was
before needs no more telling.
"""

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from stress.checkers.models import Model, State
from stress.history import History, Operation, Outcome

LIMIT = 300_000
"""Steps after which the pass is given up."""

_LENGTHS = (60, 20, 6, 1)
"""How many returns a part has, about."""


@dataclass(frozen=True)
class Part:
    """Operations that are illegal from each of the states, if it was not weakened too much.

    What was pending when it began is in it, and can take effect in it; so can what may have taken
    effect before, which is more than was possible.
    """

    states: tuple[State, ...]
    operations: History
    added: int
    """How many of these the model has added."""

    before: int
    """How many were over when it began."""


class _Situation(NamedTuple):
    state: State
    early: frozenset[int]
    """What has taken effect without having returned."""


def parts(history: History, model: Model) -> Iterator[Part]:
    """Ends of an illegal history, each shorter than the one before, up to the first return that
    cannot be; all of it, if there are too many states to find that; none of a legal one."""
    course = _Course(history, model)
    begun: set[int] = set()
    for start in map(course.start, _LENGTHS):
        if start not in begun and not course.is_legal:
            begun.add(start)
            yield course.part(start)


class _Course:
    """`_returns` are those that can be, in order, and the first that cannot; `_after` so many of
    them, what there may be."""

    def __init__(self, history: History, model: Model) -> None:
        self._operations = model.completed(history)
        self._own = len(history)
        self._model = model
        self._left = LIMIT
        self._returns: list[int] = []
        self._after = [{_Situation(model.initial, frozenset())}]
        self._pending: list[int] = []
        self._go()

    def _go(self) -> None:
        for _, returns, index in sorted(self._events()):
            if not returns:
                self._pending.append(index)
            elif self._after[-1] and self._left > 0:
                self._returns.append(index)
                self._after.append({*self._explained(index)})
                self._pending.remove(index)

    def _events(self) -> Iterator[tuple[int, bool, int]]:
        """At one instant what is invoked comes first: it may take effect before what returns."""
        for index, each in enumerate(self._operations):
            if each.outcome is not Outcome.FAIL:
                yield each.invoked, False, index
                if each.returned is not None:
                    yield each.returned, True, index

    def _explained(self, returned: int) -> Iterator[_Situation]:
        """After all ways to come to it."""
        seen = set(self._after[-1])
        ahead = list(seen)
        while ahead and self._left > 0:
            self._left -= 1
            state, early = ahead.pop()
            if returned in early:
                yield _Situation(state, early - {returned})
                continue
            new = {*self._next(state, early)} - seen
            seen |= new
            ahead += new

    def _next(self, state: State, early: frozenset[int]) -> Iterator[_Situation]:
        alike: set[Hashable] = set()
        for index in self._pending:
            operation = self._operations[index]
            if index not in early and self._is_first(operation, alike):
                for after in self._model.after(state, operation):
                    if operation.known or after != state:
                        yield _Situation(after, early | {index})

    def _is_first(self, operation: Operation, alike: set[Hashable]) -> bool:
        """Of those of unknown outcome that do the same, the one that was invoked first."""
        if operation.known:
            return True
        likeness = self._model.likeness(operation)
        is_first = likeness not in alike
        alike.add(likeness)
        return is_first

    @property
    def is_legal(self) -> bool:
        """For certain."""
        return bool(self._after[-1]) and self._left > 0

    def start(self, length: int) -> int:
        """The number of returns before a part of about that length."""
        if self._after[-1]:
            return 0
        last = len(self._returns) - length
        starts = [each for each in range(max(0, last - length), last + 1) if self._is_clean(each)]
        return min(starts, key=lambda each: (len(self._after[each]), -each), default=0)

    def _is_clean(self, start: int) -> bool:
        """Nothing that returns later had taken effect: all of that is in the part."""
        early = {index for situation in self._after[start] for index in situation.early}
        return not any(self._operations[index].known for index in early)

    def part(self, start: int) -> Part:
        over = {*self._returns[:start]}
        over |= frozenset.intersection(*(each.early for each in self._after[start]))
        end = math.inf if self._after[-1] else self._operations[self._returns[-1]].returned or 0
        rest = [
            index
            for index, each in enumerate(self._operations)
            if index not in over and each.invoked <= end and each.outcome is not Outcome.FAIL
        ]
        return Part(
            tuple({situation.state for situation in self._after[start]}),
            [_seen_at(end, self._operations[index]) for index in rest],
            sum(index >= self._own for index in rest),
            sum(index < self._own for index in over),
        )


def _seen_at(moment: float, operation: Operation) -> Operation:
    """As it was known then."""
    if (operation.returned or 0) <= moment:
        return operation
    return replace(operation, outcome=Outcome.UNKNOWN, result=None)

"""Whether a history could have come from what the calls promise.

    linearizability  any history on any model, by search
    models/          what a register, a counter, a mutex ... does, one call after the other
    course           the end of a long illegal history, and the states in which it can have begun
    shrinking        the part of an illegal history that shows why it is illegal
    display          that part as text
    fetch_and_add    counters, mutexes with a fence, what there is so many of, and queues: in one
    fenced_mutex     pass over a sorted history, for those that are too long to search
    permits
    total_queue
    handed_out
    refusals
    rate             grants of a rate limiter: each span of time, for histories that are short

A checker never calls a legal history illegal. What it says of an operation of unknown outcome, it
says whether that took effect, at any time after its invocation, or not. Operations that failed have
changed nothing and are left out, but by `refusals`, which asks whether they had to fail.
"""

from collections.abc import Callable
from dataclasses import dataclass

from stress.checkers.display import table
from stress.checkers.models import State
from stress.history import History, Operation

_LONGEST_STATE = 200


@dataclass(frozen=True)
class Violation:
    """What is wrong with a history, and the operations that show it."""

    reason: str
    operations: tuple[Operation, ...]
    others: int = 0
    """How many more there were; it is wrong whatever became of those."""

    before: int = 0
    """How many were over before these, and what they left is one of `states`."""

    states: tuple[State, ...] = ()

    def __str__(self) -> str:
        after = f", after {self.before:,} operations that left {self._left()}" * bool(self.before)
        rest = f"\n  whatever became of {self.others:,} others" if self.others else ""
        return f"{self.reason}{after}:\n{table(self.operations)}{rest}"

    def _left(self) -> str:
        return " or ".join(sorted(map(_cut, map(repr, self.states))))


Check = Callable[[History], Violation | None]
"""What is illegal about a history, if anything is."""


def _cut(state: str) -> str:
    return state if len(state) <= _LONGEST_STATE else f"{state[:_LONGEST_STATE]}..."

"""Grants of a rate limiter, without knowing when in its call each was made.

In any span of time no more than `burst + limit * span / per` units are granted. A grant whose call
lies inside of a span was made in it, so there are no more of those either; one whose call began
before it, or ended after it, may have been made outside.
"""

from itertools import accumulate

from stress.checkers import Violation
from stress.history import History, Operation

_SECOND = 1_000_000_000


def flaw(history: History, limit: int, per: float, burst: int) -> Violation | None:
    """What is illegal about it, if anything is: it looks at the span from each call to each."""
    granted = [each for each in history if each.known and each.result]
    for start, first in enumerate(granted):
        inside = sorted(granted[start:], key=_returned)
        units = accumulate(each.argument for each in inside)
        for count, (last, so_many) in enumerate(zip(inside, units, strict=True), 1):
            span = (_returned(last) - first.invoked) / _SECOND
            if so_many > allowed(span, limit, per, burst):
                reason = f"{so_many} units were granted within {span:.6f} s"
                return Violation(reason, tuple(inside[:count]))
    return None


def allowed(span: float, limit: int, per: float, burst: int) -> float:
    """Units in so many seconds."""
    return burst + limit * span / per


def _returned(operation: Operation) -> int:
    return operation.returned or 0

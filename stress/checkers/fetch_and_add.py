"""A counter that starts at 0, to which every `add` adds one, without a search.

The results give the order: an `add` that returned n is the n-th, a `read` of n comes after it and
before the next. Where an n was returned to nobody, an addition of unknown outcome must have been
the n-th, and the one that was invoked first will do. No other order is possible, up to reads of the
same value, so that this decides what the search would. (An addition that was not told its number
is taken as one of unknown outcome, by which something may go unnoticed.)
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from stress.checkers import Violation
from stress.checkers.order import disorder
from stress.history import History, Operation, Outcome


def flaw(history: History) -> Violation | None:
    """What is illegal about it, if anything is."""
    told = [each for each in history if each.known and each.result is not None]
    additions = [each for each in history if _is_addition(each)]
    untold = [replace(each, returned=None) for each in additions if each.result is None]
    return _twice(told) or _unmade(told, untold) or _out_of_order(told, untold)


def _is_addition(operation: Operation) -> bool:
    return operation.function == "add" and operation.outcome is not Outcome.FAIL


def _twice(told: History) -> Violation | None:
    given: dict[int, Operation] = {}
    for each in filter(_is_addition, told):
        if each.result in given:
            return Violation("a number was given twice", (given[each.result], each))
        given[each.result] = each
    return None


def _unmade(told: History, untold: History) -> Violation | None:
    additions = len(untold) + sum(map(_is_addition, told))
    for each in told:
        if not _is_addition(each) <= each.result <= additions:
            return Violation(f"{additions} additions cannot have made that", (each,))
    return None


def _out_of_order(told: History, untold: History) -> Violation | None:
    if pair := disorder(_in_order(told, iter(untold))):
        return Violation("the number went back, or came before it was made", pair)
    return None


def _in_order(told: History, untold: Iterator[Operation]) -> Iterator[Operation]:
    reached = 0
    for each in sorted(told, key=_place):
        yield from islice(untold, max(0, each.result - _is_addition(each) - reached))
        yield each
        reached = each.result


def _place(operation: Operation) -> tuple[int, bool, int]:
    return operation.result, not _is_addition(operation), operation.invoked

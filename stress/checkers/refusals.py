"""A queue that says that it is empty, or full, though it certainly is not, without a search.

Who is refused has asked for it at some moment of its call. An item that was put before the call
began, and that nobody was handed who asked before the call was over, was there at that moment;
unless it was given just then to another who asked, who did not take it in the end, or did not live
to tell. At one moment each other has one item at most. So there was one for the taking if there
were more such items than others who asked meanwhile, or of whom nobody knows what they got.

In the same way there was room if all items that may have been there, and all that others were just
putting, are fewer than the queue may hold.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter

from stress.checkers import Violation
from stress.checkers.models.queue import EMPTY
from stress.history import Datum, History, Operation, Outcome

_TAKES = ("get", "reserve")
_ENDS = ("get", "ack")
"""The calls after which an item is gone for good: of these two a queue has one."""


def flaw(history: History, maxsize: int) -> Violation | None:
    """What is illegal about it, if anything is: a refusal has failed, and has its time."""
    timed = (each for each in history if _is_refused(each) and each.returned is not None)
    refused = sorted(timed, key=attrgetter("invoked"))
    return _empty(history, refused) or _full(history, refused, maxsize)


def _is_refused(operation: Operation) -> bool:
    return operation.outcome is Outcome.FAIL


class _Moments:
    """When calls began, and when they were over, which some never are."""

    def __init__(self, calls: Iterable[Operation]) -> None:
        times = [(each.invoked, each.returned) for each in calls]
        self._began = sorted(began for began, _ in times)
        self._ended = sorted(ended for _, ended in times if ended is not None)

    def begun(self, refused: Operation) -> int:
        """How many had begun before it was over."""
        return bisect_right(self._began, refused.returned or 0)

    def over(self, refused: Operation) -> int:
        """How many were over before it was asked for."""
        return bisect_left(self._ended, refused.invoked)

    def beside(self, refused: Operation) -> int:
        """How many others, it being one of these, were in its time, or may still be."""
        return self.begun(refused) - self.over(refused) - 1


def _empty(history: History, refused: History) -> Violation | None:
    """More items were there all along than others asked for any."""
    taken = _taken(history)
    puts = sorted(
        (each for each in history if each.function == "put" and each.known), key=_returned
    )
    takes = [each for each in refused if each.function in _TAKES]
    others = _Moments(each for each in history if each.function in _TAKES)
    for each, count in zip(takes, _there(puts, taken, takes), strict=True):
        if count > others.beside(each):
            there = [put for put in puts if _is_there(put, taken, each)]
            return Violation("nothing was to be had, though items were there", (*there, each))
    return None


def _taken(history: History) -> dict[Datum, int]:
    """When each item was first asked for by one who was handed it."""
    taken: dict[Datum, int] = {}
    for each in history:
        if each.function in _TAKES and each.known:
            item = each.result[0] if each.function == "reserve" else each.result
            taken[item] = min(each.invoked, taken.get(item, each.invoked))
    return taken


def _there(puts: History, taken: Mapping[Datum, int], takes: History) -> Iterator[int]:
    """Of how many puts, as these returned, `_is_there` says so, for each of the takes."""
    asked: list[float] = []
    for each in takes:
        while len(asked) < len(puts) and _returned(puts[len(asked)]) < each.invoked:
            insort(asked, taken.get(puts[len(asked)].argument, math.inf))
        yield len(asked) - bisect_right(asked, _returned(each))


def _is_there(put: Operation, taken: Mapping[Datum, int], refused: Operation) -> bool:
    """It was over before, and who was handed its item asked later."""
    is_over = _returned(put) < refused.invoked
    return is_over and taken.get(put.argument, math.inf) > _returned(refused)


def _returned(operation: Operation) -> int:
    return operation.returned or 0


def _full(history: History, refused: History, maxsize: int) -> Violation | None:
    """All that may have been there, and all that others were just putting, are fewer."""
    puts = [each for each in history if each.function == "put"]
    refusals = _Moments(filter(_is_refused, puts))
    put = _Moments(each for each in puts if not _is_refused(each))
    gone = _Moments(filter(_is_gone, history))
    for each in refused:
        most = put.begun(each) + refusals.beside(each) - gone.over(each)
        if each.function == "put" and most < maxsize:
            return Violation(f"there was no room, though it holds {maxsize}", (each,))
    return None


def _is_gone(operation: Operation) -> bool:
    """Whether it took away an item for good."""
    ended = operation.known and operation.function in _ENDS
    return ended and (operation.function == "ack" or operation.result is not EMPTY)

"""A queue that says that it is empty, or full, though it certainly is not, without a search.

Who is refused has asked for it at some moment of its call. An item that was put before the call
began, and that nobody was handed who asked before the call was over, was there at that moment;
unless it was given just then to another who asked, who did not take it in the end, or did not live
to tell. At one moment each other has one item at most. So there was one for the taking if there
were more such items than others who asked meanwhile, or of whom nobody knows what they got.

In the same way there was room if all items that may have been there, and all that others were just
putting, are fewer than the queue may hold.
"""

from collections.abc import Iterator

from stress.checkers import Violation
from stress.checkers.models.queue import EMPTY
from stress.history import Datum, History, Operation, Outcome

_TAKES = ("get", "reserve")
_ENDS = ("get", "ack")
"""The calls after which an item is gone for good: of these two a queue has one."""


def flaw(history: History, maxsize: int) -> Violation | None:
    """What is illegal about it, if anything is: a refusal has failed, and has its time."""
    for each in history:
        if each.outcome is Outcome.FAIL and each.returned is not None:
            if each.function in _TAKES and (there := _for_the_taking(history, each)):
                return Violation("nothing was to be had, though items were there", (*there, each))
            if each.function == "put" and _is_room(history, each, maxsize):
                return Violation(f"there was no room, though it holds {maxsize}", (each,))
    return None


def _for_the_taking(history: History, refused: Operation) -> History:
    """Items that were there all along, as they were put, if there were more than others."""
    takes = [each for each in _meanwhile(history, refused) if each.function in _TAKES]
    begun = [each for each in history if each.function in _TAKES and _is_begun(each, refused)]
    had = {_item(each) for each in begun if each.known}
    there = [
        each
        for each in history
        if each.function == "put" and _is_over(each, refused) and each.argument not in had
    ]
    return there if len(there) > len(takes) else []


def _is_room(history: History, refused: Operation, maxsize: int) -> bool:
    puts = [
        each
        for each in history
        if each.function == "put" and each.outcome is not Outcome.FAIL and _is_begun(each, refused)
    ]
    failing = [
        each
        for each in _meanwhile(history, refused)
        if each.function == "put" and each.outcome is Outcome.FAIL
    ]
    gone = [each for each in history if each.function in _ENDS and _is_over(each, refused)]
    gone = [each for each in gone if each.function == "ack" or each.result is not EMPTY]
    return len(puts) + len(failing) - len(gone) < maxsize


def _meanwhile(history: History, refused: Operation) -> Iterator[Operation]:
    """What others did in its time, or may still do."""
    for each in history:
        is_over = each.returned is not None and each.returned < refused.invoked
        if each is not refused and _is_begun(each, refused) and not is_over:
            yield each


def _is_begun(operation: Operation, refused: Operation) -> bool:
    return operation.invoked <= (refused.returned or 0)


def _is_over(operation: Operation, refused: Operation) -> bool:
    """Done before it was asked for."""
    return operation.known and (operation.returned or 0) < refused.invoked


def _item(take: Operation) -> Datum:
    return take.result[0] if take.function == "reserve" else take.result

"""The part of an illegal history that shows why it is illegal.

To leave an operation out would be wrong: a read of what nobody wrote is illegal, but it says
nothing if a write was there. So operations are not left out but forgotten: a legal history stays
legal when we no longer know what an operation returned, and whether it took effect at all. What
is still illegal after that was illegal because of the operations that are not forgotten.
"""

from collections.abc import Callable
from dataclasses import replace

from stress.history import History, Operation, Outcome

IsIllegal = Callable[[History], bool]


def shrunk(history: History, is_illegal: IsIllegal) -> tuple[tuple[Operation, ...], int]:
    """The operations none of which can be forgotten, and how many are, in the illegal history."""
    history = _shortest_start(history, is_illegal)
    known = [index for index, operation in enumerate(history) if operation.known]
    size = len(known)
    while size:
        before, known = known, _without_chunks(history, known, size, is_illegal)
        size = size // 2 if size > 1 else int(len(known) < len(before))
    others = sum(operation.outcome is not Outcome.FAIL for operation in history) - len(known)
    return tuple(history[index] for index in known), others


def _shortest_start(history: History, is_illegal: IsIllegal) -> History:
    """Until the first return by which it is illegal: what begins a legal history is legal."""
    moments = sorted(each.returned for each in history if each.returned is not None)
    low, high = 0, len(moments) - 1
    while low < high:
        middle = (low + high) // 2
        if is_illegal(_until(moments[middle], history)):
            high = middle
        else:
            low = middle + 1
    return _until(moments[high], history)


def _until(moment: int, history: History) -> History:
    begun = [each for each in history if each.invoked <= moment]
    return [each if (each.returned or 0) <= moment else _forgotten(each) for each in begun]


def _without_chunks(
    history: History, known: list[int], size: int, is_illegal: IsIllegal
) -> list[int]:
    start = 0
    while start < len(known):
        fewer = known[:start] + known[start + size :]
        if fewer and is_illegal(_knowing(history, fewer)):
            known = fewer
        else:
            start += size
    return known


def _knowing(history: History, indices: list[int]) -> History:
    """The same with all that is known forgotten, but for these."""
    kept = set(indices)
    return [
        each if index in kept or not each.known else _forgotten(each)
        for index, each in enumerate(history)
    ]


def _forgotten(operation: Operation) -> Operation:
    return replace(operation, outcome=Outcome.UNKNOWN, result=None)

"""Items that leave in the order in which they came."""

from collections.abc import Collection

from stress.checkers.models import Anonymous, State, says
from stress.history import History, Operation, Outcome

EMPTY = None
"""What `get` gives where there is nothing."""

BACK = "back"


class FifoQueue(Anonymous):
    """`put(item) -> its number, or None if it is not told`, `get() -> the oldest item, or EMPTY`.

    The numbers are those of the puts, one after the other. Who waits is given an item when there is
    one, and may die before it takes it: then the item goes back to its old place, whatever others
    have got meanwhile. So what a `get` of unknown outcome had may come `back`. The state: the last
    number, the items with their numbers, oldest first, and those that may come back.
    """

    initial = (0, (), ())

    def completed(self, history: History) -> History:
        """With what may have come back."""
        unknown = [each for each in history if each.function == "get" and _is_unknown(each)]
        return [*history, *map(_back, unknown)]

    def after(self, state: State, operation: Operation) -> Collection[State]:
        last, items, gone = state
        if operation.function == BACK:
            return [
                (last, tuple(sorted((*items, each))), tuple(x for x in gone if x != each))
                for each in gone
            ]
        if operation.function == "put":
            number = last + 1
            untold = not operation.known or operation.result is None
            fits = untold or operation.result == number
            return [(number, (*items, (number, operation.argument)), gone)] if fits else []
        if not says(operation, items[0][1] if items else EMPTY):
            return []
        return [(last, items[1:], gone if operation.known else (*gone, *items[:1]))]


def _is_unknown(operation: Operation) -> bool:
    return operation.outcome is Outcome.UNKNOWN


def _back(get: Operation) -> Operation:
    return Operation(get.process, BACK, None, Outcome.UNKNOWN, None, get.invoked, None)

"""Items that leave in the order in which they came."""

from collections.abc import Collection

from stress.checkers.models import Anonymous, State, says
from stress.history import Operation

EMPTY = None
"""What `get` gives where there is nothing."""


class FifoQueue(Anonymous):
    """`put(item)`, `get() -> the oldest item, or EMPTY`. The state: the items, oldest first."""

    initial = ()

    def after(self, state: State, operation: Operation) -> Collection[State]:
        if operation.function == "put":
            return [(*state, operation.argument)]
        head = state[0] if state else EMPTY
        return [state[1:]] if says(operation, head) else []

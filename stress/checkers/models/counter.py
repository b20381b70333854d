"""A number that is added to."""

from collections.abc import Collection

from stress.checkers.models import Anonymous, State
from stress.history import Operation


class Counter(Anonymous):
    """`add(n) -> the new value, or None where it is not told`, `read() -> value`."""

    def __init__(self, initial: int = 0) -> None:
        self.initial = initial

    def after(self, state: State, operation: Operation) -> Collection[State]:
        value = state + operation.argument if operation.function == "add" else state
        untold = not operation.known or operation.result is None
        return [value] if untold or operation.result == value else []

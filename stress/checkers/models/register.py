"""A value that is read, written, and compared and set."""

from collections.abc import Collection

from stress.checkers.models import Anonymous, State, says
from stress.history import Operation


class Register(Anonymous):
    """`read() -> value`, `write(value)`, `cas((expected, new)) -> whether it was set`."""

    def __init__(self, initial: State = None) -> None:
        self.initial = initial

    def after(self, state: State, operation: Operation) -> Collection[State]:
        match operation.function:
            case "read":
                return [state] if says(operation, state) else []
            case "write":
                return [operation.argument]
        expected, new = operation.argument
        swaps = state == expected
        return [new if swaps else state] if says(operation, swaps) else []

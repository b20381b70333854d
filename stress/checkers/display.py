"""Operations as text: a line each, times in µs since the first of them was invoked; and how much
of such a text people are shown at once."""

from collections.abc import Sequence

from stress.history import Operation

_NS_IN_US = 1000
_LINES = 60


def beginning(text: str) -> tuple[list[str], list[str]]:
    """The lines that are shown, and those that are more than people read."""
    lines = text.strip("\n").split("\n")
    return lines[:_LINES], lines[_LINES:]


def table(operations: Sequence[Operation]) -> str:
    """One line for each, in the order of their invocations."""
    ordered = sorted(operations, key=lambda operation: operation.invoked)
    start = ordered[0].invoked
    rows = [_row(operation, start) for operation in ordered]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_aligned(row, widths) for row in rows)


def _row(operation: Operation, start: int) -> tuple[str, str, str, str]:
    process = f"process {operation.process}"
    return process, _since(start, operation.invoked), _until(start, operation), _call(operation)


def _since(start: int, moment: int) -> str:
    return f"{(moment - start) / _NS_IN_US:,.1f}"


def _until(start: int, operation: Operation) -> str:
    return "..." if operation.returned is None else _since(start, operation.returned)


def _call(operation: Operation) -> str:
    argument = "" if operation.argument is None else repr(operation.argument)
    outcome = repr(operation.result) if operation.known else str(operation.outcome)
    return f"{operation.function}({argument}) -> {outcome}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    process, invoked, returned, call = row
    times = f"{invoked:>{widths[1]}} to {returned:>{widths[2]}} µs"
    return f"  {process:{widths[0]}}  {times}  {call}"

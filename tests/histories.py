"""Histories written by hand, and a checker that is too simple to be wrong."""

from collections.abc import Iterable, Iterator
from itertools import combinations, permutations
from typing import Any

from stress.checkers.models import Model, State
from stress.history import History, Operation, Outcome


def ok(
    process: int, span: tuple[int, int], function: str, argument: Any = None, result: Any = None
) -> Operation:
    """A call that was invoked and returned at these times."""
    return Operation(process, function, argument, Outcome.OK, result, *span)


def unknown(process: int, invoked: int, function: str, argument: Any = None) -> Operation:
    """A call that nobody knows the outcome of."""
    return Operation(process, function, argument, Outcome.UNKNOWN, None, invoked, None)


def failed(process: int, invoked: int, function: str, argument: Any = None) -> Operation:
    """A call that changed nothing."""
    return Operation(process, function, argument, Outcome.FAIL, None, invoked, None)


def events(text: str) -> History:
    """From lines like `3 invoke write 1`: process, event, function, value; one at each instant.

    An event is `invoke`, `ok`, `fail` (of a cas: it compared and did not swap) or `info`, after
    which, as with none, the outcome is unknown.
    """
    begun: dict[int, list[Any]] = {}
    done = []
    for moment, line in enumerate(each.split() for each in text.strip().splitlines()):
        process, event, function, value = int(line[0]), line[1], line[2], _value(line[3:])
        if event == "invoke":
            begun[process] = [function, value, moment]
        elif event != "info":
            argument, invoked = begun.pop(process)[1:]
            done.append(_returned(process, event, function, argument, value, (invoked, moment)))
    left = [
        unknown(who, moment, function, value) for who, (function, value, moment) in begun.items()
    ]
    return sorted([*done, *left], key=lambda operation: operation.invoked)


def _value(words: list[str]) -> Any:
    values = tuple(None if word == "nil" else word for word in words)
    return values[0] if len(values) == 1 else values or None


def _returned(
    process: int, event: str, function: str, argument: Any, value: Any, span: tuple[int, int]
) -> Operation:
    if function == "cas":
        return ok(process, span, function, argument, event == "ok")
    if event == "fail":
        return failed(process, span[0], function, argument)
    takes = function in ("read", "get", "acquire")
    return ok(process, span, function, None if takes else argument, value if takes else None)


def brute_force(history: History, model: Model) -> bool:
    """Whether any order of the known operations and some of the others is legal."""
    complete = model.completed(history)
    known = [each for each in complete if each.known]
    others = [each for each in complete if each.outcome is Outcome.UNKNOWN]
    chosen = (some for size in range(len(others) + 1) for some in combinations(others, size))
    return any(_fits(order, model) for some in chosen for order in _orders([*known, *some]))


def goes_on(state: State, left: list[Operation], model: Model) -> bool:
    """Whether some order is legal from that state: tries whatever may come next."""
    if not any(each.known for each in left):
        return True
    for next in left:
        if not any(each.known and _precedes(each, next) for each in left):
            rest = [each for each in left if each is not next and not _precedes(each, next)]
            if any(goes_on(after, rest, model) for after in model.after(state, next)):
                return True
    return False


def _orders(operations: list[Operation]) -> Iterator[tuple[Operation, ...]]:
    for order in permutations(operations):
        if not any(_precedes(after, before) for before, after in combinations(order, 2)):
            yield order


def _precedes(one: Operation, other: Operation) -> bool:
    return one.returned is not None and one.returned < other.invoked


def _fits(order: Iterable[Operation], model: Model) -> bool:
    states = [model.initial]
    for operation in order:
        states = [after for state in states for after in model.after(state, operation)]
    return bool(states)

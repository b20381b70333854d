"""Operations whose order is given: whether the times of their calls allow it."""

from collections.abc import Iterable, Iterator, Sequence

from stress.history import Operation

Pair = tuple[Operation, Operation]


def disorder(ordered: Iterable[Operation]) -> Pair | None:
    """An operation, and a later one that had returned before it was invoked, if there are such.

    If there are none, each can have taken effect when it and all before it were invoked.
    """
    latest: Operation | None = None
    for operation in ordered:
        if latest is None or operation.invoked > latest.invoked:
            latest = operation
        if operation.returned is not None and operation.returned < latest.invoked:
            return latest, operation
    return None


def overtaken(ordered: Sequence[Operation]) -> Iterator[Pair]:
    """Each that was invoked after a later one had returned, with that one."""
    earliest: Operation | None = None
    for each in reversed(ordered):
        if earliest and (earliest.returned or 0) < each.invoked:
            yield each, earliest
        if earliest is None or (each.returned or 0) < (earliest.returned or 0):
            earliest = each

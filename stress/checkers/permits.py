"""Permits, of which there are so many, without a search.

A process has what it acquired for certain from the return of `acquire` until it invokes `release`,
or, if it does not live to do so, until the last thing that it wrote. Never are more permits than
the limit had in sum.

It may have what it acquired from the invocation of `acquire` until `release` returns, or for ever.
Who tries, which is to `acquire` without waiting, and is refused while nobody else calls, though
there are permits enough that nobody may have, was refused without a reason: there is no line. Who
waits may be refused because its time is over before it comes to look.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

from stress.checkers import Violation
from stress.history import History, Operation

_END, _INSTANT, _BEGIN = range(3)
"""What may have happened in this order, if it happened in one ns: what a process acquired and had
no longer may have been given back before others began."""


class _Change(NamedTuple):
    """How many permits more a process has from then on; sorted as they may have happened."""

    moment: int
    order: int
    process: int
    fewer: int
    operation: Operation


def flaw(history: History, limit: int) -> Violation | None:
    """What is illegal about it, if anything is."""
    had: Counter[int] = Counter()
    since: dict[int, list[Operation]] = defaultdict(list)
    total = 0
    for change in sorted(_changes(history), key=lambda change: change[:-1]):
        total -= change.fewer
        had[change.process] -= change.fewer
        since[change.process].append(change.operation)
        if total > limit:
            shown = [each for operations in since.values() for each in operations]
            return Violation(f"{total} permits were had of {limit}", tuple(shown))
        if not had[change.process]:
            since[change.process].clear()
    return None


def refusal(history: History, limit: int) -> Violation | None:
    """A `try` that was refused without a reason, if there is one."""
    had, over = 0, -math.inf
    since: list[Operation] = []
    for each, follower in zip_longest(history, history[1:]):
        alone = over < each.invoked and (follower is None or _return(each) < follower.invoked)
        if alone and _is_refused(each) and had + (each.argument or 1) <= limit:
            return Violation(f"refused, though {limit - had} permits were free", (*since, each))
        over = max(over, _return(each))
        if gain := _gain(each):
            had += gain
            since.append(each)
        if not had:
            since.clear()
    return None


def _changes(history: History) -> Iterator[_Change]:
    had: Counter[int] = Counter()
    last = {each.process: each for each in history}
    for each in history:
        who, n = each.process, each.argument or 1
        if _is_granted(each):
            had[who] += n
            order = _INSTANT if each is last[who] else _BEGIN
            yield _Change(each.returned or 0, order, who, -n, each)
        elif each.function == "release":
            n = min(n, had[who])
            had[who] -= n
            yield _Change(each.invoked, _END, who, n, each)
    for who, each in last.items():
        yield from _at_its_end(each, had[who])


def _at_its_end(last: Operation, had: int) -> Iterator[_Change]:
    moment = last.returned or last.invoked
    if _is_granted(last):
        n = last.argument or 1
        yield _Change(moment, _INSTANT, last.process, n, last)
        had -= n
    yield _Change(moment, _END, last.process, had, last)


def _gain(operation: Operation) -> int:
    """Permits that a process may have more, once all that was called is over."""
    n = operation.argument or 1
    if operation.function == "release":
        return -n
    return n if _is_granted(operation) else 0


def _return(operation: Operation) -> float:
    return math.inf if operation.returned is None else operation.returned


def _is_refused(operation: Operation) -> bool:
    return operation.function == "try" and operation.known and operation.result is False


def _is_granted(operation: Operation) -> bool:
    takes = operation.function in ("acquire", "try")
    return takes and operation.known and operation.result is not False

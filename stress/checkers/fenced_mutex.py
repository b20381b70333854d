"""A mutex with a fencing token, without a search.

A process is inside for certain from the return of its `acquire` until it invokes `release`; how
long one was that died inside, nobody knows. No two are inside at once, and of two grants of which
one was made before the other was asked for, the later has the larger token.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from stress.checkers import Violation
from stress.checkers.order import disorder
from stress.history import History, Operation


@dataclass(frozen=True)
class _Stay:
    acquire: Operation
    release: Operation | None

    @property
    def began(self) -> int:
        return self.acquire.returned or 0

    @property
    def over(self) -> int:
        return self.release.invoked if self.release else self.began

    @property
    def operations(self) -> tuple[Operation, ...]:
        return (self.acquire, self.release) if self.release else (self.acquire,)


def flaw(history: History) -> Violation | None:
    """What is illegal about it, if anything is."""
    # Of two that began at one instant the shorter may have been first.
    stays = sorted(_stays(history), key=lambda stay: (stay.began, stay.over))
    return _overlap(stays) or _token_twice(history) or _tokens_fall(history)


def outer(history: History) -> History:
    """Of a mutex that its holder may take again, the calls that took it, and those that freed it.

    For histories in which all calls that returned are known.
    """
    depths: Counter[int] = Counter()
    return [each for each in history if _is_outer(depths, each)]


def _is_outer(depths: Counter[int], operation: Operation) -> bool:
    depth = depths[operation.process]
    depths[operation.process] += 1 if operation.function == "acquire" else -1
    return depth == (0 if operation.function == "acquire" else 1)


def _stays(history: History) -> Iterator[_Stay]:
    inside: dict[int, Operation] = {}
    for each in history:
        if each.function == "acquire" and each.known:
            inside[each.process] = each
        elif each.function == "release" and each.process in inside:
            yield _Stay(inside.pop(each.process), each)
    for acquire in inside.values():
        yield _Stay(acquire, None)


def _overlap(stays: list[_Stay]) -> Violation | None:
    for one, next in pairwise(stays):
        if next.began < one.over:
            operations = one.operations + next.operations
            return Violation("two processes were inside at once", operations)
    return None


def _grants(history: History) -> History:
    return [each for each in history if each.function == "acquire" and each.result is not None]


def _token_twice(history: History) -> Violation | None:
    granted: dict[int, Operation] = {}
    for each in _grants(history):
        if each.result in granted:
            return Violation("a token was granted twice", (granted[each.result], each))
        granted[each.result] = each
    return None


def _tokens_fall(history: History) -> Violation | None:
    if pair := disorder(sorted(_grants(history), key=lambda each: each.result)):
        return Violation("a token is smaller than one before it", pair)
    return None

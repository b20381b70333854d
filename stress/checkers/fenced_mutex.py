"""A mutex with a fencing token, without a search.

A process is inside for certain from the return of its `acquire` until it invokes `release`; how
long one was that died inside, nobody knows. No two are inside at once, and of two grants of which
one was made before the other was asked for, the later has the larger token. Who has it frees it
before it takes it again, and nobody else does.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from stress.checkers import Violation
from stress.checkers.order import disorder
from stress.history import History, Operation, Outcome


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
    return (
        _overlap(stays) or _out_of_turn(history) or _token_twice(history) or _tokens_fall(history)
    )


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
    """After a release of unknown outcome, which may free later what its process takes later, nobody
    knows how long that process stays."""
    inside: dict[int, Operation] = {}
    unsure: set[int] = set()
    for each in history:
        if each.function == "acquire" and each.known:
            inside[each.process] = each
        elif each.function == "release":
            if acquire := inside.pop(each.process, None):
                yield _Stay(acquire, None if each.process in unsure else each)
            unsure |= {each.process} if each.outcome is Outcome.UNKNOWN else set()
    for acquire in inside.values():
        yield _Stay(acquire, None)


def _overlap(stays: list[_Stay]) -> Violation | None:
    for one, next in pairwise(stays):
        if next.began < one.over:
            operations = one.operations + next.operations
            return Violation("two processes were inside at once", operations)
    return None


def _out_of_turn(history: History) -> Violation | None:
    """A process that took it again without a release between, or freed it without having it.

    Before it takes it for the n-th time it has begun to free it n - 1 times; before it has freed it
    n times, it has begun to take it n times.
    """
    of_process: dict[int, History] = defaultdict(list)
    for each in history:
        of_process[each.process].append(each)
    for own in of_process.values():
        if again := _first_without(own, "acquire", "release", 1):
            return Violation("taken again by one who had it", _with_last(own, again))
        if freed := _first_without(own, "release", "acquire", 0):
            return Violation("freed by one who did not have it", _with_last(own, freed))
    return None


def _with_last(own: History, operation: Operation) -> tuple[Operation, ...]:
    """What its process did before it, and it."""
    place = own.index(operation)
    return tuple(own[max(0, place - 1) : place + 1])


def _first_without(own: History, done: str, needs: str, fewer: int) -> Operation | None:
    """The first that is known, in the order of their returns, before whose return fewer of the
    others had begun than there were of its kind, it included, but for `fewer`."""
    known = [each for each in own if each.function == done and each.known]
    begun = [each for each in own if each.function == needs and each.outcome is not Outcome.FAIL]
    moments = sorted(each.invoked for each in begun)
    known.sort(key=lambda each: each.returned or 0)
    for count, each in enumerate(known, 1 - fewer):
        if bisect_right(moments, each.returned or 0) < count:
            return each
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

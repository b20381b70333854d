"""A queue whose items are all different and that was emptied at the end, without a search.

What came out was put in, and not later; nothing came out twice, unless at-least-once was promised;
what was put in came out, but for as many as there are `get` of unknown outcome; and the items of
one producer came out in the order in which it put them in, but for as many again, and as there are
`get` that took as long as one may take to claim what it was given: who was given that died, or was
stopped, before it took it, and it came back. (After the checker of that name in Jepsen, which has
no order; the full order of a FIFO queue is for the search.)
"""

from collections import defaultdict
from collections.abc import Iterator

from kvsync.primitives.grants import CLAIM_TIME
from stress.checkers import Violation
from stress.checkers.models.queue import EMPTY
from stress.checkers.order import disorder, overtaken
from stress.history import Datum, History, Operation, Outcome

Items = dict[Datum, Operation]


def flaw(history: History, *, at_least_once: bool = False) -> Violation | None:
    """What is illegal about it, if anything is. Raises: ValueError if an item was put twice."""
    puts, gets = _puts(history), _gets(history)
    first: Items = {}
    for each in gets:
        first.setdefault(each.result, each)
    return (
        _invented(puts, gets)
        or (None if at_least_once else _twice(first, gets))
        or _lost(puts, first, history)
        or _out_of_order(puts, first, history)
    )


def _puts(history: History) -> Items:
    puts = [each for each in history if each.function == "put"]
    items = {each.argument: each for each in puts}
    if len(items) < len(puts):
        raise ValueError("an item was put in twice")
    return items


def _gets(history: History) -> History:
    gets = [each for each in history if each.function == "get" and each.known]
    return [each for each in gets if each.result is not EMPTY]


def _invented(puts: Items, gets: History) -> Violation | None:
    for get in gets:
        put = puts.get(get.result)
        if put is None or put.outcome is Outcome.FAIL:
            return Violation("nobody put that in", (get,))
        if pair := disorder((put, get)):
            return Violation("it came out before it was put in", pair)
    return None


def _twice(first: Items, gets: History) -> Violation | None:
    for get in gets:
        if get is not first[get.result]:
            return Violation("an item came out twice", (first[get.result], get))
    return None


def _lost(puts: Items, first: Items, history: History) -> Violation | None:
    lost = [put for item, put in puts.items() if put.known and item not in first]
    unknown = _unknown_gets(history)
    if len(lost) <= len(unknown):
        return None
    return Violation(f"{len(lost)} items are lost, {len(unknown)} may be", (*lost, *unknown))


def _unknown_gets(history: History) -> History:
    return [get for get in history if get.function == "get" and _is_unknown(get)]


def _is_unknown(operation: Operation) -> bool:
    return operation.outcome is Outcome.UNKNOWN


def _out_of_order(puts: Items, first: Items, history: History) -> Violation | None:
    late = [
        pair
        for producer in _by_producer(puts)
        for pair in overtaken([first[put.argument] for put in producer if put.argument in first])
    ]
    if len(late) <= len(_unknown_gets(history)) + sum(map(_is_passed_over, history)):
        return None
    return Violation("items of one producer changed places", late[-1])


def _is_passed_over(operation: Operation) -> bool:
    """Whether what it was given may have gone back, for it was stopped."""
    lasted = (operation.returned or operation.invoked) - operation.invoked
    return operation.function == "get" and lasted >= CLAIM_TIME * 1e9


def _by_producer(puts: Items) -> Iterator[History]:
    producers: dict[int, History] = defaultdict(list)
    for put in puts.values():
        producers[put.process].append(put)
    return iter(producers.values())

"""A queue whose items are handed out until they are acknowledged, without a search:
`put(item)`, `reserve() -> (item, receipt)`, `ack((item, receipt))`.

All items are different. Each that was put is acknowledged once, by who was handed it last, and is
not handed out again. An item may be handed out often, each time under a receipt that no hand-out
ever had, above those that it had before; without one nobody can acknowledge it, and nobody passes
one on: it is the process of the hand-out that acknowledges. As it was handed out for the first
time, that is a `get` from a queue that loses nothing and keeps its order, but for what who died had
for a while.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, zip_longest

from stress.checkers import Violation, total_queue
from stress.checkers.order import overtaken
from stress.history import Datum, History, Operation, Outcome

Items = dict[Datum, History]


def flaw(history: History, *, worked_off: bool = True) -> Violation | None:
    """What is illegal about it, if anything is; nothing is lost if it was not worked off."""
    hands, acks = _by_item(history, "reserve"), _by_item(history, "ack")
    found = (
        _twice(acks)
        or _reused(hands)
        or _falling(hands)
        or _forged(history, hands, acks)
        or _stale(hands, acks)
        or _again(hands, acks)
    )
    if found or not worked_off:
        return found
    return _never(history, acks) or total_queue.flaw(first_hand_outs(history))


def first_hand_outs(history: History) -> History:
    """Puts, and as `get` the first hand-out of each item, and those of unknown outcome."""
    puts = [each for each in history if each.function == "put"]
    unknown = [each for each in history if each.function == "reserve" and not each.known]
    gets = [replace(each, function="get") for each in unknown]
    gets += [_first(hands) for hands in _by_item(history, "reserve").values()]
    return sorted([*puts, *gets], key=lambda each: each.invoked)


def _first(hands: History) -> Operation:
    """Of those at one time nobody knows which it was, but that it was within all of their time."""
    over = min(each.returned or 0 for each in hands)
    may_be = [each for each in hands if each.invoked <= over]
    item, _ = may_be[0].result
    invoked = min(each.invoked for each in may_be)
    returned = max(each.returned or 0 for each in may_be)
    return replace(may_be[0], function="get", result=item, invoked=invoked, returned=returned)


def _by_item(history: History, function: str) -> Items:
    """Those that returned."""
    items: Items = defaultdict(list)
    for each in history:
        if each.function == function and each.known:
            item, _ = each.result if function == "reserve" else each.argument
            items[item].append(each)
    return items


def _twice(acks: Items) -> Violation | None:
    for each in acks.values():
        if len(each) > 1:
            return Violation("an item was acknowledged twice", tuple(each))
    return None


def _reused(hands: Items) -> Violation | None:
    had: dict[Datum, Operation] = {}
    for each in chain.from_iterable(hands.values()):
        other = had.setdefault(each.result[1], each)
        if other is not each:
            return Violation("two hand-outs have one receipt", (other, each))
    return None


def _falling(hands: Items) -> Violation | None:
    for each in hands.values():
        for later, earlier in overtaken(sorted(each, key=lambda hand: hand.result[1])):
            return Violation("handed out again under a smaller receipt", (earlier, later))
    return None


def _forged(history: History, hands: Items, acks: Items) -> Violation | None:
    """Each `reserve` of unknown outcome may have given its own process the receipt of one ack."""
    told = {(hand.process, hand.result) for hand in chain.from_iterable(hands.values())}
    others, unknown = defaultdict[int, History](list), defaultdict[int, History](list)
    for ack in chain.from_iterable(acks.values()):
        if (ack.process, ack.argument) not in told:
            others[ack.process].append(ack)
    for each in history:
        if each.function == "reserve" and _is_unknown(each):
            unknown[each.process].append(each)
    forged = (_ungiven(each, unknown[process]) for process, each in others.items())
    return next(filter(None, forged), None)


def _ungiven(acks: History, unknown: History) -> Violation | None:
    """Of one process the first ack for which there is no `reserve` that may have given it."""
    acks = sorted(acks, key=lambda ack: ack.returned or 0)
    unknown = sorted(unknown, key=lambda each: each.invoked)
    for ack, giver in zip_longest(acks, unknown):
        if ack and (giver is None or giver.invoked > (ack.returned or 0)):
            return Violation("acknowledged under a receipt that it was not given", (ack,))
    return None


def _is_unknown(operation: Operation) -> bool:
    return operation.outcome is Outcome.UNKNOWN


def _pairs(hands: Items, acks: Items) -> Iterator[tuple[Operation, Operation]]:
    return ((hand, ack) for item, each in acks.items() for ack in each for hand in hands[item])


def _stale(hands: Items, acks: Items) -> Violation | None:
    for hand, ack in _pairs(hands, acks):
        if ack.argument[1] < hand.result[1] and (hand.returned or 0) < ack.invoked:
            return Violation("acknowledged by one who had it no more", (hand, ack))
    return None


def _again(hands: Items, acks: Items) -> Violation | None:
    for hand, ack in _pairs(hands, acks):
        if (ack.returned or 0) < hand.invoked:
            return Violation("handed out after it was acknowledged", (ack, hand))
    return None


def _never(history: History, acks: Items) -> Violation | None:
    unknown = [each for each in history if each.function == "ack" and _is_unknown(each)]
    settled = {each.argument[0] for each in unknown} | acks.keys()
    puts = [each for each in history if each.function == "put" and each.known]
    lost = [each for each in puts if each.argument not in settled]
    return Violation(f"{len(lost)} items were never acknowledged", tuple(lost)) if lost else None

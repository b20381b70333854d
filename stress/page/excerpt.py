"""Which part of a long run its picture shows: one key, where the most kinds of things happen."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stress.record import Fault, ScenarioResult, Span

LEFT, KILLED, UNSEEN = "left", "killed", "unseen"
MARKS = 80
LANES = 16
_ENOUGH = 12
_STEP = 8


class Lane(NamedTuple):
    """That of a thread; what is done to its process is done to it."""

    process: int
    thread: int = 0


@dataclass(frozen=True)
class Stay:
    """A span, and how it ended; one that was not seen to end is as short as can be."""

    lane: Lane
    token: int | None
    began: int
    ended: int
    ending: str  # LEFT, KILLED or UNSEEN
    refused: tuple[int, ...] = ()
    side: str = ""

    @property
    def over(self) -> int:
        """When the last of it was seen."""
        return max(self.ended, *self.refused, self.began)


@dataclass(frozen=True)
class Event:
    """Something that is marked in a lane."""

    kind: str
    lane: Lane
    at: int
    ended: int | None = None


@dataclass(frozen=True)
class Excerpt:
    """`of`: the stays in the whole run; `more`: lanes that are left out, with faults alone."""

    key: str
    stays: Sequence[Stay]
    events: Sequence[Event]
    lanes: Sequence[Lane]
    began: int
    ended: int
    of: int
    more: int

    def counts(self) -> Counter[str]:
        """Its events by kind; what was done to a process counts once, however many lanes it has."""
        every = {(event.kind, event.lane.process, event.at) for event in self.events}
        return Counter(kind for kind, *_ in every)


def excerpt(result: ScenarioResult) -> Excerpt | None:
    """None if no stay was recorded."""
    if not result.spans:
        return None
    key, spans = of_one_key(result)
    events = _events(spans, result.faults)
    stays = _stays(spans, _moments(events, "kill"))
    shown = _part_with_most(stays, events)
    began, ended = shown[0].began, max(stay.over for stay in shown)
    seen = _between(events, began, ended)
    holders = {stay.lane for stay in shown}
    others = Counter(event.lane for event in seen if event.lane not in holders)
    room = LANES - len(holders)
    lanes = sorted(holders | {lane for lane, _ in others.most_common(room)})
    return Excerpt(
        key,
        shown,
        [event for event in seen if event.lane in lanes],
        lanes,
        began,
        max(ended, began + 1),
        len(stays),
        len(holders) + len(others) - len(lanes),
    )


def of_one_key(result: ScenarioResult) -> tuple[str, list[Span]]:
    """The key with most to see, and its spans as they began."""
    of: dict[str, list[Span]] = {}
    for span in sorted(result.spans, key=lambda span: span.began):
        of.setdefault(span.key, []).append(span)
    faults = sorted(result.faults, key=_at)
    key = max(of, key=lambda key: _sights(of[key], faults))
    return key, of[key]


def _lane(span: Span) -> Lane:
    return Lane(span.process, span.thread)


def _sights(spans: Sequence[Span], faults: Sequence[Fault]) -> tuple[bool, int, int, int]:
    """First of all refusals, then kinds of faults meanwhile, then processes, then stays."""
    began, ended = spans[0].began, max(span.ended or span.began for span in spans)
    meanwhile = faults[bisect_left(faults, began, key=_at) : bisect_right(faults, ended, key=_at)]
    refused = any(span.refused for span in spans)
    processes = {span.process for span in spans}
    kinds = {fault.kind for fault in meanwhile if fault.process in processes}
    return refused, len(kinds), len(processes), len(spans)


def _at(event: Fault | Event) -> int:
    return event.at


def _events(spans: Sequence[Span], faults: Iterable[Fault]) -> list[Event]:
    """Without what was done to processes that never were inside: they work elsewhere."""
    lanes = sorted({_lane(span) for span in spans})
    refused = [Event("refused", _lane(span), at) for span in spans for at in span.refused]
    done = [
        Event(fault.kind, lane, fault.at, fault.ended)
        for fault in faults
        for lane in lanes
        if lane.process == fault.process
    ]
    return sorted(refused + done, key=_at)


def _moments(events: Iterable[Event], kind: str) -> Mapping[Lane, Sequence[int]]:
    """When it was done to each of them."""
    moments: dict[Lane, list[int]] = {}
    for event in events:
        if event.kind == kind:
            moments.setdefault(event.lane, []).append(event.at)
    return moments


def _stays(spans: Sequence[Span], kills: Mapping[Lane, Sequence[int]]) -> list[Stay]:
    """One without an end ended with its process, if that was killed before it stayed again."""
    following: dict[Lane, int] = {}
    stays = []
    for span in reversed(spans):
        lane = _lane(span)
        killed = _after(kills.get(lane, ()), span.began) if span.ended is None else None
        if killed is not None and killed > following.get(lane, killed):
            killed = None
        stays.append(_stay(span, killed))
        following[lane] = span.began
    return stays[::-1]


def _stay(span: Span, killed: int | None) -> Stay:
    ending = KILLED if killed is not None else UNSEEN if span.ended is None else LEFT
    ended = max(span.began, span.ended or killed or span.began)
    return Stay(_lane(span), span.token, span.began, ended, ending, span.refused, span.side)


def _after(moments: Sequence[int], moment: int) -> int | None:
    place = bisect_left(moments, moment)
    return moments[place] if place < len(moments) else None


def _part_with_most(stays: Sequence[Stay], events: Sequence[Event]) -> list[Stay]:
    """Most kinds of events, or else enough events, or else most stays, in the shortest time."""
    parts = (_part(stays, first, events) for first in range(0, len(stays), _STEP))

    def sights(part: Sequence[Stay]) -> tuple[int, int, int, int]:
        began, ended = part[0].began, max(stay.over for stay in part)
        seen = _between(events, began, ended)
        kinds = {event.kind for event in seen}
        return len(kinds), min(_ENOUGH, len(seen)), len(part), began - ended

    return max(parts, key=sights)


def _part(stays: Sequence[Stay], first: int, events: Sequence[Event]) -> list[Stay]:
    """From the first on, while there are lanes for all who are inside, and room for all marks."""
    holders: set[Lane] = set()
    part: list[Stay] = []
    for stay in stays[first : first + MARKS]:
        holders.add(stay.lane)
        marks = len(part) + len(_between(events, stays[first].began, stay.over))
        if part and (len(holders) > LANES or marks > MARKS):
            break
        part.append(stay)
    return part


def _between(events: Sequence[Event], began: int, ended: int) -> Sequence[Event]:
    return events[bisect_left(events, began, key=_at) : bisect_right(events, ended, key=_at)]

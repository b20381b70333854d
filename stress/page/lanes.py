"""Who held the lock when: a lane for each process, or thread of it, a bar for each stay.

Its colour is that of its token, or of its side where the lock has two.
"""

from collections.abc import Iterator, Sequence

from stress.page import marks
from stress.page.chart import WIDTH, cut, legend, picture, scrolling, time_axis, words
from stress.page.excerpt import KILLED, LEFT, UNSEEN, Event, Excerpt, Lane, Stay
from stress.page.figures import number, plural, seconds
from stress.page.markup import Content, Markup, element
from stress.page.scale import Linear

COLOURS = 5
_LEFT, _RIGHT, _TOP = 92, WIDTH - 28, 8
_ROW, _BAR = 26, 12
_DIGIT = 6.6
_THIN = 2.0
_SIDES = {"read": "reads", "write": "writes"}


def lanes(name: str, shown: Excerpt) -> Markup:
    """The picture with its legend."""
    bottom = _TOP + _ROW * len(shown.lanes)
    across = Linear(0, (shown.ended - shown.began) / 1e9, _LEFT, _RIGHT)
    place = _Place(shown, across)
    svg = picture(
        name,
        bottom + 28,
        f"Who held {cut(shown.key, 40)} when",
        _described(shown),
        time_axis(across, _TOP, bottom),
        list(_rows(shown)),
        [place.stop(event) for event in shown.events if event.ended is not None],
        [place.bar(stay) for stay in shown.stays],
        [place.mark(event) for event in shown.events],
    )
    label = f"Picture: who held {cut(shown.key, 40)} when"
    return element("div", legend(_entries(shown, place)), scrolling(label, svg))


def _middle(row: int) -> float:
    """Of a lane: there are its bars, and its marks on top of them."""
    return _TOP + _ROW * (row + 0.5)


def _rows(shown: Excerpt) -> Iterator[Markup]:
    threads = any(lane.thread for lane in shown.lanes)
    for row, lane in enumerate(shown.lanes):
        middle = _middle(row)
        yield element("line", x1=_LEFT, x2=_RIGHT, y1=middle, y2=middle, class_="lane")
        yield element(
            "text", *_named(lane, threads=threads), x=_LEFT - 10, y=middle + 4, class_="label end"
        )


def _named(lane: Lane, *, threads: bool) -> Iterator[Content]:
    """Shorter where the screen is narrow."""
    if threads:
        yield element("tspan", f"{lane.process}, thread {lane.thread}", class_="broad")
        yield element("tspan", f"{lane.process}/{lane.thread}", class_="narrow")
    else:
        yield element("tspan", "process ", class_="broad")
        yield str(lane.process)


class _Place:
    """Where stays and events of an excerpt are in its picture."""

    def __init__(self, shown: Excerpt, across: Linear) -> None:
        self._began = shown.began
        self._across = across
        self._middles = {each: _middle(row) for row, each in enumerate(shown.lanes)}
        tokens = sorted({stay.token for stay in shown.stays if stay.token is not None})
        self._colours = {token: f"t{place % COLOURS}" for place, token in enumerate(tokens)}
        self._base = _base(tokens)

    def bar(self, stay: Stay) -> Markup:
        left, width = self._at(stay.began), self._width(stay)
        rect = self._rect(stay.lane, left, width, _BAR, self._look(stay))
        return element("g", element("title", _stay(stay)), rect, self._told(stay, left + width / 2))

    def stop(self, event: Event) -> Markup:
        left, right = self._at(event.at), self._at(event.ended or event.at)
        return self._rect(event.lane, left, max(1.0, right - left), _BAR + 6, "stopped")

    def mark(self, event: Event) -> Markup:
        name = marks.NAMES.get(event.kind, event.kind)
        said = f"{name}, at {seconds((event.at - self._began) / 1e9)}"
        return marks.mark(event.kind, self._at(event.at), self._middles[event.lane], said)

    def shows_token(self, stay: Stay) -> bool:
        """Whether its last digits fit into its bar."""
        return stay.token is not None and self._has_room(stay)

    def _look(self, stay: Stay) -> str:
        cut, thin = stay.ending == KILLED, self._width(stay) <= 2 * _THIN
        return f"stay {self._colour(stay)}{' cut' * cut}{' thin' * thin}"

    def _colour(self, stay: Stay) -> str:
        if stay.side:
            return f"t-{stay.side}"
        return "t-none" if stay.token is None else self._colours[stay.token]

    def _width(self, stay: Stay) -> float:
        return max(_THIN, self._at(stay.ended) - self._at(stay.began))

    def _at(self, moment: int) -> float:
        return self._across((moment - self._began) / 1e9)

    def _rect(self, lane: Lane, x: float, width: float, height: float, class_: str) -> Markup:
        y = self._middles[lane] - height / 2
        return element("rect", x=x, y=y, width=width, height=height, rx=1.5, class_=class_)

    def _told(self, stay: Stay, middle: float) -> Markup | None:
        if not self._has_room(stay):
            return None
        y = self._middles[stay.lane] + 4
        return words(self._inscription(stay), middle, y, "token", "middle")

    def _has_room(self, stay: Stay) -> bool:
        letters = len(self._inscription(stay))
        return letters > 0 and letters * _DIGIT + 6 <= self._width(stay)

    def _inscription(self, stay: Stay) -> str:
        return _SIDES.get(stay.side, "") if stay.token is None else str(stay.token - self._base)


def _base(tokens: list[int]) -> int:
    """What is left out of the tokens in the picture: all but their last three digits, if shared."""
    return tokens[0] - tokens[0] % 1000 if tokens and tokens[-1] - tokens[0] < 9000 else 0


def _stay(stay: Stay) -> str:
    token = "no token" if stay.token is None else f"token {number(stay.token)}"
    held = _SIDES.get(stay.side, token)
    inside = seconds((stay.ended - stay.began) / 1e9)
    over = {
        LEFT: f"inside for {inside}",
        KILLED: f"killed inside after {inside}",
        UNSEEN: "not seen to leave",
    }
    thread = f", thread {stay.lane.thread}" if stay.lane.thread else ""
    return f"process {stay.lane.process}{thread}, {held}, {over[stay.ending]}"


def _entries(shown: Excerpt, place: _Place) -> Iterator[tuple[Markup, Content]]:
    """Of the legend: of each thing that the picture shows."""
    yield from _bars(shown.stays, place)
    if any(stay.ending == KILLED for stay in shown.stays):
        yield _bar("stay t0 cut"), "killed inside"
    if any(event.ended is not None for event in shown.events):
        yield _bar("stopped"), "for as long as a fault lasted"
    for kind, count in sorted(shown.counts().items()):
        yield marks.mark(kind, 11, 7), f"{marks.NAMES.get(kind, kind)} ({count:,})"


def _bars(stays: Sequence[Stay], place: _Place) -> Iterator[tuple[Markup, Content]]:
    """What their colours stand for."""
    sides = {stay.side for stay in stays}
    for side in sorted(sides & _SIDES.keys()):
        yield _bar(f"stay t-{side}"), _SIDES[side]
    if any(stay.token is not None for stay in stays):
        digits = any(map(place.shows_token, stays))
        shown = element("span", ", whose last digits it shows", class_="broad") if digits else None
        yield _all_colours(), element("span", "inside; its colour is its token", shown)
    elif "" in sides:
        yield _bar("stay t-none"), "inside"


def _bar(class_: str) -> Markup:
    return element("rect", x=1, y=1, width=20, height=12, class_=class_)


def _all_colours() -> Markup:
    bars = (
        element("rect", x=4 * each, y=1, width=4, height=12, class_=f"stay t{each}")
        for each in range(COLOURS)
    )
    return element("g", bars)


def _described(shown: Excerpt) -> str:
    events = sorted(shown.counts().items())
    done = ", ".join(f"{plural(count, kind)}" for kind, count in events)
    processes = len({lane.process for lane in shown.lanes})
    return (
        f"{plural(len(shown.stays), 'stay')} of {plural(processes, 'process', 'processes')}"
        f" within {seconds((shown.ended - shown.began) / 1e9)}; {done or 'no faults'}."
    )

"""Who held the lock when: a lane for each process, a bar for each stay, coloured by its token."""

from collections import Counter
from collections.abc import Iterator

from stress.page import marks
from stress.page.chart import WIDTH, cut, legend, picture, scrolling, time_axis, words
from stress.page.excerpt import KILLED, LEFT, UNSEEN, Event, Excerpt, Stay
from stress.page.figures import number, plural, seconds
from stress.page.markup import Markup, element
from stress.page.scale import Linear

COLOURS = 5
_LEFT, _RIGHT, _TOP = 92, WIDTH - 28, 8
_ROW, _BAR, _ABOVE = 32, 12, 12
_DIGIT = 6.6
_THIN = 2.0


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
    return element("div", _legend(shown), scrolling(label, svg))


def _rows(shown: Excerpt) -> Iterator[Markup]:
    for row, process in enumerate(shown.lanes):
        middle = _TOP + _ROW * (row + 0.66)
        yield element("line", x1=_LEFT, x2=_RIGHT, y1=middle, y2=middle, class_="lane")
        named = element("tspan", "process ", class_="broad"), str(process)
        yield element("text", *named, x=_LEFT - 10, y=middle + 4, class_="label end")


class _Place:
    """Where stays and events of an excerpt are in its picture."""

    def __init__(self, shown: Excerpt, across: Linear) -> None:
        self._began = shown.began
        self._across = across
        self._middles = {each: _TOP + _ROW * (row + 0.66) for row, each in enumerate(shown.lanes)}
        tokens = sorted({stay.token for stay in shown.stays if stay.token is not None})
        self._colours = {token: f"t{place % COLOURS}" for place, token in enumerate(tokens)}
        self._base = _base(tokens)

    def bar(self, stay: Stay) -> Markup:
        left, right = self._at(stay.began), self._at(stay.ended)
        width = max(_THIN, right - left)
        colour = "t-none" if stay.token is None else self._colours[stay.token]
        return element(
            "g",
            element("title", _stay(stay)),
            self._rect(
                stay.process,
                left,
                width,
                _BAR,
                f"stay {colour}{' cut' * (stay.ending == KILLED)}{' thin' * (width <= 2 * _THIN)}",
            ),
            self._token(stay, left, width),
        )

    def stop(self, event: Event) -> Markup:
        left, right = self._at(event.at), self._at(event.ended or event.at)
        return self._rect(event.process, left, max(1.0, right - left), _BAR + 6, "stopped")

    def mark(self, event: Event) -> Markup:
        name = marks.NAMES.get(event.kind, event.kind)
        said = f"{name}, at {seconds((event.at - self._began) / 1e9)}"
        return marks.mark(
            event.kind, self._at(event.at), self._middles[event.process] - _ABOVE, said
        )

    def _at(self, moment: int) -> float:
        return self._across((moment - self._began) / 1e9)

    def _rect(self, process: int, x: float, width: float, height: float, class_: str) -> Markup:
        y = self._middles[process] - height / 2
        return element("rect", x=x, y=y, width=width, height=height, rx=1.5, class_=class_)

    def _token(self, stay: Stay, left: float, width: float) -> Markup | None:
        said = "" if stay.token is None else str(stay.token - self._base)
        if not said or len(said) * _DIGIT + 6 > width:
            return None
        return words(said, left + width / 2, self._middles[stay.process] + 4, "token", "middle")


def _base(tokens: list[int]) -> int:
    """What is left out of the tokens in the picture: all but their last three digits, if shared."""
    return tokens[0] - tokens[0] % 1000 if tokens and tokens[-1] - tokens[0] < 9000 else 0


def _stay(stay: Stay) -> str:
    token = "no token" if stay.token is None else f"token {number(stay.token)}"
    inside = seconds((stay.ended - stay.began) / 1e9)
    over = {
        LEFT: f"inside for {inside}",
        KILLED: f"killed inside after {inside}",
        UNSEEN: "not seen to leave",
    }
    return f"process {stay.process}, {token}, {over[stay.ending]}"


def _legend(shown: Excerpt) -> Markup:
    counts = Counter(event.kind for event in shown.events)
    bars = [
        (element("rect", x=4 * each, y=1, width=4, height=12, class_=f"stay t{each}"), "")
        for each in range(COLOURS)
    ]
    inside = element("g", [bar for bar, _ in bars])
    entries = [(inside, "inside; its colour is its token, whose last digits it shows")]
    if any(stay.ending == KILLED for stay in shown.stays):
        killed = element("rect", x=1, y=1, width=20, height=12, class_="stay t0 cut")
        entries.append((killed, "killed inside"))
    if any(event.ended is not None for event in shown.events):
        lasted = element("rect", x=1, y=1, width=20, height=12, class_="stopped")
        entries.append((lasted, "for as long as a fault lasted"))
    for kind, count in sorted(counts.items()):
        entries.append((marks.mark(kind, 11, 7), f"{marks.NAMES.get(kind, kind)} ({count:,})"))
    return legend(entries)


def _described(shown: Excerpt) -> str:
    events = Counter(event.kind for event in shown.events)
    done = ", ".join(f"{plural(count, kind)}" for kind, count in sorted(events.items()))
    return (
        f"{plural(len(shown.stays), 'stay')} of {plural(len(shown.lanes), 'process', 'processes')}"
        f" within {seconds((shown.ended - shown.began) / 1e9)}; {done or 'no faults'}."
    )

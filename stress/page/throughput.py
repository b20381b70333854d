"""Operations per second of a scenario, with what was done to its processes meanwhile."""

from collections.abc import Iterable, Iterator, Sequence

from stress.page import marks
from stress.page.chart import cut, line, picture, time_axis, words
from stress.page.figures import number, plural, seconds, short
from stress.page.markup import Markup, element
from stress.page.scale import Linear, up_to
from stress.record import Fault, Rate, ScenarioResult

_WIDTH, _LEFT, _TOP, _BOTTOM, _ROW, _GAP = 470, 62, 10, 130, 14, 9
_RIGHT = _WIDTH - 26
_UNSEEN = 0.5


def throughput(name: str, result: ScenarioResult) -> Markup | None:
    """None if it was not measured."""
    rate = result.rate
    if rate is None or not rate.counts or not 0 < rate.width < float("inf"):
        return None
    speeds = [count / rate.width for count in rate.counts]
    across = Linear(0, rate.width * len(speeds), _LEFT, _RIGHT)
    up = up_to(max(speeds), _BOTTOM, _TOP)
    drawn = _Faults(rate, across)
    kinds = sorted({fault.kind for fault in result.faults if drawn.has(fault)})
    foot = _BOTTOM + _ROW * len(kinds) + (_GAP if kinds else 0)
    return picture(
        name,
        foot + 28,
        f"Throughput of {cut(result.name, 40)}",
        f"Up to {number(round(max(speeds)))} operations per second, least"
        f" {number(round(min(speeds)))}, within {seconds(across.high)};"
        f" {plural(len(result.faults), 'fault')}.",
        list(drawn.bands(result.faults)),
        time_axis(across, _TOP, foot, wanted=5),
        list(_speeds(up)),
        element("path", d=_area(speeds, across, up), class_="area"),
        element("path", d=_outline(speeds, across, up), class_="speed"),
        [
            mark
            for row, kind in enumerate(kinds)
            for mark in drawn.row(kind, result.faults, _BOTTOM + _GAP + _ROW * row)
        ],
        width=_WIDTH,
    )


def _speeds(up: Linear) -> Iterator[Markup]:
    for tick in up.ticks(3):
        yield line(_LEFT, up(tick), _RIGHT, up(tick), "rule")
        yield words(short(tick), _LEFT - 8, up(tick) + 4, "tick", "end")


def _outline(speeds: Sequence[float], across: Linear, up: Linear) -> str:
    """Steps: each slice has one speed."""
    width = across.high / len(speeds)
    corners = (
        f"{across(width * edge):.1f} {up(speed):.1f}"
        for place, speed in enumerate(speeds)
        for edge in (place, place + 1)
    )
    return "M" + "L".join(corners)


def _area(speeds: Sequence[float], across: Linear, up: Linear) -> str:
    return f"{_outline(speeds, across, up)}L{_RIGHT} {_BOTTOM}L{_LEFT} {_BOTTOM}z"


def _joined(spans: Iterable[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Sorted ones; those that overlap, or have too small a gap for anybody to see, as one."""
    whole: tuple[float, float] | None = None
    for left, right in spans:
        if whole and left <= whole[1] + _UNSEEN:
            whole = whole[0], max(whole[1], right)
            continue
        if whole:
            yield whole
        whole = left, right
    if whole:
        yield whole


class _Faults:
    """Where they are drawn: stops as bands, and each kind in a row of its own below."""

    def __init__(self, rate: Rate, across: Linear) -> None:
        self._began = rate.began
        self._across = across

    def has(self, fault: Fault) -> bool:
        over = fault.at if fault.ended is None else fault.ended
        return self._since(over) >= 0 and self._since(fault.at) <= self._across.high

    def bands(self, faults: Iterable[Fault]) -> Iterator[Markup]:
        """One for all that lasted at the same time: in a long run there are thousands of them."""
        lasted = sorted(self._ends(fault) for fault in faults if fault.ended and self.has(fault))
        for left, right in _joined(lasted):
            width = max(1.0, right - left)
            yield element(
                "rect", x=left, y=_TOP, width=width, height=_BOTTOM - _TOP, class_="fault-band"
            )

    def row(self, kind: str, faults: Sequence[Fault], top: float) -> Iterator[Markup]:
        these = [fault for fault in faults if fault.kind == kind and self.has(fault)]
        known = kind if kind in marks.NAMES else "other"
        said = f"{plural(len(these), kind)}"
        yield words(cut(kind, 8), _LEFT - 8, top + 10, "tick", "end", title=said)
        yield element(
            "path", element("title", said), d=self._ticks(these, top), class_=f"rug {known}"
        )

    def _ticks(self, faults: Sequence[Fault], top: float) -> str:
        """One stroke for all at one spot."""
        ends = sorted({(round(left), round(right)) for left, right in map(self._ends, faults)})
        return "".join(
            f"M{left} {top + 2}h{max(1.5, right - left)}v9h{-max(1.5, right - left)}z"
            for left, right in ends
        )

    def _ends(self, fault: Fault) -> tuple[float, float]:
        over = fault.at if fault.ended is None else fault.ended
        return self._across(self._since(fault.at)), self._across(self._since(over))

    def _since(self, moment: int) -> float:
        return (moment - self._began) / 1e9

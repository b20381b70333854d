"""The fencing tokens of one key over the whole run: they must rise."""

from collections.abc import Iterator, Sequence

from stress.page.chart import WIDTH, cut, legend, line, picture, scrolling, time_axis, words
from stress.page.excerpt import Excerpt, of_one_key
from stress.page.figures import number, plural, short
from stress.page.markup import Markup, element
from stress.page.scale import Linear, up_to
from stress.record import ScenarioResult

_LEFT, _RIGHT, _TOP, _BOTTOM = 92, WIDTH - 28, 12, 152

_Point = tuple[int, int]  # moment, token


def tokens(name: str, result: ScenarioResult, shown: Excerpt) -> Markup | None:
    """None where no stay had a token. What the picture of the lanes shows is a band in this one."""
    key, sorted_spans = of_one_key(result)
    points = [(span.began, span.token) for span in sorted_spans if span.token is not None]
    if not points:
        return None
    fallen = list(_fallen(points))
    svg = _picture(name, key, points, fallen, shown)
    dot = element("circle", cx=11, cy=7, r=3, class_="dot")
    band = element("rect", x=1, y=0, width=20, height=14, class_="excerpt")
    entries = [(dot, "a grant")]
    if len(shown.stays) < shown.of:
        entries.append((band, "the part that is shown above"))
    if fallen:
        entries.append((element("path", d=_cross(11, 7), class_="wrong"), _fell(len(fallen))))
    label = f"Picture: the tokens of {cut(key, 40)} over time"
    return element("div", legend(entries), scrolling(label, svg))


def lowest(result: ScenarioResult) -> int:
    """The token that the picture counts from."""
    _, of_key = of_one_key(result)
    return min((span.token for span in of_key if span.token is not None), default=0)


def _picture(
    name: str, key: str, points: list[_Point], fallen: list[_Point], shown: Excerpt
) -> Markup:
    began = points[0][0]
    base = min(token for _, token in points)
    highest = max(token for _, token in points)
    whole = max(1e-9, max(points[-1][0] - began, shown.ended - began) / 1e9)
    across = Linear(0, whole, _LEFT, _RIGHT)
    up = up_to(highest - base, _BOTTOM, _TOP)

    def at(point: _Point) -> tuple[float, float]:
        return across((point[0] - began) / 1e9), up(point[1] - base)

    return picture(
        name,
        _BOTTOM + 28,
        f"The tokens of {cut(key, 40)} over time",
        f"{plural(len(points), 'grant')}, tokens {number(base)} to {number(highest)}."
        f" {_fell(len(fallen))}",
        _band(across, (shown.began - began) / 1e9, (shown.ended - began) / 1e9)
        if len(shown.stays) < shown.of
        else None,
        time_axis(across, _TOP, _BOTTOM),
        [
            mark
            for tick in up.ticks(3)
            for mark in (
                line(_LEFT, up(tick), _RIGHT, up(tick), "rule"),
                words(f"+{short(tick)}" if tick else "0", _LEFT - 10, up(tick) + 4, "tick", "end"),
            )
        ],
        [element("circle", cx=x, cy=y, r=1.8, class_="dot") for x, y in _thinned(map(at, points))],
        [element("path", d=_cross(*at(point)), class_="wrong") for point in fallen],
    )


def _fallen(points: Sequence[_Point]) -> Iterator[_Point]:
    """Those that are not above all before them."""
    highest = points[0][1] - 1
    for moment, token in points:
        if token <= highest:
            yield moment, token
        highest = max(highest, token)


def _thinned(places: Iterator[tuple[float, float]]) -> list[tuple[float, float]]:
    """One of all that would be drawn onto the same spot."""
    return list({(round(x), round(y)): (x, y) for x, y in places}.values())


def _band(across: Linear, began: float, ended: float) -> Markup:
    left, right = across(began), across(ended)
    return element(
        "rect",
        x=left,
        y=_TOP,
        width=max(2.0, right - left),
        height=_BOTTOM - _TOP,
        class_="excerpt",
    )


def _cross(x: float, y: float) -> str:
    return f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"


def _fell(count: int) -> str:
    return f"{plural(count, 'token')} did not rise." if count else "Every token rose."

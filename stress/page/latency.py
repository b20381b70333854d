"""How long the calls of each operation took: a row for each, on an axis of orders of magnitude.

Where a screen is too narrow for the picture, its figures stand alone, in a table.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from stress.page.chart import WIDTH, cut, legend, line, picture, scrolling, words
from stress.page.figures import number, plural, seconds
from stress.page.markup import Markup, element
from stress.page.scale import Log, log_around
from stress.page.table import figure_cell, row, table
from stress.record import Latency, ScenarioResult

_LEFT, _RIGHT, _TOP, _ROW = 218, WIDTH - 262, 30, 22
_COLUMNS = (("calls", WIDTH - 186), ("half", WIDTH - 124), ("99 %", WIDTH - 62), ("worst", WIDTH))

_Row = tuple[str, Latency | None]  # without one it is the heading of a scenario


def latency(name: str, results: Sequence[ScenarioResult]) -> Markup | None:
    """None if nobody measured."""
    rows = list(_rows(results))
    if not rows:
        return None
    measured = [each for _, each in rows if each]
    along = log_around(
        (value for each in measured for value in each.quantiles.values()), _LEFT, _RIGHT
    )
    bottom = _TOP + _ROW * len(rows)
    svg = picture(
        name,
        bottom + 24,
        "Latency of each operation",
        f"Quantiles of {plural(len(measured), 'operation')} on a logarithmic axis,"
        f" from {seconds(along.low)} to {seconds(along.high)}.",
        list(_axis(along, bottom)),
        [words(said, x, _TOP - 14, "tick", "end") for said, x in _COLUMNS],
        [_drawn(row, _TOP + _ROW * (place + 0.5), along) for place, row in enumerate(rows)],
    )
    drawn = element(
        "div",
        _legend(measured),
        scrolling("Picture: latency of each operation", svg),
        class_="broad",
    )
    return element("div", drawn, element("div", _table(rows), class_="narrow"))


def _table(rows: Sequence[_Row]) -> Markup:
    heads = ("operation", *(said for said, _ in _COLUMNS))
    return table("Latency of each operation", heads, [_told(*each) for each in rows], "latencies")


def _told(said: str, measured: Latency | None) -> Markup:
    if measured is None:
        return element(
            "tr", element("th", cut(said, 60), colspan=5, scope="rowgroup", class_="name")
        )
    return row(said, [figure_cell(each) for each in _given(measured)])


def _rows(results: Sequence[ScenarioResult]) -> Iterator[_Row]:
    for result in results:
        if result.latencies:
            yield result.name, None
            yield from ((each.operation, each) for each in result.latencies)


def _axis(along: Log, bottom: float) -> Iterator[Markup]:
    for tick in along.ticks():
        yield line(along(tick), _TOP - 8, along(tick), bottom, "rule")
        yield words(seconds(tick), along(tick), _TOP - 14, "tick", "middle")


def _drawn(row: _Row, y: float, along: Log) -> list[Markup]:
    said, measured = row
    if measured is None:
        return [words(cut(said, 60), 0, y + 5, "group", title=said)]
    known = _known(measured.quantiles)
    places = [along(value) for value in known.values()]
    whole = [line(min(places), y, max(places), y, "range")] if places else []
    told = f"{said}: " + "; ".join(f"{_named(at)} {seconds(took)}" for at, took in known.items())
    drawn = element(
        "g",
        element("title", told),
        *whole,
        *(_mark(at, along(took), y) for at, took in known.items()),
    )
    return [
        words(cut(said, 30), 12, y + 4, "label", title=said),
        drawn,
        *_figures(measured, y + 4),
    ]


def _figures(measured: Latency, y: float) -> Iterator[Markup]:
    for said, (_, x) in zip(_given(measured), _COLUMNS, strict=True):
        yield words(said, x, y, "value", "end")


def _given(measured: Latency) -> tuple[str, ...]:
    """What is in the columns."""
    given = measured.quantiles
    took = (seconds(given[at]) if at in given else "" for at in (0.5, 0.99, 1.0))
    return number(measured.calls), *took


def _mark(at: float, x: float, y: float) -> Markup:
    if at == 0.5:
        return element("circle", cx=x, cy=y, r=4.5, class_="q half")
    if at >= 1:
        return element("path", d=f"M{x:.1f} {y - 6:.1f}v12", class_="q worst")
    if at == 0.99:
        return element(
            "path", d=f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z", class_="q most"
        )
    return element("path", d=f"M{x:.1f} {y - 3.5:.1f}v7", class_="q")


def _named(at: float) -> str:
    return "half within" if at == 0.5 else "worst" if at >= 1 else f"{at * 100:.6g} % within"


def _known(quantiles: Mapping[float, float]) -> dict[float, float]:
    return {at: quantiles[at] for at in sorted(quantiles) if math.isfinite(quantiles[at])}


def _legend(measured: Sequence[Latency]) -> Markup:
    every = sorted({at for each in measured for at in each.quantiles})
    ticks = [at for at in every if at not in (0.5, 0.99) and at < 1]
    named = [at for at in every if at not in ticks]
    entries = [(_mark(at, 11, 7), _named(at)) for at in named]
    if ticks:
        shares = ", ".join(f"{at * 100:.6g} %" for at in ticks)
        entries.append((_mark(ticks[0], 11, 7), f"{shares} within"))
    return legend(entries)

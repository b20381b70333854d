"""What callers were told is done, against what was in the store at the end."""

from collections.abc import Iterable, Iterator
from dataclasses import astuple

from stress.page.chart import empty, section
from stress.page.figures import number
from stress.page.markup import Markup, element
from stress.page.table import figure_cell, row, table
from stress.record import Books, Run

_HEADS = ("scenario", "acknowledged", "lost", "recovered", "unknown", "unheard")
_LEAD = (
    "The books are kept outside of the store; the store is compared with them at the end."
    " Acknowledged: what callers were told is done. Lost: acknowledged, but not found. Recovered:"
    " what a killed process had in hand, or one that was stopped past its lease, and others were"
    " seen to have after it. Unknown: calls whose callers were killed before they noted what they"
    " heard. Unheard: done all the same, though its caller was killed, or was told of an error;"
    " where the unknown are counted, no more are unheard. A dash: the scenario keeps no such book."
)
_NONE = "\N{EN DASH}"


def books(run: Run) -> Markup:
    kept = [(result.name, result.books) for result in run.scenarios if result.books]
    if not kept:
        return section("books", "Books", "", empty("No scenario kept books in this run."))
    rows = list(_rows(kept))
    return section("books", "Books", _LEAD, table("Books", _HEADS, rows, "books"))


def _rows(kept: Iterable[tuple[str, Books]]) -> Iterator[Markup]:
    every = list(kept)
    yield from (_row(name, each) for name, each in every)
    if len(every) > 1:
        yield _row("all", total(each for _, each in every), "total")


def _row(name: str, each: Books, class_: str = "") -> Markup:
    others = map(_cell, (each.recovered, each.unknown, each.unheard))
    return row(name, [_cell(each.acknowledged), _lost(each.lost), *others], class_)


def _cell(count: int | None) -> Markup:
    return figure_cell(_NONE if count is None else number(count))


def _lost(count: int | None) -> Markup:
    if not count:
        return _cell(count)
    sign = element("span", "✗ ", aria_hidden="true")
    return element("td", sign, number(count), class_="number bad")


def total(every: Iterable[Books]) -> Books:
    """In each column the sum over those that keep it."""
    columns = zip(*map(astuple, every), strict=True)
    return Books(*map(_sum, columns))


def _sum(counts: Iterable[int | None]) -> int | None:
    kept = [count for count in counts if count is not None]
    return sum(kept) if kept else None

"""What callers were told is done, against what was in the store at the end."""

from collections.abc import Iterable, Iterator

from stress.page.chart import empty, section
from stress.page.figures import number
from stress.page.markup import Markup, element
from stress.page.table import figure_cell, row, table
from stress.record import Books, Run

_HEADS = ("scenario", "acknowledged", "lost", "unheard", "cut off")
_LEAD = (
    "The books are kept outside of the store; the store is compared with them at the end."
    " Acknowledged: what callers were told is done. Lost: acknowledged, but not found. Unheard:"
    " done, though its caller was cut off before it heard. Cut off: callers that were killed, or"
    " refused, in the whole run; each leaves one call unheard, or none, so there can be no more"
    " unheard than cut off."
)


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
        yield _row("all", _sum(each for _, each in every), "total")


def _row(name: str, each: Books, class_: str = "") -> Markup:
    lost = element("span", "✗ ", aria_hidden="true") if each.lost else None
    cells = (
        figure_cell(number(each.acknowledged)),
        element(
            "td", lost, number(each.lost), class_=f"number {'bad' if each.lost else ''}".strip()
        ),
        figure_cell(number(each.unheard)),
        figure_cell(number(each.cut_off)),
    )
    return row(name, cells, class_)


def _sum(every: Iterable[Books]) -> Books:
    rows = [(each.acknowledged, each.lost, each.unheard, each.cut_off) for each in every]
    return Books(*map(sum, zip(*rows, strict=True)))

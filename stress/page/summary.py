"""The verdict, first of all, and the figures that carry it."""

from collections import Counter
from collections.abc import Iterator

from stress.page.books import total
from stress.page.figures import moment, number, plural, seconds
from stress.page.markup import Markup, element
from stress.page.mutants import missed
from stress.page.repeat import repeat
from stress.page.verdict import CLASSES, HELD, SIGNS, SKIPPED, VIOLATED, verdict
from stress.record import Run

_SUMMED = ("kills", "checked operations", "histories")


def summary(run: Run) -> Markup:
    counts = Counter(map(verdict, run.scenarios))
    found = _found(counts)
    headline = element(
        "h1",
        element("span", SIGNS[found], class_="sign", aria_hidden="true"),
        element("span", _headline(found, counts)),
    )
    return element(
        "header",
        element("p", "kvsync stress report", class_="kicker"),
        headline,
        element("p", _said(run, counts), class_="lead"),
        _hole(run),
        element("dl", [_tile(*each) for each in _tiles(run, counts)], class_="tiles"),
        element("p", _when(run), class_="when"),
        repeat(run.command),
        class_=f"summary {CLASSES[found]}",
    )


def _found(counts: Counter[str]) -> str:
    if counts[VIOLATED]:
        return VIOLATED
    return HELD if counts[HELD] else SKIPPED


def _headline(found: str, counts: Counter[str]) -> str:
    if found == VIOLATED:
        return f"Violated: {plural(counts[VIOLATED], 'invariant')} did not hold"
    return "Every invariant held" if found == HELD else "Nothing was proved"


def _said(run: Run, counts: Counter[str]) -> str:
    if not run.scenarios:
        return "No scenario was run."
    held = f"{counts[HELD]:,} of {plural(len(run.scenarios), 'scenario')} held"
    violated = f", {counts[VIOLATED]:,} violated" if counts[VIOLATED] else ""
    skipped = f"; {counts[SKIPPED]:,} skipped, which proves nothing" if counts[SKIPPED] else ""
    return f"{held}{violated}{skipped}."


def _hole(run: Run) -> Markup | None:
    names = missed(run.matrix)
    if not names:
        return None
    said = f"The suite has a hole: no scenario caught {plural(len(names), 'broken twin')}."
    return element("p", element("a", said, href="#mutants"), class_="hole")


def _tiles(run: Run, counts: Counter[str]) -> Iterator[tuple[str, str, bool]]:
    """Name, figure, and whether it is bad."""
    yield "scenarios held", f"{counts[HELD]:,} / {len(run.scenarios):,}", bool(counts[VIOLATED])
    for name in _SUMMED:
        if count := _total(run, name):
            yield name, number(count), False
    books = total(result.books for result in run.scenarios if result.books)
    if books.acknowledged is not None and books.lost is not None:
        yield "acknowledged", number(books.acknowledged), False
        yield "lost", number(books.lost), books.lost > 0
    if run.matrix and run.matrix.rows:
        rows, holes = len(run.matrix.rows), len(missed(run.matrix))
        yield "broken twins caught", f"{rows - holes:,} / {rows:,}", holes > 0


def _total(run: Run, name: str) -> float:
    """Over all scenarios that count it; what is not a number counts as nothing."""
    figures = [result.figures.get(name, 0) for result in run.scenarios]
    return sum(figure for figure in figures if 0 < figure < float("inf"))


def _tile(name: str, figure: str, bad: bool) -> Markup:
    class_ = "bad" if bad else None
    return element("div", element("dt", name), element("dd", figure), class_=class_)


def _when(run: Run) -> str:
    return f"{moment(run.date)} · took {seconds(run.seconds)} · seed {run.seed}"

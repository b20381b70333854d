"""Broken twins of kvsync, and which scenarios caught them. One that none caught is a hole."""

from collections.abc import Sequence

from stress.page.chart import cut, empty, section
from stress.page.figures import moment, plural, seconds
from stress.page.markup import Markup, element
from stress.page.repeat import repeat
from stress.page.table import figure_cell, row, table, turned
from stress.record import Matrix, MutantRow, Run

_SIGNS = {True: "●", False: "○", None: ""}
_WORDS = {True: "caught", False: "not caught", None: "not tried"}
_CLASSES = {True: "caught", False: "escaped", None: None}


def missed(matrix: Matrix | None) -> list[str]:
    """Those that no scenario caught."""
    return [each.name for each in matrix.rows if not _is_caught(each)] if matrix else []


_NONE = (
    "This page was written without them. The first of these commands runs the broken twins, the"
    " second one adds what became of them to the page of a run."
)
_COMMANDS = (
    "python -m stress mutants --json mutants.json",
    "python -m stress --report report.html --mutants mutants.json",
)


def mutants(run: Run) -> Markup:
    title = "Mutants and scenarios"
    if run.matrix is None or not run.matrix.rows:
        return section("mutants", title, "", empty(_NONE), _how())
    when, again = element("p", _when(run.matrix), class_="when"), repeat(run.matrix.command)
    return section("mutants", title, _said(run.matrix), _key(), _table(run.matrix), when, again)


def _how() -> Markup:
    code = element("code", "\n".join(_COMMANDS))
    return element("pre", code, tabindex=0, aria_label="commands")


def _said(matrix: Matrix) -> str:
    holes = missed(matrix)
    every = f"{plural(len(matrix.rows), 'broken twin')} of kvsync"
    if holes:
        return f"{every}; {len(holes):,} of them no scenario caught: holes in the suite."
    return f"{every}; at least one scenario caught each."


def _when(matrix: Matrix) -> str:
    """And on what: it is a run by itself."""
    facts = [f"{name} {fact}" for name, fact in matrix.facts.items()]
    return " · ".join([moment(matrix.date), f"seed {matrix.seed}", *facts])


def _table(matrix: Matrix) -> Markup:
    heads = [turned(name) for name in matrix.scenarios]
    rows = [_row(each, matrix.scenarios) for each in sorted(matrix.rows, key=_is_caught)]
    return table("Mutants by scenarios", ["mutant", *heads, "took"], rows, "mutants")


def _row(mutant: MutantRow, scenarios: Sequence[str]) -> Markup:
    caught = _is_caught(mutant)
    hole = None if caught else element("span", "✗ not caught", class_="badge violated")
    name = (
        element("span", cut(mutant.name, 60), class_="name"),
        hole,
        element("span", mutant.broken, class_="invariant"),
    )
    cells = [_cell(mutant.caught.get(each)) for each in scenarios]
    took = figure_cell(seconds(mutant.seconds))
    return row(name, [*cells, took], "" if caught else "missed")


def _cell(caught: bool | None) -> Markup:
    sign = element("span", _SIGNS[caught], aria_hidden="true")
    word = element("span", _WORDS[caught], class_="unseen")
    return element("td", sign, word, class_=_CLASSES[caught])


def _is_caught(mutant: MutantRow) -> bool:
    return any(mutant.caught.values())


def _key() -> Markup:
    entries = [(True, "caught it"), (False, "tried, did not"), (None, "empty: not tried")]
    return element("ul", [_entry(caught, said) for caught, said in entries], class_="legend")


def _entry(caught: bool | None, said: str) -> Markup:
    if caught is None:
        return element("li", said)
    return element(
        "li", element("span", _SIGNS[caught], class_=f"chip {_CLASSES[caught]}"), f" {said}"
    )

"""Every scenario: its verdict, its invariant, its figures. What was violated comes first."""

from collections.abc import Iterator

from stress.page.chart import empty, section
from stress.page.figures import number, seconds
from stress.page.markup import Markup, element
from stress.page.verdict import CLASSES, SIGNS, badge, verdict
from stress.record import Run, ScenarioResult

_LEAD = (
    "Operations: what processes counted themselves, the first of each left out. Acknowledged: what"
    " they noted in the books, which may be several things an operation. Checked operations: single"
    " calls, recorded in short windows of the run and put before a checker; where the caller was"
    " cut off, their outcome is unknown, and the checker allows both."
)
_HEADS = ("scenario and invariant", "verdict", "figures", "processes", "took")
_ORDER = list(SIGNS)[1::-1] + list(SIGNS)[2:]


def scenarios(run: Run) -> Markup:
    if not run.scenarios:
        return section("scenarios", "Scenarios", "", empty("No scenario was run."))
    sorted_results = sorted(run.scenarios, key=lambda result: _ORDER.index(verdict(result)))
    head = element("tr", [_head(said) for said in _HEADS], role="row")
    table = element(
        "table",
        element("thead", head, role="rowgroup"),
        element("tbody", [_row(result) for result in sorted_results], role="rowgroup"),
        class_="scenarios",
        role="table",
        aria_labelledby="scenarios-heading",
    )
    return section("scenarios", "Scenarios", _LEAD, table)


def _head(said: str) -> Markup:
    return element("th", said, scope="col", role="columnheader")


def _row(result: ScenarioResult) -> Markup:
    found = verdict(result)
    processes = number(result.processes)
    name = element("th", *_named(result), scope="row", role="rowheader")
    cells = (
        element("td", badge(found), class_="said", role="cell"),
        element("td", _figures(result), class_="figures", role="cell"),
        element("td", processes, element("i", " processes"), class_="number", role="cell"),
        element("td", seconds(result.seconds), class_="number", role="cell"),
    )
    return element("tr", name, cells, class_=CLASSES[found], role="row")


def _named(result: ScenarioResult) -> Iterator[Markup]:
    yield element("span", result.name, class_="name")
    yield element("span", result.invariant, class_="invariant")
    if result.remarks or result.repeat:
        yield element(
            "details",
            element("summary", "remarks and command" if result.remarks else "command"),
            [element("p", remark) for remark in result.remarks],
            _command(result.repeat),
        )


def _command(command: str) -> Markup | None:
    if not command:
        return None
    return element("pre", element("code", command), tabindex=0, aria_label="command")


def _figures(result: ScenarioResult) -> Markup:
    if result.skipped:
        return element("span", result.skipped, class_="reason")
    return element(
        "ul",
        [
            element("li", element("b", number(figure)), f" {name}")
            for name, figure in result.figures.items()
        ],
    )

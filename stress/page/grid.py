"""Which fault was used against which primitive, and what came of it."""

from collections.abc import Iterable, Sequence

from stress.page.chart import empty, listed, section
from stress.page.markup import Markup, element
from stress.page.table import row, table, turned
from stress.page.verdict import CLASSES, HELD, SIGNS, SKIPPED, VIOLATED, verdict
from stress.record import Run, ScenarioResult

_LEAD = (
    "The number of scenarios that used the fault against the primitive. An empty field: none did,"
    " or not in this run."
)


def grid(run: Run) -> Markup:
    primitives = _all(result.primitives for result in run.scenarios)
    faults = _all(result.faults_used for result in run.scenarios)
    if not primitives or not faults:
        reason = "No scenario of this run used a fault against a primitive."
        return section("grid", "Faults and primitives", "", empty(reason))
    rows = [
        row(fault, [_cell(_using(run.scenarios, fault, each)) for each in primitives])
        for fault in faults
    ]
    heads = ["fault", *map(turned, primitives)]
    whole = table("Faults by primitives", heads, rows, "grid")
    return section("grid", "Faults and primitives", _LEAD, _key(), whole)


def _all(groups: Iterable[Sequence[str]]) -> list[str]:
    """Each once, those first that most have."""
    every = [name for group in groups for name in group]
    return sorted(set(every), key=lambda name: (-every.count(name), name))


def _using(results: Iterable[ScenarioResult], fault: str, primitive: str) -> list[ScenarioResult]:
    return [each for each in results if fault in each.faults_used and primitive in each.primitives]


def _cell(results: Sequence[ScenarioResult]) -> Markup:
    if not results:
        return element("td", element("span", "none", class_="unseen"))
    found = _worst([verdict(result) for result in results])
    counted = [result for result in results if verdict(result) == found]
    names = listed([result.name for result in counted], 8)
    sign = element("span", SIGNS[found], aria_hidden="true")
    said = element("span", f" {found}: ", class_="unseen")
    return element("td", sign, said, f" {len(counted)}", class_=CLASSES[found], title=names)


def _worst(verdicts: Sequence[str]) -> str:
    return next(each for each in (VIOLATED, HELD, SKIPPED) if each in verdicts)


def _key() -> Markup:
    meanings = {HELD: "held", VIOLATED: "violated", SKIPPED: "skipped, proves nothing"}
    return element(
        "ul",
        [
            element(
                "li", element("span", SIGNS[each], class_=f"chip {CLASSES[each]}"), f" {meaning}"
            )
            for each, meaning in meanings.items()
        ],
        class_="legend",
    )

"""What was found wrong: each in full, with the shortest part of a history that shows it."""

from collections.abc import Iterator

from stress.checkers.display import beginning
from stress.page.chart import section
from stress.page.figures import plural
from stress.page.markup import Markup, element
from stress.page.repeat import repeat
from stress.page.verdict import VIOLATED, verdict
from stress.record import Run, ScenarioResult

_OPEN = 5
_LONGEST = 20_000


def violations(run: Run) -> Markup | None:
    """None if nothing was violated."""
    violated = [result for result in run.scenarios if verdict(result) == VIOLATED]
    if not violated:
        return None
    return section("violations", "Violations", "", [_violated(result) for result in violated])


def _violated(result: ScenarioResult) -> Markup:
    found = result.violations or (f"Its verdict is {result.verdict}; it says no more.",)
    return element(
        "article",
        element("h3", result.name),
        element("p", element("b", "Broken: "), result.invariant, class_="invariant"),
        [list(_history(each)) for each in found[:_OPEN]],
        _more(found[_OPEN:]),
        repeat(result.repeat),
        class_="violation",
    )


def _history(found: str) -> Iterator[Markup]:
    """Its first lines, and below them, to be opened, the others."""
    first, more = beginning(found)
    yield _told("\n".join(first))
    if more:
        said = element("summary", f"{plural(len(more), 'line')} more")
        yield element("details", said, _told("\n".join(more)))


def _told(found: str) -> Markup:
    left_out = len(found) - _LONGEST
    tail = f"\n… and {plural(left_out, 'character')} more" if left_out > 0 else ""
    return element(
        "pre", element("code", found[:_LONGEST] + tail), tabindex=0, aria_label="violation"
    )


def _more(found: tuple[str, ...]) -> Markup | None:
    if not found:
        return None
    said = element("summary", f"{plural(len(found), 'violation')} more")
    return element("details", said, [list(_history(each)) for each in found])

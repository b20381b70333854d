"""Puts the histories of a run before the checkers."""

from collections import Counter
from collections.abc import Callable

from stress.checkers import Violation
from stress.checkers.linearizability import Undecided
from stress.history import History, Outcome
from stress.stage import Stage

Check = Callable[[History], Violation | None]

_UNKNOWN = "checked, outcome unknown"
"""Those of the checked operations whose callers were cut off."""

_UNDECIDED = "undecided histories"
"""Recorded, and given up: they are not among those that were checked."""

_SEVERAL = 5
"""Windows. One can go by unused while all who would work in it wait for something elsewhere."""


def expect_legal(stage: Stage, *checks: Check) -> None:
    """All histories that were recorded are legal to all checks; the first that is not ends it. And
    there are some, if several windows came to their end in the time of the run: none is not enough.

    The figures say how many there were, with how many operations, of how many of them nobody knows
    what came of them, and how many histories more could not be decided on. A call that failed has
    changed nothing, and is no operation that was checked; a history in which nothing else is known
    decides nothing.
    """
    figures = Counter({"histories": 0, "checked operations": 0, _UNKNOWN: 0, _UNDECIDED: 0})
    for key, history in stage.windows.histories():
        stage.latencies.look(history)
        stage.spans.look(key, history)
        if violation := _violation(history, checks, figures):
            stage.violations.insert(0, f"the history of {key}: {violation}")  # it says most
            break
    stage.figures |= figures
    if not stage.violations:
        _expect_some(stage, figures)


def _expect_some(stage: Stage, figures: Counter[str]) -> None:
    due, undecided = stage.windows_due(), figures[_UNDECIDED]
    stage.expect(
        figures["histories"] > 0 or due < _SEVERAL,
        f"no history was decided: of {due} windows {undecided} were recorded and given up",
    )


def _violation(history: History, checks: tuple[Check, ...], figures: Counter[str]) -> str:
    """What is found with the fewest operations comes first."""
    found, undecided = [], False
    for check in checks:
        try:
            found += filter(None, [check(history)])
        except Undecided:
            undecided = True
    if undecided and not found:
        figures[_UNDECIDED] += 1
        return ""
    if any(each.known for each in history):
        _count(history, figures)
    found.sort(key=lambda violation: len(violation.operations))
    return "\nand ".join(map(str, found))


def _count(history: History, figures: Counter[str]) -> None:
    outcomes = Counter(each.outcome for each in history)
    figures["histories"] += 1
    figures["checked operations"] += len(history) - outcomes[Outcome.FAIL]
    figures[_UNKNOWN] += outcomes[Outcome.UNKNOWN]

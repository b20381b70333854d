"""Puts the histories of a run before the checkers."""

from collections import Counter
from collections.abc import Callable

from stress.checkers import Violation
from stress.checkers.linearizability import Undecided
from stress.history import History, Outcome
from stress.stage import Stage

Check = Callable[[History], Violation | None]


def expect_legal(stage: Stage, *checks: Check) -> None:
    """All histories that were recorded are legal to all checks; the first that is not ends it.

    The figures say how many there were, with how many operations, of how many nobody knows whether
    they took effect, and how many histories could not be decided on.
    """
    figures = Counter(histories=0, operations=0, open=0)
    for key, history in stage.windows.histories():
        if violation := _violation(history, checks, figures):
            stage.expect(False, f"the history of {key} is {violation}")
            break
    stage.figures |= figures


def _violation(history: History, checks: tuple[Check, ...], figures: Counter[str]) -> str:
    figures["histories"] += 1
    figures["operations"] += len(history)
    figures["open"] += sum(each.outcome is Outcome.UNKNOWN for each in history)
    try:
        found = [violation for check in checks if (violation := check(history))]
    except Undecided:
        figures["undecided"] += 1
        return ""
    return "\nand ".join(map(str, found))

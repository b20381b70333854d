"""Puts the histories of a run before the checkers."""

from collections import Counter
from collections.abc import Iterable

from stress.checkers import Check
from stress.checkers.linearizability import Undecided
from stress.history import History, Outcome
from stress.stage import Stage

_UNKNOWN = "checked, outcome unknown"
"""Those of the checked operations whose callers were cut off."""

_UNDECIDED = "undecided histories"
"""Recorded, and given up: they are not among those that were checked."""

_SEVERAL = 5
"""Windows. One can go by unused while all who would work in it wait for something elsewhere."""

_LONG = "long histories"
_OF_LONG = "operations in long histories"

_LONG_ENOUGH = 20
"""Seconds of long histories: for some a stopped holder, or a busy machine, holds up everybody."""


def expect_legal(stage: Stage, *checks: Check) -> None:
    """All histories that were recorded are legal to all checks, and the long ones to those that
    the scenario has for them; the first that is not ends it. And there are some, if several windows
    came to their end in the time of the run, or long histories: none is not enough.

    The figures say how many there were, with how many operations, of how many of them nobody knows
    what came of them, and how many histories more could not be decided on. A call that failed has
    changed nothing, and is no operation that was checked; a history in which nothing else is known
    decides nothing.
    """
    if _are_legal(stage, checks):
        _are_legal_long(stage)


def _are_legal(stage: Stage, checks: tuple[Check, ...]) -> bool:
    figures = Counter({"histories": 0, "checked operations": 0, _UNKNOWN: 0, _UNDECIDED: 0})
    legal = _judge(stage, stage.windows.histories(), checks, figures)
    stage.figures |= figures
    if not stage.violations:
        _expect_some(stage, figures)
    return legal


def _are_legal_long(stage: Stage) -> None:
    """No check of theirs is given up."""
    if not stage.long_checks:
        return
    figures: Counter[str] = Counter()
    _judge(stage, stage.windows.long_histories(), stage.long_checks, figures)
    stage.figures |= {_LONG: figures["histories"], _OF_LONG: figures["checked operations"]}
    due = stage.long_due()
    stage.expect(
        figures["histories"] > 0 or due < _LONG_ENOUGH or bool(stage.violations),
        f"no long history was recorded in {due:.0f} seconds that had room for some",
    )


def _judge(
    stage: Stage,
    histories: Iterable[tuple[str, History]],
    checks: tuple[Check, ...],
    figures: Counter[str],
) -> bool:
    """Whether all are legal."""
    for key, history in histories:
        stage.latencies.look(history)
        stage.spans.look(key, history)
        if violation := _violation(history, checks, figures):
            stage.violations.insert(0, f"the history of {key}: {violation}")  # it says most
            return False
        del history  # before the next is read: one that is long fills the memory
    return True


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

"""Long histories that are illegal at their end: what is shown of them can be read."""

import random
import re
from types import SimpleNamespace
from typing import Any

import pytest

from stress.checkers import Violation
from stress.checkers.course import parts
from stress.checkers.linearizability import Undecided, flaw
from stress.checkers.models import Model
from stress.checkers.models.counter import Counter
from stress.checkers.models.held import FencedMutex
from stress.checkers.models.register import Register
from stress.history import History
from stress.judge import expect_legal
from stress.page.page import page
from stress.report import violations
from tests.histories import ok, unknown
from tests.made_runs import result, run

pytestmark = pytest.mark.suite

A, B = 98, 99
TURNS = 2_500
CLIENTS = 6


def mutex() -> History:
    """Each waits while all others have their turn; then two are inside, and it goes on."""
    history, asked = [], [0] * CLIENTS
    for turn in range(TURNS):
        who, start = turn % CLIENTS, 10 * turn
        history.append(ok(who, (asked[who], start + 1), "acquire", None, turn))
        history.append(ok(who, (start + 4, start + 6), "release"))
        asked[who] = start + 7
    end = 10 * TURNS
    history += [
        ok(A, (end, end + 3), "acquire", None, TURNS),
        ok(A, (end + 9, end + 10), "release"),
    ]
    history.append(ok(B, (end + 4, end + 6), "acquire", None, TURNS + 1))
    later = range(end + 20, end + 1_000, 10)
    history += [ok(B, (moment, moment + 1), "acquire", None, moment) for moment in later]
    history += [ok(B, (moment + 4, moment + 5), "release") for moment in later]
    return sorted(history, key=lambda operation: operation.invoked)


def register() -> History:
    """Reads, writes and swaps of three at a time, some cut off; then a read of what was before."""
    chance, value, history, free = random.Random(1), None, [], [0] * 3
    for moment in range(0, 20 * TURNS, 10):
        who = min(range(3), key=free.__getitem__)
        span = max(free[who] + 1, moment - 20), moment + chance.randrange(20)
        free[who] = span[1]
        swapped = chance.random() < 0.5
        expected = value if swapped else "other"
        function, argument, told, left = chance.choice(
            [
                ("read", None, value, value),
                ("write", moment, None, moment),
                ("cas", (expected, moment), swapped, moment if swapped else value),
            ]
        )
        value = left
        history.append(ok(who, span, function, argument, told))
    end = 20 * TURNS + 100
    history.append(ok(A, (end, end + 1), "write", "new"))
    history.append(ok(B, (end + 2, end + 3), "read", None, value))
    history += [unknown(100, 10_000, "write", "cut off")]
    return sorted(history, key=lambda operation: operation.invoked)


def counter() -> History:
    history = [
        ok(each % 8, (10 * each, 10 * each + 71), "add", 1, each + 1) for each in range(5_000)
    ]
    history[100] = unknown(100, history[100].invoked, "add", 1)
    return [*history, ok(A, (60_000, 60_001), "add", 1, 4_995)]


LONG: dict[str, tuple[Model, History]] = {
    "mutex": (FencedMutex(), mutex()),
    "register": (Register(), register()),
    "counter": (Counter(), counter()),
}

each_model = pytest.mark.parametrize(("model", "history"), LONG.values(), ids=LONG)


def found(model: Model, history: History) -> Violation:
    violation = flaw(history, model)
    assert violation is not None
    return violation


@each_model
def test_of_a_long_history_a_few_operations_are_shown(model: Model, history: History) -> None:
    """With what those before them left; they are of its end."""
    violation = found(model, history)
    assert len(history) >= 5_000
    assert len(violation.operations) <= 10
    assert violation.before >= 4_800
    assert str(violation).count("\n") <= 12
    assert f"after {violation.before:,} operations that left " in str(violation)
    assert all(each in history for each in violation.operations)


@each_model
def test_the_page_shows_few_of_a_long_history_too(model: Model, history: History) -> None:
    text = page(run(result(verdict="VIOLATED", violations=(str(found(model, history)),))))
    assert 1 <= text.count("process ") <= 10
    assert "operations that left" in text


@each_model
def test_without_what_is_wrong_a_long_history_is_legal(model: Model, history: History) -> None:
    """What happened before is no part of what is wrong."""
    wrong = {A, B}
    assert flaw([each for each in history if each.process not in wrong], model) is None


def test_a_holder_from_before_is_in_the_state_that_is_shown() -> None:
    """It wrote nothing in the part that is shown; but it lives, for it releases later."""
    turns = [
        ok(B, (10 * n + part, 10 * n + part + 1), *call)
        for n in range(100)
        for part, call in ((0, ("acquire", None, n)), (5, ("release",)))
    ]
    held, last = (
        ok(A, (1_000, 1_001), "acquire", None, 100),
        ok(B, (1_010, 1_011), "acquire", None, 101),
    )
    history = [*turns, held, last]
    (*_, shortest) = parts([*history, ok(A, (1_020, 1_021), "release")], FencedMutex())
    assert shortest.states == ((A, 100),)
    assert last in shortest.operations
    assert not list(parts(history, FencedMutex()))


def test_what_is_found_with_the_fewest_operations_is_told_first() -> None:
    """And it is told even where a search comes to no end."""

    def undecided(_: History) -> None:
        raise Undecided

    _, history = LONG["mutex"]
    long, short = Violation("long", tuple(history)), Violation("short", tuple(history[:1]))
    for first in (undecided, lambda _: long):
        stage = _stage(history)
        expect_legal(stage, first, lambda _: short)
        assert stage.violations[0].startswith("the history of turn: short")
        assert stage.figures["histories"] == 1
    assert "and long" in stage.violations[0]


def _stage(history: History) -> Any:
    ignore = SimpleNamespace(look=lambda *_: None)
    windows = SimpleNamespace(histories=lambda: [("turn", history)])
    kept: dict[str, Any] = {"violations": [], "figures": {}, "long_checks": ()}
    return SimpleNamespace(windows=windows, latencies=ignore, spans=ignore, **kept)


@pytest.mark.parametrize(("written", "where"), [(None, "--report FILE"), ("x.html", "in x.html")])
def test_a_long_violation_is_printed_in_part(written: str | None, where: str) -> None:
    """All of it is in the report."""
    long = str(Violation("all of it", tuple(LONG["mutex"][1])))
    violated = result(verdict="VIOLATED", violations=(long, "short"))
    printed = violations(5, violated, written)
    assert printed.count("\n") < 75
    assert re.search(rf"\n  and [45],\d\d\d lines more: {where}", printed)
    assert "short" in printed
    assert "lines more" in page(run(violated))

"""When the histories of a run are enough to say that all is well."""

import weakref
from pathlib import Path

import pytest

from stress import judge
from stress.checkers import Check, Violation
from stress.checkers.linearizability import Undecided
from stress.history import History, Operation, Recorder
from stress.scenarios import counter, lock
from stress.stage import Stage, Terms
from stress.windows import LENGTH
from tests.histories import ok

pytestmark = pytest.mark.suite

BEGAN = 1_000
PERIOD = 1_000_000_000
OVER = BEGAN + 4 * PERIOD + LENGTH


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """It has begun, and is over when the fifth of its windows is."""
    stage = Stage(lock, Terms(seed=1, seconds=10, histories=10), str(tmp_path), lambda _: None)
    for moment in (BEGAN, OVER):
        monkeypatch.setattr("stress.windows.now", lambda at=moment: at)
        monkeypatch.setattr("stress.stage.now", lambda at=moment: at)
        stage.enough(0) if moment > BEGAN else stage.begin()
    return stage


def record(stage: Stage) -> None:
    Recorder(stage.windows.place(0), 1).call("it", "acquire", None, lambda: 1)


def given_up(_: History) -> None:
    raise Undecided


def test_a_run_that_recorded_nothing_is_not_well(stage: Stage) -> None:
    judge.expect_legal(stage, lambda _: None)
    assert stage.violations == ["no history was decided: of 5 windows 0 were recorded and given up"]


def test_a_run_whose_histories_were_all_given_up_is_not_well(stage: Stage) -> None:
    record(stage)
    judge.expect_legal(stage, given_up)
    assert stage.violations == ["no history was decided: of 5 windows 1 were recorded and given up"]


def test_a_run_with_a_decided_history_is_well(stage: Stage) -> None:
    record(stage)
    judge.expect_legal(stage, lambda _: None)
    assert stage.violations == []


def test_a_run_that_was_over_before_several_windows_were_is_well(stage: Stage) -> None:
    stage._asked = OVER - 1
    judge.expect_legal(stage, lambda _: None)
    assert stage.violations == []


def test_a_run_that_never_began_has_no_windows(tmp_path: Path) -> None:
    stage = Stage(lock, Terms(seed=1, seconds=10), str(tmp_path), lambda _: None)
    judge.expect_legal(stage, lambda _: None)
    assert stage.violations == []


def test_what_else_was_violated_says_enough(stage: Stage) -> None:
    stage.expect(False, "a worker has ended")
    judge.expect_legal(stage, lambda _: None)
    assert stage.violations == ["a worker has ended"]


def refuse() -> None:
    raise LookupError


def test_calls_that_failed_are_no_operations_that_were_checked(stage: Stage) -> None:
    record(stage)
    with pytest.raises(LookupError):
        Recorder(stage.windows.place(0), 2).call("it", "try", None, refuse, LookupError)
    judge.expect_legal(stage, lambda _: None)
    assert (stage.figures["histories"], stage.figures["checked operations"]) == (1, 1)


def test_a_run_in_which_every_call_failed_is_not_well(stage: Stage) -> None:
    with pytest.raises(LookupError):
        Recorder(stage.windows.place(0), 1).call("it", "acquire", None, refuse, LookupError)
    judge.expect_legal(stage, lambda _: None)
    assert stage.violations == ["no history was decided: of 5 windows 0 were recorded and given up"]


def test_histories_that_were_given_up_are_told_beside_those_that_were_checked(
    stage: Stage,
) -> None:
    record(stage)
    judge.expect_legal(stage, lambda _: None)
    assert stage.figures["undecided histories"] == 0
    judge.expect_legal(stage, given_up)
    assert (stage.figures["histories"], stage.figures["undecided histories"]) == (0, 1)


@pytest.fixture
def long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """It is over, one short history was recorded, and two long ones of 10 s each were due."""
    stage = Stage(counter, Terms(seed=1, seconds=20, histories=40), str(tmp_path), lambda _: None)
    monkeypatch.setattr("stress.windows.now", lambda: BEGAN)
    stage.begin()
    stage._asked = BEGAN + 20 * 10**9
    record(stage)
    return stage


def add(stage: Stage, span: int, *numbers: int) -> None:
    """They were told to one after the other."""
    recorder = Recorder(stage.windows.place_long(span), 1)
    for number in numbers:
        recorder.call(f"hits-long-{span}", "add", 1, lambda: number)  # noqa: B023
    recorder.close()


def test_a_long_history_is_put_before_the_checks_of_its_own_alone(long: Stage) -> None:
    """A search would not come to its end."""
    seen: list[History] = []
    add(long, 0, 1, 2, 3)
    judge.expect_legal(long, seen.append)
    assert [[each.function for each in history] for history in seen] == [["acquire"]]
    assert long.violations == []


def test_what_is_illegal_in_a_long_history_is_shown_with_its_key_and_no_more(long: Stage) -> None:
    add(long, 0, *range(1, 1_001))
    add(long, 1, *range(1, 1_001), 500)
    judge.expect_legal(long, lambda _: None)
    (violation,) = long.violations
    assert violation.startswith("the history of hits-long-1: a number was given twice:\n")
    assert violation.count("process 1") == 2


def test_a_scenario_may_have_several_checks_for_its_long_histories(long: Stage) -> None:
    wrong = Violation("all is wrong", (ok(1, (0, 1), "add"),))
    checks: tuple[Check, ...] = lambda _: None, lambda _: wrong
    long.long_checks = checks
    add(long, 0, 1)
    judge.expect_legal(long, lambda _: None)
    assert "all is wrong" in long.violations[0]


def test_the_figures_of_long_histories_are_their_own(long: Stage) -> None:
    add(long, 0, 1, 2, 3)
    with pytest.raises(LookupError):
        Recorder(long.windows.place_long(0), 2).call("hits-long-0", "add", 1, refuse, LookupError)
    judge.expect_legal(long, lambda _: None)
    assert (long.figures["histories"], long.figures["checked operations"]) == (1, 1)
    assert long.figures["long histories"] == 1
    assert long.figures["operations in long histories"] == 3


def test_who_has_no_checks_for_long_histories_has_no_figures_of_them(stage: Stage) -> None:
    stage.long_checks = ()
    record(stage)
    judge.expect_legal(stage, lambda _: None)
    assert not any("long" in name for name in stage.figures)
    assert stage.violations == []


def test_a_run_that_recorded_no_long_history_is_not_well(long: Stage) -> None:
    judge.expect_legal(long, lambda _: None)
    assert long.violations == ["no long history was recorded in 20 seconds that had room for some"]


def test_a_run_in_whose_long_histories_every_call_failed_is_not_well(long: Stage) -> None:
    with pytest.raises(LookupError):
        Recorder(long.windows.place_long(0), 2).call("hits-long-0", "add", 1, refuse, LookupError)
    judge.expect_legal(long, lambda _: None)
    assert long.figures["long histories"] == 0
    assert len(long.violations) == 1


def test_a_run_that_was_over_before_a_second_long_history_was_is_well(long: Stage) -> None:
    """Nobody need have come to call anything in the time of the first one."""
    long._asked = BEGAN + 20 * 10**9 - 1
    judge.expect_legal(long, lambda _: None)
    assert long.violations == []


def test_what_else_was_violated_says_enough_of_missing_long_histories(long: Stage) -> None:
    long.expect(False, "a worker has ended")
    judge.expect_legal(long, lambda _: None)
    assert long.violations == ["a worker has ended"]


def test_a_violation_of_a_short_history_ends_it(long: Stage) -> None:
    add(long, 0, 1, 1)
    wrong = Violation("all is wrong", (ok(1, (0, 1), "acquire"),))
    judge.expect_legal(long, lambda _: wrong)
    assert len(long.violations) == 1
    assert "all is wrong" in long.violations[0]


class _Watched(list[Operation]):
    """A history that can be seen to be gone."""


def test_no_two_long_histories_are_in_memory_at_a_time(
    long: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[_Watched]] = []

    def read(place: str) -> dict[str, History]:
        assert all(each() is None for each in held), "one is still there as the next is read"
        history = _Watched([ok(1, (0, 1), "add", 1, 1)])
        held.append(weakref.ref(history))
        return {place: history}

    for span in range(3):
        add(long, span, 1)
    monkeypatch.setattr("stress.windows.read", read)
    judge.expect_legal(long, lambda _: None)
    assert long.figures["long histories"] == 3
    assert long.violations == []

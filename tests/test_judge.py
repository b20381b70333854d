"""When the histories of a run are enough to say that all is well."""

from pathlib import Path

import pytest

from stress import judge
from stress.checkers.linearizability import Undecided
from stress.history import History, Recorder
from stress.scenarios import lock
from stress.stage import Stage, Terms
from stress.windows import LENGTH

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

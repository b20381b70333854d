"""A scenario in which nothing happened does not pass."""

import queue
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import kvsync
from stress.backlog import SHORTLY
from stress.scenarios import ALL, bank, everything, hostile, power, queue_failures, recovery
from stress.stage import Skipped, Stage, Terms
from tests.in_turn import staged

pytestmark = pytest.mark.suite

_SHORTLY = {SHORTLY, queue_failures._SHORTLY}

QUEUES = ["queue", "queue_get", "queue_order", "queue_failures", "queue_transactions"]


def refusing(call: Callable[..., Any], error: type[Exception]) -> Callable[..., Any]:
    """As `call`, but it refuses who waits for a moment, as workers do."""

    def refuse(*arguments: Any, **more: Any) -> Any:
        if _SHORTLY.intersection((*arguments, *more.values())):
            raise error
        return call(*arguments, **more)

    return refuse


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_that_gives_nothing_to_its_workers_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for method in ("get", "reserve"):
        empty = refusing(getattr(kvsync.Queue, method), queue.Empty)
        monkeypatch.setattr(kvsync.Queue, method, empty)
    monkeypatch.setattr(kvsync.Queue, "tasks", lambda *_: iter(()))
    with staged(ALL[name], tmp_path) as stage:
        ALL[name].run(stage)
    assert any("nothing was done" in each for each in stage.violations), stage.violations


def _full(*_: object, **__: object) -> None:
    raise queue.Full


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_that_takes_nothing_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(kvsync.Queue, "put", refusing(kvsync.Queue.put, queue.Full))
    monkeypatch.setattr(kvsync.Queue, "put_nowait", _full)
    with staged(ALL[name], tmp_path) as stage:
        ALL[name].run(stage)
    assert any("nothing was done" in each for each in stage.violations), stage.violations


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_is_well(tmp_path: Path, name: str) -> None:
    with staged(ALL[name], tmp_path) as stage:
        ALL[name].run(stage)
    assert stage.violations == []


def _never(_: object) -> None:
    raise kvsync.AcquireTimeout("it")


def test_acts_are_counted_and_not_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everything, "_ACTS", (_never,))
    with staged(everything, tmp_path) as stage:
        everything.run(stage)
    assert stage.operations == 0
    assert stage.violations == ["nothing was done: acts stayed at 0"]


def test_transactions_that_move_nothing_are_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank, "_transfer", lambda _: None)
    with staged(bank, tmp_path) as stage:
        bank.run(stage)
    assert stage.violations == ["nothing was done: transferred stayed at 0"]


class _Disk:
    """A folder whose power is never cut."""

    def __init__(self, folder: str, _: int) -> None:
        self.folder = folder
        Path(folder).mkdir()

    def mounted(self) -> Any:
        return nullcontext()

    def cut(self) -> None:
        pass


def test_a_power_failure_before_which_nobody_wrote_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(power, "Disk", _Disk)
    monkeypatch.setattr(power, "_LONGEST", 0.0)
    monkeypatch.setattr(power, "_MOST_IN_VAIN", 4)
    with staged(power, tmp_path, seconds=0) as stage:
        monkeypatch.setattr(power, "_take_part", lambda _: None)
        power.run(stage)
    told = ", ".join(f"{promise}: acknowledged" for promise in power.WAYS[stage.way])
    assert stage.violations == [f"nothing was done: {told} stayed at 0"]


@pytest.mark.parametrize("cut", [False, True])
def test_an_error_of_the_disk_is_one_of_the_cut_only_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    def fail(*_: object) -> None:
        raise kvsync.StorageError("the disk")

    path = str(tmp_path / "disk" / "power.db")
    if cut:
        Path(power._cut(path)).touch()
    monkeypatch.setattr(power, "_write", fail)
    worker: Any = None
    with nullcontext() if cut else pytest.raises(kvsync.StorageError):
        power._live_as_child(worker, path, "power")


@pytest.mark.parametrize(
    ("case", "is_late", "is_judged"),
    [
        pytest.param(recovery.Case(0.1, 0.001), False, True, id="in time"),
        pytest.param(recovery.Case(0.2, 0.001), True, True, id="late"),
        pytest.param(recovery.Case(30.0, 0.016), True, True, id="later than the machine made it"),
        pytest.param(recovery.Case(0.16, 0.016), False, False, id="late by the machine"),
        pytest.param(recovery.Case(0.1, 5.0), False, True, id="in time on a busy machine"),
        pytest.param(recovery.Case(1.9, 0.001, 2.0), False, True, id="in time past a stopped one"),
        pytest.param(recovery.Case(2.1, 0.001, 2.0), True, True, id="late past a stopped one"),
    ],
)
def test_a_machine_excuses_no_more_than_it_took(
    case: recovery.Case, is_late: bool, is_judged: bool
) -> None:
    assert (case.counts_as_late, case.is_judged) == (is_late, is_judged)


def test_a_recovery_of_which_nothing_could_be_judged_proves_nothing(tmp_path: Path) -> None:
    stage = Stage(recovery, Terms(seed=1, seconds=1), str(tmp_path), lambda _: None)
    late, judged = recovery.Case(0.2, 0.1), recovery.Case(0.1, 0.1)
    with pytest.raises(Skipped, match="waiter, each time late by its pipes"):
        recovery._expect_judged(stage, {"holder": [late, judged], "waiter": [late, late]})
    recovery._expect_judged(stage, {"holder": [late, judged], "waiter": []})
    assert (stage.figures["judged"], stage.figures["not judged"]) == (1, 1)
    assert stage.violations == []


def test_what_else_was_violated_says_enough(tmp_path: Path) -> None:
    stage = Stage(bank, Terms(seed=1, seconds=1), str(tmp_path), lambda _: None)
    stage.expect(False, "the total has changed")
    stage.expect_some("transfers")
    assert stage.violations == ["the total has changed"]


def test_a_fault_of_a_scenario_s_own_is_told_once_it_was_used(tmp_path: Path) -> None:
    stage = Stage(hostile, Terms(seed=1, seconds=1), str(tmp_path), lambda _: None)
    assert stage.result("", "", "").faults_used == ()
    stage.enough(1)
    assert stage.result("", "", "").faults_used == ("file",)

"""Of each task one run succeeds, and everybody gets its result; no two run at the same time, a run
that fails or is killed by SIGKILL at any instant is left to the next, and of a task that is due
once in a period no two successes are closer together than that.
"""

import itertools
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import kvsync
from stress.crew import Crew, Worker
from stress.journal import UNKNOWN, acknowledged
from stress.stage import SOUND, Stage
from stress.witness import alone

UNIT = "kills"
PROCESSES = 6
NEMESES = ("kill", "stop")

_FAILS = 0.2
_RUNS_FOR = 0.002
_PER = 0.05
"""Seconds."""

_PERIODIC = 0.3
"""Of the rounds, as many are about the task that comes again."""

_ROUNDING = 1e-5
_SECOND = 1e9
_FEW = 5


class Failed(Exception):
    """What a task raises now and then."""


Task = Callable[[], Any]
Run = Callable[[kvsync.Once, Task], Any]


def _look_then_run(once: kvsync.Once, task: Task) -> Any:
    """Who comes while another runs it runs it too."""
    if once.done():
        return once.result()
    result = task()
    return once.run(lambda: result)


def _failed_is_done(once: kvsync.Once, task: Task) -> Any:
    """It was tried."""

    def attempt() -> Any:
        try:
            return task()
        except Failed:
            return None

    return once.run(attempt)


def _own_result(once: kvsync.Once, task: Task) -> Any:
    """Everybody runs it, in turn."""
    once.reset()
    return once.run(task)


def _half_a_period(once: kvsync.Once, task: Task) -> Any:
    if once.per is not None:
        once = once.store.once(once.name, per=once.per / 2)
    return once.run(task)


WAYS: dict[str, Run] = {
    SOUND: lambda once, task: once.run(task),
    "look-then-run": _look_then_run,
    "failed-is-done": _failed_is_done,
    "own-result": _own_result,
    "half-a-period": _half_a_period,
}


def _run_tasks(worker: Worker) -> None:
    values = itertools.count(worker.number * 10_000_000)
    tasks = worker.store.dict("tasks")
    while worker.going_on():
        if worker.chance.random() < _PERIODIC:
            _run_periodic(worker)
        number = tasks.get("number", 0)
        if _run(worker, f"task-{number}", next(values)):
            tasks.compare_and_set("number", number or kvsync.MISSING, number + 1)
        worker.ready()


def _run(worker: Worker, name: str, value: int) -> bool:
    """Whether it is done; then everybody notes the result."""
    task = partial(_work, worker, name, value)
    try:
        result = WAYS[worker.way](worker.store.once(name), task)
    except Failed:
        return False
    assert isinstance(result, int), f"the result of {name} is {result}"
    worker.journal.note(f"result/{name}", result)
    return True


def _work(worker: Worker, name: str, value: int) -> int:
    with alone(f"{worker.path}-witness-{name}", None):
        worker.journal.note("runs", UNKNOWN)
        time.sleep(worker.chance.uniform(0, _RUNS_FOR))
        if worker.chance.random() < _FAILS:
            worker.journal.note("failures", UNKNOWN)
            raise Failed
    return value


def _run_periodic(worker: Worker) -> None:
    """Its result is the wall time at which the run began."""
    began = WAYS[worker.way](worker.store.once("periodic", per=_PER), partial(_tell, worker))
    worker.journal.note("periodic", began)


def _tell(worker: Worker) -> int:
    with alone(f"{worker.path}-witness-periodic", None):
        began = time.time_ns()
        time.sleep(worker.chance.uniform(0, _RUNS_FOR))
        return began


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_run_tasks, stage.processes)
        crew.be_struck()
    notes = acknowledged(stage.folder)
    results = {
        label.partition("/")[2]: {*values}
        for label, values in notes.items()
        if label.startswith("result/")
    }
    with stage.open() as store:
        for name, values in results.items():
            done = store.once(name).done()
            stage.expect(done, f"{name} has a result, and is not done")
            values.update([store.once(name).result()] if done else [])
    several = [name for name, values in results.items() if len(values) > 1]
    stage.expect(not several, f"{len(several)} tasks have several results: {several[:_FEW]}")
    stage.figures |= {
        "tasks": len(results),
        "runs": len(notes["runs"]),
        "failures": len(notes["failures"]),
    }
    stage.expect_some("runs")
    _judge_runs(stage, notes, len(results), crew.killed)
    _judge_periods(stage, sorted({*notes["periodic"]}))
    stage.expect_sound_file()


def _judge_runs(stage: Stage, notes: dict[str, list[int]], tasks: int, killed: int) -> None:
    """All that ran has succeeded, failed or was killed; the last task may have no result yet."""
    left = len(notes["runs"]) - len(notes["failures"]) - tasks
    stage.expect(left <= killed + 1, f"{left} runs more than tasks, after {killed} kills")


def _judge_periods(stage: Stage, began: list[int]) -> None:
    gaps = [(later - earlier) / _SECOND for earlier, later in pairwise(began)]
    short = [gap for gap in gaps if gap < _PER - _ROUNDING]
    stage.expect(not short, f"successes came {short[:_FEW]} s after another, not {_PER} s")
    stage.figures["periods"] = len(began)

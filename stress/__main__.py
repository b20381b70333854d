"""`python -m stress`: long, hard use of kvsync by many processes.

Exit status: 0 if every invariant held, 1 if one was violated, whatever happened besides, 2 if it
cannot run here, nor any of the scenarios, 3 if something else failed, such as the writing of the
report, 130 if it was interrupted before anything was found.
"""

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from types import ModuleType

import kvsync
from stress import ground, mutants, nemeses, options, output, pages, report
from stress.record import Run, ScenarioResult
from stress.scenarios import ALL, invariant, twins
from stress.stage import Skipped, Stage, Terms

_CLEARING = 10.0
"""Seconds after which a second interrupt counts: a finalizer may have swallowed the first."""


def main(arguments: Sequence[str] | None = None, program: str = "python -m stress") -> int:
    """Run the program; returns its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if [*given[:1]] == ["mutants"]:
        from stress.mutants import command

        return command.main(given[1:], f"{program} mutants")
    asked = options.parse(given, program)
    if asked.list:
        print(_listing())
        return 0
    mutants.break_if_told()
    interrupt = Interrupt()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        facts = report.facts(ground.probe(asked.store))
    except ground.Unable as error:
        print(f"stress: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _interrupted()
    return _run_and_tell(asked, facts)


class Interrupt:
    """Ends the run at the first signal; what follows shortly does not disturb its clearing away."""

    def __init__(self) -> None:
        self._raised = -_CLEARING

    def __call__(self, *_: object) -> None:
        if time.monotonic() >= self._raised + _CLEARING:
            self._raised = time.monotonic()
            raise KeyboardInterrupt


def _interrupted() -> int:
    print("stress: interrupted", file=sys.stderr)
    return 128 + signal.SIGINT


class Ending:
    """How a run ends: `status` is 0 unless something kept it from its end, or from telling it.

    Nothing of that kind keeps it from doing the rest, for what was found is to be told.
    """

    def __init__(self) -> None:
        self.status = 0

    @contextmanager
    def withstood(self) -> Iterator[None]:
        """Go on behind the block, whatever it raises; what that was first is the status."""
        try:
            yield
        except KeyboardInterrupt:
            self.status = self.status or _interrupted()
        except Exception as error:
            self.status = self.status or _failed(error)


def _failed(error: Exception) -> int:
    own = not isinstance(error, OSError | kvsync.KvsyncError)
    what = "".join(traceback.format_exception(error)) if own else f"{error}\n"
    print(f"stress: did not come to its end: {what}", end="", file=sys.stderr)
    return output.FAILED


def _listing() -> str:
    return "\n".join(f"{name}: {_described(scenario)}" for name, scenario in ALL.items())


def _described(scenario: ModuleType) -> str:
    broken = ", ".join(twins(scenario))
    slow = "slow; " if getattr(scenario, "SLOW", False) else ""
    faults = ", ".join(nemeses.borne(scenario) + nemeses.own(scenario)) or "none"
    facts = f"counts {scenario.UNIT}; {scenario.PROCESSES} processes; faults: {faults}"
    return f"{invariant(scenario)}\n    {slow}{facts}; twins: {broken}"


def _run_and_tell(asked: argparse.Namespace, facts: dict[str, str]) -> int:
    command, began = options.command(asked), time.monotonic()
    run = Run(command, asked.seed, report.date(), 0, facts, (), asked.mutants)
    ending = Ending()
    with ending.withstood(), closing(_results(asked)) as results:
        print(report.header(run), flush=True)
        for result in results:
            run = replace(run, scenarios=(*run.scenarios, result))
            print(report.violations(asked.seed, result, asked.report), end="", flush=True)
    with ending.withstood():
        report.show("")
        print(report.summary(run.scenarios, asked.left_out), flush=True)
    with ending.withstood():
        if asked.report:
            pages.write(asked.report, replace(run, seconds=time.monotonic() - began))
    _let_go_of_a_screen_that_takes_nothing()
    return _status(run.scenarios, ending.status)


def _let_go_of_a_screen_that_takes_nothing() -> None:
    """Else Python would try once more as it ends, and put another exit status in our place."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _status(results: Sequence[ScenarioResult], ended: int) -> int:
    """What was violated is violated, whatever ended the run."""
    if any(result.violations for result in results):
        return 1
    if ended:
        return ended
    return 2 if all(result.skipped for result in results) else 0


def _results(asked: argparse.Namespace) -> Generator[ScenarioResult]:
    """One after the other. Raises: KeyboardInterrupt, after the one that was interrupted."""
    for number, name in enumerate(asked.scenario, 1):
        with ground.folder(asked.store) as folder:
            result = _run(name, number, asked, folder)
            report.finished(number, len(asked.scenario), result)
            yield result  # before its folder is removed, which may fail
        if result.skipped == report.INTERRUPTED:
            raise KeyboardInterrupt


def _run(name: str, number: int, asked: argparse.Namespace, folder: str) -> ScenarioResult:
    scenario, seconds = ALL[name], options.seconds(asked)
    terms = Terms(
        asked.seed,
        seconds,
        asked.processes,
        getattr(asked, scenario.UNIT),
        asked.ops,
        asked.nemesis,
        asked.twin,
        asked.histories,
    )
    total = len(asked.scenario)
    show = partial(report.progress, number, total, (total - number) * seconds)
    stage = Stage(scenario, terms, folder, show)
    if refused := options.not_borne(asked, name):
        stage.remarks.append(f"it does not bear {', '.join(refused)}")
    skipped = _perform(scenario, stage)
    return stage.result(invariant(scenario), skipped, options.command_for(asked, name))


def _perform(scenario: ModuleType, stage: Stage) -> str:
    """Why it did not run, or not to its end; empty if it did."""
    try:
        if nemeses.borne(scenario) and not stage.nemeses:
            raise Skipped(f"it needs the nemesis {' or '.join(nemeses.borne(scenario))}")
        scenario.run(stage)
    except Skipped as reason:
        return str(reason)
    except KeyboardInterrupt:
        return report.INTERRUPTED
    except Exception:
        stage.expect(False, traceback.format_exc())
    return ""


if __name__ == "__main__":
    sys.exit(main())

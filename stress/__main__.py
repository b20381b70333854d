"""`python -m stress`: long, hard use of kvsync by many processes.

Exit status: 0 if every invariant held, 1 if one was violated, 2 if it cannot run here, nor any of
the scenarios.
"""

import argparse
import random
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import kvsync
from kvsync.engine.sqlite import Health
from stress import report
from stress.scenarios import ALL, invariant, twins
from stress.stage import HISTORIES, SOUND, Outcome, Skipped, Stage, Terms

_HISTORIES = "windows in which each scenario records one to be checked (default: %(default)s)"

DEFAULT = [name for name, scenario in ALL.items() if not getattr(scenario, "SLOW", False)]
"""Those that run when none is named."""

UNITS = sorted({scenario.UNIT for scenario in ALL.values()})


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _options(given)
    if options.list:
        print(_listing())
        return 0
    options.seed = random.randrange(2**32) if options.seed is None else options.seed
    try:
        print(report.header(options.seed, _command(given, options.seed), _probe(options.store)))
    except (OSError, kvsync.KvsyncError) as error:
        print(f"stress: cannot run here: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run_all(options)
    except KeyboardInterrupt:
        print("stress: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _options(given: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(given)
    options.scenario = options.scenario or DEFAULT
    for name in options.scenario:
        if options.twin not in ALL[name].WAYS:
            parser.error(f"{name} has no twin {options.twin!r}, but: {', '.join(twins(ALL[name]))}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m stress", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--list", action="store_true", help="say what there is, and do nothing")
    add(
        "--scenario",
        action="append",
        choices=ALL,
        help="only this one; may be repeated (default: all but those marked as slow)",
    )
    add("--seed", type=int, help="of all that is random here")
    add("--minutes", type=_positive, default=1.0, help="for all scenarios together (default: 1)")
    add("--seconds", type=_positive, help="for each scenario, instead of --minutes")
    for unit in UNITS:
        of = ", ".join(name for name, scenario in ALL.items() if unit == scenario.UNIT)
        add(f"--{unit}", type=_count, metavar="N", help=f"go on until there were N {unit}: {of}")
    add("--processes", type=_count, metavar="N", help="that write in each scenario")
    add("--histories", type=_count, default=HISTORIES, metavar="N", help=_HISTORIES)
    add("--store", metavar="PATH", help="folder in which the stores are made")
    add("--twin", default=SOUND, help="run a broken twin (see --list), which must be caught")
    return parser


def _positive(text: str) -> float:
    if (number := float(text)) <= 0:
        raise ValueError
    return number


def _count(text: str) -> int:
    return int(_positive(str(int(text))))


def _listing() -> str:
    return "\n".join(f"{name}: {_described(scenario)}" for name, scenario in ALL.items())


def _described(scenario: ModuleType) -> str:
    broken = ", ".join(twins(scenario))
    slow = "slow; " if getattr(scenario, "SLOW", False) else ""
    facts = f"{slow}counts {scenario.UNIT}; {scenario.PROCESSES} processes; twins: {broken}"
    return f"{invariant(scenario)}\n    {facts}"


def _command(given: Sequence[str], seed: int) -> str:
    chosen = any(each.split("=")[0] == "--seed" for each in given)
    return shlex.join(
        ["python", "-m", "stress", *given, *([] if chosen else ["--seed", str(seed)])]
    )


@contextmanager
def _folder(parent: str | None) -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="kvsync-stress-", dir=parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _probe(parent: str | None) -> Health:
    """Raises: OSError and KvsyncError where no store can be."""
    with _folder(parent) as folder, kvsync.open(Path(folder) / "probe.db") as store:
        return store.check()


def _run_all(options: argparse.Namespace) -> int:
    seconds = options.seconds or options.minutes * 60 / len(options.scenario)
    outcomes = [_run(ALL[name], options, seconds) for name in options.scenario]
    report.show("")
    print(report.table(outcomes))
    print(report.sums(outcomes))
    print(report.remarks(outcomes), end="")
    print(report.violations(outcomes), end="")
    if any(outcome.violations for outcome in outcomes):
        return 1
    return 2 if all(outcome.skipped for outcome in outcomes) else 0


def _run(scenario: ModuleType, options: argparse.Namespace, seconds: float) -> Outcome:
    goal = getattr(options, scenario.UNIT)
    terms = Terms(options.seed, seconds, options.processes, goal, options.twin, options.histories)
    with _folder(options.store) as folder:
        stage = Stage(scenario, terms, folder, report.show)
        skipped = ""
        try:
            scenario.run(stage)
        except Skipped as reason:
            skipped = str(reason)
        except Exception:
            stage.expect(False, traceback.format_exc())
        return Outcome(
            stage.name,
            stage.elapsed,
            stage.figures,
            tuple(stage.remarks),
            tuple(stage.violations),
            skipped,
        )


if __name__ == "__main__":
    sys.exit(main())

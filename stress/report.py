"""What the program prints: how to repeat it, what it is doing, the table at the end."""

import os
import platform
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import psutil

import kvsync
from kvsync.engine.sqlite import Health
from stress import version
from stress.checkers.display import beginning
from stress.record import Matrix, Run, ScenarioResult
from stress.stage import Stage

_FEW = 5


INTERRUPTED = "interrupted"
"""Why a scenario has no verdict that somebody ended."""

_EVERY = 0.1
"""Seconds from one line of progress to the next, on a terminal."""

EVERY_IN_A_FILE = 60.0
"""There each stays."""


def facts(health: Health) -> dict[str, str]:
    """What the figures depend on."""
    bug = " (has the WAL-reset bug)" if health.has_wal_reset_bug else ""
    return {
        **surroundings(),
        "SQLite": f"{sqlite3.sqlite_version}{bug}",
        "kvsync": kvsync.__version__,
        "code": version.told(),
        "file system": health.filesystem,
    }


def surroundings() -> dict[str, str]:
    """What all programs run in."""
    memory = psutil.virtual_memory().total / (1 << 30)
    return {
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "machine": f"{os.cpu_count()} CPUs, {memory:.1f} GB of memory",
    }


def date() -> str:
    """Of now, as a record has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def header(run: Run | Matrix) -> str:
    """All that one needs to repeat a run."""
    return listed({"seed": run.seed, **run.facts, "repeat with": run.command})


def listed(told: Mapping[str, object]) -> str:
    """A line for each fact."""
    return "\n".join(f"{name + ':':13}{fact}" for name, fact in told.items())


class _Pace:
    """When the line of progress was last shown."""

    shown = time.monotonic()


def progress(number: int, total: int, rest: float, stage: Stage) -> None:
    """How far a run is, in its scenario of that number, with `rest` seconds for those after it."""
    every, say = (_EVERY, show) if sys.stderr.isatty() else (EVERY_IN_A_FILE, _tell)
    if time.monotonic() >= _Pace.shown + every:
        _Pace.shown = time.monotonic()
        left = "" if stage.left is None else f", {stage.left + rest:.0f} s left"
        done = f"{stage.operations:,} operations, {_struck(stage.strikes)}"
        violated = f"{len(stage.violations)} violations"
        say(f"{number}/{total} {stage.name}: {done}, {violated}{left}")


def _struck(strikes: Mapping[str, int]) -> str:
    """ "12 kills, 3 stops"."""
    return ", ".join(f"{strikes.get(kind, 0):,} {kind}s" for kind in {"kill": 0, **strikes})


def show(text: str) -> None:
    """The one line that says how far we are; only a terminal sees it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def finished(number: int, total: int, result: ScenarioResult) -> None:
    """A line for each scenario, to be followed in a file; a terminal has seen its progress."""
    if not sys.stderr.isatty():
        _tell(f"{number}/{total} {result.name} {result.verdict} {result.seconds:.1f} s")


def _tell(line: str) -> None:
    with suppress(OSError):  # nobody reads it any more, which changes no verdict
        print(line, file=sys.stderr, flush=True)


def summary(results: Sequence[ScenarioResult], left_out: Sequence[str] = ()) -> str:
    """What is printed at the end, the verdict last, for who sees but one screen of it."""
    return f"{table(results)}\n{remarks(results)}{_omissions(left_out)}{sums(results)}"


def _omissions(left_out: Sequence[str]) -> str:
    """Which scenarios nobody should take to have run."""
    if not left_out:
        return ""
    how = " ".join(f"--scenario {name}" for name in left_out)
    return f"left out, for it takes long: {', '.join(left_out)} (run it with {how})\n"


def table(results: Iterable[ScenarioResult]) -> str:
    """A line for each scenario."""
    rows = [("scenario", "outcome", "seconds", "faults", "figures"), *map(_row, results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_aligned(row, widths) for row in rows)


def remarks(results: Iterable[ScenarioResult]) -> str:
    """What the scenarios say beside their figures."""
    lines = [(result.name, remark) for result in results for remark in result.remarks]
    return "".join(f"\n{name}: {remark}" for name, remark in lines) + "\n\n" * bool(lines)


def sums(results: Sequence[ScenarioResult]) -> str:
    """How many scenarios came to what; what was skipped proves nothing, and is counted too.

    And each that did not hold, and how to see that again.
    """
    counts = Counter(result.verdict for result in results)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("ok", "VIOLATED", "SKIPPED"))
    violated = (result for result in results if result.violations)
    return told + "".join(f"\n{each.name} VIOLATED: {each.repeat}" for each in violated)


def violations(seed: int, result: ScenarioResult, written: str | None) -> str:
    """What was found wrong, the first of it, and how to see it again; empty if nothing was."""
    if not result.violations:
        return ""
    show("")
    found = "".join(
        f"\n{result.name}: {_shortened(each, written)}\n" for each in result.violations[:_FEW]
    )
    return f"{found}\n{result.name}: seed {seed}, repeat with: {result.repeat}\n"


def _shortened(violation: str, written: str | None) -> str:
    first, more = beginning(violation)
    if not more:
        return "\n".join(first)
    where = f"in {written}" if written else "--report FILE writes them too"
    return "\n".join([*first, f"  and {len(more):,} lines more: {where}"])


def _row(result: ScenarioResult) -> tuple[str, ...]:
    figures = ", ".join(f"{name} {figure:,}" for name, figure in result.figures.items())
    faults = ", ".join(result.faults_used) or "none"
    told = result.skipped or figures
    return result.name, result.verdict, f"{result.seconds:.1f}", faults, told


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    name, verdict, seconds, faults, figures = row
    start = f"{name:{widths[0]}}  {verdict:{widths[1]}}  {seconds:>{widths[2]}}"
    return f"{start}  {faults:{widths[3]}}  {figures}"

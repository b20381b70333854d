"""What the program prints: how to repeat it, what it is doing, the table at the end."""

import os
import platform
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

import kvsync
from kvsync.engine.sqlite import Health
from stress.stage import Outcome

_FEW = 5


def header(seed: int, command: str, health: Health) -> str:
    """All that one needs to repeat a run."""
    bug = " (has the WAL-reset bug)" if health.has_wal_reset_bug else ""
    facts = {
        "seed": seed,
        "Python": f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} CPUs",
        "SQLite": f"{sqlite3.sqlite_version}{bug}",
        "kvsync": kvsync.__version__,
        "file system": health.filesystem,
        "repeat with": command,
    }
    return "\n".join(f"{name + ':':13}{fact}" for name, fact in facts.items())


def show(text: str) -> None:
    """The one line that says how far we are; only a terminal sees it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def table(outcomes: Iterable[Outcome]) -> str:
    """A line for each scenario."""
    rows = [("scenario", "outcome", "seconds", "figures"), *map(_row, outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_aligned(row, widths) for row in rows)


def remarks(outcomes: Iterable[Outcome]) -> str:
    """What the scenarios say beside their figures."""
    lines = [(outcome.name, remark) for outcome in outcomes for remark in outcome.remarks]
    return "".join(f"\n{name}: {remark}" for name, remark in lines) + "\n" * bool(lines)


def sums(outcomes: Iterable[Outcome]) -> str:
    """How many scenarios came to what; what was skipped proves nothing, and is counted too."""
    counts = Counter(map(_verdict, outcomes))
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("ok", "VIOLATED", "SKIPPED"))


def violations(outcomes: Iterable[Outcome]) -> str:
    """What was found wrong, the first few of each scenario."""
    return "".join(
        f"\n{outcome.name}: {violation}\n"
        for outcome in outcomes
        for violation in outcome.violations[:_FEW]
    )


def _row(outcome: Outcome) -> tuple[str, str, str, str]:
    figures = ", ".join(f"{name} {figure:,}" for name, figure in outcome.figures.items())
    return outcome.name, _verdict(outcome), f"{outcome.seconds:.1f}", outcome.skipped or figures


def _verdict(outcome: Outcome) -> str:
    if outcome.violations:
        return "VIOLATED"
    return "SKIPPED" if outcome.skipped else "ok"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    name, verdict, seconds, figures = row
    return f"{name:{widths[0]}}  {verdict:{widths[1]}}  {seconds:>{widths[2]}}  {figures}"

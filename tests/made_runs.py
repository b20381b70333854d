"""Runs of the stress suite that never were, for the tests of its report."""

import random
from collections.abc import Iterator

from stress.record import (
    Books,
    Fault,
    Latency,
    Matrix,
    MutantRow,
    Rate,
    Run,
    ScenarioResult,
    Span,
)

BOOT = 10**12
FACTS = {"Python": "3.12.1", "SQLite": "3.40.1", "file system": "ext4"}
HOSTILE = "</style></svg><script>alert(1)</script>\"'&\x00\x1b[31m\u202e\udc80" + "x" * 3000


def result(name: str = "lock", **parts: object) -> ScenarioResult:
    """A scenario that held, of which nothing was recorded."""
    given = {
        "invariant": "No two are inside.",
        "primitives": ("lock",),
        "faults_used": ("kill",),
        "verdict": "ok",
        "seconds": 4.2,
        "processes": 6,
    }
    return ScenarioResult(name, **(given | parts))  # type: ignore[arg-type]


def run(*scenarios: ScenarioResult, matrix: Matrix | None = None) -> Run:
    command = "python -m stress --seed 7"
    return Run(command, 7, "2026-01-02T03:04:05Z", 61.0, FACTS, scenarios, matrix)


def full(processes: int = 6, stays: int = 3000) -> ScenarioResult:
    """One of which everything was recorded."""
    spans = tuple(_spans(processes, stays))
    end = max(span.ended or span.began for span in spans)
    return result(
        processes=processes,
        figures={"kills": 20, "turns": stays, "checked operations": 8841},
        remarks=("It was looked at for long.",),
        repeat="python -m stress --scenario lock --seed 7",
        books=Books(12345, 0, 17, 2, 2, 3),
        faults=tuple(_faults(processes, end)),
        spans=spans,
        latencies=(
            Latency("acquire", stays, {0.5: 1e-4, 0.9: 3e-4, 0.99: 2e-3, 1.0: 0.4}),
            Latency("release", stays, {0.5: 5e-5, 0.99: 1e-4, 1.0: 1e-2}),
        ),
        rate=Rate(BOOT, 0.1, tuple(200 + place % 7 for place in range((end - BOOT) // 10**8 + 1))),
    )


def matrix(*caught: bool | None) -> Matrix:
    """One broken twin, and what each of as many scenarios made of it."""
    names = tuple(f"scenario {place}" for place in range(len(caught)))
    row = MutantRow("no-reap", "The dead are not reaped.", dict(zip(names, caught, strict=True)), 3)
    return matrix_of(names, row)


def matrix_of(scenarios: tuple[str, ...], *rows: MutantRow) -> Matrix:
    command = "python -m stress mutants --seed 8"
    return Matrix(scenarios, rows, command, 8, "2026-01-03T04:05:06Z", FACTS)


def _spans(processes: int, stays: int) -> Iterator[Span]:
    chance = random.Random(7)
    began = BOOT
    for place in range(stays):
        ended = began + chance.randrange(200_000, 4_000_000)
        refused = (ended - 1000,) if place % 40 == 5 else ()
        process = chance.randrange(processes)
        yield Span(
            "nightly", process, 2**40 + place, began, None if place % 50 == 9 else ended, refused
        )
        began = ended + chance.randrange(100_000)


def _faults(processes: int, end: int) -> Iterator[Fault]:
    chance = random.Random(8)
    for _ in range(200):
        at = chance.randrange(BOOT, end)
        yield Fault("kill", chance.randrange(processes), at)
        yield Fault("stop", chance.randrange(processes), at, at + 5_000_000)
    yield Fault("something new", 0, BOOT + 1)

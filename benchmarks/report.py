"""What a run found: tables, targets, and both as Markdown and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.rounds import Measured, Spread


@dataclass(frozen=True)
class Table:
    """Rows of text under headings."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return f"### {self.title}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in lines)


@dataclass(frozen=True)
class Target:
    """A figure that is to be reached. `found` is None where this run did not measure it."""

    what: str
    bound: float
    found: Spread | None
    at_most: bool = False

    @property
    def verdict(self) -> str:
        """ "reached", "MISSED", or "not measured"."""
        if self.found is None:
            return "not measured"
        margin = self.found.median - self.bound
        return "reached" if (margin <= 0 if self.at_most else margin >= 0) else "MISSED"

    def row(self) -> list[str]:
        sign = "<=" if self.at_most else ">="
        found = "" if self.found is None else figure(self.found)
        return [self.what, f"{sign} {self.bound:g}", found, self.verdict]


@dataclass
class Report:
    """Everything that one benchmark found."""

    name: str
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    measured: dict[str, Measured] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def show(self, *tables: Table) -> None:
        """Keep them, and print them at once: who ends a long run has what it has found so far."""
        self.tables += tables
        for table in tables:
            print(table.markdown(), end="\n\n", flush=True)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "measured": {
                what: [asdict(each) for each in side.rounds] for what, side in self.measured.items()
            },
            "skipped": self.skipped,
            "targets": [
                {
                    "what": target.what,
                    "bound": target.bound,
                    "at_most": target.at_most,
                    "found": None if target.found is None else asdict(target.found),
                    "verdict": target.verdict,
                }
                for target in self.targets
            ],
        }


def opening(machine: Mapping[str, str], method: str) -> str:
    """What stands above all tables."""
    facts = "\n".join(f"- {name}: `{value}`" for name, value in machine.items())
    return f"{facts}\n\n{method}"


def targets(reports: Sequence[Report]) -> Table:
    """Each target, and what was found of it."""
    rows = [target.row() for report in reports for target in report.targets]
    return Table("Targets", ["target", "to reach", "found", ""], rows)


def figure(spread: Spread, unit: str = "") -> str:
    """A median with its spread, to three digits."""
    return f"{number(spread.median)}{unit} ({number(spread.low)}..{number(spread.high)})"


def number(value: float) -> str:
    """Three digits, thousands set apart."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def latencies(title: str, measured: Mapping[str, Measured]) -> Table:
    """How long each side took."""
    rows = [
        [name, milliseconds(side.p50), milliseconds(side.p99), milliseconds(side.worst)]
        for name, side in measured.items()
    ]
    return Table(title, ["side", "p50", "p99", "worst"], rows)


def milliseconds(spread: Spread) -> str:
    """Seconds shown as milliseconds."""
    return figure(spread.times(1e3), " ms")


def microseconds(spread: Spread) -> str:
    """Seconds shown as microseconds."""
    return figure(spread.times(1e6), " µs")

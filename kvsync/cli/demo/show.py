"""What is seen of the demo: bars on a terminal, a few lines elsewhere, nothing with --json."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kvsync.cli import tables
from kvsync.cli.demo.accounts import Accounts
from kvsync.cli.demo.acts import Check
from kvsync.cli.demo.crew import Crew, Member

_STYLES = {"killed": "bold red", "ended": "green", "running": "cyan"}


class Show(Protocol):
    """Told of everything as it happens."""

    def of(self, crew: Crew, /) -> AbstractContextManager[Any]:
        """Lasts as long as the processes do."""

    def started(self) -> None:
        """All processes are there, and begin."""

    def tick(self) -> None:
        """Something may have changed."""

    def killed(self, victim: Member) -> None: ...

    def verdict(self, crew: Crew, accounts: Accounts, checks: Sequence[Check]) -> None: ...


class Nothing:
    """For programs, which get the report in the end."""

    def of(self, _: Crew) -> AbstractContextManager[Any]:
        return nullcontext()

    def started(self) -> None: ...

    def tick(self) -> None: ...

    def killed(self, victim: Member) -> None: ...

    def verdict(self, crew: Crew, accounts: Accounts, checks: Sequence[Check]) -> None: ...


class Lines(Nothing):
    """For pipes and logs."""

    def __init__(self) -> None:
        self._console = tables.console()

    def of(self, crew: Crew, /) -> AbstractContextManager[Any]:
        self._print(f"{crew.size.processes} processes share one store (seed {crew.size.seed})")
        return nullcontext()

    def started(self) -> None:
        self._print("all are ready, and start at once")

    def killed(self, victim: Member) -> None:
        when = f"while it holds {victim.held}" if victim.dies_in else "half way"
        self._print(f"process {victim.number} gets SIGKILL {when} (pid {victim.process.pid})")

    def verdict(self, crew: Crew, accounts: Accounts, checks: Sequence[Check]) -> None:
        rate = crew.total / crew.elapsed
        self._print(f"{crew.total:,} operations in {crew.elapsed:.1f} s, {rate:,.0f} a second")
        self._print("")
        tables.show(_headings(), [_row(check) for check in checks])
        self._print("")
        self._print(_about_the_killed(crew, accounts), "dim")
        self._print(*_conclusion(checks))

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style)


class Bars(Lines):
    """For terminals: a line for each process, moving."""

    def of(self, crew: Crew, /) -> AbstractContextManager[Any]:
        super().of(crew)
        self._print("")
        return Live(
            console=self._console,
            get_renderable=lambda: _picture(crew),
            refresh_per_second=12,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def started(self) -> None:
        """Its line says so, for each process."""

    def killed(self, victim: Member) -> None:
        """Its line says so."""

    def verdict(self, crew: Crew, accounts: Accounts, checks: Sequence[Check]) -> None:
        self._print("")
        super().verdict(crew, accounts, checks)


def _picture(crew: Crew) -> RenderableType:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True, min_width=7)
    grid.add_column(no_wrap=True, min_width=8)
    most = max(1, *(member.total for member in crew.members))
    for member in crew.members:
        grid.add_row(*_line(member, most))
    return Group(grid, Text(""), _whole(crew))


def _line(member: Member, most: int) -> tuple[RenderableType, ...]:
    style = _STYLES.get(member.state, "dim")
    bar = ProgressBar(
        total=most, completed=member.total, complete_style=style, finished_style=style
    )
    state = "SIGKILL" if member.state == "killed" else member.state
    return f"process {member.number}", bar, f"{member.total:,}", Text(state, style)


def _whole(crew: Crew) -> RenderableType:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True, min_width=16)
    done = crew.progress if crew.began else 0.0
    bar = ProgressBar(total=1.0, completed=done, complete_style="magenta")
    grid.add_row("together ", bar, f"{crew.total:,} operations")
    return grid


def _headings() -> Table:
    return tables.table("", "expected", "found", " ", right=("expected", "found"), keep=(" ",))


def _row(check: Check) -> list[tables.Cell]:
    found = f"{check.found:,}" if isinstance(check.found, int) else check.found
    sign, style = tables.MARKS["ok" if check.ok else "problem"]
    return [check.what, str(check.expected), found, Text(sign, style)]


def _about_the_killed(crew: Crew, accounts: Accounts) -> str:
    victim = crew.victim
    about = (
        f"Expected is what the processes acknowledged, one by one, outside the store. Process"
        f" {victim.number} was killed after {victim.total:,} operations; whether its next one"
        f" ({accounts.in_flight}) was already in the store cannot be known, hence the range."
    )
    if crew.holders:
        *inside, last = [f"{each.number} ({each.held})" for each in crew.holders]
        processes = f"Processes {', '.join(inside)} and" if inside else "Process"
        were = "were" if inside else "was"
        about += f" {processes} {last} {were} killed with that in hand."
    return about


def _conclusion(checks: Sequence[Check]) -> tuple[str, str]:
    wrong = [check.what for check in checks if not check.ok]
    if wrong:
        return f"NOT as expected: {'; '.join(wrong)}", "bold red"
    return "Everything is as expected: nothing was lost, nothing counted twice.", "bold green"

"""Tables for people."""

import sys
from collections.abc import Callable, Iterable, Sequence

import click
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from kvsync.printable import printable

_AS_WIDE_AS_IT_TAKES = 100_000

_GAP = 3
"""Characters between two columns."""

_ALIGNED = 80
"""Characters of the longest cells in a pipe that stand in columns: no row is padded for others."""

_LEAST = 12
"""Characters of a long cell that a terminal shows, though other cells must be folded for it."""

_SAYING = 30
"""Characters of a long cell for which spare columns go."""

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "bold red")}
"""How each state of a check looks: its sign and its style."""

Cell = str | Text
Names = Sequence[str]


def console() -> Console:
    """Stdout. A pipe gets its lines in full, a terminal as they fit. No markup in values."""
    width = None if sys.stdout.isatty() else _AS_WIDE_AS_IT_TAKES
    return Console(markup=False, emoji=False, highlight=False, width=width)


def table(*headings: str, right: Names = (), cut: Names = (), keep: Names = ()) -> Table:
    """An empty table.

    Args:
        right: the columns of numbers.
        cut: the columns that end in an ellipsis where the terminal does.
        keep: the columns that stay whole.
    """
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for heading in headings:
        made.add_column(
            Text(printable(heading)),
            justify="right" if heading in right else "left",
            no_wrap=heading in cut or heading in keep,
            overflow="ellipsis" if heading in cut else "fold",
        )
    return made


def filled(headings: Names, rows: Iterable[Names]) -> list[Names]:
    """The columns in which a row has anything, each with its heading first."""
    return [each for each in zip(headings, *rows, strict=True) if any(each[1:])]


def narrowed(
    columns: Sequence[Names], heading: str, shorten: Callable[[str, int], str]
) -> list[Names]:
    """The same, that column's cells shortened to what the others leave of the terminal."""
    left = _room() - wide([each for each in columns if each[0] != heading]) - _GAP
    return [
        [heading, *(shorten(cell, max(_LEAST, left)) for cell in each[1:])]
        if each[0] == heading
        else each
        for each in columns
    ]


def without(columns: Sequence[Names], spare: Names, *, long: str = "") -> list[Names]:
    """Those of the columns that the terminal has room for: the spare ones go first, in order.

    Of the `long` one, which can be cut, so much is to be seen that it says something.
    """
    for heading in spare:
        if wide(_each_up_to(_SAYING, long, columns)) > _room():
            columns = [each for each in columns if each[0] != heading]
    return list(columns)


def _each_up_to(length: int, heading: str, columns: Sequence[Names]) -> list[Names]:
    return [[c[:length] for c in each] if each[0] == heading else each for each in columns]


def _room() -> int:
    return console().width if sys.stdout.isatty() else sys.maxsize


def wide(columns: Iterable[Names]) -> int:
    """Characters that a table of these columns takes."""
    return sum(max(map(len, each)) + _GAP for each in columns)


def show(made: Table, rows: Iterable[Sequence[Cell]]) -> None:
    """Print a table with these rows."""
    (_draw if sys.stdout.isatty() else _write)(made, rows)


def _draw(made: Table, rows: Iterable[Sequence[Cell]]) -> None:
    screen = console()
    for row in rows:
        made.add_row(
            *(_fitted(cell, column, screen) for column, cell in zip(made.columns, row, strict=True))
        )
    screen.print(made)


def _fitted(cell: Cell, column: Column, screen: Console) -> Text:
    """Safe to print, and no longer than can be seen of it: a value may have megabytes."""
    if isinstance(cell, Text):
        return cell
    return Text(printable(cell[: screen.width + 1] if column.no_wrap else cell))


def _write(made: Table, rows: Iterable[Sequence[Cell]]) -> None:
    """Each cell in full; a long one moves what is behind it, and no other row."""
    lines = [[str(column.header) for column in made.columns]]
    lines += [
        [str(cell) if isinstance(cell, Text) else printable(cell) for cell in r] for r in rows
    ]
    columns = [[_width(cell) for cell in cells] for cells in zip(*lines, strict=True)]
    widths = [max((w for w in each if w <= _ALIGNED), default=_ALIGNED) for each in columns]
    rule = "─" if sys.stdout.encoding.lower().startswith("utf") else "-"
    head, *body = (_line(made, line, widths) for line in lines)
    between = rule * (sum(widths) + _GAP * (len(widths) - 1))
    click.echo("\n".join([head, between, *body]))


def _width(cell: str) -> int:
    """Of a long one, that it is long."""
    return cell_len(cell[: _ALIGNED + 1])


def _line(made: Table, cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = []
    for column, cell, width in zip(made.columns, cells, widths, strict=True):
        padding = " " * (width - _width(cell))
        padded.append(padding + cell if column.justify == "right" else cell + padding)
    return (" " * _GAP).join(padded).rstrip(" ")


def mark(state: str) -> Text:
    """The sign of a check's state, one of `MARKS`."""
    sign, style = MARKS[state]
    return Text(f"{sign} {state}", style)


def size(count: int) -> str:
    """Bytes as people read them: "4.2 MB"."""
    if count < 1000:
        return f"{count} B"
    amount, units = float(count), iter(("kB", "MB", "GB"))
    unit = ""
    while amount >= 999.95 and (next_unit := next(units, "")):
        amount, unit = amount / 1000, next_unit
    return f"{amount:.1f} {unit}"


def counted(count: int, one: str, many: str) -> str:
    """ "1 entry", "2 entries"."""
    return f"{count:,} {one if count == 1 else many}"

"""`python -m stress mutants`: shows that the suite catches every broken twin of kvsync.

Each mutant runs under the scenarios that are to catch it, in turn and with other seeds, until one
of them does. Before that, the same scenarios run on kvsync as it is, and must find nothing. Exit
status: 0 if all was as it should be, 1 if a mutant was not caught (a hole in the suite) or a
scenario complains of kvsync itself, 2 if it cannot run here or there was nothing to run, 3 if what
was asked for could not be written.
"""

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from stress import ground, output, report
from stress.mutants.catalogue import ALL
from stress.mutants.cells import OK, SKIPPED, VIOLATED, Cell
from stress.mutants.kept import Kept
from stress.mutants.mutant import Mutant
from stress.record import Matrix, MutantRow
from stress.scenarios import ALL as SCENARIOS

CHANCES = (4.0, 8.0, 16.0)
"""Seconds of a scenario, in the first round of all that are to catch a mutant, and in others."""

_LAYOUT = "{:26} {:24} {:>6} {:>7}  {}"


@dataclass
class Trial:
    """One mutant, and the cells that it ran in."""

    mutant: Mutant
    cells: list[Cell] = field(default_factory=list)

    @property
    def catch(self) -> Cell | None:
        """The first that caught it."""
        return next((cell for cell in self.cells if cell.verdict == VIOLATED), None)

    @property
    def was_tried(self) -> bool:
        return any(cell.verdict != SKIPPED for cell in self.cells)

    @property
    def chances(self) -> int:
        """How often the scenario that caught it had to run."""
        catch = self.catch
        return sum(catch is not None and cell.scenario == catch.scenario for cell in self.cells)

    def row(self, scenarios: Iterable[str]) -> MutantRow:
        caught = {name: self._caught_by(name) for name in scenarios}
        seconds = self.catch.seconds if self.catch else sum(cell.seconds for cell in self.cells)
        return MutantRow(self.mutant.name, self.mutant.broken, caught, round(seconds, 1))

    def _caught_by(self, scenario: str) -> bool | None:
        verdicts = {cell.verdict for cell in self.cells if cell.scenario == scenario} - {SKIPPED}
        return VIOLATED in verdicts if verdicts else None


def main(given: Sequence[str], program: str) -> int:
    """Run the program; returns its exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = _parser(program).parse_args(given)
    mutants = [ALL[name] for name in options.only or ALL]
    if options.list:
        print("\n".join(map(_described, mutants)))
        return 0
    try:
        facts = report.facts(ground.probe(None))
        kept = Kept.opened(options.keep, options.seed, facts)
    except (OSError, ValueError, ground.Unable) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    scenarios = _scenarios(mutants, options)
    command = f"{program} {shlex.join(_words(options, kept.seed))}"
    matrix = Matrix(tuple(scenarios), (), command, kept.seed, report.date(), facts)
    print(report.header(matrix))
    print(f"\n{len(mutants)} mutants, {len(scenarios)} scenarios\n")
    sound = _sound(scenarios, kept)
    print("\n" + _LAYOUT.format("mutant", "caught by", "chance", "seconds", "because"), flush=True)
    trials = [_tried(mutant, sound, options, kept) for mutant in mutants]
    matrix = replace(matrix, rows=tuple(trial.row(scenarios) for trial in trials))
    status = max(_told(trials, matrix, options), int(sound != scenarios))
    try:
        _write(options, matrix, trials)
    except OSError as error:
        print(f"could not be written: {error}", file=sys.stderr)
        return status or output.FAILED
    return status


def _parser(program: str) -> argparse.ArgumentParser:
    about = "Shows that the suite catches every broken twin of kvsync."
    parser = argparse.ArgumentParser(program, description=about, allow_abbrev=False)
    add = parser.add_argument
    add("--list", action="store_true", help="say what mutants there are, and do nothing")
    add("--only", nargs="+", choices=ALL, metavar="NAME", help="only these mutants")
    add("--seed", type=int, help="of all that is random here")
    add("--matrix", action="store_true", help="each mutant under every scenario: slow")
    add("--scenario", action="append", choices=SCENARIOS, help="with --matrix: only under this one")
    add("--keep", type=Path, metavar="FILE", help="go on where a run with that file was cut off")
    add("--markdown", type=output.place, metavar="FILE", help="write the table there")
    add("--json", type=output.place, metavar="FILE", help="write the matrix there, as data")
    return parser


def _words(options: argparse.Namespace, seed: int) -> Iterator[str]:
    """Those that ask for the same again: kept cells would be told once more, and not be run."""
    if options.only:
        yield from ("--only", *options.only)
    if options.matrix:
        yield "--matrix"
    for name in options.scenario or ():
        yield from ("--scenario", name)
    yield from ("--seed", str(seed))


def _described(mutant: Mutant) -> str:
    return f"{mutant.name}: {mutant.broken}\n    caught by: {', '.join(mutant.caught_by)}"


def _scenarios(mutants: Sequence[Mutant], options: argparse.Namespace) -> list[str]:
    """In the order in which the suite has them."""
    if options.matrix:
        default = [name for name in SCENARIOS if not getattr(SCENARIOS[name], "SLOW", False)]
        return options.scenario or default
    wanted = {name for mutant in mutants for name in mutant.caught_by}
    return [name for name in SCENARIOS if name in wanted]


def _sound(scenarios: Sequence[str], kept: Kept) -> list[str]:
    """Those that find nothing in kvsync as it is: one that says no to all proves nothing."""
    print(_LAYOUT.format("control", "scenario", "", "seconds", "outcome"), flush=True)
    sound = []
    for name in scenarios:
        cell = kept.run("", name, kept.seed, CHANCES[0])
        sound += [name] * (cell.verdict in (OK, SKIPPED))
        outcome = cell.verdict if cell.verdict == OK else f"{cell.verdict}: {cell.why}"
        print(_LAYOUT.format("none", name, "", f"{cell.seconds:.1f}", outcome), flush=True)
    return sound


def _tried(
    mutant: Mutant, scenarios: Sequence[str], options: argparse.Namespace, kept: Kept
) -> Trial:
    trial = Trial(mutant)
    for cell in _cells(mutant, scenarios, kept, whole=options.matrix):
        trial.cells.append(cell)
        if cell.verdict == VIOLATED and not options.matrix:
            break
    print(_line(trial), flush=True)
    return trial


def _cells(mutant: Mutant, scenarios: Sequence[str], kept: Kept, *, whole: bool) -> Iterator[Cell]:
    if whole:
        yield from (kept.run(mutant.name, name, kept.seed, CHANCES[0]) for name in scenarios)
        return
    for chance, seconds in enumerate(CHANCES):
        for name in [each for each in mutant.caught_by if each in scenarios]:
            yield kept.run(mutant.name, name, kept.seed + chance, seconds)


def _line(trial: Trial) -> str:
    name, catch = trial.mutant.name, trial.catch
    if catch is None:
        how = "NOT CAUGHT" if trial.was_tried else "SKIPPED"
        why = trial.cells[-1].why if trial.cells else "no scenario is fit to catch it"
        return _LAYOUT.format(name, how, "", "", why)
    return _LAYOUT.format(name, catch.scenario, trial.chances, f"{catch.seconds:.1f}", catch.why)


def _told(trials: Sequence[Trial], matrix: Matrix, options: argparse.Namespace) -> int:
    if options.matrix:
        print("\n" + _grid(matrix))
    holes = [trial.mutant.name for trial in trials if trial.was_tried and not trial.catch]
    skipped = [trial.mutant.name for trial in trials if not trial.was_tried]
    print(f"\n{len(trials)} mutants: {len(trials) - len(holes) - len(skipped)} caught,", end=" ")
    print(f"{len(holes)} not caught, {len(skipped)} SKIPPED")
    if holes:
        print(f"a hole in the suite: {', '.join(holes)}", file=sys.stderr)
        return 1
    return 2 if len(skipped) == len(trials) else 0


def _grid(matrix: Matrix) -> str:
    """A row for each mutant, a column for each scenario."""
    heads = [f"{number:>3} {name}" for number, name in enumerate(matrix.scenarios, 1)]
    columns = "".join(f"{number:>4}" for number in range(1, len(heads) + 1))
    rows = [
        f"{row.name:26}" + "".join(_mark(row, name) for name in matrix.scenarios)
        for row in matrix.rows
    ]
    return "\n".join([*heads, "", " " * 26 + columns, *rows])


def _mark(row: MutantRow, scenario: str) -> str:
    marks = {True: "x", False: ".", None: " "}
    return f"{marks[row.caught[scenario]]:>4}"


def _write(options: argparse.Namespace, matrix: Matrix, trials: Sequence[Trial]) -> None:
    if options.json:
        output.write(options.json, json.dumps(asdict(matrix), indent=1) + "\n")
    if options.markdown:
        output.write(options.markdown, _markdown(trials))


def _markdown(trials: Sequence[Trial]) -> str:
    lines = ["| mutant | what is broken | caught by | chance | seconds |", "|---|---|---|---|---|"]
    for trial in trials:
        catch = trial.catch
        found = [catch.scenario, f"{trial.chances}", f"{catch.seconds:.1f}"] if catch else ["-"] * 3
        name, broken = f"`{trial.mutant.name}`", trial.mutant.broken
        lines.append(f"| {' | '.join([name, broken, *found])} |")
    return "\n".join(lines) + "\n"

"""What is asked for on the command line, and the command that asks for it again."""

import argparse
import random
import shlex
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import NoReturn

from stress import nemeses, output, pages, windows
from stress.record import Matrix
from stress.scenarios import ALL, twins
from stress.stage import HISTORIES, SOUND

DEFAULT = [name for name, scenario in ALL.items() if not getattr(scenario, "SLOW", False)]
"""Those that run when none is named."""

UNITS = sorted({scenario.UNIT for scenario in ALL.values()})

_MOST = 1_000
"""Processes of a scenario: each takes some 20 MB, and they are started one after the other."""

_LONGEST = 10 * 365 * 86_400
"""Seconds, or minutes, that anybody can mean: clocks and sleeps have an end."""

_A_MINUTE = 13
"""Windows of each scenario for a minute of the whole run: those of a long run are as dense."""

_HISTORIES = (
    "windows in which each scenario records one to be checked "
    f"(default: {HISTORIES}, or {_A_MINUTE} for each minute of the whole run, if that is more)"
)
_NEMESES = f"the faults that the run uses, of {','.join(nemeses.NAMES)} (default: all)"
_MUTANTS = "for the page: the matrix that `mutants --json FILE` wrote"
_REPORT = "write a page about the run; or its data, if the name ends in .json"


def parse(given: Sequence[str], program: str) -> argparse.Namespace:
    """The options, `seed` and `scenario` chosen where they were left out. Raises: SystemExit."""
    parser = _parser(program)
    options = parser.parse_args(given)
    options.program, options.given = program, list(given)
    options.seed = random.randrange(2**32) if options.seed is None else options.seed
    options.left_out = [] if options.scenario else _left_out(options)
    options.scenario = options.scenario or _default(options)
    options.nemesis = options.nemesis or nemeses.NAMES
    options.histories = options.histories or _histories(seconds(options), len(options.scenario))
    if mistake := next(_mistakes(options, [ALL[name] for name in options.scenario]), ""):
        parser.error(mistake)
    return options


def command(options: argparse.Namespace) -> str:
    """Repeats the run."""
    chosen = any(each.split("=")[0] == "--seed" for each in options.given)
    return _joined(options, [*options.given, *([] if chosen else ["--seed", str(options.seed)])])


def command_for(options: argparse.Namespace, name: str) -> str:
    """Repeats one of its scenarios."""
    alone = seconds(options)
    asked = {
        "scenario": name,
        "seed": options.seed,
        "seconds": f"{alone:g}",
        "processes": options.processes,
        ALL[name].UNIT: getattr(options, ALL[name].UNIT),
        "ops": options.ops,
        "nemesis": None if options.nemesis == nemeses.NAMES else ",".join(options.nemesis),
        "histories": None if options.histories == _histories(alone, 1) else options.histories,
        "store": options.store,
        "twin": None if options.twin == SOUND else options.twin,
    }
    given = {key: str(value) for key, value in asked.items() if value is not None}
    return _joined(options, [word for key in given for word in (f"--{key}", given[key])])


def seconds(options: argparse.Namespace) -> float:
    """Those of one scenario."""
    return float(options.seconds or options.minutes * 60 / len(options.scenario))


def _histories(alone: float, scenarios: int) -> int:
    """For so many scenarios of so many seconds each, unless another number is asked for."""
    wanted = max(HISTORIES, round(_A_MINUTE * alone * scenarios / 60))
    return min(wanted, windows.most(alone))


def not_borne(options: argparse.Namespace, name: str) -> list[str]:
    """The faults that were asked for by name, and that this scenario cannot have."""
    if options.nemesis == nemeses.NAMES:
        return []
    return [each for each in options.nemesis if each not in nemeses.borne(ALL[name])]


def _joined(options: argparse.Namespace, words: Sequence[str]) -> str:
    return f"{options.program} {shlex.join(words)}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """In one line."""
        self.exit(2, f"stress: {message} (see --help)\n")


def _parser(program: str) -> argparse.ArgumentParser:
    about = "Long, hard use of kvsync by many processes, on this machine and file system."
    more = f"`{program} mutants --help` tells of the runs that show that it catches what is broken."
    parser = _Parser(program, description=about, epilog=more, allow_abbrev=False)
    add = parser.add_argument
    add("--list", action="store_true", help="say what there is, and do nothing")
    add(
        "--scenario",
        action="append",
        choices=ALL,
        metavar="NAME",
        help="only this one (see --list); may be repeated (default: all but those marked as slow)",
    )
    add("--nemesis", type=_nemeses, metavar="NAMES", help=_NEMESES)
    add("--seed", type=int, help="of all that is random here")
    add("--minutes", type=_positive, default=1.0, help="for all scenarios together (default: 1)")
    add("--seconds", type=_positive, help="for each scenario, instead of --minutes")
    add("--ops", type=_count, metavar="N", help="go on until each scenario did N operations")
    for unit in UNITS:
        of = ", ".join(name for name, scenario in ALL.items() if unit == scenario.UNIT)
        add(f"--{unit}", type=_count, metavar="N", help=f"go on until there were N {unit}: {of}")
    add("--processes", type=_crowd, metavar="N", help=f"in each scenario (at most {_MOST:,})")
    add("--histories", type=_count, metavar="N", help=_HISTORIES)
    add("--store", metavar="PATH", help="folder in which the stores are made")
    add("--report", type=output.place, metavar="FILE", help=_REPORT)
    add("--mutants", type=_matrix, metavar="FILE", help=_MUTANTS)
    add("--twin", default=SOUND, help="run a broken twin (see --list), which must be caught")
    return parser


def _matrix(path: str) -> Matrix:
    try:
        return pages.matrix(path)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _default(options: argparse.Namespace) -> list[str]:
    """If faults are named: the scenarios that bear one of them."""
    if options.nemesis is None:
        return DEFAULT
    chosen = [name for name in DEFAULT if {*nemeses.borne(ALL[name])} & {*options.nemesis}]
    return chosen or DEFAULT


def _left_out(options: argparse.Namespace) -> list[str]:
    """Those that would run if they were not slow."""
    slow = [name for name in ALL if name not in DEFAULT]
    faults = {*(options.nemesis or ())}
    return [name for name in slow if not faults or faults & {*nemeses.borne(ALL[name])}]


def _mistakes(options: argparse.Namespace, scenarios: Sequence[ModuleType]) -> Iterator[str]:
    for scenario, name in zip(scenarios, options.scenario, strict=True):
        if options.twin not in scenario.WAYS:
            yield f"{name} has no twin {options.twin!r}, but: {', '.join(twins(scenario))}"
    borne = {each for scenario in scenarios for each in nemeses.borne(scenario)}
    for nemesis in options.nemesis:
        if options.nemesis != nemeses.NAMES and nemesis not in borne:
            yield f"none of the scenarios bears {nemesis}: {', '.join(options.scenario)}"
    if getattr(options, "kills", None) and "kill" not in options.nemesis:
        yield "--kills would never be reached, for --nemesis has no kill"
    if options.histories > (most := windows.most(seconds(options))):
        yield f"{seconds(options):g} seconds have no room for more than {most:,} histories"
    if options.mutants and not options.report:
        yield "--mutants is for the page, and no --report is asked for"


def _nemeses(text: str) -> tuple[str, ...]:
    names = text.split(",")
    for name in names:
        if name not in nemeses.NAMES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(nemeses.NAMES)}")
    return tuple(each for each in nemeses.NAMES if each in names)


def _positive(text: str) -> float:
    with_sense = argparse.ArgumentTypeError(f"{text!r} is not a positive number up to {_LONGEST:,}")
    try:
        number = float(text)
    except ValueError:
        raise with_sense from None
    if not 0 < number <= _LONGEST:
        raise with_sense
    return number


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _crowd(text: str) -> int:
    if (number := _count(text)) > _MOST:
        raise argparse.ArgumentTypeError(f"{number:,} are too many: {_MOST:,} at the most")
    return number

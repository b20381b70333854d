"""`python -m stress.models`: Spin explores the models of the protocols, and refutes broken ones.

Exit status: 0 if every verdict is the expected one, 1 if one is not, 2 if it cannot run here.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence

from stress import report, version
from stress.models.catalogue import MODELS, Model
from stress.models.spin import FOLDER, MEGABYTES, REFUTED, SOUND, Run, explore, missing, versions

_PROGRAM = ("python", "-m", "stress.models")
_HEADER = ("model", "variant", "states", "depth", "expected", "found", "seconds")
_LAYOUT = "{:13} {:27} {:>12} {:>6}  {:9} {:11} {:>7}"


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(given)
    if absent := missing():
        print(f"SKIPPED: the models need {' and '.join(absent)}, which is not installed")
        return 2
    size = "small sizes" if options.quick else "full sizes"
    print(report.listed(_facts() | {"repeat with": shlex.join([*_PROGRAM, *given])}))
    print(f"\n{size}; every interleaving, COLLAPSE compression, at most {MEGABYTES} MB each\n")
    print(_LAYOUT.format(*_HEADER), flush=True)
    try:
        wrong = [each for each in _rows(options) if not each]
    except subprocess.CalledProcessError as error:
        print(f"{error}\n{error.stdout}{error.stderr}", file=sys.stderr)
        return 2
    print(f"\n{len(wrong)} wrong verdicts" if wrong else "\nevery verdict is the expected one")
    return 1 if wrong else 0


def _facts() -> dict[str, str]:
    models = [(path.name, path) for path in sorted(FOLDER.glob("*.*"))]
    return (
        report.surroundings()
        | versions()
        | {
            "code": version.told(),
            "models": version.digest(models),
        }
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(" ".join(_PROGRAM), description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="small sizes, some seconds in all")
    add("--model", action="append", choices=[model.name for model in MODELS], help="only this one")
    add("--minutes", type=float, default=30.0, help="for each exploration at most (default: 30)")
    return parser


def _rows(options: argparse.Namespace) -> Iterator[bool]:
    """Whether each verdict, printed as it comes, is right."""
    for model in MODELS:
        if options.model and model.name not in options.model:
            continue
        for variant, sizes in model.explorations(options.quick):
            # What is explored in a moment is not worth seconds of the compiler.
            optimize = "-O0" if options.quick else "-O2"
            run = explore(model.name, sizes, variant, 60 * options.minutes, optimize)
            expected = REFUTED if variant else SOUND
            print(_row(model, variant, expected, run), flush=True)
            if run.verdict != expected:
                print(run.said)
            yield run.verdict == expected


def _row(model: Model, variant: str | None, expected: str, run: Run) -> str:
    name = "" if variant is None else variant.lower().replace("_", " ")
    figures = (f"{run.states:,}", run.depth, expected, run.verdict, f"{run.seconds:.1f}")
    return _LAYOUT.format(model.name, name, *figures)


if __name__ == "__main__":
    sys.exit(main())

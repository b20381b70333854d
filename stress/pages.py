"""Where a run is written to, as a page for people or as data; and what goes into it from a file."""

import json
from dataclasses import asdict
from pathlib import Path

from stress import output
from stress.record import Matrix, MutantRow, Run


def matrix(path: str) -> Matrix:
    """What `mutants --json` wrote there. Raises: OSError; ValueError if it is something else."""
    try:
        read = json.loads(Path(path).read_text())
        rows = tuple(MutantRow(**row) for row in read["rows"])
        return Matrix(**(read | {"scenarios": tuple(read["scenarios"]), "rows": rows}))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what `mutants --json` writes") from error


def write(path: str, run: Run) -> None:
    """The page; or JSON, if the name ends in `.json`."""
    if path.endswith(".json"):
        output.write(path, json.dumps(asdict(run), indent=1) + "\n")
        return
    from stress import page

    page.write(path, run)

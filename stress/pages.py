"""Where a run is written to, as a page for people or as data; and what goes into it from a file."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from stress.record import Matrix, MutantRow, Run


def require(path: str) -> None:
    """Raises: OSError if nothing can be written there."""
    folder, existed = os.path.dirname(os.path.abspath(path)), os.path.exists(path)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"there is no folder {folder}")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))
    if not existed:
        os.unlink(path)


def matrix(path: str) -> Matrix:
    """What `mutants --json` wrote there. Raises: OSError; ValueError if it is something else."""
    try:
        read = json.loads(Path(path).read_text())
        rows = tuple(MutantRow(**row) for row in read["rows"])
        return Matrix(tuple(read["scenarios"]), rows)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what `mutants --json` writes") from error


def write(path: str, run: Run) -> None:
    """The page; or JSON, if the name ends in `.json`."""
    if path.endswith(".json"):
        Path(path).write_text(json.dumps(asdict(run), indent=1) + "\n")
        return
    from stress import page

    page.write(path, run)

"""Where a run is written to: a page for people, or its data."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from stress.record import Run


def require(path: str | None) -> None:
    """Raises: OSError, before the run, if nothing can be written there after it."""
    if path is not None:
        existed = os.path.exists(path)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))
        if not existed:
            os.unlink(path)


def write(path: str, run: Run) -> None:
    """The page; or JSON, if the name ends in `.json`."""
    if path.endswith(".json"):
        Path(path).write_text(json.dumps(asdict(run), indent=1) + "\n")
        return
    from stress import page

    page.write(path, run)

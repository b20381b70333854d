"""Cells: one mutant under one scenario, in processes and a folder of its own.

A cell ends in time, and leaves nothing behind, whatever the mutant does to it: the suite itself
takes a process to hang after `_PATIENCE`; and what has not come to its end after `_LONGEST` is
told to stop, and then made to.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import psutil

from stress import programs
from stress.mutants import VARIABLE

OK, VIOLATED, SKIPPED, NO_VERDICT = "ok", "VIOLATED", "SKIPPED", "NO VERDICT"
"""A cell that is stuck, or crashes, tells nothing: the scenario itself must say what is wrong."""

_SAYS = {
    OK: (0, "1 ok, 0 VIOLATED, 0 SKIPPED"),
    VIOLATED: (1, "0 ok, 1 VIOLATED, 0 SKIPPED"),
    SKIPPED: (2, "0 ok, 0 VIOLATED, 1 SKIPPED"),
}
"""Exit statuses of the program, and its sums."""

_SUMS = {line for _, line in _SAYS.values()}

_PATIENCE = 15.0
_LONGEST = 120.0
_LAST_WORDS = 20.0
"""Seconds: until the suite takes a process to hang, until a cell is told to stop, and until it is
killed."""

_LEADS_ON = (" another exception occurred:", " of the following exception:", "recent call last):")
_WIDTH = 110


@dataclass(frozen=True)
class Cell:
    """What came of it; `mutant` is empty in a control, `why` the first violation."""

    mutant: str
    scenario: str
    seed: int
    verdict: str
    seconds: float
    why: str = ""


def run(mutant: str, scenario: str, seed: int, seconds: float) -> Cell:
    """Run a scenario on kvsync broken in that way, or (no name) on kvsync as it is."""
    began = time.monotonic()
    with _folder() as folder:
        options = ["--scenario", scenario, "--seed", str(seed), "--seconds", f"{seconds:g}"]
        command = programs.command("stress", *options)
        status, text = _finish(command, _environment(mutant, folder), folder)
    verdict = next((each for each, says in _SAYS.items() if says == (status, _sum(text))), "")
    why = _first(text, f"{scenario}: ") or _last(text)
    seconds = time.monotonic() - began
    return Cell(mutant, scenario, seed, verdict or NO_VERDICT, seconds, why)


def _sum(text: str) -> str:
    return next((line for line in text.splitlines() if line in _SUMS), "")


def _environment(mutant: str, folder: str) -> Mapping[str, str]:
    ours = {VARIABLE: mutant, "TMPDIR": folder, "KVSYNC_STRESS_PATIENCE": f"{_PATIENCE:g}"}
    return programs.environment() | ours


def _finish(command: list[str], environment: Mapping[str, str], folder: str) -> tuple[int, str]:
    """Its exit status, and all that it said."""
    path = os.path.join(folder, "said")
    with open(path, "wb") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    try:
        status = process.wait(_LONGEST)
    except subprocess.TimeoutExpired:
        status = -1
    finally:
        _end(process)
        _end_all_in(folder)
    return status, Path(path).read_text(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_LAST_WORDS)
    process.kill()
    process.wait()


def _end_all_in(folder: str) -> None:
    """Kill what a cell that was killed has left: its processes are known by their environment."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("TMPDIR") == folder:
                process.kill()
                process.wait(_LAST_WORDS)


@contextmanager
def _folder() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="kvsync-mutant-")
    try:
        yield folder
    finally:
        _unmount_all_in(folder)
        shutil.rmtree(folder)


def _unmount_all_in(folder: str) -> None:
    """What a cell that was killed has left."""
    if mounts := Path("/proc/self/mounts"):
        with suppress(FileNotFoundError):
            for line in mounts.read_text().splitlines():
                if (place := line.split()[1]).startswith(folder):
                    subprocess.run(["umount", "-l", place], check=False)


def _first(text: str, beginning: str) -> str:
    """The first line that begins so, without that; of a traceback what was raised last in it."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(beginning):
            found = line.removeprefix(beginning)
            rest = takewhile(lambda line: not line.startswith(beginning), lines)
            return _short(_raised(rest) or found if "Traceback" in found else found)
    return ""


def _raised(traceback: Iterator[str]) -> str:
    """The last exception, of several that came of one another."""
    raised = ""
    for line in traceback:
        if line[:1].isalpha() and not line.endswith(_LEADS_ON):
            raised = line
    return raised


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return _short(lines[-1]) if lines else ""


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."

"""Spin: builds the checker of a model, runs it within bounds, and reads what it says.

`-DNOREDUCE` takes all interleavings: partial order reduction and `provided` do not go together.
`-DCOLLAPSE` compresses states without loss. So a run that ends without an error has seen every
state.
"""

import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from stress.models.catalogue import Sizes

FOLDER = Path(__file__).parent
NEEDED = ("spin", "gcc")
MEGABYTES = 4000
"""Of memory that a run may take."""

_DEPTH = 100_000
_CHECKER = ("-DSAFETY", "-DCOLLAPSE", "-DNOREDUCE", f"-DMEMLIM={MEGABYTES}", "-DVECTORSZ=512")

SOUND, REFUTED, UNFINISHED = "sound", "refuted", "UNFINISHED"


@dataclass(frozen=True)
class Run:
    """What became of one exploration; `verdict` is SOUND only if every state was seen."""

    verdict: str
    states: int
    depth: int
    seconds: float
    said: str


def missing() -> list[str]:
    """The programs that would be needed and are not there."""
    return [name for name in NEEDED if shutil.which(name) is None]


def versions() -> dict[str, str]:
    """What the programs that are needed say of themselves, in a line each."""
    asked = {"Spin": ("spin", "-V"), "gcc": ("gcc", "--version")}
    return {name: _first_line(*command) for name, command in asked.items()}


def _first_line(*command: str) -> str:
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    return said.stdout.splitlines()[0]


def explore(
    name: str, sizes: Sizes, variant: str | None, seconds: float, optimize: str = "-O2"
) -> Run:
    """Raises: CalledProcessError if the model cannot be built."""
    with tempfile.TemporaryDirectory(prefix="kvsync-models-") as folder:
        for source in FOLDER.glob("*.pml"):
            shutil.copy(source, folder)
        macros = [f"-D{key}={value}" for key, value in sizes.items()]
        broken = [f"-DBROKEN_{variant}"] if variant else []
        _build(folder, "spin", *macros, *broken, "-a", f"{name}.pml")
        _build(folder, "gcc", "-w", optimize, *_CHECKER, "-o", "pan", "pan.c")
        return _run(folder, seconds)


def _build(folder: str, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


def _run(folder: str, seconds: float) -> Run:
    begin = time.monotonic()
    process = subprocess.Popen(
        ["./pan", "-E", f"-m{_DEPTH}"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
    finally:
        process.kill()
        process.wait()
    return _read(said, time.monotonic() - begin)


def _read(said: str, seconds: float) -> Run:
    states = _number(r"^\s*(\d+) states, stored", said)
    depth = _number(r"depth reached (\d+)", said)
    complete = states and "errors: 0" in said and "Search not completed" not in said
    if re.search(r"^pan:\d+: assertion violated", said, re.MULTILINE):
        verdict = REFUTED
    elif complete and "max search depth too small" not in said:
        verdict = SOUND
    else:
        verdict = UNFINISHED
    return Run(verdict, states, depth, seconds, said)


def _number(pattern: str, said: str) -> int:
    found = re.search(pattern, said, re.MULTILINE)
    return int(found[1]) if found else 0

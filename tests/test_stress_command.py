"""`kvsync stress`: the suite from the command, in a checkout and as a wheel lays it out."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stress import version
from tests.processes import PATIENCE
from tests.test_stress import ROOT, stress

pytestmark = pytest.mark.suite

RUN = "import sys; from kvsync.cli import main; sys.exit(main(sys.argv[1:]))"
WHERE = "import kvsync, kvsync.cli.stress as verb; print(kvsync.__file__, verb._home())"

CELL = """
import sys, kvsync.cli.stress as verb
sys.path.insert(0, verb._home())
from stress.mutants import cells
cell = cells.run("", "limits", 3, 3)
print(f"{cell.verdict}: {cell.why}")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages, with what the wheel has of ours."""
    folder = tmp_path_factory.mktemp("site")
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = wheel["tool"]["hatch"]["build"]["targets"]["wheel"]
    without = {str(ROOT) + each for each in wheel["exclude"]}

    def left_out(place: str, names: list[str]) -> set[str]:
        return {each for each in names if each == "__pycache__" or f"{place}/{each}" in without}

    for name in (each.strip("/") for each in wheel["include"]):
        shutil.copytree(ROOT / name, folder / wheel["sources"].get(name, name), ignore=left_out)
    return folder


def python(
    folder: Path, site: Path, code: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run it in a folder with a `stress` of somebody else's."""
    other = folder / "cwd" / "stress"
    other.mkdir(parents=True, exist_ok=True)
    (other / "__init__.py").write_text("raise ImportError('not this one')")
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=other.parent,
        env=os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("installed", [True, False], ids=["wheel", "checkout"])
def test_the_command_runs_the_suite(tmp_path: Path, site: Path, *, installed: bool) -> None:
    """Its processes find it too: spawned ones, and programs of their own."""
    path = site if installed else ROOT
    home = path / "kvsync" / "suite" if installed else path
    found = python(tmp_path, path, WHERE).stdout
    assert found.split() == [str(path / "kvsync" / "__init__.py"), str(home)]
    chosen = ["--scenario=bank", "--ops=50", "--processes=2", "--scenario=limits"]
    done = python(tmp_path, path, RUN, "stress", "--seed=3", *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"repeat with: kvsync stress --seed=3 {' '.join(chosen)}\n" in done.stdout
    assert "2 ok, 0 VIOLATED, 0 SKIPPED" in done.stdout
    assert f"code:        {version.code() if installed else version.told()}\n" in done.stdout


@pytest.mark.parametrize("installed", [True, False], ids=["wheel", "checkout"])
def test_a_cell_of_the_mutants_finds_the_suite(
    tmp_path: Path, site: Path, *, installed: bool
) -> None:
    """It is a program of its own, and what it runs is the suite that has started it."""
    done = python(tmp_path, site if installed else ROOT, CELL)
    assert done.stdout.startswith("ok: "), done.stdout + done.stderr


def test_the_command_has_the_options_of_the_program(tmp_path: Path) -> None:
    for option in ("--list", "--help"):
        theirs, ours = stress(tmp_path, option), python(tmp_path, ROOT, RUN, "stress", option)
        assert (ours.returncode, ours.stderr) == (0, "")
        said = theirs.stdout.replace("python -m stress", "kvsync stress")
        assert ours.stdout.split() == said.split()


@pytest.mark.parametrize(
    "arguments",
    [
        ["stress", "--flood"],
        ["stress", "--seconds", "1e308", "--list"],
        ["--store", "x.db", "stress"],
    ],
)
def test_wrong_options_are_refused_in_one_line(tmp_path: Path, arguments: list[str]) -> None:
    """Its own, and those of other verbs."""
    done = python(tmp_path, ROOT, RUN, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_an_installation_without_the_suite_says_so(tmp_path: Path, site: Path) -> None:
    shutil.copytree(site, tmp_path / "bare", ignore=shutil.ignore_patterns("suite"))
    done = python(tmp_path, tmp_path / "bare", RUN, "stress", "--list")
    assert done.returncode == 2
    assert "this installation came without the suite" in done.stderr

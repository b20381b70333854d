"""Broken twins of kvsync itself: each breaks something, and the suite's program catches them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvsync.engine.transaction import SqliteTransaction
from kvsync.primitives import grants, units
from stress.mutants import cells
from stress.mutants.breaking import Missing, edit, edit_text, put, undone
from stress.mutants.catalogue import ALL
from stress.scenarios import ALL as SCENARIOS
from tests.processes import PATIENCE

pytestmark = pytest.mark.suite

ROOT = Path(__file__).parent.parent
FEWEST = 20


def mutants(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m stress mutants` with all its files below `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "stress", "mutants", *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("name", ALL)
def test_a_mutant_breaks_something(name: str) -> None:
    """What it changes is there, and is another afterwards: else `Missing` is raised."""
    with undone() as changes:
        ALL[name].apply()
        assert changes
    assert not changes


@pytest.mark.parametrize("name", ALL)
def test_a_mutant_says_what_is_broken_and_who_is_to_catch_it(name: str) -> None:
    mutant = ALL[name]
    assert mutant.broken.endswith(".")
    assert mutant.caught_by
    assert set(mutant.caught_by) <= SCENARIOS.keys()


def test_there_are_enough_of_them() -> None:
    assert len(ALL) >= FEWEST


def test_what_is_broken_is_mended_again() -> None:
    """So that a test can look at a mutant, and the next test at kvsync."""
    before = grants.FREE, SqliteTransaction.begin.__code__
    with undone():
        for mutant in ALL.values():
            with undone():
                mutant.apply()
    assert (grants.FREE, SqliteTransaction.begin.__code__) == before
    assert units.FREE is grants.FREE


def test_a_constant_is_another_for_all_who_imported_it() -> None:
    with undone():
        edit_text(grants, "FREE", "kvsync_unit", "another")
        assert "another" in units.FREE
    assert "another" not in units.FREE


def test_a_function_can_be_broken_in_several_places() -> None:
    with undone():
        edit(SqliteTransaction.begin, "begin immediate", "begin deferred")
        edit(SqliteTransaction.begin, "flock(link.gate, TRY)", "pass")
        code = SqliteTransaction.begin.__code__
        assert "begin deferred" in code.co_consts
        assert "flock" not in code.co_names


def test_what_is_not_there_any_more_is_an_error() -> None:
    """A mutant that changes nothing would be kvsync itself."""
    with undone(), pytest.raises(Missing, match="has 0 times"):
        edit(SqliteTransaction.begin, "begin exclusive", "begin deferred")
    with undone(), pytest.raises(Missing, match="the same as before"):
        edit(SqliteTransaction.begin, "begin immediate", "begin immediate")
    with undone(), pytest.raises(Missing, match="has not"):
        edit_text(grants, "FREE", "unheard of", "")
    with undone(), pytest.raises(Missing, match="has no"):
        put(grants, "UNHEARD_OF", 1)
    with undone(), pytest.raises(Missing, match="anyway"):
        put(grants, "FREE", grants.FREE)


def test_kvsync_itself_knows_nothing_of_mutants() -> None:
    """A process that is not of the suite cannot become one, whatever its environment says."""
    sources = list((ROOT / "kvsync").rglob("*.py"))
    assert sources
    assert not [path for path in sources if "mutant" in path.read_text().lower()]
    assert not [path for path in sources if "KVSYNC_STRESS" in path.read_text()]


def test_the_list_says_what_each_one_breaks(tmp_path: Path) -> None:
    done = mutants(tmp_path, "--list")
    assert done.returncode == 0
    for mutant in ALL.values():
        assert f"{mutant.name}: {mutant.broken}" in done.stdout


def test_a_cell_that_crashes_has_caught_nothing() -> None:
    """Its exit status alone would be that of a violation."""
    cell = cells.run("unheard-of", "counter", 1, 0.1)
    assert cell.verdict == cells.NO_VERDICT
    assert cell.why == "KeyError: 'unheard-of'"


@pytest.mark.twins
@pytest.mark.parametrize("name", ["add-in-two-steps", "token-stays"])
def test_a_mutant_is_caught_and_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    """The control, kvsync as it is, comes first."""
    folder = tmp_path / "files"
    folder.mkdir()
    data, table = tmp_path / "matrix.json", tmp_path / "table.md"
    arguments = ["--only", name, "--json", str(data), "--markdown", str(table)]
    done = mutants(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 mutants: 1 caught, 0 not caught, 0 SKIPPED" in done.stdout
    matrix = json.loads(data.read_text())
    (row,) = matrix["rows"]
    assert row["name"] == name
    assert row["caught"] == dict.fromkeys(matrix["scenarios"], True)
    assert f"| `{name}` | {ALL[name].broken} |" in table.read_text()
    assert list(folder.iterdir()) == []


@pytest.mark.twins
def test_a_mutant_that_a_scenario_cannot_see_is_a_hole(tmp_path: Path) -> None:
    """In the matrix each mutant runs under each scenario that is asked for."""
    done = mutants(tmp_path, "--only", "token-stays", "--matrix", "--scenario", "counter")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "a hole in the suite: token-stays" in done.stderr

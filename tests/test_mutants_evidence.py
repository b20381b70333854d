"""What a run of the mutants says of itself: all that one needs to repeat it."""

import json
import platform
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

import stress.__main__ as program
from stress import ground, pages, version
from stress.mutants import cells
from stress.mutants.cells import OK, VIOLATED, Cell

pytestmark = pytest.mark.suite


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The program has its own way with them; this process is another one."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def cells_that_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mutant is caught at once, and nothing is found in kvsync as it is."""

    def run(mutant: str, scenario: str, seed: int, _seconds: float) -> Cell:
        return Cell(mutant, scenario, seed, VIOLATED if mutant else OK, 1.5, "a token came twice")

    monkeypatch.setattr(cells, "run", run)


def header(text: str) -> dict[str, str]:
    facts: dict[str, str] = {}
    for line in text.splitlines():
        name, _, fact = line.partition(":")
        facts[name] = fact.strip()
        if name == "repeat with":
            break
    return facts


def test_it_begins_with_the_header_that_every_run_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of mutants as of scenarios."""
    monkeypatch.setattr(program, "_results", lambda _: (each for each in ()))
    assert program.main(["mutants", "--only", "token-stays", "--seed", "7"]) == 0
    told = header(capsys.readouterr().out)
    assert program.main(["--scenario", "bank", "--seed", "7"]) == 2  # nothing was run
    assert list(told) == list(header(capsys.readouterr().out))
    assert told["seed"] == "7"
    assert told["Python"].startswith(f"{platform.python_version()} on {platform.system()}")
    assert told["SQLite"].startswith(sqlite3.sqlite_version)
    assert told["code"] == version.told()
    assert told["repeat with"] == "python -m stress mutants --only token-stays --seed 7"


def test_its_data_has_all_of_that_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mutants.json"
    assert program.main(["mutants", "--only", "token-stays", "--json", str(path)]) == 0
    told, data = header(capsys.readouterr().out), json.loads(path.read_text())
    facts = {"seed": str(data["seed"]), **data["facts"], "repeat with": data["command"]}
    assert told == facts
    assert pages.matrix(str(path)).command.endswith(f" --seed {data['seed']}")


def test_what_repeats_it_runs_again_what_was_kept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And writes no file a second time."""
    given = ["--only", "token-stays", "--matrix", "--scenario", "lock", "--seed", "7"]
    kept = f"--keep={tmp_path / 'cells'}"
    assert program.main(["mutants", *given, kept, "--markdown", str(tmp_path / "table.md")]) == 0
    told = header(capsys.readouterr().out)
    assert told["repeat with"] == f"python -m stress mutants {' '.join(given)}"


def test_where_no_store_can_be_it_cannot_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ground.tempfile, "gettempdir", lambda: "/nowhere")
    assert program.main(["mutants", "--only", "token-stays"]) == 2
    assert "cannot run in /nowhere: there is no such folder" in capsys.readouterr().err

"""A run of the mutants that is cut off goes on where it was, and never with cells of other code."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stress.mutants import cells, command, kept
from stress.mutants.cells import NO_VERDICT, OK, VIOLATED, Cell
from stress.mutants.kept import Kept

pytestmark = pytest.mark.suite

CELL = Cell("token-stays", "lock", 7, VIOLATED, 1.5, "the token 3 came twice")
FACTS = {"SQLite": "3.40.1", "file system": "ext4"}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """The cells that were run; each has an outcome at once."""
    done: list[tuple[str, str, int]] = []

    def run(mutant: str, scenario: str, seed: int, _seconds: float) -> Cell:
        done.append((mutant, scenario, seed))
        return replace(CELL, mutant=mutant, scenario=scenario, seed=seed)

    monkeypatch.setattr(cells, "run", run)
    return done


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The program ends at SIGTERM as at Ctrl-C; this process is another one."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cells"


def test_what_was_run_is_not_run_again(file: Path, ran: list[tuple[str, str, int]]) -> None:
    before = Kept.opened(file, 7, FACTS)
    first = before.run("token-stays", "lock", 7, 4)
    again = Kept.opened(file, None, FACTS)
    assert again.seed == 7
    assert again.run("token-stays", "lock", 7, 4) == first == CELL
    assert again.run("token-stays", "lock", 8, 8).seed == 8
    assert ran == [("token-stays", "lock", 7), ("token-stays", "lock", 8)]


def test_a_line_that_was_cut_off_is_run_again(file: Path, ran: list[tuple[str, str, int]]) -> None:
    for each in ("lock", "queue"):
        Kept.opened(file, 7, FACTS).run("token-stays", each, 7, 4)
    whole = file.read_bytes()
    for length in range(whole.rindex(b"\n", 0, -1) + 1, len(whole)):
        file.write_bytes(whole[:length])
        ran.clear()
        again = Kept.opened(file, None, FACTS)
        assert again.run("token-stays", "lock", 7, 4) == CELL
        again.run("token-stays", "queue", 7, 4)
        assert ran == [("token-stays", "queue", 7)]
        assert file.read_bytes() == whole


def test_cells_of_other_code_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Kept.opened(file, 7, FACTS)
    monkeypatch.setattr(kept, "code", lambda: "another")
    with pytest.raises(ValueError, match="of other code"):
        Kept.opened(file, None, FACTS)


def test_cells_of_another_machine_are_refused(file: Path) -> None:
    """Or of other versions: the header would say what is not so of them."""
    Kept.opened(file, 7, FACTS)
    with pytest.raises(ValueError, match="of another machine"):
        Kept.opened(file, None, FACTS | {"SQLite": "3.51.3"})


def test_cells_of_another_commit_of_the_same_code_go_on(file: Path) -> None:
    Kept.opened(file, 7, FACTS | {"code": f"{kept.code()}, commit 1234567"})
    assert Kept.opened(file, None, FACTS | {"code": f"{kept.code()}, commit 89abcde"}).seed == 7


def test_another_seed_is_refused(file: Path) -> None:
    Kept.opened(file, 7, FACTS)
    with pytest.raises(ValueError, match="of another seed: 7"):
        Kept.opened(file, 8, FACTS)
    assert Kept.opened(file, 7, FACTS).seed == 7


@pytest.mark.parametrize("text", ["x", "\n", "{}\n", "[]\n", '{"seed": 7, "code": "a"}\n{}\n'])
def test_what_is_no_such_file_is_refused_and_left_as_it_is(
    file: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(text)
    assert command.main(["--keep", str(file)], "mutants") == 2
    assert "is not what `mutants --keep` writes" in capsys.readouterr().err
    assert file.read_text() == text


def test_a_folder_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--keep", str(tmp_path / "none" / "cells")], "mutants") == 2
    assert "No such file" in capsys.readouterr().err


def test_a_matrix_that_was_cut_off_goes_on(
    file: Path, ran: list[tuple[str, str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that came of a cell is lost, and the whole is as if it had been run at once."""
    options = ["--only", "token-stays", "--matrix", "--keep", str(file)]
    options += ["--scenario", "counter", "--scenario", "lock", "--scenario", "queue"]
    run, cut = cells.run, 4

    def one(mutant: str, scenario: str, seed: int, seconds: float) -> Cell:
        if len(ran) == cut:
            raise KeyboardInterrupt
        found = run(mutant, scenario, seed, seconds)
        is_caught = mutant and scenario == "lock"
        return found if is_caught else replace(found, verdict=OK, why="")

    monkeypatch.setattr(cells, "run", one)
    with pytest.raises(KeyboardInterrupt):
        command.main(options, "mutants")
    cut = -1
    assert command.main(options, "mutants") == 0
    assert len(ran) == len(set(ran)) == 6


def test_a_cell_without_a_verdict_is_kept_too(
    file: Path, ran: list[tuple[str, str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To run it again and again until it pleases would be no honest matrix."""
    stuck = replace(CELL, verdict=NO_VERDICT)
    monkeypatch.setattr(cells, "run", lambda *_: ran.append(("", "", 0)) or stuck)
    for _ in range(2):
        assert Kept.opened(file, 7, FACTS).run("token-stays", "lock", 7, 4) == stuck
    assert len(ran) == 1

"""The files that the stress suite leaves: whole, and never in the place of what is no file."""

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stress import options, pages
from stress.mutants import command
from tests.made_runs import matrix, run

pytestmark = pytest.mark.suite

Writer = Callable[[Path], object]


def _mutants(option: str) -> Writer:
    def write(path: Path) -> None:
        given = command._parser("stress mutants").parse_args([option, str(path)])
        command._write(given, matrix(), [])

    return write


WRITERS = pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path: pages.write(f"{path}", run()), id="report"),
        pytest.param(_mutants("--json"), id="mutants, json"),
        pytest.param(_mutants("--markdown"), id="mutants, markdown"),
    ],
)


@WRITERS
@pytest.mark.parametrize("name", ["out.html", "out.json"])
def test_a_fifo_stays_and_gets_the_text(tmp_path: Path, write: Writer, name: str) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    reader, got = os.open(path, os.O_RDONLY | os.O_NONBLOCK), b""
    os.set_blocking(reader, True)  # there is nobody to wait for until the writer has opened it
    try:
        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(write, path)
            while not written.done():
                got += os.read(reader, 1 << 16)
            written.result()
        got += os.read(reader, 1 << 16)
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(path.lstat().st_mode)
    assert got.endswith(b"\n")
    assert os.listdir(tmp_path) == [name]


@WRITERS
@pytest.mark.parametrize("name", ["out.html", "out.json"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_is_followed(
    tmp_path: Path, write: Writer, name: str, exists: bool
) -> None:
    folder, link = tmp_path / "elsewhere", tmp_path / name
    folder.mkdir()
    if exists:
        folder.joinpath("there").write_text("old")
    link.symlink_to("elsewhere/there")
    write(link)
    assert link.is_symlink()
    assert folder.joinpath("there").read_text() not in ("", "old")
    assert os.listdir(folder) == ["there"]


@WRITERS
@pytest.mark.parametrize("name", ["out.html", "out.json"])
def test_a_file_is_replaced_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Writer, name: str
) -> None:
    """What cannot be written leaves the old one, and nothing else."""

    def refuse(*_: object) -> None:
        raise OSError("no room")

    path = tmp_path / name
    path.write_text("old")
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match="no room"):
            write(path)
    assert path.read_text() == "old"
    write(path)
    assert path.read_text() != "old"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("kind", ["fifo", "link", "file", "nothing"])
def test_whether_it_can_be_written_is_asked_without_a_trace(tmp_path: Path, kind: str) -> None:
    """And a FIFO that nobody reads yet keeps nobody waiting."""
    path = tmp_path / "out.html"
    make: dict[str, Callable[[], object]] = {
        "fifo": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to("there"),
        "file": lambda: path.write_text("old"),
        "nothing": lambda: None,
    }
    make[kind]()
    before = os.listdir(tmp_path)
    assert options.parse(["--report", str(path)], "stress").report == str(path)
    command._parser("mutants").parse_args(["--json", str(path), "--markdown", str(path)])
    assert os.listdir(tmp_path) == before
    assert kind != "file" or path.read_text() == "old"


@pytest.mark.parametrize("option", ["--json", "--markdown"])
def test_mutants_refuse_what_cannot_be_written_before_they_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    for path in (tmp_path, tmp_path / "not-there" / "out"):
        with pytest.raises(SystemExit, match="2"):
            command.main(["--list", option, str(path)], "mutants")
        assert f"argument {option}" in capsys.readouterr().err

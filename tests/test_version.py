"""A run says which code it was of: other code is told by another text, and by its commit."""

import shutil
import subprocess
from pathlib import Path

import pytest

from stress import version

pytestmark = pytest.mark.suite


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with packages of these names, which are taken for ours."""
    for name in ("kvsync", "stress"):
        place = tmp_path / name / "__init__.py"
        place.parent.mkdir()
        place.write_text("")
        monkeypatch.setattr(getattr(version, name), "__file__", str(place))
    return tmp_path


def test_a_changed_file_of_kvsync_is_other_code(code: Path) -> None:
    before = version.code()
    assert version.code() == before
    (code / "kvsync" / "new.py").write_text("")
    new = version.code()
    (code / "kvsync" / "new.py").write_text("x = 1")
    assert len({before, new, version.code()}) == 3


def test_where_a_wheel_has_other_things_is_no_other_code(code: Path) -> None:
    before = version.code()
    for folder in ("kvsync/suite", "stress/models"):
        (code / folder).mkdir()
        (code / folder / "new.py").write_text("")
    assert version.code() == before


@pytest.mark.skipif(shutil.which("git") is None, reason="SKIPPED: git is not installed")
def test_the_commit_is_told_of_what_git_keeps_alone(code: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
        command = ["git", "-C", str(code), *who, "-c", "commit.gpgsign=false", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert version.told() == version.code()
    git("init")
    git("commit", "--allow-empty", "-m", "of something else")
    assert version.told() == version.code(), "of packages that are installed below a checkout"
    git("add", ".")
    git("commit", "-m", "ours")
    commit = git("rev-parse", "--short", "HEAD")
    assert version.told() == f"{version.code()}, commit {commit}"
    (code / "kvsync" / "__init__.py").write_text("x = 1")
    assert version.told() == f"{version.code()}, commit {commit}-dirty"

"""The file systems of scenarios."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from stress.faults import mounts
from stress.faults.mounts import Disk
from stress.stage import Skipped
from tests.processes import PATIENCE

pytestmark = [
    pytest.mark.suite,
    pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to mount a file system"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed"),
]


@contextmanager
def another_namespace() -> Iterator[None]:
    """A process that has all that is mounted now, until it ends."""
    command = ["unshare", "-m", "cat"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("here\n")
        assert process.stdout.readline() == "here\n"
        yield
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    try:
        disk = Disk(str(tmp_path / "disk"), 16 << 20)
        with disk.mounted():
            return disk
    except Skipped as reason:
        pytest.skip(str(reason))


def test_a_file_system_that_others_keep_is_not_mounted_again_before_they_let_go(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be without power still, and what it is to show would seem lost."""
    with ExitStack() as stack:
        with disk.mounted():
            stack.enter_context(another_namespace())
            disk.cut()
        with monkeypatch.context() as patch:
            patch.setattr(mounts, "_PATIENCE", 0.05)
            with pytest.raises(Skipped, match="others keep"), disk.mounted():
                pass
    with disk.mounted():
        (Path(disk.folder) / "file").write_text("written")

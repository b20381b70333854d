"""File systems of a scenario's own: a small one in memory, and one whose power can fail.

Both take root. What was mounted is unmounted on leaving, lazily if a process is still in there; and
what a killed run left behind goes with its folder's mounts at the next boot at the latest.
"""

import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stress.stage import Skipped

_PATIENCE = 60.0

_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN, `_IOR('X', 125, __u32)`: linux/ext4.h."""

_NO_LOG_FLUSH = 2
"""EXT4_GOING_FLAGS_NOLOGFLUSH: what is not on the disk yet never will be."""


@contextmanager
def in_memory(folder: str, size: int) -> Iterator[str]:
    """A tmpfs of that many bytes at `folder`. Raises: Skipped."""
    _require("mount", "umount")
    os.mkdir(folder)
    _run_or_skip("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield folder
    finally:
        _unmount(folder)


class Disk:
    """An ext4 file system in a file. `cut` takes its power, `mount` brings it back."""

    def __init__(self, folder: str, size: int) -> None:
        """Raises: Skipped."""
        _require("mount", "umount", "mkfs.ext4")
        self.folder = folder
        self._image = folder + ".img"
        os.mkdir(folder)
        with open(self._image, "wb") as file:
            file.truncate(size)
        _run_or_skip("mkfs.ext4", "-q", "-F", self._image)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Raises: Skipped where there is no loop device, or where others keep the file system.

        Whoever began a mount namespace meanwhile (a container, for example) has it mounted still.
        Mounted once more it would be as it is there: without power.
        """
        _wait_for(lambda: not _is_mounted(self._image), f"others keep {self._image} mounted")
        _run_or_skip("mount", "-o", "loop", self._image, self.folder)
        try:
            yield
        finally:
            _unmount(self.folder)

    def cut(self) -> None:
        """From this moment on nothing reaches the disk, and whoever tries gets an error."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)


@contextmanager
def ballast(folder: str) -> Iterator[None]:
    """Fill the file system to the last byte meanwhile."""
    path = Path(folder) / "ballast"
    try:
        _fill(path)
        yield
    finally:
        path.unlink(missing_ok=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for chunk in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(chunk)) == chunk:
                    pass
            except OSError:
                continue


def _require(*programs: str) -> None:
    if os.geteuid():
        raise Skipped("it takes root to mount a file system")
    for program in programs:
        if shutil.which(program) is None:
            raise Skipped(f"{program} is not installed")


def _run_or_skip(*command: str) -> None:
    done = _run(*command)
    if done.returncode:
        raise Skipped(f"{' '.join(command[:-1])} is not possible here: {done.stderr.strip()}")


def _is_mounted(image: str) -> bool:
    """In whatever namespace."""
    image = os.path.realpath(image)
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # it has just gone
            if path.read_text().rstrip("\n") == image:
                return True
    return False


def _wait_for(condition: Callable[[], bool], otherwise: str) -> None:
    """Raises: Skipped."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() >= deadline:
            raise Skipped(otherwise)
        time.sleep(0.01)


def _unmount(folder: str) -> None:
    if _run("umount", folder).returncode:
        _run("umount", "-l", folder)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)

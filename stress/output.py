"""The files that a run leaves behind: each is there as a whole, or not at all."""

import argparse
import os
import secrets
import stat
from contextlib import suppress

FAILED = 3
"""The exit status that is no verdict: of a program that could not leave all that it was to leave,
or did not come to its end.
"""


def place(path: str) -> str:
    """The type of an option: after the run it would be late to hear that there is no place for it.

    Raises: ArgumentTypeError if nothing can be written there.
    """
    try:
        _require(path)
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


def _require(path: str) -> None:
    if _is_special(path):
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{path} may not be written to")
        return
    real = os.path.realpath(path)
    folder, existed = os.path.dirname(real), os.path.exists(real)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"there is no folder {folder}")
    os.close(os.open(real, os.O_WRONLY | os.O_CREAT, 0o666))
    if not existed:
        os.unlink(real)


def write(path: str | os.PathLike[str], text: str) -> None:
    """Whoever reads it meanwhile sees the old file or the new one, whole.

    A link stays, and so does what is no regular file, such as a FIFO or a device: the text goes
    where it leads. Raises: OSError; the old file, if any, is then as it was.
    """
    if _is_special(path):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        _replace(os.path.realpath(path), text)


def _is_special(path: str | os.PathLike[str]) -> bool:
    """Whether a file must not take the place of what stands there; a folder's it cannot take."""
    with suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
    return False


def _replace(path: str, text: str) -> None:
    beside = os.path.join(os.path.dirname(path), f".report-{secrets.token_hex(8)}")
    try:
        with open(beside, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(beside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise

"""The kernel's word against the library's: a file that one process at a time can have."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def alone(path: str, token: int | None) -> Iterator[None]:
    """Have the file, and leave the token in it.

    Raises: AssertionError if another process has it, or left a token that is not smaller.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(file)
        last = int(os.pread(file, 32, 0) or b"0")
        if token is not None:
            assert last < token, f"token {token} came after {last}"
            os.pwrite(file, b"%031d" % token, 0)
        yield
    finally:
        os.close(file)


def _take(file: int) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AssertionError("two processes are inside") from None

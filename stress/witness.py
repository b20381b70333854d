"""The kernel's word against the library's: files that so many processes at a time can have.

The kernel takes them from a process that dies before anybody can know that it is dead. Whoever
finds that somebody else has what it should have itself raises AssertionError.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

BY_ONE, BY_MANY = fcntl.LOCK_EX, fcntl.LOCK_SH


@contextmanager
def alone(path: str, token: int | None) -> Iterator[None]:
    """Have the file, and leave the token in it.

    Raises: AssertionError if another process has it, or left a token that is not smaller.
    """
    with _opened(path) as file:
        _take(file)
        last = int(os.pread(file, 32, 0) or b"0")
        if token is not None:
            assert last < token, f"token {token} came after {last}"
            os.pwrite(file, b"%031d" % token, 0)
        yield


class Had:
    """A file that is had by one alone, or by many together."""

    def __init__(self, file: int) -> None:
        self._file = file

    def share(self) -> None:
        """Go on as one of many."""
        _take(self._file, BY_MANY)


@contextmanager
def had(path: str, how: int) -> Iterator[Had]:
    """Have the file `BY_ONE`, or `BY_MANY` together."""
    with _opened(path) as file:
        _take(file, how)
        yield Had(file)


@contextmanager
def is_first(path: str) -> Iterator[bool]:
    """Whether nobody else is in such a block."""
    with _opened(path) as file:
        yield _is_taken(file)


@contextmanager
def among(path: str, limit: int, n: int) -> Iterator[int]:
    """Have `n` of `limit` files; says how many others had."""
    with ExitStack() as mine:
        with _opened(path) as turn:  # else who looks may miss what moves from one file to another
            fcntl.flock(turn, fcntl.LOCK_EX)
            files = [mine.enter_context(_opened(f"{path}-{slot}")) for slot in range(limit)]
            taken = [file for file in files if _is_taken(file)]
            assert len(taken) >= n, f"{limit - len(taken)} of {limit} are had, and {n} more"
            for file in taken[n:]:
                fcntl.flock(file, fcntl.LOCK_UN)
        yield limit - len(taken)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield file
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)  # a forked child may have the file open still
        os.close(file)


def _take(file: int, how: int = BY_ONE) -> None:
    assert _is_taken(file, how), "two processes are inside"


def _is_taken(file: int, how: int = BY_ONE) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""What each process has done so far, in memory that all share, so a SIGKILL loses nothing of it.

A slot belongs to one process, and only that one writes to it, one thread of it at a time; no
forked child does.
"""

import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

_SLOTS = 1 << 20
_WIDTH = 8


class Column(IntEnum):
    """What is counted."""

    OPERATIONS = 0
    FORKS = 1
    """Those that were ordered, and are over."""
    IN_DOUBT = 2
    """Calls that are being made now: if their process dies, nobody knows what became of them."""
    IN_HAND = 3
    """What it has now, and has not begun to give back."""


class Tally:
    """The slots of all processes of a run; the file of them takes room only where it is used."""

    def __init__(self, folder: str) -> None:
        self._turn = threading.Lock()
        file = os.open(os.path.join(folder, "tally"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            size = _SLOTS * len(Column) * _WIDTH
            os.ftruncate(file, size)
            self._numbers = memoryview(mmap.mmap(file, size)).cast("q")
        finally:
            os.close(file)

    def add(self, process: int, column: Column, number: int = 1) -> None:
        with self._turn:
            self._numbers[_place(process, column)] += number

    @contextmanager
    def during(self, process: int, column: Column, number: int = 1) -> Iterator[None]:
        """That is added for as long as the block lasts, and stays if the process dies in it."""
        self.add(process, column, number)
        try:
            yield
        finally:
            self.add(process, column, -number)

    def read(self, process: int, column: Column) -> int:
        return self._numbers[_place(process, column)]


def _place(process: int, column: Column) -> int:
    return process % _SLOTS * len(Column) + column

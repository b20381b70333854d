"""What each process has done so far, in memory that all share, so a SIGKILL loses nothing of it.

A slot belongs to one process, and only that one writes to it; threads of it that add at the same
instant may count once. So there was never less than what it says.
"""

import mmap
import os
from enum import IntEnum

_SLOTS = 1 << 20
_WIDTH = 8


class Column(IntEnum):
    """What is counted."""

    OPERATIONS = 0
    FORKS = 1
    """Those that were ordered, and are over."""


class Tally:
    """The slots of all processes of a run; the file of them takes room only where it is used."""

    def __init__(self, folder: str) -> None:
        file = os.open(os.path.join(folder, "tally"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            size = _SLOTS * len(Column) * _WIDTH
            os.ftruncate(file, size)
            self._numbers = memoryview(mmap.mmap(file, size)).cast("q")
        finally:
            os.close(file)

    def add(self, process: int, column: Column) -> None:
        self._numbers[_place(process, column)] += 1

    def read(self, process: int, column: Column) -> int:
        return self._numbers[_place(process, column)]


def _place(process: int, column: Column) -> int:
    return process % _SLOTS * len(Column) + column

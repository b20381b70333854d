"""What processes were told is done, kept outside of the store: a file for each process.

Each note is one `os.write` to a file opened for appending, so a SIGKILL loses none of them.
"""

import os
from collections import defaultdict
from pathlib import Path
from types import TracebackType

UNKNOWN = 0
"""Noted where the new number was not told."""

_PREFIX = "journal-"


class Journal:
    """The notes of one process; its threads and forked children may share it."""

    def __init__(self, folder: str, number: int) -> None:
        path = os.path.join(folder, f"{_PREFIX}{number}")
        self._descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def note(self, label: str, number: int) -> None:
        """`label` was acknowledged to have become `number`."""
        os.write(self._descriptor, f"{label} {number}\n".encode())

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)


def acknowledged(folder: str) -> dict[str, list[int]]:
    """The numbers in all journals of a folder, by label."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for path in Path(folder).glob(f"{_PREFIX}*"):
        for line in path.read_text().splitlines():
            label, number = line.split()
            numbers[label].append(int(number))
    return numbers

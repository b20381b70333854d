"""Calls with a timeout where others write for long: they may give up before they had a turn.

Such a call waits for its turn to write for a second, or for its timeout if that is longer, and then
raises BusyError. On a slow disk that is nobody's fault.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import kvsync
from stress.crew import Worker
from stress.journal import UNKNOWN

BUSY = "busy"
"""What is noted of each that gave up."""


@contextmanager
def unless_busy(worker: Worker, timeout: float | None) -> Iterator[None]:
    """What the block calls may give up, if it has a timeout; else it has all the time."""
    try:
        yield
    except kvsync.BusyError:
        if timeout is None:
            raise
        worker.journal.note(BUSY, UNKNOWN)

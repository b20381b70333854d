"""One process of the demo.

After each operation, and before the next, it writes one byte to its pipe, the operation's code. So
whenever it is killed, at most one operation was done and not acknowledged; and as its order of
operations follows from the seed, it is known which one.

A process that is to die while it holds something takes it, says so, and waits there for its end.
"""

import math
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from multiprocessing import parent_process
from multiprocessing.connection import Connection

import kvsync
from kvsync.cli.demo.acts import Act, guarded, operations

READY = 255
"""The first byte of a process that waits for the start."""

INSIDE = 254
"""The last byte of one that is to be killed where it is now. All others are codes."""


@dataclass(frozen=True)
class Share:
    """How much a process does: for so many seconds, so many operations, or until it is killed.

    `dies_in` is the number of the guarded act in which it is killed after that.
    """

    seconds: float = math.inf
    operations: int | None = None
    dies_in: int | None = None

    def of(self, plan: Iterator[int]) -> Iterator[int]:
        end = time.monotonic() + self.seconds
        return takewhile(lambda _: time.monotonic() < end, islice(plan, self.operations))


def plan(seed: int, number: int, choices: int) -> Iterator[int]:
    """The codes of the operations of process `number`, in order, without end."""
    dice = random.Random(f"{seed} {number}")
    while True:
        yield dice.randrange(choices)


def work(
    store: kvsync.Store,
    acts: Sequence[Act],
    codes: tuple[int, int],
    share: Share,
    start: Connection,
    acknowledgements: Connection,
) -> None:
    """The body of a process. `codes` is the seed and the process's number, for `plan`."""
    try:
        os.write(acknowledgements.fileno(), bytes([READY]))
        os.read(start.fileno(), 1)  # closed by the parent for all at once
        if _is_wanted():
            _perform(store, acts, codes, share, acknowledgements.fileno())
    except Exception as error:
        if _is_wanted():
            sys.exit(f"process {codes[1]}: {type(error).__name__}: {error}")


def _perform(
    store: kvsync.Store, acts: Sequence[Act], codes: tuple[int, int], share: Share, pipe: int
) -> None:
    doable = operations(acts)
    for code in share.of(plan(*codes, len(doable))):
        act, thing = doable[code]
        act.perform(store, thing)
        os.write(pipe, bytes([code]))
    if share.dies_in is not None:
        guarded(acts)[share.dies_in].perform_inside(store, lambda: _wait_for_the_end(pipe))


def _wait_for_the_end(pipe: int) -> None:
    """Ours by SIGKILL; or that of the process which should send it."""
    os.write(pipe, bytes([INSIDE]))
    if parent := parent_process():
        parent.join()


def _is_wanted() -> bool:
    """Whether the process that counts is still there."""
    parent = parent_process()
    return parent is not None and parent.is_alive()

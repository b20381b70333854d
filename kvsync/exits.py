"""What a process does at its end, `multiprocessing` children included."""

import atexit
from collections.abc import Callable
from multiprocessing import util

from kvsync.forks import incarnation

_hooks: dict[Callable[[], None], int] = {}
"""What is to be called, and the process in which that was registered."""


def at_exit(call: Callable[[], None]) -> None:
    """Call it at the end of this process; asked again, still once.

    `multiprocessing` children run finalizers, but not `atexit`.
    """
    if _hooks.get(call) != incarnation():
        _hooks[call] = incarnation()
        atexit.register(call)
        util.Finalize(None, call, exitpriority=0)

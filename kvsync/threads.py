"""Threads: which one this is, which are kvsync's own, and whether any other lives.

A thread is known by `threading.get_ident()` and a number, for an ident is used again.
"""

import itertools
import os
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple

_numbers = itertools.count(1)


class Thread(NamedTuple):
    """A thread of this process, or a greenlet where gevent put them in the threads' place."""

    ident: int
    number: int


class _Here(threading.local):
    def __init__(self) -> None:
        self.thread = Thread(threading.get_ident(), next(_numbers))


_here = _Here()


def this_thread() -> Thread:
    """The calling one; equal to no other that lives, lived or will live in this process."""
    thread, ident = _here.thread, threading.get_ident()
    # A greenlet has its own ident, but not its own of these if gevent came after us.
    return thread if thread.ident == ident else Thread(ident, thread.number)


make_way: Callable[[], None] = getattr(os, "sched_yield", lambda: None)
"""For who was just woken: the kernel may have put it on this very processor."""


class Background(threading.Thread):
    """One that kvsync begins for itself: it runs none of the program's code, and no signal's
    handler, and does not keep the process from ending.
    """

    def __init__(self, target: Callable[[], None], name: str) -> None:
        super().__init__(target=target, name=f"kvsync-{name}", daemon=True)


def is_alone() -> bool:
    """Whether the calling thread is the only one that can be running code of the program.

    Those that C code began count too, while they are in Python.
    """
    here = sys._getframe()
    frames = sys._current_frames()
    ours = {thread.ident for thread in threading.enumerate() if isinstance(thread, Background)}
    return all(frame is here or ident in ours for ident, frame in frames.items())

"""Which thread this is: `threading.get_ident()` and a number, for an ident is used again."""

import itertools
import threading
from typing import NamedTuple

_numbers = itertools.count(1)


class Thread(NamedTuple):
    """A thread of this process, or a greenlet where gevent put them in the threads' place."""

    ident: int
    number: int


class _Here(threading.local):
    def __init__(self) -> None:
        self.number = next(_numbers)


_here = _Here()


def this_thread() -> Thread:
    """The calling one; equal to no other that lives, lived or will live in this process."""
    return Thread(threading.get_ident(), _here.number)

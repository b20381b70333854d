"""Descriptors that no exception of a signal's handler can lose, and no forked child keeps.

Such an exception can come after any call returns, so after `os.open` too, before anybody knows what
it opened. Therefore the one call into C that opens a descriptor also notes it, and the one that
closes it strikes it out. Who was interrupted and never came to `close` loses it with the object: it
is closed as soon as the next one is opened. (Not by a `__del__`, which would swallow the exception
of a signal that falls into it.)

No other thread runs in these calls, so that none can fork between the opening and the noting. A
lock would not do: in a child that was forked without Python's hooks, or at the interpreter's end,
whoever had it may be gone.
"""

import ctypes
import errno
import os
import weakref
from itertools import starmap, tee
from operator import itemgetter

from kvsync.errors import ForkError
from kvsync.forks import FORKED


class Descriptor:
    """A file that this process has open; programs that it starts do not get it.

    `number` is -1 once it is closed, and in a forked child, which closes its copies at once: its
    `flock` would be the parent's. Only what `crosses_forks` stays open there.
    """

    def __init__(self, path: str, flags: int, *, crosses_forks: bool = False) -> None:
        """Raises: OSError; ForkError in a child that a signal's handler forked meanwhile."""
        self.crosses_forks = crosses_forks
        self._key = key = weakref.ref(self, _lost.setdefault)
        hash(key)  # as long as it lives: it has none later, unless it was asked for it
        close_lost()
        noted: tuple[int, int] | None = _INTERRUPTED
        while noted == _INTERRUPTED:
            opening = map(c_open, (os.fsencode(path),), (flags | os.O_CLOEXEC,))
            noting = zip(opening, starmap(ctypes.get_errno, ((),)), strict=True)
            _open.update(zip((key,), noting, strict=True))
            noted = _open.get(key)
        if noted is None:
            raise ForkError(FORKED)
        self.number, error = noted
        if self.number < 0:
            del _open[key]
            raise OSError(error, os.strerror(error), path)
        if list(map(_number, list(_open.values()))).count(self.number) > 1:
            self._forget_the_last_one_of_this_number()

    def __enter__(self) -> "Descriptor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent; no error if the program has closed all that it found open.

        Unlock it before: closing alone would leave a lock with a child that holds a copy.
        """
        self.number = -1  # before: another thread may get this number as soon as it is closed
        _close(self._key)

    def _forget_the_last_one_of_this_number(self) -> None:
        """The program has closed it; to close it once more would close this one."""
        for key, noted in list(_open.items()):
            if key is not self._key and _number(noted) == self.number:
                _open.pop(key, None)


def send(path: bytes, flags: int, what: dict[int, bytes]) -> None:
    """Open, write and close in one call into C, so there is nothing to lose; tells no error.

    `what` has it by the pid of who is to send it. It is taken out, so that neither who repeats the
    call nor a child that is forked in the middle sends it again.
    """
    number, again = tee(map(c_open, (path,), (flags | os.O_CLOEXEC,)))
    text, measured = tee(map(what.pop, starmap(os.getpid, ((),)), (b"",)))
    writing = map(c_write, number, text, map(len, measured))
    next(map(c_close, again, writing))  # which is given what was written too, and ignores it


Key = weakref.ref[Descriptor]

_libc = ctypes.PyDLL(None, use_errno=True)  # which keeps all other threads waiting
c_open, c_write, c_close = _libc.open, _libc.write, _libc.close
_number = itemgetter(0)
_CLOSED, _INTERRUPTED = (-1, errno.EBADF), (-1, errno.EINTR)

_open: dict[Key, tuple[int, int]] = {}
"""The number of what is open, or -1 and why it cannot be opened."""

_lost: dict[Key, None] = {}
"""Those whose object is gone. Most of them were closed before."""


def _close(key: Key) -> None:
    next(map(c_close, map(_number, map(_open.pop, (key,), (_CLOSED,)))))


def close_lost() -> None:
    """Close those whose object is gone, as the next opening would."""
    for key in list(_lost):
        _close(key)
        _lost.pop(key, None)  # afterwards: it is met again if this is interrupted


def _after_fork_in_child() -> None:
    for key in list(_open):
        descriptor = key()
        if descriptor is None:
            _close(key)
        elif not descriptor.crosses_forks:
            Descriptor.close(descriptor)  # a doorbell's own would take it away


os.register_at_fork(after_in_child=_after_fork_in_child)

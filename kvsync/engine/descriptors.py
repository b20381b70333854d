"""Descriptors that no exception of a signal's handler can lose, and no forked child keeps.

Such an exception can come after any call returns, so after `os.open` too, before anybody knows what
it opened. Therefore the one call into C that opens a descriptor also notes it, and the one that
closes it strikes it out. Who was interrupted and never came to `close` loses it with the object: it
is closed as soon as the next one is opened. (Not by a `__del__`, which would swallow the exception
of a signal that falls into it.)
"""

import os
import threading
import weakref
from contextlib import suppress


class Descriptor:
    """A file that this process has open; programs that it starts do not get it.

    `number` is -1 once it is closed, and in a forked child, which closes its copies at once: its
    `flock` would be the parent's. Only what `crosses_forks` stays open there.
    """

    def __init__(self, path: str, flags: int, *, crosses_forks: bool = False) -> None:
        """Raises: OSError."""
        self.crosses_forks = crosses_forks
        self._key = key = weakref.ref(self, _lost.setdefault)
        hash(key)  # as long as it lives: it has none later, unless it was asked for it
        with _lock:
            _close_lost()
            _open.update(zip((key,), map(os.open, (path,), (flags,)), strict=True))
        self.number = _open[key]

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


_lock = threading.RLock()  # re-entrant for the sake of signal handlers
_open: dict["weakref.ref[Descriptor]", int] = {}
_lost: dict["weakref.ref[Descriptor]", None] = {}
"""Those whose object is gone. Most of them were closed before."""


def _close(key: "weakref.ref[Descriptor]") -> None:
    with _lock, suppress(KeyError, OSError):
        next(map(os.close, map(_open.pop, (key,))))


def _close_lost() -> None:
    for key in list(_lost):
        _close(key)
        _lost.pop(key, None)  # afterwards: it is met again if this is interrupted


def _after_fork_in_child() -> None:
    for key in list(_open):
        found = key()
        if found is None or not found.crosses_forks:
            _close(key)
            if found is not None:
                found.number = -1
    _lock.release()


# Imported before the hooks that close connections are registered, so that it is locked last. Who
# opens or closes one holds the lock: a fork never comes between that and the noting of it.
os.register_at_fork(
    before=_lock.acquire,
    after_in_parent=_lock.release,
    after_in_child=_after_fork_in_child,
)

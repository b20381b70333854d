"""`with` blocks whose end no signal can skip.

A signal's exception can come at the first instruction of any function, `__exit__` too, which is
then skipped as a whole. But Python looks `__exit__` up before it calls `__enter__`, keeps what it
found until the block has ended, and lets go of it before any handler of an exception runs. So what
it finds here is an object made for this block alone, a `Leave`. It is called by C, so that no frame
of a traceback keeps it alive; and if it goes while the block is still to be ended, that ends it.

A block that has ended runs nothing in Python when its `Leave` goes: nothing that a signal could
fall into, and whose exceptions go nowhere.
"""

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import attrgetter
from types import TracebackType
from typing import Any

from kvsync.errors import KvsyncError
from kvsync.primitives.frames import NOTHING
from kvsync.primitives.grants import Grant


class Leave(partial[None]):
    """The `__exit__` of one block, by what it is made of: that is called to end the block.

    As this goes, `_gone` of that is called, which is `NOTHING` unless there may be something to do.
    """

    __del__ = property(attrgetter("func._gone"))  # looked up by C


class Skipped(BaseException):
    """Stands for what came in place of a block's `__exit__`: nobody can tell what that was."""


class _Block:
    """One block of something, or what may become one."""

    def __init__(self, thing: "Enterable") -> None:
        self.thing = thing
        self.grant: Grant | None = None  # None again once it has ended
        self.depth = 0
        self._gone: Callable[[], object] = NOTHING

    def __call__(
        self,
        _kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        _traceback: TracebackType | None = None,
    ) -> None:
        try:
            self.thing._end(self.grant, error)
        except KvsyncError:
            self.grant, self._gone = None, NOTHING
            raise
        self.grant, self._gone = None, NOTHING

    def end_if_skipped(self) -> None:
        self._gone = NOTHING
        if self.grant is not None and self.thing._is_inside(self.grant, self.depth):
            with suppress(KvsyncError):
                self(error=Skipped())


class _Exit:
    """`__exit__` as its class has it."""

    def __get__(self, thing: "Enterable | None", _: Any = None) -> Callable[..., None]:
        if thing is None:
            return _end  # for ExitStack, which looks it up at the class
        leave = Leave(_Block(thing))
        thing._looked_up[threading.get_ident()] = weakref.ref(leave)
        return leave


def _end(
    thing: "Enterable",
    _kind: type[BaseException] | None,
    error: BaseException | None,
    _traceback: TracebackType | None,
) -> None:
    thing._end(None, error)


class Enterable:
    """What can be held for the time of a `with` block: from `_begin` until `_end`."""

    __exit__ = _Exit()

    def __init__(self) -> None:
        self._looked_up: dict[int, weakref.ref[Leave]] = {}  # by thread

    def __enter__(self) -> Grant:
        found = self._looked_up.pop(threading.get_ident(), None)
        leave = found() if found else None
        if leave is None:
            return self._begin()
        block: _Block = leave.func  # type: ignore[assignment]  # that is what it is made of
        block._gone = block.end_if_skipped
        del leave
        try:
            grant = self._begin()
        except BaseException:
            block._gone = NOTHING
            raise
        # Nothing is called from here on, so no signal comes in.
        block.depth = grant.depth
        block.grant = grant
        return grant

    def _begin(self) -> Grant:
        """Have it. Raises: AcquireTimeout, and as `acquire`."""
        raise NotImplementedError

    def _end(self, grant: Grant | None, error: BaseException | None) -> None:
        """Give it back; `grant` is what the block began with, None where that is not known."""
        raise NotImplementedError

    def _is_inside(self, grant: Grant, depth: int) -> bool:
        """Whether a block that began so is still to be ended."""
        return grant.depth >= depth

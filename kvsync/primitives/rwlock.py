"""Read-write locks: many readers or one writer, in the order of asking, so that neither starves."""

from contextlib import suppress
from typing import Any

from kvsync.errors import DeadlockError, KvsyncError
from kvsync.forks import generation
from kvsync.primitives.arguments import Seconds
from kvsync.primitives.grants import Grant, holders, waiters
from kvsync.primitives.lock import SPACE, Lockable, LockStats, Shared
from kvsync.primitives.primitive import Home, Primitive
from kvsync.threads import this_thread


class RWLock(Primitive):
    """A lock whose `read()` side many may hold together, and whose `write()` side one alone.

    Both sides wait in one line: a reader that comes after a waiting writer waits behind it, and
    readers that stand together get in together. A thread that holds the write side may take the
    read side too, and then release the write side (a downgrade). The other way round is refused, at
    once if it is through the same object: two readers that both wait to write would wait for ever.
    Through another object of the same name it is a deadlock like any other. `timeout` and `lease`
    are seconds, or timedeltas.

    Example:
        >>> lock = store.rwlock("catalogue")
        >>> with lock.read():
        ...     pass
    """

    def __init__(
        self,
        store: Home,
        name: str,
        *,
        timeout: Seconds | None = None,
        lease: Seconds | None = None,
    ) -> None:
        super().__init__(store, name)
        self._read = ReadLock(store, name, timeout=timeout, lease=lease)
        self._write = WriteLock(store, name, timeout=timeout, lease=lease)
        self._read.other, self._write.other = self._write, self._read

    def _options(self) -> dict[str, Any]:
        return self._read._options()

    def read(self) -> "ReadLock":
        """The side that many may hold together; the same object each time."""
        return self._read

    def write(self) -> "WriteLock":
        """The side that one holds alone; the same object each time."""
        return self._write

    def stats(self) -> LockStats:
        """Holders and waiters of both sides.

        Blocks no writer, but to pass over a stopped waiter.
        """
        return LockStats(
            self._name,
            tuple(holders(self._store.session, SPACE, self._name)),
            tuple(waiters(self._store.session, SPACE, self._name)),
        )


class _Side(Lockable):
    """One side of a read-write lock; `other` is the other one of the same object."""

    other: "_Side"

    def __reduce__(self) -> tuple[Any, ...]:
        return _side, (self._store, self._name, self._options(), self._kind)

    def _held_now(self) -> Grant | None:
        """This thread's last grant of this side. Raises: LeaseLostError if it is held no more."""
        grant = self._mine()
        if grant is not None and not self._units.is_current(grant):
            raise self._units.lost(grant)
        return grant


class ReadLock(_Side, Shared):
    """The read side of an `RWLock`: see there. A thread may hold it several times.

    Each time has a lease of its own. `extend`, `ensure_held`, `owned` and guards go by all that the
    calling thread has; where it has none, by all of the object. What is lost counts until it is
    released. `acquire` raises LeaseLostError at once if the thread has lost the write side
    of the same object.
    """

    _kind = "read"

    def _acquire(self, timeout: float | None) -> Grant | None:
        writing = self.other._held_now()
        if writing is not None:
            return self._units.join(writing, self._kind, 1, self._lease, timeout)
        return self._units.acquire(self._kind, 1, timeout, self._lease)


class WriteLock(_Side):
    """The write side of an `RWLock`: see there.

    `acquire` raises at once, even with `blocking=False`, if the thread has the read side of the
    same object: DeadlockError, or LeaseLostError if it has lost that.
    """

    _kind = "write"

    def __init__(self, store: Home, name: str, **options: Any) -> None:
        super().__init__(store, name, **options)
        # What blocks began with that are still to end, and whether they are readers now.
        self._inside: dict[Grant, bool] = {}

    def _acquire(self, timeout: float | None) -> Grant | None:
        if self.other._held_now() is not None:
            raise DeadlockError(
                f"rwlock {self._name!r}: this thread holds its read side, and would wait for"
                " itself; release that first, and read again what you know"
            )
        return super()._acquire(timeout)

    def downgrade(self) -> Grant:
        """Go on as a reader, with nobody in between; returns the read side's grant.

        From then on the read side is what is to be released; leaving the `with` block of the write
        side does that too. Whichever thread calls this, the reader is the one that was the writer.

        Raises: NotOwnedError, LeaseLostError.
        """
        writing = self._grant()
        if writing in self._inside:
            self._inside[writing] = True  # first: what a block is left with, its end sees to
        reading = self.other._units.join(writing, "read", 1, self._lease)
        try:
            self._units.release(writing)
        except KvsyncError:
            with suppress(KvsyncError):
                self.other._units.release(reading)
            raise
        except BaseException:
            if writing in self._units.held:
                with suppress(KvsyncError):
                    self._units.release(writing)
            raise
        return reading

    def _begin(self) -> Grant:
        inside = self._inside
        grant = super()._begin()
        inside[grant] = False  # nothing is called from there to here, so no signal comes in
        return grant

    def _end(self, grant: Grant | None, error: BaseException | None) -> None:
        own = self._innermost() if grant is None else grant
        if own is None:
            super()._end(None, error)
        elif own.process == generation() and self._inside.get(own):
            self._end_as_reader(own)
        else:
            self._inside.pop(own, None)
            super()._end(own, error)

    def _end_as_reader(self, own: Grant) -> None:
        try:
            for side in (self, self.other):
                if (mine := side._mine()) is not None:
                    side._units.release(mine)
        except KvsyncError:
            self._inside.pop(own, None)
            raise
        self._inside.pop(own, None)  # last: until then an interrupted end can be made up for

    def _innermost(self) -> Grant | None:
        """What this thread's last block began with that is still to end."""
        here = generation(), this_thread()
        blocks = [each for each in self._inside.copy() if (each.process, each.thread) == here]
        return blocks[-1] if blocks else None

    def _is_inside(self, grant: Grant, depth: int) -> bool:
        return grant in self._inside or super()._is_inside(grant, depth)


def _side(store: Home, name: str, options: dict[str, Any], kind: str) -> _Side:
    both = RWLock(store, name, **options)
    return both.read() if kind == "read" else both.write()

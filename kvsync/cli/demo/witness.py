"""How many are inside at the same time, as the kernel sees it: with locks that are not kvsync's.

Whoever is inside holds one of a few places, an `flock` that ends with its process. Who comes in
takes the first that is free and counts those that are taken. It does so behind another `flock`, so
that nobody comes in meanwhile: the count can only be too low by those who just leave.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Witness:
    """Of a place that `limit` may be in; it counts up to one more."""

    def __init__(self, folder: str, limit: int) -> None:
        self._folder = folder
        self._places = [os.path.join(folder, f"place-{n}") for n in range(limit + 1)]
        self._most = os.path.join(folder, "most")

    @property
    def most(self) -> int:
        """The most that were ever inside together."""
        try:
            return os.stat(self._most).st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be one of those inside."""
        os.makedirs(self._folder, exist_ok=True)
        with _opened(os.path.join(self._folder, "door")) as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            mine, taken = self._take_place()
            if taken + 1 > self.most:
                with _opened(self._most) as most:
                    os.ftruncate(most, taken + 1)
        try:
            yield
        finally:
            if mine is not None:
                os.close(mine)

    def _take_place(self) -> tuple[int | None, int]:
        """Ours, unless all are taken; and how many are others'."""
        mine, taken = None, 0
        for path in self._places:
            place = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not _is_free(place):
                taken += 1
                os.close(place)
            elif mine is None:
                mine = place
            else:
                os.close(place)
        return mine, taken


def _is_free(place: int) -> bool:
    """And if so, it is ours until the descriptor is closed."""
    with suppress(BlockingIOError):
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

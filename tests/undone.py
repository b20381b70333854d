"""A transaction that does not come to pass."""

from collections.abc import Iterator
from contextlib import contextmanager

import kvsync


class _Undone(Exception):
    pass


@contextmanager
def undone(store: kvsync.Store) -> Iterator[None]:
    """`store.transaction()`, whose block is rolled back by an exception at its end."""
    try:
        with store.transaction():
            yield
            raise _Undone
    except _Undone:
        pass

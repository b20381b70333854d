"""Which queue is meant. It is opened as it is stored: raw items, and the `maxsize` that it has."""

from typing import Any

import kvsync
from kvsync.cli.values import NotFoundError


def there(store: kvsync.Store, name: str) -> kvsync.Queue:
    """A queue that is there. Raises: NotFoundError."""
    if not is_there(store, name):
        raise NotFoundError(f"{store.path} holds no queue called {name!r}")
    return as_stored(store, name)


def is_there(store: kvsync.Store, name: str) -> bool:
    """Whether anything was ever put into a queue of that name."""
    return name in store.names("queue")


def as_stored(store: kvsync.Store, name: str, **options: Any) -> kvsync.Queue:
    """Whatever codec its items are of: this one keeps them as they are."""
    return store.queue(name, store.queue(name).stats().maxsize, codec="raw", **options)

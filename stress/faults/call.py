"""What is to be known of a call that a fault meets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import kvsync


@dataclass(frozen=True)
class Call:
    perform: Callable[[kvsync.Store], object]
    seen: Callable[[kvsync.Store], object]
    prepare: Callable[[kvsync.Store], object] = lambda _store: None
    holds: bool = False
    clean: bool = False
    """Whether nothing is held after it has failed."""
    beside: bool = False
    """Whether another process has the store open meanwhile."""
    durability: str = "power"
    keeps: int = 0
    """Items that its queue has at least, whatever happens to its process."""


@cache
def mine(store: kvsync.Store, kind: str, *arguments: Any) -> Any:
    """The same object in every attempt: a grant belongs to the object that acquired it."""
    return getattr(store, kind)("it", *arguments)

"""The sides of the comparison. Each runs as a newcomer would set it up, and says how that is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.crew import Step


class Unavailable(Exception):
    """This peer cannot take part; says why."""


class Peer:
    """One side. Pickles, so that workers get their own; `folder` is its alone, on disk."""

    name: str
    setting: str
    weight = 1
    """Operations that one call of the step stands for."""

    def version(self) -> str:
        """What is installed. Raises: Unavailable."""
        raise NotImplementedError

    @contextmanager
    def serving(self, folder: str) -> Iterator[None]:
        """Around everything, in the parent: make the file, or keep a server running.

        Raises: Unavailable.
        """
        del folder
        yield

    def adder(self, folder: str) -> Step:
        """In a worker: what adds 1 to the one counter that all workers share."""
        raise NotImplementedError

    def total(self, folder: str) -> int:
        """What the counter says."""
        raise NotImplementedError

    def mapping(self, folder: str) -> Any:
        """In a worker: an object with `[key]`, `get(key)` and `[key] = value`."""
        raise NotImplementedError

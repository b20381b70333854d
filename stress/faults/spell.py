"""The time for which a fault is on."""

from typing import Self

from stress.history import now
from stress.record import Fault


class Spell:
    """It is on for as long as the block lasts, or until `end`."""

    def __init__(self, kind: str, process: int) -> None:
        self._kind, self._process = kind, process
        self._began = now()
        self._ended: int | None = None

    def end(self) -> None:
        """It is over, unless it was before."""
        self._ended = self._ended or now()

    @property
    def fault(self) -> Fault:
        """For the record, once it is over."""
        return Fault(self._kind, self._process, self._began, self._ended)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

"""What a shared object does when it is called by one after the other."""

from collections.abc import Collection, Hashable
from typing import Any, Protocol

from stress.history import History, Operation

State = Any
"""Hashable; two states that are equal behave alike for ever."""


class Model(Protocol):
    """The sequential specification of a shared object."""

    initial: State

    def completed(self, history: History) -> History:
        """And after it, what may have happened too, though nobody could write it down."""

    def after(self, state: State, operation: Operation) -> Collection[State]:
        """The states in which the operation can leave the object; none if it cannot happen.

        The result of an operation whose outcome is unknown says nothing.
        """

    def likeness(self, operation: Operation) -> Hashable:
        """Equal for two operations of unknown outcome that do the same in every state."""


def says(operation: Operation, result: object) -> bool:
    """Whether that may be its result."""
    return not operation.known or operation.result == result


class Anonymous:
    """A model that asks what is called and never by whom."""

    def completed(self, history: History) -> History:
        return history

    def likeness(self, operation: Operation) -> Hashable:
        return operation.function, operation.argument

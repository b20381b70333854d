"""Views of a mapping that stream: a page at a time, not a read for each key."""

from collections.abc import ItemsView, Iterator, ValuesView
from typing import Protocol, TypeVar

V_co = TypeVar("V_co", covariant=True)


class Streaming(Protocol[V_co]):
    """A mapping that can go through its items in key order, in short reads."""

    def _stream(self) -> Iterator[tuple[str, V_co]]: ...


class StreamedItems(ItemsView[str, V_co]):
    """`mapping.items()`."""

    _mapping: "Streaming[V_co]"

    def __iter__(self) -> Iterator[tuple[str, V_co]]:
        return self._mapping._stream()


class StreamedValues(ValuesView[V_co]):
    """`mapping.values()`."""

    _mapping: "Streaming[V_co]"

    def __iter__(self) -> Iterator[V_co]:
        return (value for _, value in self._mapping._stream())

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)

"""Counters: 64-bit integers that any number of processes add to without losing one.

Each change is a single statement, so it is atomic without a lock around it. The bounds that an
addition must not pass are worked out here and stand in the statement's `where`: a row that would
overflow is left alone, and no row comes back.
"""

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from kvsync.engine import Params, Transaction
from kvsync.errors import CounterOverflowError
from kvsync.primitives.primitive import Home, Primitive, check_name
from kvsync.primitives.views import StreamedItems, StreamedValues

if TYPE_CHECKING:
    from kvsync.primitives.buffered import BufferedCounter

MIN, MAX = -(2**63), 2**63 - 1

_ADD = """
    insert into kvsync_counter (family, label, value) values (:family, :label, :n)
    on conflict (family, label) do update set value = kvsync_counter.value + :n
    where kvsync_counter.value between :low and :high
    returning value
"""
_SET = """
    insert into kvsync_counter (family, label, value) values (:family, :label, :value)
    on conflict (family, label) do update set value = :value
"""
_PAGE = 256


@dataclass(frozen=True)
class CounterStats:
    """A counter at one moment."""

    name: str
    value: int


@dataclass(frozen=True)
class CountersStats:
    """A family of counters at one moment."""

    name: str
    labels: int


class Counter(Primitive):
    """An integer of 64 bits, shared by all processes that open the store; 0 until somebody adds.

    Example:
        >>> hits = store.counter("hits")
        >>> hits.add()
        1
    """

    def __init__(self, store: Home, name: str, *, family: str = "") -> None:
        super().__init__(store, name)
        self._family = family
        self._add_one = addition(family, name, 1)

    def _options(self) -> dict[str, str]:
        return {"family": self._family} if self._family else {}

    def add(self, n: int = 1) -> int:
        """Add `n`, atomically; returns the new value.

        Raises: CounterOverflowError past 64 bits, TypeError for what is no int; BusyError,
        ClosedError, StoreReplacedError as any call. Nothing is changed then.
        """
        if n == 1 and type(n) is int:
            rows = self._engine.write(_ADD, self._add_one)
        elif MIN <= check_int(n) <= MAX:
            rows = self._engine.write(_ADD, addition(self._family, self._name, n))
        else:
            return self._engine.transact(partial(self._add_beyond, n))
        if not rows:
            raise overflow(self._name, n)
        value: int = rows[0][0]
        return value

    def _add_in(self, transaction: Transaction, n: int) -> None:
        """The same as a part of a transaction."""
        if not MIN <= n <= MAX:
            self._add_beyond(n, transaction)
        elif not transaction.execute(_ADD, addition(self._family, self._name, n)):
            raise overflow(self._name, n)

    def _add_beyond(self, n: int, transaction: Transaction) -> int:
        """Add what exceeds 64 bits by itself: the sum may fit all the same."""
        total = self.value + n
        if not MIN <= total <= MAX:
            raise overflow(self._name, n)
        transaction.execute(_SET, self._to(total))
        return total

    def sub(self, n: int = 1) -> int:
        """Subtract `n`, atomically; returns the new value. Raises: as `add`."""
        return self.add(-check_int(n))

    @property
    def value(self) -> int:
        """The value now. Blocks no writer."""
        rows = self._engine.read(
            "select value from kvsync_counter where family = :family and label = :label",
            {"family": self._family, "label": self._name},
        )
        return rows[0][0] if rows else 0

    def set(self, value: int) -> None:
        """Make it `value`, whatever it was. Raises: as `add`."""
        self._engine.write(_SET, self._to(check_range(value)))

    def _to(self, value: int) -> Params:
        return {"family": self._family, "label": self._name, "value": value}

    def reset(self) -> int:
        """Make it 0; returns what it was. No add is lost between the two.

        Raises: BusyError, ClosedError, StoreReplacedError as any call.
        """

        def work(transaction: Transaction) -> int:
            old = self.value
            if old:
                transaction.execute(_SET, self._to(0))
            return old

        return self._engine.transact(work)

    def compare_and_set(self, expected: int, new: int) -> bool:
        """Make it `new` if it is `expected`; returns whether it was.

        Raises: TypeError for what is no int, CounterOverflowError if `new` exceeds 64 bits;
        BusyError, ClosedError, StoreReplacedError as any call.
        """
        check_int(expected)
        check_range(new)

        def work(transaction: Transaction) -> bool:
            equal = self.value == expected
            if equal:
                transaction.execute(_SET, self._to(new))
            return equal

        return self._engine.transact(work)

    def buffered(self, interval: float = 0.1) -> "BufferedCounter":
        """A write-behind face on this counter, for hot paths: see `BufferedCounter`.

        Args:
            interval: seconds between flushes; what a SIGKILL can lose.

        Raises: TypeError, ValueError unless that is a finite number above zero.
        """
        from kvsync.primitives.buffered import BufferedCounter

        return BufferedCounter(self, interval=interval)

    def stats(self) -> CounterStats:
        """The value now, with its name. Blocks no writer."""
        return CounterStats(self._name, self.value)

    def __iadd__(self, n: int) -> "Counter":
        self.add(n)
        return self

    def __isub__(self, n: int) -> "Counter":
        self.sub(n)
        return self

    def __int__(self) -> int:
        return self.value

    __index__ = __int__


class Counters(Primitive, Mapping[str, int]):
    """A family of counters under labels, such as one for each route.

    As a mapping it shows the labels that were ever added to; any other reads as 0.

    Raises: wherever a label is taken, TypeError and InvalidNameError: labels are as names.

    Example:
        >>> by_route = store.counters("http")
        >>> by_route.add("GET /")
        1
    """

    def add(self, label: str, n: int = 1) -> int:
        """Add `n` to one label, atomically; returns its new value. Raises: as `Counter.add`."""
        return self.counter(label).add(n)

    def add_many(self, amounts: Mapping[str, int]) -> None:
        """Add to each label its amount, in one commit: all or none. Raises: as `Counter.add`."""
        additions = [(self.counter(label), check_int(n)) for label, n in dict(amounts).items()]

        def work(transaction: Transaction) -> None:
            for counter, n in additions:
                counter._add_in(transaction, n)

        if additions:
            self._engine.transact(work)

    def counter(self, label: str) -> Counter:
        """The counter under one label, made without a look at the store: see `Counter`."""
        return Counter(self._store, label, family=self._name)

    def clear(self) -> None:
        """Forget every label, in one commit.

        Raises: BusyError, ClosedError, StoreReplacedError as any call.
        """
        self._engine.write(
            "delete from kvsync_counter where family = :family", {"family": self._name}
        )

    def stats(self) -> CountersStats:
        """How many labels there are. Blocks no writer."""
        return CountersStats(self._name, len(self))

    def __getitem__(self, label: str) -> int:
        return self.counter(label).value

    def __contains__(self, label: object) -> bool:
        return bool(
            self._engine.read(
                "select 1 from kvsync_counter where family = :family and label = :label",
                {"family": self._name, "label": check_name(label)},
            )
        )

    def __iter__(self) -> Iterator[str]:
        return (label for label, _ in self._stream())

    def items(self) -> ItemsView[str, int]:
        """Labels and values in label order, read a page at a time."""
        return StreamedItems(self)

    def values(self) -> ValuesView[int]:
        """The values in the order of their labels, read a page at a time."""
        return StreamedValues(self)

    def __len__(self) -> int:
        ((count,),) = self._engine.read(
            "select count(*) from kvsync_counter where family = :family", {"family": self._name}
        )
        return int(count)

    def _stream(self) -> Iterator[tuple[str, int]]:
        """Labels and values in label order, one short read for each page."""
        after = ""
        while rows := self._engine.read(
            "select label, value from kvsync_counter"
            " where family = :family and label > :after order by label limit :page",
            {"family": self._name, "after": after, "page": _PAGE},
        ):
            yield from rows
            after = rows[-1][0]


def addition(family: str, label: str, n: int) -> dict[str, str | int]:
    """The parameters of `_ADD`: the sum fits exactly where the old value is in low..high."""
    low, high = (MIN, MAX - n) if n >= 0 else (MIN - n, MAX)
    return {"family": family, "label": label, "n": n, "low": low, "high": high}


def check_int(n: int) -> int:
    """The number itself. Raises: TypeError for what is no int, bool included."""
    if type(n) is not int and (not isinstance(n, int) or isinstance(n, bool)):
        raise TypeError(f"a counter holds ints, not {type(n).__name__}: {n!r}")
    return n


def check_range(n: int) -> int:
    """The number itself. Raises: TypeError; CounterOverflowError if it exceeds 64 bits."""
    if not MIN <= check_int(n) <= MAX:
        raise CounterOverflowError(f"{n} does not fit into 64 bits")
    return n


def overflow(label: str, n: object) -> CounterOverflowError:
    return CounterOverflowError(f"adding {n} would take the counter {label!r} past 64 bits")

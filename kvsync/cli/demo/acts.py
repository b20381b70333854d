"""What the demo does, act by act: a new act is a class here and a line in `ACTS`.

An act names the things that it changes. `perform` is one operation on one of them, and adds 1 to
it: when it returns, it counts.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Protocol, runtime_checkable

import kvsync
from kvsync.cli.demo.witness import Witness

LIMIT = 3
"""Permits of the semaphore."""

_PATIENCE = 30.0
"""Seconds after which there is an item for everybody, or something is wrong."""

_STAY = 0.001
"""Seconds of a visit behind it, so that others want to get in meanwhile."""


@dataclass(frozen=True)
class Span:
    """What a number must be: `low`, or up to `high` where an operation was cut short."""

    low: int
    high: int

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.low <= number <= self.high

    def __str__(self) -> str:
        return f"{self.low:,}" if self.low == self.high else f"{self.low:,} to {self.high:,}"


@dataclass(frozen=True)
class Check:
    """Something that must be so in the end."""

    what: str
    expected: Span | str
    found: int | str

    @property
    def ok(self) -> bool:
        if isinstance(self.expected, Span):
            return self.found in self.expected
        return self.found == self.expected


class Act(Protocol):
    """One kind of shared thing. It pickles, for the processes get it as an argument."""

    @property
    def things(self) -> Sequence[str]:
        """What it changes, each counted for itself."""

    def perform(self, store: kvsync.Store, thing: str) -> None:
        """One operation."""

    def checks(self, store: kvsync.Store, due: Mapping[str, Span]) -> Iterator[Check]:
        """Compare what is found with what is due for each of its things."""


@runtime_checkable
class Guarded(Act, Protocol):
    """An act in which something is held: "it", the thing itself, or what else `holds` says."""

    holds: str

    def perform_inside(self, store: kvsync.Store, inside: Callable[[], object]) -> None:
        """The operation; `inside` is called where a death does most harm, and not much was done.

        Who dies there has changed nothing that counts.
        """


class SharedCounter:
    """A counter that everybody adds to."""

    things = ("counter",)

    def perform(self, store: kvsync.Store, _: str) -> None:
        store.counter("hits").add()

    def checks(self, store: kvsync.Store, due: Mapping[str, Span]) -> Iterator[Check]:
        yield Check("counter", due["counter"], store.counter("hits").value)


class SharedDict:
    """Entries of a dict that everybody increments."""

    things = ("apples", "figs", "pears", "plums")

    def perform(self, store: kvsync.Store, thing: str) -> None:
        store.dict("basket").increment(thing)

    def checks(self, store: kvsync.Store, due: Mapping[str, Span]) -> Iterator[Check]:
        basket = store.dict("basket")
        for thing in self.things:
            yield Check(f"dict, {thing}", due[thing], basket.get(thing, 0))


class Pair:
    """A counter and an entry that change in one transaction, hence always agree."""

    things = ("transaction",)

    def perform(self, store: kvsync.Store, _: str) -> None:
        with store.transaction():
            store.counter("pair").add()
            store.dict("pair").increment("entry")

    def checks(self, store: kvsync.Store, due: Mapping[str, Span]) -> Iterator[Check]:
        counter, entry = store.counter("pair").value, store.dict("pair").get("entry", 0)
        yield Check("transaction, counter", due["transaction"], counter)
        yield Check("transaction, entry", due["transaction"], entry)
        yield Check("transaction, their difference", Span(0, 0), counter - entry)


class CriticalSection:
    """A number in a plain file, read and written again while a lock is held."""

    things = ("lock",)
    holds = "it"

    def perform(self, store: kvsync.Store, _: str) -> None:
        self.perform_inside(store, _nothing)

    def perform_inside(self, store: kvsync.Store, inside: Callable[[], object]) -> None:
        with store.lock("ledger"):
            number = _read_number(self._path(store))
            inside()
            _write_number(self._path(store), number + 1)

    def checks(self, store: kvsync.Store, due: Mapping[str, Span]) -> Iterator[Check]:
        yield Check("lock, number in a file", due["lock"], _read_number(self._path(store)))

    def _path(self, store: kvsync.Store) -> str:
        return os.path.join(os.path.dirname(store.path), "ledger")


class Room:
    """A room for a few: a semaphore lets them in, the kernel counts them, each leaves a mark."""

    things = ("semaphore",)
    holds = "it"

    def perform(self, store: kvsync.Store, _: str) -> None:
        self.perform_inside(store, _nothing)

    def perform_inside(self, store: kvsync.Store, inside: Callable[[], object]) -> None:
        with store.semaphore("room", LIMIT), self._witness(store).inside():
            inside()
            time.sleep(_STAY)
            with open(self._path(store, "visits"), "ab", buffering=0) as visits:
                visits.write(b".")

    def checks(self, store: kvsync.Store, due: Mapping[str, Span]) -> Iterator[Check]:
        path = self._path(store, "visits")
        visits = os.path.getsize(path) if os.path.exists(path) else 0
        yield Check("semaphore, visits", due["semaphore"], visits)
        most = Span(min(1, due["semaphore"].low), LIMIT)
        yield Check("semaphore, most inside", most, self._witness(store).most)

    def _witness(self, store: kvsync.Store) -> Witness:
        return Witness(self._path(store), LIMIT)

    def _path(self, store: kvsync.Store, *names: str) -> str:
        return os.path.join(os.path.dirname(store.path), "room", *names)


class WorkQueue:
    """A queue that everybody fills and works off: each puts one item and does another.

    What an item has led to is committed with its acknowledgement, so it is done once, though it
    may be handed out more often. The one that dies has an item in hand, which goes to another.
    """

    things = ("queue",)
    holds = "an item"

    def perform(self, store: kvsync.Store, _: str) -> None:
        self.perform_inside(store, _nothing)

    def perform_inside(self, store: kvsync.Store, inside: Callable[[], object]) -> None:
        jobs = self._jobs(store)
        jobs.put(os.getpid())
        with jobs.reserve(timeout=_PATIENCE) as task:
            inside()
            self._do(store, task)

    def _do(self, store: kvsync.Store, task: kvsync.Task) -> None:
        with store.transaction():
            store.dict("done").increment(str(task.id))
            task.ack()

    def checks(self, store: kvsync.Store, due: Mapping[str, Span]) -> Iterator[Check]:
        """Whoever was killed with an item in hand has put it, or another, and done none."""
        jobs, done, low, high = self._jobs(store), store.dict("done"), *astuple(due["queue"])
        once = sum(times == 1 for times in done.values())
        for task in jobs.tasks(timeout=0):
            self._do(store, task)
        put = (jobs.put("last") or 0) - 1
        left = sum(times == 1 for times in done.values()) - once
        yield Check("queue, items put", Span(low + 1, high + 1), put)
        yield Check("queue, done exactly once", due["queue"], once)
        yield Check("queue, still in it", Span(1, 1 + high - low), left)
        yield Check("queue, lost or done again", Span(0, 0), put - once - left)
        yield Check("queue, dead letters", Span(0, 0), len(jobs.dead))

    def _jobs(self, store: kvsync.Store) -> kvsync.Queue:
        return store.queue("jobs")


def _nothing() -> None:
    """What is done inside, as a rule."""


def _read_number(path: str) -> int:
    try:
        with open(path, "rb", buffering=0) as file:
            return int(file.read() or 0)
    except FileNotFoundError:
        return 0


def _write_number(path: str, number: int) -> None:
    """One call of so many digits each time: a kill comes before it, or after."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, b"%020d" % number)
    finally:
        os.close(descriptor)


class Integrity:
    """The file itself, after all that."""

    things = ()

    def perform(self, store: kvsync.Store, thing: str) -> None:
        """There is nothing to do."""

    def checks(self, store: kvsync.Store, _: Mapping[str, Span]) -> Iterator[Check]:
        damage = store.check().damage
        yield Check("integrity of the file", "sound", damage[0] if damage else "sound")


ACTS: Sequence[Act] = (
    SharedCounter(),
    SharedDict(),
    Pair(),
    CriticalSection(),
    Room(),
    WorkQueue(),
    Integrity(),
)


def operations(acts: Sequence[Act]) -> list[tuple[Act, str]]:
    """All that can be done, at most 254: each one's place in the list is its code."""
    return [(act, thing) for act in acts for thing in act.things]


def guarded(acts: Sequence[Act]) -> list[Guarded]:
    """Those in which something is held."""
    return [act for act in acts if isinstance(act, Guarded)]

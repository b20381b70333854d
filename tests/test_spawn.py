"""A spawned process: what it is given as an argument is, there too, the same thing in the store."""

import inspect
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

import kvsync
from tests.processes import expect, running
from tests.test_arguments import KINDS, LOCKS


class Trace(NamedTuple):
    """What one process leaves, the other sees, and the first takes away."""

    leave: Callable[[Any], object]
    is_seen: Callable[[Any], bool]
    take_away: Callable[[Any], object]


def take_all(made: Any) -> None:
    """A semaphore of two permits, or a limiter of two units, has none left."""
    assert made.acquire(n=2)


def is_excluded(made: Any) -> bool:
    """By somebody else, whom it names."""
    return not made.acquire(blocking=False) and made.holder().pid != os.getpid()


def is_shared(read: Any) -> bool:
    """It is held by another, and has room for us."""
    held_by_another = read.locked() and not read.owned()
    with read:
        return held_by_another and len(read.stats().holders) == 2


HELD = Trace(lambda made: made.acquire(), is_excluded, lambda made: made.release())

TRACES = dict.fromkeys(LOCKS, HELD) | {
    "semaphore": Trace(
        take_all, lambda made: not made.acquire(blocking=False), lambda made: made.release(2)
    ),
    "read lock": HELD._replace(is_seen=is_shared),
    "rwlock": Trace(
        lambda made: made.write().acquire(),
        lambda made: not made.read().acquire(blocking=False),
        lambda made: made.write().release(),
    ),
    "condition": HELD._replace(is_seen=lambda made: not made.acquire(blocking=False)),
    "event": Trace(lambda made: made.set(), lambda made: made.wait(0), lambda made: made.clear()),
    "barrier": Trace(
        lambda made: made.abort(), lambda made: made.broken, lambda made: made.reset()
    ),
    "rate limiter": Trace(take_all, lambda made: not made.try_acquire(), lambda made: made.reset()),
    "once": Trace(
        lambda made: made.run(lambda: "done"),
        lambda made: made.done() and made.run(pytest.fail) == "done",
        lambda made: made.reset(),
    ),
    "dict": Trace(
        lambda made: made.update(k="v"),
        lambda made: dict(made) == {"k": "v"},
        lambda made: made.clear(),
    ),
    "counter": Trace(
        lambda made: made.add(2), lambda made: made.value == 2, lambda made: made.reset()
    ),
    "label": Trace(
        lambda made: made.add(2), lambda made: made.value == 2, lambda made: made.reset()
    ),
    "counters": Trace(
        lambda made: made.add("k", 2),
        lambda made: dict(made) == {"k": 2},
        lambda made: made.clear(),
    ),
    "queue": Trace(
        lambda made: made.put("item"), lambda made: made.qsize() == 1, lambda made: made.get()
    ),
}


def is_there(things: dict[str, Any]) -> dict[str, bool]:
    return {kind: TRACES[kind].is_seen(made) for kind, made in things.items()}


def look_and_leave(pipe: Any, things: dict[str, Any]) -> None:
    """Tell which traces are there; leave our own once they are gone, and live on until told."""
    pipe.send({kind: repr(made) for kind, made in things.items()})
    pipe.send(is_there(things))
    expect(pipe)
    for kind, made in things.items():
        TRACES[kind].leave(made)
    pipe.send("left")
    expect(pipe)


def test_every_kind_is_an_argument_of_a_spawned_process(store: kvsync.Store) -> None:
    """Who leaves what, is seen by the other one: ours by the child, and the child's by us."""
    things = {kind: made(store, kind) for kind in TRACES}
    everywhere = dict.fromkeys(TRACES, True)
    for kind, thing in things.items():
        TRACES[kind].leave(thing)
    with running(look_and_leave, things, method="spawn") as (_, pipe):
        assert expect(pipe) == {kind: repr(thing) for kind, thing in things.items()}
        assert expect(pipe) == everywhere
        for kind, thing in things.items():
            TRACES[kind].take_away(thing)
        pipe.send("gone")
        assert expect(pipe) == "left"
        assert is_there(things) == everywhere


def made(store: kvsync.Store, kind: str) -> Any:
    """Each by another name, with the arguments that it needs."""
    if kind in KINDS:
        return KINDS[kind].make(store, kind)
    if kind == "label":
        return store.counters("family").counter(kind)
    return getattr(store, kind)(kind)


def test_every_kind_is_spawned_here() -> None:
    """Whatever the store makes that takes a name."""
    found = {
        name
        for name, method in inspect.getmembers(kvsync.Store, inspect.isfunction)
        if not name.startswith("_") and "name" in inspect.signature(method).parameters
    }
    spawned = {kind.replace(" ", "_") for kind in TRACES}
    assert found - {"names", "delete"} == spawned - {"label", "read_lock", "write_lock"}

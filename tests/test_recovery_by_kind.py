"""Whatever is held: when its holder is killed, the next one has it, which is another process."""

import signal
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

import kvsync
from tests.lines import until_waiting
from tests.processes import PATIENCE, expect, kill, running
from tests.test_recovery import no_net

NAME = "job"

Held = Callable[[], object]
"""Says that it is held, and does not return."""


class Kind(NamedTuple):
    """`hold` has it until killed; `take` waits for it, and returns what shows that it has it."""

    hold: Callable[[kvsync.Store, Held], object]
    take: Callable[[kvsync.Store], object]
    together: int = 1
    """So many take it at the same time."""


def permits(limit: int, n: int) -> Callable[[kvsync.Store], object]:
    return lambda store: store.semaphore(NAME, limit).acquire(n=n)


def read(store: kvsync.Store) -> object:
    return store.rwlock(NAME).read().acquire()


def write(store: kvsync.Store) -> object:
    return store.rwlock(NAME).write().acquire()


def take_twice(store: kvsync.Store) -> object:
    lock = store.rlock(NAME)
    return lock.acquire() and lock.acquire()


def campaign(store: kvsync.Store) -> object:
    election = store.election(NAME)
    return election.campaign() and election.is_leader()


def run_once(store: kvsync.Store, work: Callable[[], object] = lambda: True) -> object:
    return store.once(NAME).run(work)


def after(take: Callable[[kvsync.Store], object]) -> Callable[[kvsync.Store, Held], object]:
    return lambda store, held: take(store) and held()


KINDS: dict[str, Kind] = {
    "one of one permit": Kind(after(permits(1, 1)), permits(1, 1)),
    "two of two permits, for one": Kind(after(permits(2, 2)), permits(2, 2)),
    "two of two permits, for two": Kind(after(permits(2, 2)), permits(2, 1), together=2),
    "one of two permits, for both": Kind(after(permits(2, 1)), permits(2, 2)),
    "read after write": Kind(after(write), read, together=2),
    "write after read": Kind(after(read), write),
    "write after write": Kind(after(write), write),
    "rlock, taken twice": Kind(after(take_twice), take_twice),
    "election": Kind(after(campaign), campaign),
    "once": Kind(run_once, run_once),
}


def hold(pipe: Any, path: str, kind: str) -> None:
    def held() -> None:
        pipe.send("held")
        signal.pause()

    KINDS[kind].hold(kvsync.open(path), held)


def take(pipe: Any, path: str, kind: str) -> None:
    """No safety net wakes this process: who is before it does, or its death."""
    no_net()
    with kvsync.open(path) as store:
        pipe.send(KINDS[kind].take(store))
        pipe.recv()


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_one_has_what_a_killed_process_held(store: kvsync.Store, kind: str) -> None:
    """All who can have it together do; and who comes later, when they are killed too, as well."""
    with ExitStack() as stack:
        holder, pipe = stack.enter_context(running(hold, store.path, kind))
        expect(pipe)
        waiters = []
        for number in range(1, KINDS[kind].together + 1):
            waiters.append(stack.enter_context(running(take, store.path, kind)))
            until_waiting(store, number)
        kill(holder)
        assert [expect(pipe) for _, pipe in waiters] == [True] * len(waiters)
        for child, _ in waiters:
            kill(child)
        _, late = stack.enter_context(running(take, store.path, kind))
        assert expect(late)


def meet(pipe: Any, path: str) -> None:
    """Again, when told, if it breaks."""
    barrier = kvsync.open(path).barrier(NAME, 3)
    try:
        barrier.wait()
    except kvsync.BrokenBarrierError:
        pipe.send("broken")
        pipe.recv()
        barrier.wait()
    pipe.send("met")


@pytest.mark.parametrize("place", [0, 1])
def test_a_barrier_whose_party_is_killed_is_there_for_the_next(
    store: kvsync.Store, place: int
) -> None:
    """The others are told, and once it is reset they meet, with another in place of the dead."""
    barrier = store.barrier(NAME, 3)
    with ExitStack() as stack:
        children = []
        for number in (1, 2):
            children.append(stack.enter_context(running(meet, store.path)))
            until_waiting(store, number)
        kill(children.pop(place)[0])
        ((_, survivor),) = children
        assert expect(survivor) == "broken"
        barrier.reset()
        survivor.send("again")
        _, another = stack.enter_context(running(meet, store.path))
        barrier.wait(PATIENCE)
        assert [expect(survivor), expect(another)] == ["met", "met"]

"""A hundred processes that wait, and have nothing to do, together cost less than 2 % of one core:
all for one lock or for items of one queue, or each for a lock, an event or a queue of its own.

A sample is one look at each of these, once the waiters have been at rest for a while.
"""

import ctypes
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from queue import Empty

import psutil

import kvsync
from stress.crew import Crew, Worker
from stress.stage import SOUND, Stage

UNIT = "samples"
PROCESSES = 100
PRIMITIVES = ("lock", "event", "queue")
SLOW = True  # to spawn so many takes long, and who else is busy makes each look dearer

LIMIT = 0.02
"""Of one core."""

_REST, _SAMPLE = 3.0, 5.0
"""Seconds: a sample is as long as the longest sleep, so that each waiter looks once in it."""


class _Awaited(ABC):
    """What nobody has until the master lets them."""

    name: str

    @abstractmethod
    def shut(self) -> None:
        """From now on it is waited for."""

    @abstractmethod
    def let(self, how_many: int, /) -> None:
        """Let so many have it, who wait."""

    @abstractmethod
    def waiters(self) -> int:
        """How many wait for it."""

    @abstractmethod
    def have(self, timeout: float | None = None) -> bool:
        """Wait for it, and give it back; False if it did not come."""


class _Lock(_Awaited):
    def __init__(self, store: kvsync.Store, name: str = "turn") -> None:
        self.name, self.lock = name, store.lock(name)

    def shut(self) -> None:
        self.lock.acquire()

    def let(self, _how_many: int) -> None:
        self.lock.release()

    def waiters(self) -> int:
        return len(self.lock.stats().waiters)

    def have(self, timeout: float | None = None) -> bool:
        if had := self.lock.acquire(timeout=timeout):
            self.lock.release()
        return had


class _Event(_Awaited):
    def __init__(self, store: kvsync.Store, name: str = "turn") -> None:
        self.name, self.event = name, store.event(name)

    def shut(self) -> None:
        self.event.clear()

    def let(self, _how_many: int) -> None:
        self.event.set()

    def waiters(self) -> int:
        return len(self.event.stats().waiters)

    def have(self, timeout: float | None = None) -> bool:
        return self.event.wait(timeout)


class _Queue(_Awaited):
    def __init__(self, store: kvsync.Store, name: str = "turn") -> None:
        self.name, self.queue = name, store.queue(name)

    def shut(self) -> None:
        self.queue.purge()

    def let(self, how_many: int) -> None:
        self.queue.put_many(range(how_many))

    def waiters(self) -> int:
        return self.queue.stats().getters

    def have(self, timeout: float | None = None) -> bool:
        try:
            self.queue.reserve(timeout=timeout).ack()
        except Empty:
            return False
        return True


def _poll(thing: _Awaited) -> None:
    while not thing.have(timeout=0):
        time.sleep(0.01)


WAYS: dict[str, Callable[[_Awaited], object]] = {SOUND: lambda thing: thing.have(), "poll": _poll}

SHAPES: dict[str, Callable[[kvsync.Store, int], _Awaited]] = {
    "one lock": lambda store, _: _Lock(store),
    "one queue": lambda store, _: _Queue(store),
    "a lock each": lambda store, number: _Lock(store, f"turn {number}"),
    "an event each": lambda store, number: _Event(store, f"turn {number}"),
    "a queue each": lambda store, number: _Queue(store, f"turn {number}"),
}


def _wait_as_told(worker: Worker) -> None:
    assert worker.store.session.id
    worker.ready()
    while shape := worker.pipe.recv():
        WAYS[worker.way](SHAPES[shape](worker.store, worker.number))


def _cpu_seconds(pid: int) -> float:
    """As exactly as the system tells: a process that hardly runs shows in no clock tick."""
    if not sys.platform.startswith("linux"):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    clock = ctypes.c_int()
    if ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise ProcessLookupError(pid)
    return time.clock_gettime(clock.value)


def _used(crew: Crew) -> float:
    return sum(_cpu_seconds(member.process.pid or 0) for member in crew.members)


def run(stage: Stage) -> None:
    used, passed = Counter[str](), Counter[str]()
    with stage.open() as store, Crew(stage) as crew:
        crew.start(_wait_as_told, stage.processes)
        crew.assemble()
        samples = 0
        while not stage.enough(samples):
            samples += 1
            for shape in SHAPES:
                seconds, cost = _sample(stage, store, crew, shape)
                passed[shape] += seconds
                used[shape] += cost
        for member in crew.members:
            member.dismiss("")
    stage.figures |= {"waiters": stage.processes}
    for shape in SHAPES:
        share = used[shape] / passed[shape]
        stage.figures |= {f"% of a core, {shape}": round(100 * share, 2)}
        stage.expect(share < LIMIT, f"{stage.processes} idle, {shape}: {share:.1%} of a core")
    stage.expect_sound_file()


def _sample(stage: Stage, store: kvsync.Store, crew: Crew, shape: str) -> tuple[float, float]:
    """The seconds that passed, and those of a core that the waiters used meanwhile."""
    awaited = [SHAPES[shape](store, member.number) for member in crew.members]
    things = {thing.name: thing for thing in awaited}.values()
    for thing in things:
        thing.shut()
    for member in crew.members:
        member.pipe.send(shape)
    if stage.way == SOUND:
        crew.until(lambda: sum(thing.waiters() for thing in things) == stage.processes)
    crew.watch(_REST)
    began, before = time.monotonic(), _used(crew)
    crew.watch(_SAMPLE)
    result = time.monotonic() - began, _used(crew) - before
    for thing in things:
        thing.let(stage.processes // len(things))
    return result

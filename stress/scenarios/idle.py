"""A hundred processes that wait, and have nothing to do, together cost less than 2 % of one core:
all for one lock, each for a lock of its own, or each for an event of its own.

A sample is one look at each of these, once the waiters have been at rest for a while.
"""

import ctypes
import sys
import time
from collections import Counter
from collections.abc import Callable

import psutil

import kvsync
from stress.crew import Crew, Worker
from stress.stage import SOUND, Stage

UNIT = "samples"
PROCESSES = 100
PRIMITIVES = ("lock", "event")
SLOW = True  # to spawn so many takes long, and who else is busy makes each look dearer

LIMIT = 0.02
"""Of one core."""

_REST, _SAMPLE = 3.0, 5.0
"""Seconds: a sample is as long as the longest sleep, so that each waiter looks once in it."""

_Awaited = kvsync.Lock | kvsync.Event


def _wait(thing: _Awaited) -> object:
    return thing.acquire() if isinstance(thing, kvsync.Lock) else thing.wait()


def _poll(thing: _Awaited) -> None:
    def try_it() -> bool:
        lock = isinstance(thing, kvsync.Lock)
        return thing.acquire(blocking=False) if lock else thing.wait(0)

    while not try_it():
        time.sleep(0.01)


WAYS: dict[str, Callable[[_Awaited], object]] = {SOUND: _wait, "poll": _poll}

SHAPES: dict[str, Callable[[kvsync.Store, int], _Awaited]] = {
    "one lock": lambda store, _: store.lock("turn"),
    "a lock each": lambda store, number: store.lock(f"turn {number}"),
    "an event each": lambda store, number: store.event(f"turn {number}"),
}


def _wait_as_told(worker: Worker) -> None:
    assert worker.store.session.id
    worker.ready()
    while shape := worker.pipe.recv():
        thing = SHAPES[shape](worker.store, worker.number)
        WAYS[worker.way](thing)
        if isinstance(thing, kvsync.Lock):
            thing.release()


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
        _ = thing.acquire() if isinstance(thing, kvsync.Lock) else thing.clear()
    for member in crew.members:
        member.pipe.send(shape)
    if stage.way == SOUND:
        crew.until(lambda: sum(len(thing.stats().waiters) for thing in things) == stage.processes)
    crew.watch(_REST)
    began, before = time.monotonic(), _used(crew)
    crew.watch(_SAMPLE)
    result = time.monotonic() - began, _used(crew) - before
    for thing in things:
        _ = thing.release() if isinstance(thing, kvsync.Lock) else thing.set()
    return result

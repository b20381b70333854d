"""A hundred processes that wait for a lock, and have nothing to do, together cost less than 2 % of
one core.
"""

import ctypes
import sys
import time
from collections.abc import Callable

import psutil

import kvsync
from stress.crew import Crew, Worker
from stress.stage import SOUND, Stage

UNIT = "samples"
PROCESSES = 100
PRIMITIVES = ("lock",)
SLOW = True  # to spawn so many takes long, and who else is busy makes each look dearer

LIMIT = 0.02
"""Of one core."""

_SAMPLE = 1.0
"""Seconds."""


def _poll(lock: kvsync.Lock) -> None:
    while not lock.acquire(blocking=False):
        time.sleep(0.01)


WAYS: dict[str, Callable[[kvsync.Lock], object]] = {
    SOUND: lambda lock: lock.acquire(),
    "poll": _poll,
}


def _wait(worker: Worker) -> None:
    lock = worker.store.lock("turn")
    worker.ready()
    WAYS[worker.way](lock)
    lock.release()


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
    with stage.open() as store:
        lock = store.lock("turn")
        with Crew(stage) as crew, lock:
            crew.start(_wait, stage.processes)
            if stage.way == SOUND:
                crew.until(lambda: len(lock.stats().waiters) == stage.processes)
            _measure(stage, crew)
    stage.expect_sound_file()


def _measure(stage: Stage, crew: Crew) -> None:
    crew.assemble()
    began, before, samples = time.monotonic(), _used(crew), 0
    while not stage.enough(samples):
        crew.watch(_SAMPLE)
        samples += 1
    share = (_used(crew) - before) / (time.monotonic() - began)
    stage.figures |= {"waiters": stage.processes, "% of a core": round(100 * share, 2)}
    stage.expect(share < LIMIT, f"{stage.processes} idle waiters cost {share:.1%} of a core")

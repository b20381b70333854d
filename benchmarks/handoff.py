"""How long a lock is nobody's: from its release, or its holder's death, to the next grant.

Both ends are taken from the machine's one monotonic clock, in two processes.
"""

import multiprocessing
import os
import random
import signal
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.crew import Stint
from benchmarks.peers.lockers import Locker
from benchmarks.rounds import Round

_HELD = (0.02, 0.12)
"""Seconds for which it is held while the other one waits: at random, so no side's polls meet it."""

_PATIENCE = 60.0

_context = multiprocessing.get_context("spawn")

Steps = Callable[[], dict[str, Callable[[], object]]]
"""Run in a worker: opens what is needed, and returns what can be asked of it. Must pickle."""

Measure = Callable[[Locker, str, int], list[int]]


def one_round(measure: Measure, peer: Locker, folder: str, times: int) -> Round:
    return round_of(measure(peer, folder, times))


def round_of(nanoseconds: list[int]) -> Round:
    """The waits of one round."""
    return Round.of([Stint(len(nanoseconds), array("Q", nanoseconds))], 1.0)


def hand_over(peer: Locker, folder: str, times: int) -> list[int]:
    """Nanoseconds from before `release` to after `acquire`, each."""
    return between_two(partial(_steps, peer, folder), _one_hand_over, times)


def _one_hand_over(holder: Any, waiter: Any) -> int:
    ask(holder, "acquire")
    waiter.send("acquire")
    time.sleep(random.uniform(*_HELD))
    released, _ = ask(holder, "release")
    _, acquired = receive(waiter)
    ask(waiter, "release")
    return int(acquired - released)


def recover(peer: Locker, folder: str, times: int) -> list[int]:
    """Nanoseconds from before SIGKILL to after `acquire`, each."""
    steps = partial(_steps, peer, folder)
    with worker(steps) as waiter:
        return [_one_recovery(steps, waiter) for _ in range(times)]


def _one_recovery(steps: Steps, waiter: Any) -> int:
    with worker(steps) as holder:
        ask(holder, "acquire")
        waiter.send("acquire")
        time.sleep(random.uniform(*_HELD))
        holder.send("pid")
        pid = receive(holder)
        killed = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        _, acquired = receive(waiter)
        ask(waiter, "release")
        return int(acquired - killed)


def _steps(peer: Locker, folder: str) -> dict[str, Callable[[], object]]:
    acquire, release = peer.locker(folder)
    acquire()
    release()
    return {"acquire": acquire, "release": release}


@contextmanager
def worker(steps: Steps) -> Iterator[Any]:
    """A process that takes those steps when asked; the pipe to it."""
    ours, theirs = _context.Pipe()
    process = _context.Process(target=_work, args=(theirs, steps), daemon=True)
    process.start()
    theirs.close()
    try:
        receive(ours)
        yield ours
    finally:
        ours.close()
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


def _work(pipe: Any, make: Steps) -> None:
    steps = make()
    pipe.send("ready")
    try:
        while True:
            what = pipe.recv()
            if what == "pid":
                pipe.send(os.getpid())
                continue
            began = time.monotonic_ns()
            steps[what]()
            pipe.send((began, time.monotonic_ns()))
    except (EOFError, OSError):
        pass  # the benchmark is over


def between_two(steps: Steps, one: Callable[[Any, Any], int], times: int) -> list[int]:
    """What `one` measures between two workers, each time."""
    with worker(steps) as first, worker(steps) as second:
        return [one(first, second) for _ in range(times)]


def ask(worker: Any, what: str) -> Any:
    """Have it take that step; returns when it began and ended, in nanoseconds."""
    worker.send(what)
    return receive(worker)


def receive(worker: Any) -> Any:
    """Its next answer. Raises: RuntimeError if it hangs."""
    if not worker.poll(_PATIENCE):
        raise RuntimeError("a worker hangs")
    return worker.recv()

"""How long a lock is nobody's: from its release, or its holder's death, to the next grant.

Both ends are taken from the machine's one monotonic clock, in two processes.
"""

import multiprocessing
import os
import signal
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.crew import Stint
from benchmarks.peers.lockers import Locker
from benchmarks.rounds import Round

_HELD = 0.05
"""Seconds for which it is held while the other one waits."""

_PATIENCE = 60.0

_context = multiprocessing.get_context("spawn")

Measure = Callable[[Locker, str, int], list[int]]


def one_round(measure: Measure, peer: Locker, folder: str, times: int) -> Round:
    nanoseconds = measure(peer, folder, times)
    return Round.of([Stint(len(nanoseconds), array("Q", nanoseconds))], 1.0)


def hand_over(peer: Locker, folder: str, times: int) -> list[int]:
    """Nanoseconds from before `release` to after `acquire`, each."""
    with _worker(peer, folder) as holder, _worker(peer, folder) as waiter:
        return [_one_hand_over(holder, waiter) for _ in range(times)]


def _one_hand_over(holder: Any, waiter: Any) -> int:
    _ask(holder, "acquire")
    waiter.send("acquire")
    time.sleep(_HELD)
    released, _ = _ask(holder, "release")
    _, acquired = _receive(waiter)
    _ask(waiter, "release")
    return int(acquired - released)


def recover(peer: Locker, folder: str, times: int) -> list[int]:
    """Nanoseconds from before SIGKILL to after `acquire`, each."""
    with _worker(peer, folder) as waiter:
        return [_one_recovery(peer, folder, waiter) for _ in range(times)]


def _one_recovery(peer: Locker, folder: str, waiter: Any) -> int:
    with _worker(peer, folder) as holder:
        _ask(holder, "acquire")
        waiter.send("acquire")
        time.sleep(_HELD)
        holder.send("pid")
        pid = _receive(holder)
        killed = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        _, acquired = _receive(waiter)
        _ask(waiter, "release")
        return int(acquired - killed)


@contextmanager
def _worker(peer: Locker, folder: str) -> Iterator[Any]:
    ours, theirs = _context.Pipe()
    process = _context.Process(target=_work, args=(theirs, peer, folder), daemon=True)
    process.start()
    theirs.close()
    try:
        _receive(ours)
        yield ours
    finally:
        ours.close()
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


def _work(pipe: Any, peer: Locker, folder: str) -> None:
    acquire, release = peer.locker(folder)
    acquire()
    release()
    pipe.send("ready")
    steps = {"acquire": acquire, "release": release}
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


def _ask(worker: Any, what: str) -> Any:
    worker.send(what)
    return _receive(worker)


def _receive(worker: Any) -> Any:
    if not worker.poll(_PATIENCE):
        raise RuntimeError("a worker hangs")
    return worker.recv()

"""Worker processes that stand ready and are let go together.

A crew lives as long as its benchmark: between its rounds its workers sleep in `recv`, so start-up,
imports and first opens are in no figure. All of a crew stop at one moment, which they share. A call
that is under way then is not counted, but its wait is: it may be the longest of all.
"""

import multiprocessing
import time
import traceback
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Step = Callable[[], object]
Task = Callable[[], Step]
"""Run in the worker: opens what is needed and returns the call to be measured. Must pickle."""

_PATIENCE = 300.0


@dataclass(frozen=True)
class Stint:
    """What one worker did in one round: calls ended in time, and each call's nanoseconds."""

    calls: int
    nanoseconds: "array[int]"


class Crew:
    """Workers of one side. A context manager: all are reaped at the end.

    What is noted of a call is how long it took; or, if it `tells`, the nanoseconds it returns.
    """

    def __init__(self, task: Task, size: int, *, tells: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._deadline = context.Value("d", 0.0, lock=False)
        self._barrier = context.Barrier(size + 1)
        self._pipes: list[Any] = []
        self._workers: list[Any] = []
        for _ in range(size):
            ours, theirs = context.Pipe()
            worker = context.Process(
                target=_work, args=(theirs, task, self._barrier, self._deadline, tells), daemon=True
            )
            worker.start()
            theirs.close()
            self._pipes.append(ours)
            self._workers.append(worker)

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(False)
        for worker, pipe in zip(self._workers, self._pipes, strict=True):
            worker.join(30)
            if worker.is_alive():
                worker.kill()
                worker.join()
            pipe.close()

    def ready(self) -> None:
        """Wait until every worker has opened what it needs. Raises: RuntimeError if one failed."""
        self._receive_all()

    def run(self, seconds: float) -> list[Stint]:
        """One round. Raises: RuntimeError if a worker failed."""
        for pipe in self._pipes:
            pipe.send(True)
        self._receive_all()
        self._deadline.value = time.monotonic() + seconds
        self._barrier.wait(_PATIENCE)
        return self._receive_all()

    def _receive_all(self) -> list[Any]:
        answers = [self._receive(pipe) for pipe in self._pipes]
        for answer in answers:
            if isinstance(answer, str):
                raise RuntimeError(f"a worker failed:\n{answer}")
        return answers

    @staticmethod
    def _receive(pipe: Any) -> Any:
        if not pipe.poll(_PATIENCE):
            return "no answer"
        try:
            return pipe.recv()
        except EOFError:
            return "it died"


def _work(pipe: Any, task: Task, barrier: Any, deadline: Any, tells: bool) -> None:
    try:
        step = task()
        step()
        pipe.send(None)
        while pipe.recv():
            pipe.send(None)
            barrier.wait(_PATIENCE)
            pipe.send(_stint(step, deadline.value, tells))
    except BaseException:
        with suppress(OSError):  # nobody listens any more
            pipe.send(traceback.format_exc())


def _stint(step: Step, deadline: float, tells: bool) -> Stint:
    nanoseconds = array("Q")
    note, now = nanoseconds.append, time.monotonic_ns
    end = int(deadline * 1e9)
    before = now()
    while True:
        told = step()
        after = now()
        note(told if tells else after - before)  # type: ignore[arg-type]  # then it is an int
        if after >= end:  # the last call is always one that ended too late
            break
        before = after
    return Stint(len(nanoseconds) - 1, nanoseconds)


def merge(stints: Sequence[Stint]) -> "array[int]":
    """All waits of a round in nanoseconds, shortest first."""
    return array("Q", sorted(ns for stint in stints for ns in stint.nanoseconds))

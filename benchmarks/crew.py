"""Worker processes that stand ready and are let go together.

A crew lives as long as its benchmark: between its rounds its workers sleep in `recv`, so start-up,
imports and first opens are in no figure. All of a crew stop at one moment, which they share. A call
that is under way then is not counted, but its wait is: it may be the longest of all.
"""

import math
import multiprocessing
import time
import traceback
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Step = Callable[[], object]
Task = Callable[[], Step | Mapping[str, Step]]
"""Run in the worker: opens what is needed and returns the call to be measured, or several by name.

Must pickle.
"""

_PATIENCE = 300.0


class Idle(Exception):
    """A step found nothing to do: it does not count, and is called again while there is time."""


class Spent(Exception):
    """A step found nothing left to do: for its worker, the round is over."""


@dataclass(frozen=True)
class Stint:
    """What one worker did in one round: calls ended in time, and each call's nanoseconds."""

    calls: int
    nanoseconds: "array[int]"
    seconds: float | None = None
    """From the start to the end of its last call, if there was nothing left to do before time."""


class Crew:
    """Workers of one side. A context manager: all are reaped at the end.

    What is noted of a call is how long it took; or, if it `tells`, the nanoseconds it returns. A
    call is one; or, if it `counts`, as many as it returns.
    """

    def __init__(self, tasks: Sequence[Task], *, tells: bool = False, counts: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._deadline = context.Value("d", 0.0, lock=False)
        self._barrier = context.Barrier(len(tasks) + 1)
        self._pipes: list[Any] = []
        self._workers: list[Any] = []
        for task in tasks:
            ours, theirs = context.Pipe()
            worker = context.Process(
                target=_work,
                args=(theirs, task, self._barrier, self._deadline, tells, counts),
                daemon=True,
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
                pipe.send(None)
        for worker, pipe in zip(self._workers, self._pipes, strict=True):
            worker.join(30)
            if worker.is_alive():
                worker.kill()
                worker.join()
            pipe.close()

    def ready(self) -> None:
        """Wait until every worker has opened what it needs. Raises: RuntimeError if one failed."""
        self._receive_all()

    def run(
        self,
        seconds: float,
        jobs: Sequence[str | None] | None = None,
        *,
        at_most: float = math.inf,
    ) -> list[Stint]:
        """One round; returns a stint for each worker. Raises: RuntimeError if a worker failed.

        Args:
            jobs: for each worker the name of its step, None for nothing to do.
            at_most: calls of each worker, after which its round is over.
        """
        for pipe, job in zip(self._pipes, jobs or [""] * len(self._pipes), strict=True):
            pipe.send((job, at_most))
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


def _work(pipe: Any, task: Task, barrier: Any, deadline: Any, tells: bool, counts: bool) -> None:
    try:
        made = task()
        steps = made if isinstance(made, Mapping) else {"": made}
        for step in steps.values():
            with suppress(Idle, Spent):
                step()
        pipe.send(None)
        while told := pipe.recv():
            pipe.send(None)
            barrier.wait(_PATIENCE)
            job, at_most = told
            if job is None:
                pipe.send(_NOTHING)
            else:
                pipe.send(_stint(steps[job], deadline.value, at_most, tells, counts))
    except BaseException:
        with suppress(OSError):  # nobody listens any more
            pipe.send(traceback.format_exc())


_NOTHING = Stint(0, array("Q"), 0.0)


def _stint(step: Step, deadline: float, at_most: float, tells: bool, counts: bool) -> Stint:
    nanoseconds, calls = array("Q"), 0
    note, now = nanoseconds.append, time.monotonic_ns
    end = int(deadline * 1e9)
    began = before = done = now()
    while calls < at_most:
        try:
            told: Any = step()
        except Idle:
            before = now()
            if before < end:
                continue
            break
        except Spent:
            break
        after = now()
        note(told if tells else after - before)
        if after >= end:  # the last call is always one that ended too late
            return Stint(calls, nanoseconds)
        calls += told if counts else 1
        before = done = after
    return Stint(calls, nanoseconds, (done - began) / 1e9)


def merge(stints: Sequence[Stint]) -> "array[int]":
    """All waits of a round in nanoseconds, shortest first."""
    return array("Q", sorted(ns for stint in stints for ns in stint.nanoseconds))

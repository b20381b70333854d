"""What a million items in line cost beside a thousand, and whom their purge holds up."""

import itertools
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import kvsync
from benchmarks.crew import Crew, Spent, Step
from benchmarks.options import Options
from benchmarks.peers.queuers import ITEM
from benchmarks.report import Table, Target, figure, microseconds, milliseconds
from benchmarks.rounds import Measured, Round, Spread, in_turn, ratio

CALLS = ("put", "get", "ack")

_CHUNK = 10_000
_BOUND = 1.5
_LONGEST_WAIT = 100.0
_MILLION = 1_000_000
_PATIENCE = 240.0


@dataclass(frozen=True)
class Found:
    """What was measured, and how many items were in line."""

    sizes: tuple[int, int]
    measured: dict[str, Measured]

    def tables(self) -> list[Table]:
        few, many = self.sizes
        rows = []
        for call in CALLS:
            small, large = self._pair(call)
            cells = [
                microseconds(small.p50),
                microseconds(large.p50),
                figure(self._cost(call), "x"),
            ]
            rows.append([call, *cells])
        columns = ["call", f"{few:,} items, p50", f"{many:,} items, p50", "mean cost"]
        purging = self.measured["purge"]
        waits = [[f"{many:,} items", microseconds(purging.p50), milliseconds(purging.worst)]]
        return [
            Table("Queue: the cost of a backlog, kvsync, 1 process", columns, rows),
            Table("Queue: another's `counter.add` during `purge`", ["", "p50", "worst"], waits),
        ]

    def targets(self) -> list[Target]:
        full = self.sizes[1] >= _MILLION
        costs = [
            Target(
                f"queue, `{call}`: cost at 1,000,000 items against 1,000",
                _BOUND,
                self._cost(call) if full else None,
                at_most=True,
            )
            for call in CALLS
        ]
        longest = self.measured["purge"].worst_of_all * 1e3  # of no round may it be longer
        worst = Spread.of([longest]) if full else None
        what = "queue, purge of 1,000,000 items: another writer's worst wait in ms"
        return [*costs, Target(what, _LONGEST_WAIT, worst, at_most=True)]

    def _cost(self, call: str) -> Spread:
        small, large = self._pair(call)
        return ratio(large, small, "mean")

    def _pair(self, call: str) -> tuple[Measured, Measured]:
        few, many = self.sizes
        return self.measured[f"{call}, {few:,}"], self.measured[f"{call}, {many:,}"]


def measure(options: Options) -> Found:
    sizes = (options.few_keys, options.many_keys)
    for size in sizes:
        fill(_path(options, size), size)
    with ExitStack() as stack:
        sides = {}
        for call, size in itertools.product(CALLS, sizes):
            crew = stack.enter_context(
                Crew([partial(step, _path(options, size), call)], tells=True)
            )
            crew.ready()
            crew.run(min(options.seconds, 1.0))  # warms up
            sides[f"{call}, {size:,}"] = partial(_round, crew, options.seconds)
        measured = in_turn(sides, options.rounds)
    numbers = itertools.count()
    purging = {"purge": lambda: _purge(_path(options, sizes[1]), next(numbers))}
    return Found(sizes, measured | in_turn(purging, options.rounds))


def fill(path: str, size: int) -> None:
    """A store whose queue holds that many items."""
    with kvsync.open(path) as store:
        jobs = store.queue("jobs")
        for start in range(0, size, _CHUNK):
            jobs.put_many([ITEM] * min(_CHUNK, size - start))


def step(path: str, call: str) -> Step:
    """In the worker: what leaves the backlog as it was; tells the nanoseconds of that one call."""
    jobs = kvsync.open(path).queue("jobs")
    now = time.monotonic_ns

    def put() -> int:
        began = now()
        jobs.put(ITEM)
        took = now() - began
        jobs.get()
        return took

    def get() -> int:
        jobs.put(ITEM)
        began = now()
        jobs.get()
        return now() - began

    def ack() -> int:
        jobs.put(ITEM)
        task = jobs.reserve()
        began = now()
        task.ack()
        return now() - began

    return {"put": put, "get": get, "ack": ack}[call]


def _path(options: Options, size: int) -> str:
    return os.path.join(options.folder, f"backlog-{size}.db")


def _round(crew: Crew, seconds: float) -> Round:
    return Round.of(crew.run(seconds), seconds)


# --- purging ----------------------------------------------------------------------------------


def _purge(filled: str, number: int) -> Round:
    """The waits of one who writes all along."""
    path = f"{filled}-{number}"
    with kvsync.open(filled) as store:
        store.backup(path)
    with Crew([partial(_writer, path), partial(_purger, path)]) as crew:
        crew.ready()
        writer, _ = crew.run(_PATIENCE)
    return Round.of([writer], _PATIENCE)


def _writer(path: str) -> Step:
    """Writes until the queue is purged."""
    add = kvsync.open(path).counter("hits").add

    def write() -> None:
        if os.path.exists(_purged(path)):
            raise Spent
        add()

    return write


def _purger(path: str) -> Step:
    jobs = kvsync.open(path).queue("jobs")
    calls = itertools.count()

    def purge() -> None:
        if next(calls):  # the first call only readies the worker
            jobs.purge()
            with open(_purged(path), "wb"):
                raise Spent

    return purge


def _purged(path: str) -> str:
    return f"{path}-purged"

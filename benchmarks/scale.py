"""What a million keys cost beside a thousand: random keys, kvsync only."""

import itertools
import os
import random
from contextlib import ExitStack
from functools import partial

import kvsync
from benchmarks.crew import Crew, Step
from benchmarks.options import Options
from benchmarks.report import Report, Table, Target, figure, microseconds
from benchmarks.rounds import Round, in_turn, ratio

OPERATIONS = ("dict.get(key)", "dict[key] = value", "counters.add(label)")

_CHUNK = 10_000
_SAMPLE = 200_000
_BOUND = 1.5


def run(options: Options) -> Report:
    report = Report("scale")
    sizes = (options.few_keys, options.many_keys)
    for size in sizes:
        fill(_folder(options, size), size)
    with ExitStack() as stack:
        sides = {}
        for operation, size in itertools.product(OPERATIONS, sizes):
            task = partial(step, _folder(options, size), operation, size)
            crew = stack.enter_context(Crew([task]))
            crew.ready()
            crew.run(options.seconds)  # warms up
            sides[f"{operation}, {size:,}"] = partial(_round, crew, options.seconds)
        report.measured = in_turn(sides, options.rounds)
    _conclude(report, sizes)
    return report


def fill(folder: str, size: int) -> None:
    """A store with a dict and a family of counters of `size` keys each."""
    os.makedirs(folder)
    with kvsync.open(os.path.join(folder, "store.db")) as store:
        for start in range(0, size, _CHUNK):
            names = [key(number) for number in range(start, min(start + _CHUNK, size))]
            store.dict("values").set_many({name: {"name": name, "on": True} for name in names})
            store.counters("hits").add_many(dict.fromkeys(names, 1))


def step(folder: str, operation: str, size: int) -> Step:
    """In the worker: one call that goes through random keys."""
    store = kvsync.open(os.path.join(folder, "store.db"))
    values, hits = store.dict("values"), store.counters("hits")
    chance = random.Random(size)
    keys = itertools.cycle([key(chance.randrange(size)) for _ in range(_SAMPLE)])
    if operation == "dict.get(key)":
        return lambda: values.get(next(keys))
    if operation == "counters.add(label)":
        return lambda: hits.add(next(keys))

    def assign() -> None:
        values[next(keys)] = {"name": "another", "on": False}

    return assign


def key(number: int) -> str:
    """Keys of one length, so that only their number differs."""
    return f"user:{number:08d}"


def _folder(options: Options, size: int) -> str:
    return os.path.join(options.folder, str(size))


def _round(crew: Crew, seconds: float) -> Round:
    return Round.of(crew.run(seconds), seconds)


def _conclude(report: Report, sizes: tuple[int, int]) -> None:
    few, many = (f"{size:,}" for size in sizes)
    rows = []
    for operation in OPERATIONS:
        small = report.measured[f"{operation}, {few}"]
        large = report.measured[f"{operation}, {many}"]
        cost = ratio(small, large)  # of rates: the inverse of the times
        cells = [microseconds(small.p50), microseconds(large.p50), figure(cost, "x")]
        rows.append([operation, *cells])
        found = cost if sizes[1] >= 1_000_000 else None
        what = f"scale, `{operation}`: cost at 1,000,000 keys against 1,000"
        report.targets.append(Target(what, _BOUND, found, at_most=True))
    columns = ["call", f"{few} keys, p50", f"{many} keys, p50", "mean cost"]
    report.show(Table("Scale, 1 process, random keys", columns, rows))

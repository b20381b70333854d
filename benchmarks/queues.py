"""One queue: putting, getting and working off, waking up who waits, and a long backlog."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks import backlog, delay, wakeup
from benchmarks.crew import Crew, Idle, Spent, Step
from benchmarks.field import Field, gather
from benchmarks.options import Options
from benchmarks.peers.queuers import (
    BATCH,
    DiskCacheQueue,
    Honker,
    Huey,
    KvsyncByHand,
    KvsyncQueue,
    LiteQueueSide,
    MultiprocessingQueue,
    PersistAckQueue,
    PersistQueue,
    Queuer,
    RedisList,
)
from benchmarks.report import Report, Table, Target, figure, latencies, microseconds, milliseconds
from benchmarks.rounds import Measured, Round, Spread, ratio

PEERS = (
    KvsyncQueue(),
    KvsyncByHand(),
    LiteQueueSide(),
    PersistQueue(),
    PersistAckQueue(),
    Huey(),
    DiskCacheQueue(),
    Honker(),
    RedisList(),
    MultiprocessingQueue(),
)

_RIVALS = ("litequeue", "persist-queue", "persist-queue ack", "huey")
_PUNCTUAL = "from when a delayed item is due to a waiting `get`"
_WORKING, _MEANWHILE = "put + reserve + ack", "put, beside reserve + ack"
"""Two halves of one round: a side whose consumers are ahead may be one whose producers wait."""

_TWICE = 2.0
_MOST = 100_000
"""Items that are put in one round, at most: a side that only notes them down would never end."""

_DRAIN = 60.0
"""Seconds for which what a row left in the queue is taken out, at most."""


@dataclass(frozen=True)
class Row:
    """What is measured, by how many producers and as many consumers, in batches of how many."""

    what: str
    size: int
    batch: int

    def __str__(self) -> str:
        how = f", batches of {self.batch}" if self.batch > 1 else ""
        return f"{self.what}, {self.size} x{how}"


Figures = dict[Row, dict[str, Measured]]


def run(options: Options) -> Report:
    report = Report("queue")
    figures: Figures = {}
    with gather(PEERS, options.folder, report) as field:
        for size in options.producers:
            found = _of_size(field, options, size, report)
            report.show(*(_table(row, measured, report.skipped) for row, measured in found.items()))
            figures |= found
        woken = wakeup.measure(field, options)
        report.show(latencies("Queue: from `put` to a waiting `get`", woken))
        versions = field.versions
    late = delay.measure(options)
    report.show(latencies(f"Queue: {_PUNCTUAL}", {"kvsync": late}))
    long = backlog.measure(options)
    report.show(*long.tables(), _sides(versions, report.skipped))
    for row, measured in figures.items():
        report.measured.update({f"{name}, {row}": each for name, each in measured.items()})
    report.measured.update({f"{name}, wake-up": each for name, each in woken.items()})
    report.measured["kvsync, delayed"] = late
    report.measured.update(long.measured)
    report.targets = [
        *_targets(figures),
        *_prompt(woken.get("kvsync")),
        _punctual(late),
        *long.targets(),
    ]
    return report


# --- rates ------------------------------------------------------------------------------------


def _of_size(field: Field, options: Options, size: int, report: Report) -> Figures:
    """All rows of that many producers and consumers, the sides in turn in each round."""
    rounds: dict[Row, dict[str, list[Round]]] = {}
    with _crews(field, size, report) as crews:
        for _ in range(options.rounds):
            for batch in (1, BATCH):
                for name, crew in list(crews.items()):
                    try:
                        found = _one_round(crew, size, batch, options.seconds)
                    except RuntimeError as error:
                        del crews[name]
                        report.skipped[f"{name}, {size} x"] = _last_line(error)
                        continue
                    for what, one in found.items():
                        row = rounds.setdefault(Row(what, size, batch), {})
                        row.setdefault(name, []).append(one)
        return {
            row: {name: Measured(tuple(sides[name])) for name in crews}
            for row, sides in rounds.items()
        }


@contextmanager
def _crews(field: Field, size: int, report: Report) -> Iterator[dict[str, Crew]]:
    """For each side as many producers and, behind them, as many consumers."""
    with ExitStack() as stack:
        crews: dict[str, Crew] = {}
        for name, peer in field.ready.items():
            assert isinstance(peer, Queuer)
            folder, line = field.folder(peer), f"rates-{size}"
            peer.prepare(folder, line)
            roles = [partial(_producer, peer, folder, line), partial(_consumer, peer, folder, line)]
            crew = stack.enter_context(
                Crew([role for role in roles for _ in range(size)], counts=True)
            )
            try:
                crew.ready()
                crews[name] = crew
            except RuntimeError as error:
                report.skipped[f"{name}, {size} x"] = _last_line(error)
        yield crews


def _one_round(crew: Crew, size: int, batch: int, seconds: float) -> dict[str, Round]:
    """Put for a while; get all of that; then both at once, with acknowledging."""
    many = "_many" if batch > 1 else ""
    rest: list[str | None] = [None] * size
    put, get, work = ([f"{call}{many}"] * size for call in ("put", "get", "work"))
    most = _MOST // size
    found = {
        "put": crew.run(seconds, [*put, *rest], at_most=most)[:size],
        "get": crew.run(_DRAIN, [*rest, *get])[size:],
    }
    both = crew.run(seconds, [*put, *work], at_most=most)
    found |= {_WORKING: both[size:], _MEANWHILE: both[:size]}
    crew.run(_DRAIN, rest + ["get_many"] * size)
    return {what: Round.of(stints, seconds) for what, stints in found.items()}


def _producer(peer: Queuer, folder: str, name: str) -> dict[str, Step]:
    line = peer.line(folder, name)
    return {"put": line.put, "put_many": line.put_many}


def _consumer(peer: Queuer, folder: str, name: str) -> dict[str, Step]:
    line = peer.line(folder, name)

    def until_empty(take: Callable[[], int]) -> int:
        if taken := take():
            return taken
        raise Spent

    def as_they_come(take: Callable[[], int]) -> int:
        if taken := take():
            return taken
        line.rest()
        raise Idle

    return {
        "get": partial(until_empty, line.get),
        "get_many": partial(until_empty, line.get_many),
        "work": partial(as_they_come, line.work),
        "work_many": partial(as_they_come, line.work_many),
    }


def _last_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1]


# --- what is shown ----------------------------------------------------------------------------


def _table(row: Row, measured: dict[str, Measured], skipped: dict[str, str]) -> Table:
    ours = measured["kvsync"]
    rows = [
        [
            name,
            figure(side.rate),
            "" if side is ours else figure(ratio(ours, side), "x"),
            microseconds(side.p50),
            microseconds(side.p99),
            milliseconds(side.worst),
        ]
        for name, side in measured.items()
    ]
    rows += [
        [name, "SKIPPED", reason, "", "", ""]
        for name, reason in skipped.items()
        if name.rsplit(",", 1)[0] not in measured
    ]
    columns = ["side", "items/s", "kvsync is faster by", "a call, p50", "p99", "worst"]
    return Table(f"Queue: {row}", columns, rows)


def _sides(versions: dict[str, str], skipped: dict[str, str]) -> Table:
    known = versions | {name: f"SKIPPED: {why}" for name, why in skipped.items()}
    rows = [[peer.name, known[peer.name], peer.setting] for peer in PEERS]
    return Table("Queue, the sides", ["side", "version", "setting"], rows)


def _targets(figures: Figures) -> list[Target]:
    rivals = [peer for peer in PEERS if not isinstance(peer, KvsyncQueue)]
    durable = [peer.name for peer in rivals if peer.is_durable]
    found = []
    for row, measured in figures.items():
        if row.what == _MEANWHILE:
            continue
        against = _against_best(measured, durable)
        found.append(Target(f"queue, {row}: rate against the best durable peer", 1.0, against))
        if row.batch == 1:
            against = _against_best(measured, _RIVALS)
            what = f"queue, {row}: rate against the best of litequeue, persist-queue, huey"
            found.append(Target(what, _TWICE, against))
    return found


def _against_best(measured: dict[str, Measured], names: Sequence[str]) -> Spread | None:
    rivals = [measured[name] for name in names if name in measured]
    if not rivals:
        return None
    return ratio(measured["kvsync"], max(rivals, key=lambda side: side.rate.median))


def _prompt(ours: Measured | None) -> list[Target]:
    return [
        Target(
            f"queue, from `put` to a waiting `get`: {quantity} in ms",
            bound,
            None if ours is None else getattr(ours, quantity).times(1e3),
            at_most=True,
        )
        for quantity, bound in (("p50", 0.5), ("p99", 5.0))
    ]


def _punctual(late: Measured) -> Target:
    return Target(f"queue, {_PUNCTUAL}: p99 in ms", 50.0, late.p99.times(1e3), at_most=True)

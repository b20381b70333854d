"""Adding 1 to one counter, from 1, 8 and 32 processes at once."""

from functools import partial

from benchmarks.crew import Task
from benchmarks.field import Field, gather
from benchmarks.options import Options
from benchmarks.peers import Peer
from benchmarks.peers.disk_cache import DiskCache
from benchmarks.peers.keyvalue import KeyValue
from benchmarks.peers.kvsync_side import Kvsync, KvsyncBuffered
from benchmarks.peers.raw import RawSqlite
from benchmarks.peers.redis_server import Redis
from benchmarks.report import Report, Table, Target, figure, microseconds, milliseconds
from benchmarks.rounds import Measured, Spread, ratio

PEERS = (Kvsync(), KvsyncBuffered(), RawSqlite(), DiskCache(), Redis(), KeyValue())

_AT_LEAST = {"raw sqlite3": 0.75, "diskcache": 1.5, "redis": 1.5, "keyvalue_sqlite": 30.0}
_CROWD = 32
_COLUMNS = (
    "side",
    "adds/s",
    "kvsync is faster by",
    "p50",
    "p99",
    "worst wait",
    "slowest/fastest process",
)


def run(options: Options) -> Report:
    report = Report("counter")
    with gather(PEERS, options.folder, report) as field:
        for size in options.processes:
            measured = field.compare(
                partial(_task, field), size=size, rounds=options.rounds, seconds=options.seconds
            )
            report.measured.update({f"{name}, {size}": each for name, each in measured.items()})
            report.show(_table(measured, size, report.skipped))
        report.show(_settings(field, report.skipped))
    report.targets = [*_targets_alone(report.measured), *_targets_in_a_crowd(report.measured)]
    return report


def _task(field: Field, peer: Peer) -> Task:
    return partial(peer.adder, field.folder(peer))


def _table(measured: dict[str, Measured], size: int, skipped: dict[str, str]) -> Table:
    ours = measured["kvsync"]
    rows = [[name, *_cells(ours, side)] for name, side in measured.items()]
    rows += [[name, "SKIPPED", reason, "", "", "", ""] for name, reason in skipped.items()]
    return Table(f"Counter, {size} process{'es' if size > 1 else ''}", _COLUMNS, rows)


def _cells(ours: Measured, side: Measured) -> list[str]:
    return [
        figure(side.rate),
        "" if side is ours else figure(ratio(ours, side), "x"),
        microseconds(side.p50),
        microseconds(side.p99),
        milliseconds(side.worst),
        figure(side.share),
    ]


def _settings(field: Field, skipped: dict[str, str]) -> Table:
    versions = field.versions | {name: f"SKIPPED: {why}" for name, why in skipped.items()}
    rows = [[peer.name, versions[peer.name], peer.setting] for peer in PEERS]
    return Table("Counter, the sides", ["side", "version", "setting"], rows)


def _targets_alone(measured: dict[str, Measured]) -> list[Target]:
    return [
        Target(f"counter, 1 process: rate against {name}", bound, _ratio(measured, name, 1))
        for name, bound in _AT_LEAST.items()
    ]


def _targets_in_a_crowd(measured: dict[str, Measured]) -> list[Target]:
    ours = measured.get(f"kvsync, {_CROWD}")
    return [
        Target(
            f"counter, {_CROWD} processes: slowest/fastest process",
            0.5,
            None if ours is None else ours.share,
        ),
        Target(
            f"counter, {_CROWD} processes: worst wait against raw sqlite3",
            0.25,
            _ratio(measured, "raw sqlite3", _CROWD, "worst"),
            at_most=True,
        ),
    ]


def _ratio(
    measured: dict[str, Measured], name: str, size: int, quantity: str = "rate"
) -> Spread | None:
    ours, theirs = measured.get(f"kvsync, {size}"), measured.get(f"{name}, {size}")
    return ratio(ours, theirs, quantity) if ours and theirs else None

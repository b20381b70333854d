"""Getting and setting small values under 1,000 keys, from one process."""

import itertools
from functools import partial
from typing import Any

from benchmarks.crew import Step, Task
from benchmarks.field import Field, gather
from benchmarks.options import Options
from benchmarks.peers import Peer
from benchmarks.peers.dbm_sqlite import DbmSqlite
from benchmarks.peers.disk_cache import DiskCache
from benchmarks.peers.keyvalue import KeyValue
from benchmarks.peers.kvsync_side import Kvsync
from benchmarks.peers.raw import RawSqlite
from benchmarks.peers.sqlite_dict import SqliteDictSide
from benchmarks.report import Report, Table, Target, figure, microseconds
from benchmarks.rounds import Measured, ratio

PEERS = (Kvsync(), RawSqlite(), DiskCache(), SqliteDictSide(), DbmSqlite(), KeyValue())

OPERATIONS = ("d[key]", "d.get(key)", "d[key] = value")

_RIVALS = ("diskcache", "sqlitedict", "dbm.sqlite3", "keyvalue_sqlite")
_COLUMNS = ("side", *OPERATIONS, "setting")


def run(options: Options) -> Report:
    report = Report("dict")
    found: dict[str, dict[str, Measured]] = {}
    with gather(PEERS, options.folder, report) as field:
        for operation in OPERATIONS:
            found[operation] = field.compare(
                partial(_task, field, operation, options.few_keys),
                size=1,
                rounds=options.rounds,
                seconds=options.seconds,
            )
    for operation, measured in found.items():
        report.measured.update({f"{name}, {operation}": each for name, each in measured.items()})
    report.show(_table(found, field, report.skipped, options.few_keys))
    report.targets = [_target(found[op], op, rival) for op in OPERATIONS for rival in _RIVALS]
    return report


def _task(field: Field, operation: str, keys: int, peer: Peer) -> Task:
    return partial(step, peer, field.folder(peer), operation, keys)


def step(peer: Peer, folder: str, operation: str, count: int) -> Step:
    """In the worker: one call that goes through the keys in turn."""
    names = [f"key-{number}" for number in range(count)]
    mapping = peer.mapping(folder)
    for number, name in enumerate(names):
        mapping[name] = value(number)
    keys = itertools.cycle(names)
    if operation == "d[key]":
        return lambda: mapping[next(keys)]
    if operation == "d.get(key)":
        return lambda: mapping.get(next(keys))
    items = itertools.cycle([(name, value(number)) for number, name in enumerate(names)])

    def assign() -> None:
        name, new = next(items)
        mapping[name] = new

    return assign


def value(number: int) -> Any:
    """A number, a short text or a small record."""
    return (number, f"text {number}", {"id": number, "name": f"n{number}", "on": True})[number % 3]


def _table(
    found: dict[str, dict[str, Measured]], field: Field, skipped: dict[str, str], keys: int
) -> Table:
    rows = [
        [peer.name, *(_cell(found[op], peer.name) for op in OPERATIONS), peer.setting]
        for peer in field.ready.values()
    ]
    rows += [[name, "SKIPPED", reason, "", ""] for name, reason in skipped.items()]
    title = f"Dict of {keys:,} keys, 1 process: time of a call, and how many times ours"
    return Table(title, _COLUMNS, rows)


def _cell(measured: dict[str, Measured], name: str) -> str:
    ours, theirs = measured["kvsync"], measured.get(name)
    if theirs is None:
        return ""
    times = "" if theirs is ours else f"; {figure(ratio(ours, theirs), 'x')}"
    return microseconds(theirs.p50) + times


def _target(measured: dict[str, Measured], operation: str, rival: str) -> Target:
    ours, theirs = measured["kvsync"], measured.get(rival)
    found = None if theirs is None else ratio(ours, theirs)
    return Target(f"dict, `{operation}`: rate against {rival}", 1.0, found)

"""One lock: alone, among eight processes that hold it for 1 ms, handed over, and after a kill.

Of the waits among eight processes there are two p99. The one over all acquisitions says little
where a side is unfair: a process that takes the lock again at once adds hundreds of waits of some
microseconds, and each process that starves meanwhile adds one long wait. So sides are compared by
the p99 of the process that fared worst; both are shown.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial

from benchmarks import handoff
from benchmarks.crew import Step, Task
from benchmarks.field import Field, gather
from benchmarks.options import Options
from benchmarks.peers import Peer
from benchmarks.peers.lockers import (
    DiskCacheLock,
    Fasteners,
    FileLocker,
    Floor,
    KvsyncLock,
    Locker,
    Portalocker,
    RedisLock,
)
from benchmarks.report import Report, Table, Target, figure, latencies, microseconds, milliseconds
from benchmarks.rounds import Measured, Spread, in_turn, ratio

PEERS = (
    KvsyncLock(),
    FileLocker(),
    DiskCacheLock(),
    RedisLock(),
    Fasteners(),
    Portalocker(),
)
FLOOR = Floor()
"""In the table of hand-overs only: what they cost at least."""

_HELD = 0.001


def run(options: Options) -> Report:
    report = Report("lock")
    with gather(PEERS, options.folder, report) as field:
        lengths = {"rounds": options.rounds, "seconds": options.seconds}
        alone = field.compare(_tasks(field, _pair), size=1, **lengths)  # type: ignore[arg-type]
        report.show(_alone(alone))
        crowd = field.compare(
            _tasks(field, _hold),
            size=options.contenders,
            tells=True,
            **lengths,  # type: ignore[arg-type]
        )
        report.show(_crowd(crowd, options.contenders))
        with FLOOR.serving(field.make_folder(FLOOR)):
            handed = _timed(field, options, handoff.hand_over, [*field.ready.values(), FLOOR])
        report.show(latencies("From `release` of a long holder to the next grant", handed))
        recovering = [peer for peer in field.ready.values() if getattr(peer, "recovers", False)]
        saved = _timed(field, options, handoff.recover, recovering)
        report.show(latencies("From SIGKILL of the holder to the next grant", saved))
        report.show(_sides(field, report.skipped))
    for what, measured in (
        ("alone", alone),
        ("crowd", crowd),
        ("hand-off", handed),
        ("recovery", saved),
    ):
        report.measured.update({f"{name}, {what}": each for name, each in measured.items()})
    report.targets = _targets(alone, crowd, handed, saved)
    return report


def _tasks(field: Field, job: Callable[[Locker, str], Step]) -> Callable[[Peer], Task]:
    return lambda peer: partial(job, peer, field.folder(peer))  # type: ignore[arg-type]


def _pair(peer: Locker, folder: str) -> Step:
    acquire, release = peer.locker(folder)

    def step() -> None:
        acquire()
        release()

    return step


def _hold(peer: Locker, folder: str) -> Step:
    """Tells the nanoseconds of the wait."""
    acquire, release = peer.locker(folder)

    def step() -> int:
        asked = time.monotonic_ns()
        acquire()
        waited = time.monotonic_ns() - asked
        time.sleep(_HELD)
        release()
        return waited

    return step


def _timed(
    field: Field,
    options: Options,
    measure: handoff.Measure,
    peers: Iterable[Peer],
) -> dict[str, Measured]:
    sides = {
        peer.name: partial(handoff.one_round, measure, peer, field.folder(peer), options.handoffs)
        for peer in peers
        if isinstance(peer, Locker)
    }
    return in_turn(sides, options.rounds)


# --- what is shown ----------------------------------------------------------------------------


def _alone(measured: dict[str, Measured]) -> Table:
    ours = measured["kvsync"]
    rows = [
        [
            name,
            figure(side.rate),
            "" if side is ours else figure(ratio(ours, side), "x"),
            microseconds(side.p50),
            microseconds(side.p99),
        ]
        for name, side in measured.items()
    ]
    columns = ["side", "acquire + release, pairs/s", "kvsync is faster by", "p50", "p99"]
    return Table("Lock, uncontended", columns, rows)


def _crowd(measured: dict[str, Measured], contenders: int) -> Table:
    rows = [
        [
            name,
            figure(side.rate),
            milliseconds(side.p50),
            milliseconds(side.p99),
            milliseconds(side.unluckiest),
            milliseconds(side.worst),
            figure(side.share),
        ]
        for name, side in measured.items()
    ]
    columns = [
        "side",
        "acquisitions/s",
        "wait p50",
        "p99 of all waits",
        "p99 of the unluckiest process",
        "worst",
        "slowest/fastest process",
    ]
    return Table(f"Lock, {contenders} processes, 1 ms held", columns, rows)


def _sides(field: Field, skipped: dict[str, str]) -> Table:
    versions = field.versions | {name: f"SKIPPED: {why}" for name, why in skipped.items()}
    versions[FLOOR.name] = FLOOR.version()
    rows = [[peer.name, versions[peer.name], peer.setting] for peer in (*PEERS, FLOOR)]
    return Table("Lock, the sides", ["side", "version", "setting"], rows)


def _targets(
    alone: dict[str, Measured],
    crowd: dict[str, Measured],
    handed: dict[str, Measured],
    saved: dict[str, Measured],
) -> list[Target]:
    return [
        Target("lock, uncontended: rate against FileLock", 1.5, _against("filelock", alone)),
        Target(
            "lock, contended: p99 of the unluckiest process against the best peer",
            1 / 5,
            _against_best(crowd, "unluckiest"),
            True,
        ),
        Target(
            "lock, contended: worst wait against the best peer",
            1 / 10,
            _against_best(crowd, "worst"),
            True,
        ),
        Target("lock, hand-off: p50 in ms", 0.5, handed["kvsync"].p50.times(1e3), True),
        Target("lock, recovery: p50 in ms", 5.0, saved["kvsync"].p50.times(1e3), True),
        Target("lock, recovery: p99 in ms", 150.0, saved["kvsync"].p99.times(1e3), True),
    ]


def _against(name: str, measured: dict[str, Measured]) -> Spread | None:
    return ratio(measured["kvsync"], measured[name]) if name in measured else None


def _against_best(measured: dict[str, Measured], quantity: str) -> Spread | None:
    peers = [each for name, each in measured.items() if name != "kvsync"]
    if not peers:
        return None
    best = min(peers, key=lambda each: getattr(each, quantity).median)
    return ratio(measured["kvsync"], best, quantity)

"""After a power failure at any instant a store with durability "power" has every acknowledged
commit, in WAL mode and with a rollback journal, and with "process" a sound file and all commits up
to some moment, without a gap; and what kvsync made is in WAL mode, whatever was cut short.

The power is that of an ext4 file system on a loop device: its shutdown ioctl throws away what was
not on the disk yet. The file system under that device goes on, so what is shown is that the
library syncs, and in the right order, not that the machine's own disks keep their promises. What
was acknowledged during a cut does not count: an `fdatasync` in the middle of it can return success
for what is lost, as a program of nothing but `pwrite` and `fdatasync` shows as well.
"""

import os
import shutil
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import kvsync
from stress import children
from stress.crew import Crew, Worker
from stress.faults.mounts import Disk
from stress.faults.spell import Spell
from stress.faults.usable import use
from stress.journal import acknowledged
from stress.record import EVERYBODY, Books
from stress.stage import SOUND, Stage

UNIT = "failures"
PROCESSES = 3
PRIMITIVES = ("counter", "dict", "transaction")
NEMESES = ("power",)

_SIZE = 64 << 20
"""Bytes."""

_LONGEST, _SHORT = 0.5, 0.02
"""Seconds until the power fails, at most; and, the first time, from when a store begins to be."""

_FAILURES = 3
"""Of one store; then comes a new one, for much can only go wrong while it is made."""

_MOST_IN_VAIN = 40
"""Failures after which a promise is given up under which nothing was acknowledged before any."""

_LARGE = "x" * 60_000
"""Written now and then, so that checkpoints come and go."""

_FOREIGN = "rollback-journal"
"""The store in a file that another program made, which keeps its mode. It is held to "power"."""

WAYS = {
    SOUND: {"power": "power", "process": "process", _FOREIGN: "power"},
    "process-as-power": {"power": "process"},
    "none-as-power": {"power": "none"},
}
"""The durabilities that take turns: by the promise to which a store is held, what it has."""


def _take_part(worker: Worker) -> None:
    """In each failure a child of ours writes, for nothing can be closed properly after it."""
    worker.ready()
    while order := worker.pipe.recv():
        children.run(partial(_live_as_child, worker, *order), worker.explain)
        worker.pipe.send(None)


def _live_as_child(worker: Worker, path: str, promise: str) -> None:
    try:
        _write(worker, path, promise)
    except (kvsync.StorageError, kvsync.OpenError):
        if not os.path.exists(_cut(path)):
            raise


def _cut(path: str) -> str:
    """A file beside that file system, which is there once its power is about to be cut."""
    return f"{os.path.dirname(path)}-cut"


def _write(worker: Worker, path: str, promise: str) -> None:
    """Number entries, in turns with others, until the power fails."""
    store = kvsync.open(path, durability=WAYS[worker.way][promise])
    counter, entries, large = store.counter("last"), store.dict("entries"), store.dict("large")
    while True:
        with store.transaction():
            number = counter.add()
            entries[str(number)] = number
            if number % 20 == 0:
                large[str(number % 400)] = _LARGE
        worker.journal.note(Path(path).stem, number)


@dataclass
class _Store:
    """What one was told, and what was in it after its failures."""

    promise: str
    number: int
    failures: int = 0
    acknowledged: int = 0
    recovered: int = 0
    lost: int = 0
    unheard: int = 0
    """Commits that are there and that nobody was told of, not even while the power was cut."""
    doubtful: Counter[int] = field(default_factory=Counter)
    """Acknowledged during a cut."""

    @property
    def name(self) -> str:
        return f"{self.promise}-{self.number}"

    @property
    def keeps_all(self) -> bool:
        return self.promise != "process"


def run(stage: Stage) -> None:
    disk, promises = Disk(os.path.join(stage.folder, "disk"), _SIZE), [*WAYS[stage.way]]
    stores = {promise: [_Store(promise, 0)] for promise in promises}
    with Crew(stage) as crew:
        crew.start(_take_part, stage.processes)
        crew.assemble()
        failures = 0
        while not stage.enough(failures) or _is_too_few(stage, failures):
            store = stores[promises[failures % len(promises)]][-1]
            _fail(stage, crew, disk, store)
            failures += 1
            of_these = stores[store.promise]
            _tell(stage, store.promise, of_these)
            if store.failures >= _FAILURES:
                of_these.append(_Store(store.promise, store.number + 1))
        for member in crew.members:
            member.dismiss(None)
    kept = [each for each in chain.from_iterable(stores.values()) if each.keeps_all]
    stage.books = Books(
        acknowledged=sum(each.acknowledged for each in kept),
        lost=sum(each.lost for each in kept),
        unheard=sum(each.unheard for each in kept),
        cut_off=stage.processes * sum(each.failures for each in kept),
    )
    stage.expect_some(*map(_told, promises))


def _told(promise: str) -> str:
    return f"{promise}: acknowledged"


def _tell(stage: Stage, promise: str, stores: list[_Store]) -> None:
    stage.figures |= {
        _told(promise): sum(each.acknowledged for each in stores),
        f"{promise}: recovered": sum(each.recovered for each in stores),
    }


def _is_too_few(stage: Stage, failures: int) -> bool:
    """Whether a promise was not put to the test yet, and may still be."""
    untried = [each for each in WAYS[stage.way] if not stage.figures.get(_told(each))]
    return bool(untried) and failures < _MOST_IN_VAIN and not stage.violations


def _fail(stage: Stage, crew: Crew, disk: Disk, store: _Store) -> None:
    """Once; what was acknowledged during the cut is doubtful from then on."""
    path = os.path.join(disk.folder, f"{store.name}.db")
    with disk.mounted():
        if store.promise == _FOREIGN:
            _make_foreign(path)
        for member in crew.members:
            member.pipe.send((path, store.promise))
        _wait(stage, path, anew=not store.failures)
        told = Counter(acknowledged(stage.folder)[store.name])
        Path(_cut(path)).touch()
        spell = Spell("power", EVERYBODY)
        disk.cut()
        for member in crew.members:
            crew.receive(member)
    os.unlink(_cut(path))
    after = Counter(acknowledged(stage.folder)[store.name])
    with disk.mounted():
        spell.end()
        stage.struck(spell.fault)
        store.failures += 1
        store.recovered = _expect_recovered(stage, path, store.promise)
        if store.failures >= _FAILURES:
            _remove(path)
    sure = told - store.doubtful
    store.acknowledged = sure.total()
    store.lost = sum(number > store.recovered for number in sure)
    store.unheard = store.recovered - len([each for each in after if each <= store.recovered])
    store.doubtful += after - told
    if store.keeps_all:
        stage.expect(
            not store.lost,
            f"{store.name}: {store.lost} of {store.acknowledged} acknowledged commits are lost",
        )


def _wait(stage: Stage, path: str, *, anew: bool) -> None:
    """Until the power is to fail: the first time while a store is being made."""
    end = time.monotonic() + _LONGEST
    while anew and not os.path.exists(f"{path}-kvsync") and time.monotonic() < end:
        time.sleep(0.0005)
    time.sleep(stage.chance.uniform(0, _SHORT if anew else _LONGEST))


def _make_foreign(path: str) -> None:
    """With a table that stays whatever comes, so that it is never empty, and taken for ours."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma synchronous=extra")
        connection.execute("create table if not exists orders (id integer)")


def _expect_recovered(stage: Stage, path: str, promise: str) -> int:
    """Returns how many commits there are."""
    with kvsync.open(path) as store:
        last, entries = store.counter("last").value, store.dict("entries")
        mode, damage, found = store.stats().journal_mode, store.check().damage, [*entries.values()]
        use(store, "afterwards")
    expected = "delete" if promise == _FOREIGN else "wal"
    stage.expect(mode == expected, f"{path} is in mode {mode}, not {expected}")
    stage.expect(not damage, f"integrity_check: {damage}")
    stage.expect(
        sorted(found) == list(range(1, last + 1)), f"{last} commits, but the entries are {found}"
    )
    return last


def _remove(path: str) -> None:
    """Make room for the next ones."""
    os.unlink(path)
    shutil.rmtree(f"{path}-kvsync")

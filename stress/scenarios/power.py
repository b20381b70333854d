"""After a power failure at any instant a store with durability "power" has every acknowledged
commit, and with "process" a sound file and all commits up to some moment, without a gap.

The power is that of an ext4 file system on a loop device: its shutdown ioctl throws away what was
not on the disk yet. The file system under that device goes on, so what is shown is that the
library syncs, and in the right order, not that the machine's own disks keep their promises. What
was acknowledged during a cut does not count: an `fdatasync` in the middle of it can return success
for what is lost, as a program of nothing but `pwrite` and `fdatasync` shows as well.
"""

import os
import time
from collections import Counter
from functools import partial
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

_LONGEST = 0.5
"""Seconds from one power failure to the next."""

_MOST_IN_VAIN = 40
"""Failures after which a promise is given up under which nothing was acknowledged before any."""

_LARGE = "x" * 60_000
"""Written now and then, so that checkpoints come and go."""

WAYS = {
    SOUND: {"power": "power", "process": "process"},
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
        worker.journal.note(promise, number)


def run(stage: Stage) -> None:
    disk = Disk(os.path.join(stage.folder, "disk"), _SIZE)
    with Crew(stage) as crew:
        crew.start(_take_part, stage.processes)
        crew.assemble()
        failures, doubtful = 0, {promise: Counter[int]() for promise in WAYS[stage.way]}
        while not stage.enough(failures) or _is_too_few(stage, failures):
            failures += 1
            promise = [*doubtful][failures % len(doubtful)]
            _fail(stage, crew, disk, promise, doubtful[promise])
        for member in crew.members:
            member.dismiss(None)
    stage.expect_some(*map(_told, WAYS[stage.way]))


def _told(promise: str) -> str:
    return f"{promise}: acknowledged"


def _is_too_few(stage: Stage, failures: int) -> bool:
    """Whether a promise was not put to the test yet, and may still be."""
    untried = [each for each in WAYS[stage.way] if not stage.figures.get(_told(each))]
    return bool(untried) and failures < _MOST_IN_VAIN and not stage.violations


def _fail(stage: Stage, crew: Crew, disk: Disk, promise: str, doubtful: Counter[int]) -> None:
    """Once; what was acknowledged during the cut is `doubtful` from then on."""
    path = os.path.join(disk.folder, f"{promise}.db")
    with disk.mounted():
        for member in crew.members:
            member.pipe.send((path, promise))
        time.sleep(stage.chance.uniform(0, _LONGEST))
        told = Counter(acknowledged(stage.folder)[promise])
        Path(_cut(path)).touch()
        spell = Spell("power", EVERYBODY)
        disk.cut()
        for member in crew.members:
            crew.receive(member)
    os.unlink(_cut(path))
    with disk.mounted():
        spell.end()
        stage.struck(spell.fault)
        _expect_recovered(stage, path, promise, [*(told - doubtful)])
    doubtful += Counter(acknowledged(stage.folder)[promise]) - told


def _expect_recovered(stage: Stage, path: str, promise: str, told: list[int]) -> None:
    with kvsync.open(path) as store:
        last, entries = store.counter("last").value, store.dict("entries")
        damage, found = store.check().damage, sorted(entries.values())
        use(store, "afterwards")
    stage.figures |= {_told(promise): len(told), f"{promise}: recovered": last}
    stage.expect(not damage, f"integrity_check: {damage}")
    stage.expect(found == list(range(1, last + 1)), f"{last} commits, but the entries are {found}")
    if promise == "power":
        lost = len([number for number in told if number > last])
        unheard, cut_off = _unheard(stage, last), _cut_off(stage)
        stage.books = Books(len(told), lost, None, None, unheard, cut_off)
        stage.expect(not lost, f"{lost} of {len(told)} acknowledged commits are lost")


def _unheard(stage: Stage, last: int) -> int:
    """How many commits are there that nobody was told of, not even while the power was cut."""
    return last - len({number for number in acknowledged(stage.folder)["power"] if number <= last})


def _cut_off(stage: Stage) -> int:
    """All who wrote, each time."""
    return stage.processes + ((stage.books and stage.books.cut_off) or 0)

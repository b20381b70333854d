"""While a file system is full its users get errors that are kvsync's own, and no others; the file
stays sound, what was acknowledged is in it, and everything goes on once there is space again.
"""

import os
import queue
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import kvsync
from stress.crew import PATIENCE, Crew, Worker
from stress.faults.mounts import ballast, in_memory
from stress.faults.spell import Spell
from stress.faults.usable import use
from stress.journal import UNKNOWN, acknowledged
from stress.record import EVERYBODY, Books
from stress.stage import SOUND, Stage

UNIT = "fillings"
PROCESSES = 4
PRIMITIVES = ("counter", "dict", "lock", "queue")
NEMESES = ("io",)

_SIZE = 8_000_000
"""Bytes."""

_LONG = "x" * 3000
_KEYS = 50


def _acknowledge_first(worker: Worker, store: kvsync.Store) -> None:
    worker.journal.note("hits", UNKNOWN)
    _add(store)


def _add_and_note(worker: Worker, store: kvsync.Store) -> None:
    worker.journal.note("hits", _add(store))


def _add(store: kvsync.Store) -> int:
    """Several changes, one commit."""
    with store.transaction():
        number = store.counter("hits").add()
        store.dict("entries")[str(number % _KEYS)] = _LONG[: number % len(_LONG)]
    return number


WAYS: dict[str, Callable[[Worker, kvsync.Store], None]] = {
    SOUND: _add_and_note,
    "acknowledged-first": _acknowledge_first,
}


def _write(worker: Worker, path: str) -> None:
    with kvsync.open(path) as store:
        lock, jobs = store.lock("turn"), store.queue("jobs")
        calls: list[Callable[[], object]] = [
            partial(WAYS[worker.way], worker, store),
            partial(_take_turn, lock),
            partial(jobs.put, "item"),
            partial(_work_off, jobs),
        ]
        while worker.going_on():
            _attempt(worker, worker.chance.choice(calls))
        if lock.owned():
            lock.release()


def _take_turn(lock: kvsync.Lock) -> None:
    if not lock.owned():
        lock.acquire(timeout=0.1)
    if lock.owned():
        lock.release()


def _work_off(jobs: kvsync.Queue) -> None:
    with suppress(queue.Empty):
        for task in jobs.reserve_many(2, timeout=0):
            task.ack()


def _attempt(worker: Worker, call: Callable[[], object]) -> None:
    try:
        call()
        worker.ready()
    except kvsync.StorageError:
        worker.journal.note("refused", UNKNOWN)
        time.sleep(0.001)
    except (kvsync.OpenError, kvsync.BusyError):
        worker.journal.note("otherwise", UNKNOWN)


def run(stage: Stage) -> None:
    folder = os.path.join(stage.folder, "small")
    with in_memory(folder, _SIZE):
        path = os.path.join(folder, "store.db")
        with Crew(stage) as crew:
            crew.start(_write, stage.processes, path)
            crew.assemble()
            fillings = 0
            while not stage.enough(fillings):
                with ballast(folder), Spell("io", EVERYBODY) as spell:
                    _await_more(stage, crew, "refused")
                stage.struck(spell.fault)
                _await_more(stage, crew, "hits")
                fillings += 1
        _expect_nothing_lost(stage, path)


def _await_more(stage: Stage, crew: Crew, label: str) -> None:
    """Return when that was noted some more times."""
    enough = len(acknowledged(stage.folder)[label]) + 2 * stage.processes
    deadline = time.monotonic() + PATIENCE
    while len(acknowledged(stage.folder)[label]) < enough and not stage.violations:
        crew.watch(0.02)
        stage.expect(time.monotonic() < deadline, f"there is no {label!r} any more")


def _expect_nothing_lost(stage: Stage, path: str) -> None:
    with kvsync.open(path) as store:
        value, damage = store.counter("hits").value, store.check().damage
        use(store, "afterwards")
    notes = acknowledged(stage.folder)
    hits, refused = notes["hits"], len(notes["refused"])
    stage.figures |= {"acknowledged": len(hits), "refused": refused, "counted": value}
    unheard = max(0, value - len(hits))
    lost = max(0, len(hits) - value)
    stage.books = Books(len(hits), lost, None, None, unheard, refused)
    stage.expect(len(hits) <= value, f"{len(hits)} were acknowledged, but {value} counted")
    stage.expect(value <= len(hits) + refused, f"{value} counted, {len(hits)} acknowledged")
    told = [number for number in hits if number != UNKNOWN]
    stage.expect(len(told) == len(set(told)), "a number was given to two writers")
    stage.expect(not damage, f"integrity_check: {damage}")

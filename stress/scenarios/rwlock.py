"""Nobody is beside a writer, also not while it becomes a reader, readers are together, neither side
starves, and nobody who dies by SIGKILL at any instant leaves a side taken; and the lock is
linearizable as a read-write lock.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import kvsync
from kvsync.primitives import grants, units
from kvsync.primitives.lock import Lockable
from stress import judge
from stress.checkers import Violation, linearizability, permits
from stress.checkers.models.held import ReadWriteLock
from stress.crew import PATIENCE, Crew, Worker
from stress.history import History, Operation
from stress.journal import UNKNOWN, acknowledged
from stress.stage import SOUND, Stage
from stress.witness import BY_MANY, BY_ONE, had, is_first

UNIT = "kills"
PROCESSES = 6
NEMESES = ("kill", "stop")

_READ_FOR = 0.002
_WRITE_FOR = 0.0005
"""Seconds at most."""

_DOWNGRADED = 0.3

_ENOUGH = 300
"""Turns of both sides in which it shows whether each has its share."""

_LEAST_SHARE = 0.2
"""Of what a process on the other side has. In turn they have the same."""

_ALL = 1 << 20
"""Permits that a writer has, of which each reader has one."""


_BEHIND_THE_LINE = (
    "where not exists (select 1 from kvsync_ticket where space = :space and name = :name)"
)


class Sides:
    """The sound way."""

    def __init__(self, lock: kvsync.RWLock) -> None:
        self.lock = lock
        self.reader: Lockable = lock.read()
        self.writer: Lockable = lock.write()

    def downgrade(self) -> None:
        self.lock.write().downgrade()


class _OneSide(Sides):
    def __init__(self, lock: kvsync.RWLock, side: Lockable) -> None:
        super().__init__(lock)
        self.reader = self.writer = side

    def downgrade(self) -> None:
        pass


class _DowngradedInTwoSteps(Sides):
    def downgrade(self) -> None:
        self.writer.release()
        self.reader.acquire()


class _ReadersFirst(Sides):
    """Where there is room for a reader, it does not stand in the line."""

    def __init__(self, lock: kvsync.RWLock) -> None:
        vars(units)["TAKE"] = grants.TAKE.replace(_BEHIND_THE_LINE, "where true")
        super().__init__(lock)


WAYS: dict[str, Callable[[kvsync.RWLock], Sides]] = {
    SOUND: Sides,
    "writers-as-readers": lambda lock: _OneSide(lock, lock.read()),
    "readers-as-writers": lambda lock: _OneSide(lock, lock.write()),
    "downgraded-in-two-steps": _DowngradedInTwoSteps,
    "readers-first": _ReadersFirst,
}


def _read(worker: Worker) -> None:
    while worker.going_on():
        ending, history = worker.window()
        name = f"pages{ending}"
        sides = _sides(worker, name)
        with worker.in_doubt():
            history.call(name, "read", None, sides.reader.acquire)
        with had(_witness(worker, name), BY_MANY), worker.holding():
            _look(worker, name)
            worker.journal.note(name, UNKNOWN)
            worker.ready()
        with worker.in_doubt():
            history.call(name, "release", None, sides.reader.release)


def _look(worker: Worker, name: str) -> None:
    with is_first(_witness(worker, name) + "-readers") as first:
        time.sleep(worker.chance.uniform(0, _READ_FOR))
    worker.journal.note("read" if first else "read-beside-others", worker.number)


def _write(worker: Worker) -> None:
    while worker.going_on():
        ending, history = worker.window()
        name = f"pages{ending}"
        sides = _sides(worker, name)
        with worker.in_doubt():
            history.call(name, "write", None, sides.writer.acquire)
        with had(_witness(worker, name), BY_ONE) as witness, worker.holding():
            time.sleep(worker.chance.uniform(0, _WRITE_FOR))
            worker.journal.note("written", worker.number)
            worker.ready()
            side = sides.writer
            if worker.chance.random() < _DOWNGRADED:
                side = sides.reader
                witness.share()  # others may read even before our call returns
                with worker.in_doubt():
                    history.call(name, "downgrade", None, sides.downgrade)
                _look_again(worker)
        with worker.in_doubt():
            history.call(name, "release", None, side.release)


def _look_again(worker: Worker) -> None:
    time.sleep(worker.chance.uniform(0, _WRITE_FOR))
    worker.journal.note("downgraded", UNKNOWN)


def _sides(worker: Worker, name: str) -> Sides:
    return WAYS[worker.way](worker.store.rwlock(name))


def _witness(worker: Worker, name: str) -> str:
    return f"{worker.path}-witness-{name}"


def run(stage: Stage) -> None:
    stage.processes = max(stage.processes, 4)
    writers = max(2, stage.processes // 3)
    readers = stage.processes - writers
    with Crew(stage) as crew:
        crew.start(_read, readers)
        crew.start(_write, writers)
        crew.assemble()
        _judge_shares(stage, crew, readers, writers)
        crew.be_struck()
        crew.recover()
        _judge_shares(stage, crew, readers, writers)
    notes = _counts(stage)
    stage.figures |= {
        "read": notes["read"] + notes["read-beside-others"],
        "together": notes["read-beside-others"],
        "written": notes["written"],
        "downgraded": notes["downgraded"],
    }
    stage.expect_some("read", "written")
    with stage.open() as store:
        for name in (label for label in notes if label.startswith("pages")):
            free = store.rwlock(name).write().acquire(timeout=PATIENCE)
            stage.expect(free, f"the rwlock {name} is left taken")
    stage.books = crew.books()
    search = partial(linearizability.flaw, model=ReadWriteLock())
    judge.expect_legal(stage, search, _beside_a_writer)
    stage.expect_sound_file()


def _counts(stage: Stage) -> Counter[str]:
    return Counter({label: len(who) for label, who in acknowledged(stage.folder).items()})


def _judge_shares(stage: Stage, crew: Crew, readers: int, writers: int) -> None:
    """For a while in which all live and nobody is stopped: without writers, readers run free."""
    before, enough = _counts(stage), crew.operations() + _ENOUGH
    crew.until(lambda: crew.operations() >= enough)
    notes = _counts(stage) - before
    together, written = notes["read-beside-others"], notes["written"]
    read = notes["read"] + together
    stage.expect(together > 0, f"of {read} readers none was beside another")
    a, b = read / readers, written / writers
    stage.expect(a >= _LEAST_SHARE * b, f"readers starve: {a:.0f} turns each, writers {b:.0f}")
    stage.expect(b >= _LEAST_SHARE * a, f"writers starve: {b:.0f} turns each, readers {a:.0f}")


def _beside_a_writer(history: History) -> Violation | None:
    """A writer has all permits that there are, a reader has one."""
    return permits.flaw([_as_of_permits(each) for each in history], _ALL)


def _as_of_permits(operation: Operation) -> Operation:
    match operation.function:
        case "read":
            return replace(operation, function="acquire", argument=1)
        case "write":
            return replace(operation, function="acquire", argument=_ALL)
        case "downgrade":
            return replace(operation, function="release", argument=_ALL - 1)
    return replace(operation, argument=_ALL)

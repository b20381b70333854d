"""Never are more permits of a semaphore held than its limit, however many are taken at once, and
those of holders that die by SIGKILL at any instant come back, all of them; nobody tries in vain
while enough of them are free and nobody else is there; and the semaphore is linearizable.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import kvsync
from stress import judge
from stress.busy import BUSY, unless_busy
from stress.checkers import linearizability, permits
from stress.checkers.models.held import Semaphore
from stress.crew import PATIENCE, Crew, Worker
from stress.history import Recording
from stress.journal import UNKNOWN, acknowledged
from stress.stage import SOUND, Stage
from stress.witness import among

UNIT = "kills"
PROCESSES = 6
NEMESES = ("kill", "stop")

LIMIT = 3
_HOW_MANY = (1, 1, 1, 2, 2, 3)

_IMPATIENT = 0.2
_TRIES_ONLY = 0.5
"""Of those who take permits as many are impatient, and of these as many wait for no time at all."""

_SHORTLY = 0.002
_HELD = 0.003
"""Seconds."""

_ATTEMPTS = 100
_NAP = 0.001


class Permits(Protocol):
    """What can be taken, any number at once, and given back, in parts too."""

    def acquire(self, *, timeout: float | None, n: int) -> bool: ...

    def release(self, n: int) -> None: ...


class _Number:
    """A number that is counted up and down: nobody knows whose the permits are."""

    def __init__(self, store: kvsync.Store, name: str) -> None:
        self._counts, self._name = store.dict("counts"), name

    def acquire(self, *, timeout: float | None, n: int) -> bool:  # noqa: ARG002
        for _ in range(_ATTEMPTS):
            if self._counts.increment(self._name, n) <= LIMIT:
                return True
            self.release(n)
            time.sleep(_NAP)
        return False

    def release(self, n: int) -> None:
        self._counts.increment(self._name, -n)


class _LookThenTake:
    """What was free a moment ago is taken to be free now."""

    def __init__(self, store: kvsync.Store, name: str) -> None:
        self._wide = store.semaphore(name, 100 * LIMIT)

    def acquire(self, *, timeout: float | None, n: int) -> bool:
        for _ in range(_ATTEMPTS):
            if sum(holder.units for holder in self._wide.holders()) + n <= LIMIT:
                return self._wide.acquire(timeout=timeout, n=n)
            time.sleep(_NAP)
        return False

    def release(self, n: int) -> None:
        self._wide.release(n)


class _ManyAsOne:
    def __init__(self, store: kvsync.Store, name: str) -> None:
        self._semaphore = store.semaphore(name, LIMIT)
        self._taken = 0

    def acquire(self, *, timeout: float | None, n: int) -> bool:
        self._taken = n
        return self._semaphore.acquire(timeout=timeout)

    def release(self, n: int) -> None:
        self._taken -= n
        if not self._taken:
            self._semaphore.release()


WAYS: dict[str, Callable[[kvsync.Store, str], Permits]] = {
    SOUND: lambda store, name: store.semaphore(name, LIMIT),
    "number": _Number,
    "look-then-take": _LookThenTake,
    "many-as-one": _ManyAsOne,
}


def _hold(worker: Worker) -> None:
    while worker.going_on():
        ending, history = worker.window()
        name = f"permits{ending}"
        some = WAYS[worker.way](worker.store, name)
        n = worker.chance.choice(_HOW_MANY)
        if _take(worker, some, name, n, history):
            witness = among(f"{worker.path}-witness-{name}", LIMIT, n)
            with witness as others, worker.holding(n):
                _note(worker, name, n, others)
            _give_back(worker, some, name, n, history)


def _take(worker: Worker, some: Permits, name: str, n: int, history: Recording) -> bool:
    """Of who gave up, the history does not say that it has changed nothing: until that is undone,
    it may stand in the line."""
    timeout = _patience(worker)
    take = partial(some.acquire, timeout=timeout, n=n)
    with unless_busy(worker, timeout), worker.in_doubt():
        return history.call(name, "try" if timeout == 0 else "acquire", n, take)
    return False


def _patience(worker: Worker) -> float | None:
    if worker.chance.random() >= _IMPATIENT:
        return None
    tries_only = worker.chance.random() < _TRIES_ONLY
    return 0.0 if tries_only else worker.chance.uniform(0, _SHORTLY)


def _note(worker: Worker, name: str, n: int, others: int) -> None:
    worker.journal.note(name, n)
    if others:
        worker.journal.note("beside-others", UNKNOWN)
    worker.ready()
    time.sleep(worker.chance.uniform(0, _HELD))


def _give_back(worker: Worker, some: Permits, name: str, n: int, history: Recording) -> None:
    """In one or two parts."""
    first = worker.chance.randint(1, n)
    for part in filter(None, (first, n - first)):
        with worker.in_doubt():
            history.call(name, "release", part, partial(some.release, part))


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_hold, stage.processes)
        crew.be_struck()
    held = acknowledged(stage.folder)
    together, busy = held.pop("beside-others", []), held.pop(BUSY, [])
    stage.figures |= {
        "held": sum(map(len, held.values())),
        "beside others": len(together),
        BUSY: len(busy),
    }
    stage.expect_some("held")
    with stage.open() as store:
        for name in held:
            all_of_them = WAYS[stage.way](store, name).acquire(timeout=PATIENCE, n=LIMIT)
            stage.expect(all_of_them, f"not all permits of {name} are to be had")
    stage.books = crew.books()
    search = partial(linearizability.flaw, model=Semaphore(LIMIT))
    judge.expect_legal(
        stage,
        search,
        partial(permits.flaw, limit=LIMIT),
        partial(permits.refusal, limit=LIMIT),
    )
    stage.expect_sound_file()

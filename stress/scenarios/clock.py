"""Whatever the wall clock does, in steps of up to a day, a lease ends neither early nor late, a
rate limiter lets through what it may and no more, and every wait ends; what goes by the wall clock,
a TTL and a delay, ends just when that clock says so.
"""

import itertools
import os
import queue
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import kvsync
from kvsync.clock import Clock, SystemClock
from stress.crew import Crew, Worker
from stress.faults.wall import Moment, Steps, Wall, boot, sleep_otherwise
from stress.journal import UNKNOWN, acknowledged
from stress.nemeses.clock import Clock as Stepping
from stress.stage import SOUND, Stage
from stress.witness import alone

UNIT = "steps"
PROCESSES = 7
PRIMITIVES = ("lock", "rate_limiter", "dict", "queue")
NEMESES = ("clock",)

_DAY = 86_400.0
_LONG_LEASE, _SHORT_LEASE = 600.0, 0.02
_RATE, _BURST = 500, 10
_WAIT = 30.0
_LATE = 2.0
"""Seconds that may pass between two instructions of a process, mostly."""

_FEW = 4


class _OneClock(NamedTuple):
    """A clock that takes both times from the same source."""

    wall: Callable[[], float]

    @property
    def boot(self) -> Callable[[], float]:
        return self.wall


WAYS: dict[str, Clock] = {
    SOUND: SystemClock(),
    "leases-by-wall-clock": _OneClock(SystemClock.wall),
    "ttl-by-boot-clock": _OneClock(SystemClock.boot),
}


def _work(worker: Worker, job: Callable[[Worker, kvsync.Store], None]) -> None:
    sleep_otherwise()
    with kvsync.open(worker.path, clock=WAYS[worker.way]) as store:
        job(worker, store)


def _hold(worker: Worker, store: kvsync.Store) -> None:
    """With a lease that no run outlives."""
    lock = store.lock("long", lease=_LONG_LEASE, timeout=_WAIT)
    while worker.going_on():
        with lock as grant, alone(worker.path + "-witness", grant.token):
            time.sleep(worker.chance.uniform(0, 0.1))
            lock.ensure_held()
            worker.ready()
        worker.journal.note("held", UNKNOWN)


def _abandon(worker: Worker, store: kvsync.Store) -> None:
    """What is not given back is free once its lease is over."""
    lock = store.lock("short", lease=_SHORT_LEASE, timeout=_WAIT)
    while worker.going_on():
        asked = boot()
        assert lock.acquire(), "a lease does not end"
        worker.ready()
        time.sleep(worker.chance.uniform(0, 3 * _SHORT_LEASE))
        try:
            lock.release()
        except kvsync.LeaseLostError:
            assert boot() - asked >= _SHORT_LEASE, "a lease ends early"
        worker.journal.note("let-go", UNKNOWN)


def _limit(worker: Worker, store: kvsync.Store) -> None:
    limiter = store.rate_limiter("rate", _RATE, per=1, burst=_BURST)
    while worker.going_on():
        assert limiter.acquire(timeout=_WAIT), "the rate limiter lets nothing through"
        worker.journal.note("let-through", UNKNOWN)
        worker.ready()


class Kept(NamedTuple):
    """What is to last from that moment until the wall clock shows `end`."""

    since: Moment
    end: float

    def is_over(self, now: Moment) -> bool:
        return now.wall > self.end + _LATE

    def never_was_over(self, now: Moment) -> bool:
        """The clock may have passed the end, and have gone back since."""
        return now.latest_since(self.since) < self.end - _LATE


def _expire(worker: Worker, store: kvsync.Store) -> None:
    """TTLs, as this process sets and finds them."""
    entries, steps = store.dict(f"entries {worker.number}"), _steps(worker)
    kept: dict[str, Kept] = {}
    while worker.going_on():
        key, ttl = f"{worker.chance.random()}", _some_time(worker)
        moment, _ = steps.during(partial(entries.set, key, 1, ttl=ttl))
        if moment:
            kept[key] = Kept(moment, moment.wall + ttl)
        for key in worker.chance.sample(sorted(kept), min(_FEW, len(kept))):
            moment, found = steps.during(partial(entries.__contains__, key))
            _expect_by_wall(moment, kept[key], found)
        worker.journal.note("looked-at", UNKNOWN)
        worker.ready()


def _expect_by_wall(now: Moment | None, kept: Kept, found: bool) -> None:
    if now and found:
        assert not kept.is_over(now), "an entry outlives its TTL"
    if now and not found:
        assert not kept.never_was_over(now), "an entry goes before its TTL is over"


def _delay(worker: Worker, store: kvsync.Store) -> None:
    """Items of a queue that this process alone uses."""
    jobs, steps = store.queue(f"jobs {worker.number}"), _steps(worker)
    waiting: dict[int, Kept | None] = {}
    for number in itertools.takewhile(lambda _: worker.going_on(), itertools.count()):
        delay = _some_time(worker)
        moment, _ = steps.during(partial(jobs.put, number, delay=delay))
        waiting[number] = Kept(moment, moment.wall + delay) if moment else None
        for _ in range(_FEW):
            moment, got = steps.during(partial(_get, jobs))
            _expect_in_time(moment, waiting, got)
        worker.journal.note("asked-for", UNKNOWN)
        worker.ready()


def _expect_in_time(now: Moment | None, waiting: dict[int, Kept | None], got: int | None) -> None:
    kept = waiting.pop(got) if got is not None else None
    if now and kept:
        assert not kept.never_was_over(now), "an item is given out before its delay is over"
    if now and got is None:
        overdue = [each for each in waiting.values() if each and each.is_over(now)]
        assert not overdue, f"{len(overdue)} items are held back though their delay is over"


def _get(jobs: kvsync.Queue) -> int | None:
    """However long others write meanwhile."""
    while True:
        with suppress(kvsync.BusyError):
            try:
                number: int = jobs.get_nowait()
            except queue.Empty:
                return None
            return number


def _steps(worker: Worker) -> Steps:
    return Steps(os.path.dirname(worker.path))


def _some_time(worker: Worker) -> float:
    return float(_DAY * worker.chance.random() ** 4)


_JOBS = (_hold, _abandon, _limit, _expire, _delay)
_DONE = ("held", "let-go", "let-through", "looked-at", "asked-for")
"""What each of these notes."""


def run(stage: Stage) -> None:
    wall, steps = Wall(stage.folder), 0
    stepping = Stepping(wall)
    began = boot()
    with wall.given(), Crew(stage) as crew:
        for number in range(stage.processes):
            crew.start(_work, 1, _JOBS[number % len(_JOBS)])
        crew.assemble()
        while not stage.enough(steps):
            stepping.strike(crew)
            steps += 1
            crew.watch(stage.chance.uniform(0, 0.2))
    notes = {label: len(numbers) for label, numbers in acknowledged(stage.folder).items()}
    stage.figures |= notes
    stage.expect_some(*_DONE[: stage.processes])
    allowed = _BURST + _RATE * (boot() - began)
    stage.expect(notes["let-through"] <= allowed, f"{allowed:.0f} units may be let through")
    stage.expect_sound_file()

"""All primitives at once, in one store and by all processes: each keeps its own promise, and no
grant, ticket or item is left behind, though processes are killed by SIGKILL at any instant.

The invariants are light, for there is a scenario for each; what is new is that all share the file,
the gate and the doorbells. It stands 200 processes and more.
"""

import queue
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, NamedTuple

import kvsync
from stress.backlog import drain, jobs_of
from stress.checkers import rate
from stress.crew import PATIENCE, Crew, Worker
from stress.history import now
from stress.journal import UNKNOWN, acknowledged
from stress.record import Books
from stress.stage import SOUND, Stage
from stress.witness import BY_MANY, BY_ONE, alone, among, had

UNIT = "kills"
PROCESSES = 8
NEMESES = ("kill", "stop")
PRIMITIVES = tuple(
    "counter dict transaction lock rlock semaphore rwlock event condition barrier election"
    " rate_limiter once queue".split()
)

_SHORTLY = 0.05
"""Seconds that each wait takes at most: others may want to go on with something else."""

_HELD = 0.0005
_ACCOUNTS = [f"account {number}" for number in range(10)]
_TOTAL = 1_000
_PERMITS = 3
_TASKS = 50
_LIMIT, _BURST = 200, 20
_PARTIES = 2
_SECOND = 1e9


class Way(NamedTuple):
    """What a twin leaves out."""

    transaction: Callable[[kvsync.Store], AbstractContextManager[Any]] = kvsync.Store.transaction
    lock: Callable[[kvsync.Lock], AbstractContextManager[Any]] = lambda lock: lock


WAYS: dict[str, Way] = {
    SOUND: Way(),
    "separate-commits": Way(transaction=lambda _: nullcontext()),
    "no-lock": Way(lock=lambda _: nullcontext()),
}

# --- what a process does --------------------------------------------------------------------------


def _count(worker: Worker) -> None:
    with worker.in_doubt():
        worker.journal.note("counter", worker.store.counter("hits").add())


def _swap(worker: Worker) -> None:
    entries = worker.store.dict("entries")
    old = entries.get("swapped", 0)
    with worker.in_doubt():
        if entries.compare_and_set("swapped", old or kvsync.MISSING, old + 1):
            worker.journal.note("swapped", old + 1)


def _transfer(worker: Worker) -> None:
    accounts = worker.store.dict("accounts")
    giver, taker = worker.chance.sample(_ACCOUNTS, 2)
    with WAYS[worker.way].transaction(worker.store):
        assert sum(accounts.get_many(_ACCOUNTS).values()) == _TOTAL, "the total has changed"
        amount = worker.chance.randint(0, accounts[giver])
        accounts[giver] -= amount
        accounts[taker] += amount


def _lock(worker: Worker) -> None:
    lock = worker.store.lock("lock", timeout=_SHORTLY)
    with WAYS[worker.way].lock(lock), alone(worker.path + "-lock", lock.token):
        _stay(worker)
        if lock.token:
            with worker.store.transaction(guard=lock):
                worker.store.counter("guarded").add()


def _rlock(worker: Worker) -> None:
    lock = worker.store.rlock("rlock", timeout=_SHORTLY)
    with lock as outer, alone(worker.path + "-rlock", lock.token), lock as inner:
        assert outer.token == inner.token, "a token has changed"
        _stay(worker)


def _semaphore(worker: Worker) -> None:
    n = worker.chance.randint(1, _PERMITS)
    semaphore = worker.store.semaphore("semaphore", _PERMITS)
    if semaphore.acquire(timeout=_SHORTLY, n=n):
        with among(worker.path + "-semaphore", _PERMITS, n):
            _stay(worker)
        semaphore.release(n)


def _read(worker: Worker) -> None:
    side = worker.store.rwlock("rwlock", timeout=_SHORTLY).read()
    with side, had(worker.path + "-rwlock", BY_MANY):
        _stay(worker)


def _write(worker: Worker) -> None:
    side = worker.store.rwlock("rwlock", timeout=_SHORTLY).write()
    with side, had(worker.path + "-rwlock", BY_ONE) as witness:
        _stay(worker)
        witness.share()
        side.downgrade()


def _lead(worker: Worker) -> None:
    election = worker.store.election("election")
    if election.campaign(timeout=_SHORTLY):
        with alone(worker.path + "-election", election.token):
            _stay(worker)
        election.resign()


def _set_or_wait(worker: Worker) -> None:
    event = worker.store.event("event")
    match worker.chance.randrange(3):
        case 0:
            event.set()
        case 1:
            event.clear()
        case _:
            event.wait(_SHORTLY)


def _notify_or_wait(worker: Worker) -> None:
    condition = worker.store.condition("condition", worker.store.lock("own", timeout=_SHORTLY))
    with condition, alone(worker.path + "-condition", condition.lock.token):
        condition.notify()
        waits = worker.chance.random() < 0.5
    if waits:
        with condition:
            condition.wait(_SHORTLY)


def _meet(worker: Worker) -> None:
    barrier = worker.store.barrier("barrier", _PARTIES)
    try:
        worker.journal.note("met", barrier.wait(_SHORTLY))
    except kvsync.BrokenBarrierError:
        barrier.reset()


def _once(worker: Worker) -> None:
    name = f"task-{worker.chance.randrange(_TASKS)}"

    def task() -> int:
        with alone(f"{worker.path}-{name}", None):
            _stay(worker)
        return worker.number

    worker.journal.note(name, worker.store.once(name).run(task, timeout=_SHORTLY))


def _use(worker: Worker) -> None:
    limiter = worker.store.rate_limiter("rate", _LIMIT, per=1, burst=_BURST)
    if limiter.acquire(timeout=_SHORTLY):
        worker.journal.note("units", UNKNOWN)


def _put(worker: Worker) -> None:
    with suppress(queue.Full), worker.store.transaction():
        jobs_of(worker.store).put_nowait(worker.number)
        worker.store.counter("put").add()


def _work(worker: Worker) -> None:
    with suppress(queue.Empty, kvsync.StaleReceiptError):
        task = jobs_of(worker.store).reserve(_SHORTLY)
        with WAYS[worker.way].transaction(worker.store):
            _finish(worker.store, task)


def _finish(store: kvsync.Store, task: kvsync.Task) -> None:
    store.counters("results").add(str(task.id))
    task.ack()


def _stay(worker: Worker) -> None:
    time.sleep(worker.chance.uniform(0, _HELD))


_ACTS: tuple[Callable[[Worker], None], ...] = (
    _count,
    _swap,
    _transfer,
    _lock,
    _rlock,
    _semaphore,
    _read,
    _write,
    _lead,
    _set_or_wait,
    _notify_or_wait,
    _meet,
    _once,
    _use,
    _put,
    _work,
)


def _act(worker: Worker) -> None:
    """What was not to be had in time, or was busy for too long, has changed nothing."""
    while worker.going_on():
        with suppress(kvsync.AcquireTimeout, kvsync.BusyError):
            worker.chance.choice(_ACTS)(worker)
            worker.journal.note("acts", UNKNOWN)
            worker.ready()


# --- what is to hold at the end -------------------------------------------------------------------


def run(stage: Stage) -> None:
    with stage.open() as store:
        share = _TOTAL // len(_ACCOUNTS)
        store.dict("accounts").update(dict.fromkeys(_ACCOUNTS, share))
        began = now()
        with Crew(stage) as crew:
            crew.start(_act, stage.processes)
            crew.be_struck()
        span = (now() - began) / _SECOND
        notes = acknowledged(stage.folder)
        stage.figures["acts"] = len(notes["acts"])
        stage.expect_some("acts")
        _expect_accounted(
            stage,
            {
                "counter": store.counter("hits").value,
                "swapped": store.dict("entries").get("swapped", 0),
            },
            notes,
            crew,
        )
        _expect_total(stage, store)
        _expect_one_result(stage, store, notes)
        _expect_met(stage, notes["met"], crew.killed)
        units, allowed = len(notes["units"]), rate.allowed(span, _LIMIT, 1, _BURST)
        stage.expect(units <= allowed, f"{units} units were granted: {allowed:.0f} may be")
        _expect_items_once(stage, store)
        _expect_all_free(stage, store)
    stage.expect_sound_file()


def _expect_accounted(
    stage: Stage, values: dict[str, int], notes: dict[str, list[int]], crew: Crew
) -> None:
    """Each number was given to one, and those that are not noted to who was killed."""
    for label, value in values.items():
        told = notes[label]
        stage.expect(len(told) == len({*told}), f"a number of {label} was given twice")
        stage.expect(max(told, default=0) <= value, f"{label} went back to {value}")
        stage.expect(
            len(told) <= value <= len(told) + crew.killed,
            f"{label} is {value}, {len(told)} are acknowledged, and {crew.killed} were killed",
        )
    known = sum(len(notes[label]) for label in values)
    lost = sum(max(0, len(notes[label]) - value) for label, value in values.items())
    unheard = sum(max(0, value - len(notes[label])) for label, value in values.items())
    stage.expect_heard(unheard, crew.unknown)
    stage.books = Books(known, lost, None, crew.unknown, unheard, crew.killed)


def _expect_total(stage: Stage, store: kvsync.Store) -> None:
    total = sum(store.dict("accounts").values())
    stage.expect(total == _TOTAL, f"the accounts have {total}, not {_TOTAL}")


def _expect_one_result(stage: Stage, store: kvsync.Store, notes: dict[str, list[int]]) -> None:
    for name in (label for label in notes if label.startswith("task-")):
        results = {*notes[name], store.once(name).result()}
        stage.expect(len(results) == 1, f"{name} has several results: {results}")


def _expect_met(stage: Stage, places: list[int], killed: int) -> None:
    """Nobody passes alone."""
    first = places.count(0)
    apart = abs(len(places) - 2 * first)
    stage.expect(apart <= killed, f"{first} of {len(places)} were the first of two")


def _expect_items_once(stage: Stage, store: kvsync.Store) -> None:
    for task in drain(stage, store):
        with store.transaction():
            _finish(store, task)
    results, put = dict(store.counters("results")), store.counter("put").value
    stage.expect(len(results) == put, f"{put} items were put, {len(results)} have a result")
    several = sum(times > 1 for times in results.values())
    stage.expect(not several, f"{several} items have more than one result")
    stage.figures["items"] = put


def _expect_all_free(stage: Stage, store: kvsync.Store) -> None:
    """Once those who died are seen to, nobody holds anything, waits, or owes anything."""
    store.session.reap_all()
    for table in ("kvsync_grant", "kvsync_ticket", "kvsync_pledge"):
        ((left,),) = store.engine.read(f"select count(*) from {table}")
        stage.expect(left == 0, f"{left} rows are left in {table}")
    free = store.lock("lock").acquire(timeout=PATIENCE)
    stage.expect(free, "a lock is left taken")

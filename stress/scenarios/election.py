"""There is one leader at a time, who is followed when it resigns or dies by SIGKILL at any instant,
and one that was deposed by force, whether it knows or not, is refused every guarded write; and the
election is linearizable as a mutex with a fence.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial

import kvsync
from kvsync.primitives.lock import Lockable
from stress import judge
from stress.checkers import fenced_mutex, linearizability
from stress.checkers.models.held import FencedMutex
from stress.crew import PATIENCE, Crew, Worker
from stress.journal import UNKNOWN, acknowledged
from stress.stage import SOUND, Stage
from stress.witness import alone

UNIT = "kills"
PROCESSES = 6
NEMESES = ("kill", "stop")
LONG_CHECKS = (fenced_mutex.flaw,)

_DEPOSED = 0.3
"""Of the rounds of those who can be deposed, as many begin by deposing whoever leads."""

_WRITES = 5
_SEATS = 2


class Office:
    """The sound way to lead, and to write as the leader."""

    def __init__(self, store: kvsync.Store, name: str) -> None:
        self.store = store
        self.seat: Lockable = store.election(name)

    def campaign(self) -> int | None:
        assert isinstance(self.seat, kvsync.Election)
        assert self.seat.campaign()
        return self.seat.token

    def is_leader(self) -> bool:
        assert isinstance(self.seat, kvsync.Election)
        return self.seat.is_leader()

    def guarded(self) -> AbstractContextManager[None]:
        return self.store.transaction(guard=self.seat)

    def resign(self) -> None:
        self.seat.release()


class _TwoSeats(Office):
    def __init__(self, store: kvsync.Store, name: str) -> None:
        super().__init__(store, name)
        self.seat = store.semaphore(name, _SEATS)

    def campaign(self) -> int | None:
        self.seat.acquire()
        return self.seat.token

    def is_leader(self) -> bool:
        return self.seat.owned()


class _Unguarded(Office):
    def guarded(self) -> AbstractContextManager[None]:
        return self.store.transaction()


class _LookThenWrite(Office):
    """What was true before the transaction is taken to be true in it."""

    def guarded(self) -> AbstractContextManager[None]:
        if not self.is_leader():
            raise kvsync.LeaseLostError
        return self.store.transaction()


WAYS: dict[str, Callable[[kvsync.Store, str], Office]] = {
    SOUND: Office,
    "two-seats": _TwoSeats,
    "unguarded": _Unguarded,
    "look-then-write": _LookThenWrite,
}


def _lead(worker: Worker) -> None:
    """In terms that nobody cuts short."""
    while worker.going_on():
        ending, history = worker.window()
        name = f"leader{ending}"
        office = WAYS[worker.way](worker.store, name)
        with worker.in_doubt():
            token = history.call(name, "acquire", None, office.campaign)
        with alone(f"{worker.path}-witness-{name}", token), worker.holding():
            assert office.is_leader(), "the leader does not know that it leads"
            worker.journal.note(name, UNKNOWN)
            worker.ready()
        with worker.in_doubt():
            history.call(name, "release", None, office.resign)


def _be_deposed(worker: Worker) -> None:
    """And go on as long as it goes well."""
    while worker.going_on():
        if worker.chance.random() < _DEPOSED:
            WAYS[worker.way](worker.store, "deposed").seat.force_release()
        office = WAYS[worker.way](worker.store, "deposed")
        office.campaign()
        try:
            for _ in range(_WRITES):
                _write(worker, office)
            office.resign()
        except kvsync.LeaseLostError:
            _expect_to_know(worker, office)
        worker.ready()


def _write(worker: Worker, office: Office) -> None:
    register, token = worker.store.dict("register"), office.seat.token
    assert token is not None
    with office.guarded():
        last = register.get("token", 0)
        assert last <= token, f"a leader with token {token} wrote after {last}"
        register["token"] = token
    worker.journal.note("written", UNKNOWN)


def _expect_to_know(worker: Worker, office: Office) -> None:
    """Nobody leads again who was deposed."""
    worker.journal.note("refused", UNKNOWN)
    assert not office.is_leader(), "who was deposed takes itself for the leader"
    with suppress(kvsync.LeaseLostError, kvsync.NotOwnedError), office.guarded():
        raise AssertionError("who was deposed may write")


def run(stage: Stage) -> None:
    stage.processes = max(stage.processes, 4)
    with Crew(stage) as crew:
        crew.start(_lead, stage.processes // 2)
        crew.start(_be_deposed, stage.processes - stage.processes // 2)
        crew.be_struck()
    terms = acknowledged(stage.folder)
    written, refused = terms.pop("written", []), terms.pop("refused", [])
    stage.figures |= {
        "terms": sum(map(len, terms.values())),
        "guarded writes": len(written),
        "deposed and refused": len(refused),
    }
    stage.expect_some("terms", "guarded writes")
    with stage.open() as store:
        for name in (*terms, "deposed"):
            follows = store.election(name).campaign(timeout=PATIENCE)
            stage.expect(follows, f"nobody follows the last {name}")
    stage.books = crew.books()
    search = partial(linearizability.flaw, model=FencedMutex())
    judge.expect_legal(stage, search, fenced_mutex.flaw)
    stage.expect_sound_file()

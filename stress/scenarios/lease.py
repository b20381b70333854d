"""A holder that is stopped past its lease, between acquiring and writing, and goes on when another
has the lock, is refused every guarded transaction, release and extension; and no other has the lock
before the lease is over.

`--stops N` counts these holders. Each of them first writes under its guard, which must succeed
while its lease lasts; so what is written shows tokens that never fall. There are several locks,
each with a few processes of its own, so that leases run out beside each other.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import kvsync
from stress.crew import PATIENCE, Crew, Member, Worker
from stress.history import now
from stress.record import Books, Fault, Span
from stress.stage import SOUND, Stage

UNIT = "stops"
PROCESSES = 12
PRIMITIVES = ("lock", "transaction")
NEMESES = ("stop",)

_AT_ONE_LOCK = 3
"""Processes, about: one that is stopped, one that has the lock next, and one behind it."""

_LEASE = 0.05
_LEASE_NS = 50_000_000
_MOST_IN_VAIN = 100
"""Holders, after which none is waited for any more that writes before its lease is over."""

_ROUNDING = 1_000
"""Nanoseconds, about, to which seconds of the boot clock as a float are exact, and more."""

WAYS: dict[str, Callable[[kvsync.Store, kvsync.Lock], AbstractContextManager[Any]]] = {
    SOUND: lambda store, lock: store.transaction(guard=lock),
    "no-guard": lambda store, _: store.transaction(),
    "lease-ignored": lambda store, lock: store.transaction(guard=_forget_lease(lock)),
}


def _forget_lease(lock: kvsync.Lock) -> kvsync.Lock:
    """What is lost cannot be told from what is held."""
    lock._units.is_current = lambda grant: True  # type: ignore[method-assign]  # noqa: ARG005
    return lock


class Stale(NamedTuple):
    """What became of a holder that went on when it held no more."""

    wrote: bool
    """Before."""
    not_refused: list[str]
    fault: Fault
    span: Span


def _take_turns(worker: Worker, name: str) -> None:
    lock, register = worker.store.lock(name, lease=_LEASE), worker.store.dict("register")
    worker.ready()
    while worker.going_on():
        last, asked = register.get(name, 0), now()
        lock.acquire()
        began, token = now(), lock.token
        assert token is not None
        assert last < token, f"token {token} of {name} was given after {last}"
        worker.pipe.send(("holds", Held(token, began, _end_of_lease(lock, asked))))
        wrote = _write_in_time(worker, lock, asked)
        stopped = now()
        os.kill(os.getpid(), signal.SIGSTOP)
        if worker.going_on():
            fault = Fault("stop", worker.number, stopped, now())
            not_refused, refused = _attempts(worker, lock)
            span = Span(lock.name, worker.number, token, began, began + _LEASE_NS, refused)
            worker.pipe.send(("goes on", Stale(wrote, not_refused, fault, span)))


def _end_of_lease(lock: kvsync.Lock, asked: int) -> int:
    """The earliest moment at which it can be over; 0 if it is over already."""
    before, holder = now(), lock.holder()
    if holder is None or holder.token != lock.token or holder.lease_left is None:
        _expect_over(asked)
        return 0
    left = int(holder.lease_left * 1e9)
    assert now() + left >= asked + _LEASE_NS, "a lease is shorter than it was asked for"
    return before + left - _ROUNDING


def _expect_over(asked: int) -> None:
    """A lease that was asked for then is lost; we were slow."""
    had = now() - asked + _ROUNDING
    assert had >= _LEASE_NS, f"a lease of {_LEASE} s was over after {had / 1e9:.6f} s"


def _write_in_time(worker: Worker, lock: kvsync.Lock, asked: int) -> bool:
    """Whether the lease lasted for so long."""
    try:
        _write(worker, lock)
    except kvsync.LeaseLostError:
        _expect_over(asked)
        return False
    return True


def _write(worker: Worker, lock: kvsync.Lock) -> None:
    token, register = lock.token, worker.store.dict("register")
    with WAYS[worker.way](worker.store, lock):
        last = register.get(lock.name, 0)
        assert token is not None
        assert last <= token, f"a holder of {lock.name} with token {token} wrote after {last}"
        register[lock.name] = token
        register.increment("writes")


def _attempts(worker: Worker, lock: kvsync.Lock) -> tuple[list[str], tuple[int, ...]]:
    """What the holder could still do, of all that it tries, in any order; when it was refused."""
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("guarded transaction", lambda: _write(worker, lock)),
        ("extend", lambda: lock.extend(_LEASE)),
        ("release", lock.release),
    ]
    worker.chance.shuffle(attempts)
    outcomes = [(what, _is_refused(attempt), now()) for what, attempt in attempts]
    refused = tuple(when for _, is_refused, when in outcomes if is_refused)
    return [what for what, is_refused, _ in outcomes if not is_refused], refused


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (kvsync.LeaseLostError, kvsync.NotOwnedError):  # the latter after `release`
        return True
    return False


class Held(NamedTuple):
    """What a holder says of its grant; the moments are ns of the boot clock."""

    token: int
    began: int
    ends: int


class Turn(NamedTuple):
    """Who has a lock, and since when we know; it has stopped, or is about to."""

    held: Held
    member: Member | None
    since: float


class Holders:
    """Those who stop as they hold a lock; each goes on when the next one has it."""

    def __init__(self, stage: Stage, crew: Crew, locks: Iterable[str]) -> None:
        self.refused = self.wrote = 0
        self._stage, self._crew = stage, crew
        self._turns = {name: Turn(Held(0, 0, 0), None, time.monotonic()) for name in locks}
        self._tokens: dict[str, set[int]] = {name: set() for name in locks}

    def look(self) -> None:
        """Hear what they have to say. Raises: Broken."""
        for member in list(self._crew.members):
            if member.pipe.poll():
                told, what = self._crew.receive(member)
                if told == "holds":
                    self._next(member, what)
                else:
                    self._count(what)
        self._expect_no_standstill()

    def _next(self, member: Member, held: Held) -> None:
        """The one with the smaller token is stale, though it may be so slow as to tell last."""
        (name,) = member.more
        told, tokens = Turn(held, member, time.monotonic()), self._tokens[name]
        self._stage.expect(held.token not in tokens, f"token {held.token} of {name} came twice")
        tokens.add(held.token)
        stale, last = sorted([self._turns[name], told], key=lambda turn: turn.held.token)
        early = (stale.held.ends - last.held.began) / 1e9
        self._stage.expect(
            early <= 0, f"{name} was another's {early:.4f} s before a lease was over"
        )
        self._turns[name] = last
        if stale.member is not None:
            _go_on(stale.member)

    def _count(self, stale: Stale) -> None:
        wrong = stale.not_refused
        self._stage.expect(not wrong, f"a stale holder was not refused: {wrong}")
        self.refused += 1
        self.wrote += stale.wrote
        self._crew.note(stale.fault)
        self._stage.spans.add(stale.span)

    def _expect_no_standstill(self) -> None:
        """Of any lock: else no lease ends."""
        late = time.monotonic() - PATIENCE
        still = [name for name, turn in self._turns.items() if turn.since < late]
        self._stage.expect(not still, f"nobody gets {', '.join(still)}: no lease ends")

    def first_is_to_come(self) -> bool:
        """Whether to wait for the first, which must come, and for the first that was in time."""
        too_few = not self.refused or (not self.wrote and self.refused < _MOST_IN_VAIN)
        return too_few and not self._stage.violations

    def end(self) -> None:
        """Nobody stays stopped."""
        self._crew.tell_to_stop()
        deadline = time.monotonic() + PATIENCE
        for member in self._crew.members:
            while member.process.is_alive() and time.monotonic() < deadline:
                os.kill(member.pid, signal.SIGCONT)
                member.process.join(0.01)


def _go_on(member: Member) -> None:
    """Once it has stopped."""
    os.waitid(os.P_PID, member.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    os.kill(member.pid, signal.SIGCONT)


def run(stage: Stage) -> None:
    stage.processes = max(stage.processes, 2)
    locks = [f"turn-{number}" for number in range(max(1, stage.processes // _AT_ONE_LOCK))]
    with Crew(stage) as crew:
        for number in range(stage.processes):
            crew.start(_take_turns, 1, locks[number % len(locks)])
        crew.assemble()
        holders = Holders(stage, crew, locks)
        while not stage.enough(holders.refused) or holders.first_is_to_come():
            crew.watch(0.001)
            holders.look()
        holders.end()
    with stage.open() as store:
        stage.figures["writes"] = store.dict("register").get("writes", 0)
    stage.books = Books(recovered=holders.refused)
    stage.expect_some("writes")
    stage.expect_sound_file()

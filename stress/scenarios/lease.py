"""A holder that is stopped past its lease, between acquiring and writing, and goes on when another
has the lock, is refused every guarded transaction, release and extension.

`--stops N` counts these holders. Each of them first writes under its guard, which must succeed
while its lease lasts; so what is written shows tokens that never fall.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, NamedTuple

import kvsync
from stress.crew import PATIENCE, Crew, Member, Worker
from stress.history import now
from stress.record import Fault, Span
from stress.stage import SOUND, Stage

UNIT = "stops"
PROCESSES = 4
PRIMITIVES = ("lock", "transaction")
NEMESES = ("stop",)

_LEASE = 0.05
_LEASE_NS = 50_000_000

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

    not_refused: list[str]
    fault: Fault
    span: Span


def _take_turns(worker: Worker) -> None:
    lock = worker.store.lock("turn", lease=_LEASE)
    while worker.going_on():
        lock.acquire()
        began, token = now(), lock.token
        worker.pipe.send(("holds", token))
        with suppress(kvsync.LeaseLostError):  # we were slow
            _write(worker, lock)
        stopped = now()
        os.kill(os.getpid(), signal.SIGSTOP)
        if worker.going_on():
            fault = Fault("stop", worker.number, stopped, now())
            not_refused, refused = _attempts(worker, lock)
            span = Span(lock.name, worker.number, token, began, began + _LEASE_NS, refused)
            worker.pipe.send(("goes on", Stale(not_refused, fault, span)))


def _write(worker: Worker, lock: kvsync.Lock) -> None:
    token, register = lock.token, worker.store.dict("register")
    with WAYS[worker.way](worker.store, lock):
        last = register.get("token", 0)
        assert token is not None
        assert last <= token, f"a holder with token {token} wrote after {last}"
        register["token"] = token
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


class Holders:
    """Those who stop as they hold the lock; each goes on when the next one has it."""

    def __init__(self, stage: Stage, crew: Crew) -> None:
        self.refused = 0
        self._began = time.monotonic()
        self._stage, self._crew = stage, crew
        self._last: Member | None = None
        self._token = 0

    def look(self) -> None:
        """Hear what they have to say. Raises: Broken."""
        for member in list(self._crew.members):
            if member.pipe.poll():
                told, what = self._crew.receive(member)
                if told == "holds":
                    self._next(member, what)
                else:
                    self._count(what)

    def _next(self, member: Member, token: int) -> None:
        self._stage.expect(token > self._token, f"token {token} came after {self._token}")
        if self._last is not None:
            _go_on(self._last)
        self._last, self._token = member, token

    def _count(self, stale: Stale) -> None:
        wrong = stale.not_refused
        self._stage.expect(not wrong, f"a stale holder was not refused: {wrong}")
        self.refused += 1
        self._crew.note(stale.fault)
        self._stage.spans.add(stale.span)

    def first_is_to_come(self) -> bool:
        """Whether to wait for the first, which must come: else no lease ends."""
        late = time.monotonic() > self._began + PATIENCE
        self._stage.expect(bool(self.refused) or not late, "nobody gets the lock: no lease ends")
        return not self.refused and not self._stage.violations

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
    with Crew(stage) as crew:
        crew.start(_take_turns, stage.processes)
        holders = Holders(stage, crew)
        stage.begin()
        while not stage.enough(holders.refused) or holders.first_is_to_come():
            crew.watch(0.001)
            holders.look()
        holders.end()
    with stage.open() as store:
        stage.figures["writes"] = store.dict("register").get("writes", 0)
    stage.expect_sound_file()

"""Each notification of a condition wakes one living waiter, whichever of the waiters, among them
those that were notified, are killed by SIGKILL at any instant; and who has given the lock back in
order to wait is in the line, for the next who has the lock to see.

Nobody notifies unless a few more are waiting, so that for one who died there is always another. All
waits are for ever, so at the end as many have returned as were notified: to the one, but for those
who died after the notification was theirs and before they could note it. Of a victim that is known,
for it is stopped first: it waited, has left the condition's line, and has the lock, under another
token than before.
"""

import time
from collections.abc import Callable
from pathlib import Path

import psutil

import kvsync
from kvsync.primitives.grants import Grant
from kvsync.session import MEND
from kvsync.waiting import Wish, enter
from stress.crew import PATIENCE, Crew, Member, Worker
from stress.nemeses.stop import suspend
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 8
NEMESES = ("kill",)

_FEW = 3
_MOST = 2
"""Waiters there are at least as one is notified; and how many are notified at once at most."""

_LONGEST_LIFE = 0.02
"""Seconds."""

_KILLED_UNREADY = 0.1

_AIMED = 0.5
_AIMS = 100
"""Of the victims, as many are to be notified and not awake yet; tries to find one of those."""


def _notify_the_dead() -> None:
    """A notification goes with its receiver."""
    MEND["condition"] = lambda *_: None


def _give_back_then_wait() -> None:
    """There is a moment in which one neither has the lock nor stands in the line."""
    kvsync.Condition._wait = _wait_in_two_steps  # type: ignore[method-assign, assignment]


def _wait_in_two_steps(condition: kvsync.Condition, wish: Wish, held: Grant) -> bool:
    session, depth = condition._session, held.depth
    condition._lock._units.release(held)
    held.depth = depth
    condition._forget(held)
    with session.doorbell() as doorbell:
        ticket = condition._engine.transact(
            lambda transaction: enter(session, transaction, wish, doorbell)
        )
        return condition._tickets.until_told(session, wish, ticket, doorbell) == "notified"


WAYS: dict[str, Callable[[], None]] = {
    SOUND: lambda: None,
    "notify-the-dead": _notify_the_dead,
    "give-back-then-wait": _give_back_then_wait,
}


class Waits:
    """The waits of one process after the other, in a file: how many returned, and the token of the
    lock before the one that goes on, else 0. One write changes both.
    """

    def __init__(self, path: str, place: int) -> None:
        self._path = f"{path}-waits-{place}"
        Path(self._path).touch()

    def read(self) -> tuple[int, int]:
        returned, _, token = Path(self._path).read_text().partition(" ")
        return int(returned or 0), int(token or 0)

    def write(self, returned: int, token: int) -> None:
        with open(self._path, "r+b", buffering=0) as file:
            file.write(b"%020d %020d" % (returned, token))


def _take_turns(worker: Worker, place: int) -> None:
    WAYS[worker.way]()
    condition, waits = worker.store.condition("changed"), Waits(worker.path, place)
    waits.write(waits.read()[0], 0)  # what was there is of one who died
    while worker.going_on():
        with condition:
            worker.ready()
            if not _notify(worker, condition):
                _wait(worker, condition, waits)


def _notify(worker: Worker, condition: kvsync.Condition) -> bool:
    """If there are enough who wait; else who calls this is to be one of them."""
    store, n = worker.store, worker.chance.randint(1, _MOST)
    asleep = store.dict("asleep")
    with store.transaction():
        line = _line(store)
        assert not (lost := _lost(store, line)), f"they gave the lock back, and wait not: {lost}"
        notifies = list(line.values()).count("waiting") >= _FEW - 1 + n
        if notifies:
            store.counter("notified").add(n)
            condition.notify(n)
        else:
            asleep[str(store.session.id)] = condition.lock.token
    return notifies


def _line(store: kvsync.Store) -> dict[int, str]:
    """The sessions in the line, and their tickets' states."""
    return dict(
        store.engine.read(
            "select session, state from kvsync_ticket"
            " where space = 'condition' and name = 'changed'"
        )
    )


def _lost(store: kvsync.Store, line: dict[int, str]) -> list[int]:
    """Those who sleep, without a place in the line. The dead who are still in it have a session."""
    living = {session for (session,) in store.engine.read("select id from kvsync_session")}
    asleep = store.dict("asleep")
    sessions = [int(session) for session in asleep]
    for session in sessions:
        if session not in living:
            del asleep[str(session)]
    return [session for session in sessions if session in living and session not in line]


def _wait(worker: Worker, condition: kvsync.Condition, waits: Waits) -> None:
    returned, _ = waits.read()
    waits.write(returned, condition.lock.token or 0)
    assert condition.wait(), "a wait for ever is over, and nobody notified"
    waits.write(returned + 1, 0)
    del worker.store.dict("asleep")[str(worker.store.session.id)]


class Killer:
    """Kills those who wait, and knows what died with them."""

    def __init__(self, stage: Stage, crew: Crew, store: kvsync.Store) -> None:
        self.aimed = self.died_awake = 0
        self._stage, self._crew, self._store = stage, crew, store

    def kill_one(self) -> None:
        time.sleep(self._stage.chance.uniform(0, _LONGEST_LIFE))
        victim = self._notified() if self._stage.chance.random() < _AIMED else None
        if victim is None:
            victim = self._stage.chance.choice(self._crew.mortals)
            suspend(psutil.Process(victim.pid))
        self.died_awake += self._is_awake(victim)
        session = self._session(victim)
        self._crew.kill(victim)
        new = self._crew.replace(victim)
        self._crew.until(lambda: not self._left_by(session))
        if self._stage.chance.random() > _KILLED_UNREADY:
            new.works()

    def _notified(self) -> Member | None:
        """One of those, stopped."""
        for _ in range(_AIMS):
            line = _line(self._store)
            for member in self._crew.mortals:
                if line.get(self._session(member)) == "notified":
                    suspend(psutil.Process(member.pid))
                    if _line(self._store).get(self._session(member)) == "notified":
                        self.aimed += 1
                        return member
                    _go_on(member)
        return None

    def _is_awake(self, victim: Member) -> bool:
        """It was notified, which is nobody else's business any more, and could not say so."""
        session = self._session(victim)
        _, token_before = Waits(self._stage.path, victim.more[0]).read()
        if not token_before or session in _line(self._store):
            return False
        held = self._store.engine.read(
            "select id from kvsync_grant where space = 'lock' and name = 'changed'"
            " and session = :session and (claim_by is null or doorbell is not null)",
            {"session": session},
        )
        return any(token != token_before for (token,) in held)

    def _session(self, member: Member) -> int:
        rows = self._store.engine.read(
            "select max(id) from kvsync_session where pid = :pid", {"pid": member.process.pid}
        )
        return rows[0][0] or 0

    def _left_by(self, session: int) -> bool:
        """What would keep others up, until they see to it."""
        return bool(
            self._store.engine.read(
                "select 1 from kvsync_ticket where session = :session"
                " union all select 1 from kvsync_grant where session = :session",
                {"session": session},
            )
        )

    def end(self) -> None:
        """Wake all, until all have gone."""
        self._crew.tell_to_stop()
        condition, deadline = self._store.condition("changed"), time.monotonic() + PATIENCE
        for member in self._crew.members:
            while member.process.is_alive() and time.monotonic() < deadline:
                with condition, self._store.transaction():
                    waiting = list(_line(self._store).values()).count("waiting")
                    self._store.counter("notified").add(waiting)
                    condition.notify_all()
                member.process.join(0.01)


def _go_on(member: Member) -> None:
    psutil.Process(member.pid).resume()


def run(stage: Stage) -> None:
    stage.processes = max(stage.processes, _FEW + 2)
    with stage.open() as store:
        with Crew(stage) as crew:
            for place in range(stage.processes):
                crew.start(_take_turns, 1, place)
            killer = Killer(stage, crew, store)
            crew.assemble()
            while not stage.enough(crew.killed):
                killer.kill_one()
            killer.end()
        _judge(stage, store.counter("notified").value, killer)
    stage.expect_sound_file()


def _judge(stage: Stage, notified: int, killer: Killer) -> None:
    returned = sum(Waits(stage.path, place).read()[0] for place in range(stage.processes))
    stage.expect(
        notified == returned + killer.died_awake,
        f"{notified} were notified, but {returned} waits returned, and {killer.died_awake} of"
        " those who were killed were awake",
    )
    stage.figures |= {
        "notified": notified,
        "killed when notified": killer.aimed,
        "killed awake": killer.died_awake,
    }
    stage.expect_some("notified")

"""Grants of a lock come in the order of the tickets, without exception, and processes that ask for
it again and again each get their share, to 5 %.

What happens in the line is noted by triggers in the database: in the transactions in which it
happens, so in their order, and in the words of the tables alone.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable

import kvsync
from kvsync.primitives import grants
from stress.crew import Crew, Worker
from stress.mutants.locks import last_come_first_served
from stress.stage import SOUND, Stage

UNIT = "acquires"
PROCESSES = 16
PRIMITIVES = ("lock",)

TOLERANCE = 0.05
"""By how much a share may differ from an equal one."""

_HELD = 0.001
"""Seconds."""

_ENOUGH = 100
"""Acquires of a process from which on its share is judged."""

_NOTES = """
    create table stress_line (
        id integer primary key, event text not null, ticket bigint, token bigint, session bigint)
"""
_NOTE = "begin insert into stress_line (event, ticket, token, session) values"
_TRIGGERS = (
    "create trigger stress_entered after insert on kvsync_ticket"
    f" {_NOTE} (new.state, new.id, null, new.session); end",
    "create trigger stress_told after update on kvsync_ticket when new.state <> old.state"
    f" {_NOTE} (new.state, new.id, new.token, new.session); end",
    "create trigger stress_left after delete on kvsync_ticket"
    f" {_NOTE} ('gone', old.id, null, old.session); end",
    "create trigger stress_first after insert on kvsync_unit when new.session <> 0"
    f" {_NOTE} ('held', new.ticket, new.token, new.session); end",
    "create trigger stress_next after update on kvsync_unit"
    " when new.session <> 0 and new.token <> old.token"
    f" {_NOTE} ('held', new.ticket, new.token, new.session); end",
)


def _acquire(lock: kvsync.Lock) -> None:
    lock.acquire()


def _poll(lock: kvsync.Lock) -> None:
    while not lock.acquire(blocking=False):
        time.sleep(0.02)


def _acquire_from_the_end(lock: kvsync.Lock) -> None:
    """Whoever came last is served first."""
    if "order by id desc" not in grants._TICKETS:
        last_come_first_served.apply()
    lock.acquire()


WAYS: dict[str, Callable[[kvsync.Lock], None]] = {
    SOUND: _acquire,
    "poll": _poll,
    "last-come-first-served": _acquire_from_the_end,
}


def _take_turns(worker: Worker) -> None:
    lock = worker.store.lock("turn")
    assert worker.store.session.id
    worker.ready()
    worker.pipe.recv()  # a store with triggers on its tables can be used, but not opened
    while worker.going_on():
        WAYS[worker.way](lock)
        time.sleep(_HELD)
        lock.release()


class Line:
    """What is noted of the line, read again as it goes on."""

    def __init__(self) -> None:
        self.grants: list[tuple[int, int]] = []  # tokens, and the sessions that got them
        self.passed = 0
        self.flaws: list[str] = []
        self._waiting: set[int] = set()

    def read(self, rows: Iterable[tuple[str, int | None, int, int]]) -> None:
        for event, ticket, token, session in rows:
            if event == "held":
                self._grant(ticket, token, session)
            elif ticket is not None:
                self._move(event, ticket)

    def _grant(self, ticket: int | None, token: int, session: int) -> None:
        if self._waiting and ticket != min(self._waiting):
            self.flaws.append(f"ticket {ticket} was served before {min(self._waiting)}")
        if self.grants and token <= self.grants[-1][0]:
            self.flaws.append(f"token {token} came after {self.grants[-1][0]}")
        self.grants.append((token, session))

    def _move(self, event: str, ticket: int) -> None:
        self._waiting.discard(ticket)
        if event == "waiting":
            self._waiting.add(ticket)
        self.passed += event == "passed"


def run(stage: Stage) -> None:
    line, seen = Line(), 0
    with stage.open() as store:
        store.engine.write(_NOTES)

        def look() -> None:
            nonlocal seen
            rows = store.engine.read(
                "select id, event, ticket, token, session from stress_line where id > :seen"
                " order by id",
                {"seen": seen},
            )
            line.read(row[1:] for row in rows)
            seen = rows[-1][0] if rows else seen
            stage.expect(not line.flaws, "; ".join(line.flaws[:3]))

        with Crew(stage) as crew:
            crew.start(_take_turns, stage.processes)
            crew.assemble()
            for trigger in _TRIGGERS:
                store.engine.write(trigger)
            for member in crew.members:
                member.pipe.send("go")
            look()
            before = len(line.grants)
            while not stage.enough(len(line.grants) - before):
                crew.watch(0.05)
                look()
            shares = Counter(session for _, session in line.grants[before:])
        look()
        for trigger in _TRIGGERS:
            store.engine.write(f"drop trigger {trigger.split()[2]}")
    _judge(stage, shares)
    stage.figures |= {"grants in order": len(line.grants), "passed over": line.passed}
    stage.expect_some("grants in order")
    stage.expect_sound_file()


def _judge(stage: Stage, shares: Counter[int]) -> None:
    """Few acquires tell nothing of shares."""
    equal = shares.total() / stage.processes
    least, most = min(shares.values(), default=0), max(shares.values(), default=0)
    stage.figures |= {"smallest share": least, "largest share": most}
    widest = max(most - equal, equal - least, equal * (len(shares) < stage.processes))
    stage.expect(
        equal < _ENOUGH or widest <= TOLERANCE * equal,
        f"shares from {least} to {most}, where {equal:.0f} were equal",
    )

"""Nobody passes a barrier before all parties have come; a party that is killed by SIGKILL while it
waits breaks it for all others, nobody of whom hangs; and once reset it works again.

Each party counts, in a file of its own, how often it has come. Whoever passes looks at all of them:
as often as it has come itself the others must have come, and at most once more.

Half of the victims die at any instant; then the barrier is broken here, for the others would wait
for who is missing. Half die while they wait, all but one of the others with them, which is held
back: then the barrier must break of itself. All are to say that it is broken to them, before it is
reset.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import kvsync
from kvsync.session import MEND
from stress.crew import PATIENCE, Broken, Crew, Member, Worker
from stress.journal import UNKNOWN, acknowledged
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 4
NEMESES = ("kill",)

_LONGEST_LIFE = 0.03
"""Seconds."""

_KILLED_WAITING = 0.5
_SOON = 20.0
"""Seconds; within them a death is noticed, however busy the machine is."""


class Meetable(Protocol):
    """Where parties meet."""

    def wait(self) -> int: ...


class _GoingOn:
    """Where it is broken, it is passed."""

    def __init__(self, barrier: kvsync.Barrier) -> None:
        self._barrier = barrier

    def wait(self) -> int:
        try:
            return self._barrier.wait()
        except kvsync.BrokenBarrierError:
            return 0


def _barrier(store: kvsync.Store, parties: int) -> kvsync.Barrier:
    return store.barrier("meeting", parties)


def _unmended(store: kvsync.Store, parties: int) -> kvsync.Barrier:
    """Whoever finds a party dead leaves it at that."""
    MEND["barrier"] = lambda *_: None
    return _barrier(store, parties)


WAYS: dict[str, Callable[[kvsync.Store, int], Meetable]] = {
    SOUND: _barrier,
    "one-party-fewer": lambda store, parties: _barrier(store, max(1, parties - 1)),
    "breaking-ignored": lambda store, parties: _GoingOn(_barrier(store, parties)),
    "unmended": _unmended,
}


class Arrivals:
    """How often each party has come since the barrier was made or reset."""

    def __init__(self, path: str, parties: int) -> None:
        self._path, self._parties = path + "-arrivals", parties

    def begin(self) -> None:
        Path(self._path).write_bytes(bytes(8 * self._parties))

    def come(self, party: int, times: int) -> None:
        with open(self._path, "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), times.to_bytes(8), 8 * party)

    def all(self) -> list[int]:
        data = Path(self._path).read_bytes()
        return [int.from_bytes(data[at : at + 8]) for at in range(0, len(data), 8)]


def _meet(worker: Worker, party: int, parties: int) -> None:
    barrier, arrivals = WAYS[worker.way](worker.store, parties), Arrivals(worker.path, parties)
    times = 0
    worker.ready()
    _begin(worker)
    while worker.going_on():
        _wait_if_held_back(worker, party)
        times += 1
        arrivals.come(party, times)
        try:
            place = barrier.wait()
        except kvsync.BrokenBarrierError:
            worker.journal.note("broken", UNKNOWN)
            times = 0
            _begin(worker)
            continue
        came = arrivals.all()
        assert all(times <= each <= times + 1 for each in came), f"passed {times}, came {came}"
        worker.journal.note("passed", place)
        worker.ready()


def _wait_if_held_back(worker: Worker, party: int) -> None:
    if os.path.exists(_mark(worker.path, party)):
        worker.pipe.send("held back")
        worker.pipe.recv()


def _mark(path: str, party: int) -> str:
    """A file; while it is there the party does not come."""
    return f"{path}-held-back-{party}"


def _begin(worker: Worker) -> None:
    """Once all are here and the barrier is reset; nobody counts before."""
    worker.pipe.send("is here")
    worker.pipe.recv()


class Meeting:
    """The parties, one of which is killed now and then."""

    def __init__(self, stage: Stage, crew: Crew, store: kvsync.Store) -> None:
        self.broken_by_death = 0
        self._stage, self._crew = stage, crew
        self._barrier = store.barrier("meeting", stage.processes)
        self._arrivals = Arrivals(stage.path, stage.processes)
        for party in range(stage.processes):
            crew.start(_meet, 1, party, stage.processes)

    def kill_one(self) -> None:
        """Raises: Broken."""
        if self._stage.chance.random() < _KILLED_WAITING:
            self._kill_a_waiting_one()
        else:
            time.sleep(self._stage.chance.uniform(0, _LONGEST_LIFE))
            victim = self._stage.chance.choice(self._crew.mortals)
            self._crew.kill(victim)
            self._barrier.abort()
            self._replace(victim)

    def _kill_a_waiting_one(self) -> None:
        victim = self._stage.chance.choice(self._crew.mortals)
        late = self._stage.chance.choice([each for each in self._crew.members if each != victim])
        mark = Path(_mark(self._stage.path, late.more[0]))
        mark.touch()
        self._until(late, "held back")
        mark.unlink()
        self._crew.until(lambda: self._barrier.n_waiting == self._stage.processes - 1)
        self._crew.kill(victim)
        self._expect_broken()
        late.pipe.send("come")
        self._replace(victim)

    def _expect_broken(self) -> None:
        deadline = time.monotonic() + _SOON
        while not self._barrier.broken:
            time.sleep(0.001)
            if time.monotonic() > deadline:
                self._stage.expect(False, "a party died, and the others went on waiting for it")
                raise Broken
        self.broken_by_death += 1

    def _replace(self, victim: Member) -> None:
        self._crew.replace(victim)
        self.begin()

    def begin(self) -> None:
        """Let all go on, once the last of them says that it is here."""
        for member in self._crew.members:
            self._until(member, "is here")
        self._arrivals.begin()
        self._barrier.reset()
        for member in self._crew.members:
            member.pipe.send("go on")

    def _until(self, member: Member, what: str) -> None:
        """It may tell first that its work has begun. Raises: Broken."""
        told = None
        while told != what:
            self._crew.until(member.pipe.poll)
            told = self._crew.receive(member)

    def end(self) -> None:
        """Nobody comes any more."""
        self._crew.tell_to_stop()
        deadline = time.monotonic() + PATIENCE
        for member in self._crew.members:
            while member.process.is_alive() and time.monotonic() < deadline:
                self._barrier.abort()
                with suppress(EOFError):
                    if member.pipe.poll(0.01) and member.pipe.recv() == "is here":
                        member.pipe.send("go on")


def run(stage: Stage) -> None:
    stage.processes = max(stage.processes, 3)
    with stage.open() as store, Crew(stage) as crew:
        meeting = Meeting(stage, crew, store)
        crew.assemble()
        meeting.begin()
        crew.until(lambda: acknowledged(stage.folder)["passed"])
        while not stage.enough(crew.killed):
            meeting.kill_one()
        meeting.end()
    notes = acknowledged(stage.folder)
    passed = notes["passed"]
    counts = [passed.count(place) for place in range(stage.processes)]
    stage.expect(
        max(counts) - min(counts) <= crew.killed and sum(counts) == len(passed),
        f"not each place was given once: {counts}, {crew.killed} were killed",
    )
    stage.figures |= {
        "passed": len(passed),
        "broken by a death": meeting.broken_by_death,
        "told so": len(notes["broken"]),
    }
    stage.expect_some("passed")
    stage.expect_sound_file()

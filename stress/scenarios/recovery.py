"""Who waits next holds the lock, and alone, or has the item of a queue, within 150 ms of a SIGKILL
of whoever was in the way, and within 2 s of its release past a waiter that is stopped, in 99 of 100
cases of each kind, or, of fewer, in all but one.

Killed are the holder, a waiter at the head or in the middle, who was about to ring, who was
reaping, and a worker with an item in hand. `--kills N` are so many at each of these points. The
instant is drawn at random around the point, which the victim tells of where only it can know. The
time is measured from the SIGKILL to the return of `acquire`; or, if the lock was not yet free then,
from the moment at which it was.

Stopped, now and then, is the waiter at the head of a line that has just begun; and, in longer runs,
of one that has just begun to move after a rest, as the holder is killed. Once it goes on it has its
turn, before those who came after it.

What a plain pipe between two processes took at worst at the same time, the machine took, and not
kvsync: a case that is late only by that is not judged, and if all were late like that, the run
proves nothing. The shares that are shown leave out nothing.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil

import kvsync
from kvsync import waiting
from kvsync.engine import Row
from kvsync.engine.doorbell import Doorbells
from kvsync.primitives import grants, units
from kvsync.session import MEND, Session
from stress.crew import Crew, Member, Worker
from stress.history import now
from stress.nemeses.stop import suspend
from stress.record import Books, Fault
from stress.stage import SOUND, Skipped, Stage
from stress.timing import Control, p50_and_p99
from stress.witness import alone

UNIT = "kills"
PROCESSES = 5
PRIMITIVES = ("lock", "queue")
NEMESES = ("kill", "stop")

LIMIT, LIMIT_PAST_STOPPED = 0.15, 2.0
"""Seconds."""

_STOP_EVERY = 10
"""Rounds of kills in which one waiter is stopped: that takes longer than all of them."""

_REST_EVERY = 40
"""Rounds of kills in the last of which the line rests."""

_REST = 5.5
"""Seconds in which who is far back in a line comes to look as seldom as anybody does."""

_AROUND = 0.002
"""Seconds before and after the point."""


def _take_all_for_dead() -> None:
    Session.is_dead = lambda *_: True  # type: ignore[method-assign]


def _look_now_and_then() -> None:
    Session.watch = lambda *_: None  # type: ignore[method-assign]
    waiting.HEAD_NETS = waiting._LOOKS_AT_MUTE = (1.0, 1.0)


def _give_three_seconds_to_claim() -> None:
    as_it_is = f":boot + {grants.CLAIM_TIME}"
    vars(units)["HAND_OVER"] = grants.HAND_OVER.replace(as_it_is, ":boot + 3.0")
    grants.CLAIM_TIME = 3.0


WAYS: dict[str, Callable[[], None]] = {
    SOUND: lambda: None,
    "takes-all-for-dead": _take_all_for_dead,
    "slow-poll": _look_now_and_then,
    "slow-to-pass-over": _give_three_seconds_to_claim,
}

# --- in the processes that die --------------------------------------------------------------------


def _stand_by(worker: Worker) -> None:
    WAYS[worker.way]()
    lock = worker.store.lock("turn")
    assert worker.store.session.id
    worker.ready()
    while order := worker.pipe.recv():
        if order == "work":
            _work(worker)
            continue
        _POINTS[order](worker)
        lock.acquire()
        with alone(worker.path + "-witness", lock.token):
            worker.pipe.send(("holds", time.monotonic()))
            _POINTS[worker.pipe.recv()](worker)
        lock.release()
        worker.pipe.send(("released", time.monotonic()))
        worker.ready()


def _work(worker: Worker) -> None:
    with worker.store.queue("jobs").reserve():
        worker.pipe.send(("holds", time.monotonic()))
        worker.pipe.recv()
    worker.pipe.send(("released", time.monotonic()))
    worker.ready()


def _tell_instead_of_ringing(worker: Worker) -> None:
    def tell(*_: object) -> None:
        worker.pipe.send(("there", time.monotonic()))
        signal.pause()

    def telling(_: Doorbells, rows: list[Row], __: bytes) -> Iterator[object]:
        return map(tell, rows)

    Doorbells.ring = tell  # type: ignore[assignment, method-assign]
    Doorbells.saying = telling  # type: ignore[assignment, method-assign]


def _tell_before_reaping(worker: Worker) -> None:
    def tell_and_mend(*arguments: Any) -> None:
        worker.pipe.send(("there", time.monotonic()))
        time.sleep(worker.chance.uniform(0, _AROUND))
        mend(*arguments)

    mend, MEND["lock"] = MEND["lock"], tell_and_mend


_PASSED_OVER = "select 1 from kvsync_ticket where state = 'passed'"

_POINTS: dict[str, Callable[[Worker], object]] = {
    "go on": lambda _: None,
    "ring": _tell_instead_of_ringing,
    "reap": _tell_before_reaping,
}

# --- in the process that strikes ------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One strike: seconds until the next one held, and the control's worst meanwhile."""

    seconds: float
    control: float
    limit: float = LIMIT

    @property
    def counts_as_late(self) -> bool:
        """Also without what the control took."""
        return self.seconds - self.control > self.limit

    @property
    def is_judged(self) -> bool:
        """It is late, or came in time."""
        return self.counts_as_late or self.seconds <= self.limit


class Line:
    """One member that holds the lock, and those who wait behind it, in their order."""

    def __init__(self, stage: Stage, crew: Crew, control: Control, store: kvsync.Store) -> None:
        self._stage, self._crew, self._control, self._store = stage, crew, control, store
        self._lock, self._jobs = store.lock("turn"), store.queue("jobs")
        self.members = crew.start(_stand_by, stage.processes)

    def form(self, point_of_first_waiter: str = "go on") -> None:
        """All of them, in the line one by one."""
        for number, member in enumerate(self.members):
            member.pipe.send(point_of_first_waiter if number == 1 else "go on")
            if number:
                self._crew.until(partial(self._are_waiting, number))
            else:
                self.until(member, "holds")

    def _are_waiting(self, how_many: int) -> bool:
        return len(self._lock.stats().waiters) == how_many

    def work(self) -> None:
        """The first has an item in hand, the second waits for one."""
        self._jobs.put(1)
        self.members[0].pipe.send("work")
        self.until(self.members[0], "holds")
        self.members[1].pipe.send("work")
        self._crew.until(lambda: self._jobs.stats().getters == 1)

    def let(self, place: int, point: str = "go on") -> None:
        """Let the one at that place, who holds the lock, release it."""
        self.members[place].pipe.send(point)

    def until(self, member: Member, what: str) -> float:
        """When it came to that. Raises: Broken."""
        told, when = self._control.receive(member)
        self._stage.expect(told == what, f"{told!r} instead of {what!r}")
        return float(when)

    def pass_by(self, seconds: float) -> None:
        """A random part of that time."""
        time.sleep(self._stage.chance.uniform(0, seconds))

    def rest(self) -> None:
        """All stay where they are."""
        time.sleep(_REST)

    def kill(self, place: int) -> float:
        """When that was."""
        self._control.restart()
        when = time.monotonic()
        self._crew.kill(self.members[place])
        return when

    @contextmanager
    def stopped(self, place: int) -> Iterator[None]:
        """Meanwhile the one at that place stands still, and not while it writes: nobody could."""
        member, began = self.members[place], now()
        process = psutil.Process(member.pid)
        try:
            with self._store.transaction():
                suspend(process)
            self._control.restart()
            yield
        finally:
            with suppress(psutil.NoSuchProcess):
                process.resume()
            self._crew.note(Fault("stop", member.number, began, now()))

    def passed_over(self, place: int) -> None:
        """By the one behind it, who holds the lock; return once it waits in its place again."""
        members = self.members
        members[place], members[place + 1] = members[place + 1], members[place]
        self._crew.until(lambda: not self._store.engine.read(_PASSED_OVER))

    def case(self, freed: float, place: int, limit: float = LIMIT) -> Case:
        """The one at that place is next; the lock was its own from then on."""
        held = self.until(self.members[place], "holds")
        return Case(max(0.0, held - freed), self._control.worst, limit)

    def dissolve(self, place: int) -> None:
        """Let all go, from the one at that place, who holds the lock; replace the dead."""
        for number, member in enumerate(self.members[place:]):
            if number:
                self.until(member, "holds")
            member.pipe.send("go on")
            self.until(member, "released")
        self.replace_before(place)

    def replace_before(self, place: int) -> None:
        """The dead, of those that stood before that place."""
        for number, member in enumerate(self.members[:place]):
            if member.killed:
                self.members[number] = self._crew.replace(member)
                self.members[number].works()

    def end(self) -> None:
        for member in self.members:
            member.dismiss("")


def _holder(line: Line) -> Case:
    line.form()
    line.pass_by(_AROUND)
    case = line.case(line.kill(0), 1)
    line.dissolve(1)
    return case


def _first_waiter(line: Line) -> Case:
    """Around the moment at which the lock is released to it."""
    line.form()
    line.let(0)
    line.pass_by(_AROUND)
    killed = line.kill(1)
    released = line.until(line.members[0], "released")
    case = line.case(max(killed, released), 2)
    line.dissolve(2)
    return case


def _middle_waiter(line: Line) -> Case:
    """Around the moment at which it becomes the first one."""
    line.form()
    line.let(0)
    line.pass_by(_AROUND)
    killed = line.kill(2)
    line.until(line.members[0], "released")
    line.until(line.members[1], "holds")
    line.let(1)
    released = line.until(line.members[1], "released")
    case = line.case(max(killed, released), 3)
    line.dissolve(3)
    return case


def _before_ringing(line: Line) -> Case:
    """The release is committed."""
    line.form()
    line.let(0, "ring")
    line.until(line.members[0], "there")
    line.pass_by(_AROUND)
    case = line.case(line.kill(0), 1)
    line.dissolve(1)
    return case


def _reaping(line: Line) -> Case:
    """Inside its transaction, at its commit, and after it."""
    line.form("reap")
    line.kill(0)
    line.until(line.members[1], "there")
    line.pass_by(2 * _AROUND)
    case = line.case(line.kill(1), 2)
    line.dissolve(2)
    return case


def _worker(line: Line) -> Case:
    """Its item has no visibility, so that nothing but its death brings that back."""
    line.work()
    line.pass_by(_AROUND)
    case = line.case(line.kill(0), 1)
    line.let(1)
    line.until(line.members[1], "released")
    line.replace_before(1)
    return case


def _stopped_waiter(line: Line) -> Case:
    """Before the lock is released to it."""
    line.form()
    with line.stopped(1):
        line.let(0)
        released = line.until(line.members[0], "released")
        case = line.case(released, 2, LIMIT_PAST_STOPPED)
    line.passed_over(1)
    line.dissolve(1)
    return case


def _stopped_after_a_rest(line: Line) -> Case:
    """It has just come to the head as the holder is killed; the next had three ahead until then."""
    line.form()
    line.rest()
    with line.stopped(3):
        for place in (0, 1):
            line.let(place)
            line.until(line.members[place], "released")
            line.until(line.members[place + 1], "holds")
        case = line.case(line.kill(2), 4, LIMIT_PAST_STOPPED)
    line.replace_before(3)
    line.passed_over(3)
    line.dissolve(3)
    return case


KILLED: dict[str, Callable[[Line], Case]] = {
    "holder killed": _holder,
    "waiter at the head killed": _first_waiter,
    "waiter in the middle killed": _middle_waiter,
    "holder between commit and ring killed": _before_ringing,
    "waiter that reaps killed": _reaping,
    "worker of a queue killed": _worker,
}

STOPPED: dict[str, Callable[[Line], Case]] = {"waiter at the head stopped": _stopped_waiter}

RESTED: dict[str, Callable[[Line], Case]] = {
    "holder killed after a rest, and waiter at the head stopped": _stopped_after_a_rest
}

_IN_HAND = ("holder killed", "waiter that reaps killed", "worker of a queue killed", *RESTED)
"""Cases in which who was killed, or who had been killed before, had something; the next one has it
since.
"""


def run(stage: Stage) -> None:
    stage.processes = max(stage.processes, PROCESSES)  # a line has a middle, and some behind it
    cases: dict[str, list[Case]] = {victim: [] for victim in KILLED | STOPPED | RESTED}
    with stage.open() as store, Crew(stage) as crew:
        control = Control(stage, crew)
        line = Line(stage, crew, control, store)
        crew.assemble()
        rounds = 0
        while not stage.enough(min(len(cases[victim]) for victim in KILLED)):
            for victim, strike in _victims(stage, rounds).items():
                cases[victim].append(strike(line))
                _judge(stage, victim, cases[victim])
            rounds += 1
        line.end()
        control.end()
    _publish(stage, cases)
    stage.books = Books(recovered=sum(len(cases[victim]) for victim in _IN_HAND))
    stage.expect_sound_file()
    _expect_judged(stage, cases)


def _victims(stage: Stage, number: int) -> dict[str, Callable[[Line], Case]]:
    """Of the round of that number."""
    killed = KILLED if "kill" in stage.nemeses else {}
    may_stop = "stop" in stage.nemeses
    stops = may_stop and (number % _STOP_EVERY == 0 or not killed)
    rests = may_stop and killed and number % _REST_EVERY == _REST_EVERY - 1
    return killed | (STOPPED if stops else {}) | (RESTED if rests else {})


def _judge(stage: Stage, victim: str, cases: list[Case]) -> None:
    """Of a few, one may be late."""
    late = [case for case in cases if case.counts_as_late]
    stage.expect(
        len(late) <= max(1, len(cases) // 100),
        f"{victim}: {len(late)} of {len(cases)} came late, and not by the machine: {late}",
    )


def _expect_judged(stage: Stage, cases: dict[str, list[Case]]) -> None:
    """Some of each kind. Raises: Skipped."""
    judged = {victim: sum(case.is_judged for case in some) for victim, some in cases.items()}
    all_judged = sum(judged.values())
    not_judged = sum(map(len, cases.values())) - all_judged
    stage.figures |= {"judged": all_judged, "not judged": not_judged}
    for victim, some in cases.items():
        if some and not judged[victim]:
            raise Skipped(f"the machine had no time: {victim}, each time late by its pipes")


def _publish(stage: Stage, cases: dict[str, list[Case]]) -> None:
    for victim, some in cases.items():
        if some:
            stage.remarks.append(_described(victim, some))


def _described(victim: str, cases: list[Case]) -> str:
    seconds = [case.seconds for case in cases]
    limit = cases[0].limit
    within = sum(each <= limit for each in seconds) / len(seconds)
    return (
        f"{victim} {len(cases)} times: the next one held after {p50_and_p99(seconds)};"
        f" {within:.1%} within {limit * 1000:.0f} ms; meanwhile a plain pipe took at worst"
        f" {p50_and_p99([case.control for case in cases])}"
    )

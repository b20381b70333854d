"""Nobody waits in vain for an event that was set: who comes later returns at once, and who was in
the line is woken even if it is cleared at once, though setters and waiters are killed by SIGKILL at
any instant; and nobody is woken by what was never set.

Each event is set once, or again by the next setter if one was killed. Who sets it notes outside of
the store who was seen in its line before, when `set` had returned, and whether it was cleared then.
Who waited without success notes since when, and until when at least.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from kvsync.engine import Transaction
from kvsync.engine.doorbell import Doorbell
from kvsync.primitives.event import Event
from kvsync.primitives.tickets import Tickets
from kvsync.waiting import Wish, enter
from stress.busy import BUSY, unless_busy
from stress.crew import Crew, Worker
from stress.history import now
from stress.journal import UNKNOWN, acknowledged
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 6
NEMESES = ("kill", "stop")

_LONGEST_WAIT = 0.3
_LONGEST_PAUSE = 0.02
"""Seconds."""

_NAP = 0.001
_AGAIN = 0.02

_PULSES = 0.5
"""Of the events, as many are cleared at once."""

_NS = 1_000_000_000


def _enter_without_looking(
    event: Event, wish: Wish, doorbell: Doorbell | None, transaction: Transaction
) -> int:
    return enter(event._session, transaction, wish, doorbell)


def _look_then_wait() -> None:
    """What is set between the look and the place in the line is not noticed."""
    Event._enter = _enter_without_looking  # type: ignore[method-assign, assignment]


def _set_without_waking() -> None:
    Tickets.tell_all = lambda *_: None  # type: ignore[method-assign]


def _wake_for_nothing() -> None:
    Event._enter = lambda *_: None  # type: ignore[method-assign]


WAYS: dict[str, Callable[[], None]] = {
    SOUND: lambda: None,
    "look-then-wait": _look_then_wait,
    "set-without-waking": _set_without_waking,
    "wake-for-nothing": _wake_for_nothing,
}


def _set(worker: Worker) -> None:
    WAYS[worker.way]()
    number = worker.store.counter("number")
    while worker.going_on():
        n = number.value
        event, note = worker.store.event(f"event {n}"), _notes(worker, n)
        time.sleep(_LONGEST_PAUSE * worker.chance.random() ** 4)
        note("looking")
        for waiter in event.stats().waiters:
            note("seen", waiter.pid)
        _tell_latest(worker, n)
        event.set()
        note("set")
        if worker.chance.random() < _PULSES:
            note("clearing")
            event.clear()
        number.add()
        worker.ready()


def _notes(worker: Worker, n: int) -> Callable[..., None]:
    def note(what: str, number: int | None = None) -> None:
        worker.journal.note(f"{what}/{n}/{os.getpid()}", now() if number is None else number)

    return note


def _tell_latest(worker: Worker, n: int) -> None:
    """Before it is set."""
    with open(worker.path + "-latest", "r+b", buffering=0) as file:
        file.write(b"%031d" % n)


def _latest(path: str) -> int:
    with open(path + "-latest", "rb", buffering=0) as file:
        return int(file.read())


def _wait(worker: Worker) -> None:
    WAYS[worker.way]()
    number = worker.store.counter("number")
    while worker.going_on():
        n, timeout = number.value, worker.chance.uniform(0, _LONGEST_WAIT)
        event, invoked = worker.store.event(f"event {n}"), now()
        with unless_busy(worker, timeout):
            if event.wait(timeout):
                assert _latest(worker.path) >= n, f"a wait for event {n} returned before it was set"
                worker.journal.note("woken", UNKNOWN)
                _wait_for_next(worker, n)
            else:
                until = invoked + int(timeout * _NS)
                worker.journal.note(f"missed/{n}/{os.getpid()}/{invoked}", until)
        worker.ready()


def _wait_for_next(worker: Worker, n: int) -> None:
    """Or, now and then, come again to what is set."""
    number = worker.store.counter("number")
    while worker.going_on() and number.value == n and worker.chance.random() > _AGAIN:
        time.sleep(_NAP)


def run(stage: Stage) -> None:
    stage.processes = max(stage.processes, 2)
    Path(stage.path + "-latest").write_bytes(b"-1")
    with Crew(stage) as crew:
        crew.start(_set)
        crew.start(_wait, stage.processes - 1)
        crew.be_struck()
    notes = acknowledged(stage.folder)
    _judge(stage, notes)
    stage.figures |= {"woken": len(notes["woken"]), BUSY: len(notes[BUSY])}
    stage.figures["waits"] = stage.figures["woken"] + stage.figures["timed out"]
    stage.expect_some("set", "waits")
    stage.expect_sound_file()


class Wait(NamedTuple):
    """A wait without success."""

    event: str
    pid: int
    invoked: int
    until: int


class Sets:
    """What is noted of all that was set."""

    def __init__(self, notes: dict[str, list[int]]) -> None:
        self._notes = notes
        self._setters: dict[str, list[str]] = defaultdict(list)
        self._cleared: set[str] = set()
        for what, event, setter in (label.split("/") for label in notes if label.count("/") == 2):
            if what == "set":
                self._setters[event].append(setter)
            self._cleared |= {event} if what == "clearing" else set()

    def __len__(self) -> int:
        return len(self._setters)

    def missed(self, wait: Wait) -> bool:
        """Whether it was to be woken by one of them. One killed before it noted that is excused."""
        return any(self._missed(wait, setter) for setter in self._setters[wait.event])

    def _missed(self, wait: Wait, setter: str) -> bool:
        (done,) = self._of("set", wait.event, setter)
        if done >= wait.until:
            return False
        return wait.event not in self._cleared or self._saw(wait, setter)

    def _saw(self, wait: Wait, setter: str) -> bool:
        """In the line, where it then was until the event was set."""
        (looked,) = self._of("looking", wait.event, setter)
        return wait.invoked < looked and wait.pid in self._of("seen", wait.event, setter)

    def _of(self, what: str, event: str, setter: str) -> list[int]:
        return self._notes.get(f"{what}/{event}/{setter}", [])


def _judge(stage: Stage, notes: dict[str, list[int]]) -> None:
    sets, waits = Sets(notes), list(_unsuccessful(notes))
    for wait in waits:
        stage.expect(not sets.missed(wait), f"it was set, but somebody waited in vain: {wait}")
    seen = sum(len(pids) for label, pids in notes.items() if label.startswith("seen/"))
    stage.figures |= {"set": len(sets), "seen in line": seen, "timed out": len(waits)}


def _unsuccessful(notes: dict[str, list[int]]) -> Iterator[Wait]:
    for label, times in notes.items():
        if label.startswith("missed/"):
            _, event, pid, invoked = label.split("/")
            yield Wait(event, int(pid), int(invoked), times[0])

"""A signal's exception at any instant of acquiring, waiting and releasing leaves no grant and no
ticket of a living process behind, and stops nobody else.

`--interrupts N` counts them, over all that can be held or waited for. What an object says that it
holds after one (it came between two calls) is released; then nothing of its process may be left
in the tables.
"""

import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import kvsync
from kvsync.session import Session
from stress.busy import BUSY, unless_busy
from stress.crew import PATIENCE, Crew, Worker
from stress.journal import acknowledged
from stress.stage import SOUND, Stage

UNIT = "interrupts"
PROCESSES = 4
FAULTS = ("signal",)
PRIMITIVES = (
    "lock",
    "rlock",
    "semaphore",
    "rwlock",
    "event",
    "condition",
    "barrier",
    "once",
    "election",
)

_LONGEST = 0.004
"""Seconds from the beginning of an attempt to its signal."""

_SHORT = 0.001
"""Seconds to wait for what may never come."""

_LEFT = """
    select 'grant', space, name from kvsync_grant where session = :session
    union all
    select 'ticket', space, name from kvsync_ticket where session = :session
    union all
    select 'pledge', space, name from kvsync_pledge where ticket not in (
        select id from kvsync_ticket)
"""


def _forget_undoing() -> None:
    Session.undo = lambda *_: None  # type: ignore[method-assign]


WAYS: dict[str, Callable[[], None]] = {SOUND: lambda: None, "no-undo": _forget_undoing}


class Interrupt(BaseException):
    """What no code expects."""


class Use:
    """Something that is taken and given back, or waited for."""

    def __init__(self, *held: Any) -> None:
        self._held = held

    def once(self) -> None:
        raise NotImplementedError

    def give_up(self) -> None:
        """What it still has."""
        for each in self._held:
            while each.owned():
                each.release()
            assert each.token is None, f"{each} takes for its own what it does not hold"

    def pass_through(self, stage: Stage) -> None:
        """Nobody stands in the way for good."""
        for each in self._held:
            stage.expect(each.acquire(timeout=PATIENCE), f"{each} is left taken")
            each.release()


class Taking(Use):
    """By `acquire` and `release`."""

    def once(self) -> None:
        for each in self._held:
            if each.acquire(timeout=_LONGEST):
                each.release()


class Within(Use):
    """By `with`: whatever ends its block, nothing is had any more."""

    def give_up(self) -> None:
        for each in self._held:
            assert each.token is None, f"{each} is held after its block"

    def once(self) -> None:
        for each in self._held:
            with suppress(kvsync.AcquireTimeout), each:
                pass


class Again(Within):
    """An rlock, twice."""

    def once(self) -> None:
        for each in self._held:
            with each, each:
                pass


class Downgrading(Within):
    """From the write side to the read side."""

    def once(self) -> None:
        _read, write = self._held
        with write:
            write.downgrade()


class Waiting(Use):
    """At an event."""

    def __init__(self, event: kvsync.Event) -> None:
        super().__init__()
        self._event = event

    def once(self) -> None:
        self._event.wait(_SHORT)
        self._event.set()
        self._event.clear()


class Conditional(Within):
    """Under a condition's lock."""

    def __init__(self, condition: kvsync.Condition) -> None:
        super().__init__(condition.lock)
        self._condition = condition

    def once(self) -> None:
        with self._condition:
            self._condition.notify()
            self._condition.wait(_SHORT)


class Running(Use):
    """Once, and once more."""

    def __init__(self, once: kvsync.Once) -> None:
        super().__init__()
        self._once = once

    def once(self) -> None:
        self._once.run(lambda: None)
        self._once.reset()


class Meeting(Use):
    """At a barrier."""

    def __init__(self, barrier: kvsync.Barrier) -> None:
        super().__init__()
        self._barrier = barrier

    def once(self) -> None:
        try:
            self._barrier.wait(_LONGEST)
        except kvsync.BrokenBarrierError:
            self._barrier.reset()


def _uses(store: kvsync.Store) -> dict[str, Use]:
    both = store.rwlock("both")
    return {
        "lock": Taking(store.lock("lock")),
        "lock-with": Within(store.lock("lock")),
        "rlock": Taking(store.rlock("rlock")),
        "rlock-with": Again(store.rlock("rlock")),
        "semaphore": Taking(store.semaphore("semaphore", 2)),
        "semaphore-with": Within(store.semaphore("semaphore", 2)),
        "rwlock": Taking(both.read(), both.write()),
        "rwlock-downgrade": Downgrading(both.read(), both.write()),
        "event": Waiting(store.event("event")),
        "condition": Conditional(store.condition("condition")),
        "condition-lock": Conditional(store.condition("other", store.lock("other"))),
        "barrier": Meeting(store.barrier("barrier", 2)),
        "once": Running(store.once("once")),
        "election": Taking(store.election("election")),
    }


def _tell_of_others(unraisable: "sys.UnraisableHookArgs") -> None:
    """In a finalizer an exception goes nowhere; Python reports each."""
    if not isinstance(unraisable.exc_value, Interrupt):
        sys.__unraisablehook__(unraisable)


class Alarm:
    """Raises once, in the main thread, at an instant to come."""

    def __init__(self) -> None:
        self.rang = False
        signal.signal(signal.SIGALRM, self._ring)
        sys.unraisablehook = _tell_of_others

    def set(self, seconds: float) -> None:
        self.rang = False
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _ring(self, *_: object) -> None:
        self.rang = True
        raise Interrupt


def _be_interrupted(worker: Worker) -> None:
    WAYS[worker.way]()
    store, alarm = worker.store, Alarm()
    uses = _uses(store)
    session = {"session": store.session.id}
    worker.ready()
    while worker.going_on():
        name = worker.chance.choice(list(uses))
        try:
            _attempt(worker, alarm, uses[name])
            uses[name].give_up()
        except kvsync.KvsyncError as error:
            raise AssertionError(f"after an interrupt of {name}") from error
        left = store.engine.read(_LEFT, session) and _left_at_last(store)
        assert not left, f"an interrupt of {name} left behind: {left}"
        worker.journal.note(name, 0)


def _left_at_last(store: kvsync.Store) -> list[Any]:
    """Once that is taken back too which could not be at once, because others wrote for long."""
    store.session.undo_leftovers()
    return list(store.engine.read(_LEFT, {"session": store.session.id}))


def _attempt(worker: Worker, alarm: Alarm, use: Use) -> None:
    with suppress(Interrupt):
        alarm.set(worker.chance.uniform(0.0001, _LONGEST))
        _go_on_until_it_rang(worker, alarm, use)


def _go_on_until_it_rang(worker: Worker, alarm: Alarm, use: Use) -> None:
    """Where an exception can go nowhere, its handler raises in vain."""
    while not alarm.rang:
        with unless_busy(worker, _LONGEST):
            use.once()


def run(stage: Stage) -> None:
    with stage.open() as store, Crew(stage) as crew:
        crew.start(_be_interrupted, stage.processes)
        crew.assemble()
        uses = list(_uses(store).values())
        while not stage.enough(len(_interrupts(stage))):
            crew.watch(0.05)
            stage.chance.choice(uses).pass_through(stage)
    stage.figures |= {UNIT: len(_interrupts(stage)), BUSY: len(acknowledged(stage.folder)[BUSY])}
    for name, count in sorted(Counter(_interrupts(stage)).items()):
        stage.figures[name] = count
    stage.expect_some(UNIT)
    stage.expect_sound_file()


def _interrupts(stage: Stage) -> list[str]:
    notes = acknowledged(stage.folder)
    return [name for name in notes if name != BUSY for _ in notes[name]]

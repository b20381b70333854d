"""In no span of time do all processes together get more units of a rate limiter than its burst and
its rate allow, though some of them are killed by SIGKILL at any instant, some as they wait.

One limiter is used all along, so that a rate that is a little too high shows in the end; others in
windows, from their first unit on.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import kvsync
from kvsync.engine import Engine, Transaction
from kvsync.primitives import rate as rates
from stress import judge
from stress.busy import BUSY, unless_busy
from stress.checkers import Violation, rate
from stress.crew import Crew, Worker
from stress.history import History, Operation, Outcome, now
from stress.journal import acknowledged
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 4
NEMESES = ("kill", "stop")

_LIMIT, _PER, _BURST = 300, 1.0, 15
_MOST = 3
"""Units at once."""

_WAITS = 0.5
_LONGEST_WAIT = 0.05
"""Seconds."""

_NAP = 0.0005
_PART = 60
"""Grants of which every span is looked at."""

_SECOND = 1_000_000_000

Acquire = Callable[[int, float], bool]
"""So many units, within so many seconds."""


def _sound(store: kvsync.Store, name: str) -> Acquire:
    return store.rate_limiter(name, _LIMIT, per=_PER, burst=_BURST).acquire


def _five_percent_more(store: kvsync.Store, name: str) -> Acquire:
    return store.rate_limiter(name, _LIMIT * 105 // 100, per=_PER, burst=_BURST).acquire


class _Apart:
    """Each statement in a transaction of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.now = engine, engine.now()

    def execute(self, sql: str, parameters: Any) -> list[Any]:
        is_read = sql.lstrip().startswith("select")
        return (self._engine.read if is_read else self._engine.write)(sql, parameters)


def _read_then_write(store: kvsync.Store, name: str) -> Acquire:
    """What others take between the two is forgotten."""
    limiter = store.rate_limiter(name, _LIMIT, per=_PER, burst=_BURST)

    def acquire(n: int, seconds: float) -> bool:
        deadline = limiter._now() + rates._ticks(seconds)
        apart = cast("Transaction", _Apart(store.engine))
        attempt = rates._Attempt()
        slot = limiter._take(n, deadline, attempt, True, apart)
        if slot is not None:
            limiter._sleep_until(slot.due, attempt)
        return slot is not None

    return acquire


def _each_its_own(store: kvsync.Store, name: str) -> Acquire:
    return _sound(store, f"{name}-{store.session.id}")


WAYS: dict[str, Callable[[kvsync.Store, str], Acquire]] = {
    SOUND: _sound,
    "five-percent-more": _five_percent_more,
    "read-then-write": _read_then_write,
    "each-its-own": _each_its_own,
}


def _use(worker: Worker) -> None:
    while worker.going_on():
        n, seconds = _wish(worker)
        acquire = WAYS[worker.way](worker.store, "rate")
        asked = now()
        with unless_busy(worker, seconds):
            if acquire(n, seconds):
                worker.journal.note("granted", _packed(asked, now(), n))
            elif not seconds:
                time.sleep(_NAP)
        worker.ready()


def _use_in_windows(worker: Worker) -> None:
    worker.ready()
    while worker.going_on():
        ending, history = worker.window()
        if ending:
            name, (n, seconds) = f"rate{ending}", _wish(worker)
            acquire = partial(WAYS[worker.way](worker.store, name), n, seconds)
            with unless_busy(worker, seconds):
                history.call(name, "acquire", n, acquire)
        time.sleep(_NAP)


def _wish(worker: Worker) -> tuple[int, float]:
    """Units, and seconds within which they are wanted."""
    waits = worker.chance.random() < _WAITS
    seconds = worker.chance.uniform(0, _LONGEST_WAIT) if waits else 0.0
    return worker.chance.randint(1, _MOST), seconds


def _packed(asked: int, granted: int, n: int) -> int:
    """One number, so that a kill cannot part them."""
    return (asked << 64 | granted) << 8 | n


def _unpacked(packed: int) -> Operation:
    span = packed >> 72, packed >> 8 & (1 << 64) - 1
    return Operation(0, "acquire", packed & 0xFF, Outcome.OK, True, *span)


def run(stage: Stage) -> None:
    stage.processes = max(stage.processes, 2)
    with Crew(stage) as crew:
        crew.start(_use, stage.processes // 2)
        crew.start(_use_in_windows, stage.processes - stage.processes // 2)
        crew.be_struck()
    notes = acknowledged(stage.folder)
    granted = sorted(notes["granted"])
    stage.figures[BUSY] = len(notes[BUSY])
    stage.figures["units"] = sum(_unpacked(each).argument for each in granted)
    stage.expect_some("units")
    if granted:
        _judge(stage, [_unpacked(each) for each in granted])
    judge.expect_legal(stage, _flaw)
    stage.expect_sound_file()


def _flaw(history: History) -> Violation | None:
    return rate.flaw(history, _LIMIT, _PER, _BURST)


def _judge(stage: Stage, granted: History) -> None:
    """All of it as one span, and each span in its parts."""
    units = stage.figures["units"]
    span = (max(each.returned or 0 for each in granted) - granted[0].invoked) / _SECOND
    allowed = rate.allowed(span, _LIMIT, _PER, _BURST)
    stage.expect(
        units <= allowed, f"{units} units were granted in {span:.3f} s: {allowed:.1f} may be"
    )
    for start in range(0, len(granted), _PART):
        if violation := _flaw(granted[start : start + _PART]):
            stage.violations.append(f"the rate was too high: {violation}")
            break
    stage.figures["% of what is allowed"] = round(100 * units / allowed, 1)

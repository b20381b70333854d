"""A scenario whose workers are this process, one after the other, a few rounds each.

So a test can take from kvsync what it likes, and look at what the scenario makes of that.
"""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import kvsync
from stress.crew import Job, Worker
from stress.history import now
from stress.journal import Journal
from stress.record import Books
from stress.stage import SOUND, Stage, Terms
from stress.tally import Tally

_WINDOW = 10
"""Seconds: all that is done is recorded."""

_A_RUN = 20_000_000_000
"""Nanoseconds that it seems to have taken: its windows are over."""


class _InTurn(Worker):
    def __init__(self, stage: Stage, number: int, rounds: int) -> None:
        self.path, self.way, self.number = stage.path, stage.way, number
        self.store = kvsync.open(stage.path)
        self.journal = Journal(stage.folder, number)
        self.chance = random.Random(number)
        self.done = 0
        self._orders: Any = SimpleNamespace(windows=stage.windows)
        self.window = self.window_of(0)
        self._rounds = rounds
        self._tally = Tally(stage.folder)

    def going_on(self) -> bool:
        self._rounds -= 1
        return self._rounds >= 0

    def ready(self) -> None:
        self.done += 1


class _Crew:
    """Nobody is killed."""

    killed = 0
    unknown = None
    rounds = 10

    def __init__(self, stage: Stage) -> None:
        self.killed_at: Counter[Job] = Counter()
        self.members: list[Any] = []
        self._stage = stage
        self._jobs: list[tuple[Job, Any]] = []

    def start(self, job: Job, how_many: int = 1, *more: Any, **_: bool) -> list[Any]:
        self._jobs += [(job, more)] * how_many
        return []

    def assemble(self) -> None:
        self._stage.begin()
        for number, (job, more) in enumerate(sorted(self._jobs, key=_is_consumer), 1):
            worker = _InTurn(self._stage, number, self.rounds)
            with worker.store, worker.journal:
                job(worker, *more)
            self._stage.operations += worker.done
        self._stage._asked = now() + _A_RUN

    be_struck = assemble

    def operations(self) -> int:
        return self._stage.operations

    def books(self) -> Books:
        return Books()

    def strike(self) -> None:
        pass

    watch = until = strike

    def __enter__(self) -> "_Crew":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _is_consumer(job: tuple[Job, Any]) -> bool:
    """They come after the others."""
    return job[0].__name__ == "_consume"


@contextmanager
def staged(scenario: ModuleType, folder: Path, *, seconds: float = _WINDOW) -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenario, "Crew", _Crew)
        patch.setattr("stress.windows.LENGTH", _WINDOW * 10**9)
        terms = Terms(1, seconds, processes=4, way=SOUND, histories=1)
        yield Stage(scenario, terms, str(folder), lambda _: None)

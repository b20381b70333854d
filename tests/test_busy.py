"""On a slow disk a call with a timeout may give up, and the suite has nothing against that."""

from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import kvsync
from stress.busy import BUSY
from stress.scenarios import event, interrupts, rate_limiter, semaphore
from tests.in_turn import staged

pytestmark = pytest.mark.suite


def now_and_then(call: Callable[..., Any]) -> Callable[..., Any]:
    """As `call`, but every other one with a timeout gives up."""
    gives_up = cycle([True, False])

    def give_up(self: Any, *arguments: Any, **more: Any) -> Any:
        has_time = more.get("timeout", 0) is None or more.get("timeout", 0) > 1
        if not has_time and next(gives_up):
            raise kvsync.BusyError("others write")
        return call(self, *arguments, **more)

    return give_up


@pytest.mark.parametrize(
    ("scenario", "kind", "method"),
    [
        (semaphore, kvsync.Semaphore, "acquire"),
        (rate_limiter, kvsync.RateLimiter, "acquire"),
        (event, kvsync.Event, "wait"),
    ],
)
def test_who_gives_up_violates_nothing_and_is_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scenario: ModuleType,
    kind: type,
    method: str,
) -> None:
    monkeypatch.setattr(kind, method, now_and_then(getattr(kind, method)))
    monkeypatch.setattr(semaphore, "_IMPATIENT", 0.7)
    for each in (event, rate_limiter):
        monkeypatch.setattr(each, "_LONGEST_WAIT", 0.0001)
    with staged(scenario, tmp_path) as stage:
        scenario.run(stage)
    assert stage.violations == []
    assert stage.figures[BUSY] > 0


def test_who_has_all_the_time_may_not_give_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(*_: object, **__: object) -> None:
        raise kvsync.BusyError("others write")

    monkeypatch.setattr(kvsync.Semaphore, "acquire", give_up)
    monkeypatch.setattr(semaphore, "_IMPATIENT", 0)
    with staged(semaphore, tmp_path) as stage, pytest.raises(kvsync.BusyError):
        semaphore.run(stage)


class _Alarm:
    """It rings at the third look."""

    def __init__(self) -> None:
        self._looks: Iterator[bool] = iter([False, False, True])

    @property
    def rang(self) -> bool:
        return next(self._looks)


def test_who_gives_up_before_it_is_interrupted_goes_on() -> None:
    """Its signal is still to come."""
    told: list[str] = []

    def give_up() -> None:
        raise kvsync.BusyError("others write")

    worker: Any = SimpleNamespace(journal=SimpleNamespace(note=lambda what, _: told.append(what)))
    alarm: Any = _Alarm()
    use: Any = SimpleNamespace(once=give_up)
    interrupts._go_on_until_it_rang(worker, alarm, use)
    assert told == [BUSY, BUSY]


def test_what_could_not_be_taken_back_at_once_is_no_leftover(store: kvsync.Store) -> None:
    """It is taken back by whoever comes next."""
    done: list[object] = []
    store.session.undo_later(done.append)
    assert interrupts._left_at_last(store) == []
    assert done

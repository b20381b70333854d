"""The watch on what a long-lived process needs: it sees growth without bound, and nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stress.leaks import ENOUGH, SLACK, WAL_LIMIT, Needs, Watch, growth

pytestmark = pytest.mark.suite

MANY = 4 * ENOUGH
FIRST = Needs(descriptors=20, threads=3, bytes=30_000_000)


def samples(**steps: float) -> list[Needs]:
    """As many as matter, each need growing by so much from one to the next."""
    return [
        Needs(
            *(int(first + steps.get(name, 0) * number) for name, first in FIRST._asdict().items())
        )
        for number in range(MANY)
    ]


@pytest.mark.parametrize("name", Needs._fields)
def test_what_grows_all_the_time_is_seen(name: str) -> None:
    """Each need has its own slack, and alone is told of."""
    enough = 4 * (getattr(SLACK, name) + 1) / ENOUGH
    (flaw,) = growth(samples(**{name: enough}))
    assert flaw.startswith(f"{name} grew by ")


def test_growth_within_the_slack_is_none() -> None:
    slow = {name: slack / MANY for name, slack in SLACK._asdict().items()}
    assert list(growth(samples(**slow))) == []


def test_warming_up_is_no_growth() -> None:
    """Whatever the first quarter needed."""
    warm = Needs(*(100 * each for each in FIRST))
    assert list(growth([FIRST] * ENOUGH + [warm] * (MANY - ENOUGH))) == []


def test_one_step_late_in_a_run_is_no_growth() -> None:
    more = Needs(*(100 * each for each in FIRST))
    assert list(growth([FIRST] * (MANY - ENOUGH) + [more] * ENOUGH)) == []


def test_what_comes_and_goes_is_no_growth() -> None:
    busy = Needs(*(100 * each for each in FIRST))
    assert list(growth([FIRST, busy] * (MANY // 2))) == []


def test_few_samples_tell_nothing() -> None:
    assert list(growth(samples(descriptors=1000)[: ENOUGH - 1])) == []


def test_a_watch_says_that_its_samples_were_too_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(str(tmp_path / "store.db-wal"), interval=0)
    monkeypatch.setattr(watch, "_needs", lambda _: FIRST)
    for seen in range(ENOUGH):
        few = f"too few samples to judge leaks: {seen}, where {ENOUGH} are enough"
        assert watch.doubts() == [few]
        watch.look(os.getpid())
    assert watch.doubts() == []


@pytest.fixture
def idle() -> Iterator[int]:
    """The pid of another process."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        yield child.pid
    finally:
        child.kill()
        child.communicate()


def test_another_process_begins_anew_and_a_dead_one_is_passed_over(
    tmp_path: Path, idle: int
) -> None:
    """What two processes need cannot be compared."""
    watch = Watch(str(tmp_path / "store.db-wal"), interval=0)
    for pid in (os.getpid(), os.getpid(), idle):
        watch.look(pid)
    assert len(watch.samples) == 1
    watch.look(2**22 + 1)
    assert watch.flaws() == []
    assert watch.figures()["WAL MB"] == 0


def test_a_long_run_has_no_more_samples_than_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(str(tmp_path / "store.db-wal"), interval=0)
    monkeypatch.setattr(watch, "_needs", lambda _: FIRST)
    for _ in range(10_000):
        watch.look(os.getpid())
    assert ENOUGH < len(watch.samples) < 1000


def test_a_log_beyond_its_bound_is_seen(tmp_path: Path) -> None:
    """Though it is short again at the end."""
    log = tmp_path / "store.db-wal"
    watch = Watch(str(log), interval=0)
    for size in (WAL_LIMIT, 0):
        log.touch()
        os.truncate(log, size)
        watch.look(os.getpid())
    assert watch.flaws() == [f"the -wal grew to {WAL_LIMIT:,} bytes"]

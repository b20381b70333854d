"""The crew of a scenario: who ends before its time, and what counts as done to whom."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stress import leaks
from stress.crew import Crew, Worker
from stress.nemeses import stop
from stress.scenarios import counter
from stress.stage import Stage, Terms
from tests.processes import PATIENCE

pytestmark = pytest.mark.suite


def ends_at_once(worker: Worker) -> None:
    worker.ready()


def obeys(worker: Worker) -> None:
    """Until it is told to stop, or to end."""
    worker.ready()
    while worker.going_on() and not worker.pipe.poll(0.01):
        pass


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    nemeses = ("stop",)
    return Stage(counter, Terms(1, 1, nemeses=nemeses), str(tmp_path), lambda _: None)


def _gone(crew: Crew) -> None:
    crew.assemble()
    for member in crew.members:
        member.process.join(PATIENCE)


ENDED = "it ended of itself, before its time"


def test_who_ends_of_itself_is_told_of(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(ends_at_once)
        _gone(crew)
    assert ENDED in "".join(stage.violations)


def test_who_had_ended_already_was_not_killed(stage: Stage) -> None:
    """It neither counts, nor passes for one that was."""
    with Crew(stage) as crew:
        (member,) = crew.start(ends_at_once)
        _gone(crew)
        crew.kill(member)
        assert crew.killed == 1, "nobody knows yet"
        crew._dismiss(member)
    assert ENDED in "".join(stage.violations)
    assert (crew.killed, stage.strikes["kill"], list(stage.faults)) == (0, 0, [])


def test_who_was_killed_counts(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(obeys, 2)
        crew.assemble()
        crew.replace(crew.mortals[0]).works()
    assert stage.violations == []
    assert (crew.killed, stage.strikes["kill"], len(stage.faults)) == (1, 1, 1)


@pytest.mark.parametrize(
    "hire",
    [
        pytest.param(lambda crew: crew.start(obeys), id="told to stop"),
        pytest.param(lambda crew: crew.start(obeys)[0].dismiss(""), id="told to end"),
        pytest.param(lambda crew: crew.start(ends_at_once, may_end=True), id="has done its work"),
    ],
)
def test_who_may_end_is_not_spoken_of(stage: Stage, hire: Callable[[Crew], object]) -> None:
    with Crew(stage) as crew:
        hire(crew)
        crew.assemble()
        if crew.members[0].may_end:
            _gone(crew)
    assert stage.violations == []


def test_who_had_ended_already_was_not_stopped(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(ends_at_once, may_end=True)
        _gone(crew)
        stop.Stop().strike(crew)
    assert (stage.strikes["stop"], stage.violations) == (0, [])


def _waits(crew: Crew) -> None:
    crew.watch(0.001)


def _hears(crew: Crew) -> None:
    member = crew.members[-1]
    member.pipe.send("more")
    assert crew.receive(member) == "more"


def repeats(worker: Worker) -> None:
    worker.ready()
    while said := worker.pipe.recv():
        worker.pipe.send(said)


@pytest.mark.parametrize("look", [_waits, _hears])
def test_leaks_are_looked_for_where_a_crew_waits(
    stage: Stage, look: Callable[[Crew], None]
) -> None:
    """Or it says that it could not."""
    few = "too few samples to judge leaks"
    for times in (1, leaks.ENOUGH):
        stage.remarks.clear()
        with Crew(stage) as crew:
            crew._leaks = leaks.Watch(stage.path + "-wal", interval=0)
            crew.start(repeats)
            crew.assemble()
            for _ in range(times):
                look(crew)
            crew.members[0].dismiss("")
        assert (few in "".join(stage.remarks)) == (times == 1)
    assert stage.violations == []


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops that only the end of all, or a kill, can end."""
    monkeypatch.setattr(stop, "_LONG", 1.0)
    monkeypatch.setattr(stop, "_PAST_CLAIM", (10 * PATIENCE, 10 * PATIENCE))


@pytest.mark.usefixtures("long")
def test_a_long_stop_holds_up_neither_the_master_nor_the_others(stage: Stage) -> None:
    """Others are struck meanwhile; at the end it goes on, and ends like the others."""
    with Crew(stage) as crew:
        crew.start(obeys, 2)
        crew.assemble()
        crew.strike()
        (awake,) = crew.awake()
        crew.strike()
        assert [fault.process for fault in stage.faults] == [awake.number]
        assert crew.has_pause()
    assert stage.violations == []
    first, second = stage.faults
    assert {first.process, second.process} == {1, 2}
    assert second.at < first.at
    assert first.ended < second.ended  # type: ignore[operator]


@pytest.mark.usefixtures("long")
def test_who_is_killed_while_it_is_stopped_was_stopped_until_then(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(obeys, 2)
        crew.assemble()
        while crew.has_pause() or not stage.strikes["kill"]:
            crew.strike()
            victim = next(each for each in crew.members if each not in crew.awake())
            if victim in crew.mortals:
                crew.replace(victim)
            else:
                crew._end_pause()
    assert stage.violations == []
    assert stage.strikes["kill"] == 1
    assert all(fault.ended for fault in stage.faults if fault.kind == "stop")


def test_one_alone_is_not_struck_before_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    monkeypatch.setattr(stop, "_LONG", 1.0)
    monkeypatch.setattr(stop, "_PAST_CLAIM", (0.01, 0.01))
    with Crew(stage) as crew:
        crew.start(obeys)
        crew.assemble()
        for _ in range(3):
            crew.strike()
    assert stage.violations == []
    ended = [fault.ended for fault in stage.faults]
    assert len(ended) == 3
    assert ended == sorted(ended)  # type: ignore[type-var]

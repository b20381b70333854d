"""What the scenarios of queues take for lost, and for cut off by a kill."""

import time
from collections import Counter
from pathlib import Path

import pytest

from stress.backlog import produce
from stress.crew import Crew, Job, Worker
from stress.journal import Journal
from stress.scenarios import queue, queue_failures, queue_get
from stress.stage import Stage, Terms

pytestmark = pytest.mark.suite


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(queue_get, Terms(seed=1, seconds=10), str(tmp_path), lambda _: None)


def note(stage: Stage, *notes: str) -> None:
    with Journal(stage.folder, 1) as journal:
        for each in notes:
            label, number = each.split()
            journal.note(label, int(number))


def killed(job: Job) -> Counter[Job]:
    return Counter({job: 1})


def test_an_item_is_lost_with_a_consumer_and_not_with_a_producer(stage: Stage) -> None:
    note(stage, "putting 1", "put 1")
    queue_get._expect_accounted(stage, [], killed(queue_get._consume))
    assert stage.violations == []
    queue_get._expect_accounted(stage, [], killed(produce))
    assert stage.violations == ["1 items are lost, 0 consumers were killed"]


def test_a_put_is_cut_off_with_a_producer_and_not_with_a_consumer(stage: Stage) -> None:
    note(stage, "putting 1", "got 1")
    queue_get._expect_accounted(stage, [], killed(produce))
    assert stage.violations == []
    queue_get._expect_accounted(stage, [], killed(queue_get._consume))
    assert stage.violations == ["1 puts are unheard, 0 producers were killed"]


def test_an_ack_is_cut_off_with_a_consumer_and_not_with_a_producer(stage: Stage) -> None:
    note(stage, "put 1", "worked 1")
    queue._expect_accounted(stage, [], killed(queue._consume))
    assert stage.violations == []
    queue._expect_accounted(stage, [], killed(produce))
    assert stage.violations == ["1 acks are unheard, 0 consumers were killed"]


def test_a_put_that_was_worked_on_was_cut_off_with_a_producer(stage: Stage) -> None:
    note(stage, "worked 1", "acknowledged 1")
    queue._expect_accounted(stage, [], killed(produce))
    assert stage.violations == []
    queue._expect_accounted(stage, [], killed(queue._consume))
    assert stage.violations == ["1 puts are unheard, 0 producers were killed"]


def _stay(worker: Worker) -> None:
    worker.ready()
    while worker.going_on():
        time.sleep(0.01)


def _stay_too(worker: Worker) -> None:
    _stay(worker)


def test_a_crew_knows_what_those_did_who_were_killed(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_stay)
        (victim,) = crew.start(_stay_too)
        crew.assemble()
        crew.kill(victim)
    assert crew.killed_at == {_stay_too: 1}
    assert crew.killed == 1
    assert stage.violations == []


@pytest.mark.parametrize("job", [queue_failures._produce, queue_failures._consume])
def test_of_items_that_fail_a_consumer_takes_one_with_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, job: Job
) -> None:
    """Nothing but one kill is done here, to nobody: the item is put and tried, and never done."""

    def lose(crew: Crew) -> None:
        crew.killed_at[job] += 1
        note(stage, "put 1", "tried 1")

    monkeypatch.setattr(Crew, "start", lambda *_: [])
    monkeypatch.setattr(Crew, "be_struck", lose)
    queue_failures.run(stage)
    lost = ["1 items are lost, 0 consumers were killed"]
    assert stage.violations == (lost if job is queue_failures._produce else [])

"""What the scenarios of queues take for lost, and for cut off by a kill."""

import time
from collections import Counter
from pathlib import Path

import pytest

from stress import backlog
from stress.backlog import produce
from stress.crew import Crew, Job, Worker
from stress.journal import Journal, acknowledged
from stress.record import Books
from stress.scenarios import queue, queue_failures, queue_get
from stress.stage import Stage, Terms
from stress.tally import Column

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


def _stay_in_a_call(worker: Worker) -> None:
    with worker.in_doubt():
        _stay(worker)


def _stay_inside(worker: Worker) -> None:
    with worker.holding(2):
        _stay(worker)


def _leave(worker: Worker) -> None:
    for _ in range(9):
        with worker.holding(2), worker.in_doubt():
            pass
    _stay(worker)


@pytest.mark.parametrize(
    ("job", "left"),
    [
        (_stay_in_a_call, Books(recovered=0, unknown=1)),
        (_stay_inside, Books(recovered=2, unknown=0)),
        (_leave, Books(recovered=0, unknown=0)),
    ],
)
def test_the_dead_leave_what_they_had_and_the_call_that_they_were_in(
    stage: Stage, job: Job, left: Books
) -> None:
    """And those who came to their end nothing."""
    with Crew(stage) as crew:
        crew.start(job)
        (victim,) = crew.start(job)
        crew.assemble()
        crew.kill(victim)
    assert crew.books() == left


def test_nothing_is_recovered_that_was_not_seen_to_be_free(stage: Stage) -> None:
    with Crew(stage) as crew:
        (victim,) = crew.start(_stay_inside)
        crew.assemble()
        crew.kill(victim)
    stage.expect(False, "the lock is left taken")
    assert crew.books() == Books(recovered=None, unknown=0)


def test_no_more_are_unheard_than_died_in_a_call(stage: Stage) -> None:
    """Who was killed elsewhere cannot have left a call that is done."""
    note(stage, "hits 1")
    stage.expect_accounted({"hits": 2}, killed=5, unknown=1)
    assert stage.violations == []
    stage.expect_accounted({"hits": 2}, killed=5, unknown=0)
    assert stage.violations == ["1 calls are unheard, but only 0 callers died in a call"]


def _packed(item: int, receipt: int) -> str:
    return f"{item << 64 | receipt}"


@pytest.mark.parametrize(
    ("notes", "rest", "recovered"),
    [
        ([f"handed-out {_packed(1, 5)}", f"handed-out {_packed(1, 6)}"], [], 1),
        ([f"handed-out {_packed(1, 5)}"], [1], 1),
        ([f"handed-out {_packed(1, 5)}"], [], 0),
        ([f"handed-out {_packed(1, 5)}", f"handed-out {_packed(2, 6)}"], [], 0),
        ([f"handed-out {_packed(1, 5)}", f"settled {_packed(1, 5)}"], [1], 0),
    ],
    ids=["again", "left", "its end unheard", "another item", "put back, then left"],
)
def test_an_item_is_recovered_if_it_came_again_after_who_left_no_end_of_it(
    stage: Stage, notes: list[str], rest: list[int], recovered: int
) -> None:
    note(stage, *notes)
    assert backlog.recovered(acknowledged(stage.folder), rest) == recovered


def test_notes_of_other_things_are_no_acknowledgements(stage: Stage) -> None:
    note(stage, "put 0", f"handed-out {_packed(1, 5)}", f"settled {_packed(1, 5)}")
    others = (backlog.HANDED_OUT, backlog.SETTLED)
    stage.expect_accounted({"put": 1}, recovered=3, beside=others)
    assert stage.violations == []
    assert stage.books == Books(1, 0, 3, None, 0, 0)


@pytest.mark.parametrize("job", [queue_failures._produce, queue_failures._consume])
def test_of_items_that_fail_a_consumer_takes_one_with_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, job: Job
) -> None:
    """Nothing but one kill is done here, to nobody: the item is put and tried, and never done."""

    def lose(crew: Crew) -> None:
        crew.killed_at[job] += 1
        crew._hired += 1
        crew.tally.add(crew._hired, Column.IN_DOUBT)
        note(stage, "put 1", "tried 1")

    monkeypatch.setattr(Crew, "start", lambda *_: [])
    monkeypatch.setattr(Crew, "be_struck", lose)
    queue_failures.run(stage)
    lost = ["1 items are lost, 0 consumers were killed"]
    assert stage.violations == (lost if job is queue_failures._produce else [])

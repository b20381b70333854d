"""How the calls of the queues' scenarios are recorded."""

from pathlib import Path

import pytest

import kvsync
from stress.backlog import Loop, jobs_of
from stress.checkers import refusals
from stress.history import Outcome, Recorder, read

pytestmark = pytest.mark.suite


def test_a_loop_that_was_late_says_nothing_of_what_there_was(
    store: kvsync.Store, tmp_path: Path
) -> None:
    """It was told that its last item was another's, and asked for none."""
    folder = str(tmp_path / "history")
    jobs, history = jobs_of(store, "-0-1"), Recorder(folder, 1)
    for number in range(5):
        history.call(jobs.name, "put", number, lambda number=number: jobs.put(number))
    loop = Loop(jobs, history)
    task = loop.next()
    store.engine.write("delete from kvsync_item where state = -1")
    with pytest.raises(kvsync.StaleReceiptError):
        loop.next_after(task)
    history.close()
    (calls,) = read(folder).values()
    assert [each.outcome for each in calls if each.function == "reserve"] == [
        Outcome.OK,
        Outcome.UNKNOWN,
    ]
    assert refusals.flaw(calls, maxsize=10) is None

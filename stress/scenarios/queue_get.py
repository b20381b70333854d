"""No item is got twice, though producers and consumers are killed by SIGKILL at any instant; and
none is lost but what a killed consumer was just getting.
"""

from collections import Counter
from collections.abc import Callable
from queue import Empty

import kvsync
from stress.backlog import NAME, SHORTLY, got, produce
from stress.crew import Crew, Worker
from stress.journal import acknowledged
from stress.record import Books
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 8
PRIMITIVES = ("queue",)


def _peek_and_delete(jobs: kvsync.Queue) -> int:
    """As one reads the first row, and then deletes it."""
    for first in jobs.peek():
        jobs.store.engine.write(
            "delete from kvsync_item where queue = :queue and id = :id",
            {"queue": NAME, "id": first.id},
        )
        jobs.store.engine.write("update kvsync_queue set size = size - 1 where size > 0")
        item: int = first.item
        return item
    raise Empty


WAYS: dict[str, Callable[[kvsync.Queue], int]] = {
    SOUND: lambda jobs: jobs.get(timeout=SHORTLY),
    "peek-then-delete": _peek_and_delete,
}


def _consume(worker: Worker) -> None:
    for number in got(worker, WAYS[worker.way]):
        worker.journal.note("got", number)


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(produce, stage.processes // 2)
        crew.start(_consume, stage.processes - stage.processes // 2)
        crew.be_struck()
    left: list[int] = []
    with stage.open() as store:
        jobs = store.queue(NAME)
        while jobs.qsize() and stage.way == SOUND:
            left.append(jobs.get())
    _expect_none_twice(stage, left, crew.killed)
    stage.expect_sound_file()


def _expect_none_twice(stage: Stage, left: list[int], killed: int) -> None:
    notes = acknowledged(stage.folder)
    times = Counter(notes["got"] + left)
    twice = [number for number, count in times.items() if count > 1]
    stage.expect(not twice, f"{len(twice)} items were got twice: {twice[:5]}")
    lost = set(notes["put"]) - times.keys()
    stage.expect(len(lost) <= killed, f"{len(lost)} items are lost after {killed} kills")
    forged = times.keys() - set(notes["putting"])
    stage.expect(not forged, f"got, but never put: {sorted(forged)[:5]}")
    unheard = len(times.keys() - set(notes["put"]))
    # A consumer that is killed as it gets takes its item with it: that is what at most once means.
    stage.books = Books(len(notes["put"]), max(0, len(lost) - killed), unheard, len(lost))
    stage.figures |= {
        "put": len(notes["put"]),
        "got": sum(times.values()),
        "gone with a consumer": len(lost),
    }

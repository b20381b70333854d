"""Every item that was put is acknowledged exactly once, though producers and consumers are killed
by SIGKILL at any instant, and some consumers are so slow that their items are given to others.
"""

import time
from collections import Counter
from collections.abc import Callable

import kvsync
from stress.backlog import NAME, VISIBILITY, drain, produce, reserved
from stress.crew import Crew, Worker
from stress.journal import acknowledged
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 16

_SLOW = 0.005
"""Of the hand-outs, as many take longer than they may."""


def _ack_by_id(task: kvsync.Task) -> None:
    """As one who knows the item, and not whether it is still his."""
    task._items.engine.write(
        "delete from kvsync_item where queue = :queue and id = :id",
        {"queue": NAME, "id": task.id},
    )


WAYS: dict[str, Callable[[kvsync.Task], None]] = {
    SOUND: kvsync.Task.ack,
    "ack-by-id": _ack_by_id,
}


def _consume(worker: Worker) -> None:
    for task in reserved(worker):
        if worker.chance.random() < _SLOW:
            time.sleep(1.5 * VISIBILITY)
        worker.journal.note("worked", task.id)
        _settle(worker, task)


def _settle(worker: Worker, task: kvsync.Task) -> None:
    try:
        WAYS[worker.way](task)
    except kvsync.StaleReceiptError:
        worker.journal.note("late", task.id)
    else:
        worker.journal.note("acknowledged", task.id)


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(produce, stage.processes // 2)
        crew.start(_consume, stage.processes - stage.processes // 2)
        crew.be_killed()
    _expect_none_twice(stage)
    if not stage.violations:
        _expect_all(stage, crew.killed)
    stage.expect_sound_file()


def _expect_none_twice(stage: Stage) -> None:
    times = Counter(acknowledged(stage.folder)["acknowledged"])
    twice = [number for number, count in times.items() if count > 1]
    stage.expect(not twice, f"{len(twice)} items were acknowledged twice: {twice[:5]}")


def _expect_all(stage: Stage, killed: int) -> None:
    """Those that are left are acknowledged here."""
    rest = []
    with stage.open() as store:
        for task in drain(stage, store):
            rest.append(task.id)
            task.ack()
        for (size,) in store.engine.read("select size from kvsync_queue"):
            stage.expect(size == 0, f"an empty queue counts {size} items")
    _expect_accounted(stage, rest, killed)


def _expect_accounted(stage: Stage, rest: list[int], killed: int) -> None:
    """An ack of which nobody knows was cut off by a kill, and so was a put."""
    notes = acknowledged(stage.folder)
    acked, worked, put = {*notes["acknowledged"]}, {*notes["worked"], *rest}, {*notes["id"]}
    stage.expect(len(put) == len(notes["id"]), "an id was given to two items")
    stage.expect(acked.isdisjoint(rest), "what was acknowledged came again")
    lost = put - worked
    stage.expect(not lost, f"{len(lost)} items were never worked on: {sorted(lost)[:5]}")
    unknown = len(worked - acked - {*rest})
    stage.expect(unknown <= killed, f"{unknown} acks are unknown after {killed} kills")
    unheard = len(worked - put)
    stage.expect(unheard <= killed, f"{unheard} puts are unknown after {killed} kills")
    stage.figures |= {
        "put": len(put),
        "acknowledged": len(acked) + len(rest),
        "late": len(notes["late"]),
        "worked on again": len(notes["worked"]) - len({*notes["worked"]}),
        "unknown acks": unknown,
        "unknown puts": unheard,
    }

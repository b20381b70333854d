"""A consumer that is alone gets the items of each producer in the order in which that one put them,
and so do its successors, though it and the producers are killed by SIGKILL at any instant; the
queue never holds more than it may, but for what those who died gave back; and it is linearizable.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from queue import Full

import kvsync
from stress import judge
from stress.backlog import ROOM, SHORTLY, get_all, got, left, numbers, producer_of, windows_of
from stress.checkers import linearizability, refusals, total_queue
from stress.checkers.models.queue import FifoQueue
from stress.crew import Crew, Worker
from stress.journal import acknowledged
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 5
PRIMITIVES = ("queue",)

WAYS: dict[str, Callable[[Worker], float]] = {
    SOUND: lambda _: 0,
    "priority-at-random": lambda worker: worker.chance.randrange(2),
}


_GIVEN_BACK = 10


def _produce(worker: Worker) -> None:
    window = windows_of(worker)
    for number in numbers(worker):
        jobs, history = window()
        put = partial(jobs.put, number, timeout=SHORTLY, priority=WAYS[worker.way](worker))
        with suppress(Full, kvsync.BusyError):
            history.call(jobs.name, "put", number, put, Full)
            worker.ready()


def _consume(worker: Worker) -> None:
    for name, number in got(worker, _get):
        worker.journal.note(f"{worker.number:09}/{name}", number)


def _get(jobs: kvsync.Queue) -> int:
    size = jobs.qsize()
    most = jobs.maxsize
    assert size <= most + _GIVEN_BACK, f"{size} items wait in a queue of {most}"
    number: int = jobs.get(timeout=SHORTLY)
    return number


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_consume)
        crew.start(_produce, stage.processes - 1)
        crew.be_struck()
    consumers = acknowledged(stage.folder)
    stage.figures["got"] = sum(map(len, consumers.values()))
    stage.expect_some("got")
    for number, last in _passed_over(consumers):
        stage.expect(False, f"item {number} came after item {last} of the same producer")
    with stage.open() as store:
        for jobs, history in left(stage, store):
            stage.figures["got"] += sum(1 for _ in get_all(jobs, history))
    search = partial(linearizability.flaw, model=FifoQueue())
    judge.expect_legal(stage, search, total_queue.flaw, partial(refusals.flaw, maxsize=ROOM))
    stage.expect_sound_file()


def _passed_over(consumers: Mapping[str, list[int]]) -> Iterator[tuple[int, int]]:
    """Items that came too late, and what came before them; consumers follow one another."""
    last: dict[tuple[str, int], int] = {}
    for name in sorted(consumers):
        _, _, jobs = name.partition("/")
        for number in consumers[name]:
            line = jobs, producer_of(number)
            if number <= last.get(line, 0):
                yield number, last[line]
            last[line] = number

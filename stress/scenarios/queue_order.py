"""A consumer that is alone gets the items of each producer in the order in which that one put them,
and so do its successors, though it and the producers are killed by SIGKILL at any instant; and the
queue never holds more than it may, but for what those who died gave back.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from queue import Full

import kvsync
from stress.backlog import MAXSIZE, SHORTLY, got, jobs_of, numbers, producer_of
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
    jobs = jobs_of(worker.store)
    for number in numbers(worker):
        with suppress(Full, kvsync.BusyError):
            jobs.put(number, timeout=SHORTLY, priority=WAYS[worker.way](worker))
            worker.ready()


def _consume(worker: Worker) -> None:
    for number in got(worker, _get):
        worker.journal.note(f"{worker.number:09}", number)


def _get(jobs: kvsync.Queue) -> int:
    size = jobs.qsize()
    assert size <= MAXSIZE + _GIVEN_BACK, f"{size} items wait in a queue of {MAXSIZE}"
    number: int = jobs.get(timeout=SHORTLY)
    return number


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_consume)
        crew.start(_produce, stage.processes - 1)
        crew.be_struck()
    consumers = acknowledged(stage.folder)
    stage.figures["got"] = sum(map(len, consumers.values()))
    for number, last in _passed_over(consumers):
        stage.expect(False, f"item {number} came after item {last} of the same producer")
    stage.expect_sound_file()


def _passed_over(consumers: Mapping[str, list[int]]) -> Iterator[tuple[int, int]]:
    """Items that came too late, and what came before them; consumers follow one another."""
    last: dict[int, int] = {}
    for name in sorted(consumers):
        for number in consumers[name]:
            producer = producer_of(number)
            if number <= last.get(producer, 0):
                yield number, last[producer]
            last[producer] = number

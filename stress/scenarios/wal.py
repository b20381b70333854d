"""The `-wal` file stays under 16 MB at all times while processes increment a counter beside readers
in a loop and an iteration that was paused in its middle.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stress.crew import Crew, Worker
from stress.leaks import WAL_LIMIT
from stress.stage import SOUND, Stage

UNIT = "increments"
PROCESSES = 4
PRIMITIVES = ("counter", "dict")

_READERS = 6
_ENTRIES = 5_000
_PAUSED_AFTER = 100


def _write(worker: Worker) -> None:
    counter = worker.store.counter("hits")
    while worker.going_on():
        worker.journal.note("hits", counter.add())
        worker.ready()


def _read(worker: Worker) -> None:
    counter, entries = worker.store.counter("hits"), worker.store.dict("entries")
    seen = 0
    worker.ready()
    while worker.going_on():
        before, seen = seen, counter.value
        assert before <= seen, f"the counter went back from {before} to {seen}"
        assert sum(1 for _ in entries) == _ENTRIES


def _iterate(worker: Worker) -> Iterator[str]:
    return iter(worker.store.dict("entries"))


def _pin(worker: Worker) -> Iterator[str]:
    """As one would iterate with `sqlite3`: one statement, open until all its rows are read."""
    import sqlite3

    connection = sqlite3.connect(worker.path)
    return (key for (key,) in connection.execute("select key from kvsync_dict order by key"))


WAYS = {SOUND: _iterate, "one-statement": _pin}


def _pause(worker: Worker) -> None:
    keys = WAYS[worker.way](worker)
    seen = [next(keys) for _ in range(_PAUSED_AFTER)]
    worker.ready()
    while worker.going_on():
        worker.pipe.poll(0.1)
    seen += keys
    assert len(seen) == len(set(seen)) == _ENTRIES


class Watch:
    """The size of a file, looked at a thousand times a second by a thread of its own."""

    def __init__(self, path: str) -> None:
        self.largest = self.looks = 0
        self._path = path

    def look(self) -> None:
        self.looks += 1
        with suppress(FileNotFoundError):
            self.largest = max(self.largest, os.stat(self._path).st_size)

    @contextmanager
    def looking(self) -> Iterator[None]:
        over = threading.Event()
        thread = threading.Thread(target=self._look_until, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _look_until(self, over: threading.Event) -> None:
        while not over.wait(0.001):
            self.look()


def run(stage: Stage) -> None:
    watch = Watch(stage.path + "-wal")
    with stage.open() as store:
        store.dict("entries").update({f"{number:05}": number for number in range(_ENTRIES)})
        counter = store.counter("hits")
        with watch.looking(), Crew(stage) as crew:
            crew.start(_pause)[0].works()
            crew.start(_read, _READERS)
            crew.start(_write, stage.processes)
            crew.assemble()
            while not stage.enough(counter.value):
                crew.watch(0.1)
                _expect_short(stage, watch)
        stage.figures[UNIT] = counter.value
        stage.expect_accounted({"hits": counter.value})
    _expect_short(stage, watch)
    stage.expect_sound_file()


def _expect_short(stage: Stage, watch: Watch) -> None:
    stage.figures |= {"largest -wal in KiB": watch.largest >> 10, "looks": watch.looks}
    stage.expect(watch.largest < WAL_LIMIT, f"the -wal grew to {watch.largest:,} bytes")

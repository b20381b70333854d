"""No two processes are inside what a lock protects, tokens rise, and nobody who dies by SIGKILL, at
any instant of acquiring, holding, releasing or reaping, leaves the lock taken.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import kvsync
from stress.crew import PATIENCE, Crew, Worker
from stress.journal import acknowledged
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 6


@contextmanager
def _try(lock: kvsync.Lock) -> Iterator[Any]:
    """The broken twin of a wait with a timeout: nobody looks at what `acquire` returned."""
    taken = lock.acquire(timeout=0.001)
    yield
    if taken:
        lock.release()


WAYS: dict[str, Callable[[kvsync.Lock], AbstractContextManager[Any]]] = {
    SOUND: lambda lock: lock,
    "no-lock": lambda _: nullcontext(),
    "timeout-ignored": _try,
}


class Witness:
    """A file that one process at a time can have: the kernel's word against the library's."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    @contextmanager
    def alone(self, token: int | None) -> Iterator[None]:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AssertionError("two processes are inside") from None
        try:
            last = int(os.pread(self._file, 32, 0) or b"0")
            if token is not None:
                assert last < token, f"token {token} came after {last}"
                os.pwrite(self._file, b"%031d" % token, 0)
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


def _take_turns(worker: Worker) -> None:
    lock = worker.store.lock("turn")
    witness = Witness(worker.path + "-witness")
    while worker.going_on():
        with WAYS[worker.way](lock), witness.alone(lock.token):
            worker.journal.note("turns", 0)
            worker.ready()


def run(stage: Stage) -> None:
    with Crew(stage) as crew:
        crew.start(_take_turns, stage.processes)
        crew.assemble()
        while not stage.enough(crew.killed):
            crew.kill_one()
    with stage.open() as store:
        stage.expect(store.lock("turn").acquire(timeout=PATIENCE), "the lock is left taken")
        stage.figures["turns"] = len(acknowledged(stage.folder)["turns"])
    stage.expect_sound_file()

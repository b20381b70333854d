"""A fork in the middle of a call, from which the child returns into it: the call is its parent's.

A handler that forks, as a program may become a daemon on a signal, has the child come back to what
it interrupted. Had the child what the call had by then, it would write on a connection of its
parent's, whose locks it does not hold; or end up with a grant that the parent has too.
"""

import fcntl
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import kvsync
from tests.interrupted import handling_within
from tests.processes import in_child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

FOLDER = Path(kvsync.__file__).parent
FILES = [str(path) for path in FOLDER.rglob("*.py") if "cli" not in path.parts]
GOES_FIRST = pytest.mark.parametrize("first", ["parent", "child"])


class Forks:
    """Calls in whose middle this process forks; the other one goes on when the first has ended."""

    def __init__(self, first: str) -> None:
        self._first = first
        self._calls = self._is_child = False
        self._child = -1
        self._pipes: list[tuple[int, int]] = []
        self.answers: list[str] = []

    def handler(self) -> None:
        """Fork; both return, and go on with the call. Outside of one nothing is done."""
        if not self._calls:
            return
        go, answer = os.pipe(), os.pipe()
        self._child = os.fork()
        self._is_child = self._child == 0
        self._pipes = [go, answer]
        if self._is_child:
            os.close(go[1])
            if self._first == "parent":
                os.read(go[0], 1)  # until it is closed
        elif self._first == "child":
            self._reap()

    def through(self, call: Callable[[], object]) -> None:
        """Make the call, and note how a child that goes on with it fared."""
        try:
            self._calls = True
            answer = f"returned {call()}"
        except BaseException as error:
            if not self._is_child:
                raise
            answer = f"{type(error).__name__}: {error}"
        finally:
            self._calls = False
            if self._is_child:
                os.write(self._pipes[1][1], answer.encode())
                os._exit(0)

    def _reap(self) -> None:
        (stay, go), (answer, answering) = self._pipes
        for descriptor in (stay, go, answering):
            os.close(descriptor)
        with os.fdopen(answer) as pipe:
            self.answers.append(pipe.read())
        os.waitpid(self._child, 0)
        self._child = -1

    def end(self) -> None:
        """The parent has done what it does first."""
        if self._child > 0:
            self._reap()


def answers_of(
    first: str, call: Callable[[], object], after: Callable[[], object] = bool
) -> Iterator[tuple[str, list[str]]]:
    """Fork in the call, one place later each time; `after` is what the parent does once it is over.

    Yields each place, and what the child said at it.
    """
    forks = Forks(first)
    for place in handling_within(FILES, lambda: forks.through(call), forks.handler):
        after()
        forks.end()
        yield place, forks.answers
        forks.answers = []


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Raises: BlockingIOError if another process is in here too, as the kernel sees it."""
    witness = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(witness)


def is_sound(store: kvsync.Store) -> bool:
    return not store.check().damage


@GOES_FIRST
@pytest.mark.parametrize("what", ["statement", "block"])
def test_a_child_writes_for_itself_or_not_at_all(
    store: kvsync.Store, what: str, first: str
) -> None:
    hits, table = store.counter("hits"), store.dict("table")

    def block() -> None:
        with store.transaction():
            hits.add()
            table["last"] = 1

    call: Callable[[], object] = hits.add if what == "statement" else block
    call()
    call()
    done = 2
    for place, answers in answers_of(first, call, call):
        done += 2
        for answer in answers:
            assert answer.startswith(("returned", "ForkError")), (place, answer)
        returned = sum(answer.startswith("returned") for answer in answers)
        found = hits.value
        assert done <= found <= done + returned, (place, answers)
        done = found
    assert hits.value == done + 1  # the last one met no place any more
    assert is_sound(store)


@pytest.mark.parametrize(
    ("kind", "first"),
    [("lock", "parent"), ("lock", "child"), ("rlock", "parent"), ("semaphore", "parent")],
)
def test_a_child_has_what_it_acquires_for_itself_or_not_at_all(
    store: kvsync.Store, tmp_path: Path, kind: str, first: str
) -> None:
    primitive: Any = {
        "lock": lambda: store.lock("job"),
        "rlock": lambda: store.rlock("job"),
        "semaphore": lambda: store.semaphore("job", 2),
    }[kind]()
    parent = os.getpid()

    def pair() -> str:
        if not primitive.acquire(blocking=False):
            return "not free"
        had = os.getpid()
        with alone(tmp_path / "witness"):
            primitive.ensure_held()
        primitive.release()
        return "has had it" if had != parent else "parent"

    assert pair() == "parent"
    for place, answers in answers_of(first, pair):
        for answer in answers:
            # What was acquired before the fork is the parent's, as ever.
            assert answer.startswith(("returned", "ForkError", "NotOwned", "OverRelease")), place
        assert not store.stats().lines, (place, answers)
    assert pair() == "parent"
    assert is_sound(store)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="collects no garbage within a call into C")
@GOES_FIRST
def test_a_child_that_a_finalizer_forks_within_a_statement_breaks_it_off(
    store: kvsync.Store, first: str
) -> None:
    """Where garbage is collected at any allocation, that may be in the middle of the C call."""
    hits = store.counter("hits")
    forks = Forks(first)

    class Garbage:
        def __init__(self) -> None:
            self.myself = self

        def __del__(self) -> None:
            if os.getpid() == parent:
                forks.handler()

    parent, done = os.getpid(), 0
    gc.collect()
    thresholds = gc.get_threshold()
    try:
        for point in range(1, 200):
            gc.collect()
            forks.end()
            Garbage()
            gc.set_threshold(gc.get_count()[0] + point, *thresholds[1:])
            try:
                forks.through(hits.add)
            finally:
                gc.set_threshold(0)
            hits.add()
            forks.end()
            done += 2
            for answer in forks.answers:
                assert answer.startswith(("returned", "ForkError")), (point, answer)
            assert done <= hits.value <= done + len(forks.answers), (point, forks.answers)
            done, forks.answers = hits.value, []
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()
        forks.end()
    assert is_sound(store)


@pytest.mark.parametrize("begun", [False, True])
def test_what_the_child_has_in_hand_of_a_connection_is_good_for_nothing(
    store: kvsync.Store, begun: bool
) -> None:
    """A handler may run when a statement is about to be given to SQLite, and an allocator, on
    CPython 3.11, collect garbage while SQLite waits to go on with it.
    """
    store.counter("hits").add()
    with store.transaction():
        cursor = store.engine._pool.place().transaction._link.connection.cursor()
        go_on = partial(cursor.execute, "delete from kvsync_counter returning 1")
        if begun:
            go_on = go_on().fetchall
        answer = in_child(go_on)
        cursor.close()
    assert answer.split(":")[0] in ("OperationalError", "DatabaseError"), answer
    assert "interrupted" in answer or "not authorized" in answer, answer

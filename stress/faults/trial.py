"""One fault in one call: what its process was told, against what others find afterwards.

- It ends in time, and what it raises is kvsync's own; a fault of the disk is told as one.
- The file is sound, and in WAL mode.
- What was acknowledged is there. What was not is there as a whole or not at all.
- Every other call works at once, in other processes and, once the fault has passed, in the same
  one. What is held is free once its holder is dead, and at once if it never was acknowledged.
"""

import json
import os
import selectors
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from typing import Any

import kvsync
from stress import programs
from stress.faults.call import Call
from stress.faults.calls import WAYS
from stress.faults.strace import KILLED
from stress.faults.usable import expect_free, put_back, use
from stress.faults.victim import Order, Word

PATIENCE = 60.0
"""Seconds after which a faulted call is taken to hang."""


class Ended(Exception):
    """The process that was to answer is no more; with its exit status."""


class Victim:
    """The program of victim.py, in a process group of its own."""

    def __init__(self) -> None:
        self.child = 0
        """The process id of the last child that ended."""
        self._process = subprocess.Popen(
            programs.command("stress.faults.victim"),
            env=programs.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def order(self, order: Order) -> None:
        self._write(json.dumps(asdict(order)))

    def word(self) -> Word:
        """What the call came to. Raises: Ended, TimeoutError."""
        said = self._read()
        if "ended" in said:
            raise Ended(said["ended"])
        return Word(**said)

    def go_on(self) -> None:
        self._write("")

    def end(self) -> int:
        """How the child ended. Raises: TimeoutError."""
        status: int = self._read()["ended"]
        return status

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(PATIENCE):
                raise TimeoutError(f"no answer within {PATIENCE:g} s")
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        self.child = said.pop("pid", self.child)
        return said

    def __enter__(self) -> "Victim":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with self._process:
            pass


class Stores:
    """Stores as calls are to find them: each made once, then copied."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._made: set[str] = set()
        self._copies = 0

    @contextmanager
    def copy_for(self, name: str, call: Call) -> Iterator[str]:
        """The path of a fresh copy, which is removed on leaving."""
        original = os.path.join(self._folder, "originals", name)
        if name not in self._made:
            self._made.add(name)
            os.makedirs(original)
            _make(os.path.join(original, "store.db"), name, call)
        self._copies += 1
        copy = os.path.join(self._folder, f"copy-{os.getpid()}-{self._copies}")
        shutil.copytree(original, copy, ignore=shutil.ignore_patterns("doorbells"))
        try:
            yield os.path.join(copy, "store.db")
        finally:
            shutil.rmtree(copy)


def _make(path: str, name: str, call: Call) -> None:
    if name.startswith("open"):
        return
    with kvsync.open(path) as store:
        use(store, "before")
        call.prepare(store)


class Trial:
    """One call of one kind, again and again, each time on a copy of the same store."""

    def __init__(self, stores: Stores, name: str, way: str) -> None:
        self.name = name
        self._stores = stores
        self._way = way
        self._call = WAYS[way][name]

    def rehearse(self, victim: Victim) -> tuple[object, object]:
        """What is seen before and after the call, without a fault. Raises: AssertionError."""
        with self._stores.copy_for(self.name, self._call) as path:
            before = self._seen(path)
            victim.order(Order(path, self.name, self._way))
            word = victim.word()
            assert not word.error, word.text
            after = self._seen(path)
            self._finish(victim, path, word, passes=True)
        return before, after

    def run(
        self,
        victim: Victim,
        expected: tuple[object, object],
        *,
        passes: bool,
        lift: Callable[[], object] = lambda: None,
        **limits: Any,
    ) -> str:
        """Under a fault; returns "ok", or what was raised, or "killed". Raises: AssertionError.

        Args:
            expected: what `rehearse` returned.
            passes: whether the fault passes, so that the same process can go on.
            lift: what makes it pass, if it does not do so of itself.
            limits: more for the Order.
        """
        with self._stores.copy_for(self.name, self._call) as path, ExitStack() as stack:
            if self._call.beside:
                _stay_beside(stack, path)
            victim.order(Order(path, self.name, self._way, **limits))
            try:
                word = victim.word()
            except Ended as ended:
                _expect_killed(ended.args[0])
                self._expect_after_death(path, expected)
                return KILLED
            self._expect_word(word)
            self._expect_in_life(path, word, expected, passes=passes)
            if passes:
                lift()
            self._finish(victim, path, word, passes=passes)
            return word.error or "ok"

    def _seen(self, path: str) -> object:
        with kvsync.open(path) as store:
            return self._call.seen(store)

    def _expect_word(self, word: Word) -> None:
        assert not word.error or (word.typed and word.of_storage), f"it raised {word.text}"

    def _expect_in_life(
        self, path: str, word: Word, expected: tuple[object, object], *, passes: bool
    ) -> None:
        seen = self._seen(path)
        before, after = expected
        if not word.error:
            assert seen == after, f"acknowledged, and then {seen} instead of {after}"
        elif not self._call.holds:
            assert seen in expected, f"neither {before} nor {after}, but {seen}, after {word.text}"
        elif passes and self._call.clean:
            assert seen == before, f"{seen} instead of {before} is left by {word.text}"
        if word.error:
            with kvsync.open(path) as store:
                use(store, "another")

    def _finish(self, victim: Victim, path: str, word: Word, *, passes: bool) -> None:
        victim.go_on()
        if word.error:
            _expect_fit(victim.word(), victim.word(), passes=passes)
        status = victim.end()
        assert status == 0, f"its process ended with status {status}"
        self._expect_sound(path)

    def _expect_after_death(self, path: str, expected: tuple[object, object]) -> None:
        if not self._call.holds:
            seen = self._seen(path)
            assert seen in expected, f"neither {expected[0]} nor {expected[1]}, but {seen}"
        self._expect_sound(path)

    def _expect_sound(self, path: str) -> None:
        with kvsync.open(path) as store:
            damage = store.check().damage
            assert not damage, f"integrity_check: {damage}"
            mode = store.stats().journal_mode
            assert mode == "wal", f"it is in mode {mode} for good"
            items = put_back(store.queue("it"))
            assert items >= self._call.keeps, f"{items} items are left of {self._call.keeps}"
            expect_free(store, "it")
            use(store, "other")


def _stay_beside(stack: ExitStack, path: str) -> None:
    store = stack.enter_context(kvsync.open(path))
    store.counter("beside").add()


def _expect_fit(again: Word, others: Word, *, passes: bool) -> None:
    for each in (again, others):
        assert each.typed, f"afterwards it raised {each.text}"
    if passes:
        assert not again.of_storage, f"the second time too: {again.text}"
        assert not others.error, f"afterwards it cannot go on: {others.text}"


def _expect_killed(status: int) -> None:
    fatal = (-signal.SIGKILL, -signal.SIGXFSZ)
    assert status in fatal, f"its process ended with status {status} before it said a word"


def failure(error: Exception) -> str:
    """What a trial raised, short if it is a verdict."""
    import traceback

    return str(error) if isinstance(error, AssertionError) else traceback.format_exc()

"""The processes of the demo, from outside: started, counted, killed and always reaped."""

import contextlib
import multiprocessing
import os
import random
import selectors
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType

import kvsync
from kvsync.cli.demo.acts import Act, guarded
from kvsync.cli.demo.worker import INSIDE, READY, Share, work

PATIENCE = 60.0
"""Seconds without any acknowledgement after which the demo has failed."""

_TICK = 0.05
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Size:
    """How much is to be done: by `processes`, for `seconds` or in so many `operations`."""

    processes: int
    seconds: float
    operations: int | None
    seed: int

    def victims(self, count: int) -> list[int]:
        """The numbers of the processes that are going to be killed."""
        everybody = range(1, self.processes + 1)
        return random.Random(f"{self.seed} victims").sample(everybody, count)

    def share(self, part: float = 1.0, dies_in: int | None = None) -> Share:
        """What one process does, or that part of it."""
        if self.operations is None:
            return Share(self.seconds * part, dies_in=dies_in)
        operations = -(-self.operations // self.processes)
        return Share(operations=int(operations * part), dies_in=dies_in)


@dataclass
class Member:
    """One process, and what it acknowledged: how often it did which operation.

    `dies_in` is the thing in which it is to be killed, `holds` what it is to hold there, and
    `inside` whether it held that.
    """

    number: int
    process: SpawnProcess
    pipe: Connection
    dies_in: str | None = None
    holds: str = "it"
    inside: bool = False
    state: str = "starting"
    done: Counter[int] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.done.total()

    @property
    def held(self) -> str:
        """ "the lock"."""
        return f"{'' if self.holds == 'it' else f'{self.holds} of '}the {self.dies_in}"

    def hear(self) -> bool:
        """Count what it wrote; returns whether more can come."""
        said = os.read(self.pipe.fileno(), _CHUNK)
        self.done.update(said)
        if self.done.pop(READY, 0):
            self.state = "ready"
        if self.done.pop(INSIDE, 0):
            self.inside = True
        if not said and self.state != "killed":
            self.state = "ended"
        return bool(said)


class Crew:
    """All processes. Entering starts them, leaving ends and reaps each, whatever happened."""

    def __init__(self, store: kvsync.Store, acts: Sequence[Act], size: Size) -> None:
        self.members: list[Member] = []
        self.size = size
        self.began = self.ended = 0.0
        self._store, self._acts = store, acts
        self._guarded = guarded(acts)
        self._victims = size.victims(1 + len(self._guarded))
        self._context = multiprocessing.get_context("spawn")
        self._start, self._hold = self._context.Pipe(duplex=False)
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> "Crew":
        resource_tracker.ensure_running()  # which would unblock SIGINT if it were started below
        try:
            # A Ctrl-C of the terminal goes to all: the children are to leave it to the parent, and
            # the parent is to get it when it knows them all.
            with _without_interrupts():
                for number in range(1, self.size.processes + 1):
                    self._add(number)
        except BaseException:
            self._end()
            raise
        return self

    def _add(self, number: int) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        codes = (self.size.seed, number)
        share = self._share(number)
        process = self._context.Process(
            target=work, args=(self._store, self._acts, codes, share, self._start, theirs)
        )
        member = Member(number, process, ours)
        if share.dies_in is not None:
            act = self._guarded[share.dies_in]
            member.dies_in, member.holds = act.things[0], act.holds
        self.members.append(member)
        process.start()
        theirs.close()  # so that the pipe ends with its process
        self._selector.register(ours, selectors.EVENT_READ, member)

    def _share(self, number: int) -> Share:
        if number not in self._victims:
            return self.size.share()
        place = self._victims.index(number)
        if place == 0:
            return Share()  # until it is killed, so that it never comes to an end before
        return self.size.share(place / len(self._victims), dies_in=place - 1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        with _without_interrupts():
            for member in self.members:
                if member.process.pid is not None:
                    member.process.kill()
                    member.process.join()
                member.pipe.close()
            self._selector.close()
            self._start.close()
            self._hold.close()

    def gather(self) -> Iterator[None]:
        """Until all are ready to start; yields now and then. Raises: TimeoutError."""
        return self._hear_while(lambda: any(m.state == "starting" for m in self.members))

    def work(self) -> Iterator[None]:
        """Let them start, until all have ended; yields now and then. Raises: TimeoutError."""
        for member in self.members:
            member.state = "running" if member.state == "ready" else member.state
        self.began = time.monotonic()
        self._hold.close()
        yield from self._hear_while(lambda: bool(self._selector.get_map()))
        for member in self.members:
            member.process.join()

    def _hear_while(self, going_on: Callable[[], bool]) -> Iterator[None]:
        heard = time.monotonic()
        while going_on():
            for key, _ in self._selector.select(_TICK):
                heard = self.ended = time.monotonic()
                if not key.data.hear():
                    self._selector.unregister(key.fileobj)
            if time.monotonic() - heard > PATIENCE:
                raise TimeoutError(f"no process has done anything for {PATIENCE:.0f} seconds")
            yield

    @property
    def victim(self) -> Member:
        """Who is killed wherever it is."""
        return self.members[self._victims[0] - 1]

    @property
    def holders(self) -> list[Member]:
        """Those who are killed while they hold something, in the order of the acts."""
        return [self.members[number - 1] for number in self._victims[1:]]

    def due(self) -> list[Member]:
        """Those whose time has come."""
        found = [self.victim] if self.progress >= 0.5 else []
        found += [member for member in self.holders if member.inside]
        return [member for member in found if member.state == "running"]

    def kill(self, member: Member) -> None:
        """SIGKILL: it has no chance to finish anything."""
        member.process.kill()
        member.state = "killed"

    @property
    def total(self) -> int:
        """Operations that were acknowledged."""
        return sum(member.total for member in self.members)

    @property
    def elapsed(self) -> float:
        """Seconds from the start to the last sign of any process."""
        return self.ended - self.began

    @property
    def progress(self) -> float:
        """How much is done, from 0 to 1."""
        size = self.size
        if size.operations is not None:
            return min(1.0, self.total / size.operations)
        return min(1.0, (time.monotonic() - self.began) / size.seconds)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C waits until the end of the block. Children started inside never hear it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""The processes of a scenario: spawned, killed at random, stopped, and always reaped."""

import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from types import TracebackType
from typing import Any

import kvsync
from stress.journal import Journal
from stress.stage import Stage
from stress.windows import Scribe, Windows

PATIENCE = 120.0
"""Seconds after which a process is taken to hang."""

_LONGEST_LIFE = 0.03
_KILLED_UNREADY = 0.1

_context = multiprocessing.get_context("spawn")

new_barrier = _context.Barrier


@dataclass(frozen=True)
class Orders:
    """What a worker is told; it travels to the new process."""

    path: str
    folder: str
    number: int
    seed: str
    way: str
    master: int
    windows: Windows


class Worker:
    """What a job is given, in its own process."""

    def __init__(self, orders: Orders, pipe: Any, store: kvsync.Store, journal: Journal) -> None:
        self.path, self.way = orders.path, orders.way
        self.number = orders.number
        self.pipe = pipe
        self.store = store
        self.journal = journal
        self.chance = random.Random(orders.seed)
        self.window = Scribe(orders.windows, orders.number).window
        self._orders = orders
        self._is_ready = False

    def going_on(self) -> bool:
        """Whether to do another round: nobody has said to stop, and the master lives."""
        return os.getppid() == self._orders.master and not os.path.exists(
            _stop(self._orders.folder)
        )

    def ready(self) -> None:
        """Tell the master, once, that work has begun."""
        if not self._is_ready:
            self._is_ready = True
            self.pipe.send(None)

    def explain(self) -> None:
        """Leave the exception that is being handled for the master to read."""
        _explain(self._orders)


Job = Callable[..., None]


def _perform(job: Job, orders: Orders, pipe: Any, more: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the master ends us
    try:
        journal = Journal(orders.folder, orders.number)
        with journal, kvsync.open(orders.path) as store:
            job(Worker(orders, pipe, store, journal), *more)
    except BaseException:
        _explain(orders)
        sys.exit(1)


def _explain(orders: Orders) -> None:
    with open(_failure(orders), "a") as file:
        file.write(traceback.format_exc())


def _stop(folder: str) -> str:
    return os.path.join(folder, "stop")


def _failure(orders: Orders) -> str:
    return os.path.join(orders.folder, f"failure-{orders.number}")


class Member:
    """A worker as the master sees it."""

    def __init__(self, job: Job, orders: Orders, more: tuple[Any, ...]) -> None:
        self.job = job
        self.more = more
        self.killed = self._working = False
        self._failure = _failure(orders)
        self.pipe, theirs = _context.Pipe()
        self.process = _context.Process(target=_perform, args=(job, orders, theirs, more))
        self.process.start()
        theirs.close()

    def works(self) -> bool:
        """Wait until it says that its work has begun; False if it ends or hangs instead."""
        with suppress(EOFError):
            if not self._working and self.pipe.poll(PATIENCE):
                self._working = self.pipe.recv() is None
        return self._working

    def kill(self) -> None:
        self.killed = True
        self.process.kill()

    def join(self) -> str | None:
        """Reap it, by force after a while; what was wrong, or None."""
        self.process.join(PATIENCE)
        hung = self.process.is_alive()
        if hung:
            self.process.kill()
            self.process.join()
        self.pipe.close()
        return "it hung" if hung else self._complaint()

    def _complaint(self) -> str | None:
        if os.path.exists(self._failure):
            return Path(self._failure).read_text().strip()
        status = self.process.exitcode
        expected = status == 0 or (self.killed and status == -signal.SIGKILL)
        return None if expected else f"exit status {status}"


class Broken(Exception):
    """A violation, already noted, after which the crew cannot go on."""


class Crew:
    """All workers of a stage; leaving the block stops them, and notes what was wrong with them."""

    def __init__(self, stage: Stage) -> None:
        self.killed = 0
        self.members: list[Member] = []
        self._stage = stage
        self._hired = 0

    def start(self, job: Job, how_many: int = 1, *more: Any) -> list[Member]:
        """Spawn processes that run `job(worker, *more)`."""
        new = [Member(job, self._orders(), more) for _ in range(how_many)]
        self.members += new
        return new

    def assemble(self) -> None:
        """Return when all work, and begin the stage."""
        for member in self.members:
            member.works()
        self._stage.begin()

    def _orders(self) -> Orders:
        stage = self._stage
        self._hired += 1
        seed = f"{stage.seed}/{self._hired}"
        return Orders(
            stage.path, stage.folder, self._hired, seed, stage.way, os.getpid(), stage.windows
        )

    def be_killed(self) -> None:
        """Once all work, kill one after the other until the stage has enough."""
        self.assemble()
        while not self._stage.enough(self.killed):
            self.kill_one()

    def kill_one(self) -> None:
        """SIGKILL a member at a random instant, now and then while it starts, and replace it."""
        chance = self._stage.chance
        victim = chance.choice(self.members)
        if chance.random() >= _KILLED_UNREADY and victim.works():
            time.sleep(chance.uniform(0, _LONGEST_LIFE))
        self.replace(victim)

    def replace(self, victim: Member) -> Member:
        """SIGKILL a member, reap it, and start another in its place; returns that one."""
        victim.kill()
        self.killed += 1
        self._dismiss(victim)
        (new,) = self.start(victim.job, 1, *victim.more)
        return new

    def until(self, holds: Callable[[], object]) -> None:
        """Return once it holds. Raises: Broken if it never does, or if a member ends meanwhile."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            self.watch(0.001)
            late = time.monotonic() > deadline
            self._stage.expect(not late, "what was waited for never came")
            if self._stage.violations:
                raise Broken

    def watch(self, seconds: float) -> None:
        """Pass that time, or less if a member ends, which it should not do of itself."""
        found = connection.wait([member.process.sentinel for member in self.members], seconds)
        for member in [each for each in self.members if each.process.sentinel in found]:
            self._dismiss(member)
            self._stage.expect(False, f"{member.process.name} has ended before its time")

    def receive(self, member: Member) -> Any:
        """Its next message. Raises: Broken, which ends the crew's block, if it ended or hangs."""
        try:
            if member.pipe.poll(PATIENCE):
                return member.pipe.recv()
        except EOFError:
            self._dismiss(member)
        self._stage.expect(False, f"{member.process.name} answers no more")
        raise Broken

    def _dismiss(self, member: Member) -> None:
        self.members.remove(member)
        complaint = member.join()
        self._stage.expect(complaint is None, f"{member.process.name}: {complaint}")

    def tell_to_stop(self) -> None:
        """From now on `going_on` says no."""
        Path(_stop(self._stage.folder)).touch()

    def stop(self) -> None:
        """Let all finish what they do."""
        self.tell_to_stop()
        for member in list(self.members):
            self._dismiss(member)

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        try:
            if error is None:
                self.stop()
        finally:
            self._end()
        return isinstance(error, Broken)

    def _end(self) -> None:
        for member in self.members:
            member.kill()
        for member in self.members:
            member.join()

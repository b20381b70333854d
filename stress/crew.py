"""The processes of a scenario: spawned, struck by what the run does to them, always reaped."""

import logging
import multiprocessing
import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection, resource_tracker
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

import kvsync
from stress import leaks, mutants, nemeses
from stress.history import Recording, now, of_thread
from stress.journal import Journal
from stress.nemeses import Nemesis, fork
from stress.nemeses.stop import Pause
from stress.record import Books, Fault
from stress.stage import Stage
from stress.tally import Column, Tally
from stress.windows import Scribe, Windows

PATIENCE = float(os.environ.get("KVSYNC_STRESS_PATIENCE", "120"))
"""Seconds after which a process is taken to hang."""

_spawning = multiprocessing.get_context("spawn")
_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["stress.scenarios"])
"""Who takes a killed one's place is forked from a process that has done nothing but import: most of
the time that a new interpreter takes is that of its imports, and kills would wait for it."""

_LONGEST_FOLDER = 60
"""Characters of the temporary folder's path: the process that forks has a socket below it, whose
path may have about a hundred."""

new_barrier = _spawning.Barrier


@dataclass(frozen=True)
class Orders:
    """What a worker is told; it travels to the new process."""

    path: str
    folder: str
    number: int
    seed: str
    way: str
    windows: Windows
    forks: bool


class Worker:
    """What a job is given, in its own process."""

    def __init__(self, orders: Orders, pipe: Any, store: kvsync.Store, journal: Journal) -> None:
        self.path, self.way = orders.path, orders.way
        self.number = orders.number
        self.pipe = pipe
        self.store = store
        self.journal = journal
        self.chance = random.Random(orders.seed)
        self._orders = orders
        self._master = _sentinel_of_master()
        self.window = self.window_of(0)
        self._is_ready = False
        self._tally = Tally(orders.folder)

    def window_of(self, thread: int) -> Callable[[], tuple[str, Recording]]:
        """The `window` of one of its threads, where these are to be told apart."""
        return Scribe(self._orders.windows, of_thread(self.number, thread)).window

    def going_on(self) -> bool:
        """Whether to do another round: nobody has said to stop, and the master lives."""
        master = select.poll()  # a new one: several threads may ask at once
        master.register(self._master, select.POLLIN)
        return not master.poll(0) and not os.path.exists(_stop(self._orders.folder))

    def ready(self) -> None:
        """Work has begun, says the first of these; each other one, that an operation was done."""
        if self._is_ready:
            self._tally.add(self.number, Column.OPERATIONS)
        else:
            self._is_ready = True
            self.pipe.send(None)

    def in_doubt(self) -> AbstractContextManager[None]:
        """For a call, and the note of what came of it."""
        return self._tally.during(self.number, Column.IN_DOUBT)

    def holding(self, units: int = 1) -> AbstractContextManager[None]:
        """From when it certainly has them until it begins to give them back."""
        return self._tally.during(self.number, Column.IN_HAND, units)

    def may_fork(self) -> None:
        """From now on the master may have this process fork."""
        forked = partial(self._tally.add, self.number, Column.FORKS)
        fork.obey(self._orders.seed, self.store, forked, self.explain)

    def explain(self) -> None:
        """Leave the exception that is being handled for the master to read."""
        _explain(self._orders)


def _sentinel_of_master() -> int:
    """A descriptor that is readable when the master is no more, whoever forked us."""
    master = multiprocessing.parent_process()
    assert master is not None
    sentinel: int = master.sentinel
    return sentinel


Job = Callable[..., None]


def _perform(job: Job, orders: Orders, pipe: Any, more: tuple[Any, ...]) -> None:
    logging.getLogger("kvsync").addHandler(logging.NullHandler())  # of disks that we filled
    try:
        mutants.break_if_told()
        journal = Journal(orders.folder, orders.number)
        with journal, kvsync.open(orders.path) as store:
            worker = Worker(orders, pipe, store, journal)
            if orders.forks:
                worker.may_fork()
            job(worker, *more)
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


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Processes that are started here never hear of Ctrl-C: the master ends them."""
    resource_tracker.ensure_running()  # it unblocks signals when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Member:
    """A worker as the master sees it."""

    def __init__(self, job: Job, orders: Orders, more: tuple[Any, ...], context: Any) -> None:
        self.job = job
        self.more = more
        self.number = orders.number
        self.killed = self.hung = self._working = False
        self.may_end = False
        """Whether it may come to its end: it was told to, or is to when it has done its work."""
        self._failure = _failure(orders)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_perform, args=(job, orders, theirs, more))
        with _no_interrupts():
            self.process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        pid: int = self.process.pid
        return pid

    def works(self) -> bool:
        """Wait until it says that its work has begun; False if it ends or hangs instead."""
        with suppress(EOFError):
            if not self._working and not self.hung:
                self.hung = not self.pipe.poll(PATIENCE)
                self._working = not self.hung and self.pipe.recv() is None
        return self._working

    def has_begun(self) -> bool:
        """Whether its work has, or it has ended, or hangs: `works` would say so at once."""
        return self._working or self.hung or self.pipe.poll()

    def kill(self) -> None:
        self.killed = True
        self.process.kill()

    def was_killed(self) -> bool:
        """Whether it died of that, now that it is reaped; it may have ended before."""
        return self.killed and self.process.exitcode == -signal.SIGKILL

    def dismiss(self, word: Any) -> None:
        """Tell it to end, in the language of its job."""
        self.may_end = True
        self.pipe.send(word)

    def join(self) -> str | None:
        """Reap it, by force after a while; what was wrong, or None."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.hung = True
            self.process.kill()
            self.process.join()
        self.pipe.close()
        return "it hung" if self.hung else self._complaint()

    def _complaint(self) -> str | None:
        if os.path.exists(self._failure):
            return Path(self._failure).read_text().strip()
        status = self.process.exitcode
        if self.was_killed() or (status == 0 and self.may_end):
            return None
        return f"exit status {status}" if status else "it ended of itself, before its time"


@dataclass(frozen=True)
class _Succession:
    """Who was killed, what was wrong with it, and who works in its place."""

    victim: Member
    complaint: str | None
    new: Member


def _succeed(victim: Member, orders: Orders) -> _Succession:
    complaint = victim.join()
    forks = len(tempfile.gettempdir()) <= _LONGEST_FOLDER
    context = _forking if forks else _spawning
    new = Member(victim.job, orders, victim.more, context)
    new.may_end = victim.may_end
    return _Succession(victim, complaint, new)


class Broken(Exception):
    """A violation, already noted, after which the crew cannot go on."""


class Crew:
    """All workers of a stage; leaving the block stops them, and notes what was wrong with them.

    A thread reaps who was killed and starts another in its place, so who strikes does not wait for
    it. The new one is a member as soon as it is met. Until all are met, nobody else may reap or
    start: of two threads that ask `multiprocessing` for the same exit status one gets none.
    """

    def __init__(self, stage: Stage) -> None:
        self.killed_at: Counter[Job] = Counter()
        """How many were killed, by their job."""
        self.members: list[Member] = []
        self.chance = stage.chance
        self.tally = Tally(stage.folder)
        self._stage = stage
        self._hired = 0
        self._done_by_the_gone = 0
        self._spared: Member | None = None
        self._kills: dict[Member, Fault] = {}
        """Of those that are not reaped yet: until then nobody knows whether it was the kill."""
        self._pause: Pause | None = None
        self._successions: deque[Future[_Succession]] = deque()
        self._starter = ThreadPoolExecutor(1)
        self._nemeses: list[Nemesis] = [
            nemesis for name, nemesis in nemeses.STRIKERS.items() if name in stage.nemeses
        ]
        self._leaks = leaks.Watch(stage.path + "-wal")
        stage.attend(self)

    @property
    def killed(self) -> int:
        return self.killed_at.total()

    def start(self, job: Job, how_many: int = 1, *more: Any, may_end: bool = False) -> list[Member]:
        """Spawn processes that run `job(worker, *more)`; `may_end` says that they need not be told
        to stop, as others must.
        """
        return [self._start(job, more, may_end) for _ in range(how_many)]

    def _start(self, job: Job, more: tuple[Any, ...], may_end: bool) -> Member:
        member = Member(job, self._orders(), more, _spawning)
        member.may_end = may_end
        self.members.append(member)
        return member

    def assemble(self) -> None:
        """Return when all work, and begin the stage.

        From now on one of them, if there are others, lives to the end, so that it shows leaks.
        """
        self._wait_for_work()
        self._spared = self.members[-1] if len(self.members) > 1 else None
        self._stage.begin()

    def _wait_for_work(self) -> None:
        for member in self.members:
            if not member.works() and member.hung:
                break  # so may all others, and each of them takes its time

    def _orders(self) -> Orders:
        stage = self._stage
        self._hired += 1
        seed = f"{stage.seed}/{self._hired}"
        forks = any(isinstance(each, fork.Fork) for each in self._nemeses)
        where = stage.path, stage.folder
        return Orders(*where, self._hired, seed, stage.way, stage.windows, forks)

    def look(self) -> None:
        """At what the longest-lived member needs."""
        if self.members:
            self._leaks.look((self._spared or self.members[0]).pid)

    def operations(self) -> int:
        """How many the workers say are done, those included that are gone."""
        return self._done_by_the_gone + sum(map(self._operations_of, self.members))

    @property
    def unknown(self) -> int:
        """Once all are gone: calls of which nobody heard what became, for their callers died."""
        return self._left(Column.IN_DOUBT)

    def books(self) -> Books:
        """Once all are gone, and what they had was seen to be free again."""
        recovered = None if self._stage.violations else self._left(Column.IN_HAND)
        return Books(recovered=recovered, unknown=self.unknown)

    def _left(self, column: Column) -> int:
        """What nobody but the dead can have left there."""
        return sum(self.tally.read(number, column) for number in range(1, self._hired + 1))

    def _operations_of(self, member: Member) -> int:
        return self.tally.read(member.number, Column.OPERATIONS)

    @property
    def mortals(self) -> list[Member]:
        """Those that may be killed."""
        return [member for member in self.members if member is not self._spared]

    def awake(self) -> list[Member]:
        """Those that are not stopped; if there are no others, once it goes on."""
        if self._pause and len(self.members) == 1:
            self._pause.wait()
            self._note_pause()
        return [each for each in self.members if not self._pause or not self._pause.concerns(each)]

    def at_work(self, members: list[Member]) -> list[Member]:
        """Those of them whose work has begun; if there are none, the one that was waited for."""
        begun = [member for member in members if member.has_begun()]
        if not begun:
            begun = [self.chance.choice(members)]
            begun[0].works()
        return begun

    def be_struck(self) -> None:
        """Once all work, strike again and again, at least once, until the stage has enough."""
        self.assemble()
        self.strike()
        while not self._stage.enough(self.killed):
            self.strike()

    def recover(self) -> None:
        """Return when nobody is stopped, and all work who came in the places of the dead."""
        self._end_pause()
        self._meet_all_successors()
        self._wait_for_work()

    def strike(self) -> None:
        """Do one of the things that the run does to processes, to one or a few of them."""
        self._meet_successors()
        self._note_pause()
        weights = [nemesis.WEIGHT for nemesis in self._nemeses]
        (nemesis,) = self.chance.choices(self._nemeses, weights)
        nemesis.strike(self)

    def note(self, fault: Fault) -> None:
        """It has been done."""
        self._stage.struck(fault)

    def has_pause(self) -> bool:
        """Whether one of them is stopped."""
        return self._pause is not None

    def pause(self, victim: Member, seconds: float) -> None:
        """Stop a member, one at a time, for so long or until the crew is told to stop.

        Nobody waits for it to go on, and it is noted as soon as it does.
        """
        self._pause = Pause(victim, seconds)

    def _note_pause(self) -> None:
        """If it is over."""
        if self._pause and self._pause.is_over():
            if fault := self._pause.fault:
                self.note(fault)
            self._pause = None

    def _end_pause(self) -> None:
        if self._pause:
            self._pause.end()
            self._note_pause()

    def kill(self, victim: Member) -> None:
        """SIGKILL a member, once; it counts, unless it proves to have ended before."""
        if not victim.killed:
            victim.kill()
            self._kills[victim] = Fault("kill", victim.number, now())
            self.note(self._kills[victim])
            self.killed_at[victim.job] += 1
            if self._pause and self._pause.concerns(victim):
                self._end_pause()

    def replace(self, victim: Member) -> Member:
        """SIGKILL a member, reap it, and start another in its place; returns that one."""
        self.replace_soon([victim])
        self._meet_all_successors()
        return self.members[-1]

    def replace_soon(self, victims: list[Member]) -> None:
        """SIGKILL members; others come in their places, and are met before a later strike."""
        for victim in victims:
            self.kill(victim)
            self._part_with(victim)
            self._successions.append(self._starter.submit(_succeed, victim, self._orders()))

    def _meet_successors(self) -> None:
        """Those who are started by now; at least one, if there is nobody else to be killed."""
        while self._successions and (self._successions[0].done() or not self.mortals):
            succession = self._successions[0].result()
            self.members.append(succession.new)
            self._successions.popleft()  # only now, for an interrupt must not make us forget it
            self._account(succession.victim, succession.complaint)

    def _meet_all_successors(self) -> None:
        wait(self._successions)
        self._meet_successors()

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
        self.look()
        found = connection.wait([member.process.sentinel for member in self.members], seconds)
        for member in [each for each in self.members if each.process.sentinel in found]:
            self._dismiss(member)
            self._stage.expect(False, f"{member.process.name} has ended before its time")

    def receive(self, member: Member) -> Any:
        """Its next message. Raises: Broken, which ends the crew's block, if it ended or hangs."""
        self.look()
        try:
            if member.pipe.poll(PATIENCE):
                return member.pipe.recv()
        except EOFError:
            self._dismiss(member)
        self._stage.expect(False, f"{member.process.name} answers no more")
        raise Broken

    def _dismiss(self, member: Member) -> None:
        self._part_with(member)
        self._account(member, member.join())

    def _part_with(self, member: Member) -> None:
        self.members.remove(member)
        self._spared = None if member is self._spared else self._spared

    def _account(self, member: Member, complaint: str | None) -> None:
        """It is gone; what it did, and what was wrong with it."""
        self._done_by_the_gone += self._operations_of(member)
        kill = self._kills.pop(member, None)
        if kill and not member.was_killed():
            self.killed_at[member.job] -= 1
            self._stage.take_back(kill)
        self._stage.expect(complaint is None, f"{member.process.name}: {complaint}")

    def _expect_no_leaks(self) -> None:
        self.look()
        self._stage.figures |= self._leaks.figures()
        self._stage.remarks += self._leaks.doubts()
        for flaw in self._leaks.flaws():
            self._stage.expect(False, flaw)

    def tell_to_stop(self) -> None:
        """From now on `going_on` says no. Who has ended by now has done so of itself."""
        for member in self.members:
            member.may_end |= member.process.exitcode is None
        Path(_stop(self._stage.folder)).touch()

    def stop(self) -> None:
        """Let all finish what they do."""
        self._end_pause()
        self._meet_all_successors()
        self.tell_to_stop()
        told = now()
        for member in list(self.members):
            self._dismiss(member)
            if member.hung:
                return  # so may all others, and each of them takes its time
        self._stage.end(told, self.operations())

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
                self._expect_no_leaks()
                self.stop()
        finally:
            self._end()
        return isinstance(error, Broken)

    def _end(self) -> None:
        """By force, with whatever they started, unless all have stopped."""
        self._end_pause()
        self._starter.shutdown()
        started = [each.result() for each in self._successions if not each.exception()]
        self.members += [each.new for each in started if each.new not in self.members]
        theirs = _frozen({member.pid for member in self.members})
        for member in self.members:
            member.kill()
        for process in theirs:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for member in self.members:
            member.join()
        psutil.wait_procs(theirs, PATIENCE)


def _frozen(members: set[int]) -> list[psutil.Process]:
    """What these children of ours started, all of it stopped, so that it starts nothing more."""
    seen: set[psutil.Process] = set()
    while members and (new := _family(members) - seen):
        for process in new:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        seen |= new
    return [process for process in seen if process.pid not in members]


def _family(members: set[int]) -> set[psutil.Process]:
    """They, and what they started; other children of ours live on."""
    others = {each for each in psutil.Process().children() if each.pid not in members}
    return {*psutil.Process().children(recursive=True)} - others

"""What a line of waiters does when its members are killed, stopped, forked or interrupted."""

import ctypes
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

import kvsync
from kvsync import deadlock, session, waiting
from kvsync.engine.doorbell import LOOK, Doorbell, Mark
from kvsync.primitives.grants import CLAIM_TIME
from kvsync.session import MEND
from kvsync.testing import ManualClock
from tests.interrupted import Interrupt, after_each_call
from tests.lines import calling, queued
from tests.processes import (
    PATIENCE,
    die_instead_of_ringing,
    eventually,
    expect,
    kill,
    kill_myself,
    running,
    stop,
)
from tests.test_lease import KINDS, make, rival_of

NAME = "job"

_EXIT = {"x86_64": 60, "aarch64": 93}
"""The number of the system call that ends one thread, on some machines."""


def take(pipe: Any, path: str) -> None:
    """Wait for the lock, say that it is had, and release it when told."""
    with kvsync.open(path) as store:
        lock = store.lock(NAME)
        lock.acquire()
        pipe.send(lock.token)
        pipe.recv()
        lock.release()
        pipe.send("released")


def take_and_die_before_ringing(pipe: Any, path: str) -> None:
    """Release is committed, and then the process is no more: nobody is rung."""
    with kvsync.open(path) as store:
        lock = store.lock(NAME)
        lock.acquire()
        pipe.send("held")
        pipe.recv()
        die_instead_of_ringing()
        lock.release()


def no_net() -> None:
    """From now on only a ring, or a watch, wakes who waits in this process."""
    waiting.HEAD_NETS, waiting._NETS = (10 * PATIENCE, 10 * PATIENCE), (10 * PATIENCE,)
    waiting._GLANCES = waiting.HEAD_NETS


def take_when_woken(pipe: Any, path: str) -> None:
    no_net()
    take(pipe, path)


def take_when_rung(pipe: Any, path: str) -> None:
    """A ring alone tells that it was released: who did so lives on, and keeps its doorbell."""
    no_net()
    lock = kvsync.open(path).lock(NAME)
    lock.acquire()
    pipe.send(lock.token)
    pipe.recv()
    lock.release()
    pipe.send("released")
    pipe.recv()


def take_when_near(pipe: Any, path: str) -> None:
    """With more than two ahead, nothing but a ring, or a watch, wakes who waits here."""
    waiting._NETS = (*waiting._NETS[:-1], 10 * PATIENCE)
    waiting._GLANCES = (10 * PATIENCE, 10 * PATIENCE)
    take(pipe, path)


def take_as_after_a_long_wait(pipe: Any, path: str) -> None:
    """However short it is: others may have put off their glances meanwhile."""
    waiting._GLANCES = (1e-9, waiting._GLANCES[1])
    take(pipe, path)


def take_when_it_glances(pipe: Any, path: str) -> None:
    """With more than two ahead, it glances whether it has come nearer."""
    waiting._NETS = (*waiting._NETS[:-1], 10 * PATIENCE)
    take(pipe, path)


def take_and_tell_the_places(pipe: Any, path: str) -> None:
    """The same, and it says how many are ahead whenever it looks."""
    net = waiting.Wait._net

    def tell(wait: waiting.Wait, view: waiting._View) -> float:
        pipe.send(view.place)
        return net(wait, view)

    waiting.Wait._net = tell  # type: ignore[method-assign]
    take_when_near(pipe, path)


def let_the_lease_end(pipe: Any, path: str) -> None:
    """As soon as it is told; it is alive still then."""
    with kvsync.open(path) as store:
        lock = store.lock(NAME, lease=PATIENCE)
        lock.acquire()
        pipe.send(lock.token)
        pipe.recv()
        lock.extend(0.01)
        pipe.recv()


def give_up(pipe: Any, path: str) -> None:
    """Wait until interrupted; then go on living."""
    with kvsync.open(path) as store:
        with pytest.raises(KeyboardInterrupt):
            store.lock(NAME).acquire()
        pipe.send("gave up")
        pipe.recv()


def read_when_woken(pipe: Any, path: str) -> None:
    no_net()
    with kvsync.open(path) as store:
        lock = store.rwlock(NAME).read()
        lock.acquire()
        pipe.send(lock.token)
        pipe.recv()
        lock.release()
        pipe.send("released")


def wait_and_die_while_reaping(pipe: Any, path: str) -> None:
    """The first thing that this waiter does for the line kills it, inside the transaction."""
    with kvsync.open(path) as store:
        lock = store.lock(NAME)
        store.session.next_attempt()

        def armed(*arguments: Any) -> None:
            if threading.current_thread() is threading.main_thread() and pipe.poll():
                kill_myself()
            mend(*arguments)

        mend, MEND["lock"] = MEND["lock"], armed
        pipe.send("waiting")
        lock.acquire()


def hold_on_in_another_thread(pipe: Any, path: str) -> None:
    """Another one lives on, until told; the system already calls this process a zombie.

    It has no doorbell, so that only the system's word counts.
    """

    def end_when_told() -> None:
        pipe.recv()
        os._exit(0)

    session._Life._install = lambda _: None  # type: ignore[method-assign, assignment]
    kvsync.open(path).lock(NAME).acquire()
    threading.Thread(target=end_when_told).start()
    pipe.send("held")
    ctypes.CDLL(None).syscall(_EXIT[platform.machine()], 0)


class Line:
    """Children that take the lock one after the other, in the order in which they were added."""

    def __init__(self, store: kvsync.Store, stack: ExitStack) -> None:
        self.store, self._stack = store, stack
        self.lock = store.lock(NAME)
        self._waiting = 0

    def hold(self, job: Callable[..., None] = take) -> tuple[Any, Any]:
        child, pipe = self._stack.enter_context(running(job, self.store.path))
        expect(pipe)
        return child, pipe

    def add(self, job: Callable[..., None] = take) -> tuple[Any, Any]:
        """One more waiter, which stands in the line when this returns."""
        child, pipe = self._stack.enter_context(running(job, self.store.path))
        self._waiting += 1
        eventually(lambda: len(self.lock.stats().waiters) == self._waiting)
        return child, pipe


@pytest.fixture
def line(store: kvsync.Store) -> Any:
    with ExitStack() as stack:
        yield Line(store, stack)


def finish(pipe: Any) -> None:
    pipe.send("release")
    assert expect(pipe) == "released"


def test_waiters_are_served_in_the_order_in_which_they_came(line: Line) -> None:
    """Each gets it from the one before; tokens rise."""
    _, holder = line.hold()
    waiters = [line.add()[1] for _ in range(4)]
    finish(holder)
    tokens = []
    for number, waiter in enumerate(waiters):
        tokens.append(expect(waiter))
        assert not any(later.poll() for later in waiters[number + 1 :])
        finish(waiter)
    assert tokens == sorted(set(tokens))


def test_a_killed_waiter_is_left_out(line: Line) -> None:
    """At the head of the line, in its middle, and at its end; the others keep their order."""
    _, holder = line.hold()
    waiters = [line.add() for _ in range(5)]
    for place in (0, 2, 4):
        kill(waiters[place][0])
    finish(holder)
    for place in (1, 3):
        expect(waiters[place][1])
        finish(waiters[place][1])
    assert line.lock.acquire(blocking=False)
    line.lock.release()


def test_a_holder_killed_between_commit_and_ring_stops_nobody(line: Line) -> None:
    """The head of the line watches it, and finds that it has been served."""
    _, holder = line.hold(take_and_die_before_ringing)
    _, first = line.add()
    _, second = line.add()
    holder.send("release")
    for waiter in (first, second):
        expect(waiter)
        finish(waiter)


def test_a_reaper_killed_at_its_work_stops_nobody(line: Line) -> None:
    """Its transaction is undone, and the next one reaps both."""
    child, _ = line.hold()
    reaper, command = line._stack.enter_context(
        running(wait_and_die_while_reaping, line.store.path)
    )
    expect(command)
    eventually(lambda: len(line.lock.stats().waiters) == 1)
    line._waiting = 1
    _, next_in_line = line.add()
    command.send("die")
    kill(child)
    expect(next_in_line)
    reaper.join(PATIENCE)
    assert reaper.exitcode == -signal.SIGKILL
    finish(next_in_line)


def test_who_stood_behind_a_waiter_that_gave_up_learns_of_the_next_deaths(line: Line) -> None:
    """It watched the one that gave up, and must watch another: there is no safety net here."""
    holder, _ = line.hold()
    first, _ = line.add()
    second, gave_up = line.add(give_up)
    _, third = line.add(take_when_woken)
    os.kill(second.pid, signal.SIGINT)
    assert expect(gave_up) == "gave up"
    kill(first)
    kill(holder)
    expect(third)
    finish(third)
    gave_up.send("end")


def test_all_readers_get_in_though_the_writer_died_before_it_rang(line: Line) -> None:
    """The first of them watched it, and rings the next: there is no safety net here."""
    _, writer = line.hold(take_and_die_before_ringing)
    readers = [line.add(read_when_woken)[1] for _ in range(3)]
    writer.send("release")
    for reader in readers:
        expect(reader)
    for reader in readers:
        finish(reader)


def test_a_stopped_waiter_holds_up_the_line_for_a_moment_only(line: Line) -> None:
    """And has its turn when it wakes, in its old place.

    The moment is the time that it has to claim. There is no safety net behind it: the next one is
    told that it is the head now, and sees to the line as that time is over.
    """
    _, holder = line.hold()
    stopped, sleeper = line.add()
    _, second = line.add(take_when_woken)
    stop(stopped, line.store.path)
    finish(holder)
    expect(second)
    line._waiting = 1
    _, third = line.add(take_when_woken)
    os.kill(stopped.pid, signal.SIGCONT)
    eventually(lambda: not passed_over(line.store))
    finish(second)
    expect(sleeper)
    assert not third.poll()
    finish(sleeper)
    expect(third)
    finish(third)


def test_who_was_stopped_and_then_killed_leaves_no_place_in_the_line(line: Line) -> None:
    """It was skipped, so nobody watches it; the next who comes sees to it."""
    _, holder = line.hold()
    stopped, _ = line.add()
    stop(stopped, line.store.path)
    finish(holder)
    assert line.lock.acquire()  # past it
    line.lock.release()
    assert passed_over(line.store)
    kill(stopped)
    assert line.lock.acquire()
    line.lock.release()
    assert line.lock.stats().waiters == ()


def test_two_stopped_waiters_hold_up_the_line_for_a_moment_only(line: Line) -> None:
    """What the first does not claim passes on though the second, now the head, does not look."""
    _, holder = line.hold()
    for child in [line.add()[0] for _ in range(2)]:
        stop(child, line.store.path)
    _, third = line.add(take_when_near)
    with within(sum(waiting._NETS[:2]) + 2 * CLAIM_TIME):
        finish(holder)
        expect(third)
    finish(third)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """It takes no longer, but for a machine that is busy with other things."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + 2.5


def test_a_stopped_head_can_hold_up_the_line_for_two_seconds() -> None:
    """Until the next one looks, and until the stopped one has not claimed what it was given."""
    assert max(*waiting._NETS[:-1], waiting._GLANCES[0]) + CLAIM_TIME < 2


def test_a_holder_that_dies_is_noticed_though_the_head_of_the_line_is_stopped(line: Line) -> None:
    child, _ = line.hold()
    head, _ = line.add()
    _, second = line.add(take_when_near)
    stop(head, line.store.path)
    with within(2):
        kill(child)
        expect(second)
    finish(second)


def test_a_lease_that_ends_is_noticed_though_the_head_of_the_line_is_stopped(line: Line) -> None:
    _, holder = line.hold(let_the_lease_end)
    head, _ = line.add()
    _, second = line.add(take_when_near)
    stop(head, line.store.path)
    with within(2):
        holder.send("end")
        expect(second)
    finish(second)
    holder.send("end")


def test_a_holder_that_dies_is_noticed_though_two_at_the_front_are_stopped(line: Line) -> None:
    child, _ = line.hold()
    front = [line.add()[0] for _ in range(2)]
    _, third = line.add(take_when_near)
    for stopped in front:
        stop(stopped, line.store.path)
    with within(sum(waiting._NETS[:2]) + 2 * CLAIM_TIME):
        kill(child)
        expect(third)
    finish(third)


def share(store: kvsync.Store, kind: str, *, whole: bool = False) -> Callable[..., bool]:
    """Acquires a share of what several may hold at once, or the whole."""
    if kind == "semaphore":
        return partial(store.semaphore(NAME, 8).acquire, n=8 if whole else 1)
    book = store.rwlock(NAME)
    return (book.write() if whole else book.read()).acquire


def stand(pipe: Any, path: str, kind: str, whole: bool, timeout: float | None) -> None:
    """In the line for it, until killed."""
    pipe.send("waiting")
    share(kvsync.open(path), kind, whole=whole)(timeout=timeout)


@contextmanager
def standing(
    store: kvsync.Store, kind: str, *, whole: bool = False, timeout: float | None = None
) -> Iterator[Any]:
    """A child that is the last of the line."""
    before = waiting_for_it(store)
    with running(stand, store.path, kind, whole, timeout) as (child, pipe):
        expect(pipe)
        eventually(lambda: waiting_for_it(store) > before)
        yield child


def waiting_for_it(store: kvsync.Store) -> int:
    ((count,),) = store.engine.read("select count(*) from kvsync_ticket")
    return int(count)


@pytest.fixture
def may_look(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The one who waits in this process looks, unless woken, once: when that is set."""
    may_look = threading.Event()

    def nets() -> Iterator[float]:
        assert may_look.wait(PATIENCE)
        yield 0.0
        while True:
            yield 10 * PATIENCE

    seconds = nets()
    monkeypatch.setattr(waiting.Wait, "_net", lambda *_: next(seconds))
    return may_look


shared = pytest.mark.parametrize("kind", ["semaphore", "rwlock"])


@shared
@pytest.mark.parametrize("stopped", [0, 3])
def test_a_stopped_head_whose_time_is_over_holds_up_nobody(
    path: Path, may_look: threading.Event, kind: str, stopped: int
) -> None:
    """Who fits beside those who hold is served, however many between them are stopped as well."""
    clock = ManualClock(0.0)  # by which the time of other processes ends when we say so
    with kvsync.open(path, clock=clock) as store, ExitStack() as stack:
        assert share(store, kind)()
        head = standing(store, kind, whole=True, timeout=PATIENCE)
        front = [head, *(standing(store, kind) for _ in range(stopped))]
        for child in [stack.enter_context(each) for each in front]:
            stop(child, store.path)
        waiter = stack.enter_context(calling(share(store, kind)))
        eventually(lambda: waiting_for_it(store) == stopped + 2)
        clock.advance(1e9)
        may_look.set()
        assert waiter.result()


@shared
@pytest.mark.parametrize("dead", [1, 2])
def test_the_dead_at_the_front_hold_up_nobody_though_who_watches_them_is_stopped(
    store: kvsync.Store, may_look: threading.Event, kind: str, dead: int
) -> None:
    """Who stands behind the stopped one sees to all of them at its first look."""
    with ExitStack() as stack:
        assert share(store, kind)()
        front = [stack.enter_context(standing(store, kind, whole=True)) for _ in range(dead)]
        stop(stack.enter_context(standing(store, kind)), store.path)
        waiter = stack.enter_context(calling(share(store, kind)))
        eventually(lambda: waiting_for_it(store) == dead + 2)
        for child in reversed(front):
            kill(child)  # before the one that watches it
        may_look.set()
        assert waiter.result()


def move_on(*pipes: Any) -> None:
    """Each of them gives it back, and the next one has it; the last one keeps it."""
    for holder, next_one in pairwise(pipes):
        finish(holder)
        expect(next_one)


def test_who_comes_near_as_the_line_moves_on_learns_of_it(line: Line) -> None:
    """Nobody rings it, until the one before it has been the head for a while."""
    _, holder = line.hold()
    _, first = line.add()
    next_holder, second = line.add()
    head, _ = line.add()
    _, last = line.add(take_and_tell_the_places)
    assert expect(last) == 3
    move_on(holder, first, second)
    eventually(lambda: expect(last) == 1)
    stop(head, line.store.path)
    with within(2):
        kill(next_holder)
        eventually(lambda: expect(last) > 3)  # the token
    finish(last)


def test_who_comes_near_as_the_line_moves_on_sees_it(line: Line) -> None:
    """Though the one before it, the head now, is stopped, and tells it nothing."""
    _, holder = line.hold()
    _, first = line.add()
    next_holder, second = line.add()
    head, _ = line.add()
    _, last = line.add(take_when_it_glances)
    stop(head, line.store.path)
    move_on(holder, first, second)
    with within(2):
        kill(next_holder)
        expect(last)
    finish(last)


@pytest.mark.parametrize("stopped", [1, 2])
def test_who_comes_near_as_a_line_moves_on_that_rested_is_told(line: Line, stopped: int) -> None:
    """By those who are served: all others between them and it are stopped."""
    _, holder = line.hold()
    _, first = line.add(take_as_after_a_long_wait)
    next_holder, second = line.add(take_as_after_a_long_wait)
    heads = [line.add()[0] for _ in range(stopped)]
    _, last = line.add(take_when_near)
    for head in heads:
        stop(head, line.store.path)
    move_on(holder, first, second)
    kill(next_holder)
    expect(last)
    finish(last)


def test_who_is_far_back_in_a_line_that_rests_glances_less_and_less_often(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And often again when something changes."""
    seconds: list[float] = []

    def sleep(_: Doorbell, __: object, timeout: float) -> tuple[bytes, list[Any]]:
        seconds.append(timeout)
        if len(seconds) == 20:
            line.store.counter("a").add()
        if len(seconds) == 22:
            raise Interrupt
        return b"", []

    line.hold()
    for _ in range(3):
        line.add()
    monkeypatch.setattr(Doorbell, "wait", sleep)
    with pytest.raises(Interrupt):
        line.lock.acquire()
    glance = waiting._GLANCES[0]
    assert seconds[:5] == [glance, glance, glance, 2 * glance, 4 * glance]
    assert all(4.5 < each <= waiting._GLANCES[1] for each in seconds[5:20])
    assert seconds[20:] == [glance, glance]


def test_a_head_whose_holder_lives_looks_less_and_less_often(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And searches for a deadlock even less."""
    holder = kvsync.open(line.store.path, detect_deadlocks=False)
    holder.lock(NAME).acquire()
    seconds, searches = [], []

    def sleep(_: Doorbell, __: object, timeout: float) -> tuple[bytes, list[Any]]:
        seconds.append(timeout)
        if len(seconds) == 20:
            holder.close()
        return b"", []

    monkeypatch.setattr(Doorbell, "wait", sleep)
    monkeypatch.setattr(deadlock, "circle", lambda *_: searches.append(1))
    assert line.lock.acquire()
    line.lock.release()
    assert seconds[0] == waiting.HEAD_NETS[0]
    assert seconds == sorted(seconds)
    assert set(seconds[10:]) == {waiting.HEAD_NETS[1]}
    assert len(searches) < 5


def test_a_head_that_was_woken_looks_often_again(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something has changed, and more may have than it was told."""
    holder = kvsync.open(line.store.path, detect_deadlocks=False)
    holder.lock(NAME).acquire()
    seconds = []

    def sleep(_: Doorbell, __: object, timeout: float) -> tuple[bytes, list[Any]]:
        seconds.append(timeout)
        if len(seconds) == 6:
            holder.close()
        return LOOK if len(seconds) == 4 else b"", []

    monkeypatch.setattr(Doorbell, "wait", sleep)
    assert line.lock.acquire()
    line.lock.release()
    assert seconds[3] > seconds[4] == waiting.HEAD_NETS[0]


def passed_over(store: kvsync.Store) -> list[Any]:
    return store.engine.read("select id from kvsync_ticket where state = 'passed'")


def kill_a_parent(pipe: Any, path: str) -> None:
    """Start a process that holds the lock and has a child; kill it when told, and not the child."""
    parent = os.fork()
    if parent == 0:
        store = kvsync.open(path)
        store.lock(NAME).acquire()
        child = os.fork()
        if child:
            pipe.send(child)
        signal.pause()
    pipe.recv()
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    pipe.send("killed")


@pytest.mark.skipif(platform.machine() not in _EXIT, reason="how to end a thread is not known")
def test_a_process_lives_until_the_last_of_its_threads_has_ended(line: Line) -> None:
    """Of a killed process too: until then it has its files open, and what is locked of them."""
    holder, pipe = line.hold(hold_on_in_another_thread)
    eventually(lambda: psutil.Process(holder.pid).status() == psutil.STATUS_ZOMBIE)
    assert line.store.session.reap_all() == []
    assert not line.lock.acquire(timeout=0)
    pipe.send("end")
    assert line.lock.acquire(timeout=PATIENCE)
    line.lock.release()


def test_a_killed_parent_frees_its_lock_though_its_child_lives(line: Line) -> None:
    """The child has closed the doorbell that proves its parent's life."""
    with running(kill_a_parent, line.store.path) as (_, pipe):
        orphan = psutil.Process(expect(pipe))
        try:
            pipe.send("kill")
            expect(pipe)
            assert line.lock.acquire(timeout=PATIENCE)
            assert orphan.is_running()
            line.lock.release()
        finally:
            orphan.kill()


def test_a_child_that_ends_takes_nothing_from_its_parent(store: kvsync.Store) -> None:
    """Neither by ending nor by having used the store itself."""
    lock = store.lock(NAME)
    lock.acquire()
    child = os.fork()
    if child == 0:
        store.lock("another").acquire()
        os._exit(0)
    os.waitpid(child, 0)
    assert lock.owned()
    assert store.lock("another").acquire(blocking=False)
    lock.release()


def test_a_fork_while_another_thread_waits_harms_neither(line: Line) -> None:
    """The child has no part in that wait."""
    _, holder = line.hold()
    waiter = threading.Thread(target=line.lock.acquire)
    waiter.start()
    eventually(lambda: line.lock.stats().waiters)
    child = os.fork()
    if child == 0:
        os._exit(0 if line.store.counter("child").add() == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finish(holder)
    waiter.join(PATIENCE)
    assert line.lock.owned()
    line.lock.release()


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_is_replaced_never_has_two_holders(path: Path, replaced: bool) -> None:
    """Who waits is told, and so is who holds."""
    store = kvsync.open(path)
    lock = store.lock(NAME)
    lock.acquire()
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            store.lock(NAME).acquire(timeout=PATIENCE)
        except kvsync.KvsyncError as error:
            failures.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    eventually(lambda: lock.stats().waiters)
    for suffix in ("", "-wal", "-shm"):
        Path(store.path + suffix).unlink()
    if replaced:
        other = kvsync.open(store.path)
        assert other.lock(NAME).acquire()
    waiter.join(PATIENCE)
    assert isinstance(failures[0], kvsync.StoreReplacedError)
    with pytest.raises(kvsync.StoreReplacedError):
        lock.ensure_held()
    with pytest.raises(kvsync.StoreReplacedError):
        lock.release()
    store.close()
    if replaced:
        other.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may make a pid namespace")
@pytest.mark.parametrize("shown_by", ["doorbell", "pid"])
def test_a_process_in_another_pid_namespace_is_not_taken_for_dead(
    store: kvsync.Store, shown_by: str
) -> None:
    """While it lives; and it is once it is gone.

    Nobody listens at the doorbell of a program that has closed all its descriptors: then it must be
    found among the processes of the namespaces below ours.
    """
    program = (
        "import kvsync, os, sys\n"
        "store = kvsync.open(sys.argv[1]); store.lock('job').acquire()\n"
        "if sys.argv[2] == 'pid': os.closerange(3, 1000)\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    store.counter("made").add()
    command = ["unshare", "-pf", "--kill-child", sys.executable, "-c", program]
    with subprocess.Popen(
        [*command, store.path, shown_by], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        lock = store.lock(NAME)
        assert listens_to_the_holder(store) is (shown_by == "doorbell")
        assert not lock.acquire(timeout=0.3)
        assert store.session.reap_all() == []
        assert lock.locked()
        child.kill()
        child.wait(PATIENCE)
        assert lock.acquire(timeout=PATIENCE)
        lock.release()


def listens_to_the_holder(store: kvsync.Store) -> bool | None:
    """Whether somebody listens at the doorbell of the one who holds something."""
    ((name, device, inode),) = store.engine.read(
        "select s.doorbell, device, inode from kvsync_session s"
        " join kvsync_unit u on u.session = s.id"
    )
    return store.engine.doorbells.answers(Mark(name, device, inode))


def hold(pipe: Any, path: str, kind: str) -> None:
    """Until killed."""
    make(kvsync.open(path), kind).acquire()
    pipe.send("held")
    pipe.recv()


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_dead_held_is_not_held(store: kvsync.Store, kind: str) -> None:
    """Says whoever is asked, and does no more: nobody has reaped them. Who lives still holds."""
    it = make(store, kind)
    with running(hold, store.path, kind) as (child, pipe):
        expect(pipe)
        assert it.locked()
        assert it.holder().pid == child.pid
        kill(child)
        assert not it.locked()
        assert it.holder() is None
        assert it.stats().holders == ()
        if kind == "semaphore":
            assert (it.free(), it.holders()) == (1, [])
        assert store.stats().sessions == 1
        (dead,) = it.force_release()
        assert dead.pid == child.pid


def test_the_dead_readers_of_a_lock_do_not_count(store: kvsync.Store) -> None:
    """Those who live do."""
    book = store.rwlock("job")
    with running(hold, store.path, "read") as (child, pipe), book.read():
        expect(pipe)
        assert len(book.stats().holders) == 2
        kill(child)
        assert [holder.pid for holder in book.stats().holders] == [os.getpid()]


def wait(pipe: Any, path: str, kind: str) -> None:
    """Until killed."""
    pipe.send("ready")
    make(kvsync.open(path), kind).acquire()


@pytest.mark.parametrize("kind", KINDS)
def test_the_dead_wait_for_nothing(store: kvsync.Store, kind: str) -> None:
    """Says whoever is asked, and does no more: nobody has reaped them."""
    it, holder = make(store, kind), make(store, "write" if kind == "read" else kind)
    holder.acquire()
    with running(wait, store.path, kind) as (child, pipe):
        expect(pipe)
        eventually(lambda: it.stats().waiters)
        assert [waiter.pid for waiter in it.stats().waiters] == [child.pid]
        kill(child)
        assert it.stats().waiters == ()
        assert store.engine.read("select state from kvsync_ticket") == [("waiting",)]
    holder.release()


def test_what_changes_hands_is_held_all_the_time(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its holder's session has ended when one looks whether that lives."""
    former, is_dead = kvsync.open(store.path), store.session.is_dead
    former.lock(NAME).acquire()
    with kvsync.open(store.path) as heir, queued(heir.lock(NAME).acquire, store.lock(NAME)) as line:

        def look_late(session: int) -> bool:
            monkeypatch.undo()
            former.close()
            assert line.result()
            return is_dead(session)

        monkeypatch.setattr(store.session, "is_dead", look_late)
        assert store.lock(NAME).locked()


def take_as_nobody(pipe: Any, path: str) -> None:
    os.setgid(65534)
    os.setuid(65534)
    take_when_rung(pipe, path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
@pytest.mark.parametrize("first", [take_as_nobody, take_when_rung])
def test_users_wait_for_each_other_and_wake_each_other(
    open_folder: Path, first: Callable[..., None]
) -> None:
    """Root and an unprivileged user, both ways: hand-over, and recovery from a kill.

    There is no safety net, and who hands over lives on, so it is the ring that wakes.
    """
    second = take_when_rung if first is take_as_nobody else take_as_nobody
    path = open_folder / "store.db"
    with kvsync.open(path, mode=0o666) as store, ExitStack() as stack:
        store.counter("made").add()
        line = Line(store, stack)
        _, holder = line.hold(first)
        _, waiter = line.add(second)
        finish(holder)
        expect(waiter)
        finish(waiter)
        child, _ = line.hold(first)
        line._waiting = 0
        _, waiter = line.add(second)
        kill(child)
        expect(waiter)
        finish(waiter)


def wait_as_notifier(condition: kvsync.Condition) -> None:
    """And have the lock again, whatever the wait comes to."""
    try:
        condition.wait()
    finally:
        assert condition.lock.owned()


def wait_anew(barrier: kvsync.Barrier) -> None:
    """Though it was broken."""
    barrier.reset()
    barrier.wait()


WAITS: dict[str, Callable[[kvsync.Store], Callable[[], Any]]] = {
    **{kind: (lambda store, kind=kind: make(store, kind).acquire) for kind in KINDS},
    "event": lambda store: store.event(NAME).wait,
    "barrier": lambda store: partial(wait_anew, store.barrier(NAME, 2)),
    "condition": lambda store: partial(wait_as_notifier, store.condition("change")),
    "put": lambda store: lambda: store.queue(NAME, 1).put("b"),
    "join": lambda store: store.queue(NAME, 1).join,
    "get": lambda store: store.queue("empty").get,
    "get many": lambda store: lambda: store.queue("empty").get_many(2),
    "reserve": lambda store: store.queue("empty").reserve,
    "reserve many": lambda store: lambda: store.queue("empty").reserve_many(2),
    "work": lambda store: lambda: store.queue("empty").work(print),
}


@pytest.mark.parametrize("kind", WAITS)
def test_a_signal_that_follows_an_error_leaves_no_place_in_the_line(
    store: kvsync.Store, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it keeps from running, as the error of a wait is being handled. Nor a handler."""

    def fail(_: waiting.Wait) -> str:
        raise kvsync.DeadlockError("as any wait may end")

    def left() -> list[Any]:
        return store.engine.read(
            "select 'ticket', space, name from kvsync_ticket"
            " union all select 'pledge', space, name from kvsync_pledge"
        )

    def wait() -> None:
        with suppress(kvsync.DeadlockError):
            call()

    def heard() -> list[Any]:
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    monkeypatch.setattr(waiting.Wait, "until_served", fail)
    call, before = WAITS[kind](store), heard()
    store.queue(NAME, 1).put("a")
    if kind == "condition":
        store.condition("change").acquire()
    with calling(rival_of(store, kind if kind in KINDS else "lock").acquire) as held:
        held.result()
        wait()
        for place in after_each_call(wait):
            assert left() == [], place
            assert heard() == before, place


@pytest.mark.usefixtures("swallowed_interrupts")
def test_interrupts_at_any_instant_leave_nothing_behind(store: kvsync.Store) -> None:
    """Neither a grant nor a ticket of ours, and the line goes on; and no release is lost."""
    lock, other = store.lock(NAME), kvsync.open(store.path, detect_deadlocks=False)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def rows() -> list[Any]:
        return other.engine.read(
            "select 'grant', name from kvsync_grant union all"
            " select 'ticket', name from kvsync_ticket"
        )

    rival = other.lock(NAME)
    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(5000):
            blocked = number % 3 == 0 and rival.acquire()
            try:
                # Again after a second: in a finalizer an exception goes nowhere.
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + 0.00001 * (number % 100), 1)
                while True:
                    if lock.acquire():
                        lock.release()
            except KeyboardInterrupt:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if lock._units.held:
                lock.release()  # the exception came between the two calls
            if blocked:
                rival.release()
            assert rows() == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    other.close()


def test_what_goes_on_after_a_close_that_was_cut_short_does_not_count_as_dead(
    store: kvsync.Store,
) -> None:
    """It may have ended its session, and not come to the end itself."""

    def begun() -> kvsync.Store:
        handle = kvsync.open(store.path)
        handle.lock(NAME).acquire()
        return handle

    handle = begun()

    def close() -> None:
        handle.close()

    for place in after_each_call(close):
        with suppress(kvsync.ClosedError):
            assert not store.session.is_dead(handle.session.id), place
        handle.close()
        handle = begun()

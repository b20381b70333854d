"""Once: one of us does it, all get its result, and who fails leaves it to the next."""

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.codec import encode
from kvsync.primitives import once
from kvsync.primitives.units import Units
from kvsync.testing import ManualClock
from tests.interrupted import at_each_point
from tests.processes import PATIENCE, eventually, expect, in_thread, kill, run_all, running
from tests.undone import undone


def never() -> None:
    pytest.fail("it is done already")


@pytest.fixture(autouse=True)
def nothing_is_left(path: Path) -> Iterator[None]:
    """No test leaves a turn taken, or a place in the line."""
    yield
    with kvsync.open(path) as store:
        for table in ("kvsync_grant", "kvsync_ticket"):
            assert store.engine.read(f"select * from {table}") == []


class Run:
    """A thread in `run`; `begun` once it is its turn, and it goes on when told how to end."""

    def __init__(self, task: kvsync.Once, end: Callable[[], Any]) -> None:
        self.begun, self._go_on = threading.Event(), threading.Event()
        self.outcome: Any = None
        self._task, self._end = task, end
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.outcome = self._task.run(self._work)
        except BaseException as error:
            self.outcome = error

    def _work(self) -> Any:
        self.begun.set()
        assert self._go_on.wait(PATIENCE)
        return self._end()

    def go_on(self) -> Any:
        """Let it end; returns what it came to."""
        self._go_on.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it hangs"
        return self.outcome

    def __enter__(self) -> "Run":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()


@contextmanager
def first_and_second(
    task: kvsync.Once, first: Callable[[], Any], second: Callable[[], Any]
) -> Iterator[tuple[Run, Run]]:
    """The first one runs, the second waits for it."""
    with Run(task, first) as one:
        assert one.begun.wait(PATIENCE)
        with Run(task, second) as other:
            eventually(lambda: len(task.stats().waiters) == 1)
            yield one, other


# --- one does it, all get the result ----------------------------------------------------------


def test_it_runs_once_and_everybody_gets_the_result(store: kvsync.Store) -> None:
    """Through whichever object of the name."""
    task = store.once("migrate")
    assert not task.done()
    assert task.run(lambda: {"rows": 3}) == {"rows": 3}
    assert task.run(never) == {"rows": 3}
    assert in_thread(lambda: store.once("migrate").run(never)) == {"rows": 3}
    assert task.done()
    assert store.once("other").run(lambda: 1) == 1


@pytest.mark.parametrize("value", [None, False, 0, "", [], 1.5, "naïve", {"a": [None]}])
def test_any_json_is_a_result(store: kvsync.Store, value: Any) -> None:
    """None and its kin are no sign of failure."""
    task = store.once("task")
    assert task.run(lambda: value) == value
    assert task.run(never) == value
    assert task.result() == value
    assert task.done()


def test_who_runs_it_gets_what_all_get(store: kvsync.Store) -> None:
    """A tuple is a list to everybody."""
    task = store.once("task")
    assert task.run(lambda: (1, 2)) == task.run(never) == [1, 2]


def test_arguments_are_passed_on(store: kvsync.Store) -> None:
    """Those by keyword too; `timeout` is for `run`."""
    assert store.once("task").run(lambda a, *, func: [a, func], 1, func=2, timeout=5) == [1, 2]


def build(path: str, file: str) -> Any:
    def work() -> dict[str, int]:
        with open(file, "a") as out:
            out.write("x")
        return {"pid": os.getpid()}

    with kvsync.open(path) as store:
        return store.once("build").run(work)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_one_of_many_processes_does_it(path: Path, tmp_path: Path, method: str) -> None:
    """On a file that is not there yet."""
    file = tmp_path / "witness"
    results = run_all(build, [(str(path), str(file))] * 5, method)
    assert file.read_text() == "x"
    assert all(result == results[0] for result in results)


def test_threads_wait_for_the_one_that_runs_it(store: kvsync.Store) -> None:
    """Through the same object too; the statistics show who does what."""
    task = store.once("task")
    with first_and_second(task, lambda: "done", never) as (one, other):
        stats = task.stats()
        assert (stats.done, stats.since) == (False, None)
        assert stats.runner is not None
        assert stats.runner.pid == stats.waiters[0].pid == os.getpid()
        assert not other.begun.is_set()
        assert one.go_on() == "done"
    assert other.outcome == "done"
    assert task.stats().runner is None
    assert task.stats().waiters == ()


# --- who fails leaves it to the next ----------------------------------------------------------


def fail() -> None:
    raise ZeroDivisionError("the runner's own")


@pytest.mark.parametrize(
    ("end", "error"), [(fail, ZeroDivisionError), (object, kvsync.EncodeError)]
)
def test_a_failed_run_is_its_callers_alone(
    store: kvsync.Store, end: Callable[[], Any], error: type[Exception]
) -> None:
    """One that raises, or whose result JSON cannot hold: the next in line runs."""
    task = store.once("task")
    with first_and_second(task, end, lambda: "second") as (one, other):
        assert isinstance(one.go_on(), error)
        assert other.begun.wait(PATIENCE)
        assert not task.done()
        assert other.go_on() == "second"
    assert task.run(never) == "second"


@pytest.mark.parametrize("value", [object(), {1: 2}, float("nan"), "\ud800", b"raw", {1, 2}])
def test_what_json_cannot_hold_is_not_done(store: kvsync.Store, value: object) -> None:
    """Nothing is written."""
    task = store.once("task")
    with pytest.raises(kvsync.EncodeError):
        task.run(lambda: value)
    assert store.engine.read("select * from kvsync_once") == []
    assert task.run(lambda: 1) == 1


def run_and_tell(pipe: Any, path: str) -> None:
    def work() -> None:
        pipe.send("running")
        pipe.recv()

    with kvsync.open(path) as store:
        store.once("task").run(work)


def test_a_killed_runner_leaves_it_to_who_waits(store: kvsync.Store) -> None:
    """And who comes later finds the result."""
    task = store.once("task")
    with running(run_and_tell, store.path) as (child, pipe):
        assert expect(pipe) == "running"
        with Run(task, lambda: "survivor") as waiter:
            eventually(lambda: task.stats().waiters)
            assert not waiter.begun.is_set()
            kill(child)
            assert waiter.begun.wait(PATIENCE)
            assert waiter.go_on() == "survivor"
    assert task.run(never) == "survivor"


def test_a_killed_runner_leaves_it_to_who_comes_later(store: kvsync.Store) -> None:
    """Though nobody waited."""
    with running(run_and_tell, store.path) as (child, pipe):
        assert expect(pipe) == "running"
        kill(child)
    assert store.once("task").run(lambda: 1, timeout=0) == 1


@pytest.mark.parametrize("work", [lambda: 1, fail])
def test_an_interruption_anywhere_leaves_nothing_taken(
    store: kvsync.Store, work: Callable[[], Any]
) -> None:
    """The next one runs it at once, or finds it done."""
    task = store.once("task")

    def run() -> None:
        with suppress(ZeroDivisionError):
            task.run(work)

    run()
    task.reset()
    for _ in at_each_point(run):
        assert store.engine.read("select * from kvsync_grant") == []
        assert store.engine.read("select * from kvsync_ticket") == []
        task.reset()
    assert task.done() is (work is not fail)


# --- waiting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_who_waits_too_long_is_told(store: kvsync.Store, timeout: float) -> None:
    """AcquireTimeout, which is a TimeoutError; the run goes on."""
    task = store.once("task")
    with Run(task, lambda: 1) as one:
        assert one.begun.wait(PATIENCE)
        with pytest.raises(kvsync.AcquireTimeout, match="'task'"):
            task.run(never, timeout=timeout)
        assert one.go_on() == 1
    assert task.run(never, timeout=0) == 1


def test_what_is_done_in_the_last_moment_counts(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose timeout is over looks once more."""
    task = store.once("task")

    def acquire(*_: object) -> None:
        monkeypatch.undo()
        task.run(lambda: "just now")

    monkeypatch.setattr(Units, "acquire", acquire)
    assert task.run(never, timeout=1) == "just now"


def test_who_runs_it_inside_itself_is_told(store: kvsync.Store) -> None:
    """A circle of one."""
    task = store.once("task")
    with pytest.raises(kvsync.DeadlockError, match="'task'"):
        task.run(lambda: task.run(never))
    assert task.run(lambda: 1) == 1


def test_a_circle_with_a_lock_is_told_to_one_of_them(store: kvsync.Store) -> None:
    """The run that wants the lock, and the lock's holder that wants the result."""
    task, lock = store.once("task"), store.lock("lock")

    def with_lock() -> str:
        with store.lock("lock"):
            return "done"

    with lock, Run(task, with_lock) as runner:
        assert runner.begun.wait(PATIENCE)
        runner._go_on.set()
        eventually(lambda: lock.stats().waiters)
        with pytest.raises(kvsync.DeadlockError):
            task.run(never)
        lock.release()
        assert runner.go_on() == "done"
        lock.acquire()


# --- whose turn was lost ----------------------------------------------------------------------


def take_away(store: kvsync.Store) -> None:
    assert Units(store.session, "once", "task", 1).force_release()


def test_a_run_whose_turn_was_taken_away_does_not_count(store: kvsync.Store) -> None:
    """Its caller is told; another may be running already, and its result stands."""
    task = store.once("task")

    def overtaken() -> str:
        take_away(store)
        assert in_thread(lambda: task.run(lambda: "the other")) == "the other"
        return "too late"

    with pytest.raises(kvsync.LeaseLostError):
        task.run(overtaken)
    assert task.result() == "the other"


def test_a_run_that_hangs_past_its_lease_passes_its_turn_on(path: Path) -> None:
    """To who waits; what it comes to at last does not count, and its caller is told."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        task = store.once("task", lease=10)
        with first_and_second(task, lambda: "too late", lambda: "the other") as (one, other):
            clock.advance(9)
            late = task.stats().runner
            assert late is not None
            assert late.lease_left == 1
            clock.advance(2)
            assert other.begun.wait(PATIENCE)
            runner = task.stats().runner
            assert runner is not None
            assert runner.lease_left == 10
            assert isinstance(one.go_on(), kvsync.LeaseLostError)
            assert not task.done()
        assert other.outcome == task.result() == "the other"


def test_a_run_past_its_lease_does_not_count_though_nobody_waits(path: Path) -> None:
    """Another may have it at any time; within its lease it counts."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        task = store.once("task", lease=10)
        with pytest.raises(kvsync.LeaseLostError):
            task.run(lambda: clock.advance(10))
        assert not task.done()
        assert task.run(lambda: clock.advance(9) or 1) == 1


def test_an_error_of_the_run_is_not_hidden_by_the_loss(store: kvsync.Store) -> None:
    """Its own error comes out."""

    def overtaken() -> None:
        take_away(store)
        fail()

    with pytest.raises(ZeroDivisionError):
        store.once("task").run(overtaken)


def test_a_child_forked_in_the_run_does_not_end_it(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when it returns from the call: the turn and the mark are its parent's."""
    task, parent, pids = store.once("task"), os.getpid(), []

    def fork() -> str:
        pids.append(os.fork())
        return "the parent's" if pids[0] else "the child's"

    def encode_when_the_child_is_gone(codec: Any, value: Any) -> Any:
        if os.getpid() == parent:
            assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 7
        return encode(codec, value)

    monkeypatch.setattr(once, "encode", encode_when_the_child_is_gone)
    try:
        assert task.run(fork) == "the parent's"
    except kvsync.NotOwnedError:
        if os.getpid() != parent and task.stats().runner:
            os._exit(7)
        raise
    finally:
        if os.getpid() != parent:
            os._exit(1)
    assert task.run(never) == "the parent's"


def test_a_turn_is_given_back_though_the_store_is_busy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark that cannot be written is told to the caller; the line must not wait for ever."""
    with kvsync.open(path, busy_timeout=0) as store:
        task = store.once("task")
        inside, over = threading.Event(), threading.Event()

        def write() -> None:
            with store.transaction():
                inside.set()
                over.wait(PATIENCE)

        writer = threading.Thread(target=write)

        def work() -> None:
            writer.start()
            assert inside.wait(PATIENCE)

        def release(units: Units, grant: Any) -> None:
            try:
                units_release(units, grant)
            except kvsync.BusyError:
                over.set()
                raise

        units_release = Units.release
        monkeypatch.setattr(Units, "release", release)
        with pytest.raises(kvsync.BusyError):
            task.run(work)
        writer.join(PATIENCE)
        assert over.is_set()
        assert task.run(lambda: 1, timeout=0) == 1


def test_closing_the_store_in_the_run_ends_it(path: Path) -> None:
    """Nothing is written, and the turn is free."""
    store = kvsync.open(path)
    with pytest.raises(kvsync.ClosedError):
        store.once("task").run(lambda: store.close() or 1)
    with kvsync.open(path) as again:
        assert again.once("task").run(lambda: 2, timeout=0) == 2


# --- periods ----------------------------------------------------------------------------------


def test_a_success_counts_for_a_period(path: Path) -> None:
    """Rolling, from the last success; without a period for ever."""
    clock, values = ManualClock(), iter(range(10))
    with kvsync.open(path, clock=clock) as store:
        task = store.once("report", per=60)
        for expected in (0, 1, 2):
            assert task.run(lambda: next(values)) == expected
            clock.advance(59.9)
            assert task.run(never) == task.result() == expected
            clock.advance(0.2)
            assert not task.done()
            with pytest.raises(kvsync.NotDoneError):
                task.result()
        assert store.once("report").run(never) == 2


def test_a_failure_begins_no_period(path: Path) -> None:
    """And the period before it ends in its time."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        task = store.once("report", per=60)
        task.run(lambda: "old")
        clock.advance(61)
        with pytest.raises(ZeroDivisionError):
            task.run(fail)
        assert not task.done()
        assert task.stats().since == clock.wall() - 61
        assert task.run(lambda: "new") == "new"


def test_a_clock_that_was_far_ahead_blocks_nobody_for_years(path: Path) -> None:
    """A success up to a period ahead counts, for clocks are set back by a little."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        task = store.once("report", per=60)
        task.run(lambda: "ahead")
        clock.advance(-30)
        assert task.run(never) == "ahead"
        clock.advance(-1000)
        assert task.run(lambda: "now") == "now"


def test_who_waited_takes_the_result_though_its_period_is_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A success during the wait is what it waited for."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        task = store.once("report", per=1)
        task.run(lambda: "old")
        clock.advance(2)
        let_go = once._let_go

        def late(units: Units) -> None:
            clock.advance(2)
            let_go(units)

        with first_and_second(task, lambda: "new", never) as (one, other):
            monkeypatch.setattr(once, "_let_go", late)
            assert one.go_on() == "new"
        assert other.outcome == "new"
        assert not task.done()


# --- the rest ---------------------------------------------------------------------------------


def test_nothing_runs_in_a_transaction(store: kvsync.Store) -> None:
    """Not even what is done; the rest is part of it."""
    task = store.once("task")
    task.run(lambda: 1)
    with store.transaction(), pytest.raises(kvsync.TransactionError):
        task.run(never)
    with undone(store):
        assert task.result() == 1
        task.reset()
        assert not task.done()
    assert task.done()


def test_reset_lets_it_run_again(store: kvsync.Store) -> None:
    """As does deleting the name; a run under way counts."""
    task = store.once("task")
    assert task.run(lambda: 1) == 1
    task.reset()
    assert task.run(lambda: 2) == 2
    store.delete("once", "task")
    with pytest.raises(kvsync.NotDoneError):
        task.result()
    assert task.run(lambda: task.reset() or 3) == 3
    assert task.result() == 3
    assert store.names("once") == ["task"]


def test_it_survives_a_restart(path: Path) -> None:
    """The mark is in the file."""
    with kvsync.open(path) as store:
        store.once("task").run(lambda: [1])
    with kvsync.open(path) as store:
        assert store.once("task").run(never) == [1]


def test_a_copy_by_pickle_is_the_same_thing(store: kvsync.Store) -> None:
    """Its repr tells its period and its lease."""
    task = store.once("task", per=60, lease=10)
    copy = pickle.loads(pickle.dumps(task))
    task.run(lambda: 1)
    assert copy.run(never) == 1
    assert copy.per == 60
    assert repr(copy).startswith("<kvsync.Once 'task', per=60.0, lease=10.0 in")
    assert repr(store.once("task")).startswith("<kvsync.Once 'task' in")

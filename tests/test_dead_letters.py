"""Dead letters: kept with what went wrong, put back, or removed."""

import pickle
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.primitives import deadletters
from kvsync.primitives.deadletters import DeadLetters
from kvsync.testing import ManualClock
from tests.queues import NAME, items, waiting


def bury_all(jobs: kvsync.Queue, *names: str) -> None:
    for name in names:
        jobs.put(name)
    for task in jobs.tasks(timeout=0):
        task.bury(f"no {task.item}")


def test_they_tell_what_went_wrong(path: Path) -> None:
    """The oldest death comes first."""
    clock = ManualClock(1000.0)
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME)
        assert len(jobs.dead) == 0
        assert jobs.dead.list() == []
        jobs.put("a", priority=3, key="k")
        jobs.put("b")
        a, b = jobs.reserve_many(2)
        clock.advance(5)
        b.bury("no b")
        clock.advance(5)
        a.bury()
        first, second = jobs.dead
        assert (first.id, first.item, first.error, first.attempts) == (2, "b", "no b", 1)
        assert (first.enqueued_at, first.died_at) == (1000.0, 1005.0)
        assert (second.item, second.error, second.priority, second.key) == ("a", None, 3.0, "k")
        assert len(jobs.dead) == jobs.stats().dead == 2
        assert [letter.item for letter in jobs.dead.list(1)] == ["b"]
        with pytest.raises(AttributeError):
            first.item = "c"  # type: ignore[misc]


def test_nobody_gets_them(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    bury_all(jobs, "a")
    with pytest.raises(queue.Empty):
        jobs.get_nowait()
    assert jobs.peek(9) == []
    assert jobs.purge() == 0
    assert jobs.join(0)
    assert items(store) == [1]


def test_redriven_they_begin_anew(store: kvsync.Store) -> None:
    """In their old places, their attempts at 0, with what went wrong last."""
    jobs = store.queue(NAME)
    bury_all(jobs, "a", "b", "c")
    jobs.put("d")
    assert jobs.dead.redrive() == 3
    assert len(jobs.dead) == 0
    tasks = jobs.reserve_many(9)
    assert [task.item for task in tasks] == ["a", "b", "c", "d"]
    assert (tasks[0].id, tasks[0].attempts, tasks[0].error) == (1, 1, "no a")
    assert jobs.dead.redrive() == 0


def test_some_are_redriven_or_purged(store: kvsync.Store) -> None:
    """Those that are asked for, if they are there."""
    jobs = store.queue(NAME)
    bury_all(jobs, "a", "b", "c", "d")
    assert jobs.dead.redrive([2, 99]) == 1
    assert jobs.dead.purge(iter([3])) == 1
    assert jobs.dead.redrive([]) == jobs.dead.purge([]) == 0
    assert [letter.item for letter in jobs.dead] == ["a", "d"]
    assert jobs.get() == "b"
    assert jobs.dead.purge() == 2
    assert items(store) == []


@pytest.mark.parametrize("bad", ["1", [1, "2"], [1.0], [True], 1])
def test_what_is_no_id_is_refused(store: kvsync.Store, bad: Any) -> None:
    """Instead of being found to be no dead letter's."""
    jobs = store.queue(NAME)
    bury_all(jobs, "a", "b")
    for do in (jobs.dead.redrive, jobs.dead.purge):
        with pytest.raises(TypeError):
            do(bad)
    assert len(jobs.dead) == 2


@pytest.mark.parametrize(("bad", "error"), [(-1, ValueError), (1.5, TypeError), ("1", TypeError)])
def test_a_bad_limit_is_refused(store: kvsync.Store, bad: Any, error: type[Exception]) -> None:
    jobs = store.queue(NAME)
    bury_all(jobs, "a")
    with pytest.raises(error, match="limit is"):
        jobs.dead.list(bad)
    assert jobs.dead.list(0) == []


def test_they_tell_whose_they_are(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    assert repr(jobs.dead) == f"<kvsync.DeadLetters of {jobs!r}>"


def test_a_copy_by_pickle_has_the_same_letters(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    bury_all(jobs, "a")
    (letter,) = pickle.loads(pickle.dumps(jobs.dead)).list()
    assert letter.item == "a"


def test_what_nobody_can_read_tells_so_once(store: kvsync.Store) -> None:
    """Whether it died of that or of something else."""
    jobs, pickled = store.queue(NAME), store.queue(NAME, codec="pickle")
    pickled.put_many([{1}, {2}])
    with pytest.raises(kvsync.DecodeError):
        jobs.get_nowait()
    pickled.reserve().bury("no host")
    first, second = [str(letter.error) for letter in jobs.dead]
    assert first.count("cannot read") == second.count("cannot read") == 1
    assert second.startswith("no host\n")


def test_very_many_are_redriven_and_purged(store: kvsync.Store) -> None:
    """Of which each transaction moves a part."""
    jobs = store.queue(NAME)
    jobs.put_many(range(1300))
    tasks = jobs.reserve_many(1300)
    with store.transaction():
        for task in tasks:
            task.bury()
    assert [letter.item for letter in jobs.dead] == list(range(1300))
    assert jobs.dead.redrive(range(1, 1201)) == 1200
    assert jobs.qsize() == 1200
    assert jobs.dead.purge() == 100
    assert jobs.get_many(5000) == list(range(1200))


def test_redriven_they_wake_who_waits(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    bury_all(jobs, "a")
    with waiting(jobs.get, store) as call:
        jobs.dead.redrive()
        assert call.result() == "a"


def test_a_full_queue_takes_them_back(store: kvsync.Store) -> None:
    """It then holds more than it would take."""
    jobs = store.queue(NAME, 1)
    bury_all(jobs, "a")
    jobs.put("b")
    assert jobs.dead.redrive() == 1
    assert jobs.get_many(9) == ["a", "b"]


@pytest.mark.parametrize("way", ["retry", "redrive", "give_back"])
def test_of_two_with_one_key_both_are_kept(store: kvsync.Store, way: str) -> None:
    """The one that comes back loses the key; a later one is still told of the other."""
    jobs = store.queue(NAME)
    jobs.put("old", key="k")
    task = jobs.reserve()
    assert jobs.put("new", key="k") == 2
    if way == "redrive":
        task.bury()
        jobs.dead.redrive()
    else:
        task.retry(0) if way == "retry" else task.give_back()
    assert [(each.item, each.key) for each in jobs.peek(9)] == [("old", None), ("new", "k")]
    assert jobs.put("newest", key="k") is None
    assert jobs.get_many(9) == ["old", "new"]


def test_the_dead_keep_their_keys(store: kvsync.Store) -> None:
    """Which keep nobody from putting another."""
    jobs = store.queue(NAME)
    for name in "ab":
        jobs.put(name, key="k")
        jobs.reserve().bury()
    jobs.put("c", key="k")
    assert [letter.key for letter in jobs.dead] == ["k", "k"]
    assert jobs.dead.redrive() == 2
    assert [each.key for each in jobs.peek(9)] == [None, None, "k"]


def test_in_a_transaction_they_move_with_it(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    bury_all(jobs, "a", "b")
    with store.transaction():
        assert jobs.dead.redrive([1]) == 1
        assert jobs.dead.purge() == 1
        store.counter("redriven").add()
    assert items(store) == [1]
    assert jobs.get() == "a"


@pytest.mark.parametrize("call", [DeadLetters.redrive, DeadLetters.purge])
def test_what_dies_after_the_call_stays_dead(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[DeadLetters], int]
) -> None:
    """However many commits it takes: here another item dies at the end of each."""
    clock = ManualClock()
    monkeypatch.setattr(deadletters, "_CHUNK", 2)
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME, max_attempts=1)
        jobs.put_many(range(6))
        for task in jobs.reserve_many(4):
            task.bury("no")
        commit = DeadLetters._commit

        def commit_and_fail(self: DeadLetters, *chunk: Any) -> int:
            done = commit(self, *chunk)
            clock.advance(1)
            if not jobs.empty():
                jobs.reserve(0).bury("again")
            return done

        monkeypatch.setattr(DeadLetters, "_commit", commit_and_fail)
        assert call(jobs.dead) == 4
        assert {letter.error for letter in jobs.dead} == {"again"}

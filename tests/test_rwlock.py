"""Read-write locks: many readers or one writer, and neither side starves the other."""

import fcntl
import os
import pickle
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import kvsync
from tests.interrupted import after_each_call
from tests.lines import calling, queued
from tests.processes import PATIENCE, eventually, expect, in_thread, kill, run_all, running


def test_many_read_together_and_a_writer_is_alone(store: kvsync.Store) -> None:
    """Through one object or several."""
    one, other = store.rwlock("book"), store.rwlock("book")
    assert one.read().acquire()
    assert in_thread(lambda: other.read().acquire(blocking=False))
    assert not in_thread(lambda: [store.rwlock("book").write().acquire(blocking=False)])[0]
    assert [holder.kind for holder in one.stats().holders] == ["read", "read"]
    one.read().release()
    other.read().release()
    with one.write() as grant:
        assert grant.token > 0
        for side in (other.read(), other.write()):
            assert not in_thread(lambda side=side: [side.acquire(blocking=False)])[0]
            assert not side.owned()
    assert other.write().acquire(blocking=False)


def test_readers_are_inside_at_the_same_time(store: kvsync.Store) -> None:
    """Threads of one object meet in there."""
    lock, meeting = store.rwlock("book"), threading.Barrier(3)

    def read() -> bool:
        with lock.read():
            meeting.wait(PATIENCE)
        return True

    with ExitStack() as stack:
        assert all(c.result() for c in [stack.enter_context(calling(read)) for _ in range(3)])
    assert lock.stats().holders == ()


def visit(path: str, file: str, number: int, times: int) -> None:
    """Go in and out, every third time as a writer; a lock on a file tells who should not be in."""
    with kvsync.open(path) as store, Path(file).open("w") as witness:
        lock = store.rwlock("book")
        for turn in range(times):
            writes = (number + turn) % 3 == 0
            with lock.write() if writes else lock.read():
                mode = fcntl.LOCK_EX if writes else fcntl.LOCK_SH
                fcntl.flock(witness, mode | fcntl.LOCK_NB)
                os.sched_yield()
                fcntl.flock(witness, fcntl.LOCK_UN)


def test_processes_never_read_beside_a_writer(store: kvsync.Store, tmp_path: Path) -> None:
    """A witness outside of the store would tell; and nothing is left behind."""
    run_all(visit, [(store.path, str(tmp_path / "witness"), n, 60) for n in range(4)])
    assert store.engine.read("select count(*) from kvsync_ticket") == [(0,)]
    assert store.engine.read("select count(*) from kvsync_grant") == [(0,)]


def test_a_waiting_writer_stops_new_readers(store: kvsync.Store) -> None:
    """So it does not starve; readers who come meanwhile get in together after it."""
    first, writing = store.rwlock("book"), store.rwlock("book").write()
    first.read().acquire()
    meeting = threading.Barrier(2)

    def read() -> bool:
        with store.rwlock("book").read():
            meeting.wait(PATIENCE)
        return True

    with queued(writing.acquire, first) as writer:
        late = store.rwlock("book").read()
        assert not in_thread(lambda: [late.acquire(blocking=False)])[0]
        with queued(read, first) as one, queued(read, first) as two:
            first.read().release()
            assert writer.result()
            assert len(first.stats().waiters) == 2
            writing.release()
            assert one.result()
            assert two.result()


def test_a_waiting_reader_stops_later_writers(store: kvsync.Store) -> None:
    """So it does not starve either: the order is that of asking."""
    first, order = store.rwlock("book"), []

    def turn(kind: str) -> None:
        with side(store, kind) as grant:
            order.append((kind, grant.token))

    first.write().acquire()
    kinds = ["read", "write", "read", "write"]
    with ExitStack() as stack:
        turns = [stack.enter_context(queued(partial(turn, kind), first)) for kind in kinds]
        first.write().release()
        for each in turns:
            each.result()
    assert [kind for kind, _ in order] == kinds
    assert order == sorted(order, key=lambda entry: entry[1])


def write(pipe: Any, path: str) -> None:
    """Wait to write."""
    with kvsync.open(path) as store:
        pipe.send("waits")
        store.rwlock("book").write().acquire()


def test_a_waiting_writer_that_dies_lets_the_readers_in(store: kvsync.Store) -> None:
    """They watch it, as it stands before them."""
    first, late = store.rwlock("book"), store.rwlock("book")
    first.read().acquire()
    with running(write, store.path) as (child, pipe):
        expect(pipe)
        eventually(lambda: first.stats().waiters)
        with queued(late.read().acquire, first) as reader:
            kill(child)
            assert reader.result()
    assert len(first.stats().holders) == 2


def hold(pipe: Any, path: str, side: str) -> None:
    """Hold one side until killed."""
    with kvsync.open(path) as store, getattr(store.rwlock("book"), side)():
        pipe.send("holds")
        pipe.recv()


@pytest.mark.parametrize("side", ["read", "write"])
def test_a_killed_holder_frees_its_side(store: kvsync.Store, side: str) -> None:
    """To a writer who waits already."""
    lock = store.rwlock("book")
    with running(hold, store.path, side) as (child, pipe):
        expect(pipe)
        with queued(lock.write().acquire, lock) as writer:
            kill(child)
            assert writer.result()
        lock.write().release()


def test_a_writer_may_read_and_go_on_as_a_reader(store: kvsync.Store) -> None:
    """Taking the read side while holding the write side; nobody writes in between."""
    lock, other = store.rwlock("book"), store.rwlock("book")
    lock.write().acquire()
    with queued(other.write().acquire, lock) as writer:
        assert lock.read().acquire(blocking=False)
        lock.write().release()
        assert not writer.is_over
        assert [holder.kind for holder in lock.stats().holders] == ["read"]
        lock.read().release()
        assert writer.result()
    other.write().release()


def test_a_downgrade_lets_readers_in_and_no_writer(store: kvsync.Store) -> None:
    """In the order of asking; the grant of the read side is what is held from then on."""
    lock, readers, writers = (store.rwlock("book") for _ in range(3))
    lock.write().acquire()
    reading, writing = readers.read().acquire, writers.write().acquire
    with queued(reading, lock) as reader, queued(writing, lock) as writer:
        grant = lock.write().downgrade()
        assert lock.read().token == grant.token
        assert not lock.write().owned()
        assert reader.result()
        with pytest.raises(kvsync.NotOwnedError):
            lock.write().release()
        lock.read().release()
        assert not writer.is_over
        readers.read().release()
        assert writer.result()
    writers.write().release()


def test_leaving_the_block_of_a_downgraded_writer_ends_its_reading(store: kvsync.Store) -> None:
    """Whatever else was released within; and the next block is one of a writer again."""
    lock = store.rwlock("book")
    with lock.write():
        lock.write().downgrade()
        assert lock.read().owned()
    assert lock.stats().holders == ()
    with lock.write():
        lock.write().downgrade()
        lock.read().release()
    with lock.write(), lock.read():
        lock.write().downgrade()
        assert [holder.kind for holder in lock.stats().holders] == ["read", "read"]
    assert lock.stats().holders == ()
    lock.write().acquire()
    lock.write().downgrade()
    lock.read().release()
    with lock.write():
        assert [holder.kind for holder in lock.stats().holders] == ["write"]
    assert lock.stats().holders == ()


def test_a_downgrade_by_another_thread_makes_the_writer_a_reader(store: kvsync.Store) -> None:
    """Not the thread that asks for it: the reading ends with the writer's block."""
    lock = store.rwlock("book")
    with lock.write() as writing:
        (writer,) = lock.stats().holders
        assert in_thread(lock.write().downgrade).thread == writing.thread
        (reader,) = lock.stats().holders
        assert (reader.kind, reader.thread) == ("read", writer.thread)
        assert lock.read().owned()
        with pytest.raises(kvsync.DeadlockError, match="holds its read side"):
            lock.write().acquire(timeout=0)
    assert lock.stats().holders == ()
    lock.write().acquire()
    reading = in_thread(lock.write().downgrade)
    assert lock.read().token == reading.token
    assert in_thread(lambda: lock.read().release() or True)
    assert lock.stats().holders == ()


def test_a_writer_within_the_block_of_a_downgraded_one_ends_by_itself(
    store: kvsync.Store,
) -> None:
    """And so does the block around it, which has nothing left to end."""
    lock = store.rwlock("book")
    for downgrades in (False, True):
        with lock.write():
            lock.write().downgrade()
            lock.read().release()
            with lock.write():
                if downgrades:
                    lock.write().downgrade()
            assert lock.stats().holders == ()
        with lock.write():
            lock.write().downgrade()
            lock.read().release()
            lock.write().acquire()
        assert lock.stats().holders == ()


def test_a_block_that_exit_stack_ends_is_that_of_the_downgraded_writer(
    store: kvsync.Store,
) -> None:
    """Though it does not tell which one it ends; nothing of another thread goes with it."""
    lock = store.rwlock("book")
    with ExitStack() as stack:
        stack.enter_context(lock.write())
        lock.write().downgrade()
        assert [holder.kind for holder in lock.stats().holders] == ["read"]
    assert lock.stats().holders == ()
    with ExitStack() as others:
        with ExitStack() as stack:
            stack.enter_context(lock.write())
            lock.write().downgrade()
            lock.read().release()
            assert others.enter_context(calling(lock.write().acquire)).result()
        assert [holder.kind for holder in lock.stats().holders] == ["write"]
        lock.write().release()
    with ExitStack() as stack:
        stack.enter_context(lock.write())
    assert lock.stats().holders == ()


def test_threads_that_downgrade_leave_nothing_behind(store: kvsync.Store) -> None:
    """By hand or in a block, be that interrupted anywhere: a lock may outlive many threads."""
    lock = store.rwlock("book")

    def by_hand() -> bool:
        lock.write().acquire()
        lock.write().downgrade()
        lock.read().release()
        return True

    def in_block() -> None:
        with lock.write():
            lock.write().downgrade()

    assert in_thread(by_hand)
    assert remembered(lock) == []
    for place in after_each_call(in_block):
        assert remembered(lock) == [], place
        assert lock.stats().holders == (), place


def remembered(lock: kvsync.RWLock) -> list[object]:
    """What the write side knows of grants and threads."""
    known = [value for name, value in vars(lock.write()).items() if name != "_looked_up"]
    return [each for each in known if isinstance(each, set | dict | list) and each]


def test_a_downgrade_needs_the_write_side(store: kvsync.Store) -> None:
    """Of this object, and held now."""
    lock = store.rwlock("book")
    with pytest.raises(kvsync.NotOwnedError):
        lock.write().downgrade()
    lock.write().acquire()
    lock.write().force_release()
    with pytest.raises(kvsync.LeaseLostError):
        lock.write().downgrade()
    with pytest.raises(kvsync.LeaseLostError):
        lock.read().acquire()
    with pytest.raises(kvsync.LeaseLostError):
        lock.write().release()
    assert lock.stats().holders == ()


def test_an_interrupted_downgrade_leaves_nothing_behind(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the exception strikes, the block ends what it holds."""
    lock = store.rwlock("book")
    for object_, name in ((lock.read()._units, "join"), (lock.write()._units, "release")):
        for before in (True, False):
            with pytest.raises(KeyboardInterrupt), lock.write(), monkeypatch.context() as patch:
                patch.setattr(object_, name, struck(getattr(object_, name), before))
                lock.write().downgrade()
            assert lock.stats().holders == ()
            assert lock.read()._ours() == lock.write()._ours() == []


def struck(call: Any, before: bool) -> Any:
    """The call, and an exception the first time: before it, or when it is done."""
    times = iter([True])

    def stricken(*arguments: Any) -> Any:
        first = next(times, False)
        if not (first and before):
            result = call(*arguments)
        if first:
            raise KeyboardInterrupt
        return result

    return stricken


def test_an_upgrade_is_refused_at_once(store: kvsync.Store) -> None:
    """However long it would wait; another thread may wait for its turn."""
    lock = store.rwlock("book")
    with lock.read():
        for timeout in (None, 0, 60):
            with pytest.raises(kvsync.DeadlockError, match="read side"):
                lock.write().acquire(timeout=timeout)
        assert lock.stats().waiters == ()
        with queued(lock.write().acquire, lock) as writer:
            lock.read().release()
            assert writer.result()
            lock.write().release()
            lock.read().acquire()


def test_an_upgrade_through_another_object_is_a_circle(store: kvsync.Store) -> None:
    """It is found by who waits for whom."""
    other = store.rwlock("book").write()
    what = "write side of rwlock 'book'"
    with store.rwlock("book").read(), pytest.raises(kvsync.DeadlockError, match=what):
        other.acquire()


def test_reading_again_behind_a_waiting_writer_is_a_deadlock(store: kvsync.Store) -> None:
    """The writer waits for the first reading, and the second waits behind the writer."""
    lock, other = store.rwlock("book"), store.rwlock("book")
    with lock.read():
        with lock.read():
            assert len(lock.stats().holders) == 2
        with queued(other.write().acquire, lock) as writer:
            with pytest.raises(kvsync.DeadlockError, match="stands behind"):
                lock.read().acquire()
            assert not writer.is_over
            lock.read().release()
            assert writer.result()
            other.write().release()
            lock.read().acquire()


@pytest.mark.parametrize("one", ["lock", "rlock", "read", "write"])
@pytest.mark.parametrize("other", ["lock", "rlock", "read", "write"])
def test_locks_of_all_kinds_share_their_names(store: kvsync.Store, one: str, other: str) -> None:
    """A lock is a writer: only readers go together."""
    with side(store, one):
        got = in_thread(lambda: [side(store, other).acquire(blocking=False)])[0]
        assert got == (one == other == "read")
        assert side(store, other).locked()


def side(store: kvsync.Store, kind: str) -> Any:
    if kind in ("read", "write"):
        return getattr(store.rwlock("book"), kind)()
    return getattr(store, kind)("book")


def test_a_read_write_lock_and_its_sides_pickle(store: kvsync.Store) -> None:
    """What comes out owns nothing, and works."""
    lock = store.rwlock("book", timeout=1, lease=60)
    with lock.write():
        for each in (lock, lock.read(), lock.write()):
            again = pickle.loads(pickle.dumps(each))
            with again.store:
                assert repr(again) == repr(each)
                reading = again.read() if isinstance(again, kvsync.RWLock) else again
                assert not reading.acquire(blocking=False)
    reading = pickle.loads(pickle.dumps(lock.read()))
    with reading.store, reading as grant:
        assert grant.lease == 60
        assert [holder.kind for holder in lock.stats().holders] == ["read"]

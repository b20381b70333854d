"""Transactions: all or nothing, nested, and apart from other threads, tasks and greenlets."""

import asyncio
from pathlib import Path

import pytest

import kvsync
from kvsync.engine.transaction import SqliteTransaction
from kvsync.testing import ManualClock
from tests.processes import in_thread, run_program


def test_a_transaction_is_one_commit(store: kvsync.Store) -> None:
    """Another handle in another thread sees nothing of it before its end."""
    hits, settings = store.counter("hits"), store.dict("settings")
    hits.add()
    with store.transaction():
        hits.add()
        settings["a"] = 1
        assert in_thread(lambda: (hits.value, dict(settings))) == (1, {})
        assert (hits.value, dict(settings)) == (2, {"a": 1})
    assert in_thread(lambda: (hits.value, dict(settings))) == (2, {"a": 1})


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_transaction_that_raises_changes_nothing(
    store: kvsync.Store, error: type[BaseException]
) -> None:
    """Whatever it raises, which comes out as it is."""
    with pytest.raises(error), store.transaction():
        store.counter("hits").add()
        store.dict("settings").set_many({"a": 1, "b": 2})
        raise error
    assert store.counter("hits").value == 0
    assert store.dict("settings") == {}


def test_an_inner_transaction_is_part_of_the_outer_one(store: kvsync.Store) -> None:
    """It commits with it, and is undone with it."""
    hits = store.counter("hits")
    with store.transaction(), store.transaction():
        hits.add()
    with pytest.raises(ZeroDivisionError), store.transaction():
        with store.transaction():
            hits.add(10)
        _ = 1 / 0
    assert hits.value == 1


def test_an_inner_transaction_that_raises_is_undone_alone(store: kvsync.Store) -> None:
    """If the outer one catches the error, it goes on with what it had."""
    hits = store.counter("hits")
    with store.transaction():
        hits.add()
        with pytest.raises(ZeroDivisionError), store.transaction():
            hits.add(10)
            with store.transaction():
                hits.add(100)
            _ = 1 / 0
        hits.add()
    assert hits.value == 2


def test_a_call_that_fails_inside_a_transaction_leaves_no_half_of_itself(
    store: kvsync.Store,
) -> None:
    """`add_many` is all or none there too."""
    family = store.counters("f")
    family.counter("b").set(2**63 - 1)
    with store.transaction():
        with pytest.raises(OverflowError):
            family.add_many({"a": 1, "b": 1})
        family.add("c")
    assert dict(family) == {"b": 2**63 - 1, "c": 1}


def test_an_inner_transaction_cut_short_as_it_ends_takes_the_outer_one_with_it(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it must not be committed, even by an outer block that catches the interrupt."""
    hits = store.counter("hits")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(kvsync.TransactionError), store.transaction():
        hits.add()
        with (
            monkeypatch.context() as patch,
            pytest.raises(KeyboardInterrupt),
            store.transaction(),
        ):
            hits.add(10)
            patch.setattr(SqliteTransaction, "leave_savepoint", interrupt)
    assert hits.value == 0


def test_handles_on_one_file_share_the_transaction(store: kvsync.Store, path: Path) -> None:
    """Two `open()`s of one file in one thread are one writer, not two that wait for each other."""
    with kvsync.open(path, busy_timeout=0) as other:
        with store.transaction():
            store.counter("hits").add()
            assert other.counter("hits").add() == 2
            with other.transaction():
                other.counter("hits").add()
        assert store.counter("hits").value == 3


def test_another_threads_calls_are_not_part_of_it(store: kvsync.Store) -> None:
    """They wait for its end, or give up at their own busy_timeout."""
    impatient = kvsync.open(store.path, busy_timeout=0.02)
    hits = store.counter("hits")

    def add() -> str:
        try:
            return str(impatient.counter("hits").add())
        except kvsync.BusyError:
            return "busy"

    with pytest.raises(ZeroDivisionError), store.transaction():
        hits.add()
        assert in_thread(add) == "busy"
        _ = 1 / 0
    assert in_thread(add) == "1"
    impatient.close()


def test_what_would_wait_for_the_transactions_own_end_is_refused(
    store: kvsync.Store, tmp_path: Path
) -> None:
    """At once, not after a time-out."""
    hot = store.counter("hits").buffered()
    with store.transaction():
        for call in (store.close, lambda: store.backup(tmp_path / "copy.db"), hot.flush):
            with pytest.raises(kvsync.TransactionError):
                call()
    assert not (tmp_path / "copy.db").exists()


def test_time_stands_still_inside_a_transaction(path: Path) -> None:
    """What is there at its beginning does not expire before its end."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        settings = store.dict("settings")
        settings.set("a", 1, ttl=10)
        with store.transaction():
            clock.advance(11)
            assert settings["a"] == 1
            settings.set("b", 2, ttl=5)
            assert settings["b"] == 2
        assert "a" not in settings


def test_a_parameter_that_sqlite_cannot_hold_is_a_typed_error(store: kvsync.Store) -> None:
    """The sqlite3 module has an OverflowError of its own, as for values past 2 GB."""
    huge = {"n": 2**64}
    with pytest.raises(kvsync.EncodeError):
        store.engine.read("select :n", huge)
    with pytest.raises(kvsync.EncodeError), store.transaction():
        store.engine.read("select :n", huge)
    with pytest.raises(kvsync.EncodeError):
        store.engine.write("update kvsync_counter set value = :n", huge)


def test_asyncio_tasks_do_not_leak_into_each_others_transactions(store: kvsync.Store) -> None:
    """A task that comes to run inside another's transaction is refused; its own try later works."""
    hits = store.counter("hits")
    hits.add()
    refused = []

    async def other() -> None:
        try:
            hits.add()
        except kvsync.TransactionError as error:
            refused.append(str(error))

    async def transact() -> None:
        with pytest.raises(ZeroDivisionError), store.transaction():
            hits.add(10)
            await asyncio.gather(asyncio.create_task(other()), asyncio.create_task(other()))
            hits.add(10)
            _ = 1 / 0
        await other()

    asyncio.run(transact())
    assert len(refused) == 2
    assert "another task" in refused[0]
    assert hits.value == 2


def test_a_callback_of_the_event_loop_is_another_task_too(store: kvsync.Store) -> None:
    """`call_soon` runs outside of any task."""
    hits = store.counter("hits")
    hits.add()
    outcome: list[str] = []

    def callback() -> None:
        try:
            hits.add()
        except kvsync.TransactionError:
            outcome.append("refused")

    async def transact() -> None:
        with store.transaction():
            hits.add()
            asyncio.get_running_loop().call_soon(callback)
            await asyncio.sleep(0)

    asyncio.run(transact())
    assert outcome == ["refused"]
    assert hits.value == 2


def with_gevent(program: str, patched: str) -> str:
    """The program, in which gevent puts its own in the threads' place at that point, if at all."""
    patch = "from gevent import monkey; monkey.patch_all()"
    return program.format(
        patch_first=patch if patched == "before the import" else "",
        patch_later=patch if patched == "after the import" else "",
    )


_GREENLETS = """
import sys
{patch_first}
import kvsync
import gevent
{patch_later}

store = kvsync.open(sys.argv[1])
hits = store.counter("hits")
refused = []

def transact(name):
    try:
        with store.transaction():
            hits.add()
            gevent.sleep(0)
            hits.add()
            if name % 2:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    except kvsync.TransactionError:
        refused.append(name)

def plain():
    while True:
        try:
            hits.add()
            return
        except kvsync.TransactionError:
            gevent.sleep(0)

jobs = [gevent.spawn(transact, i) for i in range(20)] + [gevent.spawn(plain) for _ in range(20)]
gevent.joinall(jobs, raise_error=True)
done = [i for i in range(20) if i not in refused and i % 2 == 0]
assert hits.value == 2 * len(done) + 20, (hits.value, refused)
assert done
links = len(store.engine._pool.links)
assert links <= 3, links
store.close()
print("ok")
"""


@pytest.mark.parametrize("patched", ["not at all", "before the import", "after the import"])
def test_greenlets_do_not_leak_into_each_others_transactions(path: Path, patched: str) -> None:
    """However gevent is used; and they share the thread's connections."""
    run_program(with_gevent(_GREENLETS, patched), path)


_LOCKING_GREENLETS = """
import sys
{patch_first}
import kvsync
import gevent
{patch_later}

store = kvsync.open(sys.argv[1])
lock = store.rlock("job")
lock.acquire()
assert lock.acquire(timeout=0), "the same greenlet"
assert not gevent.spawn(lock.acquire, timeout=0).get(), "another one"
store.close()
print("ok")
"""


@pytest.mark.parametrize("patched", ["before the import", "after the import"])
def test_a_greenlet_is_a_thread_of_its_own(path: Path, patched: str) -> None:
    """Where gevent put them in the threads' place, be it late."""
    run_program(with_gevent(_LOCKING_GREENLETS, patched), path)


_WAITING_GREENLETS = """
import sys
from gevent import monkey; monkey.patch_all()
import fcntl, gevent, kvsync

store = kvsync.open(sys.argv[1], busy_timeout=60)
hits = store.counter("hits")
hits.add()
gate = open(store.path + "-kvsync/gate")
fcntl.flock(gate, fcntl.LOCK_EX)
jobs = [gevent.spawn(hits.add) for _ in range(10)]
gevent.sleep(0.05)
assert hits.value == 1
fcntl.flock(gate, fcntl.LOCK_UN)
gevent.joinall(jobs, raise_error=True)
assert hits.value == 11
store.close()
print("ok")
"""


def test_greenlets_that_wait_for_the_gate_let_others_run(path: Path) -> None:
    """Waiting is gevent's own sleep; no link is held meanwhile."""
    run_program(_WAITING_GREENLETS, path)


_OPENING_GREENLETS = """
import sys
from gevent import monkey; monkey.patch_all()
import fcntl, os, gevent, kvsync

path = sys.argv[1]
os.mkdir(path + "-kvsync")
lock = os.open(path + "-kvsync/setup.lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
store = kvsync.open(path)
jobs = [gevent.spawn(store.counter("hits").add) for _ in range(5)]
gevent.sleep(0.05)
fcntl.flock(lock, fcntl.LOCK_UN)
gevent.joinall(jobs, raise_error=True)
assert store.counter("hits").value == 5
store.close()
print("ok")
"""


def test_greenlets_that_open_a_store_side_by_side_wait_for_each_other(path: Path) -> None:
    """Another process is setting the file up when they come."""
    run_program(_OPENING_GREENLETS, path)

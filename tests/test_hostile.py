"""Files that cannot be trusted: an error of kvsync's own, at once, and nothing of anybody else's is
touched. `python -m stress --scenario hostile` makes up thousands more of them.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.engine import schema
from kvsync.engine.doorbell import Mark
from kvsync.session import Session
from tests.processes import PATIENCE, expect, in_thread, kill, running
from tests.queues import waiting


def tamper(path: Path, *statements: str) -> None:
    """Make a store, and change it behind its back."""
    with kvsync.open(path) as store:
        store.dict("settings")["k"] = 1
        store.counter("hits").add()
        store.event("set").set()
        store.queue("jobs").put(1)
    damage(path, *statements)


def damage(path: Path, *statements: str) -> None:
    """As nobody does who uses kvsync."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "drop table kvsync_counter",
        "alter table kvsync_dict add column more",
        "create trigger plot after insert on kvsync_counter begin select 1; end",
        "update kvsync_meta set value = x'00'",
        "update kvsync_meta set value = 'one'",
    ],
)
def test_tables_that_are_not_kvsyncs_are_refused(path: Path, statement: str) -> None:
    tamper(path, statement)
    with kvsync.open(path) as store, pytest.raises(kvsync.SchemaError):
        store.counter("hits").add()


def test_a_view_that_never_ends_in_the_place_of_a_table_is_refused(path: Path) -> None:
    """SQLite would go on for ever, and hear no signal."""
    endless = "with recursive r(n) as (select 1 union all select n + 1 from r)"
    tamper(
        path,
        "drop table kvsync_event",
        f"create view kvsync_event as {endless} select n as name, n as since from r",
    )
    with kvsync.open(path) as store, pytest.raises(kvsync.SchemaError):
        store.event("set").is_set()


@pytest.mark.parametrize("schema", [1, 2])
def test_a_trigger_of_kvsyncs_that_does_something_else_is_refused(path: Path, schema: int) -> None:
    """Whatever version the file says that it is of: putting an item would set it off."""
    tamper(
        path,
        f"update kvsync_meta set value = {schema} where key = 'schema'",
        "drop trigger kvsync_item_put",
        "create trigger kvsync_item_put instead of insert on kvsync_item_in begin\n"
        "    insert into kvsync_item (queue) values (1); delete from kvsync_dict; end",
    )
    with kvsync.open(path) as store, pytest.raises(kvsync.SchemaError):
        store.queue("jobs").put(1)


def test_a_table_to_which_a_newer_library_has_added_is_accepted(path: Path) -> None:
    tamper(
        path,
        f"update kvsync_meta set value = {schema.VERSION + 1} where key = 'schema'",
        "alter table kvsync_counter add column more",
    )
    with kvsync.open(path) as store:
        assert store.counter("hits").add() == 2


@pytest.mark.parametrize(
    ("statement", "use"),
    [
        (
            "update kvsync_item set receipts = 9e999 where state = -2",
            lambda store: store.queue("jobs").reserve(timeout=0),
        ),
        ("update kvsync_dict set expires = 'x'", lambda store: store.dict("settings")["k"]),
        ("update kvsync_item set priority = 'x'", lambda store: store.queue("jobs").peek()),
    ],
)
def test_a_row_that_kvsync_cannot_have_written_is_damage(
    path: Path, statement: str, use: Callable[[kvsync.Store], object]
) -> None:
    """Nothing is made of it, and other calls go on."""
    tamper(path, statement)
    with kvsync.open(path) as store:
        with pytest.raises(kvsync.CorruptError):
            use(store)
        store.event("other").set()


@pytest.mark.parametrize("column", ["priority", "since", "attempts"])
def test_a_damaged_item_is_not_lost(path: Path, column: str) -> None:
    """Though `get` sees the damage only when the item is gone."""
    tamper(path, f"update kvsync_item set {column} = 'x' where state = 0")
    with kvsync.open(path) as store:
        with pytest.raises(kvsync.CorruptError):
            store.queue("jobs").get(timeout=0)
        assert store.engine.read("select count(*) from kvsync_item where state = 0") == [(1,)]


@pytest.mark.parametrize("column", ["maxsize", "shut", "last", "size", "got", "receipts", "mark"])
def test_no_queue_lacks_a_number_of_its_own(path: Path, column: str) -> None:
    """Though the items that share their table with it have no such numbers."""
    with pytest.raises(sqlite3.IntegrityError):
        tamper(path, f"update kvsync_item set {column} = null where state = -2")


def hold_a_lock_and_an_item(pipe: Any, store: kvsync.Store) -> None:
    store.lock("lock").acquire()
    store.queue("jobs").reserve()
    pipe.send("both")
    pipe.recv()


def test_a_damaged_item_of_the_dead_holds_up_its_queue_alone(path: Path) -> None:
    """Who waits there, and who comes later, is told; what else the dead had is free."""
    with kvsync.open(path) as store:
        jobs, lock = store.queue("jobs"), store.lock("lock")
        jobs.put("a")
        with running(hold_a_lock_and_an_item, store) as (child, pipe):
            expect(pipe)
            with waiting(jobs.reserve, store) as call:
                damage(path, "update kvsync_item set priority = 'x'")
                kill(child)
                assert lock.acquire(timeout=PATIENCE)
                with pytest.raises(kvsync.CorruptError):
                    call.result()
        with pytest.raises(kvsync.CorruptError):
            jobs.reserve(timeout=0)
        lock.release()


def test_a_damaged_item_of_the_dead_is_not_tried_again_and_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who only looks into the queue sees to the dead first, and would write all the while."""
    looks = 0
    reap = Session.reap

    def counting(*arguments: Any) -> list[int]:
        nonlocal looks
        looks += 1
        assert looks < 10, "it is tried for ever"
        return reap(*arguments)

    with kvsync.open(path, busy_timeout=PATIENCE) as store:
        jobs = store.queue("jobs")
        jobs.put_many(["a", "b"])
        with running(hold_a_lock_and_an_item, store) as (child, pipe):
            expect(pipe)
            damage(path, "update kvsync_item set priority = 'x' where session is not null")
            kill(child)
        monkeypatch.setattr(Session, "reap", counting)
        assert [item.item for item in jobs.peek()] == ["b"]
        assert looks


def test_what_the_dead_held_in_a_space_that_nobody_knows_holds_up_nobody(path: Path) -> None:
    with (
        kvsync.open(path) as store,
        running(hold_a_lock_and_an_item, store) as (child, pipe),
    ):
        store.queue("jobs").put("a")
        expect(pipe)
        store.engine.write("update kvsync_unit set space = '9223372036854775807'")
        kill(child)
        store.lock("another").acquire()  # its session sees to the dead
        ((space, count),) = store.engine.read(
            "select min(space), count(*) from kvsync_unit where session <> 0"
        )
        assert (space, count) == ("lock", 1)


@pytest.mark.parametrize(
    "sql",
    [
        "delete from kvsync_last_ticket",
        "update kvsync_last_ticket set id = -10",
        "update kvsync_last_ticket set id = 'many'",
        "update kvsync_last_ticket set id = 9223372036854775807",
    ],
)
def test_whoever_would_wait_under_no_number_is_told_of_the_damage(path: Path, sql: str) -> None:
    with kvsync.open(path) as store, store.lock("a lock"):
        store.engine.write(sql)
        with pytest.raises(kvsync.CorruptError):
            store.lock("a lock").acquire(timeout=PATIENCE)
        assert store.lock("a lock").stats().waiters == ()
        with pytest.raises(kvsync.CorruptError):
            store.queue("jobs").get(timeout=PATIENCE)


@pytest.mark.parametrize("name", ["gate", "claim", "setup.lock"])
def test_a_fifo_in_the_place_of_a_file_of_the_folder_keeps_nobody_waiting(
    path: Path, name: str
) -> None:
    tamper(path)
    (path.parent / f"{path.name}-kvsync" / name).unlink(missing_ok=True)
    os.mkfifo(path.parent / f"{path.name}-kvsync" / name)

    def refused() -> bool:
        with (
            kvsync.open(path) as store,
            pytest.raises(kvsync.StorageError, match="no regular file"),
        ):
            store.engine._pool.sidecar.open(f"{path}-kvsync/{name}")
        return True

    assert in_thread(refused)


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_a_fifo_beside_the_file_keeps_nobody_waiting(path: Path, suffix: str) -> None:
    tamper(path)
    os.mkfifo(f"{path}{suffix}")

    def refused() -> bool:
        with kvsync.open(path) as store, pytest.raises(kvsync.OpenError, match="not a regular"):
            store.counter("hits").add()
        return True

    assert in_thread(refused)


def test_a_doorbell_that_leads_elsewhere_is_neither_rung_nor_removed(path: Path) -> None:
    """Whatever the database says: it may be another's. Not even one as long as a doorbell's name,
    with digits at both ends."""
    tamper(path)
    other = path.parent / "otherotherabc"
    other.write_text("untouched")
    with kvsync.open(path) as store:
        store.engine.doorbells.install().close()
        (path.parent / f"{path.name}-kvsync" / "doorbells" / "d").mkdir()
        for name in (str(other), "../../otherotherabc", "d/../../../otherotherabc"):
            found = other.stat()
            store.engine.doorbells.ring(name)
            store.engine.doorbells.remove(name)
            mark = Mark(name, found.st_dev, found.st_ino)
            assert store.engine.doorbells.watch(mark) is None
            assert store.engine.doorbells.answers(mark) is None
    assert other.read_text() == "untouched"


def test_damage_whose_message_is_no_text_is_told_as_damage(path: Path) -> None:
    """SQLite quotes the schema, and Python cannot read that."""
    tamper(path)
    data = path.read_bytes()
    at = data.index(b"CREATE TABLE kvsync_event")
    path.write_bytes(data[:at] + b"CREATE T\xe9\xff" + data[at + 10 :])
    with kvsync.open(path) as store, pytest.raises(kvsync.CorruptError):
        store.counter("hits").add()

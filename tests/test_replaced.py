"""A database that is removed, or replaced, under processes that hold and wait: all are told."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import kvsync
from tests.lines import until_waiting
from tests.processes import expect, running

NAME = "job"


def remove(path: Path) -> None:
    """As `rm app.db*` does."""
    for name in (f"{path}-wal", f"{path}-shm", path):
        Path(name).unlink(missing_ok=True)


def remake(path: Path) -> None:
    remove(path)
    with kvsync.open(path) as store:
        store.counter("made").add()


def rename_another_over_it(path: Path) -> None:
    """One that was made elsewhere, and has nothing to do with it."""
    made = path.with_name("another.db")
    remake(made)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    os.replace(made, path)


def restore_a_copy(path: Path) -> None:
    """It knows the same sessions, and says of the lock that one of them has it."""
    copy = path.with_name("copy.db")
    with kvsync.open(path) as store:
        store.backup(copy)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    os.replace(copy, path)


COPIED = "renamed over by its copy"
REPLACED: dict[str, Callable[[Path], None]] = {
    "removed": remove,
    "removed and remade": remake,
    "renamed over": rename_another_over_it,
    COPIED: restore_a_copy,
}

WAITS: dict[str, Callable[[kvsync.Store], Any]] = {
    "lock": lambda store: store.lock(NAME).acquire(),
    "lock, behind another": lambda store: store.lock(NAME).acquire(),
    "read": lambda store: store.rwlock(NAME).read().acquire(),
    "event": lambda store: store.event(NAME).wait(),
    "barrier": lambda store: store.barrier(NAME, 2).wait(),
    "get": lambda store: store.queue(NAME).get(),
}


def outcome(call: Callable[[], object]) -> object:
    """What it returned, or the kind of what it raised."""
    try:
        return call()
    except kvsync.KvsyncError as error:
        return type(error)


def wait(pipe: Any, path: Path, kind: str) -> None:
    store = kvsync.open(path)
    pipe.send(outcome(lambda: WAITS[kind](store)))
    pipe.send(outcome(store.close))


def hold(pipe: Any, path: Path) -> None:
    """And say, when asked, whether it is held, whether it guards, and whether it is released."""
    store = kvsync.open(path)
    lock = store.lock(NAME)
    lock.acquire()
    pipe.send("held")
    pipe.recv()
    pipe.send(outcome(lock.ensure_held))
    pipe.send(outcome(store.transaction(guard=lock).__enter__))
    pipe.send(outcome(lock.release))
    pipe.send(outcome(store.close))


def try_to_hold(pipe: Any, path: Path) -> None:
    """As a process does that comes later."""
    store = kvsync.open(path)
    pipe.send(store.lock(NAME).acquire(blocking=False))
    pipe.recv()


def grants_and_tickets(path: Path) -> list[Any]:
    with kvsync.open(path) as store:
        assert store.check().damage == ()
        return store.engine.read(
            "select what, name, pid from kvsync_session join ("
            " select 'grant' as what, name, session from kvsync_grant union all"
            " select 'ticket', name, session from kvsync_ticket) on session = id"
        )


@pytest.mark.parametrize("how", REPLACED)
def test_who_holds_and_who_waits_is_told_that_the_database_was_replaced(
    path: Path, how: str
) -> None:
    """Each in a process of its own. What is there now has one holder at most, and none of those who
    were told has written into it.
    """
    with ExitStack() as stack:
        _, holder = stack.enter_context(running(hold, path))
        expect(holder)
        waiters = {}
        with kvsync.open(path) as store:
            for number, kind in enumerate(WAITS, 1):
                _, waiters[kind] = stack.enter_context(running(wait, path, kind))
                until_waiting(store, number)
        REPLACED[how](path)
        before = grants_and_tickets(path) if path.exists() else []
        assert (before != []) == (how == COPIED)
        later = None
        if path.exists():
            later, newcomer = stack.enter_context(running(try_to_hold, path))
            # The copy says, and rightly, that a process has it which lives.
            assert expect(newcomer) == (how != COPIED)
        holder.send("and now?")
        assert [expect(holder) for _ in range(4)] == [kvsync.StoreReplacedError] * 3 + [None]
        for kind, waiter in waiters.items():
            assert [expect(waiter), expect(waiter)] == [kvsync.StoreReplacedError, None], kind
        assert path.exists() == (how != "removed")
        if later and how != COPIED:
            assert grants_and_tickets(path) == [("grant", NAME, later.pid)]
    if how == COPIED:
        with kvsync.open(path) as store:  # they have ended, and so they have in the copy
            assert store.lock(NAME).acquire(blocking=False)

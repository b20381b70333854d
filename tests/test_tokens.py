"""Fencing tokens rise for each name for ever, though names that nobody holds are forgotten."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

import kvsync
from kvsync import tokens
from kvsync.engine import Transaction
from kvsync.engine.sqlite import SqliteEngine
from kvsync.tokens import EPOCH, EVERY, Place, forget_some
from tests.interrupted import after_each_call
from tests.processes import PATIENCE, expect, in_thread, kill, run_all, running

KINDS: dict[str, Callable[[kvsync.Store, str], Any]] = {
    "lock": lambda store, name: store.lock(name),
    "rlock": lambda store, name: store.rlock(name),
    "semaphore": lambda store, name: store.semaphore(name, 3),
    "read": lambda store, name: store.rwlock(name).read(),
    "write": lambda store, name: store.rwlock(name).write(),
}


def names(store: kvsync.Store) -> list[str]:
    """Those that the store remembers a token of."""
    return [name for (name,) in store.engine.read("select distinct name from kvsync_unit")]


def forget_all(store: kvsync.Store) -> None:
    assert forget_some(store.engine, Place(), worth=1, rest=0) == Place()


def hold(store: kvsync.Store, kind: str, how_many: int, session: int) -> None:
    """So many names of that kind, as if they were held by that session long ago; 0 for nobody."""

    def work(transaction: Transaction) -> None:
        for n in range(how_many):
            transaction.execute(
                "insert into kvsync_unit (space, name, slot, token, kind, units, capacity, session,"
                " attempt, thread, since)"
                " values (:kind, :name, 0, 5, 'lock', 1, 1, :session, 1, '', 0)",
                {"kind": kind, "name": f"{n:05}", "session": session},
            )

    store.engine.transact(work)


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_nobody_holds_is_forgotten_and_its_tokens_go_on(
    store: kvsync.Store, kind: str
) -> None:
    """Above its last one, whatever other names had."""
    makes = KINDS[kind]
    for name in ("a", "b"):
        for _ in range(3):
            with makes(store, name) as grant:
                last = grant.token
    forget_all(store)
    assert names(store) == []
    with makes(store, "b") as grant:
        assert grant.token > last
    assert EPOCH < last < 2 * EPOCH


def test_what_is_held_is_not_forgotten_and_its_name_as_a_whole_or_not_at_all(
    store: kvsync.Store,
) -> None:
    """A free row of it may be the one that knows the largest token."""
    lock, readers, free = store.lock("a"), store.rwlock("b"), store.lock("c")
    lock.acquire()
    with readers.read(), ExitStack() as others:
        for _ in range(3):
            last = others.enter_context(store.rwlock("b").read()).token
        others.close()
        with free:
            pass
        before = store.engine.read("select * from kvsync_unit where name < 'c'")
        forget_all(store)
        assert store.engine.read("select * from kvsync_unit") == before
    with readers.write() as grant:
        assert grant.token > last
    lock.release()


def test_a_name_that_was_forgotten_is_waited_for_and_handed_on_as_before(
    store: kvsync.Store,
) -> None:
    with store.lock("a"):
        pass
    forget_all(store)
    with running(_hold, store.path) as (child, pipe):
        first = expect(pipe)
        forget_all(store)
        kill(child)
        with store.lock("a") as grant:
            assert grant.token > first


def _hold(pipe: Any, path: str) -> None:
    with kvsync.open(path) as store, store.lock("a") as grant:
        pipe.send(grant.token)
        pipe.recv()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may be forgotten as soon as nobody holds it."""
    monkeypatch.setattr(forget_some, "__kwdefaults__", {"worth": tokens.WORTH, "rest": 0.0})


@pytest.mark.usefixtures("impatient")
def test_names_that_are_used_once_do_not_pile_up(store: kvsync.Store) -> None:
    """Though this session lasts for ever; and though one is held all the time."""
    held = store.lock("held")
    with held:
        for n in range(4 * tokens.ROWS):
            with store.lock(f"order-{n}"):
                pass
        assert len(names(store)) <= 2 * tokens.ROWS
        held.ensure_held()


@pytest.mark.usefixtures("impatient")
def test_names_that_many_sessions_use_once_do_not_pile_up(store: kvsync.Store) -> None:
    """Each looks at its first attempt; and though many names are held for long."""
    hold(store, "lock", 2 * tokens.ROWS, session=store.session.id)
    for n in range(30):
        with kvsync.open(store.path) as other:
            for m in range(EVERY // 4):
                with other.lock(f"order-{n:03}-{m:03}"):
                    pass
    assert len(names(store)) <= 2 * tokens.ROWS + 10 * EVERY // 4


@pytest.mark.usefixtures("impatient")
def test_names_that_many_forked_children_use_once_do_not_pile_up(store: kvsync.Store) -> None:
    """Each is a session of its own."""
    with store.lock("parent"):
        pass
    for n in range(20):
        assert run_all(_lock_some, [(store, n)], "fork") == [None]
    assert len(names(store)) <= 2 * tokens.ROWS


def _lock_some(store: kvsync.Store, n: int) -> None:
    for m in range(EVERY // 4):
        with store.lock(f"order-{n}-{m}"):
            pass


def test_names_that_were_held_a_moment_ago_stay(store: kvsync.Store) -> None:
    """So that to take and release them again and again stays cheap, however many there are."""
    for n in range(tokens.WORTH):
        with store.lock(f"order-{n}"):
            pass
    before = store.engine.read("select * from kvsync_unit")
    hold(store, "election", tokens.WORTH, session=0)
    forget_some(store.engine, Place())
    assert store.engine.read("select * from kvsync_unit") == before


@pytest.mark.parametrize("free", [tokens.WORTH - 1, tokens.WORTH])
def test_a_few_names_stay_as_they_are(store: kvsync.Store, free: int) -> None:
    """It is not worth a write."""
    hold(store, "lock", free, session=0)
    forget_some(store.engine, Place())
    assert len(names(store)) == (free if free < tokens.WORTH else 0)


def test_the_free_slots_of_what_is_held_are_not_worth_a_write(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay, so it would be for nothing, and again and again."""
    readers = [store.rwlock("a").read() for _ in range(tokens.WORTH + 1)]
    for reader in readers:
        reader.acquire()
    for reader in readers[:-1]:
        reader.release()
    monkeypatch.setattr(type(store.engine), "transact", None)
    forget_some(store.engine, Place(), rest=0)
    monkeypatch.undo()
    readers[-1].release()
    forget_some(store.engine, Place(), rest=0)
    assert names(store) == []


def test_one_look_after_another_comes_to_all_names(store: kvsync.Store) -> None:
    """Past those that are held."""
    hold(store, "election", tokens.ROWS, session=store.session.id)
    hold(store, "lock", 10, session=0)
    behind = forget_some(store.engine, Place(), worth=1)
    assert behind == Place("election", f"{tokens.ROWS - 1:05}")
    assert len(store.engine.read("select * from kvsync_unit where space = 'lock'")) == 10
    assert forget_some(store.engine, behind, worth=1) == Place()
    assert store.engine.read("select * from kvsync_unit where space = 'lock'") == []


def test_a_session_goes_on_where_it_was_and_from_the_end_to_the_beginning(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And begins near what it wants itself, for it may look only once."""
    looks = []

    def look(_: object, behind: Place) -> Place:
        looks.append(behind)
        return answers.pop(0)

    monkeypatch.setattr(tokens, "forget_some", look)
    forgetting = tokens.Forgetting(store.engine)
    answers = [Place("a", "9"), Place("b", "1"), Place(), Place("a", "5"), Place("a", "7")]
    for _ in range(3 * EVERY + 1):
        forgetting.now_and_then("lock", "x")
    assert looks[0] in (Place("lock", ""), Place("lock", "x"))
    assert looks[1:] == [Place("a", "9"), Place("b", "1"), Place(), Place("a", "5")]


def test_a_store_that_is_busy_keeps_nobody_from_its_attempt(store: kvsync.Store) -> None:
    """To forget is no part of what was asked for: it is left for the next time, without a wait."""
    hold(store, "lock", tokens.WORTH, session=0)
    with kvsync.open(store.path, busy_timeout=10 * PATIENCE) as other, store.transaction():
        store.counter("a").add()
        in_thread(lambda: tokens.Forgetting(other.engine).now_and_then("lock", "x"))
    assert len(names(store)) == tokens.WORTH
    tokens.Forgetting(store.engine).now_and_then("lock", "x")
    assert names(store) == []


def test_a_store_that_was_busy_is_looked_at_soon_again(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the same place: or names would pile up where many processes write."""
    looks = []

    def look(_: object, behind: Place) -> Place:
        looks.append(behind)
        if len(looks) < 3:
            raise kvsync.BusyError("another process was writing")
        return Place("a", "9")

    monkeypatch.setattr(tokens, "forget_some", look)
    forgetting = tokens.Forgetting(store.engine)
    for _ in range(EVERY // 2):
        forgetting.now_and_then("lock", "x")
    assert len(looks) == 3
    assert len(set(looks)) == 1


def test_a_time_to_come_keeps_no_name(store: kvsync.Store) -> None:
    """The clock was wrong, and has been set back."""
    hold(store, "lock", tokens.WORTH, session=0)
    store.engine.write("update kvsync_unit set since = 1e12")
    forget_some(store.engine, Place())
    assert names(store) == []


def test_a_damaged_token_is_not_every_new_names(store: kvsync.Store) -> None:
    """It is forgotten, and what others had stays the floor."""
    for name in "ab":
        with store.lock(name) as grant:
            last = grant.token
    store.engine.write(
        "update kvsync_unit set token = :token where name = 'a'", {"token": (1 << 63) - 1}
    )
    forget_all(store)
    with store.lock("b") as grant:
        assert last < grant.token < 2 * EPOCH


def test_a_damaged_row_keeps_nobody_from_its_attempt(store: kvsync.Store) -> None:
    """Of another name."""
    hold(store, "lock", 3, session=0)
    store.engine.write("update kvsync_unit set since = 'never', session = 'nobody'")
    with store.lock("order-1") as grant:
        assert grant.token > EPOCH


def test_an_interrupt_leaves_the_names_or_their_floor(store: kvsync.Store) -> None:
    """Never neither."""
    store.lock("a").acquire()
    store.lock("a").force_release()
    ((last,),) = store.engine.read("select max(token) from kvsync_unit")
    for place in after_each_call(lambda: forget_all(store)):
        with store.lock("a") as grant:
            assert grant.token > last, place
            last = grant.token


ACTS = strategies.lists(
    strategies.tuples(
        strategies.sampled_from(["take", "give back", "forget"]),
        strategies.sampled_from(["semaphore", "read", "write", "lock"]),
        strategies.sampled_from("ab"),
    ),
    min_size=8,
    max_size=40,
)


@hypothesis.given(ACTS)
@hypothesis.settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_whatever_is_taken_given_back_and_forgotten_tokens_rise(
    store: kvsync.Store, acts: list[tuple[str, str, str]]
) -> None:
    """For each name by itself."""
    last: dict[tuple[str, str], int] = {}
    held: list[tuple[str, str, Any]] = []
    for act, kind, name in acts:
        if act == "forget":
            forget_all(store)
        elif act == "take":
            thing = KINDS[kind](store, name)
            if thing.acquire(timeout=0):
                space = kind if kind == "semaphore" else "lock"
                assert thing.token > last.get((space, name), 0)
                last[space, name] = thing.token
                held.append((kind, name, thing))
        elif held:
            held.pop(0 if name == "a" else -1)[2].release()
    for *_, thing in held:
        thing.release()


# --- the epoch --------------------------------------------------------------------------------


def test_no_token_is_given_out_before_its_epoch_is_on_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though who made it was killed, or failed, right before: a power failure would repeat it."""
    synced: list[str] = []

    def fail(_: object) -> None:
        raise kvsync.StorageError(5, "the disk is broken")

    monkeypatch.setattr(SqliteEngine, "sync", fail)
    with kvsync.open(path) as store, pytest.raises(kvsync.StorageError, match="broken"):
        store.lock("a").acquire()
    monkeypatch.setattr(SqliteEngine, "sync", lambda _: synced.append("synced"))
    for _ in range(3):
        with kvsync.open(path) as store, store.lock("a") as grant:
            assert EPOCH < grant.token < 2 * EPOCH
    assert synced == ["synced"]


def test_who_comes_second_to_a_new_epoch_forgets_nothing_of_it(path: Path) -> None:
    """It saw none, and meanwhile the first one made it, and gave out tokens."""
    with kvsync.open(path) as store, kvsync.open(path) as late:
        with store.lock("a") as grant:
            last = grant.token
        ((boot,),) = store.engine.read("select boot from kvsync_boot")
        late.engine.transact(lambda transaction: tokens._add_epoch(boot, transaction))
        with late.lock("a") as grant:
            assert grant.token > last

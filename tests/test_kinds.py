"""Names: which are allowed, what each kind keeps apart, and how a name is deleted."""

import contextlib
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.primitives import kinds as kinds_module
from kvsync.testing import ManualClock
from tests.lines import calling
from tests.processes import PATIENCE, eventually, kill, running
from tests.undone import undone

SQL = '"; drop table kvsync_dict; --'

ODD = {
    "one character": "x",
    "1,000 characters": "x" * 1000,
    "1,000 characters of 4 bytes": "🙂" * 1000,
    "SQL": SQL,
    "SQL in single quotes": "' or '1'='1",
    "a named parameter": ":name",
    "wildcards": "%_*?[a]",
    "reserved by SQLite": "sqlite_master",
    "one of our tables": "kvsync_meta",
    "white space": " \t\n",
    "unicode": "größe Ω 名前 \U0010ffff",
    "not normalised": "e\u0301",
    "a path": "../../etc/passwd",
}

odd = pytest.mark.parametrize("name", ODD.values(), ids=ODD)

BAD = {"empty": "", "1,001 characters": "x" * 1001, "10 KB": "x" * 10_000}
BAD |= {"NUL": "a\0b", "a lone surrogate": "a\ud800"}


def makers(store: kvsync.Store) -> dict[str, Any]:
    return {
        "dict": store.dict,
        "counter": store.counter,
        "counters": store.counters,
        "queue": store.queue,
        "label": store.counters("family").counter,
    }


kinds = pytest.mark.parametrize("kind", ["dict", "counter", "counters", "queue", "label"])


@kinds
@odd
def test_an_odd_name_is_a_name_like_any_other(store: kvsync.Store, kind: str, name: str) -> None:
    made, plain = makers(store)[kind](name), makers(store)[kind]("plain")
    fill(made)
    assert filled(made)
    assert not filled(plain)
    assert made.name == name
    if kind != "label":
        assert store.names(kind) == [name]
        store.delete(kind, name)
        assert store.names(kind) == []


@odd
def test_an_odd_key_is_a_key_like_any_other(store: kvsync.Store, name: str) -> None:
    values = store.dict(name)
    values[name] = name
    assert values[name] == values.pop(name) == name


@kinds
@pytest.mark.parametrize("name", BAD.values(), ids=BAD)
def test_a_bad_name_is_refused_at_once(store: kvsync.Store, kind: str, name: str) -> None:
    with pytest.raises(kvsync.InvalidNameError) as caught:
        makers(store)[kind](name)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 500


@kinds
@pytest.mark.parametrize("name", [None, 1, b"name", ["name"], Path("name")])
def test_a_name_that_is_no_text_is_a_type_error(store: kvsync.Store, kind: str, name: Any) -> None:
    with pytest.raises(TypeError):
        makers(store)[kind](name)


def test_names_that_differ_by_case_or_form_are_different(store: kvsync.Store) -> None:
    names = ["\u00e9", "A", "a", "a ", "e\u0301"]
    for i, name in enumerate(names):
        store.dict(name)["k"] = i
        store.counter(name).add(i + 1)
    assert store.names("dict") == store.names("counter") == sorted(names)
    assert [store.dict(name)["k"] for name in names] == [0, 1, 2, 3, 4]
    assert [store.counter(name).value for name in names] == [1, 2, 3, 4, 5]


def test_the_kinds_are_apart(store: kvsync.Store) -> None:
    """A dict, a counter, a family, a queue and a label of one name are five things."""
    for made in (maker("same") for maker in makers(store).values()):
        assert not filled(made)
        fill(made)
    assert store.names("dict") == ["same"]
    assert store.names("counter") == ["same"]
    assert store.names("counters") == ["family", "same"]
    assert store.names("queue") == ["same"]
    store.delete("counter", "same")
    assert store.names("counter") == []
    assert store.names("counters") == ["family", "same"]
    assert store.counters("family")["same"] == 1
    store.delete("counters", "family")
    assert store.names("counters") == ["same"]
    assert store.dict("same") == {"k": 1}
    store.delete("queue", "same")
    assert store.names("queue") == []
    assert store.dict("same") == {"k": 1}


PASSING: dict[str, tuple[str, Callable[[kvsync.Store], Any]]] = {
    "lock": ("lock", lambda store: store.lock("x")),
    "rlock": ("lock", lambda store: store.rlock("x")),
    "read": ("lock", lambda store: store.rwlock("x").read()),
    "write": ("lock", lambda store: store.rwlock("x").write()),
    "semaphore": ("semaphore", lambda store: store.semaphore("x", 1)),
}


@pytest.mark.parametrize(("kind", "make"), PASSING.values(), ids=PASSING)
def test_what_somebody_holds_is_in_use(
    store: kvsync.Store, kind: str, make: Callable[[kvsync.Store], Any]
) -> None:
    """And nothing else; it cannot be deleted."""
    it = make(store)
    assert store.names(kind) == []
    with it:
        assert store.names(kind) == ["x"]
        with pytest.raises(ValueError, match="not deleted"):
            store.delete(kind, "x")
    assert store.names(kind) == []


@pytest.mark.parametrize("kind", kinds_module._PASSING)
def test_what_leaves_nothing_behind_is_not_deleted(store: kvsync.Store, kind: str) -> None:
    with pytest.raises(ValueError, match=f"^{kind}s are not deleted: "):
        store.delete(kind, "x")


def test_where_there_is_a_leader_is_in_use(store: kvsync.Store) -> None:
    leader = store.election("x")
    assert store.names("election") == []
    assert leader.campaign()
    assert store.names("election") == ["x"]
    leader.resign()
    assert store.names("election") == []


def test_what_somebody_waits_at_is_in_use(store: kvsync.Store) -> None:
    ready = store.condition("x")

    def wait() -> None:
        with ready:
            ready.wait(PATIENCE)

    assert store.names("condition") == []
    with calling(wait) as call:
        eventually(lambda: store.names("condition") == ["x"])
        with ready:
            ready.notify()
        call.result()
    assert store.names("condition") == []


def test_names_are_sorted_and_hold_something(store: kvsync.Store) -> None:
    for name in ("b", "a", "c", "\U0010ffff", "\uffff"):
        store.dict(name)["k"] = 1
    del store.dict("b")["k"]
    store.dict("never written")
    store.counter("a").reset()
    assert store.names("dict") == ["a", "c", "\uffff", "\U0010ffff"]
    assert store.names("counter") == []


def test_a_dict_whose_entries_have_all_expired_is_not_in_use(path: Path) -> None:
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        store.dict("gone").set_many({"a": 1, "b": 2}, ttl=5)
        store.dict("stays").set("a", 1, ttl=10)
        store.dict("stays").set("b", 1, ttl=5)
        clock.advance(5)
        assert store.names("dict") == ["stays"]


def test_delete_removes_all_of_a_name_and_nothing_else(store: kvsync.Store) -> None:
    """More than two chunks of a thousand rows."""
    store.dict("d").set_many((f"{i:05}", i) for i in range(2500))
    store.dict("e")["k"] = 1
    store.counters("f").add_many({f"{i}": 1 for i in range(2500)})
    store.counters("g").add("k")
    store.delete("dict", "d")
    store.delete("counters", "f")
    assert len(store.dict("d")) == len(store.counters("f")) == 0
    assert store.names("dict") == ["e"]
    assert store.names("counters") == ["g"]


def test_delete_of_exactly_one_chunk_and_of_nothing_end(store: kvsync.Store) -> None:
    store.dict("d").set_many((f"{i:05}", i) for i in range(1000))
    store.delete("dict", "d")
    store.delete("dict", "d")
    store.delete("dict", "never there")
    assert store.names("dict") == []


def test_delete_inside_a_transaction_is_part_of_it(store: kvsync.Store) -> None:
    store.dict("d").set_many((f"{i:05}", i) for i in range(1500))
    with undone(store):
        store.delete("dict", "d")
        assert store.names("dict") == []
    assert len(store.dict("d")) == 1500


@pytest.mark.parametrize("kind", ["", "mutex", "Dict", "dict; --", "kvsync_dict", None, 1, []])
def test_an_unknown_kind_is_refused(store: kvsync.Store, kind: Any) -> None:
    with pytest.raises(ValueError, match="'dict', 'counter', 'counters'"):
        store.names(kind)
    with pytest.raises(ValueError, match="'dict', 'counter', 'counters'"):
        store.delete(kind, "name")


# --- queues: what is in them, and who waits at them ---------------------------------------------


def test_a_queue_is_in_use_from_its_first_put_on(store: kvsync.Store) -> None:
    """Empty or not, for it may have been shut down; until it is deleted."""
    jobs = store.queue("jobs")
    assert jobs.empty()
    assert store.names("queue") == []
    jobs.put(1)
    jobs.get()
    jobs.shutdown()
    assert store.names("queue") == ["jobs"]
    store.delete("queue", "jobs")
    assert store.names("queue") == []
    assert jobs.put(1) == 1


def test_delete_of_a_queue_takes_every_item_wherever_it_is(store: kvsync.Store) -> None:
    """In line, delayed, in hand, dead; and nothing of another queue."""
    jobs, other = store.queue("jobs"), store.queue("other")
    other.put("stays")
    jobs.put_many(range(2500))
    jobs.put("later", delay=1000)
    task = jobs.reserve()
    jobs.reserve().bury("no")
    store.delete("queue", "jobs")
    assert store.engine.read("select queue, state from kvsync_item where state > -2") == [
        ("other", 0)
    ]
    assert store.names("queue") == ["other"]
    with pytest.raises(kvsync.StaleReceiptError):
        task.ack()
    assert other.get_nowait() == "stays"


def test_delete_of_a_queue_inside_a_transaction_is_part_of_it(store: kvsync.Store) -> None:
    """With all its chunks."""
    jobs = store.queue("jobs")
    jobs.put_many(range(1500))
    with undone(store):
        store.delete("queue", "jobs")
        assert store.names("queue") == []
    assert jobs.qsize() == 1500
    assert jobs.get() == 0


def test_a_get_goes_on_waiting_when_its_queue_is_deleted(store: kvsync.Store) -> None:
    """For what is put afterwards."""
    jobs = store.queue("jobs")
    jobs.put("first")
    assert jobs.get() == "first"
    with calling(lambda: jobs.get(timeout=PATIENCE)) as call:
        eventually(lambda: jobs.stats().getters == 1)
        store.delete("queue", "jobs")
        assert not call.is_over
        jobs.put("second")
        assert call.result() == "second"


def test_join_returns_when_its_queue_is_deleted(store: kvsync.Store) -> None:
    """There is nothing left to be done with."""
    jobs = store.queue("jobs")
    jobs.put_many(range(3))
    jobs.get()
    task = jobs.reserve()
    with calling(jobs.join) as call:
        eventually(lambda: store.stats().lines)
        store.delete("queue", "jobs")
        assert call.result() is True
    with pytest.raises(kvsync.StaleReceiptError):
        task.ack()


@pytest.mark.parametrize("waiting", [1, 3])
def test_who_waits_for_room_puts_into_the_deleted_queue_anew(
    store: kvsync.Store, waiting: int
) -> None:
    """More than one, if there is still only room for one: the next one waits for that."""
    jobs = store.queue("jobs", 1)
    jobs.put("old")
    with contextlib.ExitStack() as stack:
        calls = []
        for number in range(waiting):
            put = partial(jobs.put, number, timeout=PATIENCE)
            calls.append(stack.enter_context(calling(put)))
            eventually(lambda count=number + 1: jobs.stats().putters == count)
        store.delete("queue", "jobs")
        assert calls[0].result()
        assert [jobs.get(timeout=PATIENCE) for _ in calls] == [*range(waiting)]
        assert all(call.result() for call in calls)


def test_a_putter_that_died_does_not_keep_its_queue(store: kvsync.Store) -> None:
    """Once it is known to be dead."""
    jobs = store.queue("jobs", 1)
    jobs.put("old")
    with running(put_into_the_full, store.path) as (child, _):
        eventually(lambda: jobs.stats().putters == 1)
        kill(child)
    store.session.reap_all()
    store.delete("queue", "jobs")
    assert store.names("queue") == []
    assert store.engine.read("select * from kvsync_item") == []


def put_into_the_full(_: Any, path: str) -> None:
    """And wait for ever."""
    kvsync.open(path).queue("jobs", 1).put("new")


def test_a_delete_that_was_cut_short_can_be_repeated(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is there as long as an item of it is."""
    jobs = store.queue("jobs")
    jobs.put_many(range(1500))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(kinds_module, "_delete_items", cut_short(kinds_module._delete_items))
        store.delete("queue", "jobs")
    assert jobs.qsize() == 500
    assert store.names("queue") == ["jobs"]
    store.delete("queue", "jobs")
    assert store.names("queue") == []


def cut_short(step: Any) -> Any:
    """It works once, and then is interrupted."""
    calls = iter([step])

    def once(*arguments: Any) -> Any:
        for call in calls:
            return call(*arguments)
        raise KeyboardInterrupt

    return once


def test_what_is_put_meanwhile_is_not_deleted(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a delete comes to an end, whoever goes on putting."""
    jobs = store.queue("jobs")
    jobs.put_many(range(1500))
    delete_some = kinds_module._delete_items

    def then_put(*arguments: Any) -> int:
        arguments[-1].after_commit(lambda: jobs.put("new"))
        return delete_some(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(kinds_module, "_delete_items", then_put)
        store.delete("queue", "jobs")
    assert [item.item for item in jobs.peek(9)] == ["new", "new"]
    assert jobs.qsize() == 2


def test_delete_refuses_a_bad_name(store: kvsync.Store) -> None:
    with pytest.raises(kvsync.InvalidNameError):
        store.delete("dict", "")
    with pytest.raises(TypeError):
        store.delete("dict", 1)  # type: ignore[arg-type]


def test_sql_in_names_and_keys_leaves_the_tables_as_they_were(path: Path) -> None:
    tables = "select name, sql from sqlite_schema order by name"
    with kvsync.open(path) as store:
        store.dict("d")["k"] = 1
        before = store.engine.read(tables)
        values = store.dict(SQL)
        values[SQL] = SQL
        values.increment_many({SQL + "1": 1})
        assert values.get_many([SQL, SQL + "1"]) == {SQL: SQL, SQL + "1": 1}
        assert list(values.prefix('";')) == [SQL, SQL + "1"]
        store.counters(SQL).add_many({SQL: 1})
        assert store.names("dict") == [SQL, "d"]
        assert store.engine.read(tables) == before
    with sqlite3.connect(path) as raw:
        assert raw.execute("select count(*) from kvsync_dict").fetchall() == [(3,)]
    raw.close()


def fill(made: Any) -> None:
    if isinstance(made, kvsync.Dict):
        made["k"] = 1
    elif isinstance(made, kvsync.Counters):
        made.add("k")
    elif isinstance(made, kvsync.Queue):
        made.put("item")
    else:
        made.add()


def filled(made: Any) -> bool:
    if isinstance(made, kvsync.Queue):
        return not made.empty()
    return bool(made.value if isinstance(made, kvsync.Counter) else made)

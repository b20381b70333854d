"""That the suite faults every public call that writes, or says why not."""

import inspect
from collections.abc import Iterator

import pytest

import kvsync
from stress.faults.calls import PRIMITIVES, WAYS
from stress.stage import SOUND

pytestmark = pytest.mark.suite

KINDS = {
    "": kvsync.Store,
    "counter": kvsync.Counter,
    "buffered": kvsync.BufferedCounter,
    "counters": kvsync.Counters,
    "dict": kvsync.Dict,
    "lock": kvsync.Lock,
    "rlock": kvsync.RLock,
    "semaphore": kvsync.Semaphore,
    "rwlock": kvsync.RWLock,
    "read": kvsync.ReadLock,
    "write": kvsync.WriteLock,
    "event": kvsync.Event,
    "condition": kvsync.Condition,
    "barrier": kvsync.Barrier,
    "election": kvsync.Election,
    "rate_limiter": kvsync.RateLimiter,
    "once": kvsync.Once,
    "queue": kvsync.Queue,
    "task": kvsync.Task,
    "dead": kvsync.DeadLetters,
    "KeyValueSqlite": kvsync.KeyValueSqlite,
}
"""The public classes whose methods touch a store, by what their calls are named after."""

RECORDS = "what a call has found, or what is given to another"
GIVEN = "what a program gives to a call"

NO_STORE = {
    "Grant": RECORDS,
    "Holder": RECORDS,
    "Holding": RECORDS,
    "Line": RECORDS,
    "Item": RECORDS,
    "DeadLetter": RECORDS,
    "Waiter": RECORDS,
    "Waiting": RECORDS,
    "Worked": RECORDS,
    "Health": RECORDS,
    **{name: RECORDS for name in kvsync.__all__ if name.endswith("Stats")},
    "KeyRange": "it only reads",
    "Lockable": "what locks, semaphores and elections have in common",
    "Clock": GIVEN,
    "Codec": GIVEN,
}
"""Public classes without such methods."""

READS = "it only reads"
SAME = "the same statements as "
MAKES = "it makes an object, and writes nothing"

LEFT_OUT = {
    **dict.fromkeys(
        """
        check stats names counter.stats buffered.stats counters.stats counters.get counters.items
        counters.keys counters.values dict.get dict.get_many dict.items dict.keys dict.prefix
        dict.range dict.stats dict.ttl dict.values lock.ensure_held lock.holder lock.locked
        lock.owned lock.stats rlock.ensure_held rlock.holder rlock.locked rlock.owned rlock.stats
        semaphore.ensure_held semaphore.free semaphore.holder semaphore.holders semaphore.locked
        semaphore.owned semaphore.stats rwlock.stats read.ensure_held read.holder read.locked
        read.owned read.stats write.ensure_held write.holder write.locked write.owned write.stats
        event.is_set event.stats condition.stats barrier.stats election.ensure_held
        election.holder election.is_leader election.leader election.locked election.owned
        election.stats rate_limiter.retry_after rate_limiter.stats once.done once.result
        once.stats queue.empty queue.full queue.peek queue.qsize queue.stats task.is_current
        dead.list KeyValueSqlite.dict_range KeyValueSqlite.get KeyValueSqlite.get_many
        KeyValueSqlite.get_or_raise KeyValueSqlite.get_range KeyValueSqlite.has_key
        KeyValueSqlite.items KeyValueSqlite.key_range KeyValueSqlite.keys KeyValueSqlite.to_dict
        KeyValueSqlite.values
        """.split(),
        READS,
    ),
    **dict.fromkeys(
        """
        barrier condition counter counters dict election event lock once queue rate_limiter rlock
        rwlock semaphore counters.counter
        """.split(),
        MAKES,
    ),
    "counter.sub": SAME + "counter.add",
    "buffered.add": "it writes nothing before its flush",
    "buffered.sub": "it writes nothing before its flush",
    "buffered.flush": SAME + "counter.buffered",
    "buffered.close": SAME + "counter.buffered",
    "rlock.extend": SAME + "lock.extend",
    "rlock.force_release": SAME + "lock.force_release",
    "election.acquire": SAME + "election.campaign",
    "election.release": SAME + "election.resign",
    "election.extend": SAME + "lock.extend",
    "election.force_release": SAME + "lock.force_release",
    "election.run": "election.campaign, and election.resign",
    "read.acquire": SAME + "rwlock.read",
    "read.release": SAME + "lock.release",
    "read.extend": SAME + "lock.extend",
    "read.force_release": SAME + "lock.force_release",
    "write.acquire": SAME + "rwlock.write",
    "write.release": SAME + "lock.release",
    "write.extend": SAME + "lock.extend",
    "write.force_release": SAME + "lock.force_release",
    "write.downgrade": SAME + "rwlock.downgrade",
    "condition.acquire": SAME + "lock.acquire",
    "condition.release": SAME + "lock.release",
    "condition.notify": SAME + "condition.notify_all",
    "condition.wait_for": "condition.wait, again and again",
    "queue.put_nowait": SAME + "queue.put",
    "queue.get_nowait": SAME + "queue.get",
    "queue.tasks": "queue.reserve and task.ack, in turns",
    "queue.work": "queue.reserve and task.ack, in turns",
    "KeyValueSqlite.close": "`close`, if the store is its own",
}
"""Public calls that are not faulted, and why."""

ALIASES = {
    "dict[k] = v": "dict.__setitem__",
    "del dict[k]": "dict.__delitem__",
    "KeyValueSqlite[k] = v": "KeyValueSqlite.__setitem__",
    "del KeyValueSqlite[k]": "KeyValueSqlite.__delitem__",
    "rwlock.read": "rwlock.read",
}

FAULTED = {ALIASES.get(name, name.split("(")[0].split(" ")[0]) for name in WAYS[SOUND]}


def _public(cls: type) -> Iterator[str]:
    for name, _ in inspect.getmembers(cls, callable):
        if not name.startswith("_") or name in ("__setitem__", "__delitem__"):
            yield name


def _calls() -> Iterator[str]:
    for kind, cls in KINDS.items():
        yield from (f"{kind}.{name}".removeprefix(".") for name in _public(cls))


def test_each_public_call_is_faulted_or_left_out_for_a_reason() -> None:
    calls = {*_calls()}
    assert sorted(calls - FAULTED - LEFT_OUT.keys()) == []
    assert sorted(LEFT_OUT.keys() - calls) == [], "what is not there needs no reason"
    assert sorted(LEFT_OUT.keys() & FAULTED) == [], "what is faulted is not left out"


def test_what_is_left_out_as_the_same_is_faulted_itself() -> None:
    same = {reason.removeprefix(SAME) for reason in LEFT_OUT.values() if reason.startswith(SAME)}
    assert sorted(same - FAULTED) == []


def test_no_public_class_is_forgotten() -> None:
    public = {
        name
        for name in kvsync.__all__
        if inspect.isclass(cls := getattr(kvsync, name)) and not issubclass(cls, BaseException)
    }
    assert sorted(public - {cls.__name__ for cls in KINDS.values()} - NO_STORE.keys()) == []


def test_what_the_calls_are_of_is_told_in_full() -> None:
    """For the grid of the report."""
    assert all(any(name in call for call in WAYS[SOUND]) for name in PRIMITIVES)
    parts = {"", "buffered", "read", "write", "task", "dead"}
    assert {*KINDS} - parts | {"transaction", "store"} == {*PRIMITIVES}

"""Each public call that writes, as a fault is to meet it: once, in a process of its own.

`prepare` makes the store that it finds. `perform` may be called again after it has failed. `seen`
is what others see of its effect: the same before and after a call that changes nothing. A call
that `holds` leaves its process with something that must be free once that process is dead.
"""

import os
import traceback
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import kvsync
from stress import children
from stress.faults import legacy, lines
from stress.faults.call import Call, mine
from stress.stage import SOUND

_DAY = 86_400
_LONG = "x" * 5000
_LOG = 5_000_000
"""Bytes, enough to make a checkpoint due."""


# --- state --------------------------------------------------------------------------------------


def _dict(store: kvsync.Store) -> kvsync.Dict:
    return store.dict("it")


def _contents(store: kvsync.Store) -> object:
    return {key: _short(value) for key, value in _dict(store).items()}


def _short(value: object) -> object:
    """A long text fills several pages, and a report."""
    return "a long text" if value == _LONG else value


def _fill(store: kvsync.Store) -> None:
    _dict(store).update(a=1, b=2)


def _on_dict(perform: Callable[[kvsync.Dict], object]) -> Call:
    return Call(lambda store: perform(_dict(store)), _contents, _fill)


def _on_counter(perform: Callable[[kvsync.Counter], object]) -> Call:
    return Call(
        lambda store: perform(store.counter("it")),
        lambda store: store.counter("it").value,
        lambda store: store.counter("it").set(5),
    )


def _flush(counter: kvsync.Counter) -> None:
    buffer = counter.buffered(interval=_DAY)
    buffer.add(3)
    buffer.flush()


def _several(store: kvsync.Store) -> None:
    _dict(store)["x"] = 1
    store.counter("it").add()
    _queue(store).put("item")
    _limiter(store).try_acquire()
    _dict(store)["y"] = 1


def _in_one(store: kvsync.Store) -> None:
    with store.transaction():
        _several(store)


def _all_of_several(store: kvsync.Store) -> object:
    return _contents(store), store.counter("it").value, store.queue("it").qsize()


def _guarded(store: kvsync.Store) -> None:
    lock = mine(store, "lock")
    if not lock.owned():
        lock.acquire(timeout=0)
    with store.transaction(guard=lock):
        _several(store)


def _close(store: kvsync.Store) -> None:
    store.counter("it").add()
    store.close()


def _lengthen_log(store: kvsync.Store) -> None:
    store.dict("long").update({str(n): "x" * 1000 for n in range(_LOG // 1000)})


_STATE = {
    "open a new store": Call(kvsync.Store.check, lambda _store: None),
    "close": Call(_close, lambda store: store.counter("it").value),
    "checkpoint": Call(
        lambda store: store.counter("it").add(),
        lambda store: store.counter("it").value,
        _lengthen_log,
        beside=True,
    ),
    "transaction": Call(_in_one, _all_of_several),
    "transaction(guard)": Call(_guarded, _all_of_several),
    "counter.add": _on_counter(lambda counter: counter.add()),
    "counter.set": _on_counter(lambda counter: counter.set(9)),
    "counter.reset": _on_counter(lambda counter: counter.reset()),
    "counter.compare_and_set": _on_counter(lambda counter: counter.compare_and_set(5, 6)),
    "counter.buffered": _on_counter(_flush),
    "counters.add_many": Call(
        lambda store: store.counters("it").add_many({"a": 1, "b": 2}),
        lambda store: dict(store.counters("it")),
    ),
    "counters.add": Call(
        lambda store: store.counters("it").add("a"), lambda store: dict(store.counters("it"))
    ),
    "counters.clear": Call(
        lambda store: store.counters("it").clear(),
        lambda store: dict(store.counters("it")),
        lambda store: store.counters("it").add_many({"a": 1, "b": 2}),
    ),
    "dict[k] = v": _on_dict(lambda it: it.__setitem__("a", _LONG)),
    "dict.set(ttl)": _on_dict(lambda it: it.set("a", "new", ttl=_DAY)),
    "del dict[k]": _on_dict(lambda it: it.__delitem__("a")),
    "dict.pop": _on_dict(lambda it: it.pop("a")),
    "dict.popitem": _on_dict(lambda it: it.popitem()),
    "dict.setdefault": _on_dict(lambda it: it.setdefault("c", 3)),
    "dict.compare_and_set": _on_dict(lambda it: it.compare_and_set("a", 1, 5)),
    "dict.increment": _on_dict(lambda it: it.increment("a")),
    "dict.increment_many": _on_dict(lambda it: it.increment_many({"a": 1, "b": 1})),
    "dict.update": _on_dict(lambda it: it.update(a=5, b=6, c=_LONG)),
    "dict.set_many": _on_dict(lambda it: it.set_many({"a": 5, "c": _LONG}, ttl=_DAY)),
    "dict.clear": _on_dict(lambda it: it.clear()),
    "delete": Call(lambda store: store.delete("dict", "it"), _contents, _fill),
    "backup": Call(
        lambda store: store.backup(store.path + ".copy"),
        lambda store: _copied(store.path + ".copy"),
        _fill,
    ),
}


def _copied(path: str) -> object:
    if not os.path.exists(path):
        return None
    with kvsync.open(path) as copy:
        return _contents(copy)


# --- what is held -------------------------------------------------------------------------------


def _locked(kind: str, *arguments: Any) -> Callable[[kvsync.Store], object]:
    return lambda store: getattr(store, kind)("it", *arguments).locked()


def _recorded(store: kvsync.Store) -> object:
    """What is in the file, whether the holder lives or not."""
    return [(line.name, len(line.holders)) for line in store.stats().lines]


def _take(kind: str, *arguments: Any) -> Call:
    def perform(store: kvsync.Store) -> None:
        if not mine(store, kind, *arguments).acquire(timeout=0):
            raise kvsync.StorageError("it cannot be told that its holder is dead")

    return Call(perform, _locked(kind, *arguments), holds=True, clean=True)


def _take_and_leave(kind: str, *arguments: Any) -> Call:
    def perform(store: kvsync.Store) -> None:
        it = mine(store, kind, *arguments)
        assert it.owned() or it.acquire(timeout=0)
        it.release()

    return Call(perform, _locked(kind, *arguments), holds=True)


def _side(side: str) -> Call:
    def perform(store: kvsync.Store) -> None:
        it = getattr(mine(store, "rwlock"), side)()
        assert it.owned() or it.acquire(timeout=0)

    return Call(perform, _kinds, holds=True, clean=True)


def _kinds(store: kvsync.Store) -> object:
    return [holder.kind for holder in store.rwlock("it").stats().holders]


def _downgrade(store: kvsync.Store) -> None:
    lock = mine(store, "rwlock")
    if not lock.read().owned():
        assert lock.write().owned() or lock.write().acquire(timeout=0)
        lock.write().downgrade()


def _extended(kind: str, *arguments: Any) -> Call:
    def perform(store: kvsync.Store) -> None:
        it = mine(store, kind, *arguments)
        assert it.owned() or it.acquire(timeout=0)
        it.extend(_DAY)

    return Call(perform, _locked(kind, *arguments), holds=True)


def _forced(kind: str, *arguments: Any) -> Call:
    def perform(store: kvsync.Store) -> None:
        getattr(store, kind)("it", *arguments).force_release()

    prepare = partial(_leave_taken, kind=kind, arguments=arguments)
    return Call(perform, _recorded, prepare, holds=True)


def _resign(store: kvsync.Store) -> None:
    election = mine(store, "election")
    assert election.owned() or election.campaign(timeout=0)
    election.resign()


def _leave_taken(store: kvsync.Store, kind: str = "lock", arguments: Sequence[Any] = ()) -> None:
    """By a process that dies with it."""
    children.run(getattr(store, kind)("it", *arguments).acquire, traceback.print_exc)


_HELD = {
    "lock.acquire": _take("lock"),
    "lock.acquire from the dead": Call(
        _take("lock").perform, _locked("lock"), _leave_taken, holds=True
    ),
    "lock.release": _take_and_leave("lock"),
    "lock.extend": _extended("lock"),
    "lock.force_release": _forced("lock"),
    "rlock.acquire": _take("rlock"),
    "rlock.release": _take_and_leave("rlock"),
    "semaphore.acquire": _take("semaphore", 1),
    "semaphore.release": _take_and_leave("semaphore", 1),
    "semaphore.extend": _extended("semaphore", 1),
    "semaphore.force_release": _forced("semaphore", 1),
    "rwlock.read": _side("read"),
    "rwlock.write": _side("write"),
    "rwlock.downgrade": Call(_downgrade, _kinds, holds=True),
    "election.campaign": Call(
        lambda store: mine(store, "election").campaign(timeout=0),
        _locked("election"),
        holds=True,
        clean=True,
    ),
    "election.resign": Call(_resign, _locked("election"), holds=True),
}


# --- signals and the rest -----------------------------------------------------------------------


def _limiter(store: kvsync.Store) -> kvsync.RateLimiter:
    return store.rate_limiter("it", 5, per=_DAY)


def _notify(store: kvsync.Store) -> None:
    condition = store.condition("it")
    with condition:
        condition.notify_all()


_SIGNALS = {
    "event.set": Call(
        lambda store: store.event("it").set(), lambda store: store.event("it").is_set()
    ),
    "event.clear": Call(
        lambda store: store.event("it").clear(),
        lambda store: store.event("it").is_set(),
        lambda store: store.event("it").set(),
    ),
    "condition.notify_all": Call(_notify, lambda _store: None),
    "barrier.wait": Call(
        lambda store: store.barrier("it", 1).wait(0),
        lambda store: store.barrier("it", 1).broken,
    ),
    "barrier.abort": Call(
        lambda store: store.barrier("it", 1).abort(),
        lambda store: store.barrier("it", 1).broken,
    ),
    "barrier.reset": Call(
        lambda store: store.barrier("it", 1).reset(),
        lambda store: store.barrier("it", 1).broken,
        lambda store: store.barrier("it", 1).abort(),
    ),
    "once.run": Call(
        lambda store: store.once("it").run(lambda: 7), lambda store: store.once("it").done()
    ),
    "once.reset": Call(
        lambda store: store.once("it").reset(),
        lambda store: store.once("it").done(),
        lambda store: store.once("it").run(lambda: 7),
    ),
    "rate_limiter.try_acquire": Call(
        lambda store: _limiter(store).try_acquire(),
        lambda store: _limiter(store).stats().available,
    ),
    "rate_limiter.reset": Call(
        lambda store: _limiter(store).reset(),
        lambda store: _limiter(store).stats().available,
        lambda store: _limiter(store).try_acquire(3),
    ),
    "rate_limiter.acquire": Call(
        lambda store: _limiter(store).acquire(2, timeout=0),
        lambda store: _limiter(store).stats().available,
    ),
}


# --- queues -------------------------------------------------------------------------------------


def _queue(store: kvsync.Store) -> kvsync.Queue:
    return store.queue("it")


def _put_two(store: kvsync.Store) -> None:
    _queue(store).put_many(["first", "second"])


def _waiting(store: kvsync.Store) -> object:
    queue = _queue(store)
    waiting = [(_short(item.item), item.attempts) for item in queue.peek(9)]
    return waiting, len(queue.dead), queue.is_shutdown


def _on_queue(
    perform: Callable[[kvsync.Queue], object],
    prepare: Callable[[kvsync.Store], object] = _put_two,
) -> Call:
    return Call(lambda store: perform(_queue(store)), _waiting, prepare)


@cache
def _reserved(store: kvsync.Store) -> kvsync.Task:
    return _queue(store).reserve(timeout=0)


@cache
def _reserved_many(store: kvsync.Store) -> list[kvsync.Task]:
    return _queue(store).reserve_many(2, timeout=0)


def _on_task(perform: Callable[[kvsync.Task], object], **more: Any) -> Call:
    """An item in hand goes back when its process dies."""
    traits = {"holds": True, "keeps": 2} | more
    return Call(lambda store: perform(_reserved(store)), _waiting, _put_two, **traits)


def _bury_two(store: kvsync.Store) -> None:
    _put_two(store)
    for _ in range(2):
        _queue(store).reserve(timeout=0).bury()


_QUEUES = {
    "queue.put": _on_queue(lambda queue: queue.put(_LONG)),
    "queue.put(key, delay)": _on_queue(lambda queue: queue.put("late", delay=_DAY, key="k")),
    "queue.put_many": _on_queue(lambda queue: queue.put_many(["a", "b", "c"])),
    "queue.get": _on_queue(lambda queue: queue.get(timeout=0)),
    "queue.get_many": _on_queue(lambda queue: queue.get_many(2, timeout=0)),
    "queue.reserve": _on_task(lambda task: task, clean=True),
    "queue.reserve_many": Call(_reserved_many, _waiting, _put_two, holds=True, clean=True, keeps=2),
    "queue.task_done": Call(
        lambda store: _queue(store).task_done(),
        lambda store: _queue(store).unfinished_tasks,
        lambda store: (_put_two(store), _queue(store).get_many(2, timeout=0)),
    ),
    "task.ack": _on_task(lambda task: task.ack(), keeps=1),
    "task.retry": _on_task(lambda task: task.retry(delay=_DAY)),
    "task.bury": _on_task(lambda task: task.bury("no good")),
    "task.give_back": _on_task(lambda task: task.give_back()),
    "task.extend": _on_task(lambda task: task.extend(_DAY)),
    "queue.shutdown": _on_queue(lambda queue: queue.shutdown()),
    "queue.reopen": _on_queue(lambda queue: queue.reopen(), lambda s: _queue(s).shutdown()),
    "queue.purge": _on_queue(lambda queue: queue.purge()),
    "dead.redrive": _on_queue(lambda queue: queue.dead.redrive(), _bury_two),
    "dead.purge": _on_queue(lambda queue: queue.dead.purge(), _bury_two),
}

WAYS: dict[str, dict[str, Call]] = {
    SOUND: _STATE | _HELD | _SIGNALS | _QUEUES | lines.CALLS | legacy.CALLS,
    "separate-commits": {"transaction": Call(_several, _all_of_several)},
}
"""By the way of a scenario: all calls, and those that a broken twin makes in their place."""

PRIMITIVES = tuple(
    "store counter counters dict transaction lock rlock semaphore rwlock election event condition"
    " barrier once rate_limiter queue KeyValueSqlite".split()
)
"""What the calls are of."""

"""Every kind of call on a file that cannot be trusted: right data or kvsync's own error, always.

No call waits for long, and none is made before the last has returned.
"""

import queue
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import kvsync

_ANSWERS: dict[str, tuple[type[Exception], ...]] = {
    "dict.items": (KeyError,),
    "dict.get": (KeyError,),
    "dict.pop": (KeyError,),
    "queue.put": (queue.Full,),
    "queue.get": (queue.Empty,),
    "queue.reserve": (queue.Empty,),
}
"""What is not kvsync's own, and yet an answer, by the calls that are documented to give it: of
`d[key]` and `d.pop(key)`, for example, that the key is not there.
"""

_CODE = ("pickle.find_class", "os.system", "os.exec", "subprocess.Popen", "sqlite3.load_extension")
"""Audit events that say that the file had code run."""

_ran: list[str] = []


def watch_for_code() -> None:
    """From now on `code_that_ran` tells."""
    sys.addaudithook(lambda event, _: _ran.append(event) if event in _CODE else None)


def code_that_ran() -> list[str]:
    ran, _ran[:] = _ran[:], []
    return ran


class Probe:
    """What came of the calls on one file: how many gave what, and what was wrong."""

    def __init__(self, path: str, codec: str) -> None:
        self.path = path
        self._codec = codec
        self.tally: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.commits: list[Any] | None = None
        """What is found of those that were made one after the other; None where it is none."""

    def run(self) -> None:
        store = kvsync.open(self.path, busy_timeout=0.2)
        self._attempt("commits", lambda: self._read_commits(store))
        for name, call in _calls(store, self._codec):
            self._attempt(name, call)
        self._attempt("legacy", lambda: _use_legacy(self.path))
        self._attempt("close", store.close)
        code = code_that_ran()
        if code:
            self.wrong.append(f"code was run: {code}")

    def _read_commits(self, store: kvsync.Store) -> None:
        with store.transaction():
            found = list(store.dict("log").values())
            if len(found) == store.counter("last").value:
                self.commits = found

    def _attempt(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
            self.tally["ok"] += 1
        except Exception as error:
            if isinstance(error, (kvsync.KvsyncError, *_ANSWERS.get(name, ()))):
                self.tally[type(error).__name__] += 1
            else:
                self.wrong.append(f"{name} raised {traceback.format_exc()}")


def _calls(store: kvsync.Store, codec: str) -> Iterator[tuple[str, Callable[[], object]]]:
    entries = store.dict("entries", codec=codec)
    numbers, jobs = store.dict("numbers"), store.queue("jobs")
    yield "check", store.check
    yield "stats", store.stats
    for kind in ("dict", "counter", "counters", "rate_limiter", "once", "event", "barrier"):
        yield f"names({kind})", lambda kind=kind: store.names(kind)  # type: ignore[misc]
    yield "dict.items", lambda: _read_all(entries)
    yield "dict.get", lambda: entries["key 7"]
    yield "dict.set", lambda: entries.set("new", [1], ttl=60)
    yield "dict.pop", lambda: entries.pop("key 8")
    yield "dict.increment", lambda: numbers.increment("a")
    yield "dict.compare_and_set", lambda: numbers.compare_and_set("a", 1, 2)
    yield "dict.stats", entries.stats
    yield "counter.add", lambda: store.counter("hits").add()
    yield "counters", lambda: dict(store.counters("by"))
    yield "transaction", lambda: _transact(store)
    yield from _locks(store)
    yield "event", lambda: store.event("set").wait(0)
    yield "event.set", store.event("new").set
    yield "barrier", lambda: store.barrier("broken", 2).stats()
    yield "barrier.wait", lambda: store.barrier("new", 1).wait(0)
    yield "once", lambda: store.once("done").run(lambda: 1)
    yield "rate", lambda: store.rate_limiter("rate", 10, per=60).try_acquire()
    yield "rate.stats", lambda: store.rate_limiter("rate", 10, per=60).stats()
    yield "queue.stats", jobs.stats
    yield "queue.peek", lambda: jobs.peek(20)
    yield "queue.put", lambda: jobs.put("more")
    yield "queue.get", lambda: jobs.get(timeout=0.05)
    yield "queue.reserve", lambda: jobs.reserve(timeout=0.05).ack()
    yield "queue.dead", jobs.dead.list
    yield "queue.redrive", jobs.dead.redrive
    yield "queue.join", lambda: jobs.join(0)
    yield "queue.shutdown", jobs.shutdown
    yield "queue.purge", jobs.purge
    yield "delete", lambda: store.delete("dict", "entries")
    yield "reap", store.session.reap_all
    yield "backup", lambda: store.backup(store.path + "-backup")


def _locks(store: kvsync.Store) -> Iterator[tuple[str, Callable[[], object]]]:
    for lock in (
        store.lock("a lock"),
        store.rlock("a rlock"),
        store.lock("leased"),
        store.election("a election"),
        store.semaphore("sem", 3),
        store.rwlock("rw").write(),
        store.rwlock("rw").read(),
        store.lock("new"),
    ):
        name = repr(lock)
        yield f"{name}.stats", lock.stats
        yield f"{name}.acquire", lambda lock=lock: lock.acquire(timeout=0.05)  # type: ignore[misc]
        yield f"{name}.release", lock.release
    yield "condition", lambda: _notify(store)


def _notify(store: kvsync.Store) -> None:
    condition = store.condition("cond")
    if condition.acquire(timeout=0.05):
        condition.notify_all()
        condition.release()


def _read_all(entries: kvsync.Dict) -> None:
    """A value that cannot be read must not hide the others."""
    for key in entries:
        try:
            entries[key]
        except kvsync.DecodeError:
            continue


def _transact(store: kvsync.Store) -> None:
    with store.transaction():
        store.counter("hits").add()
        store.dict("numbers")["x"] = 1


def _use_legacy(path: str) -> None:
    with kvsync.KeyValueSqlite(path, "legacy", timeout=0.2) as legacy:
        legacy.set("a", 5)
        legacy.atomic_add("a", 1)
        assert legacy.get("a") == 6
        legacy.to_dict()

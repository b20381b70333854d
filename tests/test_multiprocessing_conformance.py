"""CPython's own tests of `multiprocessing`'s primitives, run on those of kvsync: fork and spawn."""

import itertools
import multiprocessing
import shutil
import tempfile
import unittest
from typing import Any, ClassVar

import pytest

import kvsync
from tests.cpython import differs, left_out, marked, own_tests

suites = own_tests("test._test_multiprocessing")

NOT_OURS = left_out("makes a queue of `multiprocessing` itself: it passes, whatever kvsync does")
DIFFERS: dict[str, dict[str, pytest.MarkDecorator]] = {
    "Semaphore": {
        "test_semaphore": differs("a semaphore is bounded: no permit is released that nobody took"),
        "test_timeout": differs(
            "a semaphore has at least one permit, and a call that does not block takes no timeout,"
            " as in threading"
        ),
    },
    "Event": {
        "test_repr": differs("a repr tells what an object is, without a look into the database"),
    },
    "Queue": {
        "test_no_import_lock_contention": NOT_OURS,
        "test_timeout": NOT_OURS,
        "test_queue_feeder_on_queue_feeder_error": NOT_OURS,
        "test_closed_queue_empty_exceptions": NOT_OURS,
        "test_closed_queue_put_get_exceptions": NOT_OURS,
        "test_queue_feeder_donot_stop_onexc": differs(
            "what cannot be stored is refused by `put` itself; there is no feeder thread"
        ),
    },
}
"""Each test that does not apply, and why. All the others pass, and those that are run do not."""


def nobody_waits(_: Any, condition: kvsync.Condition) -> None:
    assert condition.stats().waiters == ()


INSTEAD: dict[str, dict[str, tuple[Any, str]]] = {
    "Condition": {
        "Semaphore": (
            staticmethod(multiprocessing.Semaphore),
            "the tests of conditions count by semaphores that begin with no permit and are released"
            " by who took none: they are not what is tested, and ours are bounded, as above",
        ),
        "check_invariant": (
            nobody_waits,
            "it looks into what is private to CPython's class, whether anybody waits still; ours"
            " says so in its `stats`",
        ),
    },
}
"""What the tests of a kind use, and do not test, that is put in place of it, and why."""

_numbers = itertools.count()


class OnKvsync(suites.ProcessesMixin):  # type: ignore[misc]  # typeshed does not know it
    """What the suites make is made here, each object with a name of its own."""

    method: ClassVar[str]
    store: ClassVar[kvsync.Store]
    folder: ClassVar[str]
    before: ClassVar[str | None]
    Process: ClassVar[Any]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.before = multiprocessing.get_start_method(allow_none=True)
        multiprocessing.set_start_method(cls.method, force=True)
        cls.folder = tempfile.mkdtemp()
        cls.store = kvsync.open(f"{cls.folder}/store.db")

    @classmethod
    def tearDownClass(cls) -> None:
        multiprocessing.set_start_method(cls.before, force=True)
        left = [
            cls.store.engine.read(f"select * from kvsync_{table}") for table in ("ticket", "pledge")
        ]
        damage = cls.store.check().damage
        cls.store.close()
        shutil.rmtree(cls.folder)
        super().tearDownClass()
        assert left == [[], []]
        assert damage == ()

    @staticmethod
    def fresh() -> str:
        return f"name {next(_numbers)}"

    def Lock(self) -> kvsync.Lock:  # noqa: N802
        return self.store.lock(self.fresh())

    def RLock(self) -> kvsync.RLock:  # noqa: N802
        return self.store.rlock(self.fresh())

    def Semaphore(self, value: int = 1) -> kvsync.Semaphore:  # noqa: N802
        return self.store.semaphore(self.fresh(), value)

    BoundedSemaphore = Semaphore

    def Event(self) -> kvsync.Event:  # noqa: N802
        return self.store.event(self.fresh())

    def Condition(self) -> kvsync.Condition:  # noqa: N802
        return self.store.condition(self.fresh())

    def Queue(self, maxsize: int = 0) -> kvsync.Queue:  # noqa: N802
        return self.store.queue(self.fresh(), maxsize)

    JoinableQueue = Queue

    def Barrier(self, parties: int, action: Any = None, timeout: Any = None) -> kvsync.Barrier:  # noqa: N802
        return self.store.barrier(self.fresh(), parties, action=action, timeout=timeout)


def _make(kind: str, method: str) -> type[unittest.TestCase]:
    suite = getattr(suites, f"_Test{kind}")
    name = f"Test{kind}{'Forked' if method == 'fork' else 'Spawned'}"
    body = {
        "method": method,
        "__module__": __name__,
        **marked(suite, DIFFERS.get(kind, {})),
        **{part: instead for part, (instead, _) in INSTEAD.get(kind, {}).items()},
    }
    return type(name, (OnKvsync, suite, unittest.TestCase), body)


KINDS = ("Lock", "Semaphore", "Condition", "Event", "Barrier", "Queue")
# Children find the classes by their names in this module.
globals().update(
    (made.__name__, made) for made in (_make(k, m) for k in KINDS for m in ("fork", "spawn"))
)

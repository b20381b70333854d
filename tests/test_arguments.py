"""Bad input: refused with a telling error before anything is written, and before a file is made."""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import kvsync
from tests.test_kinds import BAD as BAD_NAMES
from tests.test_kinds import ODD as ODD_NAMES

NAN, INF = math.nan, math.inf

Make = Callable[..., Any]


class Kind(NamedTuple):
    """How one is made of a store and a name, and used from beginning to end."""

    make: Make
    use: Callable[[Any], object]


def hold(made: Any) -> None:
    """Take it, find it taken, and let go."""
    assert made.acquire(blocking=False)
    assert made.stats().holders[0].command
    assert made.owned()
    made.release()


def lead(election: Any) -> None:
    assert election.run(election.leader).pid


def tell(event: Any) -> None:
    assert not event.wait(0)
    event.set()
    assert event.wait(0)
    event.clear()


def notify(condition: Any) -> None:
    with condition:
        condition.notify_all()
        assert not condition.wait(0)


def meet(barrier: Any) -> None:
    assert barrier.wait() == 0


def take(limiter: Any) -> None:
    assert [limiter.try_acquire(n) for n in (2, 1)] == [True, False]
    limiter.reset()


def do(once: Any) -> None:
    assert once.run(lambda: "done") == once.run(pytest.fail) == "done"
    once.reset()


KINDS = {
    "lock": Kind(lambda store, *a, **k: store.lock(*a, **k), hold),
    "rlock": Kind(lambda store, *a, **k: store.rlock(*a, **k), hold),
    "semaphore": Kind(lambda store, *a, **k: store.semaphore(*a, 2, **k), hold),
    "read lock": Kind(lambda store, *a, **k: store.rwlock(*a, **k).read(), hold),
    "write lock": Kind(lambda store, *a, **k: store.rwlock(*a, **k).write(), hold),
    "election": Kind(lambda store, *a, **k: store.election(*a, **k), lead),
    "event": Kind(lambda store, *a: store.event(*a), tell),
    "condition": Kind(lambda store, *a: store.condition(*a), notify),
    "barrier": Kind(lambda store, *a, **k: store.barrier(*a, 1, **k), meet),
    "rate limiter": Kind(lambda store, *a: store.rate_limiter(*a, 2, per=1000), take),
    "once": Kind(lambda store, *a, **k: store.once(*a, **k), do),
}
LOCKS = ["lock", "rlock", "semaphore", "read lock", "write lock", "election"]

every = pytest.mark.parametrize("kind", KINDS)
locks = pytest.mark.parametrize("kind", LOCKS)


@pytest.fixture
def untouched(tmp_path: Path) -> Iterator[kvsync.Store]:
    """A store that is never written: there is no file, and nothing beside it."""
    with kvsync.open(tmp_path / "store.db") as store:
        yield store
        assert list(tmp_path.iterdir()) == []


@contextmanager
def unchanged(store: kvsync.Store) -> Iterator[None]:
    """No row of any table, and no table, is another afterwards."""
    before = contents(store)
    yield
    assert contents(store) == before


def contents(store: kvsync.Store) -> dict[str, Any]:
    tables = store.engine.read("select name, sql from sqlite_schema where type = 'table'")
    return {f"{name} {sql}": store.engine.read(f"select * from {name}") for name, sql in tables}


# --- times ------------------------------------------------------------------------------------

NO_TIMEOUTS: list[tuple[Any, type[Exception]]] = [
    (-2, ValueError),
    (-0.5, ValueError),
    (-INF, ValueError),
    (NAN, ValueError),
    (timedelta(seconds=-2), ValueError),
    (10**400, ValueError),
    (True, TypeError),
    (False, TypeError),
    ("1", TypeError),
    (b"1", TypeError),
    ([], TypeError),
    (1j, TypeError),
]
no_timeouts = pytest.mark.parametrize(("timeout", "error"), NO_TIMEOUTS, ids=repr)

NO_SECONDS: list[tuple[Any, type[Exception]]] = [
    *NO_TIMEOUTS,
    (0, ValueError),
    (0.0, ValueError),
    (-1, ValueError),
    (INF, ValueError),
    (timedelta(0), ValueError),
]
no_seconds = pytest.mark.parametrize(("seconds", "error"), NO_SECONDS, ids=repr)


def waits(store: kvsync.Store) -> dict[str, Callable[[Any], Any]]:
    """Every call that takes a timeout."""
    calls = {
        f"{kind}.acquire": lambda timeout, kind=kind: made(store, kind).acquire(timeout=timeout)
        for kind in [*LOCKS, "condition", "rate limiter"]
    }
    return calls | {
        "election.campaign": lambda timeout: store.election("e").campaign(timeout=timeout),
        "election.run": lambda timeout: store.election("e").run(pytest.fail, timeout=timeout),
        "once.run": lambda timeout: store.once("o").run(pytest.fail, timeout=timeout),
        "event.wait": lambda timeout: store.event("v").wait(timeout),
        "condition.wait": lambda timeout: store.condition("c").wait(timeout),
        "condition.wait_for": lambda timeout: store.condition("c").wait_for(pytest.fail, timeout),
        "barrier.wait": lambda timeout: store.barrier("b", 1).wait(timeout),
    }


WAITS = [f"{kind}.acquire" for kind in [*LOCKS, "condition", "rate limiter"]]
WAITS += ["election.campaign", "election.run", "once.run", "event.wait"]
WAITS += ["condition.wait", "condition.wait_for", "barrier.wait"]


def made(store: kvsync.Store, kind: str, name: str = "name") -> Any:
    return KINDS[kind].make(store, name)


@pytest.mark.parametrize("call", WAITS)
@no_timeouts
def test_what_is_no_timeout_is_refused(
    untouched: kvsync.Store, call: str, timeout: Any, error: type[Exception]
) -> None:
    """By every call that waits; True is no second."""
    with pytest.raises(error, match="timeout"):
        waits(untouched)[call](timeout)


@pytest.mark.parametrize(
    "call", ["event.wait", "condition.wait", "barrier.wait", "once.run", "election.run"]
)
def test_minus_one_is_for_ever_in_acquire_alone(untouched: kvsync.Store, call: str) -> None:
    """Elsewhere it is negative like any other, as in `queue`."""
    with pytest.raises(ValueError, match="timeout"):
        waits(untouched)[call](-1)


@pytest.mark.parametrize("block", [True, False])
@no_timeouts
def test_what_is_no_timeout_of_a_queue_is_refused(
    untouched: kvsync.Store, block: bool, timeout: Any, error: type[Exception]
) -> None:
    """Though it do not block; a timeout that is one is of no account then, as in `queue`."""
    jobs = untouched.queue("jobs")
    calls: list[Callable[[], object]] = [
        lambda: jobs.put("a", block, timeout),
        lambda: jobs.put_many("ab", block, timeout),
        lambda: jobs.put_many([], block, timeout),
        lambda: jobs.get(block, timeout),
        lambda: jobs.get_many(2, block, timeout),
        lambda: jobs.reserve(timeout),
        lambda: jobs.reserve_many(2, timeout),
        lambda: jobs.join(timeout),
    ]
    for call in calls:
        with pytest.raises(error, match="timeout"):
            call()


@pytest.mark.parametrize("kind", [*LOCKS, "barrier"])
@no_timeouts
def test_a_constructors_timeout_is_checked_at_once(
    untouched: kvsync.Store, kind: str, timeout: Any, error: type[Exception]
) -> None:
    """Not when it is first needed."""
    with pytest.raises(error, match="timeout"):
        KINDS[kind].make(untouched, "name", timeout=timeout)


@pytest.mark.parametrize("kind", [*LOCKS, "condition"])
@pytest.mark.parametrize("timeout", [0, 0.0, 1, 5.5, -2, NAN, INF, timedelta(seconds=1), True])
def test_a_call_that_does_not_block_takes_no_timeout(
    untouched: kvsync.Store, kind: str, timeout: Any
) -> None:
    """As in `threading`."""
    with pytest.raises(ValueError, match="timeout"):
        made(untouched, kind).acquire(blocking=False, timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        made(untouched, kind).acquire(False, timeout)


@pytest.mark.parametrize("call", ["acquire", "campaign"])
@pytest.mark.parametrize("blocking", [5, 0.5, -1, 2, 1.0, timedelta(seconds=1), "no", "", None, []])
def test_whether_to_block_is_a_bool(untouched: kvsync.Store, call: str, blocking: Any) -> None:
    """A number is meant for the timeout; it must not come to a wait for ever."""
    election = made(untouched, "election")
    with pytest.raises(TypeError, match="blocking is True or False") as caught:
        getattr(election, call)(blocking)
    hint = f"did you mean timeout={blocking!r}?" in str(caught.value)
    assert hint == isinstance(blocking, int | float | timedelta)


@pytest.mark.parametrize("kind", [*LOCKS, "condition"])
def test_zero_and_one_are_bools_as_in_threading(store: kvsync.Store, kind: str) -> None:
    """And what else there is, no kind takes."""
    lock = made(store, kind)
    for blocking in (0, 1):
        assert lock.acquire(blocking)
        lock.release()
    with pytest.raises(TypeError, match=r"timeout=5\?"):
        lock.acquire(5)


@locks
def test_a_call_that_does_not_block_may_say_for_ever(store: kvsync.Store, kind: str) -> None:
    """-1 and None are the defaults of others, and passed on by wrappers."""
    lock = made(store, kind)
    for timeout in (-1, None):
        assert lock.acquire(False, timeout)
        lock.release()


@locks
@no_seconds
def test_what_is_no_lease_is_refused(
    untouched: kvsync.Store, kind: str, seconds: Any, error: type[Exception]
) -> None:
    """None is: to be held until it is released."""
    with pytest.raises(error, match="lease"):
        KINDS[kind].make(untouched, "name", lease=seconds)


@locks
@no_seconds
def test_a_lease_is_extended_by_a_time(
    store: kvsync.Store, kind: str, seconds: Any, error: type[Exception]
) -> None:
    """What is none changes nothing of the grant."""
    lock = KINDS[kind].make(store, "name", lease=1000)
    assert lock.acquire()
    with unchanged(store), pytest.raises(error, match="seconds"):
        lock.extend(seconds)
    lock.release()


@no_seconds
def test_a_period_is_a_time(untouched: kvsync.Store, seconds: Any, error: type[Exception]) -> None:
    """Of a rate limiter, which needs one, and of what is done once in each; so is its lease."""
    with pytest.raises(error, match="per"):
        untouched.rate_limiter("name", 1, per=seconds)
    with pytest.raises(error, match="per"):
        untouched.once("name", per=seconds)
    with pytest.raises(error, match="lease"):
        untouched.once("name", lease=seconds)
    with pytest.raises(TypeError):
        untouched.rate_limiter("name", 1, per=None)  # type: ignore[arg-type]


# --- numbers ----------------------------------------------------------------------------------

NO_COUNTS: list[tuple[Any, type[Exception]]] = [
    (0, ValueError),
    (-1, ValueError),
    (2**31, ValueError),
    (10**400, ValueError),
    (NAN, TypeError),
    (INF, TypeError),
    (1.0, TypeError),
    (1.5, TypeError),
    (True, TypeError),
    (False, TypeError),
    ("1", TypeError),
    (None, TypeError),
    ([], TypeError),
]
no_counts = pytest.mark.parametrize("case", NO_COUNTS, ids=lambda case: repr(case[0])[:20])


def limits(store: kvsync.Store) -> dict[str, Callable[[Any], Any]]:
    """Every argument that is a number of units, permits or parties."""
    semaphore = store.semaphore("s", 3)
    limiter = store.rate_limiter("r", 3, per=1)
    return {
        "semaphore limit": lambda n: store.semaphore("s", n),
        "permits to acquire": lambda n: semaphore.acquire(n=n),
        "permits to release": semaphore.release,
        "rate limit": lambda n: store.rate_limiter("r", n, per=1),
        "burst": lambda n: store.rate_limiter("r", 1, per=1, burst=n if n is not None else ""),
        "units to acquire": limiter.acquire,
        "units to try": limiter.try_acquire,
        "units to ask for": limiter.retry_after,
        "parties": lambda n: store.barrier("b", n),
        "waiters to notify": store.condition("c").notify,
    }


LIMITS = ["semaphore limit", "permits to acquire", "permits to release", "rate limit", "burst"]
LIMITS += ["units to acquire", "units to try", "units to ask for", "parties", "waiters to notify"]


@pytest.mark.parametrize("argument", LIMITS)
@no_counts
def test_what_is_no_count_is_refused(
    untouched: kvsync.Store, argument: str, case: tuple[Any, type[Exception]]
) -> None:
    """Counts are ints above zero; True is none."""
    value, error = case
    with pytest.raises(error):
        limits(untouched)[argument](value)


def test_more_than_there_ever_is_is_refused_at_once(untouched: kvsync.Store) -> None:
    """Instead of a wait for ever, or a False that could be taken for a timeout."""
    semaphore = untouched.semaphore("s", 3)
    limiter = untouched.rate_limiter("r", 5, per=1, burst=3)
    for call in (
        lambda: semaphore.acquire(n=4),
        lambda: semaphore.acquire(timeout=0, n=4),
        lambda: limiter.acquire(4),
        lambda: limiter.try_acquire(4),
        lambda: limiter.retry_after(4),
    ):
        with pytest.raises(ValueError, match="never"):
            call()


# --- what is not held -------------------------------------------------------------------------


@locks
def test_what_is_not_held_cannot_be_given_back(untouched: kvsync.Store, kind: str) -> None:
    """Nor extended, nor vouched for."""
    lock = made(untouched, kind)
    for call in (lock.release, lock.ensure_held, lambda: lock.extend(1)):
        with pytest.raises(kvsync.NotOwnedError) as caught:
            call()
        assert isinstance(caught.value, RuntimeError)
    assert not lock.owned()
    assert lock.token is None


def test_nor_what_is_a_leaders_a_writers_or_a_conditions(untouched: kvsync.Store) -> None:
    """By whatever name it is given back."""
    condition = untouched.condition("c")
    for call in (
        untouched.election("e").resign,
        untouched.rwlock("w").write().downgrade,
        condition.release,
        condition.wait,
    ):
        with pytest.raises(kvsync.NotOwnedError):
            call()


def test_nobody_notifies_without_the_lock(store: kvsync.Store) -> None:
    """Nothing is written."""
    condition = store.condition("c")
    for call in (condition.notify, condition.notify_all):
        with unchanged(store), pytest.raises(kvsync.NotOwnedError):
            call()


@pytest.mark.parametrize("kind", [kind for kind in LOCKS if kind != "rlock"])
def test_what_another_object_holds_stays_held(store: kvsync.Store, kind: str) -> None:
    """Though it has the same name, and is in the same thread. (An rlock is its thread's.)"""
    lock, other = made(store, kind), made(store, kind)
    assert lock.acquire()
    with unchanged(store), pytest.raises(kvsync.NotOwnedError):
        other.release()
    lock.release()
    with unchanged(store), pytest.raises(kvsync.NotOwnedError):
        lock.release()


def test_more_permits_than_were_acquired_stay(store: kvsync.Store) -> None:
    """None of them is given back."""
    semaphore, other = store.semaphore("s", 5), store.semaphore("s", 5)
    assert semaphore.acquire(n=2)
    assert other.acquire(n=2)
    with unchanged(store), pytest.raises(kvsync.OverReleaseError):
        semaphore.release(3)
    semaphore.release(2)
    other.release(2)


@pytest.mark.parametrize("kind", [*LOCKS, "event", "condition", "barrier", "rate limiter", "once"])
def test_what_would_wait_is_refused_in_a_transaction(store: kvsync.Store, kind: str) -> None:
    """And leaves nothing in it."""
    limiter = made(store, "rate limiter")
    assert limiter.try_acquire(2)
    with made(store, "condition"):
        condition = made(store, "condition")
        calls: dict[str, Callable[[], Any]] = {
            "event": lambda: made(store, "event").wait(1),
            "condition": lambda: condition.wait(1),
            "barrier": lambda: made(store, "barrier").wait(),
            "rate limiter": limiter.acquire,
            "once": lambda: made(store, "once").run(pytest.fail),
        }
        with unchanged(store), store.transaction(), pytest.raises(kvsync.TransactionError):
            calls.get(kind, lambda: made(store, kind, "other").acquire())()


# --- names and the rest -----------------------------------------------------------------------


@every
@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_bad_name_is_refused_at_once(untouched: kvsync.Store, kind: str, name: str) -> None:
    """Empty, too long, or what the database could not hold as it is."""
    with pytest.raises(kvsync.InvalidNameError) as caught:
        made(untouched, kind, name)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 500


@every
@pytest.mark.parametrize("name", [None, 1, True, b"name", ["name"], Path("name")])
def test_a_name_is_text(untouched: kvsync.Store, kind: str, name: Any) -> None:
    """A TypeError for anything else."""
    with pytest.raises(TypeError):
        made(untouched, kind, name)


@every
@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_an_odd_name_is_a_name_like_any_other(store: kvsync.Store, kind: str, name: str) -> None:
    """Quoted, never interpreted: it works, and the tables are as they were."""
    tables = "select name, sql from sqlite_schema order by name"
    before = store.engine.read(tables)
    thing = made(store, kind, name)
    assert thing.name == name
    KINDS[kind].use(thing)
    KINDS[kind].use(made(store, kind, "plain"))
    assert thing.stats().name == name
    assert store.engine.read(tables) == before


@pytest.mark.parametrize("func", [None, 1, "name", b"", [], object()])
def test_what_cannot_be_called_is_not_run(untouched: kvsync.Store, func: Any) -> None:
    """Told before anybody waits for it."""
    for made in (untouched.once("name"), untouched.election("name")):
        with pytest.raises(TypeError, match="something to call"):
            made.run(func)


def test_options_are_keywords(untouched: kvsync.Store) -> None:
    """A lease taken for a timeout would be a bug that shows late."""
    makers: dict[Callable[..., Any], tuple[Any, ...]] = {
        untouched.lock: (),
        untouched.rlock: (),
        untouched.rwlock: (),
        untouched.election: (),
        untouched.once: (),
        untouched.semaphore: (1,),
        untouched.rate_limiter: (1,),
        untouched.barrier: (1,),
    }
    for make, arguments in makers.items():
        with pytest.raises(TypeError):
            make("name", *arguments, 5)


def test_every_kind_is_under_test_here() -> None:
    """Whatever the store makes that takes a name."""
    others = {"dict", "counter", "counters", "names", "delete", "queue"}
    found = {
        name
        for name, method in inspect.getmembers(kvsync.Store, inspect.isfunction)
        if not name.startswith("_") and "name" in inspect.signature(method).parameters
    }
    tested = {kind.replace("rate limiter", "rate_limiter") for kind in KINDS}
    assert found - others == tested - {"read lock", "write lock"} | {"rwlock"}

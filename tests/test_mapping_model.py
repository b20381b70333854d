"""Random sequences of calls, against a plain dict that does the same."""

import itertools
import json
import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import kvsync
from kvsync.testing import ManualClock
from tests.undone import undone

SETTINGS = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)

KEYS = st.sampled_from(["", "a", "aa", "ab", "b", "é", "\ud7ff", "\ue000", "🙂", "\U0010ffff"])
NUMBERS = st.sampled_from([0, 1, -1, 5, 0.5, -1.5, 1e308, 2**62, -(2**62), 2**63 - 1, -(2**63)])
VALUES = st.one_of(
    NUMBERS,
    st.sampled_from([None, True, "text", "", [1, [2]], {"a": {"b": 1}}, 2**70, 10**400]),
)
BOUNDS = st.none() | KEYS
TTL = st.none() | st.sampled_from([1, 2.5, 10])


class ModelDict:
    """What a dict with an end to its entries does, in the plainest way."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.entries: dict[str, tuple[Any, float | None]] = {}

    def live(self) -> dict[str, Any]:
        now = self.clock.wall()
        return {
            key: value
            for key, (value, expires) in sorted(self.entries.items())
            if expires is None or expires > now
        }

    def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        self.entries[key] = deepcopy(value), None if ttl is None else self.clock.wall() + ttl

    def replace(self, key: str, value: Any) -> None:
        expires = self.entries[key][1] if key in self.live() else None
        self.entries[key] = deepcopy(value), expires

    def get(self, key: str, default: Any) -> Any:
        return self.live().get(key, default)

    def getitem(self, key: str) -> Any:
        return self.live()[key]

    def contains(self, key: str) -> bool:
        return key in self.live()

    def delete(self, key: str) -> None:
        self.getitem(key)
        del self.entries[key]

    def ttl(self, key: str) -> float | None:
        self.getitem(key)
        expires = self.entries[key][1]
        return None if expires is None else expires - self.clock.wall()

    def pop(self, key: str) -> Any:
        value = self.getitem(key)
        del self.entries[key]
        return value

    def pop_default(self, key: str, default: Any) -> Any:
        return self.pop(key) if self.contains(key) else default

    def popitem(self) -> tuple[str, Any]:
        key = min(self.live(), default=None)
        if key is None:
            raise KeyError
        return key, self.pop(key)

    def setdefault(self, key: str, default: Any) -> Any:
        if not self.contains(key):
            self.set(key, default)
        return self.getitem(key)

    def compare_and_set(self, key: str, expected: Any, new: Any) -> bool:
        current = self.live().get(key, kvsync.MISSING)
        if current is not expected and current != expected:
            return False
        if new is not kvsync.MISSING:
            self.replace(key, new)
        elif current is not kvsync.MISSING:
            del self.entries[key]
        return True

    def increment_many(self, amounts: dict[str, float]) -> dict[str, Any]:
        sums = {key: total(self.get(key, 0), by) for key, by in amounts.items()}
        for key, value in sums.items():
            self.replace(key, value)
        return sums

    def increment(self, key: str, by: float) -> Any:
        return self.increment_many({key: by})[key]

    def get_many(self, keys: list[str]) -> dict[str, Any]:
        live = self.live()
        return {key: live[key] for key in dict.fromkeys(keys) if key in live}

    def set_many(self, items: dict[str, Any], ttl: float | None) -> None:
        for key, value in items.items():
            self.set(key, value, ttl)

    def update(self, items: dict[str, Any]) -> None:
        self.set_many(items, None)

    def clear(self) -> None:
        self.entries.clear()

    def range(
        self, low: str | None, high: str | None, reverse: bool, limit: int | None
    ) -> list[tuple[str, Any]]:
        items = [
            (key, value)
            for key, value in self.live().items()
            if (low is None or key >= low) and (high is None or key < high)
        ]
        return (items[::-1] if reverse else items)[:limit]

    def prefix(self, prefix: str) -> list[str]:
        return [key for key in self.live() if key.startswith(prefix)]


class RealDict:
    """The same calls, on the real one."""

    def __init__(self, d: kvsync.Dict) -> None:
        self.d = d

    def __getattr__(self, name: str) -> Any:
        return getattr(self.d, name)

    def getitem(self, key: str) -> Any:
        return self.d[key]

    def contains(self, key: str) -> bool:
        return key in self.d

    def delete(self, key: str) -> None:
        del self.d[key]

    def pop_default(self, key: str, default: Any) -> Any:
        return self.d.pop(key, default)

    def range(
        self, low: str | None, high: str | None, reverse: bool, limit: int | None
    ) -> list[tuple[str, Any]]:
        found = self.d.range(low, high, reverse=reverse, limit=limit)
        items = list(found.items())
        assert list(found) == [key for key, _ in items]
        return items

    def prefix(self, prefix: str) -> list[str]:
        return list(self.d.prefix(prefix))


def total(old: Any, by: float) -> float:
    if isinstance(old, bool) or not isinstance(old, int | float):
        raise TypeError
    found = old + by  # of an int and a float: OverflowError
    fits = math.isfinite(found) if isinstance(found, float) else -(2**63) <= found < 2**63
    if not fits:
        raise OverflowError
    return found


Call = tuple[str, tuple[Any, ...]]

CALLS: st.SearchStrategy[Call] = st.one_of(
    st.tuples(st.just("set"), st.tuples(KEYS, VALUES, TTL)),
    st.tuples(st.just("set"), st.tuples(KEYS, VALUES)),
    st.tuples(st.just("get"), st.tuples(KEYS, VALUES)),
    st.tuples(st.sampled_from(["getitem", "contains", "delete", "ttl", "pop"]), st.tuples(KEYS)),
    st.tuples(st.sampled_from(["pop_default", "setdefault"]), st.tuples(KEYS, VALUES)),
    st.tuples(st.sampled_from(["popitem", "popitem", "popitem", "clear"]), st.just(())),
    st.tuples(
        st.just("compare_and_set"),
        st.tuples(KEYS, VALUES | st.just(kvsync.MISSING), VALUES | st.just(kvsync.MISSING)),
    ),
    st.tuples(st.just("increment"), st.tuples(KEYS, NUMBERS)),
    st.tuples(st.just("increment_many"), st.tuples(st.dictionaries(KEYS, NUMBERS, max_size=4))),
    st.tuples(st.just("get_many"), st.tuples(st.lists(KEYS, max_size=5))),
    st.tuples(st.just("set_many"), st.tuples(st.dictionaries(KEYS, VALUES, max_size=4), TTL)),
    st.tuples(st.just("update"), st.tuples(st.dictionaries(KEYS, VALUES, max_size=4))),
    st.tuples(
        st.just("range"),
        st.tuples(BOUNDS, BOUNDS, st.booleans(), st.none() | st.integers(0, 12)),
    ),
    st.tuples(st.just("prefix"), st.tuples(KEYS)),
)


def outcome(target: Any, call: Call) -> str:
    """What a call gives or raises, told exactly: `1`, `1.0` and `True` differ."""
    name, arguments = call
    try:
        return repr(getattr(target, name)(*arguments))
    except (KeyError, TypeError, OverflowError) as error:
        return next(
            k.__name__ for k in (KeyError, TypeError, OverflowError) if isinstance(error, k)
        )


class DictMachine(RuleBasedStateMachine):
    """One dict, sometimes changed inside transactions, some of which do not come to pass."""

    store: kvsync.Store
    clock: ManualClock
    fresh: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.real = RealDict(self.store.dict(self.fresh()))
        self.neighbour = self.store.dict(self.real.d.name + "'")
        self.neighbour["a"] = "untouched"
        self.model = ModelDict(self.clock)

    @rule(call=CALLS)
    def one(self, call: Call) -> None:
        assert outcome(self.real, call) == outcome(self.model, call)

    @rule(calls=st.lists(CALLS, min_size=1, max_size=5))
    def together(self, calls: list[Call]) -> None:
        with self.store.transaction():
            for call in calls:
                self.one(call)

    @rule(calls=st.lists(CALLS, min_size=1, max_size=5))
    def together_in_vain(self, calls: list[Call]) -> None:
        before = dict(self.model.entries)
        with undone(self.store):
            for call in calls:
                self.one(call)
        self.model.entries = before

    @rule(kept=st.lists(CALLS, max_size=3), lost=st.lists(CALLS, min_size=1, max_size=3))
    def half_in_vain(self, kept: list[Call], lost: list[Call]) -> None:
        with self.store.transaction():
            self.together_in_vain(lost)
            for call in kept:
                self.one(call)

    @precondition(lambda self: self.model.entries)
    @rule(seconds=st.sampled_from([0.5, 1, 1.5, 10]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def they_are_alike(self) -> None:
        live = self.model.live()
        assert json.dumps(dict(self.real.items())) == json.dumps(live)
        assert len(self.real.d) == len(live)
        assert list(reversed(self.real.d)) == list(live)[::-1]
        assert self.real.d.stats().expiring == sum(
            self.model.entries[key][1] is not None for key in live
        )
        assert self.neighbour == {"a": "untouched"}


MIN, MAX = -(2**63), 2**63 - 1
STEPS = st.sampled_from([0, 1, -1, 7, 2**62, MAX, MIN, MAX + 1, 2**64 - 1, -(2**64), 2**200])
LABELS = st.sampled_from(["a", "b", "é", "🙂"])


class CounterMachine(RuleBasedStateMachine):
    """A family and a counter on its own, against a dict of ints; `None` stands for the latter."""

    store: kvsync.Store
    fresh: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.family = self.store.counters(self.fresh())
        self.single = self.store.counter(self.fresh())
        self.model: dict[str | None, int] = {}

    def counter(self, label: str | None) -> kvsync.Counter:
        return self.single if label is None else self.family.counter(label)

    def change(self, label: str | None, to: int, call: Callable[[], Any]) -> None:
        """The call gives `to`, or refuses where that exceeds 64 bits."""
        if MIN <= to <= MAX:
            assert call() in (to, None)
            self.model[label] = to
        else:
            with pytest.raises(OverflowError):
                call()

    @rule(label=st.none() | LABELS, n=STEPS)
    def add(self, label: str | None, n: int) -> None:
        to = self.model.get(label, 0) + n
        self.change(label, to, lambda: self.counter(label).add(n))

    @rule(label=st.none() | LABELS, n=STEPS)
    def sub(self, label: str | None, n: int) -> None:
        to = self.model.get(label, 0) - n
        self.change(label, to, lambda: self.counter(label).sub(n))

    @rule(label=LABELS, n=STEPS)
    def add_to_the_family(self, label: str, n: int) -> None:
        to = self.model.get(label, 0) + n
        self.change(label, to, lambda: self.family.add(label, n))

    @rule(label=st.none() | LABELS, n=STEPS)
    def set(self, label: str | None, n: int) -> None:
        self.change(label, n, lambda: self.counter(label).set(n))

    @rule(label=st.none() | LABELS)
    def reset(self, label: str | None) -> None:
        assert self.counter(label).reset() == self.model.get(label, 0)
        if label in self.model:
            self.model[label] = 0

    @rule(label=st.none() | LABELS, expected=st.none() | STEPS, new=STEPS)
    def compare_and_set(self, label: str | None, expected: int | None, new: int) -> None:
        value = self.model.get(label, 0)
        expected = value if expected is None else expected
        if not MIN <= new <= MAX:
            with pytest.raises(OverflowError):
                self.counter(label).compare_and_set(expected, new)
            return
        assert self.counter(label).compare_and_set(expected, new) == (value == expected)
        if value == expected:
            self.model[label] = new

    @rule(amounts=st.dictionaries(LABELS, STEPS, max_size=4))
    def add_many(self, amounts: dict[str, int]) -> None:
        sums = {label: self.model.get(label, 0) + n for label, n in amounts.items()}
        if all(MIN <= value <= MAX for value in sums.values()):
            self.family.add_many(amounts)
            self.model.update(sums)
        else:
            with pytest.raises(OverflowError):
                self.family.add_many(amounts)

    @rule(
        steps=st.lists(st.tuples(st.none() | LABELS, STEPS), min_size=1, max_size=4),
        amounts=st.dictionaries(LABELS, STEPS, max_size=4),
        stands=st.booleans(),
    )
    def together(
        self, steps: list[tuple[str | None, int]], amounts: dict[str, int], stands: bool
    ) -> None:
        before = dict(self.model)
        with self.store.transaction() if stands else undone(self.store):
            for label, n in steps:
                self.add(label, n)
            self.add_many(amounts)
            self.reset(steps[0][0])
        if not stands:
            self.model = before

    @rule()
    def clear(self) -> None:
        self.family.clear()
        self.model = {None: self.model.get(None, 0)}

    @invariant()
    def they_are_alike(self) -> None:
        labels = {label: value for label, value in self.model.items() if label is not None}
        assert dict(self.family.items()) == self.family == labels
        assert list(self.family) == sorted(labels)
        assert len(self.family) == len(labels)
        assert self.single.value == self.model.get(None, 0)


@pytest.mark.parametrize("machine", [DictMachine, CounterMachine])
def test_random_calls_do_what_the_model_does(
    tmp_path: Any, machine: type[RuleBasedStateMachine]
) -> None:
    clock = ManualClock()
    names = (f"name {i}" for i in itertools.count())
    with kvsync.open(tmp_path / "store.db", clock=clock, durability="none") as store:
        within = {"store": store, "clock": clock, "fresh": staticmethod(lambda: next(names))}
        case = type(machine.__name__, (machine,), within).TestCase
        case.settings = SETTINGS
        case("runTest").runTest()
        assert store.check().damage == ()

"""Counters and families of them: 64 bits, all or nothing, and no add lost."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

import kvsync
from tests.crowds import PROCESSES, ROUNDS, use_counters
from tests.processes import run_all
from tests.undone import undone

MIN, MAX = -(2**63), 2**63 - 1


@pytest.fixture
def c(store: kvsync.Store) -> kvsync.Counter:
    return store.counter("c")


@pytest.fixture
def family(store: kvsync.Store) -> kvsync.Counters:
    return store.counters("f")


def faces(store: kvsync.Store, start: int | None) -> list[kvsync.Counter]:
    """A counter and a label, at `start`, or never touched."""
    made = [store.counter("c"), store.counters("f").counter("c")]
    for counter in made:
        if start is not None:
            counter.set(start)
    return made


# --- one counter ----------------------------------------------------------------------------------


def test_a_counter_begins_at_zero(store: kvsync.Store, c: kvsync.Counter) -> None:
    assert c.value == 0
    assert int(c) == 0
    assert store.names("counter") == []


def test_adding_returns_the_new_value(c: kvsync.Counter) -> None:
    assert c.add() == 1
    assert c.add(5) == 6
    assert c.add(-10) == -4
    assert c.add(0) == -4
    assert c.sub() == -5
    assert c.sub(-5) == 0
    assert c.value == 0


def test_a_counter_reads_as_an_int(c: kvsync.Counter) -> None:
    c.add(2)
    assert int(c) == 2
    assert ["a", "b", "c"][c] == "c"
    assert f"{int(c):03}" == "002"


def test_adding_in_place_keeps_the_counter(c: kvsync.Counter) -> None:
    same = c
    c += 3
    c -= 1
    assert c is same
    assert c.value == 2
    with pytest.raises(TypeError):
        c += 1.0  # type: ignore[arg-type]


def test_reset_returns_what_it_was(c: kvsync.Counter) -> None:
    assert c.reset() == 0
    c.set(-7)
    assert c.reset() == -7
    assert c.reset() == 0
    assert c.value == 0


def test_compare_and_set_of_a_counter(c: kvsync.Counter) -> None:
    assert not c.compare_and_set(1, 2)
    assert c.value == 0
    assert c.compare_and_set(0, 5)
    assert not c.compare_and_set(0, 6)
    assert not c.compare_and_set(2**70, 6)
    assert c.compare_and_set(5, MIN)
    assert c.value == MIN


# --- 64 bits --------------------------------------------------------------------------------------

STARTS = [None, MIN, MIN + 1, -2, -1, 0, 1, 2, MAX - 1, MAX]
STEPS = [0, 1, 2, MAX - 1, MAX, MAX + 1, 2**64 - 1, 2**64, 2**200]


@pytest.mark.parametrize("start", STARTS)
def test_a_sum_is_exact_or_refused_from_every_starting_point(
    store: kvsync.Store, start: int | None
) -> None:
    """In both directions, by both verbs, on both faces."""
    for n in {sign * step for step in STEPS for sign in (1, -1)}:
        for verb, expected in (("add", (start or 0) + n), ("sub", (start or 0) - n)):
            for counter in faces(store, start):
                if MIN <= expected <= MAX:
                    assert getattr(counter, verb)(n) == expected
                    assert counter.value == expected
                else:
                    with pytest.raises(OverflowError) as caught:
                        getattr(counter, verb)(n)
                    assert isinstance(caught.value, kvsync.CounterOverflowError)
                    assert counter.value == (start or 0)
                if start is None:
                    store.delete("counter", "c")
                    store.delete("counters", "f")


def test_an_overflow_does_not_make_the_counter(store: kvsync.Store, c: kvsync.Counter) -> None:
    for n in (MAX + 1, MIN - 1):
        with pytest.raises(OverflowError):
            c.add(n)
        with pytest.raises(OverflowError):
            c.set(n)
        with pytest.raises(OverflowError):
            c.compare_and_set(0, n)
    assert store.names("counter") == []


NO_INT = [True, False, 1.0, float("nan"), "1", b"1", None, [1], 1j]


@pytest.mark.parametrize("n", NO_INT, ids=repr)
def test_what_is_no_int_is_a_type_error_and_changes_nothing(
    store: kvsync.Store, family: kvsync.Counters, n: Any
) -> None:
    for counter in faces(store, 5):
        for attempt in (
            lambda counter=counter: counter.add(n),
            lambda counter=counter: counter.sub(n),
            lambda counter=counter: counter.set(n),
            lambda counter=counter: counter.compare_and_set(5, n),
            lambda counter=counter: counter.compare_and_set(n, 5),
            lambda: family.add("c", n),
            lambda: family.add_many({"a": 1, "c": n}),
        ):
            with pytest.raises(TypeError):
                attempt()
        assert counter.value == 5
    assert dict(family) == {"c": 5}


def test_subclasses_of_int_are_ints(c: kvsync.Counter) -> None:
    class Size(IntEnum):
        LARGE = 3

    assert c.add(Size.LARGE) == 3
    assert c.sub(Size.LARGE) == 0
    c.set(Size.LARGE)
    assert type(c.value) is int


# --- families -------------------------------------------------------------------------------------


def test_a_family_is_a_mapping_of_what_was_added(family: kvsync.Counters) -> None:
    assert isinstance(family, Mapping)
    assert family["never"] == family.get("never") == 0
    assert "never" not in family
    assert not family
    family.add("b", 2)
    family.add("a")
    assert dict(family) == family == {"a": 1, "b": 2}
    assert list(family) == list(family.keys()) == ["a", "b"]
    assert list(family.values()) == [1, 2]
    assert list(family.items()) == [("a", 1), ("b", 2)]
    assert ("b", 2) in family.items()
    assert 2 in family.values()
    assert len(family) == 2
    assert "b" in family
    family.clear()
    assert family == {}


@pytest.mark.parametrize("size", [255, 256, 257, 600])
def test_a_family_is_seen_whole_wherever_its_pages_end(family: kvsync.Counters, size: int) -> None:
    counts = {f"{i:04}": i for i in range(size)}
    family.add_many(counts)
    assert dict(family.items()) == counts
    assert list(family) == sorted(counts)
    assert len(family) == size


def test_a_label_is_a_counter(family: kvsync.Counters) -> None:
    label = family.counter("GET /")
    assert label.add(2) == 2
    assert family.add("GET /") == 3
    assert label.value == family["GET /"] == 3
    assert label.reset() == 3
    assert dict(family) == {"GET /": 0}


@pytest.mark.parametrize("label", [1, None, b"label", ("a",)])
def test_a_label_that_is_no_text_is_a_type_error(family: kvsync.Counters, label: Any) -> None:
    for attempt in (
        lambda: family[label],
        lambda: label in family,
        lambda: family.add(label),
        lambda: family.add_many({"a": 1, label: 1}),
        lambda: family.counter(label),
    ):
        with pytest.raises(TypeError):
            attempt()
    assert dict(family) == {}


def test_add_many_is_one_commit(family: kvsync.Counters) -> None:
    family.add_many({"a": 1, "b": -2})
    family.add_many({})
    family.add_many({"a": 1})
    assert dict(family) == {"a": 2, "b": -2}


def test_an_overflow_in_the_middle_of_add_many_changes_nothing(family: kvsync.Counters) -> None:
    family.add("full", MAX)
    with pytest.raises(OverflowError, match="full"):
        family.add_many({"a": 1, "full": 1, "z": 1})
    assert dict(family) == {"full": MAX}


def test_an_overflow_caught_inside_a_transaction_undoes_add_many_alone(
    store: kvsync.Store, family: kvsync.Counters
) -> None:
    family.add("full", MAX)
    with store.transaction():
        family.add("before")
        with pytest.raises(OverflowError):
            family.add_many({"a": 1, "full": 1, "z": 1})
        with pytest.raises(OverflowError):
            family.add("full")
        family.add("after")
    assert dict(family) == {"after": 1, "before": 1, "full": MAX}


def test_two_names_do_not_mix(store: kvsync.Store) -> None:
    """A counter on its own is apart from every label, families from each other."""
    store.counter("a").add(1)
    store.counter("b").add(2)
    store.counters("a").add("a", 3)
    store.counters("a").add("b", 4)
    store.counters("b").add("a", 5)
    assert [store.counter(name).value for name in "ab"] == [1, 2]
    assert dict(store.counters("a")) == {"a": 3, "b": 4}
    assert dict(store.counters("b")) == {"a": 5}
    store.counters("a").clear()
    assert store.counter("a").value == 1
    assert dict(store.counters("b")) == {"a": 5}
    with pytest.raises(kvsync.InvalidNameError):
        store.counters("")


# --- transactions ---------------------------------------------------------------------------------


def test_a_transaction_of_counters_is_all_or_nothing(
    store: kvsync.Store, c: kvsync.Counter, family: kvsync.Counters
) -> None:
    c.set(5)
    with undone(store):
        assert c.add(2) == 7
        assert c.reset() == 7
        assert c.compare_and_set(0, 9)
        family.add_many({"a": 1})
        assert (c.value, dict(family)) == (9, {"a": 1})
    assert (c.value, dict(family)) == (5, {})
    with store.transaction():
        c.add(2)
        family.add("a")
    assert (c.value, dict(family)) == (7, {"a": 1})


def test_an_overflow_inside_a_transaction_leaves_the_rest(
    store: kvsync.Store, c: kvsync.Counter
) -> None:
    other = store.counter("other")
    c.set(MAX)
    with store.transaction():
        other.add()
        for n in (1, 2**64):
            with pytest.raises(OverflowError):
                c.add(n)
        other.add()
    assert (c.value, other.value) == (MAX, 2)


# --- the object -----------------------------------------------------------------------------------


def test_stats_are_frozen(c: kvsync.Counter, family: kvsync.Counters) -> None:
    c.add(2)
    family.add_many({"a": 1, "b": 1})
    assert (c.stats().name, c.stats().value) == ("c", 2)
    assert (family.stats().name, family.stats().labels) == ("f", 2)
    for stats in (c.stats(), family.stats()):
        with pytest.raises(FrozenInstanceError):
            stats.name = "other"  # type: ignore[misc]


def test_the_repr_tells_what_it_is(store: kvsync.Store) -> None:
    assert repr(store.counter("c")) == f"<kvsync.Counter 'c' in {store!r}>"
    assert repr(store.counters("f")) == f"<kvsync.Counters 'f' in {store!r}>"
    label = store.counters("f").counter("c")
    assert repr(label) == f"<kvsync.Counter 'c', family='f' in {store!r}>"
    assert label.store is store
    assert label.name == "c"


def add_to_all(counters: list[Any], family: kvsync.Counters) -> list[str]:
    for counter in counters:
        counter.add(2)
    family.add("sent")
    return [repr(counter) for counter in counters]


def test_counters_are_arguments_of_a_spawned_process(store: kvsync.Store) -> None:
    family = store.counters("f")
    sent = [store.counter("c"), family.counter("label")]
    assert run_all(add_to_all, [(sent, family)]) == [[repr(counter) for counter in sent]]
    assert [counter.value for counter in sent] == [2, 2]
    assert dict(family) == {"label": 2, "sent": 1}


def test_threads_share_one_counter(c: kvsync.Counter) -> None:
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda _: c.add(), range(800)))
    assert sorted(values) == list(range(1, 801))


# --- many processes -------------------------------------------------------------------------------


Crowd = tuple[kvsync.Store, list[tuple[list[int], int]]]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """What 16 spawned processes, 500 rounds each, left behind."""
    path: Path = tmp_path_factory.mktemp("crowd") / "store.db"
    with kvsync.open(path) as store:
        yield store, run_all(use_counters, [(store, me) for me in range(PROCESSES)])
        assert store.check().damage == ()


def test_each_add_of_16_processes_has_a_value_of_its_own(crowd: Crowd) -> None:
    store, outcomes = crowd
    total = PROCESSES * ROUNDS
    assert store.counter("adds").value == total
    assert sorted(value for seen, _ in outcomes for value in seen) == list(range(1, total + 1))
    assert all(seen == sorted(seen) for seen, _ in outcomes)


def test_no_add_many_of_16_processes_is_lost(crowd: Crowd) -> None:
    each = {f"{me}": ROUNDS for me in range(PROCESSES)}
    assert crowd[0].counters("family") == each | {"all": 2 * PROCESSES * ROUNDS}


def test_no_compare_and_set_of_16_processes_is_lost(crowd: Crowd) -> None:
    assert crowd[0].counter("swapped").value == PROCESSES * ROUNDS


def test_no_add_falls_between_the_two_halves_of_a_reset(crowd: Crowd) -> None:
    store, outcomes = crowd
    left = store.counter("drawn").value
    assert sum(taken for _, taken in outcomes) + left == PROCESSES * ROUNDS


def test_transactions_of_16_processes_keep_their_counters_in_step(crowd: Crowd) -> None:
    total = PROCESSES * sum(range(ROUNDS))
    assert crowd[0].counter("left").value == -crowd[0].counter("right").value == total

"""The checkers against random histories: real executions, small histories of any kind."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stress.checkers import course, fenced_mutex, fetch_and_add, permits, refusals, total_queue
from stress.checkers.course import parts
from stress.checkers.linearizability import LIMIT, _Search, _Shrinking, flaw, is_linearizable
from stress.checkers.models import Model
from stress.checkers.models.counter import Counter
from stress.checkers.models.held import FencedMutex, ReadWriteLock, ReentrantMutex, Semaphore
from stress.checkers.models.queue import EMPTY, FifoQueue
from stress.checkers.models.register import Register
from stress.checkers.shrinking import shrunk
from stress.history import History, Operation, Outcome
from tests.histories import brute_force, goes_on

pytestmark = pytest.mark.suite

Call = tuple[str, Any, Any]
"""Function, argument, result."""


@dataclass(frozen=True)
class Kind:
    """A model, the calls that it allows in a state to a process, and calls that may be wrong."""

    model: Model
    possible: Callable[[Any, int, int], list[Call]]
    any_calls: list[Call]
    size: int


def _register(state: Any, _process: int, turn: int) -> list[Call]:
    swaps = [("cas", (old, turn), state == old) for old in (state, None, 1)]
    return [("read", None, state), ("write", turn, None), *swaps]


def _counter(state: Any, _process: int, _turn: int) -> list[Call]:
    return [("add", 1, state + 1), ("add", 1, None), ("read", None, state)]


def _mutex(state: Any, process: int, _turn: int) -> list[Call]:
    holder, last = state
    if holder is None:
        return [("acquire", None, last + 1), ("acquire", None, last + 5), ("acquire", None, None)]
    return [("release", None, None)] if holder == process else []


def _reentrant(state: Any, process: int, _turn: int) -> list[Call]:
    release = [("release", None, None)] if state[0] == process else []
    return [*release, ("acquire", None, None)] if state[0] in (None, process) else []


def _semaphore(state: Any, process: int, _turn: int) -> list[Call]:
    release = [("release", None, None)] if process in state else []
    return [*release, *([("acquire", None, None)] if len(state) < 2 else [])]


def _read_write(state: Any, process: int, _turn: int) -> list[Call]:
    writer, readers = state
    if writer == process:
        return [("downgrade", None, None), ("release", None, None)]
    if process in readers:
        return [("release", None, None)]
    write = [("write", None, None)] if not readers else []
    return [("read", None, None), *write] if writer is None else []


def _queue(state: Any, _process: int, turn: int) -> list[Call]:
    last, items, _ = state
    return [("put", turn, last + 1), ("get", None, items[0][1] if items else None)]


HOLDING: list[Call] = [("acquire", None, None), ("release", None, None)]
KINDS = {
    "register": Kind(
        Register(),
        _register,
        [("read", None, value) for value in (None, 1, 2)]
        + [("write", value, None) for value in (1, 2)]
        + [("cas", (1, 2), swapped) for swapped in (False, True)],
        5,
    ),
    "counter": Kind(
        Counter(),
        _counter,
        [("add", 1, value) for value in (None, 1, 2, 3)]
        + [("read", None, value) for value in (0, 1, 2)],
        5,
    ),
    "fenced mutex": Kind(
        FencedMutex(), _mutex, [*HOLDING, ("acquire", None, 1), ("acquire", None, 2)], 4
    ),
    "reentrant mutex": Kind(ReentrantMutex(), _reentrant, HOLDING, 4),
    "semaphore": Kind(Semaphore(2), _semaphore, HOLDING, 4),
    "read-write lock": Kind(
        ReadWriteLock(),
        _read_write,
        [(each, None, None) for each in ("read", "write", "downgrade", "release")],
        4,
    ),
    "queue": Kind(
        FifoQueue(),
        _queue,
        [("put", value, None) for value in (1, 2)]
        + [("get", None, value) for value in (None, 1, 2)],
        5,
    ),
}


@st.composite
def executions(draw: Any, kind: Kind, longest: int = 25) -> tuple[History, Any]:
    """Calls that take effect one after the other, each within a span that overlaps others.

    Of some the outcome is unknown, though they took effect; of others because they never did. Also
    the state that they leave.
    """
    state, free = kind.model.initial, dict.fromkeys(range(4), -1)
    history = []
    for turn in range(1, draw(st.integers(1, longest)) + 1):
        process = draw(st.sampled_from([who for who, moment in free.items() if moment < 10 * turn]))
        calls = kind.possible(state, process, turn)
        if calls:
            operation = _around(draw, process, draw(st.sampled_from(calls)), free[process], turn)
            free[process] = operation.returned or 10 * turn
            effect = draw(st.sampled_from(["known"] * 8 + ["unknown", "never"]))
            history.append(operation if effect == "known" else _forgotten(operation))
            if effect != "never":
                (state,) = kind.model.after(state, operation)
    return sorted(history, key=lambda operation: operation.invoked), state


def _around(draw: Any, process: int, call: Call, free: int, turn: int) -> Operation:
    function, argument, result = call
    invoked = draw(st.integers(max(free + 1, 10 * turn - 35), 10 * turn))
    returned = draw(st.integers(10 * turn, 10 * turn + 35))
    return Operation(process, function, argument, Outcome.OK, result, invoked, returned)


def _forgotten(operation: Operation) -> Operation:
    return replace(operation, outcome=Outcome.UNKNOWN, result=None, returned=None)


@st.composite
def histories(draw: Any, kind: Kind) -> History:
    """A few calls with whatever results, of three processes, each of which does one at a time."""
    free = dict.fromkeys(range(3), 0)
    history = []
    for _ in range(draw(st.integers(0, kind.size))):
        process = draw(st.sampled_from(sorted(free)))
        function, argument, result = draw(st.sampled_from(kind.any_calls))
        invoked = free[process] + draw(st.integers(1, 4))
        free[process] = invoked + draw(st.integers(0, 6))
        span = invoked, free[process]
        operation = Operation(process, function, argument, Outcome.OK, result, *span)
        lost = draw(st.integers(0, 4)) == 0
        history.append(_forgotten(operation) if lost else operation)
    return sorted(history, key=lambda operation: operation.invoked)


def any_histories(kind: Kind) -> st.SearchStrategy[History]:
    return histories(kind) | executions(kind).map(lambda drawn: drawn[0])


each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@each_kind
@settings(deadline=None)
@given(data=st.data())
def test_a_real_execution_is_accepted(kind: Kind, data: Any) -> None:
    history, _ = data.draw(executions(kind))
    assert is_linearizable(history, kind.model)


@each_kind
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_the_search_agrees_with_trying_everything(kind: Kind, data: Any) -> None:
    history = data.draw(histories(kind))
    assert is_linearizable(history, kind.model) == brute_force(history, kind.model)


@each_kind
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_result_that_was_changed_is_noticed_if_trying_everything_does(
    kind: Kind, data: Any
) -> None:
    history, _ = data.draw(executions(kind, longest=kind.size).filter(lambda drawn: drawn[0]))
    index = data.draw(st.integers(0, len(history) - 1))
    results = [call[2] for call in kind.any_calls if call[0] == history[index].function]
    history[index] = replace(history[index], result=data.draw(st.sampled_from(results)))
    assert is_linearizable(history, kind.model) == brute_force(history, kind.model)


@each_kind
@settings(deadline=None)
@given(data=st.data())
def test_what_a_violation_shows_is_illegal_whatever_became_of_the_others(
    kind: Kind, data: Any
) -> None:
    history = data.draw(histories(kind))
    violation = flaw(history, kind.model)
    if violation is not None:
        others = [each for each in history if each not in violation.operations]
        assert violation.others <= len(others)
        # Completed before they are forgotten: of a killed `get` the item may come back, but none of
        # these was killed.
        completed = [each for each in kind.model.completed(history) if each not in others]
        rest = [replace(each, outcome=Outcome.UNKNOWN, result=None) for each in others]
        search = _Search([*completed, *rest], kind.model, LIMIT, (kind.model.initial,))
        assert not search.succeeds()


@each_kind
@settings(deadline=None)
@given(data=st.data())
def test_an_illegal_history_has_an_end_that_nothing_explains_and_a_legal_one_has_none(
    kind: Kind, data: Any
) -> None:
    """All that is known of it was so when the history became illegal, not earlier."""
    history = data.draw(histories(kind) | executions(kind, 8).map(lambda drawn: drawn[0]))
    found = list(parts(history, kind.model))
    assert bool(found) != is_linearizable(history, kind.model)
    for part in found:
        end = max(each.returned or 0 for each in part.operations if each.known)
        begun = [each for each in history if each.invoked < end]
        before = [each if (each.returned or 0) < end else _forgotten(each) for each in begun]
        assert is_linearizable(before, kind.model)


@each_kind
@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_what_is_shown_is_illegal_from_each_state_that_is_shown(
    kind: Kind, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever became of the others, and however short the part is that is looked at."""
    monkeypatch.setattr(course, "_LENGTHS", (2, 1))
    history = data.draw(histories(kind))
    for part in parts(history, kind.model):
        shrinking = _Shrinking(part.states, kind.model)
        if shrinking.is_illegal(part.operations):
            kept, _ = shrunk(part.operations, shrinking.is_illegal)
            rest = [each for each in part.operations if each not in kept]
            forgotten = [replace(each, outcome=Outcome.UNKNOWN, result=None) for each in rest]
            for state in part.states:
                assert not goes_on(state, [*kept, *forgotten], kind.model)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_counter_needs_no_search(data: Any) -> None:
    """Where all who know that they added were told their numbers, the verdicts are the same."""
    history = data.draw(any_histories(KINDS["counter"]))
    legal = is_linearizable(history, Counter())
    found = fetch_and_add.flaw(history)
    if any(each.function == "add" and each.known and each.result is None for each in history):
        assert not (legal and found)
    else:
        assert legal == (found is None)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_what_is_wrong_with_a_mutex_without_a_search_is_wrong_with_one(data: Any) -> None:
    kind = KINDS["fenced mutex"]
    history = data.draw(any_histories(kind))
    assert not (fenced_mutex.flaw(history) and is_linearizable(history, kind.model))


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_what_is_wrong_with_permits_without_a_search_is_wrong_with_one(data: Any) -> None:
    kind = KINDS["semaphore"]
    history = data.draw(
        st.one_of(any_histories(kind), executions(kind).map(lambda drawn: drawn[0]))
    )
    assert not (permits.flaw(history, 2) and is_linearizable(history, kind.model))


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_real_execution_of_a_queue_passes_without_a_search(data: Any) -> None:
    """The queue is emptied at the end."""
    history, left = data.draw(executions(KINDS["queue"]))
    gets = [
        Operation(9, "get", None, Outcome.OK, item, 1_000 + n, 1_000 + n)
        for n, (_, item) in enumerate(left[1])
    ]
    assert total_queue.flaw([*history, *gets]) is None


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_who_finds_a_real_queue_empty_was_told_so_with_reason(data: Any) -> None:
    history, _ = data.draw(executions(KINDS["queue"]))
    told = [
        replace(each, outcome=Outcome.FAIL)
        if each.known and (each.function, each.result) == ("get", EMPTY)
        else each
        for each in history
    ]
    assert refusals.flaw(told, len(history)) is None

"""What the checkers say of histories whose verdict is plain: legal ones, and ones that are not."""

from dataclasses import replace
from typing import Any

import pytest

from stress.checkers import (
    Violation,
    fenced_mutex,
    fetch_and_add,
    handed_out,
    permits,
    rate,
    refusals,
    total_queue,
)
from stress.checkers.linearizability import Undecided, flaw, is_linearizable
from stress.checkers.models import Model
from stress.checkers.models.counter import Counter
from stress.checkers.models.held import FencedMutex, ReadWriteLock, ReentrantMutex, Semaphore
from stress.checkers.models.queue import FifoQueue
from stress.checkers.models.register import Register
from stress.history import History, Operation, Outcome
from tests.histories import brute_force, failed, ok, unknown

pytestmark = pytest.mark.suite

A, B, C = 1, 2, 3

LEGAL: dict[str, tuple[Model, History]] = {
    "nothing was called": (Register(), []),
    "a write is read": (Register(), [ok(A, (0, 1), "write", 5), ok(B, (2, 3), "read", None, 5)]),
    "a read sees a write that has not returned": (
        Register(),
        [ok(A, (0, 9), "write", 5), ok(B, (2, 3), "read", None, 5)],
    ),
    "of two swaps from one value the second fails": (
        Register(),
        [
            ok(A, (0, 9), "cas", (None, 1), True),
            ok(B, (0, 9), "cas", (None, 1), False),
        ],
    ),
    "a swap that fails changes nothing": (
        Register(),
        [ok(A, (0, 1), "cas", (1, 2), False), ok(A, (2, 3), "read", None, None)],
    ),
    "a write of unknown outcome took effect, late": (
        Register(),
        [
            unknown(A, 0, "write", 5),
            ok(B, (1, 2), "read", None, None),
            ok(B, (3, 4), "read", None, 5),
        ],
    ),
    "a write of unknown outcome had no effect": (
        Register(),
        [unknown(A, 0, "write", 5), ok(B, (1, 2), "read", None, None)],
    ),
    "a write that failed had none": (
        Register(),
        [failed(A, 0, "write", 5), ok(B, (1, 2), "read", None, None)],
    ),
    "two additions at once, the later first": (
        Counter(),
        [ok(A, (0, 5), "add", 1, 2), ok(B, (1, 6), "add", 1, 1)],
    ),
    "an addition of unknown outcome counts": (
        Counter(),
        [unknown(A, 0, "add", 1), ok(B, (1, 2), "add", 1, 2), ok(B, (3, 4), "read", None, 2)],
    ),
    "one is invoked at the instant at which another returns": (
        Counter(),
        [ok(A, (0, 5), "add", 1, 2), ok(B, (5, 6), "add", 1, 1)],
    ),
    "the first and the third addition are not told their numbers": (
        Counter(),
        [
            ok(A, (0, 100), "add", 1),
            ok(B, (1, 2), "add", 1),
            ok(C, (3, 4), "add", 1, 2),
            ok(C, (50, 60), "add", 1, 4),
        ],
    ),
    "an addition is not told its number": (
        Counter(),
        [ok(A, (0, 1), "add", 1), ok(B, (2, 3), "read", None, 1)],
    ),
    "turns with rising tokens": (
        FencedMutex(),
        [
            ok(A, (0, 1), "acquire", None, 3),
            ok(A, (4, 7), "release"),
            ok(B, (2, 5), "acquire", None, 7),
            ok(B, (8, 9), "release"),
        ],
    ),
    "nobody was told a token": (
        FencedMutex(),
        [
            unknown(A, 0, "acquire"),
            ok(A, (2, 3), "release"),
            ok(B, (4, 5), "acquire"),
            ok(B, (6, 7), "release"),
        ],
    ),
    "who died inside frees the lock": (
        FencedMutex(),
        [ok(A, (0, 1), "acquire", None, 3), ok(B, (2, 5), "acquire", None, 4)],
    ),
    "who died while it released freed it, or did not": (
        FencedMutex(),
        [
            ok(A, (0, 1), "acquire", None, 3),
            unknown(A, 2, "release"),
            ok(B, (3, 5), "acquire", None, 4),
        ],
    ),
    "who died while it acquired may have had a token": (
        FencedMutex(),
        [
            ok(A, (0, 1), "acquire", None, 3),
            unknown(B, 1, "acquire"),
            ok(A, (2, 3), "release"),
            ok(C, (4, 5), "acquire", None, 5),
        ],
    ),
    "acquired twice, released twice, acquired by another": (
        ReentrantMutex(),
        [
            ok(A, (0, 1), "acquire"),
            ok(A, (2, 3), "acquire"),
            ok(A, (4, 5), "release"),
            ok(A, (6, 7), "release"),
            ok(B, (3, 9), "acquire"),
        ],
    ),
    "acquired again under the same token": (
        ReentrantMutex(),
        [
            ok(A, (0, 1), "acquire", None, 3),
            ok(A, (2, 3), "acquire", None, 3),
            ok(A, (4, 5), "release"),
            ok(A, (6, 7), "release"),
            ok(B, (3, 9), "acquire", None, 4),
        ],
    ),
    "who died deep inside frees it all": (
        ReentrantMutex(),
        [
            ok(A, (0, 1), "acquire", None, 3),
            ok(A, (2, 3), "acquire", None, 3),
            unknown(A, 4, "release"),
            ok(B, (3, 9), "acquire", None, 4),
        ],
    ),
    "who was not told the token at first is told it later": (
        ReentrantMutex(),
        [
            unknown(C, 0, "acquire"),
            ok(A, (0, 1), "acquire"),
            ok(A, (2, 3), "acquire", None, 7),
            ok(A, (4, 5), "acquire", None, 7),
        ],
    ),
    "permits that were tried for, some of them in vain": (
        Semaphore(2),
        [
            ok(A, (0, 1), "try", 2, True),
            ok(B, (2, 3), "try", 1, False),
            ok(A, (4, 5), "release", 2),
            ok(B, (6, 7), "try", 1, True),
        ],
    ),
    "several permits at once, given back in parts": (
        Semaphore(3),
        [
            ok(A, (0, 1), "acquire", 2),
            ok(B, (2, 6), "acquire", 2),
            ok(A, (4, 5), "release", 1),
            ok(A, (7, 8), "release", 1),
        ],
    ),
    "no permit was to be had in time": (
        Semaphore(1),
        [ok(A, (0, 1), "acquire"), ok(B, (2, 3), "acquire", None, False)],
    ),
    "readers together, and a writer after them": (
        ReadWriteLock(),
        [
            ok(A, (0, 1), "read"),
            ok(B, (2, 3), "read"),
            ok(C, (2, 8), "write"),
            ok(A, (4, 5), "release"),
            ok(B, (6, 7), "release"),
            ok(C, (9, 10), "release"),
        ],
    ),
    "a writer becomes a reader, beside others": (
        ReadWriteLock(),
        [
            ok(A, (0, 1), "write"),
            ok(B, (2, 5), "read"),
            ok(A, (3, 6), "downgrade"),
            ok(A, (7, 8), "release"),
        ],
    ),
    "a writer that died while it became a reader is in nobody's way": (
        ReadWriteLock(),
        [ok(A, (0, 1), "write"), unknown(A, 2, "downgrade"), ok(B, (3, 5), "write")],
    ),
    "two permits for two": (
        Semaphore(2),
        [ok(A, (0, 1), "acquire"), ok(B, (2, 3), "acquire"), ok(A, (4, 5), "release")],
    ),
    "the permits of who died are free": (
        Semaphore(2),
        [
            ok(A, (0, 1), "acquire"),
            ok(A, (2, 3), "acquire"),
            ok(B, (4, 5), "acquire"),
            ok(C, (6, 7), "acquire"),
        ],
    ),
    "first in, first out, and empty at the end": (
        FifoQueue(),
        [
            ok(A, (0, 1), "put", "x"),
            ok(A, (2, 3), "put", "y"),
            ok(B, (4, 5), "get", None, "x"),
            ok(B, (6, 7), "get", None, "y"),
            ok(B, (8, 9), "get", None, None),
        ],
    ),
    "who died had an item only for a while": (
        FifoQueue(),
        [
            ok(A, (0, 1), "put", "x", 1),
            ok(A, (2, 3), "put", "y", 2),
            unknown(B, 4, "get"),
            ok(C, (5, 6), "get", None, "y"),
            ok(C, (7, 8), "get", None, "x"),
        ],
    ),
    "a put of unknown outcome has a number too": (
        FifoQueue(),
        [
            unknown(A, 0, "put", "x"),
            ok(B, (1, 2), "put", "y", 2),
            ok(C, (3, 4), "get", None, "x"),
        ],
    ),
    "who died while it took an item has it": (
        FifoQueue(),
        [
            ok(A, (0, 1), "put", "x"),
            ok(A, (2, 3), "put", "y"),
            unknown(B, 4, "get"),
            ok(C, (5, 6), "get", None, "y"),
        ],
    ),
}

ILLEGAL: dict[str, tuple[Model, History]] = {
    "an old value is read after a new one": (
        Register(),
        [
            ok(A, (0, 1), "write", 5),
            ok(A, (2, 9), "write", 6),
            ok(B, (3, 4), "read", None, 6),
            ok(C, (5, 6), "read", None, 5),
        ],
    ),
    "two swaps from one value": (
        Register(),
        [ok(A, (0, 9), "cas", (None, 1), True), ok(B, (0, 9), "cas", (None, 2), True)],
    ),
    "a swap fails though nothing else was there": (
        Register(),
        [ok(A, (0, 1), "cas", (None, 1), False)],
    ),
    "a write took effect before it was invoked": (
        Register(),
        [ok(B, (0, 1), "read", None, 5), unknown(A, 2, "write", 5)],
    ),
    "a write of unknown outcome took effect twice": (
        Register(),
        [
            unknown(A, 0, "write", 5),
            ok(B, (1, 2), "read", None, 5),
            ok(B, (3, 4), "write", 6),
            ok(B, (5, 6), "read", None, 5),
        ],
    ),
    "a write that failed took effect": (
        Register(),
        [failed(A, 0, "write", 5), ok(B, (1, 2), "read", None, 5)],
    ),
    "two additions return one number": (
        Counter(),
        [ok(A, (0, 5), "add", 1, 1), ok(B, (1, 6), "add", 1, 1)],
    ),
    "an addition is lost": (
        Counter(),
        [ok(A, (0, 1), "add", 1, 1), ok(B, (2, 3), "read", None, 0)],
    ),
    "a number that nobody can have made": (
        Counter(),
        [unknown(A, 0, "add", 1), ok(B, (1, 2), "add", 1, 3)],
    ),
    "two hold a mutex": (
        FencedMutex(),
        [
            ok(A, (0, 1), "acquire", None, 3),
            ok(B, (2, 3), "acquire", None, 4),
            ok(A, (4, 5), "release"),
        ],
    ),
    "a token falls": (
        FencedMutex(),
        [
            ok(A, (0, 1), "acquire", None, 3),
            ok(A, (2, 3), "release"),
            ok(B, (4, 5), "acquire", None, 2),
        ],
    ),
    "too few tokens for all": (
        FencedMutex(),
        [
            ok(A, (0, 1), "acquire", None, 3),
            ok(B, (2, 3), "acquire"),
            ok(C, (4, 5), "acquire", None, 4),
        ],
    ),
    "who is to have died inside returns later": (
        FencedMutex(),
        [ok(A, (0, 10), "acquire", None, 3), ok(B, (2, 3), "acquire", None, 4)],
    ),
    "a token comes again": (
        FencedMutex(),
        [ok(A, (0, 1), "acquire", None, 3), ok(B, (4, 5), "acquire", None, 3)],
    ),
    "released by who does not hold it": (
        FencedMutex(),
        [ok(A, (0, 1), "acquire", None, 3), ok(B, (2, 3), "release")],
    ),
    "released once too early": (
        ReentrantMutex(),
        [
            ok(A, (0, 1), "acquire"),
            ok(A, (2, 3), "acquire"),
            ok(A, (4, 5), "release"),
            ok(B, (6, 7), "acquire"),
            ok(A, (8, 9), "release"),
        ],
    ),
    "released once too often": (
        ReentrantMutex(),
        [ok(A, (0, 1), "acquire"), ok(A, (2, 3), "release"), ok(A, (4, 5), "release")],
    ),
    "another token as it is acquired again": (
        ReentrantMutex(),
        [ok(A, (0, 1), "acquire", None, 3), ok(A, (2, 3), "acquire", None, 4)],
    ),
    "the next owner has the same token": (
        ReentrantMutex(),
        [
            ok(A, (0, 1), "acquire", None, 3),
            ok(A, (2, 3), "release"),
            ok(B, (4, 5), "acquire", None, 3),
        ],
    ),
    "a permit that was tried for and had by another": (
        Semaphore(1),
        [ok(A, (0, 1), "acquire"), ok(B, (2, 3), "try", 1, True), ok(A, (4, 5), "release")],
    ),
    "two permits more than there are": (
        Semaphore(3),
        [
            ok(A, (0, 1), "acquire", 2),
            ok(B, (2, 3), "acquire", 2),
            ok(A, (4, 5), "release", 2),
        ],
    ),
    "given back more than it had": (
        Semaphore(3),
        [ok(A, (0, 1), "acquire", 1), ok(A, (2, 3), "release", 2)],
    ),
    "a reader beside a writer": (
        ReadWriteLock(),
        [ok(A, (0, 1), "write"), ok(B, (2, 3), "read"), ok(A, (4, 5), "release")],
    ),
    "a writer beside a reader": (
        ReadWriteLock(),
        [ok(A, (0, 1), "read"), ok(B, (2, 3), "write"), ok(A, (4, 5), "release")],
    ),
    "another wrote before the writer was a reader": (
        ReadWriteLock(),
        [
            ok(A, (0, 1), "write"),
            ok(B, (2, 3), "write"),
            ok(B, (4, 5), "release"),
            ok(A, (2, 6), "downgrade"),
            ok(A, (7, 8), "release"),
        ],
    ),
    "a reader becomes a reader": (
        ReadWriteLock(),
        [ok(A, (0, 1), "read"), ok(A, (2, 3), "downgrade")],
    ),
    "three permits for two": (
        Semaphore(2),
        [
            ok(A, (0, 1), "acquire"),
            ok(B, (2, 3), "acquire"),
            ok(C, (4, 5), "acquire"),
            ok(A, (6, 7), "release"),
            ok(B, (8, 9), "release"),
        ],
    ),
    "a permit that it had not": (
        Semaphore(2),
        [ok(A, (0, 1), "acquire"), ok(B, (2, 3), "release")],
    ),
    "last in, first out": (
        FifoQueue(),
        [
            ok(A, (0, 1), "put", "x"),
            ok(A, (2, 3), "put", "y"),
            ok(B, (4, 5), "get", None, "y"),
            ok(B, (6, 7), "get", None, "x"),
        ],
    ),
    "who died had an item before there was one": (
        FifoQueue(),
        [
            ok(A, (0, 1), "put", "x"),
            ok(A, (2, 3), "put", "y"),
            ok(C, (5, 6), "get", None, "y"),
            unknown(B, 7, "get"),
        ],
    ),
    "numbers in another order than the puts": (
        FifoQueue(),
        [ok(A, (0, 1), "put", "x", 2), ok(A, (2, 3), "put", "y", 1)],
    ),
    "a number too many": (FifoQueue(), [ok(A, (0, 1), "put", "x", 2)]),
    "an item that nobody put in": (FifoQueue(), [ok(A, (0, 1), "get", None, "x")]),
    "empty, though an item was there": (
        FifoQueue(),
        [ok(A, (0, 1), "put", "x"), ok(B, (2, 3), "get", None, None)],
    ),
    "an item comes out twice": (
        FifoQueue(),
        [
            ok(A, (0, 1), "put", "x"),
            ok(B, (2, 9), "get", None, "x"),
            ok(C, (2, 9), "get", None, "x"),
        ],
    ),
}


@pytest.mark.parametrize(("model", "history"), LEGAL.values(), ids=LEGAL)
def test_a_legal_history_is_accepted(model: Model, history: History) -> None:
    assert is_linearizable(history, model)
    assert flaw(history, model) is None
    assert brute_force(history, model)


@pytest.mark.parametrize(("model", "history"), ILLEGAL.values(), ids=ILLEGAL)
def test_an_illegal_history_is_rejected(model: Model, history: History) -> None:
    assert flaw(history, model)
    assert not brute_force(history, model)


def test_a_search_that_takes_too_long_decides_nothing() -> None:
    """It is neither accepted nor rejected."""
    history = [ok(who, (0, 9), "write", who) for who in range(8)]
    impossible = [*history, ok(A, (10, 11), "read", None, "x")]
    with pytest.raises(Undecided):
        is_linearizable(impossible, Register(), limit=100)
    assert not is_linearizable(impossible, Register())


def test_a_violation_shows_only_what_is_needed_to_see_it() -> None:
    """Times count from the first that is shown; what came later is not even counted."""
    before = [ok(A, (10 * n, 10 * n + 5), "add", 1, n) for n in range(1, 50)]
    history = [
        *before,
        ok(A, (1_000, 3_500), "add", 1, 50),
        ok(B, (2_000, 4_250), "add", 1, 50),
        unknown(C, 2_100, "add", 1),
        failed(C, 2_200, "add", 1),
        ok(C, (9_000, 9_001), "read", None, 50),
    ]
    violation = flaw(history, Counter())
    assert str(violation) == "\n".join(
        [
            "not linearizable as a Counter:",
            "  process 1  0.0 to 2.5 µs  add(1) -> 50",
            "  process 2  1.0 to 3.2 µs  add(1) -> 50",
            "  whatever became of 50 others",
        ]
    )


def test_a_violation_keeps_what_makes_it_one() -> None:
    """The read is wrong only because the second write was acknowledged; so that is shown."""
    first, second = ok(A, (0, 1), "write", 5), ok(A, (2, 3), "write", 6)
    read = ok(B, (4, 5), "read", None, 5)
    violation = flaw([first, second, ok(C, (6, 7), "read", None, 5), read], Register())
    assert violation is not None
    assert violation.operations == (second, read)
    assert violation.others == 1


def test_what_was_forgotten_took_effect_before_it_returned_or_never() -> None:
    """Also where something else that was forgotten goes on for longer."""
    forgotten = [
        replace(ok(A, (0, 100), "write", 7), outcome=Outcome.UNKNOWN),
        replace(ok(B, (1, 2), "write", 5), outcome=Outcome.UNKNOWN),
    ]
    read = ok(C, (5, 6), "read", None, 5)
    assert is_linearizable([*forgotten, read], Register())
    assert not is_linearizable([*forgotten, ok(C, (3, 4), "write", 6), read], Register())


def test_open_operations_are_shown_as_such() -> None:
    shown = str(Violation("lost", (ok(A, (0, 1), "put", "x"), unknown(B, 2, "get"))))
    assert "process 2  0.0 to ... µs  get() -> unknown" in shown


@pytest.mark.parametrize(
    ("reason", "history"),
    [
        ("given twice", [ok(A, (0, 5), "add", 1, 1), ok(B, (1, 6), "add", 1, 1)]),
        ("went back", [ok(A, (0, 1), "add", 1, 2), ok(B, (2, 3), "add", 1, 1)]),
        ("went back", [ok(A, (0, 1), "add", 1, 1), ok(B, (2, 3), "read", None, 0)]),
        ("before it was made", [ok(A, (0, 1), "add", 1, 2), unknown(B, 2, "add", 1)]),
        ("cannot have made", [ok(A, (0, 1), "add", 1, 2), failed(B, 0, "add", 1)]),
        ("cannot have made", [ok(A, (0, 1), "add", 1, 0)]),
    ],
)
def test_a_counter_is_checked_without_a_search(reason: str, history: History) -> None:
    violation = fetch_and_add.flaw(history)
    assert violation is not None
    assert reason in violation.reason
    assert not is_linearizable(history, Counter())


def test_a_long_history_of_a_counter_is_legal() -> None:
    """Ten at once, each number told to the one that was invoked last but nine."""
    history = [ok(n % 10, (n, n + 9), "add", 1, n + 1) for n in range(100_000)]
    assert fetch_and_add.flaw(history) is None
    history[70_000] = ok(0, (70_000, 70_009), "add", 1, 69_000)
    assert fetch_and_add.flaw(history)


def _turns(count: int) -> History:
    """Each of ten asks while the nine before it have their turns, and one of a hundred dies."""
    history = []
    for turn in range(count):
        who, start = turn % 10 + turn // 100 * 10, 10 * turn
        history.append(ok(who, (max(0, start - 90), start + 2), "acquire", None, turn))
        is_last = turn % 100 == 99
        freed = (who, start + 6, "release"), (who, (start + 6, start + 9), "release")
        history.append(unknown(*freed[0]) if is_last else ok(*freed[1]))
    return sorted(history, key=lambda operation: operation.invoked)


def test_a_long_history_of_a_mutex_is_legal_until_its_end() -> None:
    history = _turns(50_000)
    assert len(history) == 100_000
    assert fenced_mutex.flaw(history) is None
    end = history[-1].invoked
    for reason, wrong in {
        "inside at once": ok(A, (end - 20, end - 12), "acquire", None, 49_998),
        "granted twice": ok(A, (end + 20, end + 21), "acquire", None, 49_000),
        "freed by one who did not": ok(A, (end + 20, end + 21), "release"),
    }.items():
        violation = fenced_mutex.flaw([*history, wrong])
        assert violation is not None
        assert reason in violation.reason
        assert len(violation.operations) <= 4


def _passed_on(count: int) -> History:
    """Four put, four get; now and then another is refused as these have asked for all there is."""
    history = []
    for n in range(count):
        history.append(ok(n % 4, (10 * n, 10 * n + 25), "put", n))
        history.append(ok(10 + n % 4, (10 * n + 5, 10 * n + 35), "get", None, n))
        if n % 10 == 0:
            history.append(refused(20, (10 * n + 1, 10 * n + 4), "get"))
    return sorted(history, key=lambda operation: operation.invoked)


def test_a_long_history_of_a_queue_is_legal_until_its_end() -> None:
    history = _passed_on(48_000)
    assert len(history) > 100_000
    assert total_queue.flaw(history) is None
    assert refusals.flaw(history, 4) is None
    end = history[-1].invoked + 100
    for reason, wrong in {
        "out twice": [ok(A, (end, end + 1), "get", None, 30_000)],
        "nobody put that in": [ok(A, (end, end + 1), "get", None, "x")],
        "1 items are lost": [ok(A, (end, end + 1), "put", "x")],
    }.items():
        violation = total_queue.flaw([*history, *wrong])
        assert violation is not None
        assert reason in violation.reason
        assert len(violation.operations) <= 2


def test_a_long_history_of_a_queue_in_which_items_change_places_is_illegal() -> None:
    """Of one producer, the first that was got after the second had been."""
    history = [each for each in _passed_on(48_000) if each.result != 30_000]
    late = ok(A, (10**6, 10**6 + 1), "get", None, 30_000)
    violation = total_queue.flaw([*history, late])
    assert violation is not None
    assert "changed places" in violation.reason
    assert len(violation.operations) == 2


@pytest.mark.parametrize(
    ("reason", "maxsize", "wrong"),
    [
        ("items were there", 4, "get"),
        ("no room", 4, "put"),
    ],
)
def test_a_refusal_at_the_end_of_a_long_history_is_heard(
    reason: str, maxsize: int, wrong: str
) -> None:
    history = _passed_on(48_000)
    end = history[-1].invoked + 100
    put = [ok(A, (end, end + 1), "put", "x")]
    told = [*history, *put, refused(B, (end + 2, end + 3), wrong, "y" if wrong == "put" else None)]
    violation = refusals.flaw(told, maxsize)
    assert violation is not None
    assert reason in violation.reason
    assert len(violation.operations) <= 2


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("inside at once", "two hold a mutex"),
        ("smaller than one before", "a token falls"),
        ("granted twice", "a token comes again"),
    ],
)
def test_a_mutex_is_checked_without_a_search(reason: str, name: str) -> None:
    violation = fenced_mutex.flaw(ILLEGAL[name][1])
    assert violation is not None
    assert reason in violation.reason


@pytest.mark.parametrize(
    ("reason", "history"),
    [
        ("taken again by one who had it", [ok(A, (0, 1), "acquire", None, 1)]),
        (
            "taken again by one who had it",
            [
                ok(A, (0, 1), "acquire", None, 1),
                failed(A, 1, "release"),
                unknown(B, 1, "release"),
            ],
        ),
        ("freed by one who did not have it", [ok(B, (0, 1), "release")]),
        (
            "freed by one who did not have it",
            [
                ok(A, (0, 1), "acquire", None, 1),
                ok(B, (2, 3), "release"),
                ok(A, (4, 5), "release"),
            ],
        ),
        (
            "freed by one who did not have it",
            [
                ok(A, (0, 1), "acquire", None, 1),
                ok(A, (2, 3), "release"),
                ok(A, (4, 5), "release"),
            ],
        ),
    ],
)
def test_a_mutex_is_freed_by_who_has_it_before_that_one_takes_it_again(
    reason: str, history: History
) -> None:
    history = [*history, ok(A, (8, 9), "acquire", None, 8)]
    violation = fenced_mutex.flaw(history)
    assert violation is not None
    assert violation.reason == reason
    assert not is_linearizable(history, FencedMutex())


def test_a_mutex_may_be_freed_late_by_a_release_that_was_cut_off() -> None:
    history = [
        unknown(B, 1, "release"),
        ok(A, (1, 3), "acquire"),
        ok(B, (2, 2), "acquire"),
        unknown(B, 4, "release"),
    ]
    assert is_linearizable(history, FencedMutex())
    assert fenced_mutex.flaw(history) is None


def test_who_may_have_taken_or_freed_a_mutex_may_free_it_or_take_it_again() -> None:
    history = [
        unknown(A, 0, "acquire"),
        ok(A, (2, 3), "release"),
        ok(A, (4, 5), "acquire", None, 5),
        unknown(A, 6, "release"),
        ok(A, (8, 9), "acquire", None, 8),
    ]
    assert fenced_mutex.flaw(history) is None
    assert is_linearizable(history, FencedMutex())


@pytest.mark.parametrize(("model", "history"), LEGAL.values(), ids=LEGAL)
def test_legal_permits_are_accepted_without_a_search(model: Model, history: History) -> None:
    if isinstance(model, Semaphore):
        assert permits.flaw(history, model.limit) is None


@pytest.mark.parametrize("name", ["three permits for two", "two permits more than there are"])
def test_permits_are_checked_without_a_search(name: str) -> None:
    model, history = ILLEGAL[name]
    assert isinstance(model, Semaphore)
    violation = permits.flaw(history, model.limit)
    assert violation is not None
    assert f"{model.limit + 1} permits were had of {model.limit}" in violation.reason
    assert {each for each in history if each.function == "acquire"} <= {*violation.operations}


def a_taken(*n: int) -> History:
    """One process has as many of three, acquired one after the other."""
    return [ok(A, (10 * at, 10 * at + 5), "acquire", each, True) for at, each in enumerate(n)]


def a_freed(at: int, n: int) -> Operation:
    return ok(A, (at, at + 1), "release", n)


def b_refused(n: int = 1) -> Operation:
    return ok(B, (50, 60), "try", n, False)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([b_refused(3)], id="of a new semaphore"),
        pytest.param([*a_taken(2), b_refused()], id="the last one"),
        pytest.param([*a_taken(2, 1), a_freed(40, 1), b_refused()], id="of what was given back"),
        pytest.param([*a_taken(3), a_freed(40, 2), b_refused(2)], id="of a part"),
        pytest.param([*a_taken(3), a_freed(40, 3), b_refused(3)], id="of all"),
        pytest.param([b_refused(), unknown(C, 61, "acquire")], id="who dies comes later"),
        pytest.param(
            [ok(C, (1, 2), "acquire", 3, False), b_refused()], id="who was refused has nothing"
        ),
        pytest.param(
            [ok(C, (1, 2), "try", 3, True), ok(C, (3, 4), "release", 3), b_refused(3)],
            id="of what was tried for",
        ),
        pytest.param([*a_taken(3), a_freed(40, 3), b_refused(), a_freed(99, 1)], id="and so on"),
    ],
)
def test_who_is_in_nobodys_way_is_not_refused(history: History) -> None:
    violation = permits.refusal(history, 3)
    assert violation is not None
    assert "refused" in violation.reason
    assert any(each.result is False for each in violation.operations)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([], id="nothing"),
        pytest.param([*a_taken(3), b_refused()], id="all are had"),
        pytest.param([*a_taken(2), b_refused(2)], id="not enough are left"),
        pytest.param([*a_taken(2, 1), a_freed(40, 1), b_refused(2)], id="too few were given back"),
        pytest.param([*a_taken(3), a_freed(50, 3), b_refused()], id="given back meanwhile"),
        pytest.param([b_refused(), ok(C, (60, 70), "acquire", 1, True)], id="another comes"),
        pytest.param(
            [ok(C, (45, 50), "acquire", 1, False), b_refused()], id="another was there in vain"
        ),
        pytest.param([ok(C, (1, 99), "acquire", 1, True), b_refused()], id="another waits"),
        pytest.param(
            [ok(C, (1, 99), "acquire", 1, True), ok(A, (2, 3), "acquire", 1, True), b_refused()],
            id="another waits who came before the last one",
        ),
        pytest.param([unknown(C, 1, "acquire"), b_refused()], id="one died waiting"),
        pytest.param([failed(C, 1, "acquire"), b_refused()], id="nobody knows how long one was"),
        pytest.param([*a_taken(3), unknown(A, 40, "release", 3), b_refused()], id="died freeing"),
        pytest.param([*a_taken(3), b_refused(), a_freed(99, 3)], id="given back later"),
        pytest.param([ok(C, (1, 2), "try", 3, True), b_refused()], id="all are had by one try"),
        pytest.param([ok(B, (50, 60), "acquire", 1, False)], id="its time was over"),
        pytest.param([*a_taken(), ok(B, (50, 60), "try", 1, True)], id="not refused"),
        pytest.param([ok(B, (50, 60), "try", 1, None)], id="not told"),
    ],
)
def test_who_is_refused_may_have_been_in_somebodys_way(history: History) -> None:
    ordered = sorted(history, key=lambda operation: operation.invoked)
    assert permits.refusal(ordered, 3) is None


def test_a_long_history_of_permits_is_legal() -> None:
    """Three at a time, each of which is given back as the next is acquired."""
    history = []
    for n in range(100_000):
        history.append(ok(n % 4, (10 * n, 10 * n + 2), "acquire"))
        history.append(ok((n - 2) % 4, (10 * n + 5, 10 * n + 9), "release"))
    assert permits.flaw(history, 3) is None
    assert permits.refusal(history, 3) is None
    assert permits.flaw(history, 2)


_MS = 1_000_000


@pytest.mark.parametrize(
    ("is_legal", "history"),
    [
        (True, []),
        (
            True,
            [
                ok(A, (0, _MS), "acquire", 2, True),
                ok(A, (100 * _MS, 101 * _MS), "acquire", 1, True),
            ],
        ),
        (True, [ok(A, (0, _MS), "acquire", 2, True), ok(B, (0, _MS), "acquire", 2, False)]),
        (True, [ok(A, (0, _MS), "acquire", 2, True), unknown(B, 0, "acquire", 2)]),
        # It may have been granted at the end of its call, or the other at the beginning.
        (True, [ok(A, (0, 200 * _MS), "acquire", 2, True), ok(B, (1, _MS), "acquire", 2, True)]),
        (False, [ok(A, (0, _MS), "acquire", 2, True), ok(B, (0, _MS), "acquire", 1, True)]),
        (
            False,
            [ok(A, (0, _MS), "acquire", 2, True), ok(A, (98 * _MS, 99 * _MS), "acquire", 1, True)],
        ),
        (
            False,
            [
                ok(C, (0, 900 * _MS), "acquire", 1, True),
                ok(A, (1, _MS), "acquire", 2, True),
                ok(B, (2, 2 * _MS), "acquire", 1, True),
            ],
        ),
    ],
)
def test_a_rate_is_checked_in_every_span_of_time(is_legal: bool, history: History) -> None:
    """Ten units in a second, two at once."""
    assert (rate.flaw(history, 10, 1.0, 2) is None) == is_legal


def test_a_steady_rate_is_legal_and_one_a_little_too_high_is_not() -> None:
    def at(gap: int) -> History:
        return [ok(n % 3, (n * gap, n * gap + gap // 2), "acquire", 1, True) for n in range(200)]

    assert rate.flaw(at(10 * _MS), 100, 1.0, 2) is None
    assert rate.flaw(at(9 * _MS), 100, 1.0, 2)


@pytest.mark.parametrize(
    ("name", "is_illegal"),
    [
        ("acquired twice, released twice, acquired by another", False),
        ("acquired again under the same token", False),
        ("who died deep inside frees it all", False),
        ("the next owner has the same token", True),
    ],
)
def test_from_outside_a_reentrant_mutex_is_a_mutex(name: str, is_illegal: bool) -> None:
    history = (LEGAL | ILLEGAL)[name][1]
    assert (fenced_mutex.flaw(fenced_mutex.outer(history)) is not None) == is_illegal


def test_two_stays_at_once_are_shown_from_acquire_to_release() -> None:
    history = [
        ok(A, (0, 1), "acquire"),
        ok(B, (4, 5), "acquire"),
        ok(A, (8, 9), "release"),
    ]
    violation = fenced_mutex.flaw(history)
    assert violation is not None
    assert violation.operations == (history[0], history[2], history[1])


@pytest.mark.parametrize(("model", "history"), LEGAL.values(), ids=LEGAL)
def test_no_check_without_a_search_objects_to_a_legal_history(
    model: Model, history: History
) -> None:
    checks = {Counter: fetch_and_add.flaw, FencedMutex: fenced_mutex.flaw}
    check = checks.get(type(model))
    assert check is None or check(history) is None


PUT_XY = [ok(A, (0, 1), "put", "x"), ok(A, (2, 3), "put", "y")]


@pytest.mark.parametrize(
    ("reason", "gets"),
    [
        ("nobody put", [ok(B, (4, 5), "get", None, "z")]),
        ("before it was put in", [ok(B, (0, 1), "get", None, "y")]),
        ("came out twice", [ok(B, (4 + n, 9), "get", None, "x") for n in range(2)]),
        ("1 items are lost, 0", [ok(B, (4, 5), "get", None, "x")]),
        ("2 items are lost, 1", [unknown(B, 4, "get")]),
        ("places", [ok(B, (4, 5), "get", None, "y"), ok(B, (6, 7), "get", None, "x")]),
    ],
)
def test_a_queue_is_checked_without_a_search(reason: str, gets: History) -> None:
    violation = total_queue.flaw([*PUT_XY, *gets])
    assert violation is not None
    assert reason in violation.reason


@pytest.mark.parametrize(
    ("gets", "at_least_once"),
    [
        pytest.param([ok(B, (4, 5), "get", None, each) for each in "xy"], False, id="in order"),
        pytest.param(
            [ok(B, (4, 5), "get", None, "y"), unknown(C, 4, "get"), ok(B, (6, 7), "get")],
            False,
            id="one may have gone with who died",
        ),
        pytest.param(
            [ok(B, (4, 5), "get", None, each) for each in "xyx"], True, id="delivered again"
        ),
        pytest.param(
            [ok(C, (4, 9), "get", None, "y"), ok(B, (5, 8), "get", None, "x")],
            False,
            id="two take at once",
        ),
    ],
)
def test_a_queue_that_keeps_its_promise_passes(gets: History, at_least_once: bool) -> None:
    assert total_queue.flaw([*PUT_XY, *gets], at_least_once=at_least_once) is None


def test_an_item_of_who_died_may_come_late_but_no_more_items_than_died() -> None:
    """It was given to that one, who did not come to take it."""
    late = [ok(B, (4, 5), "get", None, "y"), ok(B, (6, 7), "get", None, "x")]
    assert total_queue.flaw([*PUT_XY, unknown(C, 3, "get"), *late]) is None
    puts = [*PUT_XY, ok(C, (0, 1), "put", "z"), ok(C, (2, 3), "put", "w")]
    others = [ok(B, (8, 9), "get", None, "w"), ok(B, (10, 11), "get", None, "z")]
    assert total_queue.flaw([*puts, unknown(C, 4, "get"), *late, *others])


HANDED_OUT = [
    *PUT_XY,
    ok(B, (4, 5), "reserve", None, ("x", 1)),
    ok(C, (4, 6), "reserve", None, ("y", 2)),
    ok(C, (7, 8), "ack", ("y", 2)),
]
ACKED = ok(B, (7, 8), "ack", ("x", 1))


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([ACKED], id="each is acknowledged"),
        pytest.param([unknown(B, 7, "ack", ("x", 1))], id="one died acknowledging"),
        pytest.param(
            [ok(C, (9, 10), "reserve", None, ("x", 3)), ok(C, (11, 12), "ack", ("x", 3))],
            id="one died working",
        ),
        pytest.param(
            [
                failed(B, 11, "ack", ("x", 1)),
                ok(C, (9, 10), "reserve", None, ("x", 3)),
                ok(C, (13, 14), "ack", ("x", 3)),
            ],
            id="one was late",
        ),
        pytest.param(
            [
                ok(B, (9, 14), "reserve", None, ("x", 4)),
                failed(B, 15, "ack", ("x", 4)),
                ok(C, (10, 12), "reserve", None, ("x", 5)),
                ok(C, (17, 18), "ack", ("x", 5)),
            ],
            id="of two at one time either was the later one",
        ),
        pytest.param(
            [unknown(B, 6, "reserve"), ok(B, (9, 10), "ack", ("x", 3))],
            id="one heard the receipt and not that it was over",
        ),
    ],
)
def test_what_is_handed_out_until_it_is_acknowledged_passes(more: History) -> None:
    assert handed_out.flaw([*HANDED_OUT, *more]) is None
    assert is_linearizable(handed_out.first_hand_outs([*HANDED_OUT, *more]), FifoQueue())


@pytest.mark.parametrize(
    ("reason", "more"),
    [
        ("1 items were never acknowledged", []),
        ("acknowledged twice", [ACKED, ok(C, (9, 10), "ack", ("x", 1))]),
        (
            "had it no more",
            [ok(C, (4, 6), "reserve", None, ("x", 3)), ACKED],
        ),
        ("after it was acknowledged", [ACKED, ok(C, (9, 10), "reserve", None, ("x", 3))]),
        ("nobody put", [ACKED, ok(C, (9, 10), "reserve", None, ("z", 3))]),
        ("two hand-outs have one receipt", [ok(A, (9, 10), "reserve", None, ("x", 1)), ACKED]),
        ("two hand-outs have one receipt", [ok(A, (9, 10), "reserve", None, ("z", 1)), ACKED]),
        ("under a smaller receipt", [ok(A, (9, 10), "reserve", None, ("x", 0)), ACKED]),
        ("receipt that it was not given", [ok(B, (7, 8), "ack", ("x", 3))]),
        (
            "receipt that it was not given",
            [ok(B, (7, 8), "ack", ("x", 3)), unknown(C, 9, "reserve")],
        ),
        (
            "receipt that it was not given",
            [
                unknown(C, 5, "reserve"),
                ACKED,
                ok(C, (9, 10), "ack", ("z", 3)),
                ok(C, (11, 12), "ack", ("w", 4)),
            ],
        ),
        ("receipt that it was not given", [ok(C, (7, 8), "ack", ("x", 1))]),
        (
            "receipt that it was not given",
            [unknown(A, 6, "reserve"), ok(B, (7, 8), "ack", ("x", 3))],
        ),
        (
            "receipt that it was not given",
            [unknown(B, 9, "reserve"), ok(B, (7, 8), "ack", ("x", 3))],
        ),
    ],
)
def test_what_is_wrong_with_what_is_handed_out_is_said(reason: str, more: History) -> None:
    violation = handed_out.flaw([*HANDED_OUT, *more])
    assert violation is not None
    assert reason in violation.reason


def test_of_two_hand_outs_at_one_time_either_may_have_been_the_first() -> None:
    """The one that took effect first may have been the last to return."""
    history = [*HANDED_OUT, ok(A, (4, 3_000), "reserve", None, ("x", 3))]
    gets = [each for each in handed_out.first_hand_outs(history) if each.result == "x"]
    assert [(each.invoked, each.returned) for each in gets] == [(4, 3_000)]


def test_what_was_given_to_one_who_was_stopped_may_come_back() -> None:
    """It took a second, in which it was to claim it, and so is told of none, or of another."""
    puts = [ok(A, (0, 1), "put", "x"), ok(A, (2, 3), "put", "y")]
    gets = [ok(B, (10, 11), "get", None, "y"), ok(B, (12, 13), "get", None, "x")]
    for lasts, is_legal in ((1_000_000_000, True), (900_000_000, False)):
        stopped = refused(C, (4, 4 + lasts), "get")
        assert (total_queue.flaw([*puts, stopped, *gets]) is None) == is_legal


def test_a_queue_whose_items_are_not_different_cannot_be_checked() -> None:
    with pytest.raises(ValueError, match="twice"):
        total_queue.flaw([*PUT_XY, ok(B, (4, 5), "put", "x")])


def refused(process: int, span: tuple[int, int], function: str, item: Any = None) -> Operation:
    """A call that failed, with its time."""
    return Operation(process, function, item, Outcome.FAIL, None, *span)


EMPTY, FULL = refused(C, (20, 30), "get"), refused(C, (20, 30), "put", "z")


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([*PUT_XY, EMPTY], id="nobody else asks"),
        pytest.param([*PUT_XY, EMPTY, ok(B, (31, 32), "get", None, "x")], id="had later"),
        pytest.param([*PUT_XY, EMPTY, refused(B, (15, 25), "get")], id="two, and one more asks"),
        pytest.param([*PUT_XY, unknown(B, 10, "get"), EMPTY], id="one may have died with its item"),
        pytest.param([*PUT_XY, refused(B, (15, 25), "reserve")], id="reserve"),
    ],
)
def test_who_is_told_that_a_queue_is_empty_though_it_is_not_is_heard(history: History) -> None:
    assert refusals.flaw(history, 10)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([EMPTY], id="nothing was put"),
        pytest.param([ok(A, (15, 25), "put", "x"), EMPTY], id="put meanwhile"),
        pytest.param([unknown(A, 1, "put", "x"), EMPTY], id="perhaps never put"),
        pytest.param([*PUT_XY, *(unknown(B, n, "get") for n in (4, 5)), EMPTY], id="two died"),
        pytest.param([*PUT_XY[:1], ok(B, (15, 25), "get", None, "x"), EMPTY], id="another got it"),
        pytest.param(
            [*PUT_XY[:1], refused(B, (19, 40), "get"), EMPTY], id="it was another's for a moment"
        ),
        pytest.param(
            [
                *PUT_XY[:1],
                ok(B, (4, 5), "reserve", None, ("x", 1)),
                refused(C, (20, 30), "reserve"),
                ok(B, (40, 45), "reserve", None, ("x", 2)),
            ],
            id="in hand, and put back later",
        ),
        pytest.param([*PUT_XY, failed(C, 20, "get")], id="nobody knows when"),
    ],
)
def test_who_is_told_that_a_queue_is_empty_may_have_to_believe_it(history: History) -> None:
    assert refusals.flaw(history, 10) is None


@pytest.mark.parametrize(
    ("maxsize", "others", "is_illegal"),
    [
        pytest.param(3, [], True, id="two of three"),
        pytest.param(2, [], False, id="full"),
        pytest.param(3, [unknown(A, 19, "put", "w")], False, id="perhaps put"),
        pytest.param(3, [refused(A, (19, 25), "put", "w")], False, id="another asks"),
        pytest.param(3, [refused(A, (17, 19), "put", "w")], True, id="another has asked"),
        pytest.param(2, [ok(B, (4, 5), "get", None, "x")], True, id="one was got"),
        pytest.param(2, [ok(B, (4, 25), "get", None, "x")], False, id="one is got meanwhile"),
        pytest.param(2, [unknown(B, 4, "get")], False, id="perhaps got"),
        pytest.param(2, [ok(B, (4, 5), "ack", ("x", 1))], True, id="one was done"),
        pytest.param(2, [ok(B, (4, 5), "reserve", None, ("x", 1))], False, id="it may come back"),
    ],
)
def test_who_is_told_that_a_queue_is_full_is_heard_if_there_was_room(
    maxsize: int, others: History, is_illegal: bool
) -> None:
    assert bool(refusals.flaw([*PUT_XY, *others, FULL], maxsize)) == is_illegal

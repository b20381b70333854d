"""The checkers agree with verdicts that others have published.

The histories are written anew in our own form; what is behind them is named with each.
"""

import pytest

from stress.checkers import total_queue
from stress.checkers.linearizability import is_linearizable
from stress.checkers.models.queue import FifoQueue
from stress.checkers.models.register import Register
from stress.history import History
from tests.histories import events, ok

pytestmark = pytest.mark.suite

A, B, C, D = 1, 2, 3, 4

QUEUES = {
    # The four histories of a FIFO queue in Herlihy and Wing, "Linearizability: a correctness
    # condition for concurrent objects", ACM TOPLAS 12 (1990).
    "overlapping puts come out either way": (
        """
        1 invoke put x
        2 invoke put y
        2 ok put
        1 ok put
        2 invoke get
        2 ok get x
        1 invoke get
        1 ok get y
        1 invoke put z
        """,
        True,
    ),
    "x was put in before y, yet y comes out first": (
        """
        1 invoke put x
        1 ok put
        2 invoke put y
        1 invoke get
        2 ok put
        1 ok get y
        """,
        False,
    ),
    "x comes out before its put returns": (
        """
        1 invoke put x
        2 invoke get
        2 ok get x
        """,
        True,
    ),
    "y comes out twice": (
        """
        1 invoke put x
        2 invoke put y
        1 ok put
        2 ok put
        1 invoke get
        3 invoke get
        1 ok get y
        3 ok get y
        """,
        False,
    ),
}

REGISTERS = {
    # Knossos, data/cas-register/bad/rethink-fail-minimal.edn
    "a value out of nowhere": (
        None,
        """
        0 invoke write 0
        0 ok write
        1 invoke read
        2 invoke write 4
        1 ok read 3
        2 ok write
        3 invoke read
        3 ok read 4
        """,
        False,
    ),
    # Knossos, data/cas-register/bad/bad-analysis.edn
    "two spurious reads beside an open write": (
        "0",
        """
        4 invoke write 2
        4 ok write
        6 invoke read
        1 invoke write 4
        1 ok write
        14 invoke read
        14 ok read 4
        9 invoke write 0
        9 ok write
        19 invoke read
        20 invoke write 1
        19 ok read 0
        22 invoke read
        21 invoke read
        21 ok read 2
        22 ok read 3
        """,
        False,
    ),
    # Knossos, data/cas-register/good/cas-register-bug.edn
    "an open read beside writes": (
        "0",
        """
        4 invoke write 2
        4 ok write
        6 invoke read
        1 invoke write 4
        1 ok write
        14 invoke read
        14 ok read 4
        9 invoke write 0
        9 ok write
        19 invoke read
        19 ok read 0
        """,
        True,
    ),
    # Knossos, data/cas-register/bad/immediate-failure.edn
    "a read of what was refused": (
        None,
        """
        1 invoke read
        101 invoke write 3
        101 fail write
        1 ok read 3
        """,
        False,
    ),
    # Knossos, test/knossos/wgl_test.clj: crash-test, sequential-test, read-wrong-initial-value-test
    "a write that crashed": ("0", "0 invoke write 1\n0 info write", True),
    "a read of the initial value": ("0", "0 invoke read\n0 ok read 0", True),
    "a read of another initial value": ("0", "0 invoke read\n0 ok read 1", False),
    # Knossos, test/knossos/wgl_test.clj: preserves-indices-test
    "a read of what was not written": (
        "0",
        """
        0 invoke write 1
        0 ok write
        0 invoke read
        0 ok read 2
        """,
        False,
    ),
}

SPANS = {
    # Porcupine, porcupine_test.go: TestRegisterModel (of a quiz of MIT's course 6.824 in 2017)
    "reads of both values beside a write": (
        [
            ok(A, (0, 100), "write", 100),
            ok(B, (25, 75), "read", None, 100),
            ok(C, (30, 60), "read", None, 0),
        ],
        True,
    ),
    "the old value after the new one": (
        [
            ok(A, (0, 100), "write", 200),
            ok(B, (10, 30), "read", None, 200),
            ok(C, (40, 90), "read", None, 0),
        ],
        False,
    ),
    # Porcupine, porcupine_test.go: TestZeroDuration
    "reads that take no time": (
        [
            ok(A, (0, 100), "write", 100),
            ok(B, (25, 75), "read", None, 100),
            ok(C, (30, 30), "read", None, 0),
            ok(D, (30, 30), "read", None, 0),
        ],
        True,
    ),
    "the old value after reads that take no time": (
        [
            ok(A, (0, 100), "write", 200),
            ok(B, (10, 10), "read", None, 200),
            ok(C, (10, 10), "read", None, 200),
            ok(D, (40, 90), "read", None, 0),
        ],
        False,
    ),
}


@pytest.mark.parametrize(("text", "legal"), QUEUES.values(), ids=QUEUES)
def test_a_published_history_of_a_queue(text: str, legal: bool) -> None:
    assert is_linearizable(events(text), FifoQueue()) == legal


@pytest.mark.parametrize(("initial", "text", "legal"), REGISTERS.values(), ids=REGISTERS)
def test_a_published_history_of_a_register(initial: str | None, text: str, legal: bool) -> None:
    assert is_linearizable(events(text), Register(initial)) == legal


@pytest.mark.parametrize(("history", "legal"), SPANS.values(), ids=SPANS)
def test_a_published_history_with_times(history: History, legal: bool) -> None:
    assert is_linearizable(history, Register(0)) == legal


def test_the_queue_that_gives_an_item_twice_is_caught_without_a_search_too() -> None:
    violation = total_queue.flaw(events(QUEUES["y comes out twice"][0]))
    assert violation is not None
    assert "twice" in violation.reason

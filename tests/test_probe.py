"""What a call on a file that cannot be trusted may raise, and what is a flaw of kvsync's."""

import queue
from collections.abc import Callable
from pathlib import Path

import pytest

import kvsync
from stress.faults import probe

pytestmark = pytest.mark.suite


def _raising(error: Exception) -> Callable[[], object]:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("name", "error", "wrong"),
    [
        ("dict.get", KeyError("key 7"), False),
        ("dict.pop", KeyError("key 8"), False),
        ("dict.items", KeyError("key 1"), False),
        ("queue.get", queue.Empty(), False),
        ("queue.put", queue.Full(), False),
        ("dict.get", kvsync.DecodeError("damaged"), False),
        ("stats", kvsync.StorageError("damaged"), False),
        ("stats", KeyError("state"), True),
        ("dict.set", KeyError("new"), True),
        ("dict.increment", KeyError("a"), True),
        ("counters", KeyError("a"), True),
        ("queue.stats", queue.Empty(), True),
        ("queue.get", KeyError("item"), True),
        ("dict.get", IndexError(), True),
    ],
)
def test_only_what_is_documented_is_an_answer(name: str, error: Exception, wrong: bool) -> None:
    """A bare KeyError is one of few calls; of others it is a key that kvsync missed itself."""
    found = probe.Probe("path", "json")
    found._attempt(name, _raising(error))
    assert bool(found.wrong) == wrong, found.wrong


def test_each_answer_is_of_a_call_that_is_made(tmp_path: Path) -> None:
    with kvsync.open(tmp_path / "store.db") as store:
        names = {name for name, _ in probe._calls(store, "json")}
    assert probe._ANSWERS.keys() <= names

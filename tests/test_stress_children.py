"""Forked children of the stress suite: none comes to a bad end without a word."""

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stress.faults import calls
from stress.nemeses import fork
from stress.scenarios import power

pytestmark = pytest.mark.suite


def _dies(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fails(*_: object) -> None:
    raise ValueError("this is wrong")


ENDS = pytest.mark.parametrize(
    ("end", "told"),
    [
        pytest.param(_dies, ["status -9"], id="dies"),
        pytest.param(_fails, ["this is wrong", "status 1"], id="fails"),
    ],
)
"""How a child ends, and what is said of it."""


class Said:
    """What was explained, in this process or in children of it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "said"
        self._path.touch()

    def explain(self) -> None:
        with self._path.open("a") as file:
            file.write(traceback.format_exc())

    def __str__(self) -> str:
        return self._path.read_text()


@pytest.fixture
def said(tmp_path: Path) -> Said:
    return Said(tmp_path)


@ENDS
def test_a_child_of_a_fork_in_the_middle_of_work(
    said: Said, end: Callable[..., Any], told: list[str]
) -> None:
    fork._fork_once(SimpleNamespace(lock=end), said.explain)  # type: ignore[arg-type]
    assert all(each in str(said) for each in told), str(said)


def test_a_child_that_cannot_even_say_what_was_wrong(said: Said) -> None:
    """Its status still does."""
    ours = os.getpid()

    def explain() -> None:
        if os.getpid() != ours:
            raise OSError("no room")
        said.explain()

    fork._fork_once(SimpleNamespace(lock=_fails), explain)  # type: ignore[arg-type]
    assert "status 1" in str(said)
    assert "this is wrong" not in str(said)


def test_a_child_that_ends_well_is_not_spoken_of(said: Said) -> None:
    fork._fork_once(None, said.explain)
    assert str(said) == ""


@ENDS
def test_a_child_that_writes_until_the_power_fails(
    monkeypatch: pytest.MonkeyPatch, said: Said, end: Callable[..., Any], told: list[str]
) -> None:
    orders: list[object] = [("path", "power"), None]
    pipe = SimpleNamespace(recv=lambda: orders.pop(0), send=lambda _: None)
    worker = SimpleNamespace(pipe=pipe, ready=lambda: None, explain=said.explain)
    monkeypatch.setattr(power, "_write", end)
    with pytest.raises(AssertionError, match=told[-1]):
        power._take_part(worker)  # type: ignore[arg-type]
    assert all(each in str(said) for each in told[:-1])


@ENDS
def test_a_child_that_is_to_leave_a_lock_taken(end: Callable[..., Any], told: list[str]) -> None:
    store = SimpleNamespace(lock=lambda _: SimpleNamespace(acquire=end))
    with pytest.raises(AssertionError, match=told[-1]):
        calls._leave_taken(store)  # type: ignore[arg-type]

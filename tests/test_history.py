"""Histories are written so that a kill loses nothing, and read back as they were."""

import os
from pathlib import Path
from typing import Any

import pytest

from stress.history import History, Outcome, Recorder, Unrecorded, now, read
from stress.windows import LENGTH, Scribe, Windows
from tests.processes import expect, kill, running

pytestmark = pytest.mark.suite


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "history")


def fail(error: BaseException) -> Any:
    raise error


def test_calls_are_read_back_by_key_in_the_order_of_their_invocations(folder: str) -> None:
    first, second = Recorder(folder, 1), Recorder(folder, 2)
    before = now()
    assert second.call("a", "cas", [None, 1], lambda: True) is True
    assert first.call("b", "add", 1, lambda: 7) == 7
    assert first.call("a", "read", None, lambda: [1, [2]]) == [1, [2]]
    after = now()
    first.close()
    second.close()
    histories = read(folder)
    assert set(histories) == {"a", "b"}
    cas, reads = histories["a"]
    assert (cas.process, cas.function, cas.argument, cas.result) == (2, "cas", (None, 1), True)
    assert (reads.process, reads.function, reads.result) == (1, "read", (1, (2,)))
    times = [moment for each in (cas, reads) for moment in (each.invoked, each.returned or 0)]
    assert [before, *times, after] == sorted([before, *times, after])


def test_an_exception_that_changed_nothing_is_a_failure_and_any_other_is_unknown(
    folder: str,
) -> None:
    recorder, before = Recorder(folder, 1), now()
    with pytest.raises(KeyError):
        recorder.call("a", "read", None, lambda: fail(KeyError()), LookupError)
    with pytest.raises(BrokenPipeError):
        recorder.call("a", "write", 1, lambda: fail(BrokenPipeError()), LookupError)
    recorder.close()
    refused, _ = read(folder)["a"]
    assert [(each.outcome, each.returned) for each in read(folder)["a"]] == [
        (Outcome.FAIL, refused.returned),
        (Outcome.UNKNOWN, None),
    ]
    assert before <= refused.invoked <= (refused.returned or 0) <= now()


def _call_and_hang(pipe: Any, folder: str) -> None:
    recorder = Recorder(folder, 5)
    recorder.call("a", "write", 1, lambda: None)
    recorder.call("a", "write", 2, lambda: (pipe.send("inside"), pipe.recv()))


def test_a_call_in_which_its_process_was_killed_is_of_unknown_outcome(folder: str) -> None:
    with running(_call_and_hang, folder) as (child, pipe):
        assert expect(pipe) == "inside"
        kill(child)
    known, lost = read(folder)["a"]
    assert known.outcome is Outcome.OK
    assert (lost.argument, lost.outcome, lost.returned) == (2, Outcome.UNKNOWN, None)


@pytest.mark.parametrize(("cut", "outcomes"), [(1, ["unknown"]), (200, [])])
def test_a_line_that_a_kill_cut_short_counts_for_nothing(
    folder: str, cut: int, outcomes: list[str]
) -> None:
    """Without its last line the call is open; without its first it never began."""
    recorder = Recorder(folder, 1)
    recorder.call("a", "write", "x" * 200, lambda: None)
    recorder.close()
    path = Path(folder) / "history-1"
    os.truncate(path, path.stat().st_size - cut)
    assert [each.outcome for each in read(folder).get("a", [])] == outcomes


def test_what_is_not_recorded_is_called_all_the_same() -> None:
    assert Unrecorded().call("a", "add", 1, lambda: 7) == 7


def _windows(folder: str, began: int, count: int = 3, clients: int = 4) -> Windows:
    windows = Windows(folder, 4 * LENGTH, count, clients)
    os.makedirs(folder, exist_ok=True)
    os.symlink(str(began), os.path.join(folder, "began"))
    return windows


@pytest.mark.parametrize(
    ("since", "window"),
    [(0, 0), (LENGTH - 1, 0), (LENGTH, None), (8 * LENGTH, 2), (12 * LENGTH, None)],
)
def test_a_window_is_open_at_the_head_of_each_period(
    monkeypatch: pytest.MonkeyPatch, folder: str, since: int, window: int | None
) -> None:
    monkeypatch.setattr("stress.windows.now", lambda: 1_000 + since)
    assert _windows(folder, 1_000).open() == window


def test_no_window_is_open_to_who_looks_just_before_the_run_begins(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    windows = Windows(folder, LENGTH, 3, 4)
    moments = iter([1_000, 1_001])

    def begins_meanwhile() -> int:
        moment = next(moments)
        if moment == 1_000:
            windows.begin()
        return moment

    monkeypatch.setattr("stress.windows.now", begins_meanwhile)
    assert windows.open() is None


@pytest.mark.parametrize(
    ("since", "due"),
    [(LENGTH - 1, 0), (LENGTH, 1), (5 * LENGTH - 1, 1), (5 * LENGTH, 2), (99 * LENGTH, 3)],
)
def test_a_window_is_due_when_it_was_open_for_all_of_its_time(
    folder: str, since: int, due: int
) -> None:
    assert _windows(folder, 1_000).due(1_000 + since) == due


def test_each_window_is_a_history_of_its_own(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    windows = _windows(folder, 0)
    scribe = Scribe(windows, client=7)
    endings = []
    for period in range(4):
        monkeypatch.setattr("stress.windows.now", lambda at=period: 4 * LENGTH * at)
        for _ in range(2):
            ending, recording = scribe.window()
            endings.append(ending)
            recording.call(f"hits{ending}", "add", 1, lambda: 1)
    assert endings == ["-0-0", "-0-0", "-1-0", "-1-0", "-2-0", "-2-0", "", ""]
    histories: dict[str, History] = dict(windows.histories())
    assert {key: len(history) for key, history in histories.items()} == {
        "hits-0-0": 2,
        "hits-1-0": 2,
        "hits-2-0": 2,
    }


def test_no_more_than_eight_share_an_object(folder: str) -> None:
    windows = _windows(folder, 0, clients=20)
    groups = [windows.group(client) for client in range(1, 21)]
    assert {groups.count(group) for group in groups} <= {6, 7, 8}

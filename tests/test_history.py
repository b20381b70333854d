"""Histories are written so that a kill loses nothing, and read back as they were."""

import os
from pathlib import Path
from typing import Any

import pytest

from stress.history import History, Outcome, Recorder, Unrecorded, now, of_thread, read
from stress.scenarios import rlock
from stress.stage import Stage, Terms
from stress.windows import CLIENTS, LENGTH, LONGEST, SPAN, Scribe, Windows
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


PERIOD = 4 * LENGTH


def _windows(
    folder: str, began: int, count: int = 3, clients: int = 4, period: int = PERIOD
) -> Windows:
    windows = Windows(folder, period, count, clients, long=True)
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
        monkeypatch.setattr("stress.windows.now", lambda at=period: PERIOD * at)
        for _ in range(2):
            ending, recording = scribe.window()
            endings.append(ending)
            recording.call(f"hits{ending}", "add", 1, lambda: 1)
    assert endings == ["-0-0", "-0-0", "-1-0", "-1-0", "-2-0", "-2-0", "", ""]
    assert not list(windows.long_histories()), "nothing was done between the windows"
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


@pytest.mark.parametrize("processes", range(4, 20))
def test_threads_that_are_told_apart_are_counted_one_by_one(tmp_path: Path, processes: int) -> None:
    terms = Terms(seed=1, seconds=1, processes=processes)
    stage = Stage(rlock, terms, str(tmp_path), lambda _: None)
    clients = [of_thread(1 + number, thread) for number in range(processes) for thread in range(2)]
    groups = [stage.windows.group(client) for client in clients]
    assert max(map(groups.count, groups)) <= CLIENTS


@pytest.mark.parametrize(
    ("since", "span"),
    [
        (0, 0),
        (SPAN * PERIOD - 1, 0),
        (SPAN * PERIOD, 1),
        (50 * PERIOD - 1, 2),
        (50 * PERIOD, None),
    ],
)
def test_all_agree_by_the_clock_on_the_span_of_a_long_history(
    monkeypatch: pytest.MonkeyPatch, folder: str, since: int, span: int | None
) -> None:
    """The last of them may be shorter."""
    monkeypatch.setattr("stress.windows.now", lambda: 1_000 + since)
    assert _windows(folder, 1_000, count=50).span() == span


@pytest.mark.parametrize(
    ("since", "span"), [(LONGEST - 1, 0), (LONGEST, None), (2 * LONGEST, 1), (3 * LONGEST, None)]
)
def test_a_long_history_has_its_end_however_long_its_span_is(
    monkeypatch: pytest.MonkeyPatch, folder: str, since: int, span: int | None
) -> None:
    monkeypatch.setattr("stress.windows.now", lambda: 1_000 + since)
    assert _windows(folder, 1_000, count=50, period=2 * LONGEST // SPAN).span() == span


def test_there_is_no_long_history_before_the_run_begins(folder: str) -> None:
    windows = Windows(folder, PERIOD, 50, 4, long=True)
    assert (windows.span(), windows.due_long(now())) == (None, 0)


def test_there_is_none_for_who_has_no_checkers_for_it(folder: str) -> None:
    windows = Windows(folder, 10**12, 50, 4)
    windows.begin()
    assert (windows.span(), windows.due_long(now() + 50 * 10**12)) == (None, 0)


def test_there_is_none_where_windows_leave_little_time_between_them(folder: str) -> None:
    began = now()
    spans = [_windows(f"{folder}{n}", began, 10**6, period=2 * LENGTH - n).span() for n in (0, 1)]
    assert spans == [0, None]


@pytest.mark.parametrize(
    ("period", "since", "due"),
    [
        (PERIOD, SPAN * PERIOD - 1, 0),
        (PERIOD, SPAN * PERIOD, SPAN * PERIOD),
        (PERIOD, 99 * PERIOD, 2 * SPAN * PERIOD),
        (2 * LONGEST // SPAN, 2 * LONGEST, LONGEST),
        (2 * LENGTH - 1, 50 * PERIOD, 0),
    ],
)
def test_a_long_history_is_due_when_its_span_is_over(
    folder: str, period: int, since: int, due: int
) -> None:
    """And counts for as long as it was to be recorded; one cut off by the last window does not."""
    assert _windows(folder, 1_000, count=50, period=period).due_long(1_000 + since) == due


def _add(scribe: Scribe, monkeypatch: pytest.MonkeyPatch, moment: int, result: Any = 1) -> str:
    """To the counter of that moment, which says or raises that; returns how its name ends."""
    monkeypatch.setattr("stress.windows.now", lambda: moment)
    ending, recording = scribe.window()
    raises = isinstance(result, BaseException)
    recording.call(f"hits{ending}", "add", 1, lambda: fail(result) if raises else result)
    return ending


def test_a_long_history_goes_on_after_each_window_with_no_call_lost_or_confused(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    windows = _windows(folder, 0, count=50)
    scribe = Scribe(windows, client=7)
    between, after = LENGTH, SPAN * PERIOD + LENGTH
    moments = [0, between, between, PERIOD, PERIOD + between, SPAN * PERIOD, after, 99 * PERIOD]
    endings = [_add(scribe, monkeypatch, at, number) for number, at in enumerate(moments)]
    assert endings == ["-0-0", *["-long-0"] * 2, "-1-0", "-long-0", "-20-0", "-long-1", ""]
    long = {key: [each.result for each in told] for key, told in windows.long_histories()}
    assert long == {"hits-long-0": [1, 2, 4], "hits-long-1": [6]}
    short = {key: [each.result for each in told] for key, told in windows.histories()}
    assert short == {"hits-0-0": [0], "hits-1-0": [3], "hits-20-0": [5]}


def test_a_call_of_a_long_history_that_was_cut_off_stays_unknown_after_a_window(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    windows = _windows(folder, 0)
    scribe = Scribe(windows, client=7)
    with pytest.raises(BrokenPipeError):
        _add(scribe, monkeypatch, LENGTH, BrokenPipeError())
    for moment in (PERIOD, PERIOD + LENGTH):
        _add(scribe, monkeypatch, moment)
    ((key, history),) = windows.long_histories()
    assert [each.outcome for each in history] == [Outcome.UNKNOWN, Outcome.OK]
    assert key == "hits-long-0"


def _add_and_hang(pipe: Any, windows: Windows) -> None:
    ending, recording = Scribe(windows, client=7).window()
    recording.call(f"hits{ending}", "add", 1, lambda: (pipe.send("inside"), pipe.recv()))


def test_who_comes_after_one_that_was_killed_does_not_end_its_call(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    windows = Windows(folder, 2_000_000 * LENGTH, 1, 4, long=True)
    os.makedirs(folder)
    os.symlink(str(now() - LENGTH), os.path.join(folder, "began"))
    with running(_add_and_hang, windows) as (child, pipe):
        assert expect(pipe) == "inside"
        kill(child)
    _add(Scribe(windows, client=8), monkeypatch, now())
    ((_, history),) = windows.long_histories()
    assert [(each.process, each.outcome) for each in history] == [
        (7, Outcome.UNKNOWN),
        (8, Outcome.OK),
    ]


def test_no_more_than_a_window_and_a_span_are_open_at_a_time(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    scribe, opened = Scribe(_windows(folder, 0, count=50), client=7), []
    for moment in range(0, 52 * PERIOD, LENGTH):
        _add(scribe, monkeypatch, moment)
        links = (f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd"))
        opened.append(sum(folder in os.readlink(each) for each in links if os.path.exists(each)))
    assert (max(opened), opened[-1]) == (2, 0)


@pytest.mark.parametrize(
    ("ending", "short", "long"), [("-1-0", 1, 0), ("-long-1", 0, 1), ("", 0, 0)]
)
def test_what_is_done_at_the_end_is_recorded_with_the_object_it_is_done_to(
    folder: str, ending: str, short: int, long: int
) -> None:
    windows = _windows(folder, 0)
    windows.recorder(ending, 0).call(f"jobs{ending}", "get", None, lambda: 1)
    assert len(list(windows.histories())) == short
    assert len(list(windows.long_histories())) == long

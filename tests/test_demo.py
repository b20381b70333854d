"""`kvsync demo`: it counts from outside, tells the truth, and leaves nothing behind."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import kvsync
from kvsync.cli import main
from kvsync.cli.demo import acts
from kvsync.cli.demo.acts import Check, Span
from kvsync.cli.demo.witness import Witness
from tests.processes import PATIENCE, expect, kill, running

KVSYNC = str(Path(sys.executable).with_name("kvsync"))
SHORT = ("--operations", "300", "--seed", "1")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Temporary files go where the test can see them; warnings are errors."""
    return os.environ | {"TMPDIR": str(tmp_path), "PYTHONWARNINGS": "error"}


@contextmanager
def started(environment: Mapping[str, str], *options: str) -> Iterator[subprocess.Popen[str]]:
    """A demo in a process group of its own, as a shell would start it; ended on leaving."""
    demo = subprocess.Popen(
        [KVSYNC, "demo", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        with demo:
            yield demo
            demo.wait(PATIENCE)
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)


def test_the_demo_ends_with_a_table_and_status_0(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with started(environment, *SHORT) as demo:
        out, errors = demo.communicate(timeout=PATIENCE)
    assert (demo.returncode, errors) == (0, "")
    assert "8 processes share one store" in out
    assert "gets SIGKILL half way" in out
    assert "gets SIGKILL while it holds the lock" in out
    assert "gets SIGKILL while it holds the semaphore" in out
    assert "gets SIGKILL while it holds an item of the queue" in out
    assert "expected" in out
    assert "nothing was lost" in out
    assert not list(tmp_path.iterdir())


def test_the_report_accounts_for_every_acknowledgement(environment: dict[str, str]) -> None:
    options = ("--processes", "5", "--seconds", "0.5", "--json")
    with started(environment, *options) as demo:
        out, errors = demo.communicate(timeout=PATIENCE)
    assert (demo.returncode, errors) == (0, "")
    report = json.loads(out)
    assert report["ok"]
    assert report["processes"] == 5
    due = {check["what"]: check for check in report["checks"]}
    del due["transaction, counter"], due["transaction, their difference"]
    assert due.pop("integrity of the file")["found"] == "sound"
    assert 1 <= due.pop("semaphore, most inside")["found"] <= acts.LIMIT
    for held, what in zip(report["killed_inside"], ["it", "it", "an item"], strict=True):
        assert due.pop(f"{held['inside']}, one who held {what}")["found"] == "killed inside"
    assert [held["inside"] for held in report["killed_inside"]] == ["lock", "semaphore", "queue"]
    done = due["queue, done exactly once"]["found"]
    assert due.pop("queue, items put")["found"] == done + due.pop("queue, still in it")["found"]
    assert due.pop("queue, lost or done again")["found"] == 0
    assert due.pop("queue, dead letters")["found"] == 0
    # Every operation once; the range is that of the one operation in flight, and of no other.
    assert sum(check["expected"][0] for check in due.values()) == report["operations"]
    ranged = [what for what, c in due.items() if c["expected"][0] != c["expected"][1]]
    (what,) = ranged
    assert report["killed"]["in_flight"] in what
    assert sum(c["found"] for c in due.values()) - report["operations"] in (0, 1)


def test_a_terminal_shows_a_bar_for_each_process(environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    demo = subprocess.Popen(
        [KVSYNC, "demo", "--processes", "5", *SHORT],
        env=environment | {"TERM": "xterm", "COLUMNS": "80", "LINES": "40"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    with demo:
        shown = _all_of(ours)
    assert demo.returncode == 0, shown
    assert "process 5" in shown
    assert "SIGKILL" in shown
    assert "nothing was lost" in shown


def _all_of(terminal: int) -> str:
    shown = b""
    try:
        while chunk := os.read(terminal, 1 << 16):
            shown += chunk
    except OSError:  # Linux's way to say that nobody has the other side open
        pass
    os.close(terminal)
    return shown.decode()


@pytest.mark.parametrize("first_line", ["share one store", "all are ready"])
def test_ctrl_c_leaves_no_process_and_no_file(
    first_line: str, environment: dict[str, str], tmp_path: Path
) -> None:
    with started(environment, "--seconds", "600") as demo:
        _read_until(demo, first_line)
        family = psutil.Process(demo.pid).children(recursive=True)
        os.killpg(demo.pid, signal.SIGINT)
        _, errors = demo.communicate(timeout=PATIENCE)
    assert (demo.returncode, errors) == (130, "")
    _, alive = psutil.wait_procs(family, PATIENCE)
    assert not alive
    assert not list(tmp_path.iterdir())


def test_a_polite_signal_ends_it_as_well(environment: dict[str, str], tmp_path: Path) -> None:
    with started(environment, "--seconds", "600") as demo:
        _read_until(demo, "all are ready")
        family = psutil.Process(demo.pid).children(recursive=True)
        demo.terminate()
        _, errors = demo.communicate(timeout=PATIENCE)
    assert (demo.returncode, errors) == (128 + signal.SIGTERM, "")
    _, alive = psutil.wait_procs(family, PATIENCE)
    assert not alive
    assert not list(tmp_path.iterdir())


def test_the_processes_end_when_the_demo_itself_is_killed(environment: dict[str, str]) -> None:
    with started(environment, "--seconds", "600") as demo:
        _read_until(demo, "all are ready")
        family = psutil.Process(demo.pid).children(recursive=True)
        assert len(family) >= 8
        demo.kill()
        _, errors = demo.communicate(timeout=PATIENCE)
    assert errors == ""
    _, alive = psutil.wait_procs(family, PATIENCE)
    assert not alive


def _read_until(demo: subprocess.Popen[str], wanted: str) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if wanted in line:
            return
    raise AssertionError(f"{wanted!r} was never said")


class Tampered(acts.SharedCounter):
    """Counts `instead` where it acknowledges 1, every tenth time."""

    def __init__(self, instead: int) -> None:
        self._instead = instead
        self._calls = 0

    def perform(self, store: kvsync.Store, _: str) -> None:
        self._calls += 1
        store.counter("hits").add(1 if self._calls % 10 else self._instead)


class Racing(acts.SharedCounter):
    """Reads and writes in two calls, as `counter.value += 1` in a program would."""

    def perform(self, store: kvsync.Store, _: str) -> None:
        counter = store.counter("hits")
        counter.set(counter.value + 1)


class Raising(acts.SharedCounter):
    """Fails in the processes."""

    def perform(self, _: kvsync.Store, __: str) -> None:
        raise ValueError("no")


class Torn(acts.Pair):
    """Misses halves of transactions: more of them than a kill leaves unknown."""

    def checks(self, store: kvsync.Store, due: Mapping[str, Span]) -> Iterator[Check]:
        store.counter("pair").sub(2)
        yield from super().checks(store, due)


class Unlocked(acts.CriticalSection):
    """Knows the number from before, as who reads it without the lock does."""

    _known: int | None = None

    def perform(self, store: kvsync.Store, _: str) -> None:
        if self._known is None:
            self._known = acts._read_number(self._path(store))
        self._known += 1
        acts._write_number(self._path(store), self._known)


class Crowded(acts.Room):
    """Stays inside, past the semaphore, until one more is there than may be."""

    def perform(self, store: kvsync.Store, _: str) -> None:
        super().perform(store, _)
        end = time.monotonic() + PATIENCE
        with self._witness(store).inside():
            while self._witness(store).most <= acts.LIMIT and time.monotonic() < end:
                os.sched_yield()


class Getting(acts.WorkQueue):
    """Takes its items for good, so that they die with it."""

    def perform_inside(self, store: kvsync.Store, inside: Callable[[], object]) -> None:
        jobs = store.queue("jobs")
        number = jobs.put(1)
        jobs.get(timeout=PATIENCE)
        inside()
        store.dict("done").increment(str(number))


class Forgetful(acts.WorkQueue):
    """Commits what it has done, and asks for every tenth item to be done again."""

    def _do(self, store: kvsync.Store, task: kvsync.Task) -> None:
        store.dict("done").increment(str(task.id))
        if task.id % 10 == 0 and task.attempts == 1:
            task.retry(delay=0)
        else:
            task.ack()


class Careful(acts.CriticalSection):
    """Never lets its holder be killed."""

    def perform_inside(self, store: kvsync.Store, inside: Callable[[], object]) -> None:
        with store.lock("ledger"):
            if inside is acts._nothing:
                acts._write_number(self._path(store), acts._read_number(self._path(store)) + 1)


@pytest.mark.parametrize(
    ("act", "wrong"),
    [
        (Tampered(0), ["counter"]),
        (Tampered(2), ["counter"]),
        (Racing(), ["counter"]),
        (Torn(), ["transaction, counter", "transaction, their difference"]),
        (Unlocked(), ["lock, number in a file"]),
        (Crowded(), ["semaphore, most inside"]),
        (Getting(), ["queue, still in it", "queue, lost or done again"]),
        (
            Forgetful(),
            ["queue, done exactly once", "queue, still in it", "queue, lost or done again"],
        ),
    ],
    ids=[
        "loses",
        "counts twice",
        "races",
        "torn",
        "not locked",
        "too many inside",
        "takes for good",
        "does twice",
    ],
)
def test_whatever_is_lost_or_made_up_is_told(
    act: Any,
    wrong: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a busy machine processes may happen to run one after the other: then once more."""
    monkeypatch.setattr(acts, "ACTS", (act, acts.Integrity()))
    for _ in range(4):
        status = main(["demo", "--operations", "4000", "--json"])
        report = json.loads(capsys.readouterr().out)
        if status:
            break
    assert status == 1
    assert not report["ok"]
    assert [check["what"] for check in report["checks"] if not check["ok"]] == wrong


def test_a_holder_that_was_not_killed_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the demo would show what never happened."""
    monkeypatch.setattr(acts, "ACTS", (Careful(),))
    assert main(["demo", "--processes", "5", *SHORT, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    wrong = [check["what"] for check in report["checks"] if not check["ok"]]
    (held,) = report["killed_inside"]
    assert wrong == ["lock, one who held it", f"exit status of process {held['process']}"]


def test_the_witness_counts_who_is_inside_and_forgets_who_dies(tmp_path: Path) -> None:
    """Up to one more than may be; by the kernel's locks, which end with their process."""
    witness = Witness(str(tmp_path / "room"), 2)
    assert witness.most == 0
    with running(stay_inside, str(tmp_path / "room")) as (child, pipe):
        expect(pipe)
        assert witness.most == 1
        kill(child)
    with witness.inside():
        assert witness.most == 1
        with witness.inside():
            assert witness.most == 2
            with witness.inside(), witness.inside():
                assert witness.most == 4
    with witness.inside():
        assert witness.most == 4


def stay_inside(pipe: Any, folder: str) -> None:
    """Until killed."""
    with Witness(folder, 2).inside():
        pipe.send(None)
        pipe.recv()


def test_a_wrong_expectation_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(acts, "ACTS", (Tampered(0),))
    assert main(["demo", "--processes", "5", "--operations", "400"]) == 1
    assert "NOT as expected: counter" in capsys.readouterr().out


def test_a_process_that_fails_makes_the_demo_fail(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(acts, "ACTS", (Raising(),))
    assert main(["demo", "--processes", "5", *SHORT]) == 1
    shown = capfd.readouterr()
    assert "exit status of process 1" in shown.out
    assert "process 1: ValueError: no" in shown.err
    assert "Traceback" not in shown.err


def test_the_demo_refuses_a_store(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", str(path), "demo"]) == 2
    assert "temporary store of its own" in capsys.readouterr().err
    assert not path.exists()

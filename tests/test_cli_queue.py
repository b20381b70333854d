"""`kvsync queue`: what is in queues, what goes in and out, and a command run for each item."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import kvsync
from kvsync.cli.queue import put, work
from kvsync.cli.queue.child import Child
from kvsync.testing import ManualClock
from tests.lines import calling
from tests.processes import PATIENCE, eventually, expect, running
from tests.test_cli import KVSYNC, Run, refused, run, succeeded

__all__ = ["run"]  # the fixture

ECHO = 'read -r item; echo "$KVSYNC_ITEM_ID $KVSYNC_ATTEMPT $item"'
"""A shell command that shows what it is given."""


@contextmanager
def worker(path: object, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`kvsync queue work jobs`, with pipes, in a process group of its own; ended on leaving.

    Signals are sent to the group, as a terminal does.
    """
    child = subprocess.Popen(
        [KVSYNC, "queue", "work", "jobs", *words],
        env=os.environ | {"KVSYNC_STORE": str(path), "PYTHONWARNINGS": "error"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with child:
        try:
            yield child
        finally:
            family = [*psutil.Process(child.pid).children(recursive=True)] if _runs(child) else []
            child.kill()
            for each in family:
                each.kill()


def _runs(child: subprocess.Popen[str]) -> bool:
    return child.poll() is None


def said(child: subprocess.Popen[str]) -> str:
    """Its next line."""
    assert child.stdout is not None
    return child.stdout.readline().rstrip("\n")


def answer(child: subprocess.Popen[str]) -> str:
    """The next line of its stderr."""
    assert child.stderr is not None
    return child.stderr.readline()


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status and what it wrote to stderr. Raises: TimeoutExpired if it hangs."""
    _, errors = child.communicate(timeout=PATIENCE)
    return child.returncode, errors


# --- ls ----------------------------------------------------------------------------------------


def test_ls_lists_every_queue_with_its_numbers(run: Run, store: kvsync.Store) -> None:
    """In a table only the columns that say something."""
    jobs = store.queue("jobs", 100)
    jobs.put_many(["a", "b", "c"])
    jobs.put("later", delay=1000)
    jobs.reserve()
    jobs.reserve().bury("no")
    store.queue("mail").put("x")
    store.queue("mail").shutdown()
    one, two = json.loads(succeeded(run("queue", "ls", "--json")))
    assert {key: one[key] for key in ("name", "depth", "delayed", "in_flight", "dead")} == {
        "name": "jobs",
        "depth": 1,
        "delayed": 1,
        "in_flight": 1,
        "dead": 1,
    }
    assert (one["maxsize"], one["is_shutdown"], two["is_shutdown"]) == (100, False, True)
    headings, _, first, second = succeeded(run("queue", "ls")).splitlines()
    assert headings.split() == (
        "name ready delayed in-hand dead oldest put/s done/s maxsize state".split()
    )
    assert first.split()[:5] == ["jobs", "1", "1", "1", "1"]
    assert "100" in first.split()
    assert second.rstrip().endswith("shut down")


def test_ls_tells_who_waits(run: Run, store: kvsync.Store) -> None:
    """For items, and for room."""
    empty, full = store.queue("empty"), store.queue("full", 1)
    empty.put(0)
    assert empty.get() == 0
    full.put(1)
    with calling(empty.get) as get, calling(lambda: full.put(2)) as put:
        eventually(lambda: empty.stats().getters and full.stats().putters)
        table = succeeded(run("queue", "ls"))
        assert "1 to get" in table
        assert "1 to put" in table
        full.get()
        empty.put(1)
        get.result()
        put.result()


def test_ls_of_no_queue_says_so(run: Run, store: kvsync.Store) -> None:
    """In words, or as an empty list."""
    store.counter("hits").add()
    assert succeeded(run("queue", "ls")) == "there are no queues\n"
    assert succeeded(run("queue", "ls", "--json")) == "[]\n"


def test_the_other_verbs_know_queues(run: Run, store: kvsync.Store) -> None:
    """ls counts what is not done with; stats counts the queues."""
    jobs = store.queue("jobs")
    jobs.put_many([1, 2, 3])
    jobs.reserve()
    jobs.get()
    wanted = [{"kind": "queue", "name": "jobs", "items": 2, "waiters": 0}]
    for words in (["ls"], ["ls", "queue"], ["ls", "jobs"], ["ls", "queue:jobs"]):
        assert json.loads(succeeded(run(*words, "--json"))) == wanted
    assert "2 items" in succeeded(run("ls"))
    assert "2 items" in succeeded(run("ls", "jobs"))
    assert json.loads(succeeded(run("stats", "--json")))["queues"] == 1


# --- peek --------------------------------------------------------------------------------------


def test_peek_shows_the_first_items_and_takes_none(run: Run, store: kvsync.Store) -> None:
    """The delayed ones last."""
    jobs = store.queue("jobs")
    jobs.put("later", delay=1000, key="k")
    jobs.put_many([{"n": n} for n in range(20)])
    jobs.put("urgent", priority=1)
    found = json.loads(succeeded(run("queue", "peek", "jobs", "-n", "3", "--json")))
    assert [each["item"] for each in found] == ["urgent", {"n": 0}, {"n": 1}]
    assert [each["id"] for each in found] == [22, 2, 3]
    assert found[0]["priority"] == 1
    found = json.loads(succeeded(run("queue", "peek", "jobs", "--json")))
    assert len(found) == 10
    found = json.loads(succeeded(run("queue", "peek", "jobs", "-n", "99", "--json")))
    assert (found[-1]["item"], found[-1]["key"]) == ("later", "k")
    table = succeeded(run("queue", "peek", "jobs", "-n99"))
    assert '{"n": 19}' in table
    assert "16 min" in table
    assert jobs.stats().depth == 21


def test_what_other_codecs_put_is_shown_and_never_unpickled(run: Run, store: kvsync.Store) -> None:
    """Nor buried as unreadable."""
    store.queue("jobs", codec="pickle").put({1})
    store.queue("jobs", codec="raw").put("{no json")
    one, two = json.loads(succeeded(run("queue", "peek", "jobs", "--json")))
    assert (set(one["item"]), two["item"]) == ({"base64"}, "{no json")
    assert "bytes>" in succeeded(run("queue", "peek", "jobs"))
    shown = succeeded(run("queue", "work", "jobs", "--drain", "--", "cat"))
    assert [type(json.loads(line)) for line in shown.splitlines()] == [dict, str]


def test_what_a_queue_holds_does_not_drive_the_terminal(run: Run, store: kvsync.Store) -> None:
    """Nor what its errors say."""
    jobs = store.queue("\x1b[2J")
    jobs.put("[bold]\x1b[31m", key="\x9b")
    jobs.reserve().bury("\x1b[2J\n\x9b0m")
    jobs.put("[bold]\x1b[31m", key="\x9b")
    for words in (["ls"], ["peek", "\x1b[2J"], ["dead", "\x1b[2J"], ["dead", "\x1b[2J", "--error"]):
        done = run("queue", *words)
        assert done.returncode == 0
        assert not {"\x1b", "\x9b"} & set(done.stdout + done.stderr)


# --- put ---------------------------------------------------------------------------------------


def test_put_makes_the_store_and_prints_the_ids(run: Run, path: Path) -> None:
    """JSON is read as such, all else is text."""
    assert succeeded(run("queue", "put", "jobs", '{"a": [1]}', "two", "-3")) == "1\n2\n3\n"
    assert succeeded(run("queue", "put", "jobs", "-", "--json", input="a line\n")) == "[4]\n"
    with kvsync.open(path) as store:
        assert store.queue("jobs").get_many(9) == [{"a": [1]}, "two", -3, "a line"]


def test_put_takes_lines_from_stdin(run: Run, store: kvsync.Store) -> None:
    """More of them than are put in one commit; blank ones are left out."""
    lines = "".join(f'{{"n": {n}}}\n\n' for n in range(1200)) + "last"
    shown = succeeded(run("queue", "put", "jobs", "--lines", input=lines))
    assert shown.split() == [str(n) for n in range(1, 1202)]
    items = store.queue("jobs").get_many(2000)
    assert items == [*({"n": n} for n in range(1200)), "last"]


def test_put_lines_puts_each_line_as_it_comes(store: kvsync.Store) -> None:
    """It does not wait for the end of stdin."""
    with subprocess.Popen(
        [KVSYNC, "queue", "put", "jobs", "--lines"],
        env=os.environ | {"KVSYNC_STORE": store.path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        for number in (1, 2):
            child.stdin.write(f"{number}\n")
            child.stdin.flush()
            assert store.queue("jobs").get(timeout=PATIENCE) == number
        child.stdin.write("unended")
        child.communicate(timeout=PATIENCE)
    assert child.returncode == 0
    assert store.queue("jobs").get_nowait() == "unended"


def test_put_lines_copies_a_long_line_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not anew with each piece of it that comes."""

    class Piece(bytes):
        def __radd__(self, begun: bytes) -> bytes:
            raise AssertionError(f"{len(begun)} bytes are copied again")

    pieces = [Piece(piece) for piece in (b"a", b"b", b"c\n\nd\ne", b"f", b"\n", b"g", b"")]
    with monkeypatch.context() as patched:
        patched.setattr(os, "read", lambda *_: pieces.pop(0))
        lines = list(put._lines())
    assert [line for some in lines for line in some] == [b"abc", b"", b"d", b"ef", b"g"]


def test_put_tells_of_what_it_has_put_though_the_rest_fails(run: Run, store: kvsync.Store) -> None:
    """Their ids, as JSON too: whoever puts the rest later has to know."""
    jobs = store.queue("jobs", 3)
    jobs.put("first")
    for options, shown in (["--json"], "[2, 3]\n"), ([], "4\n"):
        done = run("queue", "put", "jobs", "a", "b", "c", "--timeout", "0", *options)
        assert (done.returncode, done.stdout) == (1, shown)
        assert "'jobs' holds 3 items" in done.stderr
        jobs.get()
    done = run("queue", "put", "jobs", "1e999", "--json")
    assert (done.returncode, done.stdout) == (2, "")


def test_put_has_priorities_delays_and_keys(run: Run, store: kvsync.Store) -> None:
    """A second item of a key is refused while the first one waits."""
    succeeded(run("queue", "put", "jobs", "low"))
    succeeded(run("queue", "put", "jobs", "high", "--priority", "1.5"))
    succeeded(run("queue", "put", "jobs", "later", "--delay=1000", "--key", "k"))
    refused(run("queue", "put", "jobs", "more", "--key", "k"), 1, "'k' waits in 'jobs' already")
    jobs = store.queue("jobs")
    assert [(item.item, item.due is None) for item in jobs.peek(9)] == [
        ("high", True),
        ("low", True),
        ("later", False),
    ]


def test_put_keeps_to_the_size_that_the_queue_has(run: Run, store: kvsync.Store) -> None:
    """Even while it is in use, when no other size is accepted."""
    jobs = store.queue("jobs", 3)
    jobs.put("first")
    task = jobs.reserve()
    succeeded(run("queue", "put", "jobs", "a", "b", "c"))
    assert jobs.stats().maxsize == 3
    refused(run("queue", "put", "jobs", "d", "--timeout", "0"), 1, "'jobs' holds 3 items")
    task.ack()


def test_put_waits_for_room(run: Run, store: kvsync.Store) -> None:
    """Item by item, as room is made."""
    jobs = store.queue("jobs", 1)
    jobs.put("first")
    with calling(lambda: run("queue", "put", "jobs", "a", "b", "c")) as call:
        eventually(lambda: jobs.stats().putters == 1)
        assert [jobs.get(timeout=PATIENCE) for _ in range(4)] == ["first", "a", "b", "c"]
        assert succeeded(call.result()) == "2\n3\n4\n"


def test_ctrl_c_ends_a_put_that_waits(store: kvsync.Store) -> None:
    """And its item does not come later."""
    jobs = store.queue("jobs", 1)
    jobs.put("first")
    with subprocess.Popen(
        [KVSYNC, "queue", "put", "jobs", "second"],
        env=os.environ | {"KVSYNC_STORE": store.path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        eventually(lambda: jobs.stats().putters == 1)
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, errors) == (130, "", "")
    assert jobs.get() == "first"
    assert jobs.empty()


# --- dead, redrive, purge ----------------------------------------------------------------------


@pytest.fixture
def dead(store: kvsync.Store) -> kvsync.Queue:
    """A queue with three dead letters, of the ids 1, 2 and 3, and one item that waits."""
    jobs = store.queue("jobs", max_attempts=1)
    jobs.put_many(["a", "b", "c", "d"])
    for error in ("first line\nValueError: no", "oh\n\n", None):
        jobs.reserve().retry(error=error)
    return jobs


@pytest.mark.usefixtures("dead")
def test_dead_shows_the_last_line_of_each_error(run: Run) -> None:
    """And all of them with --error, or as JSON."""
    table = succeeded(run("queue", "dead", "jobs"))
    rows = [line.split() for line in table.splitlines()[2:]]
    assert [(row[0], row[1]) for row in rows] == [("1", "1"), ("2", "1"), ("3", "1")]
    assert rows[0][-2:] == ["ValueError:", "no"]
    assert rows[1][-1] == "oh"
    assert "first line" not in table
    whole = succeeded(run("queue", "dead", "jobs", "--error"))
    assert "    first line\n    ValueError: no\n" in whole
    assert "no error was told" in whole
    found = json.loads(succeeded(run("queue", "dead", "jobs", "--json")))
    assert [each["item"] for each in found] == ["a", "b", "c"]
    assert [each["error"] for each in found] == ["first line\nValueError: no", "oh\n\n", None]
    (first,) = json.loads(succeeded(run("queue", "dead", "jobs", "--json", "-n1")))
    assert first == found[0]


def test_redrive_puts_back_all_or_those_that_are_named(run: Run, dead: kvsync.Queue) -> None:
    """Into their old places; an id that is no dead letter's is told of."""
    done = run("queue", "redrive", "jobs", "2", "9")
    assert (done.returncode, done.stdout) == (1, "1 item put back\n")
    assert done.stderr == "kvsync: 'jobs' has no dead letter 9\n"
    assert json.loads(succeeded(run("queue", "redrive", "jobs", "--json"))) == {
        "redriven": 2,
        "missing": [],
    }
    assert dead.get_many(9) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("answer", "status"), [("y\n", 0), ("yes\n", 0), ("n\n", 1), ("\n", 1), ("", 2)]
)
def test_purge_asks(run: Run, dead: kvsync.Queue, answer: str, status: int) -> None:
    """Having told how much it is. Only a yes is one."""
    done = run("queue", "purge", "jobs", input=answer)
    assert done.returncode == status
    assert done.stderr.startswith("queue 'jobs' has 1 item waiting. Remove them for good? [y/N]")
    assert dead.empty() == (status == 0)
    assert len(dead.dead) == 3


def test_purge_of_the_dead_leaves_what_waits(run: Run, dead: kvsync.Queue) -> None:
    """And the other way round."""
    asked = run("queue", "purge", "jobs", "--dead", input="n\n").stderr
    assert "3 items among its dead letters" in asked
    assert succeeded(run("queue", "purge", "jobs", "--dead", "--yes")) == "3 items removed\n"
    assert (len(dead.dead), dead.qsize()) == (0, 1)
    assert json.loads(succeeded(run("queue", "purge", "jobs", "--yes", "--json"))) == {"purged": 1}
    assert dead.empty()


# --- work --------------------------------------------------------------------------------------


def test_work_runs_a_command_for_each_item(run: Run, store: kvsync.Store) -> None:
    """The item is JSON on its stdin; exit status 0 acknowledges it."""
    jobs = store.queue("jobs")
    jobs.put_many([{"to": "ada"}, "grün", 3])
    jobs.shutdown()
    shown = succeeded(run("queue", "work", "jobs", "--", "sh", "-c", ECHO))
    assert shown == '1 1 {"to": "ada"}\n2 1 "grün"\n3 1 3\n'
    assert jobs.unfinished_tasks == 0
    assert len(jobs.dead) == 0


def test_work_retries_what_fails_with_the_end_of_its_stderr(run: Run, store: kvsync.Store) -> None:
    """Which is shown as well; after the last attempt it is a dead letter."""
    jobs = store.queue("jobs")
    jobs.put_many(["a", "b"])
    fail = 'echo >&2 "no: $KVSYNC_ATTEMPT"; read -r item; [ "$item" = \'"b"\' ] || exit 7'
    words = ["--drain", "--retry-delay", "0", "--max-attempts", "2", "--", "sh", "-c", fail]
    done = run("queue", "work", "jobs", *words)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "no: 1\nkvsync: item 1, attempt 1 of 2: exit status 7; it is going to be tried again\n"
        "no: 2\nkvsync: item 1, attempt 2 of 2: exit status 7; it is a dead letter now\n"
        "no: 1\n"
    )
    (letter,) = jobs.dead
    assert (letter.id, letter.attempts) == (1, 2)
    assert letter.error == "exit status 7\nno: 2"
    assert jobs.unfinished_tasks == 0


def test_work_keeps_the_end_of_a_long_error_only(run: Run, store: kvsync.Store) -> None:
    """And tells by which signal a command ended."""
    jobs = store.queue("jobs")
    jobs.put("a")
    program = (
        "import os, sys; sys.stderr.write('x' * 100_000 + ' the end'); sys.stderr.flush();"
        " os.kill(os.getpid(), 9)"
    )
    words = ["--drain", "--max-attempts", "1", "--", sys.executable, "-c", program]
    assert "ended by signal 9" in run("queue", "work", "jobs", *words).stderr
    (letter,) = jobs.dead
    assert letter.error is not None
    assert letter.error.startswith("ended by signal 9\nxxx")
    assert letter.error.endswith("the end")
    assert len(letter.error) < 5000


def test_a_command_has_failed_whatever_signals_our_parent_ignores(store: kvsync.Store) -> None:
    """Where SIGCHLD is ignored, as we then inherit it, the system forgets exit statuses."""
    jobs = store.queue("jobs")
    jobs.put("a")
    words = ["--drain", "--max-attempts", "1", "--", "sh", "-c", "exit 7"]
    with ExitStack() as stack:
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            child = stack.enter_context(worker(store.path, *words))
        finally:
            signal.signal(signal.SIGCHLD, before)
        assert ended(child)[0] == 0
    assert [letter.error for letter in jobs.dead] == ["exit status 7"]


def test_a_command_that_cannot_be_listened_to_is_ended(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For lack of a thread: its item goes back as if never handed out, and is not run twice."""
    jobs = store.queue("jobs", max_attempts=1)
    jobs.put("a")
    started: list[Any] = []

    def refuse(listener: Any) -> None:
        started.append(listener._target.__self__._process)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(SystemExit):
            jobs.work(work._Runner(("sleep", "600"), 1), timeout=0)
    (process,) = started
    assert process.returncode == -signal.SIGTERM
    assert process.stderr.closed
    assert [(item.item, item.attempts) for item in jobs.peek()] == [("a", 0)]


def test_an_item_that_is_no_utf8_reaches_its_command(run: Run, store: kvsync.Store) -> None:
    """A lone surrogate is an escape, as it was."""
    store.queue("jobs", codec="raw").put(r'"gr\u00fcn \ud800"')
    words = ["--drain", "--max-attempts", "1", "--", "cat"]
    assert succeeded(run("queue", "work", "jobs", *words)) == '"grün \\ud800"\n'


@pytest.mark.parametrize("error", [OSError(2, "no"), ValueError("no")], ids=repr)
def test_a_signal_counts_that_comes_while_a_command_cannot_be_started(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The second one too."""
    jobs = store.queue("jobs", max_attempts=1)
    jobs.put("a")
    before = signal.getsignal(signal.SIGTERM)

    def fail(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        raise error

    monkeypatch.setattr(work, "Child", fail)
    assert jobs.work(work._Runner(("cat",), 1)).ended_by == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    assert [(item.item, item.attempts) for item in jobs.peek()] == [("a", 0)]


def test_a_command_that_cannot_be_started_ends_the_work_though_another_has_its_item(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then: its time was over."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue("jobs")
        jobs.put("a")
        others: list[kvsync.Task] = []

        def fail(*_: object) -> None:
            clock.advance(10)
            others.append(jobs.reserve(0))
            raise OSError(2, "no")

        monkeypatch.setattr(work, "Child", fail)
        with pytest.raises(SystemExit, match="1"):
            jobs.work(work._Runner(("cat",), 5), timeout=0, visibility=5)
        assert [(other.item, other.is_current()) for other in others] == [("a", True)]


def test_a_command_need_not_read_its_stdin_nor_take_its_children_along(
    store: kvsync.Store,
) -> None:
    """What it leaves behind, with its stderr, does not keep us from the next item."""
    jobs = store.queue("jobs")
    jobs.put_many(["x" * 1_000_000, "b"])
    leave = "sleep 600 <&- >&- & echo $!"
    with worker(store.path, "--drain", "--", "sh", "-c", leave) as child:
        left = [psutil.Process(int(said(child))) for _ in "ab"]
        child.wait(PATIENCE)
        for each in left:
            each.kill()
        assert ended(child) == (0, "")
    assert jobs.unfinished_tasks == 0


def test_work_waits_for_items_until_shutdown(store: kvsync.Store) -> None:
    """Then it ends with status 0, once the queue is empty."""
    jobs = store.queue("jobs")
    with worker(store.path, "--", "cat") as child:
        assert answer(child) == "kvsync: there is no queue called 'jobs' yet\n"
        for number in (1, 2):
            jobs.put(number)
            assert said(child) == str(number)
        eventually(lambda: jobs.stats().getters == 1)
        jobs.shutdown()
        assert ended(child) == (0, "")


def test_drain_ends_when_there_is_nothing_to_take(run: Run, store: kvsync.Store) -> None:
    """Delayed items are left for later."""
    jobs = store.queue("jobs")
    jobs.put_many([1, 2])
    jobs.put("later", delay=1000)
    assert succeeded(run("queue", "work", "jobs", "--drain", "cat")) == "1\n2\n"
    assert jobs.stats().delayed == 1
    assert succeeded(run("queue", "work", "jobs", "--drain", "cat")) == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_worker_that_waits(store: kvsync.Store, number: int) -> None:
    """At once; the status tells the signal."""
    jobs = store.queue("jobs")
    jobs.put(1)
    with worker(store.path, "--", "cat") as child:
        assert said(child) == "1"
        eventually(lambda: jobs.stats().getters == 1)
        os.killpg(child.pid, number)
        assert ended(child) == (128 + number, "")
    assert jobs.stats().getters == 0


WAIT = 'echo "$$"; read -r go < "$GATE"; echo over'
"""A command that says its pid, and waits until somebody writes into a FIFO."""


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "gate"
    os.mkfifo(path)
    monkeypatch.setenv("GATE", str(path))
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_command_come_to_its_end(
    store: kvsync.Store, gate: Path, number: int
) -> None:
    """Which is acknowledged; the next item is left to others."""
    jobs = store.queue("jobs")
    jobs.put_many([1, 2])
    with worker(store.path, "--", "sh", "-c", WAIT) as child:
        assert psutil.pid_exists(int(said(child)))
        os.killpg(child.pid, number)
        assert answer(child).startswith("kvsync: item 1 is brought to its end; ask again")
        gate.write_text("go\n")
        assert said(child) == "over"
        assert ended(child) == (128 + number, "")
    assert [item.item for item in jobs.peek(9)] == [2]
    assert jobs.stats().in_flight == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_does_the_same_where_nobody_reads_what_we_say(
    store: kvsync.Store, gate: Path, number: int
) -> None:
    """As when the terminal has gone, or the collector of our logs."""
    jobs = store.queue("jobs")
    jobs.put_many([1, 2])
    with worker(store.path, "--", "sh", "-c", WAIT) as child, open(gate, "r+b", 0) as go:
        said(child)
        assert child.stderr is not None
        child.stderr.close()
        os.killpg(child.pid, number)
        go.write(b"go\n")
        assert said(child) == "over"
        assert child.wait(PATIENCE) == 128 + number
    assert [(item.item, item.attempts) for item in jobs.peek(9)] == [(2, 0)]


def test_a_command_that_is_gone_ends_the_worker_where_nobody_reads_what_we_say(
    store: kvsync.Store, tmp_path: Path
) -> None:
    """With the same status; its item has cost no attempt."""
    command = tmp_path / "command"
    command.write_text("#!/bin/sh\ncat\n")
    command.chmod(0o700)
    jobs = store.queue("jobs", max_attempts=1)
    jobs.put(1)
    with worker(store.path, "--max-attempts", "1", "--", str(command)) as child:
        assert said(child) == "1"
        eventually(lambda: jobs.stats().getters == 1)
        command.unlink()
        assert child.stderr is not None
        child.stderr.close()
        jobs.put(2)
        assert child.wait(PATIENCE) == 1
    assert [(item.item, item.attempts) for item in jobs.peek(9)] == [(2, 0)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_command_and_gives_its_item_back(
    store: kvsync.Store, gate: Path, number: int
) -> None:
    """With no attempt counted; and nothing of the command is left."""
    assert gate.exists()
    jobs = store.queue("jobs")
    jobs.put("item")
    with worker(store.path, "--", "sh", "-c", WAIT) as child:
        command = int(said(child))
        os.killpg(child.pid, number)
        answer(child)
        os.killpg(child.pid, number)
        assert ended(child) == (128 + number, "")
    eventually(lambda: not psutil.pid_exists(command))
    with jobs.reserve(timeout=PATIENCE) as task:
        assert (task.item, task.attempts) == ("item", 1)


def test_a_signal_that_does_not_wake_the_wait_for_a_command_is_heard() -> None:
    """As one that comes between Python's last look for signals and the sleep: here, by a thread."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", HALF_ASLEEP],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "heard\n", "")


def test_no_signal_cuts_short_a_look_at_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would be locked for ever, so that the command could not be seen to end any more."""
    heard, looks, look = [False], [], subprocess.Popen.poll

    def poll(process: "subprocess.Popen[bytes]") -> int | None:
        looks.append(heard[-1])
        return look(process)

    monkeypatch.setattr(subprocess.Popen, "poll", poll)
    with Child(["sh", "-c", "read -r said; exec sleep 0.1"], b"said\n", {}) as child:
        assert child.wait(lambda: heard.append(True), lambda: heard.append(False)) == 0
    assert True in heard
    assert looks.count(False) == len(looks) > 1


HALF_ASLEEP = """
import signal, threading
from pathlib import Path
from kvsync.cli.queue.child import Child

class Heard(BaseException):
    pass

def hear(*_):
    raise Heard

def sleeps(thread):
    return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[0] == "S"

def send(thread):
    while not all(sleeps(thread) for _ in range(20)):  # each look lets go of the interpreter
        pass
    signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, hear)
try:
    with Child(["sh", "-c", "sleep 20; echo too late"], b"", {}) as child:
        sender = threading.Thread(target=send, args=[threading.get_native_id()])
        sender.start()
        child.wait(lambda: None, lambda: None)
except Heard:
    print("heard")
"""


def test_a_killed_worker_gives_its_item_back_though_its_command_goes_on(
    store: kvsync.Store, gate: Path
) -> None:
    """The command has inherited nothing that proves the worker alive."""
    jobs = store.queue("jobs")
    jobs.put("item")
    with worker(store.path, "--", "sh", "-c", WAIT) as child:
        command = psutil.Process(int(said(child)))
        child.kill()
        with jobs.reserve(timeout=PATIENCE) as task:
            assert (task.item, task.attempts) == ("item", 2)
            assert command.is_running()
        gate.write_text("go\n")
        command.wait(PATIENCE)


def test_an_item_that_was_given_to_another_meanwhile_is_told_of(
    store: kvsync.Store, gate: Path
) -> None:
    """And the worker goes on."""
    jobs = store.queue("jobs")
    jobs.put("item")
    with worker(store.path, "--visibility", "0.05", "--drain", "--", "sh", "-c", WAIT) as child:
        said(child)
        with jobs.reserve(timeout=PATIENCE) as task:
            assert task.attempts == 2
            gate.write_text("go\n")
            assert said(child) == "over"
            status, errors = ended(child)
    assert status == 0
    (line,) = errors.splitlines()
    assert line.startswith("kvsync: queue 'jobs': ")
    assert "given to another" in line


# --- shutdown, reopen --------------------------------------------------------------------------


def test_a_queue_that_was_shut_down_takes_nothing_until_it_is_reopened(
    run: Run, store: kvsync.Store
) -> None:
    """What it has is still given out, unless that is over at once too."""
    jobs = store.queue("jobs")
    jobs.put("item")
    assert succeeded(run("queue", "shutdown", "jobs")) == ""
    refused(run("queue", "put", "jobs", "x"), 1, "`kvsync queue reopen jobs` opens it again")
    assert jobs.get() == "item"
    assert json.loads(succeeded(run("queue", "reopen", "jobs", "--json")))["is_shutdown"] is False
    succeeded(run("queue", "put", "jobs", "x"))
    told = json.loads(succeeded(run("queue", "shutdown", "jobs", "--immediate", "--json")))
    assert told["is_shutdown"] is True
    with pytest.raises(kvsync.ShutDown):
        jobs.get_nowait()


# --- the lines of a queue, as locks and why tell them ------------------------------------------


def test_locks_and_why_tell_who_waits_at_a_queue(run: Run, store: kvsync.Store) -> None:
    """And what for: to get, to put, to join."""
    jobs, full = store.queue("empty"), store.queue("full", 1)
    full.put(1)
    waits: list[Callable[[], Any]] = [jobs.get, jobs.reserve, lambda: full.put(2), full.join]
    with (
        calling(waits[0]) as get,
        calling(waits[1]) as reserve,
        calling(waits[2]) as put,
        calling(waits[3]) as join,
    ):
        eventually(lambda: sum(len(line.waiters) for line in store.stats().lines) == 4)
        found = json.loads(succeeded(run("locks", "--json")))
        assert {(line["kind"], line["name"]) for line in found} == {
            ("queue", "empty"),
            ("queue", "full"),
        }
        kinds = sorted(each["kind"] for line in found for each in line["waiters"])
        assert kinds == ["get", "join", "put", "reserve"]
        table = succeeded(run("locks"))
        for words in ("waits to get", "waits to reserve", "waits to put", "waits to join"):
            assert words in table
        told = succeeded(run("why", "empty"))
        assert told.startswith("queue 'empty'\n")
        assert "waits to get, since" in told
        assert "a put wakes the first of them" in told
        told = succeeded(run("why", "full"))
        assert "it is full" in told
        assert "not all items are done with" in told
        assert json.loads(succeeded(run("ls", "--json"))) == [
            {"kind": "queue", "name": "empty", "items": 0, "waiters": 2},
            {"kind": "queue", "name": "full", "items": 1, "waiters": 2},
        ]
        assert [full.get(timeout=PATIENCE) for _ in "12"] == [1, 2]
        full.task_done()
        full.task_done()
        jobs.put_many(["a", "b"])
        get.result()
        reserve.result().ack()
        put.result()
        join.result()


def test_looking_at_queues_begins_no_session_and_waits_for_no_writer(
    run: Run, store: kvsync.Store
) -> None:
    """Whoever writes meanwhile."""
    jobs = store.queue("jobs", max_attempts=1)
    jobs.put_many([1, 2])
    jobs.reserve().bury("no")
    before = store.engine.read("select seq from sqlite_sequence where name = 'kvsync_session'")
    with store.transaction():
        store.counter("hits").add()
        for words in (["ls"], ["peek", "jobs"], ["dead", "jobs"], ["dead", "jobs", "--error"]):
            succeeded(run("queue", *words))
    after = store.engine.read("select seq from sqlite_sequence where name = 'kvsync_session'")
    assert before == after


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["nosuch"], 2, "No such command 'nosuch'"),
        (["ls", "x"], 2, "unexpected extra argument"),
        (["peek"], 2, "Missing argument 'NAME'"),
        (["peek", "nosuch"], 1, "holds no queue called 'nosuch'"),
        (["peek", "jobs", "-n", "0"], 2, "1<=x"),
        (["dead", "nosuch"], 1, "holds no queue called 'nosuch'"),
        (["redrive", "nosuch"], 1, "holds no queue called 'nosuch'"),
        (["redrive", "jobs", "x"], 2, "'x' is not a valid integer"),
        (["purge", "nosuch", "--yes"], 1, "holds no queue called 'nosuch'"),
        (["shutdown", "nosuch"], 1, "holds no queue called 'nosuch'"),
        (["reopen", "nosuch"], 1, "holds no queue called 'nosuch'"),
        (["put", "jobs"], 2, "a VALUE is missing"),
        (["put", "jobs", "a", "--lines"], 2, "either VALUEs or --lines"),
        (["put", "jobs", "a", "b", "--key", "k"], 2, "give one VALUE"),
        (["put", "jobs", "--lines", "--key", "k"], 2, "give one VALUE"),
        (["put", "jobs", "a", "--key", "\udcff"], 2, "lone surrogate"),
        (["put", "jobs", "a", "--delay", "-1"], 2, "not a number of seconds"),
        (["put", "jobs", "a", "--delay", "nan"], 2, "not a number of seconds"),
        (["put", "jobs", "a", "--delay", "1e308"], 2, "ten years at most"),
        (["put", "jobs", "a", "--timeout", "inf"], 2, "not a number of seconds"),
        (["put", "jobs", "a", "--priority", "nan"], 2, "not within 2**53"),
        (["put", "jobs", "a", "--priorty", "1"], 2, "Did you mean '--priority'"),
        (["put", "jobs", "1e999"], 2, "cannot store this float"),
        (["put", "jobs", "[" * 100_000], 2, "nested too deeply"),
        (["put", "", "a"], 2, "a name cannot be empty"),
        (["work", "jobs"], 2, "Missing argument"),
        (["work", "jobs", "--", "/no/such/command"], 2, "no command '/no/such/command'"),
        (["work", "jobs", "--visibility", "0", "--", "cat"], 2, "positive number of seconds"),
        (["work", "jobs", "--max-attempts", "0", "--", "cat"], 2, "1<=x"),
        (["work", "jobs", "--retry-delay", "-1", "--", "cat"], 2, "not a number of seconds"),
        (["work", "jobs", "cat", "-u"], 2, "No such option '-u'"),
    ],
)
def test_an_error_is_one_line_and_a_status(
    run: Run, store: kvsync.Store, words: list[str], status: int, sentence: str
) -> None:
    """As of every verb; and nothing was put."""
    jobs = store.queue("jobs")
    jobs.put("item")
    refused(run("queue", *words), status, sentence)
    assert jobs.stats().depth == 1


def test_a_line_that_is_no_text_is_named(store: kvsync.Store) -> None:
    """Nothing of what was read with it is put."""
    done = subprocess.run(
        [KVSYNC, "queue", "put", "jobs", "--lines"],
        env=os.environ | {"KVSYNC_STORE": store.path},
        input=b"fine\n\n\xff\n",
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"line 3 of stdin is not UTF-8" in done.stderr
    assert store.queue("jobs").empty()


def test_a_command_that_is_gone_costs_no_attempt(store: kvsync.Store, tmp_path: Path) -> None:
    """Its worker ends with status 1."""
    command = tmp_path / "command"
    command.write_text("#!/bin/sh\ncat\n")
    command.chmod(0o700)
    jobs = store.queue("jobs")
    jobs.put(1)
    with worker(store.path, "--", str(command)) as child:
        assert said(child) == "1"
        eventually(lambda: jobs.stats().getters == 1)
        command.unlink()
        jobs.put(2)
        status, errors = ended(child)
    assert status == 1
    assert "cannot be started: " in errors
    with jobs.reserve(timeout=PATIENCE) as task:
        assert (task.item, task.attempts) == (2, 1)


@pytest.mark.parametrize(
    "words", [["ls"], ["peek", "x"], ["dead", "x"], ["purge", "x"], ["shutdown", "x"]]
)
def test_a_store_that_is_not_there_is_not_made(run: Run, tmp_path: Path, words: list[str]) -> None:
    """Exit status 2."""
    refused(run("queue", *words), 2, "there is no store at", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_without_a_verb_it_explains_itself(run: Run) -> None:
    """On stderr, with status 2."""
    done = run("queue")
    assert (done.returncode, done.stdout) == (2, "")
    assert "redrive" in done.stderr


@pytest.mark.parametrize("words", [["--json", "queue"], ["queue", "--json"]])
def test_common_options_stand_before_either_verb(
    run: Run, store: kvsync.Store, tmp_path: Path, words: list[str]
) -> None:
    """Or after the last one."""
    store.queue("jobs").put(1)
    environment = {"KVSYNC_STORE": str(tmp_path / "none.db")}
    done = run("--store", store.path, *words, "ls", env=environment)
    assert [each["name"] for each in json.loads(succeeded(done))] == ["jobs"]


def test_workers_share_out_the_items(store: kvsync.Store) -> None:
    """Each goes to one of them, as to any other worker."""
    jobs = store.queue("jobs")
    jobs.reopen()
    with worker(store.path, "cat") as one, worker(store.path, "cat") as two:
        eventually(lambda: jobs.stats().getters == 2)
        with running(put_and_join, store.path) as (_, pipe):
            assert expect(pipe) is True
        jobs.shutdown()
        outputs = [child.communicate(timeout=PATIENCE)[0].split() for child in (one, two)]
    assert sorted(int(item) for output in outputs for item in output) == [*range(20)]


def put_and_join(pipe: Any, path: str) -> None:
    """Items, until they are all done with."""
    jobs = kvsync.open(path).queue("jobs")
    jobs.put_many(range(20))
    pipe.send(jobs.join(timeout=PATIENCE))

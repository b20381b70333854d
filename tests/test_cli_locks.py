"""What `kvsync` tells of those who hold and wait, and how it takes things away from them."""

import io
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.cli import app
from kvsync.cli.parties import cut, duration
from kvsync.engine.process import this_process
from kvsync.primitives import kinds
from tests.lines import calling, queued
from tests.processes import PATIENCE, eventually, expect, kill, run_all, running, stop
from tests.test_cli import KVSYNC, Run, on_terminal, refused, run, succeeded
from tests.test_opening import NOBODY, needs_root

__all__ = ["run"]  # the fixture

MAKERS: dict[str, Callable[[kvsync.Store, str], Any]] = {
    "lock": kvsync.Store.lock,
    "leased": lambda store, name: store.lock(name, lease=500),
    "timed": lambda store, name: store.lock(name, timeout=1000),
    "rlock": kvsync.Store.rlock,
    "read": lambda store, name: store.rwlock(name).read(),
    "write": lambda store, name: store.rwlock(name).write(),
    "timed read": lambda store, name: store.rwlock(name, timeout=1000).read(),
    "timed write": lambda store, name: store.rwlock(name, timeout=1000).write(),
    "semaphore": lambda store, name: store.semaphore(name, 2),
    "election": kvsync.Store.election,
}


def acquire(pipe: Any, path: str, options: dict[str, Any], *things: str) -> None:
    """Acquire "kind:name" after "kind:name", saying so; hold them all until told to end."""
    store = kvsync.open(path, **options)
    for thing in things:
        kind, _, name = thing.partition(":")
        if kind == "go":
            pipe.recv()
            continue
        MAKERS[kind](store, name).acquire()
        pipe.send(thing)
    pipe.recv()


@contextmanager
def holding(path: object, *things: str, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A process that holds these things."""
    with running(acquire, str(path), options, *things) as (child, pipe):
        for thing in things:
            assert expect(pipe) == thing
        yield child, pipe


@contextmanager
def waiting(store: kvsync.Store, *things: str, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A process that holds these things but the last one, for which it waits."""
    name = things[-1].partition(":")[2]
    before = _waiters(store, name)
    with running(acquire, store.path, options, *things) as (child, pipe):
        for thing in things[:-1]:
            assert expect(pipe) == thing
        eventually(lambda: _waiters(store, name) > before)
        yield child, pipe


def _waiters(store: kvsync.Store, name: str) -> int:
    return sum(len(line.waiters) for line in store.stats().lines if line.name == name)


@contextmanager
def stopped(child: Any, store: kvsync.Store) -> Iterator[None]:
    """A process that is stopped, and goes on afterwards."""
    stop(child, store.path)
    try:
        yield
    finally:
        os.kill(child.pid, signal.SIGCONT)


def listed(run: Run) -> dict[tuple[str, str], dict[str, Any]]:
    """The report of `kvsync locks --json`, by kind and name."""
    found = json.loads(succeeded(run("locks", "--json")))
    return {(line["kind"], line["name"]): line for line in found}


# --- locks -------------------------------------------------------------------------------------


def test_locks_shows_holders_and_waiters_in_their_order(run: Run, store: kvsync.Store) -> None:
    """With who they are, since when, and the fencing token."""
    with (
        store.lock("nightly") as grant,
        waiting(store, "lock:nightly") as (first, _),
        waiting(store, "timed:nightly") as (second, _),
    ):
        line = listed(run)["lock", "nightly"]
        (holder,) = line["holders"]
        assert (holder["pid"], holder["token"]) == (os.getpid(), grant.token)
        assert holder["lease_left"] is None
        assert holder["state"] == "alive"
        assert holder["age"] >= 0
        assert [each["pid"] for each in line["waiters"]] == [first.pid, second.pid]
        one, two = line["waiters"]
        assert one["age"] >= two["age"] >= 0
        assert one["timeout_left"] is None
        assert 0 < two["timeout_left"] <= 1000
        table = succeeded(run("locks"))
        rows = [row.split() for row in table.splitlines()[2:]]
        assert [row[:4] for row in rows] == [
            ["nightly", "lock", "holds", str(os.getpid())],
            ["nightly", "lock", "waits", str(first.pid)],
            ["nightly", "lock", "waits", str(second.pid)],
        ]
        assert rows[0][-1] == str(grant.token)


def test_locks_tells_the_command_and_the_thread(run: Run, store: kvsync.Store) -> None:
    """The thread as `threading.get_ident` has it."""
    with store.lock("job") as grant:
        (holder,) = listed(run)["lock", "job"]["holders"]
        assert holder["thread"] == grant.thread.ident
        assert holder["command"] == this_process().command
        assert holder["host"] == os.uname().nodename


@pytest.mark.parametrize(
    ("thing", "kind"),
    [
        ("lock", "lock"),
        ("rlock", "rlock"),
        ("read", "rwlock"),
        ("write", "rwlock"),
        ("semaphore", "semaphore"),
        ("election", "election"),
    ],
)
def test_locks_knows_every_kind_that_is_held(
    run: Run, store: kvsync.Store, thing: str, kind: str
) -> None:
    """And ls shows it as long as somebody holds it."""
    held = MAKERS[thing](store, "x")
    held.acquire()
    assert list(listed(run)) == [(kind, "x")]
    assert json.loads(succeeded(run("ls", "--json"))) == [
        {"kind": kind, "name": "x", "holders": 1, "waiters": 0}
    ]
    assert json.loads(succeeded(run("ls", kind, f"{kind}:x", "--json"))) == 2 * [
        {"kind": kind, "name": "x", "holders": 1, "waiters": 0}
    ]
    assert "1 holder, 0 waiters" in succeeded(run("ls", "x"))
    held.release()
    assert listed(run) == {}
    assert json.loads(succeeded(run("ls", "--json"))) == []


def test_locks_shows_who_waits_to_be_told(run: Run, store: kvsync.Store) -> None:
    """For an event, a condition or a barrier; nobody holds these."""
    event, condition, barrier = store.event("e"), store.condition("c"), store.barrier("b", 2)

    def wait_for_notice() -> None:
        with condition:
            condition.wait()

    with calling(event.wait), calling(wait_for_notice), calling(barrier.wait):
        eventually(lambda: len(store.stats().lines) == 3)
        found = listed(run)
        assert set(found) == {("barrier", "b"), ("condition", "c"), ("event", "e")}
        assert all(len(line["waiters"]) == 1 for line in found.values())
        assert not any(line["holders"] for line in found.values())
        assert "not set: a set wakes all of them" in succeeded(run("why", "e"))
        assert "a notify by whoever has its lock wakes the first" in succeeded(run("why", "c"))
        event.set()
        with condition:
            condition.notify()
        barrier.wait()
        eventually(lambda: not store.stats().lines)


def test_ls_shows_what_there_is_of_every_kind(run: Run, store: kvsync.Store) -> None:
    """What stays, and who holds it or waits, though nothing is stored."""
    store.event("on").set()
    store.barrier("broken", 2).abort()
    store.once("done").run(int)
    store.rate_limiter("api", 1, per=timedelta(days=10.5)).try_acquire()
    store.queue("jobs").put(1)
    event, condition, barrier = store.event("e"), store.condition("c"), store.barrier("b", 2)

    def wait_for_notice() -> None:
        with condition:
            condition.wait()

    with (
        calling(event.wait),
        calling(wait_for_notice),
        calling(barrier.wait),
        calling(store.queue("empty").get),
        calling(lambda: store.once("under way").run(event.wait)),
        store.lock("l"),
    ):
        eventually(lambda: sum(len(line.waiters) for line in store.stats().lines) == 5)
        found = {
            (thing.pop("kind"), thing.pop("name")): thing
            for thing in json.loads(succeeded(run("ls", "--json")))
        }
        seconds = found["rate_limiter", "api"].pop("refilled_in")
        assert 10 * 86_400 < seconds <= 10.5 * 86_400
        assert found == {
            ("rate_limiter", "api"): {},
            ("once", "done"): {"done": True, "holders": 0, "waiters": 0},
            ("once", "under way"): {"done": False, "holders": 1, "waiters": 0},
            ("event", "on"): {"set": True, "waiters": 0},
            ("event", "e"): {"set": False, "waiters": 2},
            ("barrier", "broken"): {"broken": True, "waiters": 0},
            ("barrier", "b"): {"broken": False, "waiters": 1},
            ("condition", "c"): {"waiters": 1},
            ("queue", "jobs"): {"items": 1, "waiters": 0},
            ("queue", "empty"): {"items": 0, "waiters": 1},
            ("lock", "l"): {"holders": 1, "waiters": 0},
        }
        for kind, name in found:
            (thing,) = json.loads(succeeded(run("ls", f"{kind}:{name}", "--json")))
            assert (thing["kind"], thing["name"]) == (kind, name)
        assert "not set, 2 waiters" in succeeded(run("ls", "e"))
        assert "refilled in 10 d" in succeeded(run("ls", "rate_limiter"))
        event.set()
        with condition:
            condition.notify()
        barrier.wait()
        store.queue("empty").put(1)
        eventually(lambda: [line.name for line in store.stats().lines] == ["l"])


@pytest.mark.parametrize("kind", [*kinds._KINDS, *kinds._PASSING, "rlock", "rwlock"])
def test_ls_answers_alike_of_every_kind_of_which_there_is_nothing(
    run: Run, store: kvsync.Store, kind: str
) -> None:
    """The store knows it, so it is the kind that is meant."""
    assert store.names("dict") == []
    assert json.loads(succeeded(run("ls", kind, "--json"))) == []
    assert succeeded(run("ls", kind)).splitlines()[0].split() == ["kind", "name", "holds"]
    refused(run("ls", f"{kind}:x"), 1, f"nothing called '{kind}:x'")


@pytest.mark.parametrize("thing", ["lock", "rlock", "write", "read", "election"])
def test_what_is_held_as_a_whole_is_one_unit(run: Run, store: kvsync.Store, thing: str) -> None:
    """To who has it, and to who waits; what the store counts in is its own affair."""
    held, rival = (MAKERS[each](store, "x") for each in (thing, thing.replace("read", "write")))
    with held, queued(lambda: rival.acquire() and rival.release(), held):
        (line,) = listed(run).values()
        assert [each["units"] for each in line["holders"] + line["waiters"]] == [1, 1]
        assert [each.units for each in held.stats().holders + held.stats().waiters] == [1, 1]
        held.release()
        held.acquire()


def test_locks_tells_permits_sides_and_leases(run: Run, store: kvsync.Store) -> None:
    """Where they are not what one takes for granted."""
    permits = store.semaphore("s", 3)
    permits.acquire(n=2)
    with store.rwlock("r").read(), store.lock("l", lease=500):
        table = succeeded(run("locks"))
        assert "holds, 2 permits" in table
        assert "holds, read" in table
        assert "8 min" in table
        (holder,) = listed(run)["lock", "l"]["holders"]
        assert 0 < holder["lease_left"] <= 500
    permits.release(2)


def test_locks_tells_the_dead_and_the_stopped(run: Run, store: kvsync.Store) -> None:
    """It changes nothing about either."""
    with holding(store.path, "lock:a") as (dead, _), holding(store.path, "lock:b") as (child, _):
        kill(dead)
        with stopped(child, store):
            for _ in range(2):
                found = listed(run)
                states = {name: line["holders"][0]["state"] for (_, name), line in found.items()}
                assert states == {"a": "dead", "b": "stopped"}
            table = succeeded(run("locks"))
            assert "holds, dead" in table
            assert "holds, stopped" in table


def wait_for_an_item(_: Any, path: str) -> None:
    kvsync.open(path).queue("jobs").get()


def test_the_dead_are_counted_nowhere(run: Run, store: kvsync.Store) -> None:
    """Neither as holders nor as waiters; locks tells of them."""
    store.queue("jobs").put(1)
    assert store.queue("jobs").get() == 1
    with (
        holding(store.path, "lock:a") as (holder, _),
        store.lock("b"),
        waiting(store, "lock:b") as (waiter, _),
        running(wait_for_an_item, store.path) as (getter, _),
    ):
        eventually(lambda: store.queue("jobs").stats().getters)
        for child in (holder, waiter, getter):
            kill(child)
        there = json.loads(succeeded(run("ls", "lock", "--json")))
        assert there == [{"kind": "lock", "name": "b", "holders": 1, "waiters": 0}]
        found = json.loads(succeeded(run("stats", "--json")))
        assert (found["holders"], found["waiters"], found["sessions"]) == (1, 0, 4)
        (jobs,) = json.loads(succeeded(run("queue", "ls", "--json")))
        assert (jobs["getters"], jobs["putters"]) == (0, 0)
        assert store.queue("jobs").stats().getters == 0


def test_locks_says_that_there_are_none(run: Run, store: kvsync.Store) -> None:
    """In words, or as an empty list."""
    store.counter("hits").add()
    assert succeeded(run("locks")) == "nobody holds anything or waits\n"
    assert succeeded(run("locks", "--json")) == "[]\n"


def test_looking_begins_no_session_and_waits_for_no_writer(run: Run, store: kvsync.Store) -> None:
    """Whoever writes meanwhile."""
    with store.lock("job"):
        sequence = store.engine.read(
            "select seq from sqlite_sequence where name = 'kvsync_session'"
        )
        with store.transaction():
            store.counter("hits").add()
            for words in (["locks"], ["why", "job"], ["ls"], ["stats"], ["doctor"]):
                succeeded(run(*words))
        assert sequence == store.engine.read(
            "select seq from sqlite_sequence where name = 'kvsync_session'"
        )


@contextmanager
def overdue(store: kvsync.Store) -> Iterator[Any]:
    """A waiter that is stopped, was handed the lock "job", and has not taken it up in time."""
    lock = store.lock("job")
    lock.acquire()
    with waiting(store, "lock:job") as (child, _), stopped(child, store):
        lock.release()
        store.engine.write("update kvsync_unit set claim_by = 0 where claim_by is not null")
        yield child


def rows(store: kvsync.Store) -> list[Any]:
    """All that is recorded of lines."""
    return [store.engine.read(f"select * from kvsync_{table}") for table in ("unit", "ticket")]


def test_who_looks_passes_over_a_stopped_waiter_as_any_newcomer_would(
    run: Run, store: kvsync.Store
) -> None:
    """To look the store over is less: it changes nothing."""
    with overdue(store) as child:
        before = rows(store)
        succeeded(run("doctor"))
        assert rows(store) == before
        line = listed(run)["lock", "job"]
        assert line["holders"] == []
        assert [(each["pid"], each["passed"]) for each in line["waiters"]] == [(child.pid, True)]


@needs_root
def test_who_may_only_read_the_store_is_told_what_is_known(open_folder: Path) -> None:
    """It cannot find out whether a stopped waiter has taken up what it was given."""
    with kvsync.open(open_folder / "store.db", mode=0o644) as store, overdue(store) as child:
        before = rows(store)
        ((line,), (thing,)) = run_all(
            _seen_by_nobody, [(store.path, "locks"), (store.path, "ls")], "fork"
        )
        assert [each["pid"] for each in line["holders"]] == [child.pid]
        assert thing == {"kind": "lock", "name": "job", "holders": 1, "waiters": 0}
        assert rows(store) == before


def _seen_by_nobody(path: str, verb: str) -> Any:
    """What the command prints to a user who may write nothing there."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    with redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")) as printed:
        assert app.run([verb, "--json", "--store", path]) == 0
        printed.seek(0)
        return json.loads(printed.read())


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_locks_repeats_until_ctrl_c(store: kvsync.Store, option: list[str]) -> None:
    """Which ends it with status 0."""
    with (
        store.lock("job"),
        subprocess.Popen(
            [KVSYNC, "locks", "-i", "0.01", *option],
            env=os.environ | {"KVSYNC_STORE": store.path, "PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        assert child.stdout is not None
        seen = 0
        while seen < 3:
            seen += "job" in child.stdout.readline()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=PATIENCE)
    assert (child.returncode, errors) == (0, "")


def test_in_a_narrow_terminal_locks_leaves_out_what_is_wanted_least(store: kvsync.Store) -> None:
    """Of each party there is one line, with its command."""
    with (
        store.lock("nightly", lease=3000),
        waiting(store, "timed:nightly"),
        on_terminal("locks", path=store.path, columns=80) as (_, shown),
    ):
        headings, _, *rows = shown(b"").splitlines()
    assert headings.split() == "name kind state pid command for lease".split()
    assert [row.split()[:3] for row in rows] == [
        ["nightly", "lock", "holds"],
        ["nightly", "lock", "waits"],
    ]
    assert all(len(row) <= 80 for row in rows)


def test_locks_again_and_again_keeps_its_heading_on_the_screen(store: kvsync.Store) -> None:
    """And says how many there are besides."""
    locks = [store.lock(f"job-{number:02}") for number in range(30)]
    for lock in locks:
        lock.acquire()
    with on_terminal("locks", "-i", "1000", path=store.path) as (child, shown):
        page = shown(b" more").strip().splitlines()
        child.send_signal(signal.SIGINT)
        shown(b"")
        assert child.wait(PATIENCE) == 0
    assert "every 16 min" in page[0]
    assert page[1].split()[:3] == ["name", "kind", "state"]
    assert page[-1] == "... 11 more"
    assert len(page) < 24
    for lock in locks:
        lock.release()


def test_a_name_does_not_drive_the_terminal(run: Run, store: kvsync.Store) -> None:
    """Control characters are shown as escapes."""
    with store.lock("\x1b[31m\n"):
        for words in (["locks"], ["why", "\x1b[31m\n"], ["ls"]):
            assert "\x1b" not in succeeded(run(*words))
        done = run("release", "\x1b[31m\n")
        assert "\x1b" not in done.stderr


def test_stats_counts_sessions_holders_and_waiters(run: Run, store: kvsync.Store) -> None:
    """And store.stats() tells of each of them."""
    with store.lock("job"), waiting(store, "lock:job"):
        found = json.loads(succeeded(run("stats", "--json")))
        assert (found["sessions"], found["holders"], found["waiters"]) == (2, 1, 1)
        assert "lines" not in found
        (line,) = store.stats().lines
        assert (line.kind, line.name) == ("lock", "job")
        assert line.holders[0].pid == os.getpid()
        assert line.waiters[0].pid != os.getpid()


# --- why ---------------------------------------------------------------------------------------


def why(run: Run, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(succeeded(run("why", name, "--json")))
    return found


def test_why_follows_the_chain_to_who_does_not_wait(run: Run, store: kvsync.Store) -> None:
    """Waiter, holder, what the holder's thread waits for, its holder."""
    with (
        holding(store.path, "semaphore:last") as (runner, _),
        store.semaphore("last", 2),
        waiting(store, "lock:middle", "semaphore:last") as (middle, _),
        waiting(store, "rlock:first", "lock:middle") as (holder, _),
        waiting(store, "lock:first") as (waiter, _),
    ):
        (line,) = why(run, "first")
        assert [each["pid"] for each in line["waiters"]] == [waiter.pid]
        (first,) = line["holders"]
        (wait,) = first["waits_for"]
        assert (first["pid"], wait["name"], wait["end"]) == (holder.pid, "middle", "")
        (second,) = wait["holders"]
        (wait,) = second["waits_for"]
        assert (second["pid"], wait["kind"], wait["name"]) == (middle.pid, "semaphore", "last")
        assert [each["pid"] for each in wait["holders"]] == [runner.pid, os.getpid()]
        assert all(each["waits_for"] == [] for each in wait["holders"])
        told = succeeded(run("why", "first")).splitlines()
        assert told[0].endswith("'first'")
        assert f"1. process {waiter.pid} " in told[1]
        assert told[2].strip().startswith(f"held by process {holder.pid} ")
        assert told[3].strip().startswith("which waits for lock 'middle'")
        assert told[-1].strip() == "which waits for nothing here"


@contextmanager
def crossed(store: kvsync.Store, **options: Any) -> Iterator[tuple[Any, Any]]:
    """Two processes; the first has "a" and waits for "b", the second the other way round."""
    with (
        running(acquire, store.path, options, "lock:a", "go", "timed:b") as (one, pipe_of_one),
        running(acquire, store.path, options, "lock:b", "go", "timed:a") as (two, pipe_of_two),
    ):
        for pipe in (pipe_of_one, pipe_of_two):
            expect(pipe)
        for pipe in (pipe_of_one, pipe_of_two):
            pipe.send("go")
        eventually(lambda: _waiters(store, "a") == _waiters(store, "b") == 1)
        yield one, two


def test_why_tells_a_circle(run: Run, store: kvsync.Store) -> None:
    """And when one of it gives up."""
    with crossed(store) as (one, two):
        (line,) = why(run, "a")
        assert [each["pid"] for each in line["waiters"]] == [two.pid]
        (holder,) = line["holders"]
        (wait,) = holder["waits_for"]
        assert (holder["pid"], wait["name"], wait["end"]) == (one.pid, "b", "")
        (holder,) = wait["holders"]
        (wait,) = holder["waits_for"]
        assert (holder["pid"], wait["name"], wait["end"]) == (two.pid, "a", "circle")
        told = succeeded(run("why", "a"))
        assert "gives up in 16 min" in told
        assert told.rstrip().endswith(": a circle")


def test_why_is_careful_where_threads_are_not_recorded(run: Run, store: kvsync.Store) -> None:
    """Then the threads of one process may be different ones."""
    with crossed(store, detect_deadlocks=False):
        told = succeeded(run("why", "a"))
        assert "a thread of which waits for lock 'b'" in told
        assert told.rstrip().endswith(": a circle, if it is the same thread")


def test_why_tells_a_circle_of_one(run: Run, store: kvsync.Store) -> None:
    """A thread that waits for what it holds."""
    with waiting(store, "lock:a", "timed:a"):
        told = succeeded(run("why", "a"))
        assert "which waits for lock 'a'" in told
        assert told.rstrip().endswith(": a circle")


def test_why_knows_that_who_is_ahead_is_in_the_way(run: Run, store: kvsync.Store) -> None:
    """A reader that reads again behind a writer, which waits for that very reader."""
    with running(acquire, store.path, {}, "read:x", "go", "timed read:x") as (reader, pipe):
        expect(pipe)
        with waiting(store, "timed write:x") as (writer, _):
            pipe.send("go")
            eventually(lambda: _waiters(store, "x") == 2)
            (line,) = why(run, "x")
            assert [each["pid"] for each in line["waiters"]] == [writer.pid, reader.pid]
            (wait,) = line["holders"][0]["waits_for"]
            assert (wait["name"], wait["ahead"], wait["end"]) == ("x", 1, "circle")
            assert "behind 1" in succeeded(run("why", "x"))


def test_why_tells_how_many_parties_a_barrier_waits_for(run: Run, store: kvsync.Store) -> None:
    """Nobody holds it, and no circle is made up."""
    barrier = store.barrier("b", 3)
    with queued(barrier.wait, barrier), queued(barrier.wait, barrier) as second:
        assert why(run, "b")[0]["holders"] == []
        told = succeeded(run("why", "b")).splitlines()
        assert told[-1].strip() == "1 of 3 parties is to come"
        assert not any("held by" in each or "circle" in each for each in told)
        barrier.abort()
        with pytest.raises(kvsync.BrokenBarrierError):
            second.result()


def test_why_tells_who_runs_the_action_of_a_barrier(run: Run, store: kvsync.Store) -> None:
    """All parties have come, and wait for that one."""
    acts, may_end = threading.Event(), threading.Event()

    def action() -> None:
        acts.set()
        may_end.wait(PATIENCE)

    first, last = store.barrier("b", 2), store.barrier("b", 2, action=action)
    with queued(first.wait, first), calling(last.wait) as call:
        assert acts.wait(PATIENCE)
        told = succeeded(run("why", "b"))
        assert f"all 2 parties have come: process {os.getpid()} " in told
        assert "runs the action" in succeeded(run("locks"))
        may_end.set()
        assert call.result() == 1


def test_why_follows_a_holder_to_a_barrier(run: Run, store: kvsync.Store) -> None:
    """Which waits for those who are still to come."""
    barrier = store.barrier("b", 2)

    def hold_and_wait() -> int:
        with store.lock("l"):
            return barrier.wait()

    with queued(hold_and_wait, barrier) as call:
        told = [each.strip() for each in succeeded(run("why", "l")).splitlines()]
        assert told[-2].startswith("which waits for barrier 'b'")
        assert told[-1] == "1 of 2 parties is to come"
        barrier.wait()
        assert call.result() == 0


def test_why_says_that_nobody_waits(run: Run, store: kvsync.Store) -> None:
    """And who holds it all the same."""
    with store.lock("job") as grant:
        told = succeeded(run("why", "job"))
    assert "nobody waits for it" in told
    assert f"held by process {os.getpid()} " in told
    assert f"token {grant.token}" in told


def test_why_of_what_nobody_holds_is_not_found(run: Run, store: kvsync.Store) -> None:
    """Exit status 1."""
    store.counter("job").add()
    refused(run("why", "job"), 1, "nobody holds anything called 'job' or waits for it")


def test_why_tells_a_holder_that_is_dead_or_stopped(run: Run, store: kvsync.Store) -> None:
    """And what helps."""
    with holding(store.path, "lock:a") as (dead, _), holding(store.path, "lock:b") as (child, _):
        kill(dead)
        told = succeeded(run("why", "a"))
        assert "dead: the next who wants it frees it" in told
        with stopped(child, store), waiting(store, "lock:b"):
            told = succeeded(run("why", "b"))
            assert f"stopped: `kill -CONT {child.pid}` lets it go on" in told


def test_why_tells_all_kinds_that_have_the_name(run: Run, store: kvsync.Store) -> None:
    """One after the other."""
    with store.lock("x"), store.election("x"):
        assert [line["kind"] for line in why(run, "x")] == ["election", "lock"]


# --- release -----------------------------------------------------------------------------------


def test_release_needs_force(run: Run, store: kvsync.Store) -> None:
    """Without it, it says who holds it."""
    with store.lock("job") as grant:
        refused(run("release", "job"), 2, f"process {os.getpid()} ", str(grant.token), "--force")
        refused(run("release", "job", "--yes"), 2, "--force")
        assert listed(run)["lock", "job"]["holders"][0]["token"] == grant.token


def test_release_takes_it_away_and_raises_the_token(run: Run, store: kvsync.Store) -> None:
    """The former holder finds out, and the next one has a higher token."""
    lock = store.lock("job")
    lock.acquire()
    before = lock.token
    assert before is not None
    told = succeeded(run("release", "job", "--force", "--yes"))
    assert f"lock 'job' was taken away from process {os.getpid()} " in told
    with store.lock("job") as grant:
        assert grant.token > before
        with pytest.raises(kvsync.LeaseLostError), store.transaction(guard=lock):
            pytest.fail("must not get in")
        with pytest.raises(kvsync.LeaseLostError):
            lock.release()


def test_release_hands_on_to_who_waits(run: Run, store: kvsync.Store) -> None:
    """At once, though the former holder goes on."""
    lock = store.lock("job")
    lock.acquire()
    with waiting(store, "lock:job") as (waiter, pipe):
        report = json.loads(succeeded(run("release", "job", "--force", "--yes", "--json")))
        assert (report["kind"], report["name"]) == ("lock", "job")
        assert [each["token"] for each in report["released"]] == [lock.token]
        assert expect(pipe) == "lock:job"
        holder = store.lock("job").holder()
        assert holder is not None
        assert holder.pid == waiter.pid
    with pytest.raises(kvsync.LeaseLostError):
        lock.release()


@pytest.mark.parametrize(
    ("answer", "status"), [("y\n", 0), ("yes\n", 0), ("n\n", 1), ("\n", 1), ("", 2)]
)
def test_release_asks(run: Run, store: kvsync.Store, answer: str, status: int) -> None:
    """Having shown who holds it. Only a yes is one."""
    lock = store.lock("job")
    lock.acquire()
    done = run("release", "job", "--force", input=answer)
    assert done.returncode == status
    assert done.stderr.startswith(f"lock 'job' is held by process {os.getpid()} ")
    assert "Take it away? [y/N]" in done.stderr
    assert lock.owned() == (status != 0)


def test_release_takes_from_those_who_were_shown_only(store: kvsync.Store) -> None:
    """Whoever got it while the question was open keeps it."""
    lock = store.lock("job")
    lock.acquire()
    with subprocess.Popen(
        [KVSYNC, "release", "job", "--force"],
        env=os.environ | {"KVSYNC_STORE": store.path},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stderr is not None
        asked = ""
        while not asked.endswith("[y/N] "):
            asked += child.stderr.read(1)
        lock.release()
        with store.lock("job"):
            _, errors = child.communicate("y\n", timeout=PATIENCE)
            assert store.lock("job").locked()
    assert child.returncode == 1
    assert "released meanwhile" in errors


def test_release_of_a_name_of_several_kinds_needs_the_kind(run: Run, store: kvsync.Store) -> None:
    """An rlock is a lock, too."""
    lock, permits = store.rlock("x"), store.semaphore("x", 2)
    lock.acquire()
    permits.acquire()
    refused(run("release", "x", "--force", "--yes"), 2, "rlock and semaphore", "--kind")
    succeeded(run("release", "x", "--force", "--yes", "--kind", "semaphore"))
    assert permits.free() == 2
    assert lock.locked()
    succeeded(run("release", "x", "--force", "--yes", "--kind", "lock"))
    assert not lock.locked()
    for held in (lock, permits):
        with pytest.raises(kvsync.LeaseLostError):
            held.release()
    refused(run("release", "x", "--force", "--yes"), 1, "nobody holds anything called 'x'")
    refused(run("release", "x", "--kind", "lock"), 1, "nobody holds lock 'x'")


def wait_at_the_barrier(pipe: Any, path: str) -> None:
    pipe.send("waits")
    kvsync.open(path).barrier("b", 3).wait()


def test_release_of_a_barrier_is_refused(run: Run, store: kvsync.Store) -> None:
    """Nobody holds it; and the death of a party is noticed as ever."""
    barrier = store.barrier("b", 3)
    with (
        queued(barrier.wait, barrier) as head,
        running(wait_at_the_barrier, store.path) as (
            child,
            _,
        ),
    ):
        eventually(lambda: barrier.n_waiting == 2)
        refused(
            run("release", "b", "--force", "--yes"),
            1,
            "nobody holds barrier 'b', though 2 wait there: there is nothing to take away",
        )
        kill(child)
        with pytest.raises(kvsync.BrokenBarrierError):
            head.result()


def wait_to_be_notified(pipe: Any, path: str) -> None:
    condition = kvsync.open(path).condition("c")
    with condition:
        pipe.send("waits")
        condition.wait()


def test_release_of_a_condition_is_refused(run: Run, store: kvsync.Store) -> None:
    """What was notified and is killed before it has the lock hands that on as ever."""
    condition = store.condition("c")

    def wait() -> bool:
        with condition:
            return condition.wait()

    with running(wait_to_be_notified, store.path) as (child, pipe):
        expect(pipe)
        eventually(lambda: condition.stats().waiters)
        with queued(wait, condition) as second:
            with condition:
                condition.notify()
                done = run("release", "c", "--force", "--kind", "condition", "--yes")
                refused(done, 1, "nobody holds condition 'c'")
                kill(child)
            assert second.result()


def test_release_of_what_a_stopped_waiter_was_given(run: Run, store: kvsync.Store) -> None:
    """It passes on, and the waiter has its turn when it wakes."""
    lock = store.lock("job")
    lock.acquire()
    with waiting(store, "lock:job") as (waiter, pipe):
        with stopped(waiter, store):
            lock.release()
            done = run("release", "job", "--force", "--yes")
            assert succeeded(done).startswith(
                f"lock 'job' was taken away from process {waiter.pid}"
            )
            with store.lock("job", timeout=PATIENCE):
                (line,) = store.stats().lines
                assert [each.passed for each in line.waiters] == [True]
                assert "passed over" in succeeded(run("locks"))
        assert expect(pipe) == "lock:job"


# --- doctor ------------------------------------------------------------------------------------


def sessions(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert (done.returncode, done.stderr) == (0, "")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {check["state"] for name, check in checks.items() if name != "sessions"} == {"ok"}
    found: dict[str, Any] = checks["sessions"]
    return found


def test_doctor_tells_the_dead_and_changes_nothing(run: Run, store: kvsync.Store) -> None:
    """A warning, no problem: who wants what they held frees it."""
    with store.lock("mine"), holding(store.path, "lock:a") as (child, _):
        assert sessions(run("doctor", "--json"))["state"] == "ok"
        kill(child)
        for _ in range(2):
            found = sessions(run("doctor", "--json"))
            assert found["state"] == "warning"
            assert found["sentence"].startswith(f"1 of 2 dead: process {child.pid} ")
            assert [each["pid"] for each in found["dead"]] == [child.pid]
        assert store.stats().sessions == 2
        assert "doctor --reap" in succeeded(run("doctor"))


def test_doctor_reaps_the_dead_and_nobody_else(run: Run, store: kvsync.Store) -> None:
    """And says whose it was."""
    with (
        store.lock("mine"),
        holding(store.path, "lock:a", "semaphore:s") as (child, _),
        waiting(store, "lock:a") as (waiter, pipe),
        stopped(waiter, store),
    ):
        kill(child)
        found = sessions(run("doctor", "--reap", "--json"))
        assert found["state"] == "ok"
        assert found["sentence"].startswith(f"Freed what was held by process {child.pid} ")
        assert [each["pid"] for each in found["dead"]] == [child.pid]
        assert store.stats().sessions == 2
        assert {line.name: line.holders[0].pid for line in store.stats().lines} == {
            "mine": os.getpid(),
            "a": waiter.pid,
        }
        found = sessions(run("doctor", "--reap", "--json"))
        assert (found["sentence"], "dead" in found) == ("2, none of them dead.", False)
        os.kill(waiter.pid, signal.SIGCONT)
        assert expect(pipe) == "lock:a"


def test_doctor_removes_as_many_doorbells_as_it_says_were_left_behind(
    run: Run, store: kvsync.Store
) -> None:
    """Most of them go with the sessions of the dead, and some are in no row."""

    def told(*words: str) -> str:
        checks = json.loads(succeeded(run("doctor", *words, "--json")))["checks"]
        (sentence,) = (check["sentence"] for check in checks if check["name"] == "doorbells")
        return str(sentence)

    with (
        store.lock("mine"),
        holding(store.path, "lock:a", "lock:b") as (holder, _),
        waiting(store, "lock:a") as (waiter, _),
    ):
        kill(waiter)
        kill(holder)
        stray = Path(store.path + "-kvsync", "doorbells", f"{1:024}")
        os.mkfifo(stray, 0o600)
        bells = set(stray.parent.iterdir())
        found = told()
        words = told("--reap")
        removed = len(bells - set(stray.parent.iterdir()))
        assert removed > 3
        assert found.startswith(f"{removed} of {len(bells)} were left behind by the dead.")
        assert words == f"Removed {removed} that the dead left behind."
        assert told("--reap") == told() == f"{len(bells) - removed}, none of them left behind."


# --- errors and words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["locks", "-i", "0"], 2, "positive number of seconds"),
        (["locks", "-i", "nan"], 2, "positive number of seconds"),
        (["locks", "-i", "1e308"], 2, "ten years at most"),
        (["ls", "--limit", "9" * 20], 2, "--limit"),
        (["demo", "--operations", "9" * 20], 2, "--operations"),
        (["locks", "-i"], 2, "requires an argument"),
        (["locks", "x"], 2, "unexpected extra argument"),
        (["why"], 2, "Missing argument 'NAME'"),
        (["release", "x", "--forec"], 2, "No such option '--forec'"),
        (["release", "x", "--kind", "nosuch"], 2, "is no kind; there are lock, rlock, "),
        (["release", "x", "--kind", "barrier"], 1, "nobody holds barrier 'x'"),
        (["release", "x"], 1, "nobody holds anything called 'x'"),
        (["ls", "lock:x"], 1, "nothing called 'lock:x'"),
    ],
)
def test_an_error_is_one_line_and_a_status(
    run: Run, store: kvsync.Store, words: list[str], status: int, sentence: str
) -> None:
    """As of every verb."""
    store.counter("hits").add()
    refused(run(*words), status, sentence)


@pytest.mark.parametrize("words", [["locks"], ["why", "x"], ["release", "x"], ["doctor", "--reap"]])
def test_a_store_that_is_not_there_is_not_made(run: Run, tmp_path: Path, words: list[str]) -> None:
    """Exit status 2."""
    refused(run(*words), 2, "there is no store at", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (90_061, "1 d 1 h"),
        (1e308, "over 100 years"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, words: str) -> None:
    """Tenths are shown of few seconds only."""
    assert duration(seconds) == words


def test_a_command_is_cut_to_one_line() -> None:
    """Whatever white space it has; the folder of its program is the first to go."""
    assert cut("/usr/bin/python -c pass", 20) == "python -c pass"
    assert cut("python -c\n\tpass", 40) == "python -c pass"
    assert cut("python -c pass", 6) == "pytho…"

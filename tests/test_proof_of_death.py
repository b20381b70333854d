"""What proves a session dead, rule by rule: each test fails if one of the rules is left out.

The rules stand in `session.py` and `engine/process.py`; what follows from them for those who wait
is in `test_recovery.py`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync import session
from kvsync.engine import process
from kvsync.engine.process import lives, this_process
from tests.processes import PATIENCE

NAME = "job"

NO_PID = 1 << 30
"""More than there can be."""

on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="what a process is known by is in /proc"
)

LIFE: dict[str, tuple[dict[str, Any], bool | None]] = {
    "the same": ({}, True),
    # A host may be given another name, and the command says nothing that others could not have.
    "another host": ({"host": "elsewhere"}, True),
    "another command": ({"command": "another"}, True),
    # A boot ends all processes; pids, and ticks, begin anew.
    "another boot": ({"boot": "before"}, False),
    # The pid was used again.
    "other start ticks": ({"start_ticks": -1}, False),
    # Another program, begun by exec, which has no descriptor of the former.
    "another stack": ({"start_stack": 1}, False),
    "a stack that was not told": ({"start_stack": 0}, True),
    # Its ticks count from another moment: here they may be others, or those of somebody else.
    "another time namespace": ({"time_namespace": -1}, None),
    "another time namespace, other ticks": ({"time_namespace": -1, "start_ticks": -1}, None),
    # A boot that is over ends all of its time namespaces.
    "another boot and time namespace": ({"boot": "before", "time_namespace": -1}, False),
    # Its pid counts there, and here it is somebody else's, or nobody's.
    "another pid namespace": ({"pid_namespace": -1}, None),
    "another pid namespace, other ticks": ({"pid_namespace": -1, "start_ticks": -1}, None),
    # systemd-nspawn gives each container a boot id of its own.
    "another pid namespace and boot": ({"pid_namespace": -1, "boot": "its own"}, None),
}
"""By what is different from this process, whether the recorded one lives."""


@on_linux
@pytest.mark.parametrize("case", LIFE)
def test_a_process_is_known_by_all_that_tells_it_from_others(case: str) -> None:
    different, alive = LIFE[case]
    assert lives(this_process()._replace(**different)) is alive


@contextmanager
def zombie() -> Iterator[int]:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        yield pid
    finally:
        os.waitpid(pid, 0)


@on_linux
def test_a_process_that_has_ended_does_not_live() -> None:
    """Nor before it is reaped."""
    with zombie() as pid:
        stat = process._stat(pid)
        assert stat is not None
        start_ticks, start_stack, _ = stat
        ended = this_process()._replace(pid=pid, start_ticks=start_ticks, start_stack=start_stack)
        assert lives(ended) is False
    assert lives(ended) is False


@on_linux
@pytest.mark.parametrize("hidden", ["_sees_every_process", "_proc_counts_as_we_do"])
def test_a_pid_that_cannot_be_looked_up_here_proves_nothing(
    hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc may hide the processes of others, or be another pid namespace's."""
    gone = this_process()._replace(pid=NO_PID)
    assert lives(gone) is False
    monkeypatch.setattr(process, hidden, lambda: False)
    assert lives(gone) is None


@on_linux
def test_a_stack_that_we_may_not_see_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = this_process()
    monkeypatch.setattr(process, "_stat", lambda _: (recorded.start_ticks, 0, False))
    assert lives(recorded)


@on_linux
@pytest.mark.parametrize(
    ("different", "alive"),
    [
        ({}, True),
        ({"pid": NO_PID}, True),  # here it has another
        ({"boot": "its own"}, True),
        ({"start_ticks": -1}, None),
    ],
)
def test_who_is_of_a_namespace_below_is_found_under_whatever_pid(
    different: dict[str, Any], alive: bool | None
) -> None:
    """And who is not found may be of one that is not visible here."""
    here = this_process()
    above = here._replace(pid_namespace=-1)
    assert process._lives(here._replace(**different), above) is alive


DEAD: dict[tuple[bool | None, bool | None], bool] = {
    # Somebody listens at the very doorbell: whatever is known of the pid, there is who does.
    (True, True): False,
    (True, False): False,  # a child of it, to which the doorbell was handed on
    (True, None): False,
    # Nobody does. But a program may have closed all descriptors.
    (False, True): False,
    (False, False): True,
    (False, None): True,
    # The doorbell tells nothing: then only what is known of the pid, and unknown counts as alive.
    (None, True): False,
    (None, False): True,
    (None, None): False,
}
"""By whether its doorbell answers, and whether its process lives, whether a session is dead."""


@pytest.mark.parametrize(("answers", "alive"), DEAD)
def test_a_session_is_dead_only_if_that_is_proven(
    path: Path, answers: bool | None, alive: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kvsync.open(path) as store, kvsync.open(path) as other:
        there = other.session.id
        monkeypatch.setattr(store.engine.doorbells, "answers", lambda _: answers)
        monkeypatch.setattr(session, "lives", lambda _: alive)
        dead = DEAD[answers, alive]
        assert store.session.is_dead(there) is dead
        assert (there in store.session.dead()) is dead
        assert store.session.reap([there]) == [there] * dead


@pytest.mark.parametrize("alive", [True, False, None])
def test_a_session_without_a_doorbell_is_dead_only_if_its_process_is(
    path: Path, alive: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has no FIFOs nobody has one: it is as with one that tells nothing."""
    with kvsync.open(path) as store, kvsync.open(path) as other:
        there = other.session.id
        store.engine.write("update kvsync_session set doorbell = null")
        monkeypatch.setattr(session, "lives", lambda _: alive)
        assert store.session.is_dead(there) is (alive is False)


def test_ones_own_session_is_never_dead(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though everything says so."""
    mine = store.session.id
    monkeypatch.setattr(store.engine.doorbells, "answers", lambda _: False)
    monkeypatch.setattr(session, "lives", lambda _: False)
    assert not store.session.is_dead(mine)


_HOLD_AND_EXEC = """
import kvsync, os, sys
kvsync.open(sys.argv[1]).lock("job").acquire()
print("held", flush=True)
os.read(0, 5)
os.execvp("cat", ["cat"])
"""


@on_linux
def test_a_program_that_took_the_place_of_the_holder_does_not_hold(store: kvsync.Store) -> None:
    """By exec, in the same process: pid and start ticks are the holder's."""
    store.counter("made").add()
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD_AND_EXEC, store.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as child:
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stdout.readline() == b"held\n"
            lock = store.lock(NAME)
            assert not lock.acquire(timeout=0)
            child.stdin.write(b"exec\n")
            child.stdin.write(b"done\n")
            assert child.stdout.readline() == b"done\n"  # says `cat`
            assert [dead.pid for dead in store.session.reap_all()] == [child.pid]
            assert lock.acquire(timeout=0)
            lock.release()
        finally:
            child.kill()
            child.wait(PATIENCE)

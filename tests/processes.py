"""Child processes for tests: always fresh, always reaped, never waited for in vain.

They are forked from a process that has only imported what most of them need: the start of an
interpreter, and its imports, would take most of the time of the tests.

`PATIENCE` is generous on purpose: it catches hangs and never decides a result.
"""

import ctypes
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from kvsync.engine.doorbell import Doorbells
from kvsync.errors import ForkError

multiprocessing.set_forkserver_preload(["kvsync.cli.app", "pytest", "psutil", "tests.processes"])

PATIENCE = 120.0
"""Seconds after which a child is taken to hang."""


def run_all(
    target: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], method: str = "forkserver"
) -> list[Any]:
    """Run `target` once for each tuple of arguments, all at once; returns their results in order.

    Raises: AssertionError, with the child's traceback, if one failed or hung.
    """
    context = multiprocessing.get_context(method)
    children = []
    try:
        for each in arguments:
            ours, theirs = context.Pipe()
            child = context.Process(target=_report, args=(theirs, target, each))
            child.start()
            theirs.close()
            children.append((child, ours))
        results = [_receive(ours) for _, ours in children]
        for child, _ in children:
            child.join(PATIENCE)
            assert child.exitcode == 0, f"exit status {child.exitcode}"
    finally:
        for child, ours in children:
            end(child)
            ours.close()
    for failed, result in results:
        assert not failed, result
    return [result for _, result in results]


def _receive(pipe: Any) -> tuple[bool, Any]:
    assert pipe.poll(PATIENCE), "a child hangs"
    outcome: tuple[bool, Any] = pipe.recv()
    return outcome


def _report(pipe: Any, target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import traceback

    try:
        outcome = (False, target(*arguments))
    except BaseException:
        outcome = (True, traceback.format_exc())
    pipe.send(outcome)
    pipe.close()


def run_program(program: str, *arguments: object) -> None:
    """Run Python text in a fresh interpreter. Raises: AssertionError unless it prints "ok"."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == "ok\n", done.stderr


@contextmanager
def running(
    target: Callable[..., Any], *arguments: Any, method: str = "forkserver"
) -> Iterator[tuple[Any, Any]]:
    """A child that runs `target(pipe, *arguments)`, and our end of the pipe; ended on leaving."""
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    child = context.Process(target=target, args=(theirs, *arguments))
    child.start()
    theirs.close()
    try:
        yield child, ours
    finally:
        end(child)
        ours.close()


def expect(pipe: Any) -> Any:
    """The next message from a child. Raises: AssertionError if none comes."""
    assert pipe.poll(PATIENCE), "a child hangs"
    return pipe.recv()


def kill(child: Any) -> None:
    """SIGKILL, and wait until it is reaped."""
    child.kill()
    child.join()  # no timeout: that would wait for children of its own, too
    assert child.exitcode == -signal.SIGKILL


def end(child: Any) -> None:
    """Reap a child, by force if need be."""
    if child.is_alive():
        child.kill()
    child.join(PATIENCE)


def in_thread(function: Callable[[], Any]) -> Any:
    """What `function` returns in a thread of its own. Raises: AssertionError if it hangs."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(PATIENCE)
    assert results, "the thread hangs, or has failed"
    return results[0]


def eventually(holds: Callable[[], Any]) -> None:
    """Return once it holds. Raises: AssertionError if it never does."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never comes true"
        os.sched_yield()


def kill_myself(*_: object) -> None:
    """SIGKILL: nothing of this process comes after it."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_instead_of_ringing() -> None:
    """From now on this process is killed as it is about to wake somebody: after its commit."""
    Doorbells.ring = kill_myself  # type: ignore[method-assign]
    Doorbells.saying = lambda _, rows, __: map(kill_myself, rows)  # type: ignore[method-assign]


def stop(child: Any, path: str) -> None:
    """SIGSTOP a process at a moment when it is not just writing into the store at `path`."""
    gate = os.open(path + "-kvsync/gate", os.O_RDONLY)
    try:
        while True:
            os.kill(child.pid, signal.SIGSTOP)
            eventually(partial(_has_stopped, child.pid))
            try:
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                os.kill(child.pid, signal.SIGCONT)
    finally:
        os.close(gate)


def _has_stopped(pid: int) -> bool:
    """With all of its threads."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def in_child(function: Callable[[], Any], fork: Callable[[], int] = os.fork) -> str:
    """Fork; run `function` in the child; return what it returned, as text."""
    read, write = os.pipe()
    pid = fork()
    if pid == 0:
        try:
            os.write(write, str(function()).encode())
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


def on_both_sides(call: Callable[[], Any], children: list[int]) -> tuple[Any, str]:
    """Make a call in whose middle this process forks, and notes in `children` what that returned.

    Returns what the call came to here, and, as text, in the child, which comes to its end here.
    """
    read, write = os.pipe()
    got: object = "an error"
    try:
        got = call()
    except ForkError:
        got = "ForkError"
    finally:
        if children == [0]:
            os.write(write, str(got).encode())
            os._exit(0)
        os.close(write)
    with os.fdopen(read) as pipe:
        return got, pipe.read()


in_raw_child = partial(in_child, fork=ctypes.PyDLL(None).fork)
"""The same, forked as a C library may do it: without Python's hooks."""

"""Descriptors: none is lost for good to a signal, none is left to a forked child."""

import ctypes
import errno
import fcntl
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.engine import descriptors
from kvsync.engine.descriptors import Descriptor, send
from tests.interrupted import after_each_call
from tests.processes import PATIENCE, in_child


@pytest.fixture
def file(path: Path) -> str:
    path.touch()
    return str(path)


def open_files() -> dict[str, str]:
    """What is open in this process, by number."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one of this very look
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def opened_by(calls: Callable[[], Any]) -> list[str]:
    """The files that are open after these calls and were not before."""
    close_lost()
    before = open_files()
    calls()
    gc.collect()
    close_lost()
    return [name for number, name in open_files().items() if before.get(number) != name]


def close_lost() -> None:
    """As the next one that is opened does."""
    Descriptor(os.devnull, os.O_RDONLY).close()


def test_it_is_open_until_it_is_closed(file: str) -> None:
    with Descriptor(file, os.O_RDONLY) as descriptor:
        number = descriptor.number
        assert os.readlink(f"/proc/self/fd/{number}") == file
        assert not os.get_inheritable(number)
    assert descriptor.number == -1
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(number)


def test_closing_twice_closes_nobody_elses(file: str) -> None:
    descriptor = Descriptor(file, os.O_RDONLY)
    number = descriptor.number
    descriptor.close()
    other = os.open(file, os.O_RDONLY)
    assert other == number
    descriptor.close()
    os.close(other)


def test_what_the_program_closed_is_no_error(file: str) -> None:
    descriptor = Descriptor(file, os.O_RDONLY)
    os.close(descriptor.number)
    descriptor.close()


def test_what_cannot_be_opened_says_why(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Descriptor(str(path), os.O_RDONLY)


def test_an_opening_that_a_signal_interrupts_is_tried_again(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `os.open` does it, where its handler raises nothing."""

    def interrupted(*_: object) -> int:
        monkeypatch.undo()
        ctypes.set_errno(errno.EINTR)
        return -1

    monkeypatch.setattr(descriptors, "c_open", interrupted)
    with Descriptor(file, os.O_RDONLY) as descriptor:
        assert os.readlink(f"/proc/self/fd/{descriptor.number}") == file


def test_one_that_is_lost_is_closed_when_the_next_is_opened(file: str) -> None:
    Descriptor(file, os.O_RDONLY)
    assert file in open_files().values()
    close_lost()
    assert file not in open_files().values()


def test_none_is_lost_to_an_interrupt(file: str) -> None:
    """Wherever it comes, while one is opened, used and closed."""

    def use() -> None:
        with Descriptor(file, os.O_RDONLY) as descriptor:
            os.fstat(descriptor.number)

    places = []
    assert opened_by(lambda: places.extend(after_each_call(use))) == []
    assert len(places) > 5


@pytest.fixture
def fifo(path: Path) -> Iterator[int]:
    """One at `path`, open for reading."""
    os.mkfifo(path)
    number = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield number
    os.close(number)


_SENDING = os.O_RDWR | os.O_NONBLOCK


def test_what_is_sent_arrives_and_leaves_nothing_open(fifo: int, path: Path) -> None:
    assert opened_by(lambda: send(bytes(path), _SENDING, {os.getpid(): b"+!"})) == []
    assert os.read(fifo, 9) == b"+!"


def test_sending_to_where_nothing_is_does_nothing(path: Path) -> None:
    assert opened_by(lambda: send(bytes(path), _SENDING, {os.getpid(): b"!"})) == []
    assert not path.exists()


def test_sending_to_who_has_enough_to_read_leaves_nothing_open(fifo: int, path: Path) -> None:
    with suppress(BlockingIOError):
        while True:
            os.write(fifo, bytes(4096))
    assert opened_by(lambda: send(bytes(path), _SENDING, {os.getpid(): b"!"})) == []


def test_another_process_than_the_one_that_is_meant_sends_nothing(fifo: int, path: Path) -> None:
    assert opened_by(lambda: send(bytes(path), _SENDING, {os.getpid() + 1: b"!"})) == []
    with pytest.raises(BlockingIOError):
        os.read(fifo, 9)


def test_an_interrupt_while_something_is_sent_leaves_nothing_open(fifo: int, path: Path) -> None:
    places = []
    sending = partial(send, bytes(path), _SENDING, {os.getpid(): b"!"})
    assert opened_by(lambda: places.extend(after_each_call(sending))) == []
    assert places
    assert os.read(fifo, 99)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError])
def test_no_exception_of_a_handler_is_swallowed(file: str, kind: type[BaseException]) -> None:
    """Be it one that looks as if the opening had failed, or the closing."""
    raised = received = 0

    def handler(*_: object) -> None:
        nonlocal raised
        signal.setitimer(signal.ITIMER_REAL, 0)
        raised += 1
        raise kind

    def open_until_raised(turn: int) -> None:
        # Again after a while: CPython 3.11 and 3.12 can overlook a signal that another thread took.
        signal.setitimer(signal.ITIMER_REAL, (2 + turn % 40) * 1e-6, 0.05)
        while raised == turn:
            Descriptor(file, os.O_RDONLY).close()

    def storm() -> None:
        nonlocal received
        for turn in range(3000):
            try:
                # Not in here, as a loop: CPython 3.13 would not let the jump back be handled.
                open_until_raised(turn)
            except kind:
                received += 1

    before = signal.signal(signal.SIGALRM, handler)
    gc.disable()  # another's finalizer would swallow it
    try:
        assert opened_by(storm) == []
    finally:
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert raised == received == 3000


def test_a_forked_child_keeps_only_what_crosses_forks(file: str) -> None:
    """And does not close, later, what has the number of one that it closed."""
    pin = Descriptor(file, os.O_RDONLY, crosses_forks=True)
    with Descriptor(os.path.dirname(file), os.O_RDONLY) as folder:

        def look() -> list[Any]:
            left = file in open_files().values()
            other = os.open(os.devnull, os.O_RDONLY)
            folder.close()
            os.fstat(other)
            return [left, os.path.dirname(file) in open_files().values(), folder.number]

        assert in_child(look) == "[True, False, -1]"
        assert os.fstat(folder.number)
    pin.close()


def test_a_forked_child_does_not_keep_what_is_just_being_opened(file: str) -> None:
    """It is open before it is noted: no fork comes in between."""
    done = threading.Event()

    def open_and_close() -> None:
        while not done.is_set():
            Descriptor(file, os.O_RDONLY).close()

    threads = [threading.Thread(target=open_and_close) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            assert in_child(lambda: file in open_files().values()) == "False"
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_program_ends_though_its_daemon_threads_go_on(path: Path) -> None:
    program = (
        "import kvsync, sys, threading\n"
        "store = kvsync.open(sys.argv[1])\n"
        "def add():\n"
        "    while True:\n"
        "        with store.lock('job'):\n"
        "            store.counter('hits').add()\n"
        "for _ in range(3):\n"
        "    threading.Thread(target=add, daemon=True).start()\n"
        "while store.counter('hits').value < 50:\n"
        "    pass\n"
    )
    for _ in range(5):
        subprocess.run([sys.executable, "-c", program, path], check=True, timeout=PATIENCE)


def test_a_number_that_the_program_closed_is_not_closed_once_more(file: str) -> None:
    """When it belongs to another by then, that one stays open."""
    lost = Descriptor(file, os.O_RDONLY)
    os.close(lost.number)
    with Descriptor(file, os.O_RDONLY) as other:
        assert other.number == lost.number
        lost.close()
        del lost
        close_lost()
        os.fstat(other.number)


def test_an_interrupted_opening_of_what_lies_beside_the_file_leaves_it_closed(
    store: kvsync.Store,
) -> None:
    sidecar = store.engine._pool.sidecar
    store.counter("hits").add()

    def use() -> None:
        sidecar.open(sidecar.claim).close()

    assert opened_by(lambda: list(after_each_call(use))) == []


def test_no_wait_at_the_gate_loses_a_descriptor_to_an_interrupt(path: Path) -> None:
    """Nor leaves the claim taken, wherever it comes."""
    with (
        kvsync.open(path, busy_timeout=0.01) as store,
        kvsync.open(path, busy_timeout=PATIENCE) as other,
    ):
        store.counter("hits").add()
        other.counter("hits").add()
        gate = os.open(f"{path}-kvsync/gate", os.O_RDONLY)
        claim = os.open(f"{path}-kvsync/claim", os.O_RDONLY)

        def wait() -> None:
            with pytest.raises(kvsync.BusyError):
                store.counter("hits").add()

        def interrupted() -> None:
            fcntl.flock(gate, fcntl.LOCK_EX)
            for _ in after_each_call(wait):
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(claim, fcntl.LOCK_UN)
            fcntl.flock(gate, fcntl.LOCK_UN)

        try:
            beside = [name for name in opened_by(interrupted) if "-kvsync/" in name]
            assert len(beside) <= 2, "one connection's gate and claim"
        finally:
            os.close(gate)
            os.close(claim)

"""`python -m stress.faults.victim`: makes calls that are to be faulted, each in a forked child.

It reads orders, one JSON object a line, and answers each by lines of JSON objects: what the call
came to (`Word`); then, once it is told to go on by an empty line, and if the call failed, what the
same call and others came to afterwards; last how the child ended. A child that a fault kills
says no word.

The program itself never touches a store, so a fault that counts system calls in each process counts
those of the child alone.
"""

import ctypes
import json
import logging
import os
import resource
import signal
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import kvsync
from stress import mutants
from stress.faults.calls import WAYS
from stress.faults.usable import use_some
from stress.stage import SOUND

_PR_SET_PTRACER = 0x59616D61


@dataclass(frozen=True)
class Order:
    """What a child is to do, and how little it may have meanwhile."""

    path: str
    call: str
    way: str = SOUND
    spare_descriptors: int | None = None
    largest_file: int | None = None
    """Bytes."""
    dies_of_size: bool = False
    """Whether SIGXFSZ is at the system's default, and not ignored as Python has it."""


@dataclass(frozen=True)
class Word:
    """What a call came to: an empty `error` says that it was acknowledged."""

    error: str = ""
    typed: bool = True
    of_storage: bool = False
    """Whether the error says that the disk, or the system, refused."""
    text: str = ""


def listen() -> None:
    logging.getLogger("kvsync").addHandler(logging.NullHandler())  # of faults that we made
    while line := _read_line():
        child = os.fork()
        if not child:
            _obey(Order(**json.loads(line)))
        _, status = os.waitpid(child, 0)
        _say({"ended": os.waitstatus_to_exitcode(status), "pid": child})


def _obey(order: Order) -> None:
    try:
        call = WAYS[order.way][order.call]
        store = kvsync.open(order.path, durability=call.durability, busy_timeout=10)
        limits = _limit(order)
        word = _word(lambda: call.perform(store))
        _say(asdict(word))
        _read_line()
        for kind, limit in limits:
            resource.setrlimit(kind, limit)
        if word.error:
            _say(asdict(_word(lambda: call.perform(store))))
            _say(asdict(_word(lambda: _go_on(order.path, call.durability))))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _go_on(path: str, durability: str) -> None:
    with kvsync.open(path, durability=durability) as store:
        use_some(store, "same")


def _limit(order: Order) -> list[tuple[int, tuple[int, int]]]:
    """Set the limits; returns those that held before."""
    before = []
    if order.dies_of_size:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    wanted = {
        resource.RLIMIT_FSIZE: order.largest_file,
        resource.RLIMIT_NOFILE: _descriptors(order),
    }
    for kind, soft in wanted.items():
        if soft is not None:
            old = resource.getrlimit(kind)
            before.append((kind, old))
            resource.setrlimit(kind, (soft, old[1]))
    return before


def _descriptors(order: Order) -> int | None:
    if order.spare_descriptors is None:
        return None
    return len(os.listdir("/proc/self/fd")) - 1 + order.spare_descriptors


def _word(perform: Callable[[], Any]) -> Word:
    try:
        perform()
    except Exception as error:
        return Word(
            type(error).__qualname__,
            isinstance(error, kvsync.KvsyncError),
            isinstance(error, kvsync.StorageError | kvsync.OpenError),
            traceback.format_exc(),
        )
    return Word()


def _read_line() -> bytes:
    """Byte for byte, for a child reads on where its parent stopped."""
    line = b""
    while byte := os.read(0, 1):
        if byte == b"\n":
            return line or b"\n"
        line += byte
    return line


def _say(what: dict[str, Any]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def _allow_tracers() -> None:
    """Where only a parent may trace a process (Yama), let strace do it that is a sibling."""
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)


if __name__ == "__main__":
    _allow_tracers()
    mutants.break_if_told()
    listen()

"""Who holds a lock on a file, where the system tells (Linux: /proc/locks). For messages only."""

import os

import psutil

from kvsync.engine.process import in_words

_READINGS = 3
# The kernel hands the table out in pieces, and a lock can slip past between two of them.

_SHM_WRITE_BYTE = 120
_RESERVED_BYTE = 0x40000001
# Where SQLite keeps its write lock: https://www.sqlite.org/walformat.html#locks in WAL mode,
# https://www.sqlite.org/fileformat2.html#the_lock_byte_page otherwise.


def of_flock(path: str) -> str | None:
    """The process that holds the exclusive flock on `path`, in words."""
    return _first(path, "FLOCK", None)


def of_database(path: str) -> str | None:
    """The process that holds SQLite's write lock on the database `path`, in words."""
    return _first(path + "-shm", "POSIX", _SHM_WRITE_BYTE) or _first(path, "POSIX", _RESERVED_BYTE)


def _first(path: str, kind: str, byte: int | None) -> str | None:
    try:
        file = os.stat(path)
        lines = [line for _ in range(_READINGS) for line in _table()]
    except OSError:
        return None
    place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    for line in lines:
        # 1: POSIX  ADVISORY  WRITE 4711 fe:00:1234 120 120
        fields = line.split()
        if len(fields) != 8 or fields[1] != kind or fields[3] != "WRITE" or fields[5] != place:
            continue  # a waiter's line has one field more
        last = float("inf") if fields[7] == "EOF" else int(fields[7])
        if byte is None or int(fields[6]) <= byte <= last:
            return describe(int(fields[4]))
    return None


def _table() -> list[str]:
    with open("/proc/locks") as table:
        return table.read().splitlines()


def describe(pid: int) -> str:
    """Process `pid` as a person knows it: its number and its command line."""
    if pid <= 0:
        return "a process outside this container"
    try:
        command = " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return f"process {pid}"
    return in_words(pid, command) if command else f"process {pid}"

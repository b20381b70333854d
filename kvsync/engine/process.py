"""Who a process is, in terms that stay true: for telling whether a recorded one still lives.

A pid alone is used again. Beside it stand the start time in clock ticks since boot (which no clock
step moves, unlike a wall time), the address of the stack (which another program, started by exec
in the same process, does not share), the boot, and the pid namespace in which the pid counts.
"""

import functools
import os
import platform
import socket
import sys
from contextlib import suppress
from typing import NamedTuple

import psutil

from kvsync.errors import StorageError
from kvsync.forks import incarnation
from kvsync.printable import printable

_COMMAND = 80
"""Characters of a command line in a message."""


class Process(NamedTuple):
    """One process; 0 and "" where the system does not tell."""

    host: str
    boot: str
    pid_namespace: int
    time_namespace: int
    pid: int
    start_ticks: int
    start_stack: int
    command: str

    @property
    def clock(self) -> str:
        """Names the boot clock that this process sees: others' times on it compare with ours."""
        return f"{self.boot}/{self.time_namespace}"


def this_process() -> Process:
    """Raises: StorageError if the system refuses to tell, for lack of descriptors mostly."""
    try:
        return _this_process(incarnation())
    except OSError as error:
        raise StorageError(
            error.errno, f"cannot find out who this process is: {error.strerror}"
        ) from error


@functools.lru_cache(maxsize=1)
def _this_process(_: int) -> Process:
    pid = os.getpid()
    start_ticks, start_stack, _has_ended = _stat(pid, "self") or (0, 0, False)
    return Process(
        host=socket.gethostname(),
        boot=_boot(),
        pid_namespace=_namespace("pid"),
        time_namespace=_namespace("time"),
        pid=pid,
        start_ticks=start_ticks,
        start_stack=start_stack,
        command=_as_text(_command(pid)[:200] or sys.executable),
    )


def _command(pid: int) -> str:
    if _proc_counts_as_we_do():
        with suppress(psutil.Error):
            return " ".join(psutil.Process(pid).cmdline())
    return " ".join(sys.orig_argv)


def _as_text(command: str) -> str:
    """What a database holds: arguments are bytes, and lone surrogates stand for what is no text."""
    return command.encode(errors="backslashreplace").decode()


def in_words(pid: int, command: str, host: str = "") -> str:
    """ "process 4711 on web2 (python app.py)": in one line, and the host if that is not ours."""
    place = f" on {host}" if host and host != this_process().host else ""
    return printable(f"process {pid}{place} ({command[:_COMMAND]})")


def lives(recorded: Process) -> bool | None:
    """Whether the very process lives that was recorded; None where that cannot be told from here.

    Zombies and programs that took its place by exec count as gone. A process of which only the
    first thread has ended is no zombie yet: another may be in a write, or has files locked.
    """
    try:
        return _lives(recorded, this_process())
    except OSError:
        return None


def _lives(recorded: Process, here: Process) -> bool | None:
    if recorded.pid_namespace != here.pid_namespace:
        return _lives_in_a_namespace_below(recorded)
    if recorded.boot != here.boot:
        return False
    if recorded.time_namespace != here.time_namespace:
        return None  # its ticks count from another moment
    if not _proc_counts_as_we_do():
        return None
    found = _stat(recorded.pid)
    if found is None:
        return False if _sees_every_process() else None
    start_ticks, start_stack, has_ended = found
    if has_ended or start_ticks != recorded.start_ticks:
        return False
    # The address is 0 for those who may not look.
    return not (start_stack and recorded.start_stack) or start_stack == recorded.start_stack


def _lives_in_a_namespace_below(recorded: Process) -> bool | None:
    """Look for it among all processes that are visible here, under whatever pid."""
    for pid in psutil.pids():
        with suppress(OSError):
            if os.stat(f"/proc/{pid}/ns/pid").st_ino == recorded.pid_namespace:
                found = _stat(pid)
                if found and found[0] == recorded.start_ticks and not found[2]:
                    return True
    return None


def _stat(pid: int, name: str = "") -> tuple[int, int, bool] | None:
    """Start ticks, start of the stack, and whether all of its threads have ended; None if there is
    no such process. `name` is what it is called in /proc, if that is not the pid.
    """
    if not sys.platform.startswith("linux"):
        return _stat_elsewhere(pid)
    try:
        with open(f"/proc/{name or pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # 4711 (any) (name) S 1 ...: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    fields = text[text.rindex(b")") + 2 :].split()
    # The state is that of the first thread, and a zombie counts as a thread.
    has_ended = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
    return int(fields[19]), int(fields[25]), has_ended


def _stat_elsewhere(pid: int) -> tuple[int, int, bool] | None:
    try:
        process = psutil.Process(pid)
        return int(process.create_time() * 100), 0, process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None


def _proc_counts_as_we_do() -> bool:
    """Not where /proc is that of another pid namespace, in which our pids are others'."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except FileNotFoundError:  # there is none
        return True


def _sees_every_process() -> bool:
    """Not where /proc hides the processes of other users."""
    return not sys.platform.startswith("linux") or os.path.exists("/proc/1/stat")


@functools.lru_cache(maxsize=1)
def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except (FileNotFoundError, PermissionError):  # another error would pass, and this name stays
        return f"{platform.node()}@{int(psutil.boot_time()) // 60}"


def _namespace(kind: str) -> int:
    try:
        return os.stat(f"/proc/self/ns/{kind}").st_ino
    except OSError:
        return 0

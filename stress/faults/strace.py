"""Faults in system calls, by strace: what a process makes of them, and the k-th of them failing.

strace counts for each thread by itself (`when=` in strace(1)), so it can be attached to a program
whose children each make one call, in whichever of their threads.
"""

import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from stress.stage import Skipped

CALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate")
"""By which SQLite, on Linux, changes a file and waits for the disk."""

_BIRTHS = ("clone", "clone3")
"""By which a process starts its threads."""

KILLED = "killed"
"""The outcome of a call whose process died of a fault."""

_INJECTED = "(INJECTED)"
_PATIENCE = 30.0
_GRACE = 5.0

KINDS = {
    "KILL": "signal=KILL:when={k}",
    "EIO": "error=EIO:when={k}",
    "ENOSPC": "error=ENOSPC:when={k}",
    "EIO from there on": "error=EIO:when={k}+",
    "ENOSPC from there on": "error=ENOSPC:when={k}+",
}


@dataclass(frozen=True)
class Injection:
    """The k-th system call of that name meets a fault."""

    kind: str
    syscall: str
    k: int

    @property
    def passes(self) -> bool:
        """Whether what comes after it works again."""
        return not self.kind.endswith("on")

    @contextmanager
    def into(self, process: int) -> Iterator["Strike"]:
        """Meanwhile, each child of that process meets it; then it is known whether one did."""
        how = KINDS[self.kind].format(k=self.k)
        trace, inject = f"trace={self.syscall}", f"inject={self.syscall}:{how}"
        strike = Strike(kills=self.kind == "KILL")
        with tempfile.NamedTemporaryFile() as log:
            try:
                with _attached(process, "-o", log.name, "-e", trace, "-e", inject):
                    yield strike
            finally:
                strike.was_told = _INJECTED in Path(log.name).read_text(errors="replace")

    def __str__(self) -> str:
        return f"{self.kind} at {self.syscall} number {self.k}"


@dataclass
class Strike:
    """Whether a fault that was to be met was met."""

    kills: bool
    was_told: bool = False
    """By strace, which tells of each result that it replaced."""

    def struck(self, outcome: str) -> bool:
        """What kills is told by the death alone: who lives did not meet it."""
        return outcome == KILLED if self.kills else self.was_told


def counting(process: int, log: str) -> AbstractContextManager[None]:
    """Meanwhile, note what the children of that process do, for `counted`."""
    traced = ",".join((*CALLS, *_BIRTHS))
    return _attached(process, "-o", log, "-e", f"trace={traced}")


def counted(log: str) -> Mapping[int, Counter[str]]:
    """How many of which system calls were made, by the process id: of its threads, all of which
    meet an injection, the one that made most of them."""
    lines = Path(log).read_text(errors="replace").splitlines()
    process_of = _threads(lines)
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for thread, made in _by_thread(lines).items():
        counts[process_of.get(thread, thread)] |= made
    return counts


def _by_thread(lines: Iterable[str]) -> Mapping[int, Counter[str]]:
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for line in lines:
        if (found := re.match(r"(\d+) +(\w+)\(", line)) and found[2] in CALLS:
            counts[int(found[1])][found[2]] += 1
    return counts


def _threads(lines: Iterable[str]) -> Mapping[int, int]:
    """The process of each thread that another one started; a birth may be told in two lines."""
    threads: dict[int, int] = {}
    of_threads: dict[int, bool] = {}
    for line in lines:
        if not (found := re.match(r"(\d+) +(?:<\.\.\. )?clone3?\b(.*)", line)):
            continue
        parent, told = int(found[1]), found[2]
        if "resumed>" not in told:
            of_threads[parent] = "CLONE_THREAD" in told
        if of_threads.get(parent) and (born := re.search(r" = (\d+)$", told)):
            threads[int(born[1])] = threads.get(parent, parent)
    return threads


def require() -> None:
    """Raises: Skipped where processes cannot be traced."""
    tried = subprocess.run(
        [_strace(), "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        raise Skipped(f"strace cannot trace here: {tried.stderr.strip()}")


@contextmanager
def _attached(process: int, *options: str) -> Iterator[None]:
    command = [_strace(), "-f", "-qq", "-p", str(process), *options]
    # Of a process that dies meanwhile it complains, which is nothing to show to people.
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stderr=said) as tracer:
        try:
            _await_tracer(process, tracer, said)
            yield
        finally:
            _end(tracer)


def _end(tracer: subprocess.Popen[bytes]) -> None:
    """It lets go of those that it traces, and hangs if one with several threads just ends: then the
    system lets go of them."""
    tracer.terminate()
    try:
        tracer.wait(_GRACE)
    except subprocess.TimeoutExpired:
        tracer.kill()


def _await_tracer(process: int, tracer: subprocess.Popen[bytes], said: IO[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while f"TracerPid:\t{tracer.pid}\n" not in Path(f"/proc/{process}/status").read_text():
        assert tracer.poll() is None, f"strace has ended: {_all_of(said)}"
        assert time.monotonic() < deadline, "strace does not attach"
        time.sleep(0.001)


def _all_of(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode(errors="replace").strip()


@cache
def _strace() -> str:
    """Raises: Skipped where there is none."""
    path = shutil.which("strace")
    if path is None:
        raise Skipped("strace is not installed")
    return path

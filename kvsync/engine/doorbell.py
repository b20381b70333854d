"""Doorbells: FIFOs beside the database that wake one waiter, or prove a process alive.

- Each waiting thread has a doorbell of its own, for threads must not take each other's rings. A
  ring is one byte, and only a hint: who is woken reads the truth from the database. `SERVED` hints
  at what to try first.
- A word is more than a hint, and must be neither lost nor doubled: see `words.py`.
- Each session has one that nobody rings. Its process keeps it open for reading until it ends, and
  no one else does: who opens it for writing is refused (ENXIO) once that process is gone, and
  whoever had it open before is told by the kernel (POLLERR). That takes no pid and no guess, and
  holds across containers on one kernel.

A doorbell has its final rights and is open before it gets its name, and a name is never used
again, so finding it without a reader means that its process is gone. That says nothing if the
inode is another than the one recorded (a restored copy).

What the database says of them is not to be trusted: a name that is no doorbell's could lead to any
file of this user.

Children: a fork closes them in the child at once, for a child must not keep its parent alive. A
program that is started gets none of them (close on exec), unless somebody hands one on.
"""

import errno
import os
import secrets
import select
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, repeat, starmap
from operator import itemgetter
from typing import Any, NamedTuple, TypeGuard

from kvsync.engine.descriptors import Descriptor, c_close, c_open, c_write, close_lost, send
from kvsync.engine.gate import Sidecar
from kvsync.engine.words import handed_to, word
from kvsync.forks import incarnation, require_own

_OPEN_LISTENING = os.O_RDWR | os.O_NONBLOCK
_OPEN_SENDING = _OPEN_LISTENING | os.O_CLOEXEC
# Writing too, so that it is never at its end, as a FIFO without a writer would be.
_OPEN_WATCHING = os.O_WRONLY | os.O_NONBLOCK


LOOK, SERVED = b"!", b"+"
"""Rings: look how the line stands; what you wait for was given to you."""


Once = dict[int, bytes]
"""What is rung once, by the process of that pid; ringing takes it out."""

_first, _second = itemgetter(0), itemgetter(1)

_PYTHON_RUNS_IN_C = sys.version_info < (3, 12)
"""Whether garbage may be collected during a call into C, and finalizers run there, and then signal
handlers, which may fork. Later versions put that off until the call has returned."""

_PIPE = 1 << 16
"""Bytes that a FIFO holds at most: one read has them all."""


_NAME_LENGTH = 24
_DIGITS = "0123456789abcdef"


def _is_name(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and len(name) == _NAME_LENGTH and not name.strip(_DIGITS)


class Mark(NamedTuple):
    """By what a doorbell is known in the database; nothing but None where there is none."""

    name: str | None
    device: int | None
    inode: int | None

    @classmethod
    def of(cls, name: str | None, found: os.stat_result) -> "Mark":
        """Some file systems number by hashes of 64 bits; the database's numbers have a sign."""
        inode = found.st_ino
        return cls(name, found.st_dev, inode if inode < 1 << 63 else inode - (1 << 64))


class Doorbell(Descriptor):
    """One end to listen at. Closing it takes it away."""

    def __init__(self, path: str) -> None:
        """The FIFO at `path` with a "~" behind gets its name only now that it is open."""
        super().__init__(path + "~", _OPEN_LISTENING)
        self._process = incarnation()
        found = os.fstat(self.number)
        self.mark = Mark.of(os.path.basename(path), found)
        self._path = path
        os.rename(path + "~", path)

    def wait(
        self, watches: Iterable["Watch"], timeout: float | None
    ) -> tuple[bytes, list["Watch"]]:
        """Sleep until it rings, a watched process is gone, or `timeout` seconds are over.

        Returns the rings so far, and the watches whose process is gone. Raises: ForkError in a
        child that a signal handler forked during the wait.
        """
        poll = select.poll()  # looked up each time: gevent puts its own in its place
        watched = {}
        found: list[tuple[int, int]] = []
        try:
            poll.register(self.number, select.POLLIN)
            for watch in watches:
                poll.register(watch.number, 0)
                watched[watch.number] = watch
            found = poll.poll(None if timeout is None else max(0.0, timeout) * 1000)
        except ValueError:  # closed
            if self._process == incarnation():
                raise
        require_own(self._process)
        gone = [watched[number] for number, _ in found if number in watched]
        try:
            return os.read(self.number, _PIPE), gone
        except BlockingIOError:
            return b"", gone

    def stir(self) -> None:
        """Wake who waits at it, in this process; in a forked child it is closed."""
        if self._process == incarnation():
            with suppress(OSError):  # full: it has been rung often enough
                os.write(self.number, LOOK)

    def close(self) -> None:
        """Stop listening; idempotent. In a forked child it is closed already."""
        if self.number >= 0 and self._process == incarnation():
            with suppress(OSError):
                os.unlink(self._path)
        super().close()


class Watch(Descriptor):
    """A process's doorbell, held open for writing: `Doorbell.wait` tells when it is gone."""

    def __init__(self, path: str) -> None:
        super().__init__(path, _OPEN_WATCHING)


class Doorbells:
    """The doorbells beside one database."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self.folder = os.path.join(sidecar.folder, "doorbells")
        self._beginning = os.fsencode(self.folder) + b"/"

    def install(self) -> Doorbell:
        """A new one. Raises: OSError where there can be none."""
        path = os.path.join(self.folder, secrets.token_hex(_NAME_LENGTH // 2))
        self._sidecar.make_fifo(path + "~")
        return Doorbell(path)

    def ring(self, name: str, what: bytes | Once = LOOK) -> None:
        """Wake who listens there; no one is no error, for the truth is in the database."""
        # Reading too: so nobody who is just going away can make this write raise SIGPIPE, which the
        # host program may have at its default. (A ringer keeps no one alive: what is rung is never
        # what proves a life.)
        if _is_name(name):
            # Where it is full, it has been rung often enough.
            once = {os.getpid(): what} if isinstance(what, bytes) else what
            send(self._beginning + name.encode(), _OPEN_LISTENING, once)

    def saying(self, rows: Iterable[tuple[Any, ...]], word: bytes) -> Iterator[object]:
        """What is iterated as the rows come, in C: it says the word of each to whom it is for.

        A row begins with a doorbell, which is text, and a ticket, which `word` is still without.
        """
        names: Iterator[str] = filter(str.isalnum, map(_first, rows))  # in no other folder
        paths = map(self._beginning.__add__, map(str.encode, names))
        words = map(word.__mod__, map(_second, rows))
        opened: list[int] = []
        length = len(word % 0)
        lengths: Iterable[int] = (length,)
        if _PYTHON_RUNS_IN_C:  # a child that is forked there has a word of no length: last of all
            is_here = map(os.getpid().__eq__, starmap(os.getpid, repeat(())))
            lengths = map(length.__mul__, is_here)
        return chain(
            starmap(opened.extend, ((map(c_open, paths, (_OPEN_SENDING,)),),)),
            map(c_write, opened, words, lengths),
            map(c_close, opened),
        )

    def take_back(
        self, name: str, ticket: int, on_undo: Callable[[Callable[[], object]], object]
    ) -> bool:
        """Whether that ticket's word lay there unread; then it does so no more.

        Part of a transaction that gives what it says to others; `on_undo` is that one's. All else
        that lay there is left, and a ring, so that its owner looks.
        """
        process = os.getpid()
        taken: Once = {}
        others: Once = {}
        for each in (taken, others):
            on_undo(partial(self.ring, name, each))
        with suppress(OSError), Descriptor(self._path(name), _OPEN_LISTENING) as bell:
            # In one call into C: what is read is noted, whatever exception follows.
            taken.update(zip((process,), map(os.read, (bell.number,), (_PIPE,)), strict=True))
        rings = taken.get(process)
        if not rings:
            return False
        found = handed_to(ticket, rings)
        mine = word(ticket, *found) if found else b""
        rest = rings.replace(mine, b"", 1) + LOOK
        taken[process], others[process] = mine, rest
        self.ring(name, others)
        return found is not None

    def tidy(self) -> None:
        """Close the watches that were dropped by who was in a hurry: closing takes time."""
        close_lost()

    def watch(self, mark: Mark) -> Watch | None:
        """A watch on a living process's doorbell; None if it is gone, or cannot be watched."""
        try:
            watch = Watch(self._path(mark.name))
        except OSError:
            return None
        if Mark.of(mark.name, os.fstat(watch.number)) != mark:
            watch.close()
            return None
        return watch

    def answers(self, mark: Mark) -> bool | None:
        """Whether somebody listens there; None where that cannot be told."""
        try:
            path = self._path(mark.name)
            found = os.stat(path, follow_symlinks=False)
            if not stat.S_ISFIFO(found.st_mode):
                return None
            if Mark.of(mark.name, found) != mark:
                return None
            Descriptor(path, _OPEN_WATCHING).close()
        except OSError as error:
            return False if error.errno == errno.ENXIO else None
        return True

    def _path(self, name: str | None) -> str:
        """Raises: FileNotFoundError for what cannot be the name of a doorbell."""
        if not _is_name(name):
            raise FileNotFoundError(errno.ENOENT, "no doorbell has such a name")
        return f"{self.folder}/{name}"

    def remove(self, name: str) -> None:
        """Take away the doorbell of a process that is known to be gone."""
        with suppress(OSError):
            os.unlink(self._path(name))

    def count(self) -> int:
        """How many there are, of whomever."""
        return len(self._all())

    def silent(self, before: float) -> list[str]:
        """Those at which nobody listens; half-made ones only if made before that wall time."""
        return [entry.name for entry in self._all() if self._is_silent(entry, before)]

    def sweep(self, names: Iterable[str]) -> None:
        """Take away some of the silent ones."""
        for name in names:
            with suppress(OSError):
                os.unlink(os.path.join(self.folder, name))

    def _all(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.folder) as entries:
                return [entry for entry in entries if _is_name(entry.name.removesuffix("~"))]
        except OSError:
            return []

    def _is_silent(self, entry: os.DirEntry[str], before: float) -> bool:
        try:
            found = entry.stat(follow_symlinks=False)
            # A half-made one is not yet open for a moment: hence the age.
            is_young = entry.name.endswith("~") and found.st_mtime >= before
            if not stat.S_ISFIFO(found.st_mode) or is_young:
                return False
            Descriptor(entry.path, _OPEN_WATCHING).close()
        except OSError as error:
            return error.errno == errno.ENXIO
        return False

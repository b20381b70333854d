"""The write gate: one writer at a time, in turn, and the checkpoint behind it.

Every write transaction of kvsync holds an exclusive `flock` on `gate` while it touches SQLite. The
kernel frees it when its holder dies. SQLite's own lock stays the truth; the gate only queues us:

- The fast path is one attempt without waiting. A writer in a tight loop keeps the gate for a
  *slice*: cheap, because its caches are warm and nobody switches tasks for every commit.
- Who finds the gate taken rests for a random nap, shorter the longer it has waited, and tries
  again. One waiter at a time holds the *claim*, a second flock: it tries many times as often, and
  whoever's slice is over and sees the claim taken rests too. So a waiter is overtaken for one
  slice, not for ever.
- Where so many wait that their attempts alone keep the processors busy, naps end late; so they are
  made longer, else hundreds of waiters would leave no time to who has the gate.
- What is *urgent*, because others wait for what it does (a lock is handed on), makes no way, and
  naps for less than a millisecond. It is done once for each hand-over, never in a loop.
- Nothing waits inside `flock`, so every wait has an end and answers signals. A claimant that is
  stopped costs the others some naps and nothing else.

The checkpoint behind it is in `checkpoint.py`.
"""

import errno
import os
import random
import stat
import tempfile
import time
from contextlib import suppress

from kvsync.engine import holders
from kvsync.engine.descriptors import Descriptor
from kvsync.engine.flock import LOOK, TRY, UNLOCK, flock, unlock
from kvsync.errors import BusyError, ReadOnlyError, StorageError

SLICE = 0.001
"""Seconds for which a writer may go on without looking whether somebody claims the gate."""

_NAP = (0.002, 0.03)
_CLAIM_NAP = (0.00005, 0.00015)
_YIELD_NAP = (0.0003, 0.0009)
_URGENT_NAP = (0.0001, 0.0003)
_AGING, _AGED = 0.02, 0.1
"""Seconds of wait after which a waiter naps half as long, and after which it ages no further."""

_TIMES_LATE, _LATEST = 8, 0.1
"""How many times as long as the last nap was late the next one is, at least, on average; and up to
how many seconds."""

_FOLDERS = 1000
"""Attempts to put a file into a folder that others may replace while it is empty."""


class Obstructed(Exception):
    """This attempt met another writer; try again in a while. Never leaves the engine."""


class Yielded(Obstructed):
    """No attempt was made, to let one pass who has waited longer: for one short nap.

    A claimant that is stopped makes no use of that, so making way must cost little.
    """


class Sidecar:
    """The folder beside the database, `app.db-kvsync`: as accessible as the database itself."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.folder = database + "-kvsync"
        self.gate = os.path.join(self.folder, "gate")
        self.claim = os.path.join(self.folder, "claim")
        self.setup_lock = os.path.join(self.folder, "setup.lock")

    def make(self, mode: int = 0o600, *, folder: str | None = None) -> None:
        """Make the folder, or one inside it, unless it is there.

        `mode` holds while the database does not exist.
        """
        folder = folder or self.folder
        mode, owner, group = self._access(mode)
        # Made aside and moved into place, so that nobody, ever, finds it with other rights. (A
        # folder moves onto an empty one, which is as good.)
        aside = tempfile.mkdtemp(prefix=".kvsync-", dir=os.path.dirname(folder))
        try:
            _hand_over(aside, owner, group)
            # Whoever may read a file of ours must be able to pass through its folder.
            os.chmod(aside, mode | (mode & 0o444) >> 2)
            os.rename(aside, folder)
        except OSError:
            os.rmdir(aside)
            if not os.path.isdir(folder):
                raise

    def make_fifo(self, path: str) -> None:
        """A FIFO with the rights of the database. Raises: OSError."""
        mode, owner, group = self._access(0o600)
        for _ in range(_FOLDERS):
            try:
                os.mkfifo(path, 0o600)
                break
            except FileNotFoundError:
                self.make(folder=os.path.dirname(path))
        _hand_over(path, owner, group)
        os.chmod(path, mode)

    def open(self, path: str, mode: int = 0o600) -> Descriptor:
        """A file in the folder, made if need be.

        `flock` needs no right to write, so a user who may only read the database can queue too.
        """
        try:
            return _open_file(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _refusal(error, path) from error
        try:
            return self._create(path, mode)
        except OSError as error:
            raise _refusal(error, path) from error

    def _create(self, path: str, mode: int) -> Descriptor:
        mode, owner, group = self._access(mode)
        aside = self._create_aside(mode)
        try:
            _hand_over(aside, owner, group)
            os.chmod(aside, mode)
            os.link(aside, path)
        except FileExistsError:
            pass  # somebody was faster
        finally:
            os.unlink(aside)
        return _open_file(path)

    def _create_aside(self, mode: int) -> str:
        """The path of a new file in the folder, which is made unless it is there."""
        for _ in range(_FOLDERS):
            if not os.path.isdir(self.folder):
                self.make(mode)
            # Another process's folder may just have moved onto this one, which was still empty.
            with suppress(FileNotFoundError):
                descriptor, aside = tempfile.mkstemp(dir=self.folder)
                os.close(descriptor)
                return aside
        raise FileNotFoundError(errno.ENOENT, "its folder vanishes again and again")

    def _access(self, mode: int) -> tuple[int, int, int]:
        try:
            found = os.stat(self.database)
        except FileNotFoundError:
            return mode, -1, -1
        return stat.S_IMODE(found.st_mode) & 0o666, found.st_uid, found.st_gid


def _open_file(path: str) -> Descriptor:
    """Not what would block who opens it, such as a FIFO. Raises: OSError."""
    file = Descriptor(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(file.number).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file")
    return file


def _refusal(error: OSError, path: str) -> StorageError:
    kind = ReadOnlyError if isinstance(error, PermissionError) else StorageError
    return kind(error.errno, f"cannot use {path}: {error.strerror}")


def _hand_over(path: str, owner: int, group: int) -> None:
    """Give what root made to the database's owner, and what a member made to its group."""
    for uid, gid in ((owner, group), (-1, group)):
        try:
            os.chown(path, uid, gid)
            return
        except PermissionError:
            continue


class Turn:
    """One wait: naps between the attempts, a writer's claim, and the end of its patience."""

    def __init__(
        self, sidecar: Sidecar, patience: float, *, writing: bool, urgent: bool = False
    ) -> None:
        self._sidecar = sidecar
        self._writing = writing
        self._urgent = urgent
        self._began = time.monotonic()
        self._deadline = self._began + patience
        self._late = 0.0  # by so many seconds the last nap was too long
        self.claim: Descriptor | None = None  # open, be it locked or not
        self._claims = False

    def rest(self, obstacle: Obstructed) -> None:
        """Sleep until the next attempt is worth it. Raises: BusyError when patience is over."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            if isinstance(obstacle, Yielded):
                return  # everybody gets one real attempt, however short the patience
            raise BusyError(self._complaint(obstacle))
        if self._writing and not self._claims:
            self._stake_claim()
        nap = min(left, self._nap(obstacle))
        began = time.monotonic()
        time.sleep(nap)
        self._late = time.monotonic() - began - nap

    def _nap(self, obstacle: Obstructed) -> float:
        """Seconds to the next attempt: who has waited long comes often, so the claim finds it."""
        if self._claims:
            return random.uniform(*_CLAIM_NAP)
        if self._urgent:
            return random.uniform(*_URGENT_NAP)
        if isinstance(obstacle, Yielded):
            return random.uniform(*_YIELD_NAP)
        waited = min(time.monotonic() - self._began, _AGED)
        aged = random.uniform(*_NAP) / (1 + waited / _AGING)
        return max(aged, random.uniform(0.5, 1.5) * min(_TIMES_LATE * self._late, _LATEST))

    def _stake_claim(self) -> None:
        if self.claim is None or self.claim.number < 0:  # a handler forked: this is the child
            self.claim = self._sidecar.open(self._sidecar.claim)
        try:
            flock(self.claim.number, TRY)
            self._claims = True
        except BlockingIOError:
            pass

    def _complaint(self, obstacle: Obstructed) -> str:
        waited = time.monotonic() - self._began
        holder = (
            holders.of_flock(self._sidecar.setup_lock)
            or holders.of_flock(self._sidecar.gate)
            or holders.of_database(self._sidecar.database)
        )
        by = f"; it is held by {holder}" if holder else ""
        return f"{self._sidecar.database}: {obstacle} for {waited:.3g} s{by}"


def claimed(descriptor: int) -> bool:
    """Whether somebody has waited long enough to claim the gate."""
    try:
        flock(descriptor, LOOK)
    except BlockingIOError:
        return True
    finally:
        unlock(descriptor, UNLOCK)
    return False

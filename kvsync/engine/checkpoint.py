"""The checkpoint: copies the log (`-wal`) into the database, so that the log stays short.

It runs only while the gate is held. Before 3.51.3 a checkpoint that races another connection's
commit can lose committed rows (https://www.sqlite.org/wal.html, "The WAL-Reset Bug"). Behind the
gate no such race exists among kvsync's processes. The modes used here take SQLite's write lock as
well, which keeps out writers that do not know the gate, unless one of them holds that lock for
longer than `PATIENCE`: then SQLite does what it can without it.

RESTART lets the next commit overwrite the log from its beginning; TRUNCATE, which also gives its
space back, is for a log that one large transaction blew up: appending to a file that was just cut
costs a third of the throughput. So whether a checkpoint is due is read from the log itself: see
log.py.

Most of a checkpoint's time is the disk's, and nobody writes meanwhile. A log that grows is told to
the disk in pieces, long before it is due.
"""

import logging
import os
import sqlite3

from kvsync.engine.log import Log

THRESHOLD, LARGEST_THRESHOLD, SHARE = 4 << 20, 32 << 20, 4
"""Bytes of log that make a checkpoint due: the first; in a large file a quarter of it, at most the
second.

What is copied are pages that lie far apart. The longer the log, the more of its commits have
changed the same page.
"""

PIECE = 256 << 10
"""Bytes of log with which the disk is told to begin."""

PATIENCE = 100
"""Milliseconds for which it waits for readers; nobody writes meanwhile."""

_log = logging.getLogger("kvsync")


class Checkpoint:
    """When to checkpoint one database, as one process sees it."""

    def __init__(self, database: str, durability: str) -> None:
        self._database = database
        self._log_path = database + "-wal"
        self._left = 0  # bytes that the last one had to leave in the log
        self._begun = 0  # bytes of the log, of these salts, with which the disk has begun
        self._salts = b""
        self._has_disk_begin = durability == "process"  # else with each commit, or never

    def if_due(
        self, connection: sqlite3.Connection, *, bulk: bool = False, anyway: bool = False
    ) -> None:
        """Checkpoint if the log has grown past the threshold. Call only while holding the gate.

        It never raises: the commit before it stands. `bulk`: past the first threshold, for much is
        being written, and all others wait while that is copied. `anyway`: however short the log
        is, and it gives its space back.

        Readers that stay too long make it fail; then it is tried again only after another
        threshold of growth, so that a slow reader does not make every writer wait.
        """
        try:
            threshold = THRESHOLD if bulk else self._threshold()
            with Log(self._log_path) as log:
                due = anyway or log.reaches(self._left + threshold)
                if self._left and not log.reaches(threshold):
                    self._left = 0  # somebody else has restarted the log since
                self._begin_to_write(log)
        except OSError as error:
            _log.warning("kvsync: the log could not be looked at: %s", error)
            return
        if not due:
            return
        mode = "truncate" if anyway or self.size() > 2 * threshold else "restart"
        frames = checkpoint(connection, mode)
        self._left = self._left + threshold if frames is None else frames * log.frame_size

    def _begin_to_write(self, log: Log) -> None:
        """Only with whole pieces: the end of the log is written on while the disk would have it."""
        if not self._has_disk_begin:
            return
        if self._salts != log.salts:
            self._salts, self._begun = log.salts, 0
        while log.reaches(self._begun + PIECE):
            log.begin_to_write(self._begun, PIECE)
            self._begun += PIECE

    def _threshold(self) -> int:
        size = os.stat(self._database).st_size
        return max(THRESHOLD, min(size // SHARE, LARGEST_THRESHOLD))

    def size(self) -> int:
        """Bytes of the log file; 0 where there is none."""
        try:
            return os.stat(self._log_path).st_size
        except OSError:
            return 0


def checkpoint(connection: sqlite3.Connection, mode: str) -> int | None:
    """Checkpoint, waiting for readers; returns the frames that stay in the log, None on failure."""
    try:
        connection.execute(f"pragma busy_timeout={PATIENCE:d}").fetchall()
        try:
            ((busy, frames, _),) = connection.execute(f"pragma wal_checkpoint({mode})").fetchall()
        finally:
            connection.execute("pragma busy_timeout=0").fetchall()
    except sqlite3.Error as error:
        # The commit before it stands whatever becomes of the checkpoint: never fail the caller.
        _log.warning("kvsync: checkpoint failed: %s", error)
        return None
    return int(frames) if busy else 0

"""Where a run makes its stores, and whether it can make any there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kvsync
from kvsync.engine.sqlite import Health

_ROOM = 64 << 20
"""Bytes that must be free there."""


class Unable(Exception):
    """The program cannot run here; says why."""


@contextmanager
def folder(parent: str | None) -> Iterator[str]:
    """One of its own meanwhile, in `parent` or among the temporary files."""
    own = tempfile.mkdtemp(prefix="kvsync-stress-", dir=parent)
    try:
        yield own
    finally:
        shutil.rmtree(own)


def probe(parent: str | None) -> Health:
    """That of a store that is made there. Raises: Unable."""
    where = parent or tempfile.gettempdir()
    try:
        _require_room(where)
        with folder(parent) as own, kvsync.open(Path(own) / "probe.db") as store:
            return store.check()
    except (OSError, kvsync.KvsyncError, Unable) as error:
        raise Unable(f"cannot run in {where}: {error}") from error


def _require_room(where: str) -> None:
    if not os.path.isdir(where):
        raise Unable("there is no such folder")
    if not os.access(where, os.W_OK | os.X_OK):
        raise Unable("it may not be written to")
    if (free := shutil.disk_usage(where).free) < _ROOM:
        raise Unable(f"{free >> 20} MB are free there, {_ROOM >> 20} are needed")

"""Which store is meant, and opening it without making what is not there."""

import os
import stat
from contextlib import closing

import click

import kvsync
from kvsync.cli.options import Asked
from kvsync.engine.location import resolve
from kvsync.engine.sqlite import SqliteEngine
from kvsync.errors import OpenError


class NoStoreError(click.ClickException):
    """There is nothing to look at."""

    exit_code = 2


def location(asked: Asked) -> str:
    """The path or URL: --store, else $KVSYNC_STORE, else a file in the user's state folder."""
    if asked.store is not None:
        return asked.store
    return os.environ.get("KVSYNC_STORE") or _default()


def _default() -> str:
    import platformdirs

    return os.path.join(platformdirs.user_state_dir("kvsync", appauthor=False), "store.db")


def made(asked: Asked) -> kvsync.Store:
    """The store, made by its first use if it is not there."""
    return kvsync.open(location(asked))


def existing(asked: Asked) -> kvsync.Store:
    """The store, never made. Raises: NoStoreError, OpenError."""
    path = require_file(location(asked))
    with closing(as_it_is(path)) as engine:
        if not has_tables(engine):
            raise NoStoreError(f"{path} is no store of kvsync's: it has none of its tables")
        return kvsync.open(path)


def require_file(where: str) -> str:
    """The real path of a file with something in it. Raises: NoStoreError, OpenError.

    What is no file has no size; why it will not do is said by who opens it.
    """
    path = resolve(where)
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NoStoreError(f"there is no store at {path}") from None
    except OSError as error:  # such as a loop of links
        raise OpenError(error.errno, f"cannot open {path}: {error.strerror}") from error
    if stat.S_ISREG(found.st_mode) and not found.st_size:
        raise NoStoreError(f"there is no store at {path}: the file is empty")
    return path


def as_it_is(path: str, *, allow_network: bool = False) -> SqliteEngine:
    """An existing file, to which nothing is added."""
    return SqliteEngine(
        path,
        busy_timeout=30.0,
        durability="process",
        mode=0o600,
        allow_network=allow_network,
        with_schema=False,
    )


def has_tables(engine: SqliteEngine) -> bool:
    """Whether kvsync has made its tables in this file."""
    return bool(
        engine.read("select 1 from sqlite_schema where type = 'table' and name = 'kvsync_meta'")
    )

"""A WSGI application whose workers count together in the store that `STORE_OF_TEST` names.

It opens the store and writes to it while it is imported: with `--preload` that is the master, which
therefore has connections open when it forks its workers.
"""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import kvsync

store = kvsync.open(os.environ["STORE_OF_TEST"])
served = store.counter("served")
by_worker = store.counters("served by worker")
beside = store.counter("counted beside a transaction")
store.counter("imports").add()


class Undone(Exception):
    """Makes a transaction undo what it did."""


def count() -> int:
    by_worker.add(str(os.getpid()))
    return served.add()


def count_together() -> int:
    with store.transaction():
        number = count()
        time.sleep(0)  # gevent: lets other greenlets run inside this transaction
    return number


def count_in_vain() -> int:
    with store.transaction():
        count()
        time.sleep(0)
        raise Undone


def count_beside() -> int:
    """Under gevent: another greenlet tries to get into this one's transaction."""
    import gevent

    with store.transaction():
        gevent.spawn(_intrude).get()
        return count()


def _intrude() -> None:
    with suppress(kvsync.TransactionError):
        beside.add()


ROUTES: dict[str, Callable[[], int]] = {
    "/count": count,
    "/together": count_together,
    "/in-vain": count_in_vain,
    "/beside": count_beside,
}


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """200 and the count; 409 if it was undone; 503 if another greenlet's transaction was open."""
    status, body = _answer(ROUTES[environ["PATH_INFO"]])
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def _answer(route: Callable[[], int]) -> tuple[str, bytes]:
    try:
        return "200 OK", b"%d" % route()
    except Undone:
        return "409 Conflict", b"undone"
    except kvsync.TransactionError as error:
        return "503 Service Unavailable", str(error).encode()

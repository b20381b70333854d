"""A redis-server of our own on a unix socket, through redis-py."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.crew import Step
from benchmarks.peers import Peer, Unavailable
from benchmarks.peers.installed import installed

_PATIENCE = 10.0


class Redis(Peer):
    name = "redis"
    setting = "unix socket, persistence as by default (snapshots now and then, no fsync per call)"

    def version(self) -> str:
        client = installed("redis")
        program = _program()
        words = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        server = next((w[2:] for w in words.stdout.split() if w.startswith("v=")), "?")
        return f"redis-server {server}, redis-py {client.split()[-1]}"

    @contextmanager
    def serving(self, folder: str) -> Iterator[None]:
        with open(os.path.join(folder, "redis.log"), "wb") as log:
            command = [_program(), "--port", "0", "--unixsocket", _socket(folder), "--dir", folder]
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            _wait_for(server, folder)
            yield
        finally:
            server.terminate()
            server.wait(30)

    def adder(self, folder: str) -> Step:
        client = connect(folder)
        return lambda: client.incr("hits")

    def total(self, folder: str) -> int:
        return int(connect(folder).get("hits"))


def _program() -> str:
    program = shutil.which("redis-server")
    if program is None:
        raise Unavailable("redis-server is not installed")
    return program


def _socket(folder: str) -> str:
    return os.path.join(folder, "redis.sock")


def connect(folder: str) -> Any:
    """A client of the server of that folder."""
    import redis

    return redis.Redis(unix_socket_path=_socket(folder))


def _wait_for(server: "subprocess.Popen[bytes]", folder: str) -> None:
    """Until it answers. Raises: Unavailable."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        try:
            connect(folder).ping()
            return
        except (OSError, _redis_error()):
            time.sleep(0.02)
    raise Unavailable("redis-server did not start")


def _redis_error() -> type[Exception]:
    import redis

    return redis.RedisError

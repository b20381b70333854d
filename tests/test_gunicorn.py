"""Real gunicorns whose workers count together, under HTTP load, also while workers are killed."""

import http.client
import os
import random
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import kvsync
from tests.processes import PATIENCE, eventually

REQUESTS = 2_200
CLIENTS = 8
KILLS = 6
THREADS = 4
"""Threads of a gthread worker: so many requests can be in flight in one that is killed."""

CLASSES = [pytest.param("sync", id="sync"), pytest.param("gthread", id="gthread")]
PRELOAD = [pytest.param(False, id="each-imports"), pytest.param(True, id="preload")]

LOST = 0
"""Stands for the status of a request that got no answer."""

CONFIGURATION = """
bind = "fd://{descriptor}"
workers = 4
worker_class = "{worker_class}"
threads = {threads}
preload_app = {preload}
chdir = "{folder}"
keepalive = 600
graceful_timeout = 600
control_socket_disable = True
"""


class Load:
    """Requests from several threads at once; every other client keeps its connection."""

    def __init__(self, port: int, routes: Sequence[str]) -> None:
        self.statuses: Counter[int] = Counter()
        self.numbers: list[int] = []
        self._port = port
        self._routes = routes
        self._turns = iter(range(REQUESTS))  # shared: each turn is taken by one thread
        self._news = threading.Condition()

    def run(self) -> None:
        """Send all requests, and return when each was answered or lost."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            for _ in pool.map(self._client, range(CLIENTS)):
                pass

    def await_answers(self, n: int) -> None:
        """Return when there were `n` answers or losses."""
        with self._news:
            assert self._news.wait_for(lambda: self.statuses.total() >= n, PATIENCE), "no answers"

    def _client(self, number: int) -> None:
        headers = {"Connection": "close"} if number % 2 else {}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        for turn in self._turns:
            route = self._routes[turn % len(self._routes)]
            self._note(*_ask(connection, route, headers))
        connection.close()

    def _note(self, status: int, body: bytes) -> None:
        with self._news:
            self.statuses[status] += 1
            if status == http.client.OK:
                self.numbers.append(int(body))
            self._news.notify_all()


def _ask(
    connection: http.client.HTTPConnection, route: str, headers: dict[str, str]
) -> tuple[int, bytes]:
    try:
        connection.request("GET", route, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return LOST, b""


class Server:
    """A gunicorn with four workers. It inherits its listening socket, so no port is guessed."""

    def __init__(
        self, folder: Path, store: kvsync.Store, worker_class: str, *, preload: bool
    ) -> None:
        self._log = folder / "gunicorn.log"
        self._configuration = folder / "gunicorn.conf.py"
        self._options = {"worker_class": worker_class, "preload": preload}
        self._environment = os.environ | {"STORE_OF_TEST": store.path, "GUNICORN_CMD_ARGS": ""}

    def start(self) -> None:
        # Connections queue up from here on, and are refused when gunicorn is gone.
        with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as listener:
            self.port = listener.getsockname()[1]
            self._configure(listener.fileno())
            self.master = self._launch(listener.fileno())

    def _configure(self, descriptor: int) -> None:
        text = CONFIGURATION.format(
            descriptor=descriptor,
            threads=THREADS if self._options["worker_class"] == "gthread" else 1,
            folder=Path(__file__).parent,
            **self._options,
        )
        self._configuration.write_text(text)

    def _launch(self, descriptor: int) -> psutil.Popen:
        command = [sys.executable, "-m", "gunicorn", "-c", str(self._configuration)]
        with self._log.open("wb") as log:
            return psutil.Popen(
                [*command, "gunicorn_app:application"],
                env=self._environment,
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def workers(self) -> list[psutil.Process]:
        return self.master.children()

    def stop(self) -> None:
        """End it as its user would. Raises: TimeoutExpired, if it hangs."""
        self.master.terminate()
        assert self.master.wait(PATIENCE) == 0

    def end(self) -> None:
        """End what is left of it, by force."""
        if self.master.poll() is not None:
            return
        processes = [self.master, *self.master.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, PATIENCE)

    def log(self) -> str:
        return self._log.read_text(errors="replace")


@contextmanager
def serving(
    folder: Path, store: kvsync.Store, worker_class: str, *, preload: bool
) -> Iterator[Server]:
    """A server for the length of the block. What fails in the block comes with its log."""
    server = Server(folder, store, worker_class, preload=preload)
    server.start()
    try:
        yield server
        server.stop()
        assert "Traceback" not in server.log()
    except BaseException as error:
        error.add_note(f"gunicorn said:\n{server.log()}")
        raise
    finally:
        server.end()


def served(store: kvsync.Store) -> int:
    return store.counter("served").value


def by_worker(store: kvsync.Store) -> dict[str, int]:
    return dict(store.counters("served by worker"))


@pytest.mark.parametrize("preload", PRELOAD)
@pytest.mark.parametrize("worker_class", CLASSES)
def test_four_workers_count_each_request_that_they_serve(
    tmp_path: Path, store: kvsync.Store, worker_class: str, preload: bool
) -> None:
    """No request is lost or counted twice, and several workers took part."""
    with serving(tmp_path, store, worker_class, preload=preload) as server:
        load = Load(server.port, ["/count", "/together"])
        load.run()
    assert load.statuses == {http.client.OK: REQUESTS}
    assert sorted(load.numbers) == list(range(1, REQUESTS + 1))
    assert served(store) == sum(by_worker(store).values()) == REQUESTS
    assert len(by_worker(store)) > 1
    assert (store.counter("imports").value == 1) == preload


@pytest.mark.parametrize("preload", PRELOAD)
@pytest.mark.parametrize("worker_class", CLASSES)
def test_killed_workers_lose_nothing_that_was_acknowledged(
    tmp_path: Path, store: kvsync.Store, worker_class: str, preload: bool
) -> None:
    """What was counted is what was answered, and at most what was in flight in the killed."""
    chance = random.Random(seed := random.randrange(2**32))
    with serving(tmp_path, store, worker_class, preload=preload) as server:
        load = Load(server.port, ["/count", "/together"])
        with ThreadPoolExecutor(1) as background:
            running = background.submit(load.run)
            kill_workers(server, load, chance)
            running.result()
    acknowledged = load.statuses[http.client.OK]
    in_flight = min(load.statuses[LOST], KILLS * (THREADS if worker_class == "gthread" else 1))
    assert set(load.statuses) <= {http.client.OK, LOST}, f"seed {seed}"
    assert len(set(load.numbers)) == acknowledged >= REQUESTS - KILLS * CLIENTS, f"seed {seed}"
    assert acknowledged <= served(store) <= acknowledged + in_flight, f"seed {seed}"
    assert acknowledged <= sum(by_worker(store).values()) <= acknowledged + in_flight
    assert store.check().damage == ()


def kill_workers(server: Server, load: Load, chance: random.Random) -> None:
    """SIGKILL workers, picked at random, at random points of the load."""
    for point in sorted(chance.sample(range(REQUESTS * 9 // 10), KILLS)):
        load.await_answers(point)
        eventually(server.workers)  # none are there yet, or gunicorn has not replaced them
        victim = chance.choice(server.workers())
        victim.kill()
        victim.wait(PATIENCE)


@pytest.mark.parametrize("preload", PRELOAD)
def test_greenlets_do_not_get_into_each_others_transactions(
    tmp_path: Path, store: kvsync.Store, preload: bool
) -> None:
    """Exactly the transactions that committed are counted, though greenlets switch inside them."""
    with serving(tmp_path, store, "gevent", preload=preload) as server:
        load = Load(server.port, ["/together", "/together", "/in-vain", "/beside"])
        load.run()
    acknowledged = load.statuses[http.client.OK]
    undone_or_refused = load.statuses[http.client.CONFLICT] + load.statuses[503]
    assert acknowledged + undone_or_refused == REQUESTS, load.statuses
    assert sorted(load.numbers) == list(range(1, acknowledged + 1))
    assert served(store) == sum(by_worker(store).values()) == acknowledged > 0
    assert store.counter("counted beside a transaction").value == 0
    assert len(by_worker(store)) > 1

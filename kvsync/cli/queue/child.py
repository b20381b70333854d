"""One run of a command, with an item on its standard input.

It is in a session of its own, so that a Ctrl-C of the terminal does not reach it. It inherits
stdout, and nothing of the store: it does not keep this process's items when this process dies.
"""

import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

TAIL = 4000
"""Bytes of the end of its stderr that are kept."""

_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL for a command that is to end at once."""

_NET = 0.5
"""Seconds between two looks at a command that runs. Its end wakes us earlier; they are for a signal
that comes when Python has looked for signals and not gone to sleep yet, which no sleep notices."""

_NAP = 0.02
"""The same where the system does not tell of its end."""

_LAST_WORDS = 1.0
"""Seconds for which a process that it left behind, with its stderr, holds us up."""


class Child:
    """A command that runs. Leaving the `with` block ends it, if something cuts it short.

    Raises: OSError if it cannot be started; RuntimeError if nobody can listen to it.
    """

    def __init__(self, command: Sequence[str], item: bytes, environment: Mapping[str, str]) -> None:
        with tempfile.TemporaryFile() as stdin:  # no pipe: it need not read it
            stdin.write(item)
            stdin.seek(0)
            self._process = subprocess.Popen(
                command,
                stdin=stdin,
                stderr=subprocess.PIPE,
                env=os.environ | environment,
                start_new_session=True,
            )
        self._tail = b""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        try:
            self._listener.start()
        except BaseException:
            self._end()
            if not self._listener.is_alive() and self._process.stderr is not None:
                self._process.stderr.close()
            raise

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            while said := os.read(stderr.fileno(), 1 << 16):
                self._tail = (self._tail + said)[-TAIL:]
                with suppress(OSError):  # nobody listens to us
                    _write_all(sys.__stderr__.fileno() if sys.__stderr__ else 2, said)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._end()

    def wait(self, listen: Callable[[], object], hold: Callable[[], object]) -> int:
        """Its exit status; negative, the signal that ended it.

        Signals are held back when this is called. It calls `listen` before it sleeps, and `hold`
        after it: an exception in the middle of a look would leave it locked for ever.
        """
        with _sleeper(self._process.pid) as sleep:
            while (status := self._process.poll()) is None:
                listen()
                sleep()
                hold()
        self._listener.join(_LAST_WORDS)
        return status

    def _end(self) -> None:
        """With all that it started, politely at first; another signal makes it short."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(BaseException):
                self._process.wait(_GRACE)
                return

    @property
    def last_words(self) -> str:
        """The end of what it wrote to stderr."""
        return self._tail.decode(errors="replace").replace("\0", "\ufffd").strip()


@contextmanager
def _sleeper(pid: int) -> Iterator[Callable[[], object]]:
    """What sleeps for a while, or until the process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or one that forbids it
        yield lambda: time.sleep(_NAP)
        return
    try:
        end = select.poll()
        end.register(descriptor, select.POLLIN)
        yield lambda: end.poll(_NET * 1000)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, said: bytes) -> None:
    while said:
        said = said[os.write(descriptor, said) :]

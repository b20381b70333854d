"""What was called and what came of it, written down while it happens, outside of the store.

A history is a folder with one file for each process; each line of it is one `os.write` to a file
opened for appending, so a SIGKILL loses none of them. A line with `invoke` is written before the
call, one with its outcome after it, and each carries the boot clock, read between line and call:
the call took effect, if at all, between the two times. A call whose outcome is not there is open:
it may have had its effect, or never have it, and a checker must allow for both.
"""

import itertools
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

Datum = Any
"""An argument or a result: what JSON can say, without objects. Lists come back as tuples."""

_BOOT_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_PREFIX = "history-"
_INVOKE = "invoke"

_FAR_APART = 1_000_000
"""More processes there are not."""


class Outcome(StrEnum):
    """What the caller knows of a call."""

    OK = "ok"
    """It returned."""

    FAIL = "fail"
    """It certainly changed nothing."""

    UNKNOWN = "unknown"
    """It may have taken effect at any time after its invocation, or never."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A call from its invocation to its return, in ns of the boot clock."""

    process: int
    function: str
    argument: Datum
    outcome: Outcome
    result: Datum
    invoked: int
    returned: int | None
    """None, as it is read, if the outcome is unknown."""

    @property
    def known(self) -> bool:
        return self.outcome is Outcome.OK


History = list[Operation]
"""All operations on one key, in the order of their invocations."""


def now() -> int:
    """Ns of the boot clock, the same in all processes of the machine."""
    return time.clock_gettime_ns(_BOOT_CLOCK)


class Recording(Protocol):
    """Where a worker makes the calls that may be recorded."""

    def call(
        self, key: str, function: str, argument: Datum, perform: Callable[[], T], *fails: type
    ) -> T:
        """What `perform()` returns. An exception of the kinds `fails` has changed nothing."""


class Unrecorded:
    """Makes the calls and writes nothing."""

    def call(
        self,
        key: str,  # noqa: ARG002
        function: str,  # noqa: ARG002
        argument: Datum,  # noqa: ARG002
        perform: Callable[[], T],
        *fails: type,  # noqa: ARG002
    ) -> T:
        return perform()

    def close(self) -> None:
        pass


class Recorder:
    """Writes the calls of one process; its threads may share it, a forked child may not."""

    def __init__(self, folder: str, process: int) -> None:
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"{_PREFIX}{process}")
        self._descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        self._numbers = itertools.count()

    def call(
        self, key: str, function: str, argument: Datum, perform: Callable[[], T], *fails: type
    ) -> T:
        number = next(self._numbers)
        self._write(_INVOKE, number, now(), key, function, argument)
        try:
            result = perform()
        except BaseException as error:
            outcome = Outcome.FAIL if isinstance(error, fails) else Outcome.UNKNOWN
            self._write(outcome, number, now(), None)
            raise
        self._write(Outcome.OK, number, now(), result)
        return result

    def _write(self, *line: Datum) -> None:
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        os.close(self._descriptor)


def of_thread(process: int, thread: int) -> int:
    """The number under which a history has a thread that is to be told apart; 0 is the first."""
    return process + thread * _FAR_APART


def thread_of(client: int) -> tuple[int, int]:
    """The process and the thread that have that number in a history."""
    thread, process = divmod(client, _FAR_APART)
    return process, thread


def read(folder: str) -> dict[str, History]:
    """The history in a folder, by key."""
    histories: dict[str, History] = defaultdict(list)
    for path in Path(folder).glob(f"{_PREFIX}*"):
        process = int(path.name.removeprefix(_PREFIX))
        for key, operation in _operations(process, _lines(path)):
            histories[key].append(operation)
    for history in histories.values():
        history.sort(key=_moment)
    return dict(histories)


def _moment(operation: Operation) -> tuple[int, int]:
    return operation.invoked, operation.process


def _lines(path: Path) -> Iterator[list[Datum]]:
    """A line that a kill cut short is as good as none: its call never began, or is open."""
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def _operations(process: int, lines: Iterable[list[Datum]]) -> Iterator[tuple[str, Operation]]:
    begun: dict[int, list[Datum]] = {}
    for event, number, moment, *rest in lines:
        if event == _INVOKE:
            begun[number] = [*rest, moment]
        else:
            yield _operation(process, begun.pop(number), Outcome(event), rest[0], moment)
    for invocation in begun.values():
        yield _operation(process, invocation, Outcome.UNKNOWN, None, None)


def _operation(
    process: int, invocation: list[Datum], outcome: Outcome, result: Datum, moment: int | None
) -> tuple[str, Operation]:
    key, function, argument, invoked = invocation
    returned = None if outcome is Outcome.UNKNOWN else moment
    told = sys.intern(function), _frozen(argument), outcome, _frozen(result)
    return key, Operation(process, *told, invoked, returned)


def _frozen(datum: Datum) -> Datum:
    return tuple(map(_frozen, datum)) if isinstance(datum, list) else datum

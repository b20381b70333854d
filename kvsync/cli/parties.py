"""How those who hold and wait are told of: in words, and as JSON."""

import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

import kvsync
from kvsync.cli.output import shortened
from kvsync.engine.process import this_process
from kvsync.primitives.overview import Holding, Line, Party, Waiting, state_of
from kvsync.printable import printable

_COMMAND = 60
"""Characters of a command line in a sentence."""

_DAY = 86_400
_CENTURY = 100 * 365 * _DAY
_UNITS = (("d", _DAY), ("h", 3600), ("min", 60), ("s", 1))


class States:
    """How each party's process is, looked up once: "alive", "stopped" or "dead"."""

    def __init__(self, store: kvsync.Store) -> None:
        self._store = store
        self._known: dict[int, str] = {}

    def of(self, party: Party) -> str:
        if party.session not in self._known:
            self._known[party.session] = state_of(self._store.session, party)
        return self._known[party.session]

    def living(self, parties: Iterable[Party]) -> int:
        """How many of them are not dead, and so hold or wait at all."""
        return sum(self.of(party) != "dead" for party in parties)


def title(line: Line) -> str:
    """ "lock 'nightly'"."""
    return f"{line.kind} {line.name!r}"


def who(party: Party) -> str:
    """ "process 4711 (python app.py), thread 1402"."""
    place = "" if party.host == this_process().host else f" on {party.host}"
    thread = "" if party.ident is None else f", thread {party.ident}"
    return printable(f"process {party.pid}{place} ({cut(party.command, _COMMAND)}){thread}")


def cut(command: str, length: int) -> str:
    """A command line in one line, so many characters at most; its program's folder goes first."""
    words = command.split()
    if len(" ".join(words)) > length:
        words[0] = os.path.basename(words[0])
    return shortened(" ".join(words), length)


def verb(line: Line, party: Party) -> str:
    """ "holds", "waits", "waits to put", "runs the action"."""
    if isinstance(party, Holding):
        return "holds"
    if isinstance(party, Waiting) and party.acts:
        return "runs the action"
    return f"waits to {party.kind}" if line.kind == "queue" else "waits"


def details(line: Line, party: Party) -> list[str]:
    """What else is to be said of it, where it is not what one takes for granted."""
    found = [party.kind] if party.kind != line.kind != "queue" else []
    if line.space == "semaphore" and party.units > 1:
        found.append(f"{party.units:,} permits")
    if isinstance(party, Holding) and not party.claimed:
        found.append("not taken up yet")
    if isinstance(party, Waiting) and party.passed:
        found.append("passed over")
    return found


def duration(seconds: float) -> str:
    """ "3.2 s", "4 min 10 s", "2 d 5 h"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds >= _CENTURY:
        return "over 100 years"
    left, parts = round(seconds), list[str]()
    for unit, size in _UNITS:
        if left >= size or parts:
            parts.append(f"{left // size} {unit}")
        left %= size
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))


def moment(party: Party) -> str:
    """When it began, by the clock of the wall; with its day if that is not within the last one."""
    form = "%H:%M:%S" if party.age < _DAY else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(party.since))


def plain(party: Party, states: States) -> dict[str, Any]:
    """It as JSON; times in seconds, `since` since 1970."""
    found: dict[str, Any] = {
        "host": party.host,
        "pid": party.pid,
        "command": party.command,
        "thread": party.ident,
        "kind": party.kind,
        "units": party.units,
        "since": party.since,
        "age": round(party.age, 3),
        "state": states.of(party),
    }
    if isinstance(party, Holding):
        more = {"lease_left": party.lease_left, "token": party.token, "claimed": party.claimed}
        return found | more
    if isinstance(party, Waiting):
        more = {"timeout_left": party.timeout_left, "passed": party.passed}
        of_barrier = {} if party.parties is None else {"parties": party.parties, "acts": party.acts}
        return found | more | of_barrier
    return found


def plainly(line: Line, states: States) -> dict[str, Any]:
    """A line as JSON; the waiters in their order."""
    return {
        "kind": line.kind,
        "name": line.name,
        "holders": _all(line.holders, states),
        "waiters": _all(line.waiters, states),
    }


def _all(parties: Sequence[Party], states: States) -> list[dict[str, Any]]:
    return [plain(party, states) for party in parties]

"""why: who waits, for whom, and what holds that one up in turn."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from kvsync.cli import stores
from kvsync.cli.options import Asked, Verb, pass_asked, with_json, with_store
from kvsync.cli.output import emit
from kvsync.cli.parties import States, details, duration, moment, plain, title, verb, who
from kvsync.cli.values import NotFoundError
from kvsync.primitives.overview import Holding, Line, Party, Waiting, lines
from kvsync.printable import printable

_MISSING = {
    "event": "it is not set: a set wakes all of them",
    "condition": "they are not notified yet: a notify by whoever has its lock wakes the first",
    "queue": "there is no item to take: a put wakes the first of them",
    "queue-put": "it is full: whoever takes an item makes room for the first of them",
    "queue-join": "not all items are done with: see `kvsync queue ls`",
}
"""What those wait for who wait to be told, and who stand in the lines of a queue."""

Row = tuple[int, str, str]
"""Indentation, text, style."""


@dataclass(frozen=True)
class Obstacle:
    """A holder, and what its thread waits for: nothing, or one thing as a rule."""

    holder: Holding
    waits: tuple["Wait", ...]


@dataclass(frozen=True)
class Wait:
    """A thread's wait, and who is in its way. `end` says why the chain is not followed further."""

    line: Line
    waiting: Waiting
    ahead: int
    end: str
    """ "circle": it comes back to who was before in this chain; "known": told of before; or ""."""
    obstacles: tuple[Obstacle, ...]


class Web:
    """Who waits for whom.

    Who waits is held up by all who hold what it waits for, and by those ahead of it in the line;
    these in turn by the same holders, so to look at the holders is enough, and a chain closes in a
    circle as soon as somebody of it is met again, or stands ahead.
    """

    def __init__(self, found: list[Line]) -> None:
        self._waits = [(line, each) for line in found for each in line.waiters if not each.acts]
        self._known: set[int] = set()

    def obstacles(self, line: Line) -> tuple[Obstacle, ...]:
        """What the first in the line is held up by; without waiters, what its holders are."""
        head = next((each for each in line.waiters if not each.passed), None)
        return self._holders(line, (head.ticket,) if head else ())

    def _holders(self, line: Line, path: tuple[int, ...]) -> tuple[Obstacle, ...]:
        return tuple(Obstacle(each, self._of(each, path)) for each in line.holders)

    def _of(self, holder: Holding, path: tuple[int, ...]) -> tuple[Wait, ...]:
        return tuple(self._wait(*each, path) for each in self._waits if _is_same(holder, each[1]))

    def _wait(self, line: Line, waiting: Waiting, path: tuple[int, ...]) -> Wait:
        ahead = [each.ticket for each in line.waiters if each.ticket < waiting.ticket]
        end = ""
        if waiting.ticket in path or any(ticket in path for ticket in ahead):
            end = "circle"
        elif waiting.ticket in self._known:
            end = "known"
        self._known.add(waiting.ticket)
        deeper = () if end else self._holders(line, (*path, waiting.ticket))
        return Wait(line, waiting, len(ahead), end, deeper)


def _is_same(holder: Holding, waiting: Waiting) -> bool:
    """Whether it is one thread; one process is enough where its threads are not recorded."""
    return (holder.thread or holder.session) == (waiting.thread or waiting.session)


@click.command(cls=Verb)
@click.argument("name")
@with_store
@with_json
@pass_asked
def why(asked: Asked, name: str) -> None:
    """Tell who blocks whom.

    Of whatever is called NAME: who waits for it, who holds it, what the holder's thread waits for
    in turn, and so on. Exit status 1 if nobody holds it or waits.
    """
    with stores.existing(asked) as store:
        found, states = lines(store.engine), States(store)
        named = [line for line in found if line.name == name]
        if not named:
            raise NotFoundError(f"nobody holds anything called {name!r} or waits for it")
        if asked.json:
            emit([_plain(line, Web(found).obstacles(line), states) for line in named])
        else:
            _show(row for line in named for row in _told(line, Web(found), states))


def _show(rows: Iterator[Row]) -> None:
    from rich.text import Text

    from kvsync.cli import tables

    screen = tables.console()
    for depth, text, style in rows:
        screen.print(Text("  " * depth + printable(text), style), soft_wrap=True)


# --- for people --------------------------------------------------------------------------------


def _told(line: Line, web: Web, states: States) -> Iterator[Row]:
    yield 0, title(line), "bold"
    for place, waiting in enumerate(line.waiters, 1):
        more = [*_details(line, waiting), *_state(waiting, states)]
        yield (
            1,
            _sentence(f"{place}. {who(waiting)} {verb(line, waiting)}, {_since(waiting)}", more),
            "",
        )
    if not line.waiters:
        yield 1, "nobody waits for it", "green"
    yield from _holders(line, web.obstacles(line), 1, states)


def _holders(
    line: Line, obstacles: tuple[Obstacle, ...], depth: int, states: States
) -> Iterator[Row]:
    if not line.holders:
        yield depth, _what_is_missing(line), ""
    for obstacle in obstacles:
        yield from _obstacle(line, obstacle, depth, states)


def _what_is_missing(line: Line) -> str:
    if line.space == "barrier":
        return _who_is_missing(line)
    return _MISSING.get(line.space, "nobody holds it")


def _who_is_missing(line: Line) -> str:
    parties = line.waiters[0].parties or 0
    acting = next((each for each in line.waiters if each.acts), None)
    if acting is not None:
        return f"all {parties} parties have come: {who(acting)} runs the action"
    left = parties - len(line.waiters)
    return f"{left} of {parties} parties {'is' if left == 1 else 'are'} to come"


def _obstacle(line: Line, obstacle: Obstacle, depth: int, states: States) -> Iterator[Row]:
    holder = obstacle.holder
    lease = "" if holder.lease_left is None else f"lease ends in {duration(holder.lease_left)}"
    more = [*details(line, holder), f"token {holder.token}", *([lease] if lease else [])]
    yield depth, _sentence(f"held by {who(holder)}, {_since(holder)}", more), ""
    for wait in obstacle.waits:
        yield from _wait(wait, depth + 1, states, sure=bool(holder.thread))
    if remark := _remark(holder, states):
        yield depth + 1, remark, "red"
    elif not obstacle.waits:
        yield depth + 1, "which waits for nothing here", "green"


def _remark(holder: Holding, states: States) -> str:
    match states.of(holder):
        case "dead":
            return "dead: the next who wants it frees it, or `kvsync doctor --reap`"
        case "stopped":
            return f"stopped: `kill -CONT {holder.pid}` lets it go on"
    return ""


def _wait(wait: Wait, depth: int, states: States, *, sure: bool) -> Iterator[Row]:
    subject = "which" if sure else "a thread of which"
    more = [*_details(wait.line, wait.waiting), *([f"behind {wait.ahead}"] if wait.ahead else [])]
    text = _sentence(f"{subject} waits for {title(wait.line)}, {_since(wait.waiting)}", more)
    if wait.end == "circle":
        yield depth, f"{text}: a circle{'' if sure else ', if it is the same thread'}", "red"
    elif wait.end == "known":
        yield depth, f"{text}: see above", ""
    else:
        yield depth, text, ""
        yield from _holders(wait.line, wait.obstacles, depth + 1, states)


def _sentence(text: str, more: list[str]) -> str:
    return f"{text} ({', '.join(more)})" if more else text


def _since(party: Party) -> str:
    return f"since {moment(party)}, for {duration(party.age)}"


def _details(line: Line, waiting: Waiting) -> list[str]:
    left = waiting.timeout_left
    end = [] if left is None else [f"gives up in {duration(left)}"]
    return [*details(line, waiting), *end]


def _state(party: Party, states: States) -> list[str]:
    state = states.of(party)
    return [] if state == "alive" else [state]


# --- for programs ------------------------------------------------------------------------------


def _plain(line: Line, obstacles: tuple[Obstacle, ...], states: States) -> dict[str, Any]:
    return {
        "kind": line.kind,
        "name": line.name,
        "waiters": [plain(waiting, states) for waiting in line.waiters],
        "holders": [_plain_obstacle(each, states) for each in obstacles],
    }


def _plain_obstacle(obstacle: Obstacle, states: States) -> dict[str, Any]:
    waits = [_plain_wait(wait, states) for wait in obstacle.waits]
    return plain(obstacle.holder, states) | {"waits_for": waits}


def _plain_wait(wait: Wait, states: States) -> dict[str, Any]:
    return {
        "kind": wait.line.kind,
        "name": wait.line.name,
        "age": round(wait.waiting.age, 3),
        "timeout_left": wait.waiting.timeout_left,
        "ahead": wait.ahead,
        "end": wait.end,
        "holders": [_plain_obstacle(each, states) for each in wait.obstacles],
    }

"""The verb `kvsync demo`."""

import random
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

import kvsync
from kvsync.cli.demo import acts
from kvsync.cli.demo.accounts import Accounts
from kvsync.cli.demo.crew import Crew, Size
from kvsync.cli.options import Asked, Verb, at_most, pass_asked, positive, with_json
from kvsync.cli.output import emit

if TYPE_CHECKING:
    from kvsync.cli.demo.show import Show

_ENDS = (signal.SIGTERM, signal.SIGHUP)


@click.command(cls=Verb)
@click.option(
    "--processes", type=click.IntRange(5, 64), default=8, show_default=True, help="How many."
)
@click.option(
    "--seconds",
    type=float,
    default=2.0,
    show_default=True,
    callback=positive,
    help="How long they work.",
)
@click.option("--operations", type=at_most, help="How much they do, instead of how long.")
@click.option("--seed", type=int, help="Of the order of operations and the choice of the victim.")
@with_json
@pass_asked
def demo(
    asked: Asked, processes: int, seconds: float, operations: int | None, seed: int | None
) -> int:
    """Watch processes share a store while some are killed.

    They add to a counter and a dict in a temporary store, take turns by a lock and a semaphore,
    and work off a queue. Half way one gets SIGKILL, and so does one that holds the lock, one inside
    the semaphore, and one with an item of the queue in hand. In the end a table shows, for each
    thing, what was acknowledged and what is found. Exit status 1 if they differ.
    """
    if asked.store is not None:
        raise click.UsageError("demo uses a temporary store of its own, not --store")
    seed = random.randrange(1_000_000) if seed is None else seed
    size = Size(processes, seconds, operations, seed)
    with _ended_properly():
        return 0 if play(acts.ACTS, size, _show(asked), as_json=asked.json) else 1


def _show(asked: Asked) -> "Show":
    from kvsync.cli.demo import show

    if asked.json:
        return show.Nothing()
    return show.Bars() if sys.stdout.isatty() else show.Lines()


def play(cast: Sequence[acts.Act], size: Size, show: "Show", *, as_json: bool = False) -> bool:
    """Run the whole demo with these acts; returns whether everything is as expected."""
    with kvsync.temporary() as store, Crew(store, cast, size) as crew:
        with show.of(crew):
            _run(crew, show)
        accounts = Accounts(crew, cast)
        checks = list(accounts.checks(store))
        show.verdict(crew, accounts, checks)
        if as_json:
            emit(accounts.report(checks))
    return all(check.ok for check in checks)


def _run(crew: Crew, show: "Show") -> None:
    """From the start to the end of the last process, the victims' in between."""
    for _ in crew.gather():
        show.tick()
    show.started()
    for _ in crew.work():
        for member in crew.due():
            crew.kill(member)
            show.killed(member)
        show.tick()


@contextmanager
def _ended_properly() -> Iterator[None]:
    """A polite signal ends the demo as Ctrl-C does: children reaped, files removed."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in _ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

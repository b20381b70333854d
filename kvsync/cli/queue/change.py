"""redrive, purge, shutdown, reopen: what is done to a queue as a whole."""

from dataclasses import asdict

import click

import kvsync
from kvsync.cli import stores
from kvsync.cli.asking import ask
from kvsync.cli.options import Asked, Verb, pass_asked, with_json, with_store
from kvsync.cli.output import emit, say
from kvsync.cli.queue import named
from kvsync.cli.values import NotFoundError
from kvsync.printable import printable


@click.command(cls=Verb)
@click.argument("name")
@click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
@with_store
@with_json
@pass_asked
def redrive(asked: Asked, name: str, ids: tuple[int, ...]) -> None:
    """Put dead letters back into their queue.

    Those with these IDs, or all; into their old places, with no attempts counted. Exit status 1 if
    one of the IDs is no dead letter's: the others go back all the same.
    """
    with stores.existing(asked) as store:
        letters = named.there(store, name).dead
        missing = set(ids) - {letter.id for letter in letters} if ids else set()
        count = letters.redrive(ids or None)
    if asked.json:
        emit({"redriven": count, "missing": sorted(missing)})
    else:
        say(f"{_items(count)} put back")
    if missing:
        listed = ", ".join(map(str, sorted(missing)))
        raise NotFoundError(f"{name!r} has no dead letter {listed}")


@click.command(cls=Verb)
@click.argument("name")
@click.option("--dead", is_flag=True, help="The dead letters, instead of what waits.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_store
@with_json
@pass_asked
def purge(asked: Asked, name: str, dead: bool, yes: bool) -> None:
    """Remove all that waits in a queue, for good.

    Delayed items included; those that are in somebody's hand are not.
    """
    with stores.existing(asked) as store:
        jobs = named.there(store, name)
        if not yes:
            ask(f"{_told(jobs, dead)}. Remove them for good?", otherwise="nothing was removed")
        count = jobs.dead.purge() if dead else jobs.purge()
    if asked.json:
        emit({"purged": count})
    else:
        say(f"{_items(count)} removed")


def _told(jobs: kvsync.Queue, dead: bool) -> str:
    stats = jobs.stats()
    what = f"{_items(stats.dead)} among its dead letters"
    waits = f"{_items(stats.depth + stats.delayed)} waiting"
    return printable(f"queue {jobs.name!r} has {what if dead else waits}")


def _items(count: int) -> str:
    from kvsync.cli.tables import counted

    return counted(count, "item", "items")


@click.command(cls=Verb)
@click.argument("name")
@click.option("--immediate", is_flag=True, help="Give out nothing more either.")
@with_store
@with_json
@pass_asked
def shutdown(asked: Asked, name: str, immediate: bool) -> None:
    """Let a queue take no more items.

    Until reopen, in any process. What it has is still given out, and its workers end after that.
    """
    with stores.existing(asked) as store:
        jobs = named.there(store, name)
        jobs.shutdown(immediate=immediate)
        _told_of(asked, jobs)


@click.command(cls=Verb)
@click.argument("name")
@with_store
@with_json
@pass_asked
def reopen(asked: Asked, name: str) -> None:
    """Let a queue go on after its shutdown."""
    with stores.existing(asked) as store:
        jobs = named.there(store, name)
        jobs.reopen()
        _told_of(asked, jobs)


def _told_of(asked: Asked, jobs: kvsync.Queue) -> None:
    if asked.json:
        emit(asdict(jobs.stats()))

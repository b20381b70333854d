"""release: take away what somebody holds, once who holds it was shown and a person said yes."""

import click

import kvsync
from kvsync.cli import stores
from kvsync.cli.asking import ask
from kvsync.cli.contents import WAITED_FOR
from kvsync.cli.options import Asked, Verb, pass_asked, with_json, with_store
from kvsync.cli.output import emit, say
from kvsync.cli.parties import States, duration, plain, title, who
from kvsync.cli.values import NotFoundError
from kvsync.primitives.overview import Holding, Line, lines, take_away
from kvsync.printable import printable


@click.command(cls=Verb)
@click.argument("name")
@click.option("--kind", metavar="KIND", help="lock, semaphore ..., where several have that name.")
@click.option("--force", is_flag=True, help="Really; without it, only who holds it is told.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_store
@with_json
@pass_asked
def release(asked: Asked, name: str, kind: str | None, force: bool, yes: bool) -> None:
    """Take a lock away from whoever holds it.

    Or a semaphore's permits, an election's lead. The former holder is not stopped: it finds out
    when it releases, extends or commits under the guard of what it held. The next grant has a
    higher token. Exit status 1 if nobody holds it, 2 if it is held and --force was not said.
    """
    with stores.existing(asked) as store:
        line = _held(store, name, kind)
        if not force:
            raise click.UsageError(f"{_told(line)}; to take it away, say --force")
        if not yes:
            ask(f"{printable(_told(line))}. Take it away?", otherwise="nothing was taken away")
        _take(asked, store, line)


def _held(store: kvsync.Store, name: str, kind: str | None) -> Line:
    """What is meant. Raises: NotFoundError if nobody holds it, UsageError if it is unclear."""
    named = [line for line in lines(store.engine) if line.name == name]
    meant = [line for line in named if kind in (None, line.kind, line.space)]
    found = [line for line in meant if line.holders]
    if not meant and kind not in (None, *WAITED_FOR):
        raise click.UsageError(f"{kind!r} is no kind; there are {', '.join(WAITED_FOR)}")
    if not found:
        what = f"{kind} {name!r}" if kind else f"anything called {name!r}"
        raise NotFoundError(_unheld(meant) if meant else f"nobody holds {what}")
    if len(found) > 1:
        kinds = " and ".join(line.kind for line in found)
        raise click.UsageError(f"{name!r} is held as {kinds}: say which with --kind")
    return found[0]


def _unheld(meant: list[Line]) -> str:
    what = " or ".join(map(title, meant))
    waiters = sum(len(line.waiters) for line in meant)
    wait = "1 waits" if waiters == 1 else f"{waiters} wait"
    return f"nobody holds {what}, though {wait} there: there is nothing to take away"


def _told(line: Line) -> str:
    return f"{title(line)} is held by {' and by '.join(map(_holder, line.holders))}"


def _holder(holder: Holding) -> str:
    return f"{who(holder)}, for {duration(holder.age)} (token {holder.token})"


def _take(asked: Asked, store: kvsync.Store, line: Line) -> None:
    """From those who were shown, and from nobody else."""
    states = States(store)
    told = {holder.token: plain(holder, states) for holder in line.holders}
    taken = take_away(store.engine, line, list(told))
    if not taken:
        raise NotFoundError(f"nobody holds {title(line)} any more: it was released meanwhile")
    if asked.json:
        released = [told[token] for token in taken]
        emit({"kind": line.kind, "name": line.name, "released": released})
        return
    for holder in line.holders:
        if holder.token in taken:
            say(f"{printable(title(line))} was taken away from {who(holder)}")

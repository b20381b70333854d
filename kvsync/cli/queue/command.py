"""The verb `kvsync queue`, and its verbs."""

import click

from kvsync.cli.options import Verbs, explained, with_json, with_store
from kvsync.cli.queue import change, look, put, work


@click.group(cls=Verbs, invoke_without_command=True)
@with_store
@with_json
@click.pass_context
def queue(ctx: click.Context) -> int:
    """Look at queues, fill them and work them off.

    An item that is taken comes back when its worker fails or dies, and is among the dead letters
    after its last attempt. ls, peek and dead take nothing out.
    """
    return explained(ctx)


for verb in (
    look.ls,
    look.peek,
    put.put,
    look.dead,
    change.redrive,
    change.purge,
    work.work,
    change.shutdown,
    change.reopen,
):
    queue.add_command(verb)

"""The group of verbs, and how every error becomes one line on stderr and an exit status."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click

import kvsync
from kvsync.cli import INTERRUPTED, contents, doctor, locks, release, stress, upkeep, values, why
from kvsync.cli.demo import command as demo
from kvsync.cli.options import Verbs, explained, with_json, with_store
from kvsync.cli.output import reason, remark
from kvsync.cli.queue import command as queue
from kvsync.errors import (
    EncodeError,
    InvalidKeyError,
    InvalidNameError,
    KvsyncError,
    OpenError,
    ReadOnlyError,
    StorePathError,
    UnsupportedSQLiteError,
)
from kvsync.printable import printable

_NOBODY_READS = 141  # 128 + SIGPIPE

_UNUSABLE = (
    OpenError,
    ReadOnlyError,
    StorePathError,
    UnsupportedSQLiteError,
    InvalidNameError,
    InvalidKeyError,
    EncodeError,
)
"""Wrong usage, or a store that cannot be opened: exit status 2. All else that fails: 1."""


class App(Verbs):
    """Ends quietly when nobody listens."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            status = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            _lead_nowhere(sys.stdout)
            return _NOBODY_READS
        except KeyboardInterrupt:  # before click, which would print an empty line
            return INTERRUPTED
        return status


@click.group(
    cls=App,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_store
@with_json
@click.version_option(kvsync.__version__, message="%(prog)s %(version)s")
@click.pass_context
def app(ctx: click.Context) -> int:
    """State that the processes of one machine share, in one SQLite file.

    The store is --store, else $KVSYNC_STORE, else a file in your state folder. get, ls, locks, why,
    stats and doctor take nothing and hold no writer up. ls, locks, why and stats may do what any
    newcomer would: pass over a stopped waiter, and give back what a dead worker had in hand.
    """
    return explained(ctx)


for verb in (
    values.get,
    values.set_,
    values.del_,
    values.incr,
    contents.ls,
    locks.locks,
    why.why,
    release.release,
    queue.queue,
    upkeep.stats,
    doctor.doctor,
    upkeep.backup,
    upkeep.adopt,
    demo.demo,
    stress.stress,
):
    app.add_command(verb)


def run(arguments: Sequence[str] | None) -> int:
    """Run one command line; returns its exit status."""
    _give_closed_streams_a_place()
    _learn_how_processes_end()
    _print_what_the_terminal_cannot_show()
    try:
        return app.main(arguments, prog_name="kvsync", standalone_mode=False) or 0
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        return _complain(_sentence_of(error), error.exit_code)
    except (KvsyncError, OSError) as error:
        return _complain(reason(error), 2 if isinstance(error, _UNUSABLE) else 1)
    finally:
        _forget_what_nobody_reads()


def _complain(sentence: str, status: int) -> int:
    remark(f"kvsync: {printable(sentence)}")
    return status


def _sentence_of(error: click.ClickException) -> str:
    sentence = " ".join(error.format_message().split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{sentence} (see {error.ctx.command_path} --help)"
    return sentence


def _give_closed_streams_a_place() -> None:
    """As cron and daemons start us: what nobody reads is no reason to fail behind a commit.

    No file that is opened later may become descriptor 1 or 2, where others expect to print. What
    would be read from a closed stdin is missing, not empty: `sys.stdin` stays None.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)  # as its neighbours are
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(nowhere, "w", encoding="utf-8", closefd=False))


def _forget_what_nobody_reads() -> None:
    """Of what we said on stderr; else Python tries again at its end, and has a status for that."""
    if sys.stderr is not None:
        try:
            sys.stderr.flush()
        except OSError:
            _lead_nowhere(sys.stderr)


def _lead_nowhere(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _learn_how_processes_end() -> None:
    """Who starts us may ignore SIGCHLD: then we do, and the system forgets their exit statuses."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _print_what_the_terminal_cannot_show() -> None:
    """As escapes, rather than fail half way."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

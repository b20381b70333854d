"""The verb `kvsync stress`: the suite, on this machine and its file system.

A checkout has the package `stress` beside `kvsync`, a wheel carries it below, in `suite/`; its name
is the same in both. It reads its own options, and nothing of it is imported before it is asked for.
"""

import os
import sys
from importlib import import_module

import click

import kvsync
from kvsync.cli.options import Asked, pass_asked


@click.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@pass_asked
def stress(asked: Asked, arguments: tuple[str, ...]) -> int:
    """Break many processes, and look for what is lost.

    On this machine, and on the file system of --store FOLDER: try it before you trust it.
    """
    if asked.store is not None or asked.json:
        raise click.UsageError("stress has options of its own: say them after the verb")
    if (home := _home()) is None:
        raise click.UsageError("this installation came without the suite")
    sys.path.insert(0, home)
    try:
        return int(import_module("stress.__main__").main(arguments, "kvsync stress"))
    except SystemExit as told:  # of its options
        return int(told.code or 0)


def _home() -> str | None:
    """The folder with the package in it."""
    package = os.path.dirname(os.path.abspath(kvsync.__file__))
    for folder in (os.path.join(package, "suite"), os.path.dirname(package)):
        if os.path.isfile(os.path.join(folder, "stress", "__main__.py")):
            return folder
    return None

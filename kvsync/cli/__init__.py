"""The command `kvsync`.

    app                 the group of verbs; errors become one line and an exit status
    options             --store and --json, before or after the verb; how arguments are read
    stores              which store is meant, and opening it without making it
    output, tables      JSON for programs, tables for people
    asking              a question, before what cannot be undone
    values, contents    get, set, del, incr; ls
    locks, why          who holds and who waits for what; who blocks whom
    release             take away what somebody holds
    queue/              queues: look at them, fill them, work them off
    parties             how those who hold and wait are told of
    upkeep, doctor      stats, backup, adopt; doctor
    demo/               processes that share a store, one of them killed
    stress              the suite that breaks them by the thousand

It needs the extra `cli`. Nothing is imported here that comes with it, so that a command without
it can say so, and the demo's processes start quickly.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell reports it."""

_EXTRA = ("click", "rich", "platformdirs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status.

    0 is success; 1: not found, unhealthy, mismatch or failed; 2: wrong usage, or the store cannot
    be opened; 130: interrupted; 141: nobody reads the output any more.

    Args:
        arguments: what follows `kvsync`; None for this process's own.
    """
    if missing := [name for name in _EXTRA if find_spec(name) is None]:
        print(f"kvsync: {', '.join(missing)} missing: install kvsync[cli]", file=sys.stderr)
        return 2
    try:
        from kvsync.cli.app import run

        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED

"""The command `kvsync` from its first moment on: Ctrl-C ends it quietly, though it still imports.

It lies outside of the package, whose own import takes most of that time. Until all is there nothing
is begun that would have to be undone, so the process ends at once. An exception would not do: code
that runs during imports may swallow it, or turn it into another.
"""

import os
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 130  # as kvsync.cli says it, which is not imported yet


def main() -> int:
    """Run the command line; returns its exit status: see `kvsync.cli.main`."""
    try:
        import signal

        before = signal.getsignal(signal.SIGINT)
        # Where it is ignored, as in the background of a script, it stays so.
        ends = before is signal.default_int_handler
        if ends:
            signal.signal(signal.SIGINT, _end)
        from kvsync import cli

        with suppress(ImportError):  # for want of the extra: `cli.main` tells
            import kvsync.cli.app  # noqa: F401
        if ends:
            signal.signal(signal.SIGINT, before)
        return cli.main()
    except KeyboardInterrupt:
        return _INTERRUPTED


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(_INTERRUPTED)

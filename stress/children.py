"""Forked children that make themselves useful and end, and whose end somebody looks at."""

import os
from collections.abc import Callable
from typing import NoReturn


def live(work: Callable[[], object], explain: Callable[[], object]) -> NoReturn:
    """In a child: work, and end with status 0; or explain what was raised, and end with 1.

    Whatever else ends it, by a signal for example, leaves a status of its own.
    """
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        explain()
    finally:
        os._exit(status)


def expect_well(status: int) -> None:
    """Raises: AssertionError unless a child that ended with that exit status came to its end."""
    assert status == 0, f"a forked child ended with status {status}"


def run(work: Callable[[], object], explain: Callable[[], object]) -> None:
    """Have a forked child do that, and reap it. Raises: AssertionError if it did not end well."""
    child = os.fork()
    if not child:
        live(work, explain)
    expect_well(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

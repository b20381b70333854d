"""Which process this is, among those that were forked from each other.

A pid does not tell: in a pid namespace of its own, a forked child can have its parent's. And to ask
for it is a system call, while calls ask several times each. So the answer is kept in a page of
memory that the kernel hands to no forked child but empty (`MADV_WIPEONFORK`), where it can.
"""

import itertools
import mmap
import os
import sys
from collections.abc import Callable
from functools import partial

from kvsync.errors import ForkError

_WIPE_ON_FORK = 18  # MADV_WIPEONFORK of <linux/mman.h>, since Linux 4.14; `mmap` does not name it
_NO_ADVICE = -1

_forks: list[None] = []
"""One for each fork that lies between this process and the one that imported this."""

# C alone, so that no signal's exception can skip it. And registered before the hooks of all who
# import this, so that they find it done.
os.register_at_fork(after_in_child=partial(_forks.append, None))


generation: Callable[[], int] = _forks.__len__
"""How many forks lie behind this process: none that it was forked from has had as many.

In C, for it is asked several times in each call. Only a child that was forked without Python's
hooks has its parent's: the engine refuses it everything.
"""


def _wiped_page() -> memoryview | None:
    """Numbers that are 0 in a forked child; None where the system cannot do that."""
    if sys.platform != "linux":
        return None
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_WIPE_ON_FORK)
    except OSError:
        return None
    try:
        # Emulators have been met that take any advice and follow none, as BoringSSL's
        # crypto/rand/fork_detect.c knows, from which this question is.
        page.madvise(_NO_ADVICE)
    except OSError:
        return memoryview(page).cast("Q")
    return None


def _number() -> int:
    return (generation() << 32) + os.getpid()


_askings = itertools.count(1)
_page = _wiped_page()
if _page is not None:
    # Whoever was asked in the child before its fork was counted did not know of that.
    os.register_at_fork(after_in_child=partial(_page.__setitem__, 0, 0))


def _kept_number(page: memoryview) -> int:
    return page[0] or _keep_number(page)


def _keep_number(page: memoryview) -> int:
    page[1] = mine = next(_askings)
    number = _number()
    # A child that a signal's handler forked meanwhile finds another mark, or none, and does not
    # keep its parent's. No handler runs between looking and keeping: neither is a call.
    if page[1] == mine:
        page[0] = number
    return number


asked_before: Callable[[], int] = _number if _page is None else partial(_page.__getitem__, 0)
"""The same number if it was asked for before, else 0: where the page is, in C alone."""

incarnation: Callable[[], int] = _number if _page is None else partial(_kept_number, _page)
"""A number that this process has, and none from which it was forked or that it forks.

Nor has it a child that was forked without Python's hooks; there, the pid tells.
"""

FORKED = "this process was forked in the middle of a call, which is its parent's and goes on there"


def require_own(process: int) -> None:
    """Before the next step of a call that this incarnation began, and no child of it goes on with.

    Raises: ForkError in a child that was forked in the middle of it, by a signal's handler say.
    """
    if process != asked_before() and process != incarnation():
        raise ForkError(FORKED)

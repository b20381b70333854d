"""Which process this is, among those that were forked from each other.

A pid does not tell: in a pid namespace of its own, a forked child can have its parent's.
"""

import os
from collections.abc import Callable
from functools import partial

_forks: list[None] = []
"""One for each fork that lies between this process and the one that imported this."""

# C alone, so that no signal's exception can skip it. And registered before the hooks of all who
# import this, so that they find it done.
os.register_at_fork(after_in_child=partial(_forks.append, None))


generation: Callable[[], int] = _forks.__len__
"""How many forks lie behind this process: none that it was forked from has had as many.

In C, for it is asked several times in each call, and a pid is a system call. Only a child that was
forked without Python's hooks has its parent's: the engine refuses it everything.
"""


def incarnation() -> int:
    """A number that this process has, and none from which it was forked or that it forks.

    Nor has it a child that was forked without Python's hooks; there, the pid tells.
    """
    return (generation() << 32) + os.getpid()

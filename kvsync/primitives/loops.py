"""How a `for` loop was left: all that its iterator can learn of it.

An iterator is closed, or let go, when its loop is left, and is not told why: an exception on its
way out of the loop's body is nowhere to be seen from there. But CPython lets go of it with an
instruction of its own where the loop has `break` or `return`, and while it executes the very
instruction that raised where it is left by an exception.
"""

from dis import opname
from types import FrameType

_LETS_GO = ("POP_TOP", "POP_ITER")


def was_left_on_purpose(loop: FrameType | None) -> bool:
    """Whether that frame, which has just let go of an iterator, did so by `break` or `return`.

    False where that is not known: for an iterator that was closed, or was kept after its loop.
    """
    return loop is not None and opname[loop.f_code.co_code[loop.f_lasti]] in _LETS_GO

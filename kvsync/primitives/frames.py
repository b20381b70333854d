"""What a frame is about to do with an object that it lets go of.

An object that goes is told nothing of why. But the frame that lets go of it is still in the middle
of an instruction, and which one that is tells whether it does so on purpose.
"""

import dis
import sys
from collections.abc import Callable
from operator import attrgetter
from types import CodeType, FrameType

NOTHING: Callable[[], object] = tuple
"""Called without arguments, it does nothing, and is not in Python."""

_NO_PART_OF_A_CALL = ("PRECALL", "PUSH_NULL", "EXTENDED_ARG")


class Delivery:
    """What a call hands to its caller refers to this. If the caller never has it, `undo` is called.

    A signal's exception can come as the call returns. Then the caller's frame lets go of what it
    was handed while it is still in the middle of the call; at any other moment it has had it, and
    lets go of it on purpose.

    Once it is `received` nothing runs in Python as this goes: there a signal's exception is lost.
    """

    __del__ = property(attrgetter("_gone"))  # looked up by C

    _code: CodeType | None = None  # also if a signal's exception comes before all is set

    def __init__(self, caller: FrameType | None, undo: Callable[[], object]) -> None:
        self._undo = undo
        if caller is not None:
            self._at = caller.f_lasti
            self._code = caller.f_code

    def received(self) -> None:
        """The caller has it."""
        self.__dict__["_gone"] = NOTHING  # hides the class's

    def _gone(self) -> None:
        frame = sys._getframe().f_back
        if frame is None or frame.f_code is not self._code:
            return
        if _instruction(self._code, self._at) == _instruction(self._code, frame.f_lasti):
            self._undo()


def is_ending_a_block(frame: FrameType | None) -> bool:
    """Whether that frame is calling the `__exit__` of a `with` block, or has just done so."""
    if frame is None:
        return False
    *before, last = (
        each
        for each in dis.get_instructions(frame.f_code)
        if each.offset <= frame.f_lasti and each.opname not in _NO_PART_OF_A_CALL
    )
    if last.opname.startswith("CALL"):  # without an exception it is given None three times
        given = [(each.opname, each.argval) for each in before[-3:]]
        return given == [("LOAD_CONST", None)] * 3
    return last.opname == "WITH_EXCEPT_START"


def _instruction(code: CodeType, at: int) -> int:
    """The beginning of the instruction there: where a call is under way, `at` may be its end."""
    return max(each.offset for each in dis.get_instructions(code) if each.offset <= at)

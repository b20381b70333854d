"""An exception at each point of a call in turn, as a signal's handler could raise it there.

The points are the beginning of each function and line of the primitives and of the waiting below
them; the engine has tests of its own. Where no handler can run, before a bare `try:`, is none; nor
in a generator expression, which the interpreter may be closing just then.
"""

import linecache
import os
import sys
from collections.abc import Callable, Collection, Iterator
from types import CodeType, FrameType
from typing import Any

import kvsync

_FOLDER = os.path.dirname(kvsync.__file__)
_WITHIN = (
    os.path.join(_FOLDER, "primitives", ""),
    os.path.join(_FOLDER, "waiting.py"),
    os.path.join(_FOLDER, "session.py"),
)


Trace = Callable[[FrameType, str, Any], Any]


class Interrupt(BaseException):
    """What no code expects."""


def at_each_point(
    call: Callable[[], Any], *, lines: bool = True, sparing: Collection[CodeType] = ()
) -> Iterator[int]:
    """Interrupt `call` one point later each time, until it comes to its end; yields in between.

    Without `lines` the points are the beginnings of functions alone. None is in the functions of
    `sparing` themselves, but in what they call.
    """

    def tracing(meet_point: Callable[[], None]) -> Trace:
        def trace(frame: FrameType, event: str, _: object) -> Trace | None:
            code = frame.f_code
            if not code.co_filename.startswith(_WITHIN) or code.co_name == "<genexpr>":
                return None
            if code in sparing:
                return None
            if event == "call" or (lines and event == "line" and not _is_try(frame)):
                meet_point()
            return trace

        return trace

    return _at_each(call, tracing)


def at_each_instruction(call: Callable[[], Any], code: CodeType, text: str) -> Iterator[int]:
    """Interrupt `call` before each instruction of those lines of a function that have `text`."""

    def tracing(meet_point: Callable[[], None]) -> Trace:
        def trace(frame: FrameType, event: str, _: object) -> Trace | None:
            if frame.f_code is not code:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode" and text in linecache.getline(code.co_filename, frame.f_lineno):
                meet_point()
            return trace

        return trace

    return _at_each(call, tracing)


def _at_each(
    call: Callable[[], Any], tracing: Callable[[Callable[[], None]], Trace]
) -> Iterator[int]:
    point = 0
    while _is_cut_off(call, tracing, point):
        yield point
        point += 1
    assert point, "no point was met"


def _is_cut_off(
    call: Callable[[], Any], tracing: Callable[[Callable[[], None]], Trace], point: int
) -> bool:
    left = point

    def meet_point() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Interrupt

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # CPython 3.12 traces none where nobody asked before
    sys.settrace(tracing(meet_point))
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return left < 0


def _is_try(frame: FrameType) -> bool:
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip() == "try:"

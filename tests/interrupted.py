"""An exception at each point of a call in turn, as a signal's handler could raise it there.

`at_each_point` knows the beginning of each function and line of the primitives and of the waiting
below them, each time that it is come to, which is more often than handlers run. `after_each_call`
knows where they run, in the engine too, where an exception between two lines would be a false
alarm. None comes where no handler can run, before a bare `try:`; nor in a generator expression,
which the interpreter may be closing just then; nor in a finalizer, which would swallow it.
"""

import contextlib
import gc
import linecache
import os
import sys
import warnings
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
_CALLED = (_FOLDER, contextlib.__file__)  # which kvsync's own blocks may stand on

_MOST_POINTS = 5_000
"""No call of a test has so many."""

Trace = Callable[[FrameType, str, Any], Any]


class Interrupt(BaseException):
    """What no code expects."""


def at_each_point(call: Callable[[], Any], *, sparing: Collection[CodeType] = ()) -> Iterator[int]:
    """Interrupt `call` one point later each time, until it comes to its end; yields in between.

    None is in the functions of `sparing` themselves, but in what they call.
    """

    def tracing(meet_point: Callable[[], None]) -> Trace:
        def trace(frame: FrameType, event: str, _: object) -> Trace | None:
            code = frame.f_code
            if not code.co_filename.startswith(_WITHIN) or code.co_name == "<genexpr>":
                return None
            if code in sparing or _is_in_finalizer(frame):
                return None
            if event == "call" or (event == "line" and not _is_try(frame)):
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


def after_each_call(
    call: Callable[[], Any], *, sparing: Collection[CodeType] = ()
) -> Iterator[str]:
    """Interrupt `call` wherever in kvsync, its engine and contextlib too, a signal's handler runs.

    That is the beginning of each function, and the return of each call of a C function: see "What
    signals can interrupt" in `docs/decisions.md`. Each place is interrupted once, where it is first
    come to, and yielded afterwards; none in a finalizer, where Python would swallow it. A file that
    an interrupted `open` had just opened is closed by its own finalizer, which may warn of that.
    """
    met: set[tuple[CodeType, int, str]] = set()
    place = ""

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal place
        code = frame.f_code
        here = code, frame.f_lasti, event
        if place or here in met or event not in ("call", "c_return") or code in sparing:
            return
        if not code.co_filename.startswith(_CALLED) or code.co_name == "<genexpr>":
            return
        if _is_in_finalizer(frame):
            return
        met.add(here)
        place = f"{code.co_name}, line {frame.f_lineno}: {event}"
        raise Interrupt

    while True:
        place = ""
        _call_under(profile, call)
        if not place:
            break
        yield place
    assert met, "no place was met"


def handling_within(
    files: Collection[str], call: Callable[[], Any], handler: Callable[[], Any]
) -> Iterator[str]:
    """Make the call, and `handler` once in its middle, as a signal's: one place later each time.

    The places are those of `after_each_call` in these files, each time that they are come to.
    """
    point = 0
    while place := _handled_at(point, files, call, handler):
        yield place
        point += 1
    assert point, "no place was met"


def _handled_at(
    point: int, files: Collection[str], call: Callable[[], Any], handler: Callable[[], Any]
) -> str:
    left, place = point, ""

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal left, place
        code = frame.f_code
        if place or event not in ("call", "c_return") or code.co_filename not in files:
            return
        if code.co_name == "<genexpr>" or _is_in_finalizer(frame):
            return
        left -= 1
        if left < 0:
            place = f"{code.co_name}, line {frame.f_lineno}: {event}"
            handler()

    _call_under(profile, call)
    return place


def _call_under(profile: Trace, call: Callable[[], Any]) -> None:
    before = sys.getprofile()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        sys.setprofile(profile)
        try:
            call()
        except Interrupt:
            pass
        finally:
            sys.setprofile(before)
        gc.collect()  # what the exception's frames had open is closed, and warns, here


def _is_in_finalizer(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name not in ("__del__", "_gone"):
        frame = frame.f_back
    return frame is not None


def _at_each(
    call: Callable[[], Any], tracing: Callable[[Callable[[], None]], Trace]
) -> Iterator[int]:
    point = 0
    while _is_cut_off(call, tracing, point):
        yield point
        point += 1
        assert point < _MOST_POINTS, "each interruption makes the call longer"
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

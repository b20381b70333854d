"""The public names: what they say of themselves, and that all they hand out is public too."""

import builtins
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_type_hints

import kvsync
from kvsync.testing import ManualClock
from tests.test_faulted_calls import KINDS, LEFT_OUT, MAKES, READS

PUBLIC = {name: getattr(kvsync, name) for name in kvsync.__all__} | {"ManualClock": ManualClock}

TIMES = set("busy_timeout delay interval lease per retry_delay timeout ttl visibility".split())
"""Parameters that are times."""

NOT_EXPORTED = {
    "SqliteEngine": "for primitives, as the property says that returns it",
    "Session": "for primitives, as the property says that returns it",
    "Options": "of `temporary` alone, which is called with keywords",
    "Unset": "the type of what stands for an argument that is left out",
}
"""Types in public signatures that are not public themselves, and why."""

SIDES = {"RWLock.read", "RWLock.write"}
"""Under test as the locks that they return; they themselves write nothing."""

_OF_ALL = re.compile(r"Raises:.*([Ee]very method|[Aa]ny call)", re.DOTALL)
_ERROR = re.compile(r"\b(?:[A-Z]\w*Error|AcquireTimeout|ShutDown)\b")


def _methods(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, member in inspect.getmembers_static(cls):
        found = member.fget if isinstance(member, property) else inspect.unwrap(member)
        if not name.startswith("_") and inspect.isfunction(found):
            yield name, found


def _calls() -> Iterator[tuple[str, Callable[..., Any], str]]:
    """Public functions and methods of our own, and what the class says besides."""
    for name, found in PUBLIC.items():
        if inspect.isfunction(found):
            yield name, found, ""
        elif inspect.isclass(found):
            for method, function in _methods(found):
                if function.__module__.startswith("kvsync"):
                    yield f"{name}.{method}", function, found.__doc__ or ""


def _units_are_told(function: Callable[..., Any], of_class: str) -> bool:
    times = TIMES & inspect.signature(function).parameters.keys()
    told = "seconds" in (function.__doc__ or "")
    return told or all("seconds" in of_class and f"`{time}`" in of_class for time in times)


def _classes(hint: Any) -> Iterator[type]:
    if isinstance(hint, type):
        yield hint
    for part in get_args(hint):
        yield from _classes(part)


def test_each_public_name_has_a_docstring() -> None:
    """All but plain constants."""
    classes = {name: found for name, found in PUBLIC.items() if inspect.isclass(found)}
    calls = {name: function for name, function, _ in _calls()}
    silent = [name for name, found in (classes | calls).items() if not found.__doc__]
    assert silent == []


def test_each_time_that_a_call_takes_has_its_unit() -> None:
    """In the words of the method, or of its class where that names the parameter."""
    calls = {
        name for name, function, of_class in _calls() if not _units_are_told(function, of_class)
    }
    assert sorted(calls) == []


def test_each_call_that_writes_says_what_it_raises() -> None:
    """In the words of the method, or of its class if that speaks of every method, or any call."""
    calls = {
        function.__qualname__
        for kind, cls in KINDS.items()
        for name, function in _methods(cls)
        if LEFT_OUT.get(f"{kind}.{name}".removeprefix(".")) not in (READS, MAKES)
        if not isinstance(inspect.getattr_static(cls, name), property)
        if "Raises:" not in (function.__doc__ or "") and not _OF_ALL.search(cls.__doc__ or "")
    }
    assert sorted(calls - SIDES) == []


def test_each_error_that_a_docstring_names_is_there() -> None:
    said = {name: function.__doc__ or "" for name, function, _ in _calls()}
    said |= {name: found.__doc__ or "" for name, found in PUBLIC.items() if inspect.isclass(found)}
    errors = {(name, error) for name, text in said.items() for error in _ERROR.findall(text)}
    unknown = {
        (name, error)
        for name, error in errors
        if error not in kvsync.__all__ and not hasattr(builtins, error)
    }
    assert len(errors) > 100
    assert sorted(unknown) == []


def test_what_a_public_call_takes_or_returns_is_public() -> None:
    """So that programs can annotate with it."""
    used = {
        cls.__name__
        for _, function, _ in _calls()
        for hint in get_type_hints(function, localns=PUBLIC).values()
        for cls in _classes(hint)
        if cls.__module__.startswith("kvsync")
    }
    assert sorted(used - PUBLIC.keys()) == sorted(NOT_EXPORTED)

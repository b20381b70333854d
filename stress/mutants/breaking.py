"""Breaking kvsync in this process: some words of a function, or a constant.

What is to be broken must be there, exactly once and as expected, and must be another afterwards;
else there is `Missing`. So no mutant becomes as good as kvsync, unnoticed, when kvsync changes.

A function gets other code in its place. So whoever has it, imported, wrapped or registered
somewhere, calls the broken one; a constant is replaced in each module that imported it.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import CodeType, FunctionType, ModuleType
from typing import Any

from kvsync.engine import links, sqlite, transaction


class Missing(Exception):
    """What a mutant would break is not there any more, or not as it was."""


_undo: list[Callable[[], None]] = []
_edited: dict[FunctionType, str] = {}
"""The words of functions that are broken already."""


def edit(function: Any, old: str, new: str) -> None:
    """Put other words into a function, in the place of some that are there exactly once."""
    function = _plain(function)
    lines, first = inspect.getsourcelines(function)
    source = _edited.get(function, "".join(lines))
    if source.count(old) != 1:
        raise Missing(f"{function.__qualname__} has {source.count(old)} times: {old}")
    source = source.replace(old, new)
    module = sys.modules[function.__module__]
    whole = inspect.getsource(module).splitlines(keepends=True)
    whole[first - 1 : first - 1 + len(lines)] = source
    code = compile("".join(whole), inspect.getfile(module), "exec", dont_inherit=True)
    _replace_code(function, _found(code, function.__qualname__))
    _edited[function] = source


def _plain(function: Any) -> FunctionType:
    """Of a property, a method or a context manager the function behind it."""
    if isinstance(function, property):
        function = function.fget
    function = inspect.unwrap(function)
    if not isinstance(function, FunctionType):
        raise Missing(f"{function} is no function")
    return function


def _found(code: CodeType, name: str) -> CodeType:
    found = [each for each in _codes(code) if each.co_qualname == name]
    if len(found) != 1:
        raise Missing(f"there are {len(found)} functions {name}")
    return found[0]


def _codes(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each
            yield from _codes(each)


def _replace_code(function: FunctionType, code: CodeType) -> None:
    before = function.__code__
    if _meaning(before) == _meaning(code):
        raise Missing(f"{function.__qualname__} is the same as before")
    _set_code(function, code)
    _undo.append(partial(_set_code, function, before))


def _meaning(code: CodeType) -> tuple[Any, ...]:
    inner = [_meaning(each) if isinstance(each, CodeType) else each for each in code.co_consts]
    return code.co_code, code.co_names, inner


def _set_code(function: FunctionType, code: CodeType) -> None:
    """Those who know functions by their code, on the stack, know the new one too."""
    before = function.__code__
    if before in links._CALLS:
        links._CALLS.add(code)
    for module, name in ((sqlite, "_GATED"), (transaction, "_ENDS")):
        if before in (known := vars(module)[name]):
            setattr(module, name, known | {code})
    function.__code__ = code


def edit_text(module: ModuleType, name: str, old: str, new: str) -> None:
    """Put other words into a text of a module, such as SQL, wherever the old ones are in it."""
    text = _constant(module, name)
    if old not in text:
        raise Missing(f"{module.__name__}.{name} has not: {old}")
    put(module, name, text.replace(old, new))


def put(module: ModuleType, name: str, value: Any) -> None:
    """Give a constant another value, for all modules of kvsync that have it."""
    before = _constant(module, name)
    if value == before:
        raise Missing(f"{module.__name__}.{name} is {value!r} anyway")
    for each in _modules():
        if vars(each).get(name) is before:
            setattr(each, name, value)
            _undo.append(partial(setattr, each, name, before))


def put_item(mapping: dict[str, Any], key: str, value: Any) -> None:
    """Give an entry of a table another value."""
    if key not in mapping or mapping[key] == value:
        raise Missing(f"there is no {key!r}, or it is {value!r} anyway")
    _undo.append(partial(mapping.__setitem__, key, mapping[key]))
    mapping[key] = value


def _constant(module: ModuleType, name: str) -> Any:
    with suppress(KeyError):
        return vars(module)[name]
    raise Missing(f"{module.__name__} has no {name}")


def _modules() -> list[ModuleType]:
    return [each for name, each in sys.modules.items() if name.split(".")[0] == "kvsync"]


@contextmanager
def undone() -> Iterator[list[Callable[[], None]]]:
    """What is broken in the block is mended at its end; meanwhile, what there is to mend."""
    try:
        yield _undo
    finally:
        while _undo:
            _undo.pop()()
        _edited.clear()

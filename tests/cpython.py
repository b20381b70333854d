"""CPython's own tests of what we have in common with it."""

import functools
import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

Differences = Mapping[str, pytest.MarkDecorator]
"""The tests that do not apply, by name."""


def own_tests(name: str) -> Any:
    """That module of the `test` package, which is not installed with every Python.

    Where it is missing, the module that asks for it is skipped. In CI it is an error: nobody reads
    there what was skipped. Raises: ImportError.
    """
    if os.environ.get("CI"):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"SKIPPED: this Python came without {name}")


def differs(why: str) -> pytest.MarkDecorator:
    """Of a test that kvsync is not to pass. It is run, and must not."""
    return pytest.mark.xfail(reason=why, strict=True)


def left_out(why: str) -> pytest.MarkDecorator:
    """Of a test whose outcome would say nothing of kvsync."""
    return pytest.mark.skip(reason=why)


def parameters(tests: Iterable[str], differences: Differences) -> list[Any]:
    """Of a test that runs each of these."""
    return [pytest.param(test, marks=differences.get(test, ())) for test in tests]


def marked(suite: type, differences: Differences) -> dict[str, Callable[[Any], None]]:
    """The methods of a suite that do not apply, for a class that is made of it."""
    found = {name: getattr(suite, name) for name in differences if hasattr(suite, name)}
    return {name: differences[name](_copy(method)) for name, method in found.items()}


def _copy(method: Callable[[Any], None]) -> Callable[[Any], None]:
    """A mark of its own, beside that of another class."""

    @functools.wraps(method)
    def copy(case: Any) -> None:
        method(case)

    return copy

"""CPython's own tests of what we have in common with it."""

import importlib
import os
from typing import Any

import pytest


def own_tests(name: str) -> Any:
    """That module of the `test` package, which is not installed with every Python.

    Where it is missing, the module that asks for it is skipped. In CI it is an error: nobody reads
    there what was skipped. Raises: ImportError.
    """
    if os.environ.get("CI"):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"SKIPPED: this Python came without {name}")

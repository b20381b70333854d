"""Programs of the suite, as others of their own: with the code that runs here, wherever that lies.

A wheel has the suite in a folder that only `kvsync stress` knows; and what the current folder has
by the name of one of our packages is not ours.
"""

import os
import sys


def command(module: str, *arguments: str) -> list[str]:
    """What starts it, in an `environment`."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Ours, from which it finds what we have found."""
    places = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return os.environ | {"PYTHONPATH": places}

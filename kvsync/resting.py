"""Names that were used once, and rest: when they may be forgotten, and where to look for some."""

import secrets

REST = 30.0
"""Seconds without use after which a name may go: to come again costs it a detour."""


def near(name: str) -> str:
    """What some names come behind that begin as `name` does; how far alike is left to chance.

    Of names that begin or end in a number, or in an address, these are mostly old ones.
    """
    return name[: secrets.randbelow(len(name) + 1)]

"""Statements as SQLite's driver runs them soonest: with `?1`, and their values in that order.

The driver looks for the value of each parameter that has a name by that name, anew in each call.
They are kvsync's own: text in single quotes, names in double ones, comments from "--" on.
"""

import re
import sys
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from kvsync.engine import Params

_QUOTED_OR_PARAMETER = re.compile(r"""'[^']*'|"[^"]*"|--[^\n]*|:(\w+)""")
_MAY_NUMBER = not (3, 12) <= sys.version_info < (3, 12, 4)
"""Whether a value that is used again need not be bound again: as `?1`, which these versions take
for a name (python/cpython#117995)."""

_MOST = 1000
"""Statements that are remembered; those made up for one call could go on for ever."""

Shape = tuple[type, ...]


class Statement:
    """What is known of one text of SQL.

    Attributes:
        text: the same with `?1` for a parameter, or `?` where it may not be numbered.
        values: what to bind to these, of a mapping by names. Raises: KeyError.
        shapes: the types of the columns of rows that were found right.
    """

    __slots__ = ("shapes", "text", "values")

    def __init__(self, sql: str) -> None:
        names: list[str] = []

        def place(found: re.Match[str]) -> str:
            if found[1] is None:
                return found[0]
            if not _MAY_NUMBER:
                names.append(found[1])
                return "?"
            if found[1] not in names:
                names.append(found[1])
            return f"?{names.index(found[1]) + 1}"

        self.text = _QUOTED_OR_PARAMETER.sub(place, sql)
        self.values = _picker(names)
        self.shapes: set[Shape] = set()


def _picker(names: list[str]) -> Callable[[Params], tuple[Any, ...]]:
    match names:
        case []:
            return lambda _: ()
        case [name]:
            return lambda params: (params[name],)
    return itemgetter(*names)


class _Statements(dict[str, Statement]):
    def __missing__(self, sql: str) -> Statement:
        if len(self) >= _MOST:
            self.clear()
        return self.setdefault(sql, Statement(sql))


statements = _Statements()
"""By their SQL, with names."""

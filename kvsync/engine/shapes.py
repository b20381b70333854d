"""Rows of the types that kvsync writes: whatever else is found was written by somebody else.

SQLite lets any column hold values of any type, and what is made of a row relies on these. Which
they are is known by the names of the columns, the same in all tables that have them; an expression
goes by the column that it picks from, as in `max(epoch)`, or by the one after which it is named.
"""

import errno
import re
import sqlite3
from collections.abc import Iterable

from kvsync.engine import Row
from kvsync.engine.schema import TABLES
from kvsync.engine.statements import Shape, Statement
from kvsync.errors import CorruptError

_TYPES: dict[str, set[type]] = {
    "text": {str},
    "integer": {int},
    "bigint": {int},
    "real": {float, int},
    "blob": {bytes, str},
}
_COLUMN = re.compile(r"^    (\w+) (text|integer|bigint|real|blob)\b", re.MULTILINE)
_PICKED = re.compile(r"(?:(?:coalesce|min|max)\()*(\w+)")


def require_shapes(
    statement: Statement, cursor: sqlite3.Cursor, rows: Iterable[Row], path: str
) -> None:
    """Raises: CorruptError for a row that kvsync cannot have written."""
    known = statement.shapes
    for row in rows:
        if (shape := tuple(map(type, row))) not in known:
            _look(cursor, statement.text, shape, path)
            known.add(shape)


def _look(cursor: sqlite3.Cursor, sql: str, shape: Shape, path: str) -> None:
    if "kvsync_" not in sql:
        return
    for (name, *_), found in zip(cursor.description, shape, strict=True):
        picked = _PICKED.match(name)
        if picked and found not in _allowed.get(picked[1], (found,)):
            raise CorruptError(
                errno.EUCLEAN, f"{path} is damaged: a column {name!r} holds a {found.__name__}"
            )


def _declared() -> dict[str, set[type]]:
    allowed: dict[str, set[type]] = {}
    for name, kind in _COLUMN.findall(TABLES):
        types = allowed.setdefault(name, {type(None)})  # an outer join has it anywhere
        types |= _TYPES[kind]
    return allowed


_allowed = _declared()

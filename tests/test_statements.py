"""Statements with names are run with `?1`; what they mean, and do not hold, is the same."""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from kvsync.engine.statements import Statement, statements


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        yield connection


@pytest.mark.parametrize(
    "sql",
    [
        "select 1",
        "select :only",
        "select :a, :b",
        "select :b, :a, :b, :a_b, :a",
        "select ':a', ':b', :b",
        "select 'it''s :a', :b, 'x' || ':b'",
        'select 1 as ":a", :b',
        "select :a -- and :b, or 'as it is\n, :b",
        "select :a+:b, -:a, (:a)",
    ],
)
def test_a_statement_by_places_does_what_it_does_by_names(
    connection: sqlite3.Connection, sql: str
) -> None:
    row = {"a": 1, "b": 2, "a_b": 3, "only": 4, "more": 5}
    statement = Statement(sql)
    by_name = connection.execute(sql, row).fetchall()
    assert connection.execute(statement.text, statement.values(row)).fetchall() == by_name


def test_a_value_that_is_used_again_is_bound_once_where_it_may_be() -> None:
    """Where it may not, the driver warns; and warnings are errors here."""
    statement = Statement("select :a, :b, :a")
    may = not (3, 12) <= sys.version_info < (3, 12, 4)
    expected = ("select ?1, ?2, ?1", (1, 2)) if may else ("select ?, ?, ?", (1, 2, 1))
    assert (statement.text, statement.values({"a": 1, "b": 2})) == expected


def test_a_value_that_is_missing_is_named() -> None:
    for sql in ("select :a", "select :a, :b"):
        with pytest.raises(KeyError, match="a"):
            Statement(sql).values({"b": 1})


def test_statements_are_remembered_but_not_without_end() -> None:
    first = statements["select 0"]
    assert statements["select 0"] is first
    for number in range(3000):
        assert statements[f"select {number}"].text == f"select {number}"
        assert len(statements) <= 1000

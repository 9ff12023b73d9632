"""Queries of users: one SELECT each, in a transaction that cannot write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import duckdb

from ikv_backends._duckdb_database import DuckdbDatabase
from ikv_backends._duckdb_errors import first_line
from ikvcore.errors import QueryError

__all__ = ["run_query"]


_NOT_ITS_OWN: Final = (
    duckdb.IOException,
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.SerializationException,
    duckdb.InterruptException,  # somebody closes the file
)
"""Errors that say nothing of a query."""


def run_query(database: DuckdbDatabase, sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> Any:
    """A pyarrow Table. Raises QueryError, StorageError."""
    statement, given = _only_select(sql), _as_given(sql, parameters)
    with database.querying() as cursor:
        try:
            relation = cursor.sql(statement, params=given)
            return relation.to_arrow_table()
        except _NOT_ITS_OWN:
            raise
        except duckdb.Error as exc:
            raise QueryError(sql, first_line(exc)) from exc


def _only_select(sql: object) -> duckdb.Statement:
    if not isinstance(sql, str):
        raise QueryError(sql, f"a query is a str, not {type(sql).__name__}")
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as exc:
        raise QueryError(sql, first_line(exc)) from exc
    if len(statements) != 1:
        raise QueryError(sql, f"it holds {len(statements)} statements; give one SELECT a call")
    (statement,) = statements
    if statement.type != duckdb.StatementType.SELECT:
        raise QueryError(sql, f"it is no SELECT but {statement.type.name}; documents are changed through a writer only")
    return statement


def _as_given(sql: str, parameters: object) -> dict[str, Any] | list[Any]:
    if isinstance(parameters, Mapping):
        return dict(parameters)
    if isinstance(parameters, Sequence) and not isinstance(parameters, str | bytes):  # whose letters would be values
        return list(parameters)
    raise QueryError(sql, f"its parameters are a sequence or a mapping of values, not {type(parameters).__name__}")

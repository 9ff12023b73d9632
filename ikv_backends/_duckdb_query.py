"""Queries of users: one SELECT each, in a transaction that cannot write."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import duckdb

from ikv_backends._duckdb_database import Connection, DuckdbDatabase
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
_WITH_EFFECTS: Final = frozenset(
    {
        "checkpoint",
        "deregister_external_resource",
        "force_checkpoint",
        "register_external_resource",
        "register_external_resource_type",
        "truncate_duckdb_logs",
        "write_log",
    }
)
"""Functions that change something although the transaction cannot write; DuckDB has no list of them."""
_OF_TEXT: Final = frozenset(
    {"create_external_resource", "destroy_external_resource", "json_execute_serialized_sql", "query"}
)
"""Functions that carry out what a text says, or the function that it names, which may be put together there."""
_CALLED: Final = re.compile(r'"function_name":"(\w+)"')


def run_query(database: DuckdbDatabase, sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> Any:
    """A pyarrow Table. Raises QueryError, StorageError."""
    statement, given = _only_select(sql), _as_given(sql, parameters)
    with database.querying() as cursor:
        try:
            _only_reading(sql, cursor)
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


def _only_reading(sql: str, cursor: Connection) -> None:
    """Raises QueryError for functions that do more than read."""
    ((tree,),) = cursor.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    if not tree.startswith('{"error":false'):
        raise QueryError(sql, "DuckDB does not tell which functions it calls")
    # Not taken apart, since trees may be deeper than Python goes. A string of the query has its quotes escaped there.
    called = {name.lower() for name in _CALLED.findall(tree)}
    for name in called & (_WITH_EFFECTS | _OF_TEXT):
        raise QueryError(sql, f"a query has no use of the function {name}")


def _as_given(sql: str, parameters: object) -> dict[str, Any] | list[Any]:
    if isinstance(parameters, Mapping):
        return dict(parameters)
    if isinstance(parameters, Sequence) and not isinstance(parameters, str | bytes):  # whose letters would be values
        return list(parameters)
    raise QueryError(sql, f"its parameters are a sequence or a mapping of values, not {type(parameters).__name__}")

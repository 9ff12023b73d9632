"""DuckDB as the reader of files and tables: in bounded memory, and with nothing but the named files in reach."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias

import duckdb

__all__ = ["Connection", "only_these", "opened", "quoted", "reason", "text"]

Connection: TypeAlias = duckdb.DuckDBPyConnection

_MEMORY: Final = "128MB"
"""Of DuckDB's buffers. What does not fit, such as the sort of a window in `select`, goes to a temporary directory."""


@contextmanager
def opened() -> Iterator[Connection]:
    """A connection of its own, closed and its temporary files removed at the end."""
    with tempfile.TemporaryDirectory(prefix="ikv-load-") as spill:
        connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": _MEMORY,
                # One thread reads faster than documents are published; each more needs buffers of its own.
                "threads": 1,
                "temp_directory": spill,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "allow_community_extensions": False,
                # A cast to text is else carried out by the CSV reader, which gives the file's text and not the value's.
                "disabled_optimizers": "type_pushdown",
            },
        )
        try:
            # Progress is followed, so that it can be asked for, and not shown.
            connection.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        finally:
            connection.close()


def only_these(connection: Connection, files: Sequence[str]) -> None:
    """From now on expressions reach these files alone: no others, no variables of this program, and no settings."""
    connection.execute(f"SET allowed_paths = [{', '.join(map(text, files))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text in SQL."""
    return "'" + value.replace("'", "''") + "'"


def reason(error: BaseException) -> str:
    """The first lines of DuckDB's message; the others tell of options that are not ours."""
    lines = [line.strip()[:300] for line in str(error).splitlines() if line.strip()]
    if lines and "Out of Memory" in lines[0]:
        return f"its rows are too large for the {_MEMORY} of memory that reading is given; select fewer columns"
    # Of a line in a CSV file: where, what it holds, what is wrong with it.
    return "; ".join(lines[: 3 if "CSV Error" in str(error) else 2])

"""Whether all that was committed is still there: DuckDB checks its blocks where they are read, and counts are ours."""

from __future__ import annotations

import duckdb

from ikv_backends._duckdb_columns import Columns
from ikv_backends._duckdb_database import Connection
from ikv_backends._duckdb_errors import first_line, is_damage
from ikv_backends._duckdb_ledger import read_counts

__all__ = ["wrong_in"]

_COUNTS = "SELECT p, count(*), (sum(h::HUGEINT) % 18446744073709551616)::UBIGINT FROM ikv.rows GROUP BY p"
_TWICE = "SELECT p, k, count(*) FROM ikv.rows GROUP BY p, k HAVING count(*) > 1 ORDER BY p, k LIMIT 10"
_PAGE = 2_000
"""As many as DuckDB looks up in the index; for more it would read the table."""
_EVERYTHING = "SELECT bit_xor(hash(stored)) FROM ikv.rows AS stored"


def wrong_in(cursor: Connection, columns: Columns) -> list[str]:
    """One sentence for each thing that is wrong in the state that the transaction sees."""
    try:
        wrong = _columns(cursor, columns) + _counts(cursor) + _twice(cursor) + _hidden(cursor)
        cursor.execute(_EVERYTHING).fetchall()  # no value goes unread, so no block goes unchecked
    except duckdb.Error as exc:
        if not is_damage(exc):
            raise
        return [first_line(exc)]
    return wrong


def _columns(cursor: Connection, columns: Columns) -> list[str]:
    cursor.execute("SELECT name FROM pragma_table_info('ikv.rows') WHERE name LIKE 'c%'")
    found, wanted = {name for (name,) in cursor.fetchall()}, {column.sql for column in columns}
    return [] if found == wanted else [f"the table has columns {sorted(found)}, its list says {sorted(wanted)}"]


def _counts(cursor: Connection) -> list[str]:
    found = {partition: (count, total) for partition, count, total in cursor.execute(_COUNTS).fetchall()}
    stated = read_counts(cursor)
    wrong = []
    for partition in sorted(found.keys() | stated.keys()):
        ours, theirs = found.get(partition, (0, 0)), stated.get(partition, (0, 0))
        if ours != theirs:
            wrong.append(
                f"partition {partition} holds {ours[0]} documents with digest {ours[1]:016x}, its commits say "
                f"{theirs[0]} with {theirs[1]:016x}"
            )
    return wrong


def _hidden(cursor: Connection) -> list[str]:
    """Whether the index leads to every document: reads go by it, and its blocks are checked only where it is asked."""
    last, stored, found = -1, 0, 0
    while True:
        cursor.execute("SELECT born, h FROM ikv.rows WHERE born > ? ORDER BY born LIMIT ?", [last, _PAGE])
        page = cursor.fetchall()
        if not page:
            break
        last, stored = page[-1][0], stored + len(page)
        # By the hash alone, as reads do: with more conditions DuckDB reads the table.
        among = ", ".join(str(hashed) for _, hashed in page)
        cursor.execute(f"SELECT count(*) FROM ikv.rows WHERE h IN ({among})")
        found += min(len(page), cursor.fetchall()[0][0])
    return [f"the index finds {found} of {stored} documents"] if found != stored else []


def _twice(cursor: Connection) -> list[str]:
    return [
        f"partition {partition} holds the document of key {key[:32]!r} {count} times"
        for partition, key, count in cursor.execute(_TWICE).fetchall()
    ]

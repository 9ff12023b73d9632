"""One commit's documents: those that it names are read, changed as plain dicts, and written again, in few statements.

A statement costs DuckDB the same for one row as for thousands, so a batch is staged as Arrow tables. A drop or a clear
is one statement over its partition, for the documents that the batch does not name; those that it names are changed
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from ikv_backends._duckdb_columns import Column, Columns, encoder
from ikv_backends._duckdb_database import Connection
from ikv_backends._duckdb_document import Document, Place, is_dropped
from ikv_backends._duckdb_rest import pack_rest, unpack_rest
from ikvcore.fields import FIXED_WIDTHS, FieldType
from ikvcore.models import Clear, DeleteDocument, DeleteFields, DropFields, Mutation, Upsert

__all__ = ["DocumentBatch"]

_FEW: Final = 256
"""Up to so many rows are named in the statement, and found by the index; more are joined with."""
_PAGE: Final = 10_000
_ARROW_TYPES: Final = {
    FieldType.INT32: pa.int32(),
    FieldType.INT64: pa.int64(),
    FieldType.FLOAT32: pa.float32(),
    FieldType.FLOAT64: pa.float64(),
    FieldType.STRING: pa.large_string(),
    FieldType.BYTES: pa.large_binary(),
}


class DocumentBatch:
    """The mutations of one commit. `columns` is a draft, to which new fields are added.

    added: by partition, how many documents there are more and by how much the sum of their keys' hashes grew; for a
    partition in `cleared`, how many there are and their sum.
    """

    def __init__(self, cursor: Connection, columns: Columns, mutations: Sequence[Mutation]) -> None:
        self._cursor = cursor
        self._columns = columns
        self._stored_columns = list(columns)
        self._documents: dict[Place, Document] = {}
        self._drops: list[DropFields] = []
        self.cleared: set[int] = set()
        self._read(mutations)
        for mutation in mutations:
            self._apply(mutation)
        self.added = self._added()

    @property
    def new(self) -> int:
        """How many documents need a number of their own."""
        return sum(1 for document in self._documents.values() if document.exists and document.born is None)

    def write(self, next_number: int) -> None:
        """Change the tables; new documents are numbered from `next_number` on."""
        stale = [doc.row for doc in self._documents.values() if doc.changed and doc.row is not None]
        self.rewritten = len(stale)
        self._delete(stale)
        for partition in self.cleared:
            self._cursor.execute("DELETE FROM ikv.rows WHERE p = ?", [partition])
        for drop in self._drops:
            self._drop(drop)
        self._add_columns()
        self._insert([doc for doc in self._documents.values() if doc.changed and doc.exists], next_number)

    # -- what was ------------------------------------------------------------------------------

    def _read(self, mutations: Sequence[Mutation]) -> None:
        for mutation in mutations:
            if not isinstance(mutation, (DropFields, Clear)):
                place = mutation.partition, mutation.key
                if place not in self._documents:
                    self._documents[place] = Document(place)
        if not self._documents:
            return
        selected = ", ".join(["rowid", "p", "k", "born", "rest", *(column.sql for column in self._stored_columns)])
        hashes = sorted({document.hash for document in self._documents.values()})
        condition = self._among("h", hashes, pa.uint64())
        self._cursor.execute(f"SELECT {selected} FROM ikv.rows WHERE {condition}")
        encoders = [encoder(column.type) for column in self._stored_columns]
        for row, partition, key, born, rest, *cells in self._cursor.fetchall():
            document = self._documents.get((partition, key))
            if document is not None:  # else it only shares another's hash
                encoded = {
                    position: encode(cell)
                    for position, (encode, cell) in enumerate(zip(encoders, cells, strict=True))
                    if cell is not None
                }
                document.stored_as(row, born, rest, encoded)

    def _among(self, column: str, values: list[int], arrow_type: pa.DataType) -> str:
        """A condition that `column` is one of the values."""
        if len(values) <= _FEW:
            return f"{column} IN ({', '.join(map(str, values))})"
        self._cursor.register("ikv_wanted", pa.table({"value": pa.array(values, arrow_type)}))
        return f"{column} IN (SELECT value FROM ikv_wanted)"

    # -- what becomes of it --------------------------------------------------------------------

    def _apply(self, mutation: Mutation) -> None:
        if isinstance(mutation, Upsert):
            self._documents[mutation.partition, mutation.key].upsert(mutation.fields.items(), self._columns)
        elif isinstance(mutation, DeleteFields):
            self._documents[mutation.partition, mutation.key].delete_fields(mutation.names, self._columns)
        elif isinstance(mutation, DeleteDocument):
            self._documents[mutation.partition, mutation.key].remove()
        elif isinstance(mutation, DropFields):
            for document in self._of(mutation.partition):
                document.drop(mutation, self._columns)
            if mutation.partition not in self.cleared:
                self._drops.append(mutation)
        else:
            for document in self._of(mutation.partition):
                document.remove()
            self.cleared.add(mutation.partition)
            self._drops = [drop for drop in self._drops if drop.partition != mutation.partition]

    def _of(self, partition: int) -> list[Document]:
        return [document for document in self._documents.values() if document.place[0] == partition]

    def _added(self) -> dict[int, tuple[int, int]]:
        added = dict.fromkeys(self.cleared, (0, 0))
        for document in self._documents.values():
            partition = document.place[0]
            before = document.row is not None and partition not in self.cleared
            if document.exists != before:
                sign = 1 if document.exists else -1
                count, total = added.get(partition, (0, 0))
                added[partition] = count + sign, total + sign * document.hash
        return added

    # -- statements ----------------------------------------------------------------------------

    def _delete(self, rows: list[int]) -> None:
        if rows:
            self._cursor.execute(f"DELETE FROM ikv.rows WHERE {self._among('rowid', rows, pa.int64())}")

    def _drop(self, drop: DropFields) -> None:
        dropped = [column for column in self._stored_columns if is_dropped(drop, column.name)]
        if dropped:
            changes = ", ".join(f"{column.sql} = NULL" for column in dropped)
            filled = " OR ".join(f"{column.sql} IS NOT NULL" for column in dropped)
            self._cursor.execute(f"UPDATE ikv.rows SET {changes} WHERE p = ? AND ({filled})", [drop.partition])
        self._drop_from_rest(drop)

    def _drop_from_rest(self, drop: DropFields) -> None:
        """Page by page, since the fields without a column are taken apart here."""
        last = -1
        while True:
            self._cursor.execute(
                "SELECT born, rest FROM ikv.rows WHERE p = ? AND rest IS NOT NULL AND born > ? ORDER BY born LIMIT ?",
                [drop.partition, last, _PAGE],
            )
            page = self._cursor.fetchall()
            changed: dict[int, bytes | None] = {}
            for born, packed in page:
                fields = unpack_rest(packed)
                kept = {name: field for name, field in fields.items() if not is_dropped(drop, name)}
                if len(kept) < len(fields):
                    changed[born] = pack_rest(kept)
            self._update_rest(changed)
            if len(page) < _PAGE:
                return
            last = page[-1][0]

    def _update_rest(self, changed: dict[int, bytes | None]) -> None:
        if changed:
            born, rest = pa.array(changed.keys(), pa.int64()), pa.array(changed.values(), pa.large_binary())
            self._cursor.register("ikv_kept", pa.table({"born": born, "rest": rest}))
            self._cursor.execute("UPDATE ikv.rows SET rest = kept.rest FROM ikv_kept kept WHERE rows.born = kept.born")

    def _add_columns(self) -> None:
        added = self._columns.all[len(self._stored_columns) :]
        for column in added:
            self._cursor.execute(f"ALTER TABLE ikv.rows ADD COLUMN {column.sql} {column.sql_type}")
        if added:
            rows = [(column.position, column.name, int(column.type)) for column in added]
            self._cursor.executemany("INSERT INTO ikv.columns VALUES (?, ?, ?)", rows)
            self._cursor.execute(self._columns.view())

    def _insert(self, documents: list[Document], next_number: int) -> None:
        if not documents:
            return
        staged = {
            "p": pa.array([document.place[0] for document in documents], pa.uint16()),
            "k": pa.array([document.place[1] for document in documents], pa.large_binary()),
            "h": pa.array([document.hash for document in documents], pa.uint64()),
            "born": pa.array(_numbers(documents, next_number), pa.int64()),
        }
        if any(document.rest for document in documents):
            staged["rest"] = pa.array([pack_rest(document.rest) for document in documents], pa.large_binary())
        for position in sorted(set().union(*(document.cells for document in documents))):
            column: Column = self._columns.all[position]
            cells = [document.cells.get(position) for document in documents]
            staged[column.sql] = _as_array(column.type, cells)
        names = ", ".join(staged)
        self._cursor.register("ikv_staged", pa.table(staged))
        self._cursor.execute(f"INSERT INTO ikv.rows ({names}) SELECT {names} FROM ikv_staged")


def _as_array(field_type: FieldType, cells: list[bytes | None]) -> pa.Array:
    """Values in the wire encoding as an Arrow array: they only have to be laid side by side."""
    if field_type is FieldType.BOOLEAN:
        return pa.array([None if cell is None else cell != b"\x00" for cell in cells], pa.bool_())
    width = FIXED_WIDTHS.get(field_type)
    laid = pa.array(cells, pa.large_binary() if width is None else pa.binary(width))
    return pa.Array.from_buffers(_ARROW_TYPES[field_type], len(laid), laid.buffers())


def _numbers(documents: Sequence[Document], next_number: int) -> list[int]:
    numbers = []
    for document in documents:
        if document.born is None:
            document.born, next_number = next_number, next_number + 1
        numbers.append(document.born)
    return numbers

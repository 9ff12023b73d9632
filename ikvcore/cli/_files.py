"""Writing documents to a file in some format, in bounded memory. Parquet and CSV are pyarrow's, of the extra `load`."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from ikvcore.cli._cells import plain_text
from ikvcore.cli._columns import Columns
from ikvcore.errors import IKVError, MissingExtraError
from ikvcore.fields import FieldType, Value
from ikvcore.models import Row

__all__ = ["Chunks", "new_file", "require_pyarrow", "write_csv", "write_parquet"]

Chunks = Iterable[Any]
"""pyarrow's record batches."""

_CELLS: Final = 1_000_000
_ROWS: Final = 65_536
_BYTES: Final = 32 * 1024 * 1024
"""What is held at most before it is written as one group of rows, whichever is reached first."""


class _Writer(Protocol):
    def write_batch(self, batch: Any) -> None: ...
    def close(self) -> None: ...


def require_pyarrow() -> None:
    """Raise MissingExtraError where it is not installed."""
    try:
        import pyarrow  # noqa: F401 - to know that it is there
    except ImportError as exc:
        raise MissingExtraError("exporting Parquet or CSV, unlike .jsonl,", "load", exc.name) from exc


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written, which takes its name only when all of it is on the disk; no trace of it after an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_parquet(out: BinaryIO, rows: Iterable[Row], columns: Columns) -> int:
    """Write rows; how many there were."""
    from pyarrow import parquet

    schema = _schema(columns, binary_as_text=False)
    return _write(parquet.ParquetWriter(out, schema, compression="zstd"), schema, rows, columns, {})


def write_csv(out: BinaryIO, rows: Iterable[Row], columns: Columns) -> int:
    """Write rows as CSV in UTF-8: what is absent is an empty cell, strings are quoted, bytes are in base64."""
    from pyarrow import csv

    schema = _schema(columns, binary_as_text=True)
    in_base64 = {name: _base64 for name, field_type in columns.items() if field_type is FieldType.BYTES}
    return _write(csv.CSVWriter(out, schema), schema, rows, columns, in_base64)


def _write(
    writer: _Writer,
    schema: Any,
    rows: Iterable[Row],
    columns: Columns,
    converters: Mapping[str, Callable[[Any, FieldType], Value]],
) -> int:
    as_text = {name: plain_text for name, field_type in columns.items() if field_type is None}
    count = 0
    try:
        for chunk in _chunks(rows, columns, {**as_text, **converters}):
            writer.write_batch(_record_batch(chunk, schema))
            count += len(chunk[schema.names[0]])
    finally:
        writer.close()
    return count


def _chunks(
    rows: Iterable[Row], columns: Columns, converters: Mapping[str, Callable[[Any, FieldType], Value]]
) -> Iterator[dict[str, list[Value | None]]]:
    """The rows as columns, many rows at a time."""
    most = max(1, min(_ROWS, _CELLS // len(columns)))
    chunk: dict[str, list[Value | None]] = {name: [] for name in columns}
    count = size = 0
    for names, types, values in rows:
        for name, field_type, value in zip(names, types, values, strict=True):
            if field_type is None or value is None:
                continue
            if field_type is not columns.get(name, field_type) or name not in columns:
                _check(name, field_type, columns)
            column = chunk[name]
            if len(column) < count:
                column.extend([None] * (count - len(column)))
            column.append(converters[name](value, field_type) if name in converters else value)
            if isinstance(value, (str, bytes)):
                size += len(value)
        count += 1
        if count >= most or size >= _BYTES:
            yield _filled(chunk, count)
            chunk = {name: [] for name in columns}
            count = size = 0
    if count:
        yield _filled(chunk, count)


def _filled(chunk: dict[str, list[Value | None]], count: int) -> dict[str, list[Value | None]]:
    for column in chunk.values():
        column.extend([None] * (count - len(column)))
    return chunk


def _check(name: str, field_type: FieldType, columns: Columns) -> None:
    """Refuse a value that the columns, which an earlier scan decided, have no place for."""
    widened = {(FieldType.INT64, FieldType.INT32), (FieldType.FLOAT64, FieldType.FLOAT32)}
    if name in columns and (columns[name] is None or (columns[name], field_type) in widened):
        return
    raise IKVError(
        f"field {name!r} came to be {field_type.name} while the store was exported, and the columns were decided "
        "before; nothing was written, run the export again"
    )


def _record_batch(chunk: Mapping[str, list[Value | None]], schema: Any) -> Any:
    import pyarrow as pa

    arrays = [pa.array(chunk[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _schema(columns: Columns, *, binary_as_text: bool) -> Any:
    import pyarrow as pa

    arrow = {
        FieldType.INT32: pa.int32(),
        FieldType.INT64: pa.int64(),
        FieldType.FLOAT32: pa.float32(),
        FieldType.FLOAT64: pa.float64(),
        FieldType.STRING: pa.string(),
        FieldType.BYTES: pa.string() if binary_as_text else pa.binary(),
        FieldType.BOOLEAN: pa.bool_(),
        None: pa.string(),
    }
    return pa.schema([(name, arrow[field_type]) for name, field_type in columns.items()])


def _base64(value: bytes, _: FieldType) -> str:
    return base64.b64encode(value).decode()

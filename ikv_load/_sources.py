"""What can be loaded: files of three formats, and tables in memory. Each becomes queries for DuckDB."""

# ruff: noqa: S608 - SQL is made here, of quoted names and of what the caller may ask for

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from ikv_load._csv import csv_parts
from ikv_load._engine import Connection, only_these
from ikv_load._json import json_parts
from ikv_load._names import refuse_twins
from ikv_load._part import Part, parquet_parts
from ikvcore.errors import InvalidArgumentError, near_miss

__all__ = ["FORMATS", "Reading", "open_source"]

FORMATS: Final = ("csv", "parquet", "jsonl")
_BY_ENDING: Final = {
    "csv": "csv",
    "tsv": "csv",
    "parquet": "parquet",
    "pq": "parquet",
    "json": "jsonl",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
}
_COMPRESSED: Final = {"gz", "zst"}
_TABLE: Final = "given_table"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files are to be read."""

    format: str | None
    null: Sequence[str]
    as_text: Iterable[str]
    """Columns of which the file's own text is wanted, since they will be cast."""
    keys: Iterable[str]
    """Columns that give keys, where there are such."""


def open_source(connection: Connection, source: object, reading: Reading) -> list[Part]:
    """The parts of a source, in order. Raises InvalidArgumentError."""
    if reading.format is not None and reading.format not in FORMATS:
        raise InvalidArgumentError(
            f"format cannot be {reading.format!r}{near_miss(str(reading.format), FORMATS)}; use one of "
            f"{', '.join(FORMATS)}"
        )
    files = _files(source)
    if files is None:
        only_these(connection, [])
        return [_table(connection, source)]
    only_these(connection, files)
    file_format = _format(files, reading.format)
    if file_format == "csv":
        return csv_parts(connection, files, reading.null, reading.as_text, reading.keys)
    if reading.null:
        raise InvalidArgumentError(f"null is for CSV files, whose cells are all text; these are {file_format}")
    return parquet_parts(connection, files) if file_format == "parquet" else json_parts(connection, files)


# -- files -------------------------------------------------------------------------------------


def _files(source: object) -> list[str] | None:
    """The files of a path, a glob, or a list of them; None for what is a table."""
    if isinstance(source, (str, os.PathLike)):
        source = [source]
    if not isinstance(source, (list, tuple)):
        return None
    if not source:
        raise InvalidArgumentError("there is no file to load: the list of them is empty")
    return [file for each in source for file in _matching(each)]


def _matching(path: object) -> list[str]:
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidArgumentError(f"a path is wanted, not {type(path).__name__}; tables are loaded one at a time")
    if "://" in str(path):
        raise InvalidArgumentError(f"{str(path)!r} is not on this machine; fetch it first, and load the file")
    if not str(path):
        raise InvalidArgumentError("a path is empty")
    name = str(Path(path).expanduser())
    try:
        found = [name] if Path(name).is_file() else _globbed(name)
        if not found:
            raise InvalidArgumentError(_missing(Path(name)))
    except OSError as exc:  # such as a name that is too long for one
        raise InvalidArgumentError(f"{name!r:.200} cannot be read: {exc.strerror}") from exc
    for file in found:
        if not file.isascii() and not _is_utf8(file):
            raise InvalidArgumentError(f"the name of {file!r} is not UTF-8, which DuckDB wants; rename the file")
    return found


def _globbed(pattern: str) -> list[str]:
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - takes absolute ones too
    return sorted(file for file in found if Path(file).is_file())


def _missing(path: Path) -> str:
    if path.is_dir():
        return f"{str(path)!r} is a directory; name files in it, as {str(path / '*.csv')!r}"
    if path.exists():
        return f"{str(path)!r} is no regular file; a load reads its files more than once"
    there = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"there is no file {str(path)!r}{near_miss(path.name, (each for each in there if each != path.name))}"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _format(files: Sequence[str], wanted: str | None) -> str:
    if wanted is not None:
        return wanted
    formats = {file: _format_of(file) for file in files}
    if len(set(formats.values())) > 1:
        shown = ", ".join(f"{file!r} is {kind}" for file, kind in list(formats.items())[:10])
        raise InvalidArgumentError(f"files of one format are loaded together; {shown}")
    return formats[files[0]]


def _format_of(file: str) -> str:
    endings = [ending.lower() for ending in Path(file).name.split(".")[1:]]
    if endings and endings[-1] in _COMPRESSED:
        endings.pop()
    found = _BY_ENDING.get(endings[-1]) if endings else None
    if found is None:
        raise InvalidArgumentError(
            f"the name of {file!r} does not tell its format{near_miss(endings[-1], _BY_ENDING) if endings else ''}; "
            f"say it with format: {', '.join(FORMATS)}"
        )
    return found


# -- tables ------------------------------------------------------------------------------------


def _table(connection: Connection, source: Any) -> Part:
    """Whatever speaks Arrow: pyarrow's tables and readers, polars' and pandas' frames."""
    table = source
    if type(source).__module__.partition(".")[0] == "pandas":
        table = _from_pandas(source)
    elif not isinstance(source, (pa.Table, pa.RecordBatchReader)):
        if not hasattr(source, "__arrow_c_stream__"):
            raise InvalidArgumentError(
                f"{type(source).__name__} cannot be loaded; give a path, a list of paths, a pyarrow Table or "
                "RecordBatchReader, or a pandas or polars DataFrame"
            )
        table = pa.RecordBatchReader.from_stream(source)
    refuse_twins("the table", table.schema.names)
    connection.register(_TABLE, table)
    rows = getattr(source, "num_rows", None) if isinstance(table, pa.RecordBatchReader) else table.num_rows
    if rows is None and hasattr(source, "__len__"):
        rows = len(source)
    return Part("the table", f"SELECT * FROM {_TABLE}", rows=rows)


def _from_pandas(frame: Any) -> Any:
    """Without the index, and with NaN as what is missing, as pandas means it."""
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as exc:
        reason = "; ".join(str(each) for each in exc.args)
        raise InvalidArgumentError(f"the frame has no form in Arrow: {reason}") from exc

"""`ikv export`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer

from ikvcore.cli import _files
from ikvcore.cli._columns import columns_of, types_of
from ikvcore.cli._connection import Connection, StoreName, connected
from ikvcore.cli._reading import Fields, Stale, Timeout, asked_fields, opened_reader, shown_order
from ikvcore.cli._values import fields_of, json_line
from ikvcore.client import IKVReader
from ikvcore.errors import IKVError, InvalidArgumentError, near_miss
from ikvcore.models import Row, StoreDescription

__all__ = ["app"]

app = typer.Typer()

_FORMATS: Final = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_WORDS: Final = ("parquet", "csv", "jsonl")
_MIXED: Final = ("refuse", "text")


@app.command(rich_help_panel="Documents", epilog="Example: ikv export profiles profiles.parquet --field age")
@connected(replica=True)
def export(
    connection: Connection,
    store: StoreName,
    file: Annotated[
        str, typer.Argument(metavar="FILE", show_default=False, help="Where to; - is stdout, for csv and jsonl.")
    ],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            show_default=False,
            help=f"{', '.join(_WORDS)}; else that of the file's name. Parquet keeps every type, CSV none.",
        ),
    ] = None,
    fields: Fields = None,
    mixed: Annotated[
        str,
        typer.Option(
            "--mixed",
            help="What to do with a field that has values of types that no column holds: refuse, or write it as text. "
            "JSON lines hold them as they are.",
        ),
    ] = "refuse",
    typed: Annotated[
        bool, typer.Option("--typed", help='JSON lines in which every value names its type, {"int32": 7}.')
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    stale: Stale = False,
    timeout: Timeout = None,
) -> None:
    """Write all documents of a store to a file: Parquet, CSV or JSON lines.

    What a document lacks is null, in CSV an empty cell, beside "" for an empty string; bytes are in base64 in CSV. The
    file appears when it is complete.
    """
    form = _format(file, format_)
    if mixed not in _MIXED:
        raise typer.BadParameter(f"--mixed is {' or '.join(_MIXED)}, not {mixed!r}{near_miss(mixed, _MIXED)}")
    if typed and form != "jsonl":
        raise typer.BadParameter(f"--typed is a form of JSON lines, not of {form}")
    path = None if file == "-" else _checked(Path(file), force=force)
    if form != "jsonl":
        _files.require_pyarrow()
    description = connection.describe(store)
    with opened_reader(connection, store, timeout=timeout, stale=stale) as reader:
        write = _written_by(reader, description, form, fields, mixed=mixed, typed=typed)
        with _opened(path) as out:
            documents, columns = write(out)
            size = out.tell() if path is not None else None
    counts = f"{documents:,} document{'' if documents == 1 else 's'}"
    counts += "" if columns is None else f", {columns:,} column{'' if columns == 1 else 's'}"
    where = "" if path is None else f", {size:,} bytes written to {str(path)!r}"
    typer.echo(f"exported {counts}{where}", err=True)


def _format(file: str, word: str | None) -> str:
    if word is not None:
        if word not in _WORDS:
            raise typer.BadParameter(f"--format is one of {', '.join(_WORDS)}, not {word!r}{near_miss(word, _WORDS)}")
    elif file == "-":
        raise typer.BadParameter("stdout has no name that tells the format: say --format jsonl or --format csv")
    else:
        suffix = Path(file).suffix.lower()
        word = _FORMATS.get(suffix)
        if word is None:
            raise typer.BadParameter(
                f"{file!r} does not tell its format{near_miss(suffix, _FORMATS)}: end it in {', '.join(_FORMATS)}, or "
                "say --format"
            )
    if file == "-" and word == "parquet":
        raise typer.BadParameter("a Parquet file cannot be written to stdout; name a file")
    return word


def _checked(path: Path, *, force: bool) -> Path:
    """The file to write, a link followed. Raises BadParameter for what may not or cannot be replaced."""
    target = path.resolve()
    if target.is_dir():
        raise typer.BadParameter(f"{str(path)!r} is a directory; name a file")
    if not target.parent.is_dir():
        raise typer.BadParameter(f"there is no directory {str(target.parent)!r}")
    if target.exists() and not target.is_file():
        raise typer.BadParameter(f"{str(path)!r} is no regular file; to write to a pipe use -")
    if target.exists() and not force:
        raise typer.BadParameter(f"{str(path)!r} is there already; say --force to replace it")
    return target


@contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with _files.new_file(path) as out:
            yield out
    except OSError as exc:
        if isinstance(exc, IKVError):  # some of the store's are OSErrors
            raise
        raise InvalidArgumentError(f"{str(path)!r} cannot be written: {exc.strerror}") from exc


def _written_by(
    reader: IKVReader, store: StoreDescription, form: str, fields: Sequence[str] | None, *, mixed: str, typed: bool
) -> Callable[[Any], tuple[int, int | None]]:
    """What writes the documents, and gives their number and that of the columns, where there are any."""
    names = asked_fields(store.primary_key, fields)

    def rows() -> Iterator[Row]:
        return (row for _, row in reader.scan_rows(names))

    if form == "jsonl":
        order = shown_order(store.primary_key)
        return lambda out: (_write_lines(out, map(order, rows()), typed=typed), None)
    types = types_of(rows())
    ordered = {store.primary_key: {store.primary_key_type}, **dict(sorted(types.items()))}
    columns = columns_of(ordered, mixed_as_text=mixed == "text")
    if absent := [name for name in names or () if name not in columns]:
        raise InvalidArgumentError(f"no document has field {', '.join(map(repr, absent))}; leave it out of --field")
    write = partial(_files.write_parquet if form == "parquet" else _files.write_csv, rows=rows(), columns=columns)
    return lambda out: (write(out), len(columns))


def _write_lines(out: BinaryIO, rows: Iterable[Row], *, typed: bool) -> int:
    count = 0
    for row in rows:
        out.write(json_line(fields_of(row, typed=typed)).encode() + b"\n")
        count += 1
    return count

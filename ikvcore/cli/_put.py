"""`ikv put`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from ikvcore.cli import _values
from ikvcore.cli._connection import Connection, StoreName, connected
from ikvcore.client import IKVWriter
from ikvcore.document import IKVDocument
from ikvcore.errors import IKVError, InvalidArgumentError
from ikvcore.tokens import Token

__all__ = ["PrintToken", "app"]

app = typer.Typer()

_BATCH_DOCUMENTS: Final = 10_000
_BATCH_BYTES: Final = 16 * 1024 * 1024
"""A batch is checked whole before any of it is published, so a file that is no larger goes in whole or not at all."""

PrintToken = Annotated[
    bool, typer.Option("--token", help="Print the token of the write, for ikv get --wait or IKVReader.wait_for.")
]


@app.command(
    rich_help_panel="Documents", epilog="Example: ikv put profiles firstname=Alice age:int32=31 member:boolean=true"
)
@connected()
def put(
    connection: Connection,
    store: StoreName,
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FIELD[:TYPE]=VALUE]...",
            show_default=False,
            help=f"A document's fields. TYPE is {', '.join(_values.TYPE_WORDS)} (default: string); bytes are in "
            "base64. A name that holds ':' or '=' goes into --json.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            show_default=False,
            help='A file of documents, each a JSON object on a line: {"firstname": "Bob", "age": {"int32": 7}}. '
            f"- is stdin. Up to {_BATCH_DOCUMENTS:,} documents go in whole or, if one is wrong, not at all; more go in "
            "batches of that many.",
        ),
    ] = None,
    token: PrintToken = False,
) -> None:
    """Set fields of documents, which are made if they are not there. Fields that are not named stay as they are."""
    if bool(assignments) == (json_file is not None):
        raise typer.BadParameter("a document is wanted: give FIELD=VALUE or --json FILE, and not both")
    from ikvcore.factory import create_new_writer

    # What can be found wrong without the store is found before the store is opened.
    document = None if not assignments else _values.document_of_assignments(assignments)
    with create_new_writer(connection.writer_options(store)) as writer:
        if document is not None:
            count, reached = 1, writer.upsert_fields(document)
        else:
            assert json_file is not None
            with _opened(json_file) as lines:
                count, reached = _put_lines(writer, lines)
    typer.echo(f"{count:,} document{'' if count == 1 else 's'} put into store {store!r}", err=True)
    if token:
        typer.echo(str(reached))


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = file.open("rb")
    except OSError as exc:
        raise typer.BadParameter(f"--json {str(file)!r} cannot be read: {exc.strerror}") from exc
    with stream:
        yield stream


def _put_lines(writer: IKVWriter, lines: Iterable[bytes]) -> tuple[int, Token]:
    """How many documents were published, and the token of all."""
    published, last, token = 0, 0, Token()
    try:
        for batch, line in _batches(lines, _checked_by(writer)):
            token |= writer.upsert_fields_batch(batch)
            published, last = published + len(batch), line
    except InvalidArgumentError as exc:
        if not published:
            raise InvalidArgumentError(f"{exc}; nothing was published") from exc
        raise InvalidArgumentError(f"{exc}\n{_already(published, last)}") from exc
    except IKVError:
        if published:
            typer.echo(_already(published, last), err=True)
        raise
    return published, token


def _already(published: int, last: int) -> str:
    return (
        f"{published:,} documents, those up to line {last:,}, were published before; to put the whole file again does "
        "no harm"
    )


def _batches(
    lines: Iterable[bytes], checked: Callable[[bytes], IKVDocument]
) -> Iterator[tuple[list[IKVDocument], int]]:
    """Documents, and the number of the line of the last; blank lines are passed over."""
    batch: list[IKVDocument] = []
    size = number = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            batch.append(checked(line))
        except InvalidArgumentError as exc:
            raise InvalidArgumentError(f"line {number:,}: {exc}") from exc
        size += len(line)
        if len(batch) >= _BATCH_DOCUMENTS or size >= _BATCH_BYTES:
            yield batch, number
            batch, size = [], 0
    if batch:
        yield batch, number


def _checked_by(writer: IKVWriter) -> Callable[[bytes], IKVDocument]:
    def checked(line: bytes) -> IKVDocument:
        document = _values.parsed_document(line)
        # Publishes nothing, but refuses a document whose keys are missing or wrong, while its line is known.
        writer.delete_fields(document, ())
        return document

    return checked

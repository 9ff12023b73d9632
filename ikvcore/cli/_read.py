"""`ikv get` and `ikv scan`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated

import typer

from ikvcore.cli import _exit
from ikvcore.cli._cells import plain_text
from ikvcore.cli._connection import AsJson, Connection, StoreName, connected
from ikvcore.cli._keys import Base64Keys, Keys, keys_of
from ikvcore.cli._reading import Fields, Stale, Timeout, Typed, asked_fields, opened_reader, print_lines, shown_order
from ikvcore.cli._values import fields_of, json_line
from ikvcore.models import Row
from ikvcore.tokens import Token

__all__ = ["app"]

app = typer.Typer()


@app.command(rich_help_panel="Documents", epilog="Example: ikv get profiles Alice --field age")
@connected(replica=True)
def get(
    connection: Connection,
    store: StoreName,
    keys: Keys,
    fields: Fields = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line for each document.")] = False,
    typed: Typed = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print the value alone, of one field of one document; bytes as they are.")
    ] = False,
    key_base64: Base64Keys = False,
    wait: Annotated[
        str | None,
        typer.Option(
            "--wait", metavar="TOKEN", show_default=False, help="See the write of this token, with --stale too."
        ),
    ] = None,
    stale: Stale = False,
    timeout: Timeout = None,
) -> None:
    """Print documents, by their keys. Exit code 3 if one is not there."""
    if raw and (len(keys) != 1 or len(fields or ()) != 1 or as_json or typed):
        raise typer.BadParameter("--raw prints one value: give one key and one --field, and neither --json nor --typed")
    token = Token() if wait is None else Token.parse(wait)
    wanted = keys_of(keys, in_base64=key_base64)
    primary_key = connection.describe(store).primary_key
    with opened_reader(connection, store, timeout=timeout, stale=stale) as reader:
        reader.wait_for(token, timeout)
        rows = reader.get_rows(wanted, fields if raw else asked_fields(primary_key, fields))
    order = shown_order(primary_key)
    found = [(key, order(row)) for key, row in zip(wanted, rows, strict=True) if row is not None]
    missing = [key for key, row in zip(wanted, rows, strict=True) if row is None]
    if raw:
        _print_value(found)
    elif as_json or typed:
        print_lines(json_line(fields_of(row, typed=typed)) for _, row in found)
    elif found:
        from ikvcore.cli import _tables

        _tables.print_documents(found)
    if found:
        _tell_absent(fields or (), [row for _, row in found])
    if missing:
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        typer.echo(f"store {store!r} has no document {', '.join(map(repr, missing[:3]))}{more}", err=True)
    if missing or (raw and found[0][1][1] == (None,)):
        raise typer.Exit(_exit.NO)


@app.command(rich_help_panel="Documents", epilog="Example: ikv scan profiles --field age --limit 10")
@connected(replica=True)
def scan(
    connection: Connection,
    store: StoreName,
    fields: Fields = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=0, help="At most so many documents. Default: all.")
    ] = None,
    as_json: AsJson = False,
    typed: Typed = False,
    stale: Stale = False,
    timeout: Timeout = None,
) -> None:
    """Print the documents of a store, in no particular order."""
    primary_key = connection.describe(store).primary_key
    with opened_reader(connection, store, timeout=timeout, stale=stale) as reader:
        found = (row for _, row in reader.scan_rows(asked_fields(primary_key, fields)))
        rows = _Seen(
            map(shown_order(primary_key), found if limit is None else islice(found, min(limit, sys.maxsize))),
            fields or (),
        )
        if as_json or typed:
            print_lines(json_line(fields_of(row, typed=typed)) for row in rows)
        else:
            from ikvcore.cli import _tables

            _tables.print_scan(rows)
    rows.tell()


class _Seen:
    """Rows on their way to be printed, and which of the fields asked for are in none of them."""

    def __init__(self, rows: Iterable[Row], fields: Sequence[str]) -> None:
        self._rows = rows
        self._absent = set(fields)
        self._fields = fields
        self._any = False

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self._any = True
            if self._absent:
                self._absent -= _present(row)
            yield row

    def tell(self) -> None:
        """Tell what is absent, unless nothing was there at all."""
        if not self._any:
            typer.echo("no documents", err=True)
        elif self._absent:
            _tell([name for name in self._fields if name in self._absent])


def _print_value(found: Sequence[tuple[str | bytes, Row]]) -> None:
    for _, (_, (field_type,), (value,)) in found:
        if value is None:
            return
        if isinstance(value, bytes):
            sys.stdout.buffer.write(value)
            sys.stdout.buffer.flush()
        else:
            print_lines([plain_text(value, field_type)])


def _tell_absent(fields: Sequence[str], rows: Iterable[Row]) -> None:
    there = {name for row in rows for name in _present(row)}
    absent = [name for name in fields if name not in there]
    if absent:
        _tell(absent)


def _tell(absent: Sequence[str]) -> None:
    typer.echo(f"no document shown has field {', '.join(map(repr, absent))}", err=True)


def _present(row: Row) -> set[str]:
    return {name for name, field_type in zip(row[0], row[1], strict=True) if field_type is not None}

"""`ikv load`."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer

from ikvcore.cli import _exit
from ikvcore.cli._connection import AsJson, Connection, StoreName, connected
from ikvcore.errors import IKVError, LoadError
from ikvcore.loadreport import LoadReport

__all__ = ["app"]

app = typer.Typer()

_TYPES: Final = "int32, int64, float32, float64, string, bytes, boolean"


@app.command(
    rich_help_panel="Documents", epilog="Example: ikv load flights 'data/*.csv' --null NA --errors refused.jsonl"
)
@connected()
def load(
    connection: Connection,
    store: StoreName,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            show_default=False,
            help="CSV with a line of names, Parquet or JSON lines; CSV and JSON lines also as .gz and .zst. A glob in "
            "quotes is resolved too.",
        ),
    ],
    primary_key: Annotated[
        str | None,
        typer.Option(
            "--primary-key",
            metavar="COLUMN|SQL",
            show_default=False,
            help="A column, or an SQL expression over the columns, that gives the primary key. Default: the column of "
            "its name.",
        ),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            "--select",
            metavar="SQL",
            show_default=False,
            help="What becomes fields, as between SELECT and FROM: 'id, upper(city) AS city'. Default: all columns.",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="SQL", show_default=False, help="Which rows: \"year = 2013 AND city <> ''\"."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Rows that are published as one.")] = 1_000,
    timestamps: Annotated[
        str, typer.Option("--timestamps", help="What times become: iso (text) or epoch-us (INT64).")
    ] = "iso",
    cast: Annotated[
        list[str] | None,
        typer.Option(
            "--cast",
            metavar="COLUMN=TYPE",
            show_default=False,
            help=f"The type of a field: {_TYPES}. Repeat it for more.",
        ),
    ] = None,
    null: Annotated[
        list[str] | None,
        typer.Option(
            "--null",
            metavar="TEXT",
            show_default=False,
            help="A CSV cell that means an absent field, such as NA, besides the empty one. Repeat it for more.",
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            show_default=False,
            help="csv, parquet or jsonl; else that of the files' names.",
        ),
    ] = None,
    errors: Annotated[
        Path | None,
        typer.Option(
            "--errors", metavar="FILE", show_default=False, help="Keep the refused rows there, as JSON lines."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Load files into a store: a document for each row, in the rows' order.

    Rows that cannot be documents are left out and counted; the exit code is then 3. What was loaded stays where a load
    is broken off by Ctrl-C or an error, and loading again gives the same documents.
    """
    from ikvcore.factory import create_new_writer

    with create_new_writer(connection.writer_options(store)) as writer, _watched() as watch:
        try:
            report = writer.load(
                files,
                primary_key=primary_key,
                select=select,
                where=where,
                batch_size=batch_size,
                timestamps=timestamps,
                casts=dict(map(_cast, cast or ())),
                null=null or (),
                format=format_,
                errors=errors,
                progress=watch,
            )
        except (KeyboardInterrupt, IKVError) as exc:
            watch.close()
            so_far = exc.report if isinstance(exc, LoadError) else watch.report
            if so_far.rows:
                _tell(so_far, as_json=as_json)
            if isinstance(exc, IKVError):
                raise
            typer.echo("stopped; loading again goes over the same rows and does no harm", err=True)
            raise typer.Exit(_exit.INTERRUPTED) from exc
    _tell(report, as_json=as_json)
    if report.refused:
        raise typer.Exit(_exit.NO)


def _cast(option: str) -> tuple[str, str]:
    column, separator, word = option.rpartition("=")
    if not separator or not column:
        raise typer.BadParameter(f"{option!r} is no cast: write it as COLUMN=TYPE, with one of {_TYPES}")
    return column, word


# -- on the way --------------------------------------------------------------------------------


class _Watch:
    """The progress of a load: a bar on a terminal, the report so far, and Ctrl-C between batches."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.report = LoadReport()
        self._interrupted = False
        self._share = 0.0  # DuckDB's own goes back to zero at the end of a query
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[rows]:,} rows, {task.fields[rate]:,.0f}/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.disable = not self._bar.console.is_terminal
        self._task = self._bar.add_task("", total=None, rows=0, rate=0.0)
        self._bar.start()

    def __call__(self, report: LoadReport, share: float | None) -> None:
        """See LoadProgress."""
        self.report = report
        rate = report.rows / report.seconds if report.seconds else 0.0
        total = None if share is None else 1.0
        self._share = max(self._share, share or 0.0)
        self._bar.update(self._task, completed=self._share, total=total, rows=report.rows, rate=rate)
        if self._interrupted:
            raise KeyboardInterrupt

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The first Ctrl-C lets the batch in flight end; the second does not."""
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def close(self) -> None:
        """Remove the bar. Idempotent."""
        self._bar.stop()


@contextmanager
def _watched() -> Iterator[_Watch]:
    watch = _Watch()
    before = signal.signal(signal.SIGINT, watch.interrupt)
    try:
        yield watch
    finally:
        signal.signal(signal.SIGINT, before)
        watch.close()


# -- the report --------------------------------------------------------------------------------


def _tell(report: LoadReport, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
        return
    refused = sum(report.refused.values())
    _print([("loaded", report.loaded), ("refused", refused), *((f"  {why}", n) for why, n in report.refused.items())])


def _print(lines: Sequence[tuple[str, int]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    for label, count in lines:
        table.add_row(Text(label), Text(f"{count:,}"))
    Console().print(table)

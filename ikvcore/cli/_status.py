"""`ikv status`."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from ikvcore.cli import _exit
from ikvcore.cli._connection import AsJson, Connection, StoreName, connected

if TYPE_CHECKING:
    from ikvcore.inspection import StoreInspection

__all__ = ["app"]

app = typer.Typer()


@app.command(
    rich_help_panel="Logs and replicas", epilog="Example: ikv status profiles --mount-directory /srv/replica --watch"
)
@connected(replica=True)
def status(
    connection: Connection,
    store: StoreName,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.05, max=3600, help="Seconds between two looks of --watch.")
    ] = 1.0,
    patience: Annotated[
        float,
        typer.Option("--patience", min=0, max=3600, help="Seconds that a replica has to catch up while looked at."),
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show a store's log and a replica beside it: health, lag, positions and sizes.

    Exit code 0 if a process ingests into the replica and all that was in the log is visible there; else 3.
    """
    options = connection.reader_options(store)
    from ikvcore.inspection import StoreInspection

    with StoreInspection(options) as inspection:
        if watch:
            _watch(inspection, interval, as_json=as_json)
        report = inspection.report(patience=patience)
    from ikvcore.cli._status_view import report_to_json, view

    if as_json:
        typer.echo(report_to_json(report))
    else:
        from rich.console import Console

        Console().print(view(report))
    if not report.ready:
        raise typer.Exit(_exit.NO)


def _watch(inspection: StoreInspection, interval: float, *, as_json: bool) -> None:
    """Look for ever: in place on a terminal, else one look after the other."""
    from rich.console import Console
    from rich.live import Live

    from ikvcore.cli._status_view import report_to_json, view

    console = Console()
    live = Live(console=console, auto_refresh=False) if console.is_terminal and not as_json else None
    with live or nullcontext():
        while True:
            report = inspection.report(patience=0)
            if as_json:
                typer.echo(report_to_json(report))
            elif live is not None:
                live.update(view(report), refresh=True)
            else:
                console.print(view(report))
            time.sleep(interval)

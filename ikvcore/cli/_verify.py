"""`ikv verify`."""

from __future__ import annotations

import json

import typer

from ikvcore.cli import _exit
from ikvcore.cli._cells import visible
from ikvcore.cli._connection import AsJson, Connection, StoreName, connected

__all__ = ["app"]

app = typer.Typer()


@app.command(rich_help_panel="Logs and replicas", epilog="Example: ikv verify profiles --mount-directory /srv/replica")
@connected(replica=True)
def verify(connection: Connection, store: StoreName, as_json: AsJson = False) -> None:
    """Read all of a replica and check it against its own checksums and counts. Exit code 3 if something is wrong.

    A service may have it open; its files grow while this runs beside many writes.
    """
    options = connection.reader_options(store)
    from ikvcore.inspection import verify_replica

    findings = verify_replica(options)
    if as_json:
        typer.echo(json.dumps({"mount_directory": str(options.mount_directory), "findings": findings}, indent=2))
    for finding in () if as_json else findings:
        typer.echo(visible(finding))
    if findings:
        typer.echo("the replica is damaged: its readers rebuild it from the log, and raise until they have", err=True)
        raise typer.Exit(_exit.NO)
    typer.echo(f"nothing is wrong with the replica in {str(options.mount_directory)!r}", err=True)

"""`ikv verify`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TypeVar

import typer

from ikvcore.cli import _exit
from ikvcore.cli._cells import visible
from ikvcore.cli._connection import AsJson, Connection, StoreName, connected
from ikvcore.errors import IKVError

__all__ = ["app"]

app = typer.Typer()

T = TypeVar("T")


@app.command(rich_help_panel="Logs and replicas", epilog="Example: ikv verify profiles --mount-directory /srv/replica")
@connected(replica=True)
def verify(connection: Connection, store: StoreName, as_json: AsJson = False) -> None:
    """Read all of a store's log and of a replica, and check them against their own checksums and counts. Exit code 3 if
    something is wrong with one of them.

    Services may have them open; the replica's files grow while this runs beside many writes.
    """
    from ikvcore.inspection import verify_log, verify_replica

    errors: list[IKVError] = []
    # Each for itself: what is wrong with one is told also where the other cannot be looked at.
    log = _looked(lambda: verify_log(connection.writer_options(store)), errors)
    options = _looked(lambda: connection.reader_options(store), errors)
    replica = None if options is None else _looked(lambda: verify_replica(options), errors)
    if errors and not log and not replica:
        raise errors[0]
    mount = None if options is None else str(options.mount_directory)
    if as_json:
        told = {"mount_directory": mount, "findings": replica, "log_findings": log}
        typer.echo(json.dumps(told, indent=2))
    _tell(
        f"the replica in {mount!r}", replica, "its readers rebuild it from the log, and raise until they have", as_json
    )
    _tell("the log", log, "restore it from a copy; until then its readers and writers raise", as_json)
    for error in errors:
        typer.echo(f"{error}", err=True)
    if log or replica:
        raise typer.Exit(_exit.NO)


def _looked(look: Callable[[], T], errors: list[IKVError]) -> T | None:
    try:
        return look()
    except IKVError as exc:
        errors.append(exc)
        return None


def _tell(what: str, findings: Sequence[str] | None, damaged: str, as_json: bool) -> None:
    for finding in () if as_json else findings or ():
        typer.echo(visible(finding))
    if findings is not None:
        typer.echo(f"{what} is damaged: {damaged}" if findings else f"nothing is wrong with {what}", err=True)

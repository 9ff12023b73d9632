"""The `ikv` command: provisioning from a shell, thin over ikvcore.admin.

Results go to stdout, everything else to stderr. Exit code 1 is an error that the message explains, 2 a wrong usage.
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer

from ikvcore.cli import _account, _store
from ikvcore.errors import IKVError

__all__ = ["app", "main"]

app = typer.Typer(
    name="ikv",
    help="Make and manage the stores and accounts of ikvcore.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    # Typer's own tracebacks show local variables, and a passkey among them.
    pretty_exceptions_enable=False,
)
app.add_typer(_store.app, name="store")
app.add_typer(_account.app, name="account")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ikvcore {metadata.version('ikvcore')}")
        raise typer.Exit


@app.callback()
def _common(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    context.obj["debug"] = debug


def main() -> None:
    """Entry point of the `ikv` command."""
    settings: dict[str, bool] = {}
    try:
        app(prog_name="ikv", obj=settings)
    except IKVError as exc:
        if settings.get("debug"):
            raise
        typer.echo(f"error: {exc}", err=True)
        sys.exit(1)

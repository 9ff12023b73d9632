"""`ikv account create | rotate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ikvcore import admin
from ikvcore.cli._connection import Connection, connected
from ikvcore.cli._passkey import passkey_of

__all__ = ["app"]

app = typer.Typer(help="Accounts and their passkeys.", no_args_is_help=True)


@app.command(epilog="Example: ikv account create --account-id demo")
@connected()
def create(connection: Connection) -> None:
    """Make an account. `ikv store create` also does, where there is none yet."""
    where = connection.admin(confirm=True)
    admin.create_account(**where)
    typer.echo(f"account {where['account_id']!r} was made", err=True)


@app.command(epilog="Example: ikv account rotate --account-id demo --new-passkey-file new.txt")
@connected()
def rotate(
    connection: Connection,
    new_passkey: Annotated[
        str | None,
        typer.Option("--new-passkey", show_default=False, help="The new one; also IKV_NEW_PASSKEY, or asked for."),
    ] = None,
    new_passkey_file: Annotated[
        Path | None,
        typer.Option("--new-passkey-file", show_default=False, help="A file whose first line is the new passkey."),
    ] = None,
) -> None:
    """Replace an account's passkey. Clients that are open go on."""
    where = connection.admin()
    new = passkey_of("new-passkey", new_passkey, new_passkey_file, confirm=True)
    admin.rotate_passkey(new.reveal(), **where)
    typer.echo(f"account {where['account_id']!r} has its new passkey", err=True)

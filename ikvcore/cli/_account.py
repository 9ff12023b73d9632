"""`ikv account create | rotate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ikvcore import admin
from ikvcore.cli._connection import (
    AccountId,
    Options,
    Passkey,
    PasskeyFile,
    Transport,
    connection,
    read_passkey,
)
from ikvcore.clientoptions import DEFAULT_TRANSPORT

__all__ = ["app"]

app = typer.Typer(help="Accounts and their passkeys.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def create(
    account_id: AccountId,
    account_passkey: Passkey = None,
    account_passkey_file: PasskeyFile = None,
    transport: Transport = DEFAULT_TRANSPORT,
    option: Options = None,
) -> None:
    """Make an account. `ikv store create` also does, where there is none yet."""
    where = connection(account_id, account_passkey, account_passkey_file, transport, option, confirm=True)
    admin.create_account(**where)
    typer.echo(f"account {account_id!r} was made", err=True)


@app.command()
def rotate(
    account_id: AccountId,
    account_passkey: Passkey = None,
    account_passkey_file: PasskeyFile = None,
    new_passkey: Annotated[
        str | None,
        typer.Option("--new-passkey", show_default=False, help="The new one; also IKV_NEW_PASSKEY, or asked for."),
    ] = None,
    new_passkey_file: Annotated[
        Path | None,
        typer.Option("--new-passkey-file", show_default=False, help="A file whose first line is the new passkey."),
    ] = None,
    transport: Transport = DEFAULT_TRANSPORT,
    option: Options = None,
) -> None:
    """Replace an account's passkey. Clients that are open go on."""
    where = connection(account_id, account_passkey, account_passkey_file, transport, option)
    new = read_passkey("new-passkey", new_passkey, new_passkey_file, confirm=True)
    admin.rotate_passkey(new, **where)
    typer.echo(f"account {account_id!r} has its new passkey", err=True)

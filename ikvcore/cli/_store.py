"""`ikv store create | list | describe | delete`."""

from __future__ import annotations

import json
import sys
from typing import Annotated, TypeAlias

import typer

from ikvcore import admin
from ikvcore.cli import _tables
from ikvcore.cli._connection import AccountId, Options, Passkey, PasskeyFile, Transport, connection
from ikvcore.clientoptions import DEFAULT_TRANSPORT

__all__ = ["app"]

app = typer.Typer(help="Stores: their keys, partitions and logs.", no_args_is_help=True, rich_markup_mode=None)

StoreName: TypeAlias = Annotated[str, typer.Argument(metavar="STORE", show_default=False, help="The store's name.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def create(
    store: StoreName,
    account_id: AccountId,
    primary_key: Annotated[
        str, typer.Option("--primary-key", show_default=False, help="Name of the field that identifies a document.")
    ],
    account_passkey: Passkey = None,
    account_passkey_file: PasskeyFile = None,
    primary_key_type: Annotated[
        str, typer.Option("--primary-key-type", help=f"Its type: {' or '.join(admin.PRIMARY_KEY_TYPES)}.")
    ] = "STRING",
    partitioning_key: Annotated[
        str | None,
        typer.Option(
            "--partitioning-key",
            show_default=False,
            help="Name of the field that decides a document's partition, where it is not the primary key.",
        ),
    ] = None,
    partitioning_key_type: Annotated[
        str,
        typer.Option("--partitioning-key-type", help=f"Its type: {', '.join(admin.PARTITIONING_KEY_TYPES)}."),
    ] = "STRING",
    partitions: Annotated[int, typer.Option("--partitions", help="Number of partitions.")] = 1,
    partitioner: Annotated[
        str, typer.Option("--partitioner", help=f"How a key finds its partition: {' or '.join(admin.PARTITIONERS)}.")
    ] = "murmur2",
    transport: Transport = DEFAULT_TRANSPORT,
    option: Options = None,
) -> None:
    """Make a store, and its account if there is none yet. Keys and partitions are fixed for the store's life."""
    where = connection(account_id, account_passkey, account_passkey_file, transport, option)
    admin.create_store(
        store,
        primary_key=primary_key,
        primary_key_type=primary_key_type.upper(),
        partitioning_key=partitioning_key,
        partitioning_key_type=partitioning_key_type.upper(),
        partitions=partitions,
        partitioner=partitioner,
        **where,
    )
    typer.echo(f"store {store!r} of account {account_id!r} was made", err=True)


@app.command("list")
def list_(
    account_id: AccountId,
    account_passkey: Passkey = None,
    account_passkey_file: PasskeyFile = None,
    as_json: AsJson = False,
    transport: Transport = DEFAULT_TRANSPORT,
    option: Options = None,
) -> None:
    """List an account's stores."""
    where = connection(account_id, account_passkey, account_passkey_file, transport, option)
    stores = admin.list_stores(**where)
    if as_json:
        typer.echo(json.dumps([store.to_json() for store in stores], indent=2))
    elif stores:
        _tables.print_stores(stores)
    else:
        typer.echo(f"account {account_id!r} has no stores", err=True)


@app.command()
def describe(
    store: StoreName,
    account_id: AccountId,
    account_passkey: Passkey = None,
    account_passkey_file: PasskeyFile = None,
    as_json: AsJson = False,
    transport: Transport = DEFAULT_TRANSPORT,
    option: Options = None,
) -> None:
    """Show a store's keys and partitions, and how much its log holds."""
    where = connection(account_id, account_passkey, account_passkey_file, transport, option)
    description = admin.describe_store(store, **where)
    size = admin.measure_store(store, **where)
    if as_json:
        bounds = {str(partition): place._asdict() for partition, place in size.bounds.items()}
        typer.echo(json.dumps({**description.to_json(), "log_bytes": size.log_bytes, "bounds": bounds}, indent=2))
    else:
        _tables.print_store(description, size)


@app.command()
def delete(
    store: StoreName,
    account_id: AccountId,
    account_passkey: Passkey = None,
    account_passkey_file: PasskeyFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    transport: Transport = DEFAULT_TRANSPORT,
    option: Options = None,
) -> None:
    """Delete a store and its log for ever."""
    where = connection(account_id, account_passkey, account_passkey_file, transport, option)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to ask for confirmation on; say --yes")
        typer.confirm(f"Delete store {store!r} of account {account_id!r} and its log for ever?", abort=True, err=True)
    admin.delete_store(store, **where)
    typer.echo(f"store {store!r} of account {account_id!r} was deleted", err=True)

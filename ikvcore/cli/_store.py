"""`ikv store create | list | describe | delete`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from ikvcore import admin
from ikvcore.cli import _tables
from ikvcore.cli._connection import AsJson, Connection, StoreName, connected
from ikvcore.cli._own_mount import remove_own_mounts

__all__ = ["app"]

app = typer.Typer(help="Stores: their keys, partitions and logs.", no_args_is_help=True)


@app.command(epilog="Example: ikv store create profiles --account-id demo --primary-key user_id --partitions 4")
@connected()
def create(
    connection: Connection,
    store: StoreName,
    primary_key: Annotated[
        str, typer.Option("--primary-key", show_default=False, help="Name of the field that identifies a document.")
    ],
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
) -> None:
    """Make a store, and its account if there is none yet. Keys and partitions are fixed for the store's life."""
    where = connection.admin()
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
    typer.echo(f"store {store!r} of account {where['account_id']!r} was made", err=True)


@app.command("list", epilog="Example: ikv store list --json")
@connected()
def list_(
    connection: Connection,
    as_json: AsJson = False,
) -> None:
    """List an account's stores."""
    where = connection.admin()
    stores = admin.list_stores(**where)
    if as_json:
        typer.echo(json.dumps([store.to_json() for store in stores], indent=2))
    elif stores:
        _tables.print_stores(stores)
    else:
        typer.echo(f"account {where['account_id']!r} has no stores", err=True)


@app.command(epilog="Example: ikv store describe profiles")
@connected()
def describe(
    connection: Connection,
    store: StoreName,
    as_json: AsJson = False,
) -> None:
    """Show a store's keys and partitions, and how much its log holds."""
    where = connection.admin()
    description = admin.describe_store(store, **where)
    size = admin.measure_store(store, **where)
    if as_json:
        bounds = {str(partition): place._asdict() for partition, place in size.bounds.items()}
        typer.echo(json.dumps({**description.to_json(), "log_bytes": size.log_bytes, "bounds": bounds}, indent=2))
    else:
        _tables.print_store(description, size)


@app.command(epilog="Example: ikv store delete profiles --yes")
@connected()
def delete(
    connection: Connection,
    store: StoreName,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Delete a store and its log for ever."""
    where = connection.admin()
    description = admin.describe_store(store, **where)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to ask for confirmation on; say --yes")
        typer.confirm(
            f"Delete store {store!r} of account {where['account_id']!r} and its log for ever?", abort=True, err=True
        )
    admin.delete_store(store, **where)
    remove_own_mounts(description)
    typer.echo(f"store {store!r} of account {where['account_id']!r} was deleted", err=True)

"""`ikv delete` and `ikv drop`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from ikvcore.cli._confirm import Yes, confirm
from ikvcore.cli._connection import Connection, StoreName, connected
from ikvcore.cli._keys import Base64Keys, Keys, keys_of
from ikvcore.cli._put import PrintToken
from ikvcore.document import IKVDocument
from ikvcore.errors import InvalidArgumentError
from ikvcore.fields import check_name
from ikvcore.models import StoreDescription
from ikvcore.tokens import Token

__all__ = ["app"]

app = typer.Typer()


@app.command(rich_help_panel="Documents", epilog="Example: ikv delete profiles Alice Bob --field age")
@connected()
def delete(
    connection: Connection,
    store: StoreName,
    keys: Keys,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--field", metavar="FIELD", show_default=False, help="Remove these fields alone; repeat it for more."
        ),
    ] = None,
    partitioning_key: Annotated[
        str | None,
        typer.Option(
            "--partitioning-key",
            metavar="VALUE",
            show_default=False,
            help="The documents' value of the store's partitioning key, where it has one.",
        ),
    ] = None,
    key_base64: Base64Keys = False,
    token: PrintToken = False,
) -> None:
    """Remove documents, or some fields of them. What is not there is passed over."""
    from ikvcore.factory import create_new_writer

    description = connection.describe(store)
    _refuse_keys(fields or (), description)
    documents = _documents(keys, partitioning_key, description, in_base64=key_base64)
    with create_new_writer(connection.writer_options(store)) as writer:
        reached = writer.delete_fields_batch(documents, fields) if fields else writer.delete_document_batch(documents)
    what = f"{len(fields)} field{_s(fields)} of " if fields else ""
    typer.echo(f"deletion of {what}{len(keys):,} document{_s(keys)} published to store {store!r}", err=True)
    if token:
        typer.echo(str(reached))


@app.command(rich_help_panel="Documents", epilog="Example: ikv drop profiles --field age --prefix tmp_")
@connected()
def drop(
    connection: Connection,
    store: StoreName,
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", metavar="FIELD", show_default=False, help="This field; repeat it for more."),
    ] = None,
    prefixes: Annotated[
        list[str] | None,
        typer.Option(
            "--prefix",
            metavar="TEXT",
            show_default=False,
            help="The fields whose names begin so; repeat it for more. '' is every field but the keys.",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every document, with its keys.")] = False,
    yes: Yes = False,
    token: PrintToken = False,
) -> None:
    """Remove fields from all documents of a store, or all documents. The keys of a document are never dropped."""
    if everything == bool(fields or prefixes):
        raise typer.BadParameter("say what to drop: --field, --prefix or both, or else --all")
    from ikvcore.factory import create_new_writer

    description = connection.describe(store)
    _refuse_keys(fields or (), description)
    for name in (*(fields or ()), *filter(None, prefixes or ())):
        check_name(name)  # before the first of two publications, and before anybody is asked
    what = "all documents" if everything else _named(fields or (), prefixes or ())
    confirm(f"Drop {what} of store {store!r}?", yes=yes)
    reached = Token()
    with create_new_writer(connection.writer_options(store)) as writer:
        if everything:
            reached = writer.drop_all_fields()
        if fields:
            reached |= writer.drop_fields_by_name(fields)
        if prefixes:
            reached |= writer.drop_fields_by_name_prefix(prefixes)
    typer.echo(f"drop of {what} published to store {store!r}", err=True)
    if token:
        typer.echo(str(reached))


def _documents(
    keys: Sequence[str], partitioning_key: str | None, store: StoreDescription, *, in_base64: bool
) -> list[IKVDocument]:
    """Documents that hold their keys alone."""
    fixed: dict[str, str | bytes] = {}
    routed_apart = store.partitioning_key is not None and not store.routed_by_primary_key
    if routed_apart != (partitioning_key is not None):
        raise typer.BadParameter(
            f"the store's partitioning key is {store.partitioning_key!r}: give the documents' value of it with "
            "--partitioning-key"
            if routed_apart
            else f"store {store.store_name!r} has no partitioning key; leave --partitioning-key out"
        )
    if store.partitioning_key is not None and partitioning_key is not None:
        (fixed[store.partitioning_key],) = keys_of([partitioning_key], in_base64=in_base64)
    return [IKVDocument.from_dict({**fixed, store.primary_key: key}) for key in keys_of(keys, in_base64=in_base64)]


def _refuse_keys(fields: Sequence[str], store: StoreDescription) -> None:
    """A writer passes over the keys; a person who names one has something else in mind."""
    for name in fields:
        if name in store.key_fields:
            raise InvalidArgumentError(
                f"field {name!r} is a key of store {store.store_name!r} and goes only with its document: "
                "ikv delete without --field removes documents, ikv drop --all removes all"
            )


def _named(fields: Sequence[str], prefixes: Sequence[str]) -> str:
    named = [f"field {name!r}" for name in fields]
    named += [f"the fields that begin with {prefix!r}" if prefix else "every field but the keys" for prefix in prefixes]
    return " and ".join(named) + " from all documents"


def _s(things: Sequence[object]) -> str:
    return "" if len(things) == 1 else "s"

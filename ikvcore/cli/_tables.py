"""Stores as a person reads them. Names of fields are shown as they are, never taken for rich's markup."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ikvcore.admin import StoreSize
from ikvcore.models import StoreDescription

__all__ = ["print_store", "print_stores"]


def print_stores(stores: Sequence[StoreDescription]) -> None:
    """One line a store."""
    table = Table(box=SIMPLE, pad_edge=False)
    for heading in ("store", "primary key", "partitioning key", "partitions"):
        table.add_column(heading, overflow="fold")
    for store in stores:
        table.add_row(*map(Text, (store.store_name, _primary_key(store), _partitioning_key(store), _partitions(store))))
    Console().print(table)


def print_store(store: StoreDescription, size: StoreSize) -> None:
    """One line for each thing that there is to know."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    rows = {
        "store": store.store_name,
        "account": store.account_id,
        "identity": store.identity,
        "primary key": _primary_key(store),
        "partitioning key": _partitioning_key(store),
        "partitions": _partitions(store),
        "largest event": f"{store.max_event_bytes:,} bytes",
        "log": "size unknown" if size.log_bytes is None else f"{size.log_bytes:,} bytes",
    }
    for partition, place in size.bounds.items():
        cut = "" if place.complete else ", its beginning was cut"
        rows[f"partition {partition}"] = f"positions {place.first:,} to {place.end:,}{cut}"
    for label, text in rows.items():
        table.add_row(Text(label), Text(text))
    Console().print(table)


def _primary_key(store: StoreDescription) -> str:
    return f"{store.primary_key} ({store.primary_key_type.name})"


def _partitioning_key(store: StoreDescription) -> str:
    if store.partitioning_key is None:
        return "-"
    return f"{store.partitioning_key} ({store.partitioning_key_type.name})"


def _partitions(store: StoreDescription) -> str:
    return f"{store.partitions:,} ({store.partitioner})"

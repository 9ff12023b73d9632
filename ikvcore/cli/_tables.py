"""Stores and documents as a person reads them. What users wrote is never taken for rich's markup."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import typer
from rich.box import SIMPLE
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ikvcore.admin import StoreSize
from ikvcore.cli._cells import cell, type_word, visible
from ikvcore.cli._reading import print_lines
from ikvcore.fields import FieldType, Value
from ikvcore.models import Row, StoreDescription

__all__ = ["print_documents", "print_scan", "print_store", "print_stores"]

_PAGE: Final = 50
"""Documents of a scan that share a heading; no more are held."""
_WIDEST: Final = 32
"""Of a value in a scan; ikv get shows it whole."""
_GAP: Final = 2
_COUNT: Final = 6
"""Room for the last column, "+1,234"."""


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


def print_documents(documents: Sequence[tuple[str | bytes, Row]]) -> None:
    """One line a field, of one document or, with their keys, of several."""
    several = len(documents) > 1
    table = Table(box=SIMPLE, pad_edge=False)
    for heading in ("key", "field", "type", "value") if several else ("field", "type", "value"):
        table.add_column(heading, overflow="fold")
    for key, row in documents:
        shown = _short(key)
        for name, field_type, value in _present(row):
            fields = (visible(name), type_word(field_type), cell(value, field_type))
            table.add_row(*map(Text, (shown, *fields) if several else fields))
            shown = ""
        table.add_section()
    Console().print(table)


def print_scan(rows: Iterable[Row]) -> None:
    """One line a document, under a heading for every page of them: fields that only later ones have are not known yet.

    Fields that do not fit the width are counted in a last column.
    """
    width = Console().width
    left_out = False

    def lines() -> Iterator[str]:
        nonlocal left_out
        pages = iter(rows)
        while page := list(islice(pages, _PAGE)):
            columns = _headings(page)
            cells = [{name: _short(value, kind) for name, kind, value in _present(row)} for row in page]
            widths = _fitting(columns, cells, width)
            yield from _page_lines(columns, cells, widths)
            left_out |= len(widths) < len(columns)

    print_lines(lines())
    if left_out:
        typer.echo("+ counts fields that did not fit: choose with --field, or use --json", err=True)


def _page_lines(
    columns: Mapping[str, tuple[str, str]], cells: Sequence[Mapping[str, str]], widths: Mapping[str, int]
) -> Iterator[str]:
    """A table as lines. rich's own takes half a millisecond a document, which a whole store's scan would be made of."""
    left_out = len(widths) < len(columns)

    def line(texts: Iterable[str], count: str) -> str:
        shown = [set_cell_size(text, wide) for text, wide in zip(texts, widths.values(), strict=True)]
        return (" " * _GAP).join([*shown, count] if left_out else shown).rstrip()

    yield line((columns[name][0] for name in widths), "")
    yield line((columns[name][1] for name in widths), "+")
    yield "─" * (sum(widths.values()) + _GAP * (len(widths) - 1))
    for each in cells:
        more = len(each.keys() - widths.keys())
        yield line((each.get(name, "") for name in widths), f"+{more:,}" if more else "")
    yield ""


def _present(row: Row) -> Iterator[tuple[str, FieldType, Value]]:
    for name, field_type, value in zip(*row, strict=True):
        if field_type is not None and value is not None:
            yield name, field_type, value


def _headings(page: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Each field's name and its types, as they are shown."""
    types: dict[str, set[str]] = {}
    for row in page:
        for name, field_type, _ in _present(row):
            types.setdefault(name, set()).add(type_word(field_type))
    return {name: (_short(name), "/".join(sorted(words))) for name, words in types.items()}


def _short(value: Value, field_type: FieldType | None = None) -> str:
    return cell(value, field_type, longest=_WIDEST, tell_size=False)


def _fitting(columns: Mapping[str, tuple[str, str]], cells: Sequence[Mapping[str, str]], width: int) -> dict[str, int]:
    """The fields, in their order, whose columns fit, with the columns' widths; the first is shown in any case."""
    widths = {
        name: max(*map(cell_len, heading), *(cell_len(each.get(name, "")) for each in cells))
        for name, heading in columns.items()
    }
    if sum(widths.values()) + _GAP * (len(widths) - 1) <= width:
        return widths
    fitting: dict[str, int] = {}
    used = _COUNT
    for name, wide in widths.items():
        used += wide + _GAP
        if used > width and fitting:
            break
        fitting[name] = wide
    return fitting


def _primary_key(store: StoreDescription) -> str:
    return f"{visible(store.primary_key)} ({store.primary_key_type.name})"


def _partitioning_key(store: StoreDescription) -> str:
    if store.partitioning_key is None:
        return "-"
    return f"{visible(store.partitioning_key)} ({store.partitioning_key_type.name})"


def _partitions(store: StoreDescription) -> str:
    return f"{store.partitions:,} ({store.partitioner})"

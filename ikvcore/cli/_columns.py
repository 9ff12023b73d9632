"""The columns of an export: every field of the documents, with the one type that holds all of its values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ikvcore.cli._cells import type_word
from ikvcore.errors import InvalidArgumentError
from ikvcore.fields import FieldType
from ikvcore.models import Row

__all__ = ["Columns", "columns_of", "types_of"]

Columns = Mapping[str, "FieldType | None"]
"""In their order: a field's name and the type of its column; None for text made of values of any type."""

_REMEMBERED: Final = 4_096
_WIDER: Final = {
    frozenset({FieldType.INT32, FieldType.INT64}): FieldType.INT64,
    frozenset({FieldType.FLOAT32, FieldType.FLOAT64}): FieldType.FLOAT64,
}
"""Mixtures of which one type holds every value as it is."""


def types_of(rows: Iterable[Row]) -> dict[str, set[FieldType]]:
    """Each field that the rows have, with its types."""
    types: dict[str, set[FieldType]] = {}
    seen: set[tuple[object, object]] = set()
    for names, found, _ in rows:
        if (names, found) in seen:  # most documents are of few shapes
            continue
        if len(seen) >= _REMEMBERED:
            seen.clear()
        seen.add((names, found))
        for name, field_type in zip(names, found, strict=True):
            if field_type is not None:
                types.setdefault(name, set()).add(field_type)
    return types


def columns_of(types: Mapping[str, set[FieldType]], *, mixed_as_text: bool) -> Columns:
    """The columns for fields of these types.

    Raises InvalidArgumentError for fields of several types that no one type holds, unless they are to be text.
    """
    columns = {name: _common(found) for name, found in types.items()}
    mixed = [name for name, field_type in columns.items() if field_type is None]
    if mixed and not mixed_as_text:
        raise InvalidArgumentError(_told(mixed, types))
    return columns


def _common(types: set[FieldType]) -> FieldType | None:
    """The type that holds every value of these."""
    return next(iter(types)) if len(types) == 1 else _WIDER.get(frozenset(types))


def _told(mixed: Sequence[str], types: Mapping[str, set[FieldType]]) -> str:
    shown = [f"{name!r} ({', '.join(sorted(map(type_word, types[name])))})" for name in mixed[:3]]
    more = f" and {len(mixed) - 3:,} more" if len(mixed) > 3 else ""
    return (
        f"a column has one type, and these fields have several: {', '.join(shown)}{more}. Write them as text with "
        "--mixed text, choose other fields with --field, or export to .jsonl"
    )

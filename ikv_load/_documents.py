"""From record batches to documents, a column at a time: the columns' types answer for the values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from struct import Struct
from typing import Any

import pyarrow as pa

from ikv_load._plan import Field
from ikvcore.document import IKVDocument
from ikvcore.fields import FIXED_WIDTHS, FieldBytes, FieldType

__all__ = ["documents"]


def documents(batch: Any, fields: Sequence[Field]) -> list[IKVDocument]:
    """A document for each row; a NULL is an absent field. The batch's first columns are the fields."""
    names = [field.name for field in fields]
    columns = [_values(batch.column(number), field.type) for number, field in enumerate(fields)]
    rows = zip(*columns, strict=True)
    if any(batch.column(number).null_count for number in range(len(fields))):
        return [
            IKVDocument({name: value for name, value in zip(names, row, strict=True) if value is not None})
            for row in rows
        ]
    return [IKVDocument(dict(zip(names, row, strict=True))) for row in rows]


def _values(array: Any, field_type: FieldType) -> Sequence[FieldBytes | None]:
    """The column as (type, bytes), None for NULL."""
    data = _fixed(array, field_type) if field_type in FIXED_WIDTHS else array.cast(pa.binary()).to_pylist()
    pairs = zip(repeat(field_type), data)
    if not array.null_count:
        return list(pairs)
    present = _bytes_of(array.is_valid())
    return [pair if there else None for pair, there in zip(pairs, present, strict=True)]


def _fixed(array: Any, field_type: FieldType) -> Sequence[bytes]:
    """The values' own bytes, cut out of Arrow's buffer: both encodings are little-endian."""
    width = FIXED_WIDTHS[field_type]
    if field_type is FieldType.BOOLEAN:
        array = array.fill_null(False).cast(pa.uint8())
    return _cutter(width, len(array)).unpack_from(array.buffers()[1], array.offset * width)


def _bytes_of(booleans: Any) -> bytes:
    """A byte for each boolean."""
    array = booleans.cast(pa.uint8())
    data: bytes = array.buffers()[1].to_pybytes()
    return data[array.offset : array.offset + len(array)]


@lru_cache(maxsize=64)
def _cutter(width: int, count: int) -> Struct:
    return Struct(f"{width}s" * count)

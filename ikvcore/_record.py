"""The record format: one record a document (design, section 6).

    shape id   u32   little-endian throughout; 0 is the general layout
    epoch      u32   the partition's epoch when the record was written
    body             by layout, below
    crc        u32   CRC-32 over the stored key, then all of the record before it

Documents with the same set of (field id, type) share a *shape*. A shaped body is every fixed-width value, in order of
field id, then a u32 end offset for each variable-width value, then those values. All offsets but the ends are the
shape's, so that one precompiled struct reads any projection. The general layout, for stores with too many shapes, is a
count, a (field id u32, type u8, length u32) for each field, then the values.

A checksum over bytes that end with their own CRC-32 is a constant, whatever it began with; so reading checks a record
without cutting it (zlib's crc32; the residue is that of the reflected polynomial 0xEDB88320).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias
from zlib import crc32

from ikvcore.fields import FIXED_WIDTHS, FieldBytes, FieldType, Value, decode
from ikvcore.models import Row

__all__ = [
    "CRC_RESIDUE",
    "FULL_KEY",
    "GENERAL",
    "HEADER",
    "Plan",
    "Shape",
    "ShapeFields",
    "encode_record",
    "general_fields",
    "general_row",
]

HEADER: Final = struct.Struct("<II")
CRC_RESIDUE: Final = 0x2144DF1C
GENERAL: Final = 0
"""Shape id of the general layout."""
FULL_KEY: Final = 0
"""Field id under which a record stored under a digest carries its full key; never shown."""

ShapeFields: TypeAlias = tuple[tuple[int, FieldType], ...]
"""(field id, type) pairs in order of field id."""

_COUNT: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<IBI")
_FORMATS: Final = {
    FieldType.INT32: "i",
    FieldType.INT64: "q",
    FieldType.FLOAT32: "f",
    FieldType.FLOAT64: "d",
    FieldType.BOOLEAN: "?",
}
Plan: TypeAlias = Callable[[bytes], Row]
_CHECKSUM: Final = struct.Struct("<I")
_COMPILED_AFTER: Final = 64
"""Records of a shape, after which what writes and takes apart the next is compiled: that takes as long as about so many
do, and in a store of sparse documents most shapes are met once."""
_MOST_COMPILED: Final = 256
"""Fields: more would make a long source for little."""


class Shape:
    """A set of (field id, type), and what follows from it: where each value lies in a record of this shape."""

    __slots__ = (
        "_ends",
        "_ends_at",
        "_fixed",
        "_met",
        "_seal",
        "_start",
        "_take",
        "data_start",
        "fields",
        "fixed",
        "id",
        "order",
        "types",
        "variable",
    )

    def __init__(self, shape_id: int, fields: ShapeFields) -> None:
        self.id = shape_id
        self.fields = fields
        self.types = dict(fields)
        self.fixed: dict[int, int] = {}
        """Field id -> offset, for fixed-width fields."""
        self.variable: dict[int, int] = {}
        """Field id -> rank among the variable-width fields."""
        offset = HEADER.size
        for field_id, field_type in fields:
            if field_type in FIXED_WIDTHS:
                self.fixed[field_id] = offset
                offset += FIXED_WIDTHS[field_type]
            else:
                self.variable[field_id] = len(self.variable)
        self.order = (*self.fixed, *self.variable)
        """Field ids in the order in which a record holds their values."""
        self._fixed: struct.Struct | None = None
        self._start: struct.Struct | None = None
        self._met = 0 if len(fields) <= _MOST_COMPILED else -(1 << 62)
        self._seal: Callable[[int, int, Sequence[bytes], bytes], bytes] | None = None
        self._take: Callable[[bytes], tuple[bytes, ...]] | None = None
        self._ends_at = offset
        self._ends = struct.Struct(f"<{len(self.variable)}I")
        self.data_start = offset + self._ends.size

    def sealed(self, epoch: int, data: Sequence[bytes], stored_key: bytes) -> bytes:
        """A record; `data` has the values of exactly this shape's fields, in its order."""
        if self._seal is not None:
            return self._seal(self.id, epoch, data, stored_key)
        self._meet()
        start = self._start = self._start or self._start_struct()
        variable = data[len(self.fixed) :]
        ends, end = [], self.data_start
        for value in variable:
            end += len(value)
            ends.append(end)
        record = b"".join((start.pack(self.id, epoch, *data[: len(self.fixed)], *ends), *variable))
        return record + _CHECKSUM.pack(crc32(record, crc32(stored_key)))

    def _start_struct(self) -> struct.Struct:
        widths = [f"{FIXED_WIDTHS[self.types[field_id]]}s" for field_id in self.fixed]
        return struct.Struct(f"{HEADER.format}{''.join(widths)}{len(self.variable)}I")

    def data(self, record: bytes) -> tuple[bytes, ...]:
        """Every value of a record of this shape, in its order."""
        if self._take is not None:
            return self._take(record)
        self._meet()
        # Made when first needed: in a store of sparse documents most shapes are met once.
        fixed = self._fixed = self._fixed or self._fixed_struct()
        ends = self._ends.unpack_from(record, self._ends_at)
        starts = (self.data_start, *ends)
        return fixed.unpack_from(record) + tuple(map(record.__getitem__, map(slice, starts, ends)))

    def _fixed_struct(self) -> struct.Struct:
        widths = [f"{FIXED_WIDTHS[self.types[field_id]]}s" for field_id in self.fixed]
        return struct.Struct(f"<{HEADER.size}x{''.join(widths)}")

    def _meet(self) -> None:
        """Count a record; after some, compile what writes and takes apart the next: a loop over values takes several
        times as long (measured with 3 fields: 3.1 us against 0.6).
        """
        self._met += 1
        if self._met < _COMPILED_AFTER:
            return
        fixed = [f"d{place}" for place in range(len(self.fixed))]
        variable = [f"v{rank}" for rank in range(len(self.variable))]
        ends = [f"e{rank}" for rank in range(len(self.variable))]
        starts = [str(self.data_start), *ends]
        data = "".join(f"{name}, " for name in (*fixed, *variable))
        numbers = "".join(f"{name}, " for name in (*fixed, *ends))
        summed = [f"    {end} = {start} + len({v})" for start, end, v in zip(starts, ends, variable, strict=False)]
        cut = [f"record[{start}:{end}], " for start, end in zip(starts, ends, strict=False)]
        lines = [
            "def seal(shape_id, epoch, data, stored_key):",
            f"    ({data}) = data",
            *summed,
            f"    record = b''.join((pack(shape_id, epoch, {numbers}), {', '.join(variable)}))",
            "    return record + checksum(crc32(record, crc32(stored_key)))",
            "def take(record):",
            f"    ({numbers}) = unpack(record)",
            f"    return ({''.join(f'{name}, ' for name in fixed)}{''.join(cut)})",
        ]
        start = self._start_struct()
        namespace: dict[str, Any] = {
            "pack": start.pack,
            "unpack": struct.Struct(start.format.replace(HEADER.format, f"<{HEADER.size}x", 1)).unpack_from,
            "checksum": _CHECKSUM.pack,
            "crc32": crc32,
        }
        exec("\n".join(lines), namespace)  # noqa: S102 - as in `plan`, nothing but numbers and names made of them
        self._seal, self._take = namespace["seal"], namespace["take"]

    def values(self, record: bytes) -> dict[int, FieldBytes]:
        """Every field of a record of this shape."""
        return self.typed(self.data(record))

    def typed(self, data: Sequence[bytes]) -> dict[int, FieldBytes]:
        """Fields of this shape, of values in its order."""
        types = self.types
        return {field_id: (types[field_id], value) for field_id, value in zip(self.order, data, strict=True)}

    def plan(self, names: Sequence[str], field_ids: Sequence[int | None]) -> Plan:
        """Compile the projection of `field_ids` (None: the field is not known), which are called `names`.

        A shape's fields never change, so a plan holds for ever, also for a name that gets its field id later. As
        namedtuple does, it writes the function that a person would write for just this: one struct call, a slice for
        each variable-width value. Nothing but numbers goes into the source. Measured with 19 fields, it takes half the
        time of a loop over prepared indexes.
        """
        asked = [field_id if field_id in self.types else None for field_id in field_ids]
        fixed = sorted({i for i in asked if i is not None and i in self.fixed}, key=self.fixed.__getitem__)
        ranks = {self.variable[i] for i in asked if i is not None and i in self.variable}
        # Ends wanted: each value's own, and the one before it, where it begins. The first begins where the data does.
        ends = sorted({end for rank in ranks for end in (rank - 1, rank) if end >= 0})
        number = {field_id: f"n{index}" for index, field_id in enumerate(fixed)}
        end = {rank: f"n{len(fixed) + index}" for index, rank in enumerate(ends)} | {-1: str(self.data_start)}

        def value(field_id: int | None) -> str:
            if field_id is None:
                return "None"
            if field_id in number:
                return number[field_id]
            rank = self.variable[field_id]
            decode = ".decode()" if self.types[field_id] is FieldType.STRING else ""
            return f"record[{end[rank - 1]}:{end[rank]}]{decode}"

        numbers = "".join(f"n{index}, " for index in range(len(fixed) + len(ends)))
        values = "".join(f"{value(field_id)}, " for field_id in asked)
        source = f"def read(record):\n    ({numbers}) = unpack(record)\n    return names, types, ({values})\n"
        namespace: dict[str, Any] = {
            "unpack": self._struct(fixed, ends).unpack_from,
            "names": tuple(names),
            "types": tuple(None if field_id is None else self.types[field_id] for field_id in asked),
        }
        exec(source, namespace)  # noqa: S102 - see above
        plan: Plan = namespace["read"]
        return plan

    def _struct(self, fixed: Sequence[int], ends: Sequence[int]) -> struct.Struct:
        """A struct that reads the given fixed-width fields and ends, both ascending, from a record's first byte on."""
        form, position = ["<"], 0
        for field_id in fixed:
            field_type = self.types[field_id]
            form.append(f"{self.fixed[field_id] - position}x{_FORMATS[field_type]}")
            position = self.fixed[field_id] + FIXED_WIDTHS[field_type]
        for rank in ends:
            offset = self._ends_at + 4 * rank
            form.append(f"{offset - position}xI")
            position = offset + 4
        return struct.Struct("".join(form))


def encode_record(shape: Shape | None, values: Mapping[int, FieldBytes], *, epoch: int, stored_key: bytes) -> bytes:
    """The record of `values`, in the layout of `shape`, or in the general one where that is None."""
    if shape is None:
        record = b"".join((HEADER.pack(GENERAL, epoch), *_general_body(values)))
        return record + _CHECKSUM.pack(crc32(record, crc32(stored_key)))
    data = [values[field_id][1] for field_id in shape.order]
    return shape.sealed(epoch, data, stored_key)


def general_fields(record: bytes) -> dict[int, FieldBytes]:
    """Every field of a record in the general layout."""
    (count,) = _COUNT.unpack_from(record, HEADER.size)
    entries = HEADER.size + _COUNT.size
    start = entries + count * _ENTRY.size
    found = {}
    for index in range(count):
        field_id, field_type, length = _ENTRY.unpack_from(record, entries + index * _ENTRY.size)
        found[field_id] = (FieldType(field_type), record[start : start + length])
        start += length
    return found


def general_row(values: Mapping[int, FieldBytes], names: Sequence[str], field_ids: Sequence[int | None]) -> Row:
    """The row of `field_ids`, called `names`, from fields already taken apart."""
    types: list[FieldType | None] = []
    row: list[Value | None] = []
    for field_id in field_ids:
        found = None if field_id is None else values.get(field_id)
        types.append(None if found is None else found[0])
        row.append(None if found is None else decode(*found))
    return tuple(names), tuple(types), row


def _general_body(values: Mapping[int, FieldBytes]) -> list[bytes]:
    entries = [_ENTRY.pack(field_id, field_type, len(data)) for field_id, (field_type, data) in values.items()]
    return [_COUNT.pack(len(values)), *entries, *(data for _, data in values.values())]

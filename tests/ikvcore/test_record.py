"""The record format: byte for byte what _record.py promises, and never a wrong value."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikvcore._record import (
    _COMPILED_AFTER,
    CRC_RESIDUE,
    GENERAL,
    Shape,
    encode_record,
    general_fields,
    general_row,
)
from ikvcore.fields import FieldBytes, FieldType, decode, encode

KEY = b"\x01\x00\x00alice"
FIELDS: dict[int, FieldBytes] = {
    1: (FieldType.STRING, b"alice"),
    2: (FieldType.INT32, struct.pack("<i", -5)),
    3: (FieldType.BYTES, b""),
    4: (FieldType.FLOAT64, struct.pack("<d", 0.5)),
    6: (FieldType.BOOLEAN, b"\x01"),
    9: (FieldType.STRING, "é".encode()),
}
TYPES = [field_type for field_type in FieldType if field_type is not FieldType.UNKNOWN]

VALUES: st.SearchStrategy[FieldBytes] = st.one_of(
    st.tuples(st.just(FieldType.INT32), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just(FieldType.INT64), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just(FieldType.FLOAT32), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just(FieldType.FLOAT64), st.floats(allow_nan=False)),
    st.tuples(st.just(FieldType.STRING), st.text(max_size=5)),
    st.tuples(st.just(FieldType.BYTES), st.binary(max_size=5)),
    st.tuples(st.just(FieldType.BOOLEAN), st.booleans()),
).map(lambda pair: (pair[0], encode("f", *pair)))


def shape_of(fields: Mapping[int, FieldBytes], shape_id: int = 7) -> Shape:
    return Shape(shape_id, tuple(sorted((field_id, value[0]) for field_id, value in fields.items())))


def test_the_shaped_layout() -> None:
    """Shape, epoch, fixed-width values by field id, ends of the variable ones, those, and the checksum."""
    record = encode_record(shape_of(FIELDS), FIELDS, epoch=3, stored_key=KEY)
    fixed = struct.pack("<id?", -5, 0.5, True)
    data_start = 8 + len(fixed) + 12
    ends = struct.pack("<III", data_start + 5, data_start + 5, data_start + 7)
    body = struct.pack("<II", 7, 3) + fixed + ends + b"alice" + "é".encode()
    assert record == body + crc32(KEY + body).to_bytes(4, "little")


def test_the_general_layout() -> None:
    """Shape 0, epoch, a count, (field id, type, length) of each field, the values, and the checksum."""
    fields = {9: (FieldType.STRING, b"xy"), 2: (FieldType.INT32, b"\x01\x00\x00\x00")}
    record = encode_record(None, fields, epoch=3, stored_key=KEY)
    body = struct.pack("<III", GENERAL, 3, 2) + struct.pack("<IBI", 9, 5, 2) + struct.pack("<IBI", 2, 1, 4)
    body += b"xy" + b"\x01\x00\x00\x00"
    assert record == body + crc32(KEY + body).to_bytes(4, "little")
    assert general_fields(record) == fields


@pytest.mark.parametrize("shape", [shape_of(FIELDS), None])
def test_the_residue_covers_key_and_record(shape: Shape | None) -> None:
    """The checksum over key and record is one constant; under any other key it is not."""
    record = encode_record(shape, FIELDS, epoch=3, stored_key=KEY)
    assert crc32(record, crc32(KEY)) == CRC_RESIDUE
    for other in (b"\x01\x00\x01alice", b"\x02\x00\x00alice", b"\x01\x00\x00alicf", b"", KEY + b"\x00"):
        assert crc32(record, crc32(other)) != CRC_RESIDUE


@pytest.mark.parametrize("shape", [shape_of(FIELDS), None])
def test_every_flipped_bit_breaks_the_residue(shape: Shape | None) -> None:
    record = encode_record(shape, FIELDS, epoch=3, stored_key=KEY)
    seed = crc32(KEY)
    for bit in range(8 * len(record)):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        assert crc32(damaged, seed) != CRC_RESIDUE


@pytest.mark.parametrize("shape", [shape_of(FIELDS), None])
def test_every_cut_breaks_the_residue(shape: Shape | None) -> None:
    record = encode_record(shape, FIELDS, epoch=3, stored_key=KEY)
    assert all(crc32(record[:end], crc32(KEY)) != CRC_RESIDUE for end in range(len(record)))


@given(st.dictionaries(st.integers(0, 12), VALUES, max_size=10), st.data())
def test_every_projection_of_every_shape(fields: dict[int, FieldBytes], data: st.DataObject) -> None:
    """A compiled projection gives what decoding field by field gives: any order, repeats, unknown and absent ids."""
    shape = shape_of(fields)
    record = encode_record(shape, fields, epoch=1, stored_key=KEY)
    assert shape.values(record) == fields
    asked = data.draw(st.lists(st.one_of(st.none(), st.integers(1, 14)), min_size=1, max_size=8))
    names = [f"n{index}" for index in range(len(asked))]
    found_names, types, values = shape.plan(names, asked)(record)
    expected = [fields.get(field_id) if field_id is not None else None for field_id in asked]
    assert tuple(found_names) == tuple(names)
    assert tuple(types) == tuple(None if field is None else field[0] for field in expected)
    assert list(values) == [None if field is None else decode(*field) for field in expected]
    assert [str(value) for value in values] == [  # -0.0 and the like
        "None" if field is None else str(decode(*field)) for field in expected
    ]


@given(
    st.dictionaries(st.integers(0, 12), VALUES, max_size=10),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=3, max_size=9),
)
def test_a_shape_that_is_met_often_writes_and_reads_the_same_records(
    fields: dict[int, FieldBytes], epoch: int, stored_key: bytes
) -> None:
    """What is compiled then comes to the same bytes; and takes its id when it is used, which may come later."""
    shape, other = shape_of(fields), shape_of(fields)
    data = [fields[field_id][1] for field_id in shape.order]
    first = shape.sealed(epoch, data, stored_key)
    assert crc32(first, crc32(stored_key)) == CRC_RESIDUE
    for _ in range(_COMPILED_AFTER):
        assert other.sealed(epoch, data, stored_key) == first
        assert other.data(first) == tuple(data)
    assert other._seal is not None
    assert shape._seal is None
    other.id = shape.id = 9
    assert other.sealed(epoch, data, stored_key) == shape.sealed(epoch, data, stored_key) != first
    with pytest.raises(ValueError, match="unpack"):
        other.sealed(epoch, [*data, b""], stored_key)


def test_a_shape_of_very_many_fields_is_not_compiled() -> None:
    fields = {number: (FieldType.STRING, b"%d" % number) for number in range(1, 400)}
    shape = shape_of(fields)
    for _ in range(2 * _COMPILED_AFTER):
        record = shape.sealed(1, [fields[field_id][1] for field_id in shape.order], KEY)
        assert shape.values(record) == fields
    assert shape._seal is None


@given(st.dictionaries(st.integers(0, 12), VALUES, max_size=10), st.lists(st.integers(1, 14), max_size=8))
def test_both_layouts_read_alike(fields: dict[int, FieldBytes], asked: list[int]) -> None:
    """A record in the general layout gives the row that the shaped one gives."""
    names = [f"n{index}" for index in range(len(asked))]
    general = general_row(general_fields(encode_record(None, fields, epoch=1, stored_key=KEY)), names, asked)
    shape = shape_of(fields)
    shaped = shape.plan(names, asked)(encode_record(shape, fields, epoch=1, stored_key=KEY))
    assert [list(part) for part in general] == [list(part) for part in shaped]


@pytest.mark.parametrize("field_type", TYPES)
def test_a_record_of_one_field_of_each_type(field_type: FieldType) -> None:
    """The single get's own plan, for each type, first and not first among the variable ones."""
    sample = {
        FieldType.STRING: b"text",
        FieldType.BYTES: b"\xff",
        FieldType.BOOLEAN: b"\x01",
        FieldType.INT32: b"\x01\x00\x00\x00",
        FieldType.INT64: b"\x01" + b"\x00" * 7,
        FieldType.FLOAT32: struct.pack("<f", 1.5),
        FieldType.FLOAT64: struct.pack("<d", 1.5),
    }
    fields = {1: (FieldType.STRING, b"first"), 5: (field_type, sample[field_type]), 6: (FieldType.BYTES, b"last")}
    shape = shape_of(fields)
    record = encode_record(shape, fields, epoch=0, stored_key=KEY)
    names, types, values = shape.plan(["x"], [5])(record)
    assert (tuple(names), tuple(types), list(values)) == (("x",), (field_type,), [decode(*fields[5])])
    assert type(next(iter(values))) is type(decode(*fields[5]))


def test_signalling_nans_keep_their_bits_in_the_record() -> None:
    """C3.8: values lie in the record as they came, never through a Python float."""
    fields = {1: (FieldType.FLOAT32, b"\x01\x00\xa0\x7f"), 2: (FieldType.FLOAT64, b"\x01\x00\x00\x00\x00\x00\xf4\x7f")}
    shape = shape_of(fields)
    assert shape.values(encode_record(shape, fields, epoch=0, stored_key=KEY)) == fields

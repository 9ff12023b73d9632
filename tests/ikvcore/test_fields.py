"""ikvcore.fields: what each type takes, refuses and keeps bit for bit."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from ikvcore.errors import FieldNameError, FieldValueError, UnsupportedTypeError
from ikvcore.fields import FieldType, check_name, decode, encode, encode_any

BITS = {FieldType.INT32: 31, FieldType.INT64: 63}
FORMS = {FieldType.FLOAT32: "<f", FieldType.FLOAT64: "<d"}


@pytest.mark.parametrize(
    ("field_type", "value", "data"),
    [
        (FieldType.INT32, -2, b"\xfe\xff\xff\xff"),
        (FieldType.INT64, 1, b"\x01" + bytes(7)),
        (FieldType.FLOAT32, 1.0, b"\x00\x00\x80\x3f"),
        (FieldType.FLOAT64, 1.0, b"\x00\x00\x00\x00\x00\x00\xf0\x3f"),
        (FieldType.STRING, "é", b"\xc3\xa9"),
        (FieldType.BYTES, b"\x00\xff", b"\x00\xff"),
        (FieldType.BOOLEAN, True, b"\x01"),
        (FieldType.BOOLEAN, False, b"\x00"),
    ],
)
def test_values_have_the_wire_encoding_and_come_back(field_type: FieldType, value: Any, data: bytes) -> None:
    assert encode("f", field_type, value) == data
    back = decode(field_type, data)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("field_type", BITS)
def test_ints_reach_the_ends_of_their_range_and_not_beyond(field_type: FieldType) -> None:
    least, most = -(2 ** BITS[field_type]), 2 ** BITS[field_type] - 1
    assert decode(field_type, encode("f", field_type, least)) == least
    assert decode(field_type, encode("f", field_type, most)) == most
    for beyond in (least - 1, most + 1):
        with pytest.raises(FieldValueError, match=rf"'f' cannot hold {beyond}.*{field_type.name}") as caught:
            encode("f", field_type, beyond)
        assert not isinstance(caught.value, UnsupportedTypeError)


@pytest.mark.parametrize("field_type", BITS)
def test_int_fields_refuse_bool_and_name_the_right_method(field_type: FieldType) -> None:
    with pytest.raises(UnsupportedTypeError, match="put_bool_field"):
        encode("f", field_type, True)


@pytest.mark.parametrize("value", [1.0, "1", b"1", None, [1]])
def test_int_fields_refuse_what_is_not_exactly_an_int(value: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match=type(value).__name__):
        encode("f", FieldType.INT64, value)


@pytest.mark.parametrize("value", [True, "1.0", b"1", None])
@pytest.mark.parametrize("field_type", FORMS)
def test_float_fields_refuse_bool_and_text(field_type: FieldType, value: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match=type(value).__name__):
        encode("f", field_type, value)


def test_float_fields_take_ints() -> None:
    assert decode(FieldType.FLOAT64, encode("f", FieldType.FLOAT64, 3)) == 3.0
    assert decode(FieldType.FLOAT32, encode("f", FieldType.FLOAT32, -3)) == -3.0


@pytest.mark.parametrize("value", [3.5e38, -3.5e38, 1e300])
def test_float32_refuses_what_would_overflow(value: float) -> None:
    with pytest.raises(FieldValueError, match="out of the range of FLOAT32"):
        encode("f", FieldType.FLOAT32, value)


def test_float64_refuses_ints_that_would_overflow() -> None:
    with pytest.raises(FieldValueError, match="out of the range of FLOAT64"):
        encode("f", FieldType.FLOAT64, 10**400)


@pytest.mark.parametrize("value", [-0.0, 0.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field_type", FORMS)
def test_special_floats_come_back_bit_equal(field_type: FieldType, value: float) -> None:
    data = encode("f", field_type, value)
    assert data == struct.pack(FORMS[field_type], value)
    assert struct.pack(FORMS[field_type], decode(field_type, data)) == data


def test_a_float64_nan_keeps_its_payload() -> None:
    data = bytes.fromhex("efbeaddeadbef87f")
    value = struct.unpack("<d", data)[0]
    assert encode("f", FieldType.FLOAT64, value) == data
    assert struct.pack("<d", decode(FieldType.FLOAT64, data)) == data


@pytest.mark.parametrize(
    "value", [b"\x00ab", bytearray(b"\x00ab"), memoryview(b"\x00ab"), memoryview(b"b.a.\x00.")[::-2]]
)
def test_bytes_fields_take_every_bytes_like_value(value: Any) -> None:
    data = encode("f", FieldType.BYTES, value)
    assert type(data) is bytes
    assert data == bytes(value)
    assert encode_any("f", value) == (FieldType.BYTES, data)


def test_bytes_are_copied() -> None:
    value = bytearray(b"before")
    data = encode("f", FieldType.BYTES, value)
    value[:] = b"after!"
    assert data == b"before"


@pytest.mark.parametrize("value", ["text", 3, None, [1, 2]])
def test_bytes_fields_refuse_other_types(value: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match=type(value).__name__):
        encode("f", FieldType.BYTES, value)


@pytest.mark.parametrize("value", [b"x", bytearray(b"x"), memoryview(b"x")])
def test_string_fields_refuse_bytes_and_name_put_bytes_field(value: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match="put_bytes_field"):
        encode("f", FieldType.STRING, value)


def test_string_fields_refuse_lone_surrogates() -> None:
    with pytest.raises(FieldValueError, match="no UTF-8 form"):
        encode("f", FieldType.STRING, "\ud800")
    with pytest.raises(FieldValueError, match="no UTF-8 form"):
        encode_any("f", "a\udfff")


@pytest.mark.parametrize("value", [0, 1, "True", None, b"\x01"])
def test_bool_fields_refuse_all_but_bool(value: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match="BOOLEAN"):
        encode("f", FieldType.BOOLEAN, value)


def test_empty_strings_and_bytes_are_values() -> None:
    assert decode(*encode_any("f", "")) == ""
    assert decode(*encode_any("f", b"")) == b""


@pytest.mark.parametrize(
    ("value", "field_type"),
    [
        (True, FieldType.BOOLEAN),
        (1, FieldType.INT64),
        (1.0, FieldType.FLOAT64),
        ("1", FieldType.STRING),
        (b"1", FieldType.BYTES),
    ],
)
def test_a_value_put_without_a_type_takes_that_of_its_class(value: Any, field_type: FieldType) -> None:
    assert encode_any("f", value)[0] is field_type


def test_none_is_refused_with_a_word_on_delete_fields() -> None:
    with pytest.raises(UnsupportedTypeError, match="delete_fields"):
        encode_any("f", None)


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, 1j, object()])
def test_other_types_are_refused_by_name(value: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match=f"not {type(value).__name__}"):
        encode_any("f", value)


@pytest.mark.parametrize(
    ("scalar", "field_type", "twin"),
    [
        ("bool_", FieldType.BOOLEAN, True),
        ("int8", FieldType.INT64, 1),
        ("uint8", FieldType.INT64, 1),
        ("int32", FieldType.INT64, 1),
        ("int64", FieldType.INT64, 1),
        ("uint64", FieldType.INT64, 1),
        ("float16", FieldType.FLOAT64, 1.0),
        ("float32", FieldType.FLOAT64, 1.0),
        ("float64", FieldType.FLOAT64, 1.0),
        ("str_", FieldType.STRING, "1"),
        ("bytes_", FieldType.BYTES, b"1"),
    ],
)
def test_numpy_scalars_are_taken_as_their_python_twins(scalar: str, field_type: FieldType, twin: Any) -> None:
    numpy = pytest.importorskip("numpy")
    assert encode_any("f", getattr(numpy, scalar)(twin)) == (field_type, encode("f", field_type, twin))


def test_numpy_scalars_are_range_checked() -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(FieldValueError, match="INT64"):
        encode_any("f", numpy.uint64(2**63))
    with pytest.raises(FieldValueError, match="INT32"):
        encode("f", FieldType.INT32, numpy.int64(2**31))
    with pytest.raises(FieldValueError, match="FLOAT32"):
        encode("f", FieldType.FLOAT32, numpy.float64(1e39))


def test_a_numpy_longdouble_beyond_float64_does_not_become_infinite() -> None:
    numpy = pytest.importorskip("numpy")
    value = numpy.longdouble(2) ** 2000
    if numpy.isinf(value):
        pytest.skip("longdouble is float64 on this machine")
    with pytest.raises(FieldValueError, match="FLOAT64"):
        encode("f", FieldType.FLOAT64, value)
    assert encode("f", FieldType.FLOAT64, numpy.longdouble("inf")) == struct.pack("<d", math.inf)


def test_numpy_bools_and_timedeltas_are_no_ints() -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(UnsupportedTypeError, match="put_bool_field"):
        encode("f", FieldType.INT32, numpy.bool_(True))
    for field_type in (FieldType.INT64, FieldType.FLOAT64):
        with pytest.raises(UnsupportedTypeError, match="timedelta64"):
            encode("f", field_type, numpy.timedelta64(5, "s"))
    with pytest.raises(UnsupportedTypeError, match="datetime64"):
        encode_any("f", numpy.datetime64("2024-01-01"))


def test_a_numpy_array_is_no_value() -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(UnsupportedTypeError, match="ndarray"):
        encode_any("f", numpy.array([1.0]))


def test_a_numpy_float32_keeps_a_signalling_nan_and_minus_zero() -> None:
    numpy = pytest.importorskip("numpy")
    for data in (bytes.fromhex("0100a07f"), bytes.fromhex("00000080")):
        value = numpy.frombuffer(data, dtype="<f4")[0]
        assert encode("f", FieldType.FLOAT32, value) == data


@pytest.mark.parametrize("name", ["", b"name", None, 3, "\ud800"])
def test_field_names_are_str_not_empty_and_encodable(name: Any) -> None:
    with pytest.raises(FieldNameError, match="cannot be a field name"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", " ", "\x00", "naïve", "名前"])
def test_any_other_str_is_a_field_name(name: str) -> None:
    assert check_name(name) == name


def test_unknown_is_no_type_for_a_value() -> None:
    with pytest.raises(FieldValueError, match="UNKNOWN"):
        encode("f", FieldType.UNKNOWN, 1)

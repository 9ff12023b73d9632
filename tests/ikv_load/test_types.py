"""What a column of each type becomes, by itself and by a cast."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any

import pytest

from ikvcore.errors import InvalidArgumentError
from ikvcore.fields import FieldType as T

MAPPING = [
    ("'-128'::TINYINT", T.INT32, -128),
    ("'-32768'::SMALLINT", T.INT32, -32_768),
    ("'-2147483648'::INTEGER", T.INT32, -(2**31)),
    ("255::UTINYINT", T.INT32, 255),
    ("65535::USMALLINT", T.INT32, 65_535),
    ("4294967295::UINTEGER", T.INT64, 2**32 - 1),
    ("'-9223372036854775808'::BIGINT", T.INT64, -(2**63)),
    ("1.5::FLOAT", T.FLOAT32, 1.5),
    ("0.1::DOUBLE", T.FLOAT64, 0.1),
    ("'inf'::DOUBLE", T.FLOAT64, math.inf),
    ("''", T.STRING, ""),
    ("'grün'", T.STRING, "grün"),
    ("'b'::ENUM('a', 'b')", T.STRING, "b"),
    ("'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::UUID", T.STRING, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("'\\x00\\xFF'::BLOB", T.BYTES, b"\x00\xff"),
    ("''::BLOB", T.BYTES, b""),
    ("true", T.BOOLEAN, True),
    ("false", T.BOOLEAN, False),
    ("DATE '2013-01-02'", T.STRING, "2013-01-02"),
    ("TIMESTAMP '2013-01-02 03:04:05'", T.STRING, "2013-01-02T03:04:05"),
    ("TIMESTAMP '2013-01-02 03:04:00.5'", T.STRING, "2013-01-02T03:04:00.5"),
    ("TIMESTAMP_S '2013-01-02 03:04:05'", T.STRING, "2013-01-02T03:04:05"),
    ("TIMESTAMP_MS '2013-01-02 03:04:05.678'", T.STRING, "2013-01-02T03:04:05.678"),
    ("TIMESTAMP_NS '2013-01-02 03:04:05.123456789'", T.STRING, "2013-01-02T03:04:05.123456789"),
    ("TIMESTAMPTZ '2013-01-02 03:04:05+02:00'", T.STRING, "2013-01-02T01:04:05Z"),
    ("TIMESTAMPTZ '2013-01-02 03:04:05.25+00'", T.STRING, "2013-01-02T03:04:05.25Z"),
]


@pytest.mark.parametrize(("value", "kind", "expected"), MAPPING, ids=[value for value, _, _ in MAPPING])
def test_a_column_becomes_a_field_of_its_type(
    store: Any, parquet: Callable[[str], str], value: str, kind: T, expected: object
) -> None:
    report = store.load(parquet("SELECT '1' AS id"), select=f"id, {value} AS v")
    assert (report.rows, report.loaded, report.refused) == (1, 1, {})
    assert store.typed() == {"v": (kind, expected)}


def test_floats_keep_their_bits(store: Any) -> None:
    import pyarrow as pa

    bits = struct.pack("<3d", math.nan, -0.0, -math.nan)
    floats = pa.Array.from_buffers(pa.float64(), 3, [None, pa.py_buffer(bits)])
    store.load(pa.table({"id": ["1", "2", "3"], "v": floats}))
    assert struct.pack("<3d", *(store.typed(key)["v"][1] for key in "123")) == bits


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("DATE '1970-01-02'", 86_400_000_000),
        ("TIMESTAMP '1970-01-01 00:00:01.5'", 1_500_000),
        ("TIMESTAMP_NS '1970-01-01 00:00:01.000001'", 1_000_001),
        ("TIMESTAMPTZ '1970-01-01 02:00:00+02'", 0),
        ("TIMESTAMP '1969-12-31 23:59:59'", -1_000_000),
    ],
)
def test_times_become_microseconds_where_that_is_asked_for(
    store: Any, parquet: Callable[[str], str], value: str, expected: int
) -> None:
    store.load(parquet("SELECT '1' AS id"), select=f"id, {value} AS v", timestamps="epoch-us")
    assert store.typed() == {"v": (T.INT64, expected)}


def test_a_time_that_microseconds_are_too_coarse_for_refuses_its_row(store: Any, parquet: Callable[[str], str]) -> None:
    value = "TIMESTAMP_NS '1970-01-01 00:00:01.000001001'"
    report = store.load(parquet("SELECT '1' AS id"), select=f"id, {value} AS v", timestamps="epoch-us")
    assert report.loaded == 0
    assert sum(report.refused.values()) == 1


@pytest.mark.parametrize("value", ["DATE 'infinity'", "TIMESTAMP '0044-03-15 (BC) 12:00:00'", "DATE '10000-01-01'"])
def test_a_time_that_iso_8601_has_no_form_for_refuses_its_row(
    store: Any, parquet: Callable[[str], str], value: str
) -> None:
    report = store.load(parquet("SELECT '1' AS id"), select=f"id, {value} AS v")
    assert (report.loaded, report.refused) == (0, {"column 'v' does not become string": 1})


@pytest.mark.parametrize(
    "value",
    [
        "1.5::DECIMAL(4, 2)",
        "1::HUGEINT",
        "1::UHUGEINT",
        "1::UBIGINT",
        "TIME '10:00'",
        "INTERVAL 1 DAY",
        "'1'::BIT",
        "'1'::JSON",
    ],
)
def test_a_type_without_a_field_type_needs_a_cast(store: Any, parquet: Callable[[str], str], value: str) -> None:
    source, select = parquet("SELECT '1' AS id"), f"id, {value} AS v, {value} AS w"
    with pytest.raises(InvalidArgumentError, match=r"need a cast: 'v' \(.*\), 'w' \("):
        store.load(source, select=select)
    store.load(source, select=select, casts={"v": "string", "w": "bytes"})
    v, w = store.typed()["v"], store.typed()["w"]
    assert v[0] is T.STRING
    assert w == (T.BYTES, v[1].encode())


def test_nested_columns_are_refused_by_name_all_at_once(store: Any, parquet: Callable[[str], str]) -> None:
    nested = {"l": "[1]", "s": "{'x': 1}", "m": "MAP {'a': 1}", "a": "array_value(1, 2)", "u": "[{'x': [1]}]"}
    source = parquet(f"SELECT '1' AS id, 5 AS plain, {', '.join(f'{sql} AS {name}' for name, sql in nested.items())}")
    with pytest.raises(InvalidArgumentError, match="nested columns cannot be fields") as caught:
        store.load(source)
    assert [name for name in (*nested, "plain") if repr(name) in str(caught.value)] == list(nested)
    assert store.reader.count() == 0
    store.load(source, casts=dict.fromkeys(nested, "string"))
    assert json.loads(store.typed()["u"][1]) == [{"x": [1]}]
    store.load(source, select="id, s.x AS x")
    assert store.typed()["x"] == (T.INT32, 1)


CASTS = [
    ("'12'", "int32", 12),
    ("' +12.0 '", "int64", 12),
    ("12.0::DOUBLE", "int32", 12),
    ("12.00::DECIMAL(6, 2)", "int64", 12),
    ("true", "int32", 1),
    ("7::UBIGINT", "int64", 7),
    ("TIMESTAMP '1970-01-01 00:00:01'", "int64", 1_000_000),
    ("0.1::DOUBLE", "float32", struct.unpack("<f", struct.pack("<f", 0.1))[0]),
    ("12345678.91::DECIMAL(12, 2)", "float64", 12345678.91),
    ("16777216", "float32", 16777216.0),
    ("'1e3'", "float64", 1000.0),
    ("'inf'", "float64", math.inf),
    ("1", "boolean", True),
    ("'false'", "boolean", False),
    ("5", "string", "5"),
    ("1.50::DECIMAL(4, 2)", "string", "1.50"),
    ("encode('grün')", "string", "grün"),
    ("'grün'", "bytes", "grün".encode()),
    ("'{\"a\": 1}'::JSON", "string", '{"a":1}'),
    ("'\"text\"'::JSON", "string", "text"),
    ("'7'::JSON", "int64", 7),
    ("DATE '2013-01-02'", "string", "2013-01-02"),
    ("TIMESTAMPTZ '2013-01-02 03:04:05+02'", "string", "2013-01-02T01:04:05Z"),
]


@pytest.mark.parametrize(("value", "word", "expected"), CASTS, ids=lambda each: str(each))
def test_a_cast_gives_the_type_that_was_asked_for(
    store: Any, parquet: Callable[[str], str], value: str, word: str, expected: object
) -> None:
    assert store.load(parquet("SELECT '1' AS id"), select=f"id, {value} AS v", casts={"v": word}).refused == {}
    assert store.typed() == {"v": (T[word.upper()], expected)}


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("1.5::DOUBLE", "int64"),
        ("1.5::DECIMAL(4, 2)", "int32"),
        ("'1.5'", "int64"),
        ("'0x10'", "int64"),
        ("'1_000'", "int64"),
        ("''", "int32"),
        ("'nan'::DOUBLE", "int64"),
        ("2147483648", "int32"),
        ("18446744073709551615::UBIGINT", "int64"),
        ("1e300::DOUBLE", "float32"),
        ("'1e400'", "float64"),
        ("9007199254740993", "float64"),
        ("16777217", "float32"),
        ("12345678901234567.89::DECIMAL(20, 2)", "float64"),
        ("7", "boolean"),
        ("'maybe'", "boolean"),
        ("'\\xFF'::BLOB", "string"),
    ],
)
def test_a_cast_that_would_fail_or_lose_refuses_its_row_alone(
    store: Any, parquet: Callable[[str], str], value: str, word: str
) -> None:
    source = parquet("SELECT id FROM (VALUES ('1'), ('2')) AS t(id)")
    report = store.load(source, select=f"id, CASE WHEN id = '1' THEN {value} END AS v", casts={"v": word})
    assert (report.rows, report.loaded) == (2, 1)
    assert report.refused == {f"column 'v' does not become {word}": 1}
    assert store.all() == {"2": {"id": "2"}}


def test_a_cast_that_no_value_could_pass_is_an_error_of_the_call(store: Any, parquet: Callable[[str], str]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"'v' is TIME, which cannot be cast to int64"):
        store.load(parquet("SELECT '1' AS id, TIME '10:00' AS v"), casts={"v": "int64"})


@pytest.mark.parametrize(
    "kind", ["INTEGER", "DOUBLE", "VARCHAR", "BLOB", "BOOLEAN", "TIMESTAMP", "DATE", "TIMESTAMPTZ"]
)
def test_null_is_an_absent_field(store: Any, parquet: Callable[[str], str], kind: str) -> None:
    """In the middle of a column, where the values around it must stay in their rows."""
    some = {"BOOLEAN": "true", "BLOB": "'x'"}.get(
        kind, "'2013-01-02'" if kind[0] in "DT" and kind != "DOUBLE" else "'5'"
    )
    rows = ", ".join(f"('{n}', {'NULL' if n % 3 == 1 else f'{some}::{kind}'})" for n in range(10))
    assert store.load(parquet(f"SELECT id, v::{kind} AS v FROM (VALUES {rows}) AS t(id, v)")).loaded == 10
    assert [key for key, document in sorted(store.all().items()) if "v" not in document] == ["1", "4", "7"]


def test_a_column_without_any_value_gives_no_field(store: Any) -> None:
    import pyarrow as pa

    store.load(pa.table({"id": ["1"], "nothing": pa.nulls(1)}))
    assert store.all() == {"1": {"id": "1"}}

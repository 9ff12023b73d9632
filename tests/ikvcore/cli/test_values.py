"""Documents as JSON and on the command line."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikvcore.cli._cells import cell, plain_text, visible
from ikvcore.cli._values import TYPE_WORDS, document_of_assignments, fields_of, json_line, parsed_document
from ikvcore.document import IKVDocument, IKVDocumentBuilder
from ikvcore.errors import InvalidArgumentError
from ikvcore.fields import FieldType, decode
from ikvcore.models import Row

FLOAT64 = st.floats(allow_nan=False)
TYPED = {
    "string": st.text(st.characters(exclude_categories=["Cs"])),
    "bytes": st.binary(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(allow_nan=False, width=32),
    "float64": FLOAT64,
    "boolean": st.booleans(),
}


def row_of(document: IKVDocument) -> Row:
    """As a replica would give it."""
    types, values = zip(*((kind, decode(kind, data)) for kind, data in document.fields.values()), strict=True)
    return tuple(document.fields), types, values


def line_of(document: IKVDocument, *, typed: bool) -> bytes:
    return json_line(fields_of(row_of(document), typed=typed)).encode()


@given(st.data())
def test_typed_lines_are_read_back_as_the_same_document(data: st.DataObject) -> None:
    builder = IKVDocumentBuilder()
    for word, values in TYPED.items():
        put = builder.put_bool_field if word == "boolean" else getattr(builder, f"put_{word}_field")
        put(data.draw(st.sampled_from(["", "\u2028", "é:="])) + word, data.draw(values))
    document = builder.build()
    assert {kind for kind, _ in document.fields.values()} == set(TYPE_WORDS.values())
    line = line_of(document, typed=True)
    assert parsed_document(line) == document
    assert len(line.splitlines()) == 1


@given(st.one_of(TYPED["string"], TYPED["bytes"], TYPED["int64"], FLOAT64, st.booleans()))
def test_plain_lines_are_read_back_where_the_type_is_that_of_the_value(value: Any) -> None:
    document = IKVDocument.from_dict({"x": value})
    assert parsed_document(line_of(document, typed=False)) == document


@pytest.mark.parametrize("width", ["float32", "float64"])
def test_nan_is_carried(width: str) -> None:
    document = parsed_document(f'{{"x": {{"{width}": "NaN"}}}}'.encode())
    kind, data = document.fields["x"]
    assert kind is TYPE_WORDS[width]
    assert math.isnan(float(decode(kind, data)))
    assert parsed_document(line_of(document, typed=False)) == document


def test_a_line_holds_no_character_that_a_terminal_obeys() -> None:
    line = json_line({"a\x1b": "\x00\x1b[2J\x7f\x9b31m\u2028é日"})
    assert line.isprintable()
    assert "é日" in line
    assert json.loads(line) == {"a\x1b": "\x00\x1b[2J\x7f\x9b31m\u2028é日"}


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert parsed_document(b'\xef\xbb\xbf{"a": "b"}\r\n').to_dict() == {"a": "b"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "not JSON"),
        ("[1]", "a document is a JSON object"),
        ('{"a": 1, "a": 2}', "'a' twice"),
        ('{"a": null}', "ikv delete --field"),
        ('{"a": [1]}', "holds one value"),
        ('{"a": {"int32": 1, "int64": 1}}', "names one type"),
        ('{"a": {"int": 1}}', "did you mean 'int"),
        ('{"a": {"int32": 2147483648}}', "INT32 holds"),
        ('{"a": {"int64": "7"}}', "takes int, not str"),
        ('{"a": 9223372036854775808}', "INT64 holds"),
        ('{"a": 1e400}', "out of the range"),
        ('{"a": {"float64": "1e400"}}', "in the range"),
        ('{"a": {"float64": "1_0"}}', "is not a number"),
        ('{"a": {"bytes": "?"}}', "base64"),
        ('{"a": {"bytes": 7}}', "base64"),
        ('{"a": {"boolean": 1}}', "takes bool"),
        ('{"": 1}', "cannot be a field name"),
        ('{"a": "\\ud800"}', "UTF-8"),
        ("9" * 5_000, "no field can"),
        ("[" * 100_000, "nested"),
    ],
)
def test_what_is_no_document_is_refused_with_a_word_on_why(line: str, told: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        parsed_document(line.encode())
    assert told in str(refused.value)
    assert len(str(refused.value)) < 400


def test_what_is_not_utf_8_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="not UTF-8"):
        parsed_document(b'{"a": "\xff"}')


def test_fields_of_the_command_line_are_strings_or_what_they_are_said_to_be() -> None:
    given = ["s=a=b:c", "i:int32=-7", "l:int64=+7", "f:float32=.5", "d:float64=-inf", "b:bytes=/wA=", "t:boolean=false"]
    document = document_of_assignments([*given, "e="])
    assert document.to_dict() == {
        "s": "a=b:c",
        "i": -7,
        "l": 7,
        "f": 0.5,
        "d": -math.inf,
        "b": b"\xff\x00",
        "t": False,
        "e": "",
    }
    assert [kind.name for kind, _ in document.fields.values()] == (
        ["STRING", "INT32", "INT64", "FLOAT32", "FLOAT64", "BYTES", "BOOLEAN", "STRING"]
    )


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("age", "FIELD=VALUE"),
        ("=7", "FIELD=VALUE"),
        (":int32=7", "FIELD=VALUE"),
        ("age:int=7", "did you mean 'int"),
        ("url:http=x", "goes into --json"),
        ("age:int32=7.0", "whole number"),
        ("age:int32=7_0", "whole number"),
        ("age:int32=\u0667", "whole number"),
        ("age:int32=" + "9" * 4_000, "INT32 holds"),
        ("age:int64=" + "9" * 5_000, "whole number"),
        ("f:float32=1e39", "out of the range"),
        ("f:float64= 1", "is not a number"),
        ("m:boolean=True", "true or false"),
        ("b:bytes=a", "base64"),
    ],
)
def test_what_is_no_field_is_refused_with_a_word_on_why(assignment: str, told: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        document_of_assignments([assignment])
    assert told in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_field_is_given_once() -> None:
    with pytest.raises(InvalidArgumentError, match="twice"):
        document_of_assignments(["a=1", "a:int32=1"])


def test_unseen_characters_are_shown_escaped() -> None:
    assert visible("a\x1b[31m\n\u202e\x9bé日") == "a\\x1b[31m\\n\\u202e\\x9bé日"


def test_a_long_value_is_cut_with_a_mark() -> None:
    assert cell("x" * 501) == "x" * 500 + "… (501 characters)"
    assert cell(b"\x00" * 3, longest=3) == "AAAA"
    assert cell(b"\x00" * 4, longest=3) == "AAAA… (4 bytes)"


@given(TYPED["float32"])
def test_a_float32_is_shown_in_no_more_digits_than_it_has(value: float) -> None:
    shown = plain_text(value, FieldType.FLOAT32)
    assert len(shown.split("e")[0].strip("-").replace(".", "").strip("0")) <= 9
    single = struct.Struct("<f")
    assert abs(value) > 3.4e38 or single.pack(float(shown)) == single.pack(value)


def test_a_tenth_is_a_tenth() -> None:
    (tenth,) = struct.unpack("<f", struct.pack("<f", 0.1))
    assert (plain_text(tenth, FieldType.FLOAT32), plain_text(tenth, FieldType.FLOAT64)) == (
        *("0.1", "0.10000000149011612"),
    )

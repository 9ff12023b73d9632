"""ikvcore.document: documents, and the builder that makes them."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
from typing import Any

import pytest

from ikvcore.document import IKVDocument, IKVDocumentBuilder
from ikvcore.errors import FieldNameError, FieldValueError, IKVError, InvalidArgumentError, UnsupportedTypeError
from ikvcore.fields import FieldType


def full_builder() -> IKVDocumentBuilder:
    return (
        IKVDocumentBuilder()
        .put_string_field("string", "é")
        .put_bytes_field("bytes", b"\x00")
        .put_int32_field("int32", -5)
        .put_int64_field("int64", 2**40)
        .put_float32_field("float32", 1.5)
        .put_float64_field("float64", 0.1)
        .put_bool_field("bool", True)
        .put_field("any", 7)
    )


def test_every_put_sets_a_field_of_its_type() -> None:
    document = full_builder().build()
    assert {name: field_type for name, (field_type, _) in document.fields.items()} == {
        "string": FieldType.STRING,
        "bytes": FieldType.BYTES,
        "int32": FieldType.INT32,
        "int64": FieldType.INT64,
        "float32": FieldType.FLOAT32,
        "float64": FieldType.FLOAT64,
        "bool": FieldType.BOOLEAN,
        "any": FieldType.INT64,
    }


def test_to_dict_gives_python_values_in_the_order_they_were_put() -> None:
    values = full_builder().build().to_dict()
    assert list(values.items()) == [
        ("string", "é"),
        ("bytes", b"\x00"),
        ("int32", -5),
        ("int64", 2**40),
        ("float32", 1.5),
        ("float64", 0.1),
        ("bool", True),
        ("any", 7),
    ]
    assert values["bool"] is True


@pytest.mark.parametrize(
    "method",
    [
        "put_string_field",
        "put_bytes_field",
        "put_int32_field",
        "put_int64_field",
        "put_float32_field",
        "put_float64_field",
        "put_bool_field",
        "put_field",
    ],
)
def test_every_put_returns_the_builder_and_takes_name_and_value(method: str) -> None:
    good = {"put_string_field": "x", "put_bytes_field": b"x", "put_bool_field": True}.get(method, 1)
    builder = IKVDocumentBuilder()
    assert getattr(builder, method)(name="f", value=good) is builder
    for name in ("", None, b"f", "\ud800"):
        with pytest.raises(FieldNameError):
            getattr(builder, method)(name, good)
    assert len(builder.build()) == 1


def test_a_name_put_again_takes_the_new_value_and_type() -> None:
    document = IKVDocumentBuilder().put_int32_field("f", 1).put_string_field("f", "two").build()
    assert document.to_dict() == {"f": "two"}
    assert document.fields["f"][0] is FieldType.STRING


def test_a_refused_field_leaves_the_builder_as_it_was() -> None:
    builder = IKVDocumentBuilder().put_int32_field("f", 1)
    with pytest.raises(FieldValueError):
        builder.put_int32_field("f", 2**31)
    with pytest.raises(FieldValueError):
        builder.put_float32_field("g", 1e39)
    assert builder.build().to_dict() == {"f": 1}


@pytest.mark.parametrize(
    ("method", "value", "word"),
    [
        ("put_string_field", b"x", "put_bytes_field"),
        ("put_int32_field", True, "put_bool_field"),
        ("put_int64_field", False, "put_bool_field"),
        ("put_field", None, "delete_fields"),
    ],
)
def test_a_wrong_type_names_the_right_method(method: str, value: Any, word: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=word):
        getattr(IKVDocumentBuilder(), method)("f", value)


def test_a_built_document_shares_nothing_with_its_builder() -> None:
    buffer = bytearray(b"before")
    builder = IKVDocumentBuilder().put_bytes_field("f", buffer)
    document = builder.build()
    buffer[:] = b"after!"
    builder.put_bytes_field("f", b"other").put_string_field("g", "new")
    assert document.to_dict() == {"f": b"before"}
    assert builder.build().to_dict() == {"f": b"other", "g": "new"}


def test_from_dict_types_values_as_put_field_does() -> None:
    values = {"a": True, "b": 1, "c": 1.0, "d": "x", "e": bytearray(b"y")}
    document = IKVDocument.from_dict(values)  # type: ignore[arg-type]  # bytearray is taken where bytes are
    builder = IKVDocumentBuilder()
    for name, value in values.items():
        builder.put_field(name, value)  # type: ignore[arg-type]
    assert document == builder.build()
    assert document.to_dict() == {"a": True, "b": 1, "c": 1.0, "d": "x", "e": b"y"}


def test_from_dict_shares_nothing_with_the_dict_and_to_dict_nothing_with_the_document() -> None:
    values: dict[str, Any] = {"a": 1}
    document = IKVDocument.from_dict(values)
    values["b"] = 2
    document.to_dict()["c"] = 3
    assert document.to_dict() == {"a": 1}


def test_from_dict_refuses_none_and_empty_names_and_what_is_no_mapping() -> None:
    with pytest.raises(UnsupportedTypeError, match="delete_fields"):
        IKVDocument.from_dict({"a": None})  # type: ignore[dict-item]
    with pytest.raises(FieldNameError):
        IKVDocument.from_dict({"": 1})
    with pytest.raises(InvalidArgumentError, match="list"):
        IKVDocument.from_dict([("a", 1)])  # type: ignore[arg-type]


def test_numpy_scalars_make_the_same_document_as_their_python_twins() -> None:
    numpy = pytest.importorskip("numpy")
    by_numpy = (
        IKVDocumentBuilder()
        .put_string_field("a", numpy.str_("x"))
        .put_bytes_field("b", numpy.bytes_(b"x"))
        .put_int32_field("c", numpy.int64(3))
        .put_int64_field("d", numpy.uint8(3))
        .put_float32_field("e", numpy.float64(0.5))
        .put_float64_field("f", numpy.float32(0.5))
        .put_bool_field("g", numpy.bool_(False))
    )
    by_python = (
        IKVDocumentBuilder()
        .put_string_field("a", "x")
        .put_bytes_field("b", b"x")
        .put_int32_field("c", 3)
        .put_int64_field("d", 3)
        .put_float32_field("e", 0.5)
        .put_float64_field("f", 0.5)
        .put_bool_field("g", False)
    )
    assert by_numpy.build() == by_python.build()
    assert type(by_numpy.build().to_dict()["a"]) is str


def test_a_document_knows_its_number_of_fields() -> None:
    assert full_builder().build().len() == len(full_builder().build()) == 8
    assert IKVDocumentBuilder().build().len() == 0


def test_a_document_cannot_be_changed() -> None:
    document = IKVDocument.from_dict({"a": 1})
    with pytest.raises(TypeError):
        document.fields["a"] = (FieldType.INT64, bytes(8))  # type: ignore[index]
    with pytest.raises(AttributeError):
        document.fields = {}  # type: ignore[misc]
    with pytest.raises(AttributeError):
        document.other = 1  # type: ignore[attr-defined]
    assert document.to_dict() == {"a": 1}


def test_documents_compare_and_hash_by_names_types_and_bytes_in_any_order() -> None:
    one, two = IKVDocument.from_dict({"a": 1, "b": "x"}), IKVDocument.from_dict({"b": "x", "a": 1})
    assert one == two
    assert hash(one) == hash(two)
    assert one != IKVDocument.from_dict({"a": 1, "b": b"x"})
    assert one != IKVDocument.from_dict({"a": 1})
    assert one != {"a": 1, "b": "x"}


def test_nan_equals_itself_and_minus_zero_is_not_zero() -> None:
    assert IKVDocument.from_dict({"a": math.nan}) == IKVDocument.from_dict({"a": math.nan})
    assert IKVDocument.from_dict({"a": -0.0}) != IKVDocument.from_dict({"a": 0.0})


@pytest.mark.parametrize("value", [math.nan, -0.0, math.inf, "", b""])
def test_pickles_and_copies_are_equal_documents(value: Any) -> None:
    document = IKVDocument.from_dict({"a": value})
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(document, protocol)) == document
    assert copy.copy(document) == document
    assert copy.deepcopy(document) == document


def test_the_repr_shows_names_and_types_and_no_values() -> None:
    document = IKVDocumentBuilder().put_string_field("city", "Oslo").put_int32_field("age", 4711).build()
    assert repr(document) == "IKVDocument('city': STRING, 'age': INT32)"


def test_the_repr_of_a_huge_document_is_short_and_says_what_it_left_out() -> None:
    document = IKVDocument.from_dict({f"field{number}": number for number in range(1000)})
    assert len(repr(document)) < 250
    shown = repr(document).count("INT64")
    assert repr(document).endswith(f"... {1000 - shown} more)")
    assert len(repr(IKVDocument.from_dict({"n" * 10_000: 1}))) < 250


def test_the_repr_of_an_empty_document_is_plain() -> None:
    assert repr(IKVDocumentBuilder().build()) == "IKVDocument()"


def test_the_module_imports_without_the_heavy_parts_of_the_project() -> None:
    code = "import sys, ikvcore.document; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "ikvcore.fields" in modules
    assert not {"pluggy", "google.protobuf", "lmdb", "numpy", "logging", "dataclasses"} & set(modules)


def test_refusals_are_errors_of_this_project_and_of_python() -> None:
    for error, builtin in ((UnsupportedTypeError, TypeError), (FieldValueError, ValueError)):
        assert issubclass(error, IKVError)
        assert issubclass(error, builtin)

"""Documents as JSON, the one form of all commands.

Plain: strings, booleans, whole numbers and finite floats as they are; what JSON cannot carry as an object that names
its type, {"bytes": "<base64>"} and {"float64": "NaN"}. Typed: every value as such an object, {"int32": 7}, so that
nothing of a document's types is lost. Both are read: a plain whole number as INT64, another number as FLOAT64.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

from ikvcore.document import IKVDocument, IKVDocumentBuilder
from ikvcore.errors import InvalidArgumentError, near_miss
from ikvcore.fields import FieldType, Value
from ikvcore.models import Row

__all__ = ["TYPE_WORDS", "document_of", "fields_of", "put_typed", "value_to_json"]

TYPE_WORDS = {field_type.name.lower(): field_type for field_type in FieldType if field_type.name != "UNKNOWN"}
"""The names of the types in JSON and on the command line."""


def value_to_json(field_type: FieldType, value: Value, *, typed: bool = False) -> Any:
    """One value; see this module."""
    plain: Any = value
    if isinstance(value, bytes):
        plain, typed = base64.b64encode(value).decode(), True
    elif isinstance(value, float) and not math.isfinite(value):
        plain, typed = {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN"), True
    return {field_type.name.lower(): plain} if typed else plain


def fields_of(row: Row, *, typed: bool = False) -> dict[str, Any]:
    """The fields that a row has, in its order."""
    return {
        name: value_to_json(field_type, value, typed=typed)
        for name, field_type, value in zip(*row, strict=True)
        if field_type is not None and value is not None
    }


def document_of(data: object) -> IKVDocument:
    """The document of a JSON object. Raises IKVError's kinds for what is none."""
    if not isinstance(data, Mapping):
        raise InvalidArgumentError(f"a document is a JSON object, not {data!r:.60}")
    builder = IKVDocumentBuilder()
    for name, value in data.items():
        _put(builder, name, value)
    return builder.build()


def put_typed(builder: IKVDocumentBuilder, name: str, word: str, value: Any) -> None:
    """Put a value of the type named `word`, bytes as base64. Raises IKVError's kinds."""
    field_type = TYPE_WORDS.get(word)
    if field_type is None:
        raise InvalidArgumentError(
            f"field {name!r} has unknown type {word!r}{near_miss(word, TYPE_WORDS)}; the types are "
            f"{', '.join(TYPE_WORDS)}"
        )
    if field_type is FieldType.BYTES:
        value = _decoded(name, value)
    elif field_type in (FieldType.FLOAT32, FieldType.FLOAT64) and isinstance(value, str):
        value = _float(name, value)
    put = builder.put_bool_field if field_type is FieldType.BOOLEAN else getattr(builder, f"put_{word}_field")
    put(name, value)


def _put(builder: IKVDocumentBuilder, name: str, value: Any) -> None:
    if isinstance(value, dict):
        if len(value) != 1:
            raise InvalidArgumentError(f'field {name!r}: an object names one type, such as {{"bytes": "aGk="}}')
        ((word, inner),) = value.items()
        put_typed(builder, name, word, inner)
    elif value is None:
        raise InvalidArgumentError(f"field {name!r} is null; leave it out, or remove it with ikv delete --field")
    elif isinstance(value, list):
        raise InvalidArgumentError(f"field {name!r} is a list; a field holds one value")
    else:
        builder.put_field(name, value)


def _decoded(name: str, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as exc:
        raise InvalidArgumentError(f"field {name!r}: bytes are written in base64, not {text!r:.60} ({exc})") from exc


def _float(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as exc:
        raise InvalidArgumentError(f"field {name!r}: {text!r:.60} is no number") from exc

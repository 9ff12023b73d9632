"""Documents as JSON, the one form of all commands.

Plain: strings, booleans, whole numbers and finite floats as they are; what JSON cannot carry as an object that names
its type, {"bytes": "<base64>"} and {"float64": "NaN"}. Typed: every value as such an object, {"int32": 7}, so that
nothing of a document's types is lost. Both are read: a plain whole number as INT64, another number as FLOAT64.
On the command line a value is a string, or of the type that is written with its field's name: `age:int32=7`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from ikvcore.document import IKVDocument, IKVDocumentBuilder
from ikvcore.errors import InvalidArgumentError, near_miss
from ikvcore.fields import FieldType, Value
from ikvcore.models import Row

__all__ = [
    "TYPE_WORDS",
    "decoded_base64",
    "document_of",
    "document_of_assignments",
    "fields_of",
    "json_line",
    "parsed_document",
    "put_typed",
    "value_to_json",
]

TYPE_WORDS: Final = {field_type.name.lower(): field_type for field_type in FieldType if field_type.name != "UNKNOWN"}
"""The names of the types in JSON and on the command line."""

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,4000}")
_NUMBER: Final = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")
_NOT_FINITE: Final = re.compile(r"[+-]?(?:inf(?:inity)?|nan)", re.IGNORECASE)
_TRUTH: Final = {"true": True, "false": False}

_UNSEEN: Final = re.compile("[\x7f-\x9f\u2028\u2029]")
"""What JSON allows in a string, though a terminal obeys some of it and some programs end a line there."""


# -- to JSON -----------------------------------------------------------------------------------


def json_line(data: object) -> str:
    """Compact JSON on one line, letters of all scripts as they are and control characters escaped."""
    text = json.dumps(data, ensure_ascii=False, separators=(", ", ": "))
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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


# -- from JSON ---------------------------------------------------------------------------------


def parsed_document(text: bytes) -> IKVDocument:
    """The document of a line of JSON. Raises IKVError's kinds."""
    try:
        data = _DECODER.decode(text.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise InvalidArgumentError(f"it is not UTF-8 ({exc.reason} at byte {exc.start + 1})") from exc
    except json.JSONDecodeError as exc:
        raise InvalidArgumentError(f"it is not JSON: {exc.msg} at character {exc.pos + 1}") from exc
    except RecursionError:
        raise InvalidArgumentError("it is nested too deeply for a document") from None
    except InvalidArgumentError:
        raise
    except ValueError as exc:  # an int of more digits than Python converts
        raise InvalidArgumentError(f"it holds a number that no field can: {exc}") from exc
    return document_of(data)


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
    field_type = _type_named(name, word)
    if field_type is FieldType.BYTES:
        value = decoded_base64(f"field {name!r}", value)
    elif field_type in (FieldType.FLOAT32, FieldType.FLOAT64) and isinstance(value, str):
        value = _number(name, value)
    put = builder.put_bool_field if field_type is FieldType.BOOLEAN else getattr(builder, f"put_{word}_field")
    put(name, value)


def decoded_base64(what: str, text: object) -> bytes:
    """The bytes that `text` writes in base64; `what` names it in the error."""
    if not isinstance(text, str):
        raise InvalidArgumentError(f"{what}: bytes are written in base64, as a string, not {text!r:.60}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidArgumentError(f"{what}: bytes are written in base64, not {text!r:.60} ({exc})") from exc


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


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, in which JSON would let the last of two values of one name win without a word."""
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidArgumentError(f"it names {twice!r:.80} twice")
    return data


def _finite(text: str) -> float:
    """A JSON number, which Python would make infinite where it is too large."""
    number = float(text)
    if math.isinf(number):
        raise InvalidArgumentError(f"{text:.60} is out of the range of FLOAT64")
    return number


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_distinct, parse_float=_finite)


# -- from the command line ---------------------------------------------------------------------


def document_of_assignments(assignments: list[str]) -> IKVDocument:
    """The document of FIELD=VALUE and FIELD:TYPE=VALUE. Raises IKVError's kinds."""
    builder = IKVDocumentBuilder()
    seen = set()
    for each in assignments:
        name, word, text = _parted(each)
        if name in seen:
            raise InvalidArgumentError(f"field {name!r} is given twice")
        seen.add(name)
        put_typed(builder, name, word, _from_text(name, _type_named(name, word), text))
    return builder.build()


def _parted(assignment: str) -> tuple[str, str, str]:
    """Name, type's word and text of FIELD=VALUE or FIELD:TYPE=VALUE."""
    left, equals, text = assignment.partition("=")
    name, colon, word = left.rpartition(":")
    if not colon:
        name, word = left, "string"
    if not equals or not name:
        raise InvalidArgumentError(f"{assignment!r:.80} is no field: write it as FIELD=VALUE or FIELD:TYPE=VALUE")
    return name, word, text


def _type_named(name: str, word: str) -> FieldType:
    field_type = TYPE_WORDS.get(word)
    if field_type is None:
        raise InvalidArgumentError(
            f"field {name!r} has unknown type {word!r:.40}{near_miss(word, TYPE_WORDS)}; the types are "
            f"{', '.join(TYPE_WORDS)}. A name with ':' or '=' in it goes into --json"
        )
    return field_type


def _from_text(name: str, field_type: FieldType, text: str) -> Any:
    """What put_typed takes for a value that is written as `text`."""
    if field_type in (FieldType.INT32, FieldType.INT64):
        if not _WHOLE.fullmatch(text):
            _refuse(name, text, "a whole number")
        return int(text)
    if field_type is FieldType.BOOLEAN:
        return _TRUTH[text] if text in _TRUTH else _refuse(name, text, "true or false")
    return text


def _number(name: str, text: str) -> float:
    """The float that `text` writes; float() alone would take "1_0" too, and make "1e999" infinite."""
    if _NOT_FINITE.fullmatch(text):
        return float(text)
    if not _NUMBER.fullmatch(text):
        _refuse(name, text, "a number")
    number = float(text)
    return number if math.isfinite(number) else _refuse(name, text, "in the range of FLOAT64")


def _refuse(name: str, text: str, wanted: str) -> NoReturn:
    raise InvalidArgumentError(f"field {name!r}: {text!r:.60} is not {wanted}")

"""Documents: what a writer publishes, and the builder that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, SupportsFloat, SupportsIndex

from ikvcore.errors import InvalidArgumentError
from ikvcore.fields import FieldBytes, FieldType, Value, check_name, decode, encode, encode_any

__all__ = ["IKVDocument", "IKVDocumentBuilder"]

_REPR_LIMIT: Final = 200


class IKVDocument:
    """A map of field name to typed value. Immutable, hashable, picklable; made by IKVDocumentBuilder or from_dict.

    Documents compare by their fields' names, types and bytes, in any order: NaN equals the same NaN, -0.0 differs from
    0.0, and the INT32 1 differs from the INT64 1.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, FieldBytes]) -> None:
        """`fields` holds checked names and values in the wire encoding, as ikvcore.fields gives them."""
        self._fields = MappingProxyType(dict(fields))

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Value]) -> IKVDocument:
        """The document of a dict, each value typed as by IKVDocumentBuilder.put_field."""
        if not isinstance(mapping, Mapping):
            raise InvalidArgumentError(
                f"from_dict takes a mapping of field names to values, not {type(mapping).__name__}"
            )
        return cls({check_name(name): encode_any(name, value) for name, value in mapping.items()})

    def to_dict(self) -> dict[str, Value]:
        """A new dict of field name to Python value."""
        return {name: decode(field_type, data) for name, (field_type, data) in self._fields.items()}

    @property
    def fields(self) -> Mapping[str, FieldBytes]:
        """A read-only view of field name to (type, value in the wire encoding)."""
        return self._fields

    def len(self) -> int:
        """The number of fields, as in the published client; the same as len(document)."""
        return len(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        return self._fields == other._fields if isinstance(other, IKVDocument) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self._fields.items()))

    def __repr__(self) -> str:
        # Names and types only: values may be large, or nobody else's business.
        parts: list[str] = []
        room = _REPR_LIMIT
        for name, (field_type, _) in self._fields.items():
            part = f"{name!r}: {field_type.name}"
            room -= len(part) + 2
            if room < 0:
                parts.append(f"... {len(self._fields) - len(parts)} more")
                break
            parts.append(part)
        return f"{type(self).__name__}({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self._fields),)


class IKVDocumentBuilder:
    """Collects fields for a document. Not thread-safe.

    Values are checked and encoded as they are put, so that an error points at its line; a field that was refused
    leaves the builder as it was. A name that is put again takes the new value and type. Errors: FieldNameError,
    UnsupportedTypeError (a value of another type), FieldValueError (one out of range).
    """

    __slots__ = ("_fields",)

    def __init__(self) -> None:
        self._fields: dict[str, FieldBytes] = {}

    def put_string_field(self, name: str, value: str) -> IKVDocumentBuilder:
        """Set a STRING; it must have a UTF-8 form."""
        return self._put(name, FieldType.STRING, value)

    def put_bytes_field(self, name: str, value: bytes | bytearray | memoryview) -> IKVDocumentBuilder:
        """Set a BYTES; the value is copied."""
        return self._put(name, FieldType.BYTES, value)

    def put_int32_field(self, name: str, value: SupportsIndex) -> IKVDocumentBuilder:
        """Set an INT32: -2**31 to 2**31 - 1."""
        return self._put(name, FieldType.INT32, value)

    def put_int64_field(self, name: str, value: SupportsIndex) -> IKVDocumentBuilder:
        """Set an INT64: -2**63 to 2**63 - 1."""
        return self._put(name, FieldType.INT64, value)

    def put_float32_field(self, name: str, value: SupportsFloat) -> IKVDocumentBuilder:
        """Set a FLOAT32: rounded to single precision, refused where that would overflow; an int will do."""
        return self._put(name, FieldType.FLOAT32, value)

    def put_float64_field(self, name: str, value: SupportsFloat) -> IKVDocumentBuilder:
        """Set a FLOAT64; an int will do."""
        return self._put(name, FieldType.FLOAT64, value)

    def put_bool_field(self, name: str, value: bool) -> IKVDocumentBuilder:
        """Set a BOOLEAN; ints are refused."""
        return self._put(name, FieldType.BOOLEAN, value)

    def put_field(self, name: str, value: Value) -> IKVDocumentBuilder:
        """Set a field of the type of the value's class: bool to BOOLEAN, int to INT64, float to FLOAT64, str, bytes.

        NumPy scalars go with their Python twins. None is refused: IKVWriter.delete_fields removes fields.
        """
        name = check_name(name)
        self._fields[name] = encode_any(name, value)
        return self

    def build(self) -> IKVDocument:
        """The document of what was put so far. It shares nothing with this builder, which can go on."""
        return IKVDocument(self._fields)

    def _put(self, name: str, field_type: FieldType, value: object) -> IKVDocumentBuilder:
        name = check_name(name)
        self._fields[name] = (field_type, encode(name, field_type, value))
        return self

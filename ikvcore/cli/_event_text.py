"""Events of a log as a line for a person, or as JSON for a program."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ikvcore.cli._cells import cell, type_word, visible
from ikvcore.cli._values import value_to_json
from ikvcore.fields import FieldType, Value
from ikvcore.inspection import LogEvent

__all__ = ["event_to_json", "event_to_line", "iso_time"]

_WIDEST: Final = 60
"""Characters of a value, or of a name."""
_MOST_FIELDS: Final = 20
_UNCLEAR: Final = re.compile("[ '\"]")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def iso_time(timestamp: int | None) -> str | None:
    """Nanoseconds since the epoch in ISO 8601, to the millisecond; None for none, and for what no calendar holds."""
    if timestamp is None:
        return None
    try:
        time = _EPOCH + timedelta(microseconds=timestamp // 1_000)
    except OverflowError:
        return None
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event_to_json(event: LogEvent, *, typed: bool) -> dict[str, Any]:
    """An event with what its kind has; documents as in _values."""
    data: dict[str, Any] = {
        "partition": event.partition,
        "position": event.position,
        "time": iso_time(event.timestamp),
        "timestamp": event.timestamp,
        "kind": event.kind,
        "bytes": event.size,
    }
    if event.key is not None:
        key_type = FieldType.STRING if isinstance(event.key, str) else FieldType.BYTES
        data["key"] = value_to_json(key_type, event.key)
    if event.kind == "upsert":
        data["fields"] = {name: value_to_json(*field, typed=typed) for name, field in event.fields.items()}
    if event.kind in ("delete-fields", "drop-fields"):
        data["names"] = list(event.names)
    if event.kind == "drop-fields":
        data["prefixes"] = list(event.prefixes)
    if event.reason is not None:
        data["reason"] = event.reason
    return data


def event_to_line(event: LogEvent, primary_key: str) -> str:
    """Time, place and kind, then what it is about, fields in the form that `ikv put` takes; long things are cut."""
    words = [iso_time(event.timestamp) or "-", f"{event.partition}:{event.position}", event.kind]
    if event.key is not None:
        words.append(_quoted(cell(event.key, longest=_WIDEST)))
    shown = [_field(name, *field) for name, field in event.fields.items() if name != primary_key]
    shown += [_quoted(cell(name, longest=_WIDEST)) for name in event.names]
    shown += [f"{_quoted(cell(prefix, longest=_WIDEST))}*" for prefix in event.prefixes]
    words += shown[:_MOST_FIELDS]
    if len(shown) > _MOST_FIELDS:
        words.append(f"… and {len(shown) - _MOST_FIELDS:,} more")
    if event.reason is not None:
        words.append(f"({event.size:,} bytes) {visible(event.reason)}")
    return " ".join(words)


def _field(name: str, field_type: FieldType, value: Value) -> str:
    suffix = "" if field_type is FieldType.STRING else f":{type_word(field_type)}"
    return _quoted(f"{cell(name, longest=_WIDEST)}{suffix}={cell(value, field_type, longest=_WIDEST)}")


def _quoted(text: str) -> str:
    """As a shell would want it, where one could not tell else where a word ends."""
    return shlex.quote(text) if _UNCLEAR.search(text) or not text else text

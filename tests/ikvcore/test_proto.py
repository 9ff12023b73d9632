"""ikvcore._proto: the compiled schema is the source's, its numbers are the published ones, and it shares no pool."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor

from ikvcore import _proto

DIRECTORY = Path(_proto.__file__).parent

# The contract with clients in other languages: message, field, number, type. Only ever add lines.
FIELDS = """
    FieldValue                 fieldType                  1  FieldType
    FieldValue                 value                      2  bytes
    IKVDocumentOnWire          document                   1  map<string, FieldValue>
    IKVStoreConfig             stringConfigs              1  map<string, string>
    IKVStoreConfig             intConfigs                 2  map<string, int64>
    IKVStoreConfig             floatConfigs               3  map<string, float>
    IKVStoreConfig             bytesConfigs               4  map<string, bytes>
    IKVStoreConfig             booleanConfigs             5  map<string, bool>
    EventHeader                sourceTimestamp            1  optional google.protobuf.Timestamp
    IKVDataEvent               eventHeader                1  EventHeader
    IKVDataEvent               upsertDocumentFieldsEvent  2  event UpsertDocumentFieldsEvent
    IKVDataEvent               deleteDocumentFieldsEvent  3  event DeleteDocumentFieldsEvent
    IKVDataEvent               deleteDocumentEvent        4  event DeleteDocumentEvent
    IKVDataEvent               dropFieldEvent             5  event DropFieldEvent
    UpsertDocumentFieldsEvent  document                   1  IKVDocumentOnWire
    DeleteDocumentFieldsEvent  documentId                 1  IKVDocumentOnWire
    DeleteDocumentFieldsEvent  fieldsToDelete             2  repeated string
    DeleteDocumentEvent        documentId                 1  IKVDocumentOnWire
    DropFieldEvent             field_names                1  repeated string
    DropFieldEvent             field_name_prefixes        2  repeated string
    DropFieldEvent             drop_all                   3  bool
"""
TYPES = {"UNKNOWN": 0, "INT32": 1, "INT64": 2, "FLOAT32": 3, "FLOAT64": 4, "STRING": 5, "BYTES": 6, "BOOLEAN": 7}

# The published client's way: the same package and message names, in protobuf's default pool, under another file name.
OTHER_SCHEMA = """
from google.protobuf import descriptor_pb2, descriptor_pool
other = descriptor_pb2.FileDescriptorProto(name="schemas/common.proto", package="ikvschemas", syntax="proto3")
for name in ("FieldValue", "IKVDataEvent", "IKVDocumentOnWire"):
    other.message_type.add(name=name).field.add(name="another", number=1, type=9, label=1)
descriptor_pool.Default().Add(other)
descriptor_pool.Default().FindMessageTypeByName("ikvschemas.FieldValue")
"""
OURS = """
from ikvcore._proto import FieldValue
assert FieldValue.FromString(FieldValue(fieldType=6, value=b"x").SerializeToString()).value == b"x"
"""


def type_of(field: FieldDescriptor) -> str:
    """A field's type as a .proto file spells it."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (type_of(field.message_type.fields_by_name[name]) for name in ("key", "value"))
        return f"map<{key}, {value}>"
    if field.message_type is not None:
        name = field.message_type.full_name.removeprefix("ikvschemas.")
    elif field.enum_type is not None:
        name = field.enum_type.name
    else:
        name = {
            FieldDescriptor.TYPE_STRING: "string",
            FieldDescriptor.TYPE_BYTES: "bytes",
            FieldDescriptor.TYPE_BOOL: "bool",
            FieldDescriptor.TYPE_INT64: "int64",
            FieldDescriptor.TYPE_FLOAT: "float",
        }[field.type]
    return f"{_label(field)}{name}"


def _label(field: FieldDescriptor) -> str:
    if field.is_repeated:
        return "repeated "
    if field.containing_oneof is None:
        return ""
    # `optional` is a oneof of its own, whose name begins with an underscore
    return "optional " if field.containing_oneof.name.startswith("_") else f"{field.containing_oneof.name} "


def test_names_numbers_and_types_are_the_published_ones() -> None:
    file = _proto.IKVDataEvent.DESCRIPTOR.file
    actual = {
        (message.name, field.name, str(field.number), type_of(field))
        for message in file.message_types_by_name.values()
        for field in message.fields
    }
    rows = (line.split(maxsplit=3) for line in FIELDS.strip().splitlines())
    assert actual == {(message, field, number, kind) for message, field, number, kind in rows}
    assert file.package == "ikvschemas"
    assert {value.name: value.number for value in file.enum_types_by_name["FieldType"].values} == TYPES


def test_the_committed_schema_is_what_protoc_makes_of_its_source(tmp_path: Path) -> None:
    made = tmp_path / "made.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{DIRECTORY}", f"--descriptor_set_out={made}"]
    process = subprocess.run(
        [*command, "ikvschemas.proto", "outline.proto"], cwd=DIRECTORY, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert made.read_bytes() == (DIRECTORY / "ikvschemas.binpb").read_bytes(), "run: make proto"


@pytest.mark.parametrize("code", [OTHER_SCHEMA + OURS, OURS + OTHER_SCHEMA], ids=["theirs first", "ours first"])
def test_a_schema_of_the_same_names_in_the_default_pool_does_not_clash(code: str) -> None:
    process = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True)
    assert process.returncode == 0, process.stderr

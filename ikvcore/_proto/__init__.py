"""The wire schema's message classes, built from the compiled ikvschemas.proto and outline.proto.

They live in a descriptor pool of their own: the client that users come from registers the same names in protobuf's default
pool, and one process may hold both while it migrates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

__all__ = ["Entry", "EventOutline", "FieldValue", "IKVDataEvent", "IKVDocumentOnWire"]


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    compiled = Path(__file__).with_name("ikvschemas.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled).file:
        pool.Add(file)
    return pool


_POOL = _pool()


def _message(name: str) -> Any:  # protobuf builds these classes at run time; there is no static type for them
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


FieldValue = _message("ikvschemas.FieldValue")
IKVDataEvent = _message("ikvschemas.IKVDataEvent")
IKVDocumentOnWire = _message("ikvschemas.IKVDocumentOnWire")

# The same wire form, read another way: see outline.proto.
EventOutline = _message("ikvoutline.Event")
Entry = _message("ikvoutline.Entry")

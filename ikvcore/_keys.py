"""Keys of documents: their rules, and the way from a key to its partition (C3.7, C3.12).

A message's key is the serialized FieldValue of the partitioning-key value, typed as the store's description says,
whatever type the caller gave: else one key would live in two partitions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from zlib import crc32

from ikvcore._wire import varint
from ikvcore.errors import InvalidKeyError, KeyTypeError
from ikvcore.fields import FieldType
from ikvcore.models import StoreDescription

__all__ = ["MAX_KEY_BYTES", "PARTITIONERS", "key_bytes", "message_key", "murmur2", "partition_of"]

MAX_KEY_BYTES: Final = 65_535


def key_bytes(key: object, key_type: FieldType) -> bytes:
    """The bytes of a str, bytes or bytearray key. Raises InvalidKeyError."""
    if isinstance(key, str):
        try:
            data = key.encode()
        except UnicodeEncodeError as exc:
            raise InvalidKeyError(key, f"it has no UTF-8 form ({exc.reason})") from exc
    elif isinstance(key, (bytes, bytearray)):
        data = bytes(key)
        if key_type is FieldType.STRING:
            try:
                data.decode()
            except UnicodeDecodeError as exc:
                raise InvalidKeyError(key, "the store's keys are strings, and this is not UTF-8") from exc
    else:
        raise KeyTypeError(key)
    if not data:
        raise InvalidKeyError(key, f"keys have 1 to {MAX_KEY_BYTES:,} bytes, not none")
    if len(data) > MAX_KEY_BYTES:
        raise InvalidKeyError(key, f"keys have 1 to {MAX_KEY_BYTES:,} bytes, not {len(data):,}")
    return data


def message_key(key_type: FieldType, data: bytes) -> bytes:
    """The serialized FieldValue{fieldType, value} of a key that is not empty, as protobuf writes it."""
    return bytes((0x08, key_type, 0x12)) + varint(len(data)) + data


def partition_of(message_key: bytes, store: StoreDescription) -> int:
    """The partition of a message key."""
    if store.partitions == 1:
        return 0
    return PARTITIONERS[store.partitioner](message_key) % store.partitions


def murmur2(data: bytes) -> int:
    """Kafka's MurmurHash2 of `data` as an unsigned 32-bit number (Java client, Utils.murmur2, seed 0x9747b28c)."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    length = len(data)
    whole = length & ~3
    value = (0x9747B28C ^ length) & mask
    for index in range(0, whole, 4):
        word = int.from_bytes(data[index : index + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        value = (value * multiplier & mask) ^ word
    if whole < length:
        value = (value ^ int.from_bytes(data[whole:], "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    return value ^ value >> 15


PARTITIONERS: Final[dict[str, Callable[[bytes], int]]] = {
    # The Java client masks the sign bit off before it takes the remainder.
    "murmur2": lambda data: murmur2(data) & 0x7FFFFFFF,
    "crc32": crc32,
}
"""By the name in the store's description."""

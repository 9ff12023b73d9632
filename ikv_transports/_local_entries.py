"""The entries of a log: what stands under a position in LMDB, and how it is recognised as undamaged.

A key is the partition (2 bytes) and the position (8 bytes), big-endian, so that LMDB's order is the log's. A value is
the timestamp (8 bytes), the length of the message's key (4 bytes), the message's key, its value, and a CRC-32 over all
of that and the entry's key: neither a flipped bit nor an entry in another's place is ever taken for an event.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from ikvcore.errors import EventTooLargeError, InvalidArgumentError, TransportError
from ikvcore.models import LogMessage, Message

if TYPE_CHECKING:
    import lmdb

__all__ = [
    "IDENTITY_KEY",
    "Entry",
    "decode",
    "encode",
    "entry_key",
    "find_end",
    "find_first",
    "partition_of",
    "position_of",
]

_KEY: Final = struct.Struct(">HQ")
_HEADER: Final = struct.Struct(">qI")
_CHECKSUM: Final = struct.Struct(">I")
_OVERHEAD: Final = _HEADER.size + _CHECKSUM.size
_MAX_VALUE: Final = 0xFFFFFFFF
"""LMDB's limit on a value."""

_WAY_OUT: Final = "restore the log from a copy, or create the store anew and publish the documents again"

IDENTITY_KEY: Final = b"\xff\xffidentity"
"""Holds the log's identity; above every partition's entries, since partitions end at 65,534."""


class Entry(NamedTuple):
    """A message on its way into the log, without the position that only the commit knows."""

    partition: int
    body: bytes
    checksum: int
    """CRC-32 of `body`; the entry's key is still to be added."""

    def at(self, position: int) -> tuple[bytes, bytes]:
        """The key and value that LMDB stores."""
        key = _KEY.pack(self.partition, position)
        return key, self.body + _CHECKSUM.pack(zlib.crc32(key, self.checksum))


def encode(message: Message) -> Entry:
    """The entry of a message. Raises InvalidArgumentError, EventTooLargeError."""
    if (size := len(message.key) + len(message.value)) > _MAX_VALUE - _OVERHEAD:
        raise EventTooLargeError(size, _MAX_VALUE - _OVERHEAD)
    try:
        header = _HEADER.pack(message.timestamp, len(message.key))
    except struct.error as exc:
        raise InvalidArgumentError(
            f"{message.timestamp!r} cannot be a message's timestamp: it is no 64-bit number of nanoseconds"
        ) from exc
    body = b"".join((header, message.key, message.value))
    return Entry(message.partition, body, zlib.crc32(body))


def decode(key: bytes, stored: bytes, *, expected: int) -> LogMessage:
    """The message of an entry. Raises TransportError where it is damaged, or not the one of position `expected`."""
    if len(key) != _KEY.size:
        raise TransportError(f"the log is damaged: it holds {key[:40]!r}, which is no position; {_WAY_OUT}")
    partition, position = _KEY.unpack(key)
    if position != expected or len(stored) < _OVERHEAD:
        raise _damaged(partition, expected)
    body = stored[: -_CHECKSUM.size]
    (checksum,) = _CHECKSUM.unpack_from(stored, len(body))
    if zlib.crc32(key, zlib.crc32(body)) != checksum:
        raise _damaged(partition, expected)
    timestamp, key_length = _HEADER.unpack_from(stored)
    split = _HEADER.size + key_length
    return LogMessage(partition, position, body[_HEADER.size : split], body[split:], timestamp)


def _damaged(partition: int, position: int) -> TransportError:
    """The error of an entry that is not what was written there."""
    return TransportError(
        f"the log is damaged: the message at position {position} of partition {partition} fails its checksum or is "
        f"missing; {_WAY_OUT}"
    )


def entry_key(partition: int, position: int) -> bytes:
    """The key of an entry, for seeking."""
    return _KEY.pack(partition, position)


def partition_of(key: bytes) -> int:
    """The partition of an entry's key; for IDENTITY_KEY one that no store has."""
    return int.from_bytes(key[:2], "big")


def find_first(cursor: lmdb.Cursor[bytes], partition: int) -> int | None:
    """The position of a partition's first entry, None where it has none."""
    if cursor.set_range(_KEY.pack(partition, 0)) and partition_of(cursor.key()) == partition:
        return position_of(cursor.key())
    return None


def find_end(cursor: lmdb.Cursor[bytes], partition: int) -> int:
    """The position after a partition's last entry."""
    # The identity stands after all partitions, so there is always something to step back from.
    if not cursor.set_range(_KEY.pack(partition + 1, 0)):
        raise TransportError("the log is damaged: its identity is missing; restore it from a copy")
    if cursor.prev() and partition_of(cursor.key()) == partition:
        return position_of(cursor.key()) + 1
    return 0


def position_of(key: bytes) -> int:
    """The position of an entry's key."""
    return int.from_bytes(key[2:], "big")

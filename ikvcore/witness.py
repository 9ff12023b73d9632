"""How a replica recognises its log: the checksum of a message, and the comparison made at every subscription (C7)."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from ikvcore.errors import LogDivergedError, LogTrimmedError
from ikvcore.models import Bounds, LogMessage, Start

__all__ = ["check_start", "message_checksum"]


def message_checksum(key: bytes, value: bytes | None) -> int:
    """CRC-32 (zlib's) over a message's key, its length and its value; a message without value differs from an empty
    one.
    """
    body = b"-" if value is None else b"+" + value
    return zlib.crc32(body, zlib.crc32(key, len(key)))


def check_start(
    partition: int,
    start: Start,
    *,
    identity: str,
    bounds: Bounds,
    read: Callable[[int, int], LogMessage | None],
) -> None:
    """Raise LogTrimmedError or LogDivergedError unless the log continues what the replica saw.

    `read(partition, position)` gives the message at exactly that position, None where it is gone: then the identity
    alone is compared.
    """
    witness = start.witness
    if witness is not None and witness.identity != identity:
        raise LogDivergedError(
            None, f"its identity is {identity!r}, that of the replica's log was {witness.identity!r}"
        )
    if start.position > bounds.end:
        raise LogDivergedError(partition, f"it ends at {bounds.end}, before the replica's position {start.position}")
    if start.position < bounds.first:
        raise LogTrimmedError(partition, start.position, bounds.first)
    if witness is None:
        return
    message = read(partition, witness.position)
    if message is not None and message_checksum(message.key, message.value) != witness.checksum:
        raise LogDivergedError(partition, f"the message at position {witness.position} is another one")

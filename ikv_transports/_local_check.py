"""Verifies a log's files in a process of its own, since LMDB may crash on damaged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import lmdb

from ikv_backends._lmdb_environment import LmdbEnvironment
from ikv_transports._local_entries import IDENTITY_KEY, decode, partition_of, position_of
from ikvcore._apart import NotFoundOutError, find_apart
from ikvcore.errors import TransportError

__all__ = ["findings", "verify_log"]

_ENOUGH: Final = 20
"""Findings after which no more are looked for: where one entry is damaged, many may be."""


def verify_log(directory: Path, identity: str) -> list[str]:
    """What is wrong with the log in a directory, none where all is well. Others may have it open and write.

    Raises TransportError where it could not be checked at all, so that nothing is known.
    """
    try:
        return find_apart("ikv_transports._local_check:findings", {"directory": directory, "identity": identity})
    except NotFoundOutError as exc:
        raise TransportError(f"the log at {str(directory)!r} could not be checked: {exc}") from exc


def findings(directory: Path, identity: str) -> list[str]:
    """The child's part of verify_log."""
    try:
        return _read_through(directory, identity)
    except _UnreadableError as exc:
        return [str(exc)]


def _read_through(directory: Path, identity: str) -> list[str]:
    environment = LmdbEnvironment(
        directory, sync=False, create=False, what="log", error=TransportError, damaged=_UnreadableError
    )
    try:
        wrong = environment.check_pages()
        if wrong:  # LMDB would follow them
            return wrong
        with environment.read() as txn:
            found = txn.get(IDENTITY_KEY)
            if found != identity.encode():
                return [f"its identity is {found!r}, the store's is {identity!r}"]
            return _check_entries(txn.cursor())
    finally:
        environment.close()


def _check_entries(cursor: lmdb.Cursor[bytes]) -> list[str]:
    """Every message is there and right, from the first one of each partition to the last one."""
    wrong: list[str] = []
    partition, expected = -1, 0
    for key, stored in cursor:
        if key == IDENTITY_KEY:
            continue
        if len(wrong) == _ENOUGH:
            break
        if len(key) != _KEY_BYTES:
            wrong.append(f"it holds {key!r}, which is no position")
            continue
        if partition_of(key) != partition:
            partition, expected = partition_of(key), position_of(key)
        try:
            decode(key, stored, expected=expected)
        except TransportError:
            wrong.append(
                f"the message at position {expected} of partition {partition} fails its checksum or is missing"
            )
        expected = position_of(key) + 1
    return wrong


_KEY_BYTES: Final = 10


class _UnreadableError(TransportError):
    """What the environment says of a file that is not what LMDB wrote."""

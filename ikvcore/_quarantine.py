"""Dropping events from a replica's quarantine, beside the process that ingests or without one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from ikvcore._progress import COMMIT_KEY, commit_value, kept_events, quarantine_key, read_progress
from ikvcore.errors import FencedError, InvalidArgumentError
from ikvcore.protocols import Storage

__all__ = ["drop_events"]

_ATTEMPTS: Final = 50
"""Each loses against one commit of the ingester, which takes many times as long to plan one as this does."""


def drop_events(storage: Storage, sequences: Collection[int] | None) -> int:
    """Remove these events, or all, in one commit; how many there were.

    A commit like every other: a compare-and-set on the commit number (C5), planned anew where the ingester was faster.
    Raises FencedError where it was so every time, InvalidArgumentError, StorageError; then nothing was dropped.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        # In this order: what is committed after the number was read fences the commit.
        commit = read_progress(storage, ()).commit
        doomed = _checked(kept_events(storage), sequences)
        if not doomed:
            return 0
        meta = {**{quarantine_key(each): None for each in doomed}, COMMIT_KEY: commit_value(commit + 1)}
        try:
            storage.apply([], meta=meta, expect={COMMIT_KEY: commit_value(commit)})
        except FencedError:
            if attempt == _ATTEMPTS:
                raise
        else:
            return len(doomed)
    raise AssertionError("the last attempt raises or returns")


def _checked(kept: Collection[int], sequences: Collection[int] | None) -> Collection[int]:
    if sequences is None:
        return kept
    unknown = sorted(map(repr, set(sequences).difference(kept)))
    if unknown:
        raise InvalidArgumentError(
            f"the quarantine holds no event {', '.join(unknown[:5])}; nothing was dropped. Its sequence "
            "numbers are shown by: ikv quarantine list"
        )
    return set(sequences)

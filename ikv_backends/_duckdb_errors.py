"""What DuckDB's errors become."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

import duckdb

from ikvcore.errors import MountBusyError, ReplicaDamagedError, StorageError, StorageFullError

__all__ = ["first_line", "is_damage", "is_fatal", "storage_error"]

_MARGIN: Final = 1 << 20
"""Less free space than this counts as a full disk."""
_HOLDER: Final = re.compile(r"PID (\d+)")
_DAMAGE: Final = re.compile(
    r"corrupt|checksum|not a valid DuckDB database|deserializ|serialization error|could not read enough bytes|"
    r"failure while replaying|is not a DuckDB|different version|header mismatch",
    re.IGNORECASE,
)
_FULL: Final = re.compile(r"no space left|disk quota|file too large|failed to offload|max_temp_directory_size", re.I)


def is_fatal(exc: duckdb.Error) -> bool:
    """Whether DuckDB answers nothing more until the file is opened anew."""
    return isinstance(exc, (duckdb.FatalException, duckdb.InternalException)) or "invalidated" in str(exc)


def is_damage(exc: duckdb.Error) -> bool:
    """Whether the file is not what DuckDB wrote."""
    return isinstance(exc, duckdb.SerializationException) or _DAMAGE.search(str(exc)) is not None


def storage_error(directory: Path, done: str, exc: duckdb.Error) -> Exception:
    """The core's error for DuckDB's; `done` is what the replica could not be."""
    text = first_line(exc)
    if "Could not set lock" in str(exc):
        holder = _HOLDER.search(str(exc))
        return MountBusyError(directory, "duckdb", int(holder.group(1)) if holder else None)
    if _FULL.search(str(exc)) or (isinstance(exc, (duckdb.IOException, duckdb.FatalException)) and _is_full(directory)):
        return StorageFullError(directory, text)
    if is_damage(exc):
        return ReplicaDamagedError(text)
    way_out = "; raise the backend's option memory_limit" if isinstance(exc, duckdb.OutOfMemoryException) else ""
    return StorageError(f"the replica at {str(directory)!r} could not be {done}: {text}{way_out}")


def first_line(exc: BaseException) -> str:
    """DuckDB's message without its pictures and stack traces."""
    return next((line.strip()[:500] for line in str(exc).splitlines() if line.strip()), type(exc).__name__)


def _is_full(directory: Path) -> bool:
    with suppress(OSError):
        space = os.statvfs(directory)
        return space.f_bavail * space.f_frsize < _MARGIN
    return False

"""RocksDB's files in a directory: opening them to write or to follow, and seeing whether others have written.

What a process that follows may do with them is decided here. RocksDB's own way, to catch up in place, goes wrong once
the writer has moved a table from memory to a file: what the follower has in memory is older than that, and hides it,
until the next write. So it is done only while the writer's manifest stays as it is; else they are opened anew.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from rocksdict import AccessType, BlockBasedOptions, Cache, DataBlockIndexType, DBCompressionType, Options, Rdict

__all__ = ["Files", "NothingThereError", "open_to_follow", "open_to_write"]

T = TypeVar("T")

_ATTEMPTS: Final = 20
_PAUSE: Final = 0.02
_INFO_LOG_BYTES: Final = 1 << 20


class NothingThereError(Exception):
    """There is nothing to follow yet."""


class Files(NamedTuple):
    """What the writer has written, by names and sizes: RocksDB only ever appends, and renames."""

    manifest: frozenset[tuple[str, int, int]]
    """Which tables there are."""
    logs: frozenset[tuple[str, int]]
    """What is not in a table yet."""

    @property
    def log_names(self) -> frozenset[str]:
        """The logs, however long."""
        return frozenset(name for name, _ in self.logs)

    @classmethod
    def of(cls, directory: Path) -> Files:
        """As they are now. Raises OSError."""
        manifest, logs = set(), set()
        with os.scandir(directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # removed since it was listed
                    if entry.name == "CURRENT":  # replaced by rename
                        manifest.add((entry.name, entry.inode(), 0))
                    elif entry.name.startswith("MANIFEST-"):
                        manifest.add((entry.name, entry.inode(), entry.stat().st_size))
                    elif entry.name.endswith(".log"):
                        logs.add((entry.name, entry.stat().st_size))
        return cls(frozenset(manifest), frozenset(logs))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the files are opened with."""

    compression: str
    buffer_bytes: int
    cache: Cache


def open_to_write(directory: Path, shape: Shape) -> Rdict:
    """The one instance that writes, made where the directory is empty. Raises what rocksdict raises."""
    options = _options(shape)
    options.create_if_missing(True)
    return Rdict(str(directory), options)


def open_to_follow(directory: Path, shape: Shape) -> tuple[Rdict, Files]:
    """An instance that reads, and what it shows. Raises NothingThereError, OSError and what rocksdict raises."""

    def opened() -> Rdict:
        # rocksdict writes a file even where it then finds nothing to open.
        if not (directory / "CURRENT").exists():
            raise NothingThereError
        # RocksDB wants a place for a log of its own doings, which nobody reads: the place can go once that is open.
        place = tempfile.mkdtemp(prefix="ikv-rocksdb-")
        try:
            instance = Rdict(str(directory), _options(shape), access_type=AccessType.secondary(place))
            if _tables(instance) != _stated_tables(directory, shape, place):
                instance.close()
                raise OSError(f"the tables in {directory} changed while they were opened")
            return instance
        finally:
            shutil.rmtree(place, ignore_errors=True)

    return _while_still(directory, opened)


def _stated_tables(directory: Path, shape: Shape, place: str) -> set[tuple[str, int]]:
    """The tables that the manifest names. Raises what rocksdict raises where one is damaged or missing.

    A follower leaves such a table out and all that came after it, without a word, and shows the logs on top of what is
    left. RocksDB opened only to read is strict. It is given no logs here, which would cost time.
    """
    options = _options(shape)
    options.set_wal_dir(place)
    options.set_db_log_dir(place)
    strict = Rdict(str(directory), options, access_type=AccessType.read_only(False))
    try:
        return _tables(strict)
    finally:
        strict.close()


def _tables(instance: Rdict) -> set[tuple[str, int]]:
    return {(table["name"], table["size"]) for table in instance.live_files()}


def _while_still(directory: Path, opened: Callable[[], T]) -> tuple[T, Files]:
    """What is opened, if no log was removed meanwhile: else it may have read which tables there are, and then have
    missed a log that had become one of them."""
    for attempt in range(1, _ATTEMPTS + 1):
        before = Files.of(directory)
        try:
            instance = opened()
        except NothingThereError:
            raise
        except Exception:  # a file may be gone that was there a moment ago
            if attempt == _ATTEMPTS or (attempt > 3 and Files.of(directory) == before):
                raise
        else:
            if before.log_names <= Files.of(directory).log_names:
                return instance, before
        time.sleep(_PAUSE)
    raise OSError(f"the files in {directory} changed each time that they were opened")


def _options(shape: Shape) -> Options:
    # raw_mode: else rocksdict would pickle and, worse, unpickle what it finds.
    options = Options(raw_mode=True)
    # A follower holds every table open: the writer removes those that it has merged.
    options.set_max_open_files(-1)
    options.set_write_buffer_size(shape.buffer_bytes)
    options.set_max_log_file_size(_INFO_LOG_BYTES)
    options.set_keep_log_file_num(2)
    options.set_stats_dump_period_sec(0)
    options.set_compression_type(getattr(DBCompressionType, shape.compression)())
    tables = BlockBasedOptions()
    tables.set_block_cache(shape.cache)
    tables.set_bloom_filter(10, False)
    tables.set_data_block_index_type(DataBlockIndexType.binary_and_hash())
    options.set_block_based_table_factory(tables)
    return options

"""What the parts of OrderedKeyValueSuite share: the engine under test, and short ways to write and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ikvcore.models import BackendInfo, Meta, WriteBatch
from ikvcore.protocols import OrderedKeyValue
from ikvcore.testing._plugins import open_backend

__all__ = ["KeyValueBase", "commit", "pairs", "value"]


class KeyValueBase:
    """An engine opened anew for each test."""

    info: ClassVar[BackendInfo]
    """The backend under test."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Options that the backend is opened with, here and in child processes."""

    def open_engine(self, directory: Path) -> OrderedKeyValue:
        """Open the engine in `directory`; a second call for the same one opens the same data."""
        engine = open_backend(self.info.name, directory, self.options)
        assert isinstance(engine, OrderedKeyValue)
        return engine

    def open_follower(self, directory: Path) -> OrderedKeyValue:
        """Open the engine in `directory` to follow."""
        engine = open_backend(self.info.name, directory, self.options, follow=True)
        assert isinstance(engine, OrderedKeyValue)
        return engine

    @property
    def max_key_bytes(self) -> int:
        """The longest key that the backend has to take."""
        return self.info.max_key_bytes or 65_540

    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        """The engine's own, existing directory."""
        path = tmp_path / "engine"
        path.mkdir()
        return path

    @pytest.fixture
    def engine(self, directory: Path) -> Iterator[OrderedKeyValue]:
        """An empty engine."""
        engine = self.open_engine(directory)
        yield engine
        engine.close()


def commit(
    engine: OrderedKeyValue,
    puts: Mapping[bytes, bytes] | None = None,
    *,
    deletes: set[bytes] | None = None,
    ranges: list[tuple[bytes, bytes]] | None = None,
    expect: Meta | None = None,
) -> None:
    """One commit, from its parts."""
    batch = WriteBatch(puts=dict(puts or {}), deletes=set(deletes or ()), ranges=list(ranges or ()))
    engine.commit(batch, expect=expect or {})


def pairs(engine: OrderedKeyValue, start: bytes = b"", stop: bytes | None = None) -> list[tuple[bytes, bytes]]:
    """The pairs of start <= key < stop in the latest state."""
    with engine.snapshot() as snapshot:
        return [(bytes(key), bytes(data)) for key, data in engine.scan(snapshot, start, stop)]


def value(engine: OrderedKeyValue, key: bytes) -> bytes | None:
    """The value of `key` in the latest state."""
    with engine.snapshot() as snapshot:
        return snapshot.get(key)

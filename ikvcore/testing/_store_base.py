"""What the parts of StoreSuite share: stores on the pair of plugins under test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ikvcore._registry import load_backend, load_transport
from ikvcore.models import BackendInfo, TransportInfo
from ikvcore.testing._live import LiveStore

__all__ = ["MakeStore", "StoreBase"]

MakeStore = Callable[..., LiveStore]
"""Makes a store; takes what LiveStore fixes: partitions, primary_key, ..."""


class StoreBase:
    """Stores of one account, made for each test and removed after it."""

    backend: ClassVar[str]
    """Name of the backend under test."""
    transport: ClassVar[str]
    """Name of the transport under test."""
    backend_options: ClassVar[Mapping[str, Any]] = {}
    transport_options: ClassVar[Mapping[str, Any]] = {}

    carries_no_value: ClassVar[bool] = False
    """Whether the transport can publish a Message whose value is None."""

    @property
    def backend_info(self) -> BackendInfo:
        """What the backend says of itself."""
        return load_backend(self.backend).info

    @property
    def transport_info(self) -> TransportInfo:
        """What the transport says of itself."""
        return load_transport(self.transport).info

    @pytest.fixture(autouse=True)
    def home(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
        """IKV_HOME of this class's tests: one account for all, since verifying a new passkey is slow on purpose."""
        home = tmp_path_factory.getbasetemp() / f"home-{type(self).__name__}"
        monkeypatch.setenv("IKV_HOME", str(home))
        return home

    @pytest.fixture
    def make(self, tmp_path: Path, home: Path) -> Iterator[MakeStore]:
        """Makes stores."""
        made: list[LiveStore] = []

        def make(**fixed: Any) -> LiveStore:
            store = self.make_store(tmp_path / f"mounts-{len(made)}", **fixed)
            made.append(store)
            return store

        yield make
        for store in reversed(made):
            store.close()

    def make_store(self, directory: Path, **fixed: Any) -> LiveStore:
        """One store whose mounts are in `directory`; the caller closes it."""
        return LiveStore(
            backend=self.backend,
            transport=self.transport,
            directory=None if self.backend_info.volatile else directory,
            backend_options=self.backend_options,
            transport_options=self.transport_options,
            account_id=f"account-{type(self).__name__}-{os.getpid()}",
            **fixed,
        )

    @pytest.fixture
    def store(self, make: MakeStore) -> LiveStore:
        """A new store with one partition and the primary key "id"."""
        return make()

"""The format tier: what was written opens again, and what a newer release wrote is refused and left as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from ikvcore.errors import FormatVersionError
from ikvcore.inspection import read_log
from ikvcore.testing._live import LiveStore, document
from ikvcore.testing._parallel import PATIENCE
from ikvcore.testing._store_base import MakeStore, StoreBase

__all__ = ["LogFormat", "ReplicaFormat"]

_MANIFEST: Final = "replica.json"
_DOCUMENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    f"{number:02}é\0": {
        "whole": number - 20,
        "float": number / 7,
        "text": "žluť" * number,
        "raw": bytes(range(number)),
        "flag": number % 2 == 0,
        f"own{number % 5}": "x",
    }
    for number in range(40)
}


class ReplicaFormat(StoreBase):
    """Files of a replica."""

    seed: ClassVar[int] = 1

    def test_its_own_files_open_again(self, make: MakeStore) -> None:
        """Closed and opened again a replica has all that it had, from its files: it is not built anew."""
        store = self._filled(make)
        before = dict(store.reader.scan())
        store.restart_reader()
        assert dict(store.reader.scan()) == before == {key: {"id": key, **row} for key, row in _DOCUMENTS.items()}
        assert sorted(path.name for path in self._mount(store).glob("gen-*")) == ["gen-1"]
        store.put(id="new", whole=1)
        assert store.reader.count() == len(before) + 1
        assert store.reader.stats().events_applied == len(before) + 1

    def test_a_newer_format_is_refused_untouched(self, make: MakeStore) -> None:
        """A mount of a newer format: FormatVersionError, and every file is as it was."""
        store = self._filled(make)
        store.restart_reader()
        manifest = self._mount(store) / _MANIFEST
        content = json.loads(manifest.read_text(encoding="utf-8"))
        manifest.write_text(json.dumps({**content, "format": content["format"] + 1}), encoding="utf-8")
        before = _files(self._mount(store))
        with pytest.raises(FormatVersionError):
            store.unstarted_reader().startup(timeout=PATIENCE)
        assert _files(self._mount(store)) == before

    def _filled(self, make: MakeStore) -> LiveStore:
        if self.backend_info.volatile:
            pytest.skip("volatile, by what it declares")
        return filled(make)

    @staticmethod
    def _mount(store: LiveStore) -> Path:
        assert store.directory is not None
        return store.directory / "mount"


class LogFormat(StoreBase):
    """A log."""

    seed: ClassVar[int] = 1

    def test_its_own_log_opens_again(self, make: MakeStore) -> None:
        """Closed and opened again a log has every event at its place, for whoever reads the log or builds a replica."""
        store = filled(make)
        with read_log(store.options) as events:
            before = list(events)
        store.restart_writer()
        store.restart_reader()
        with read_log(store.options) as events:
            assert list(events) == before
        fresh = dict(store.new_reader(store.builder("fresh")).scan())
        assert fresh == {key: {"id": key, **row} for key, row in _DOCUMENTS.items()}
        store.put(id="new", whole=1)
        with read_log(store.options) as events:
            assert list(events)[:-1] == before


def filled(make: MakeStore) -> LiveStore:
    """A store with one partition that has documents of every type."""
    store = make()
    for key, row in _DOCUMENTS.items():
        token = store.writer.upsert_fields(document(id=key, **row))
    store.shown(token)
    return store


def _files(directory: Path) -> dict[str, bytes]:
    """Every file's bytes. The replica is closed: nothing of its engine is open in this process."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}

"""The format tier: what was written opens again, and what a newer release wrote is refused and left as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

import pytest

from ikvcore.clientoptions import ClientOptions
from ikvcore.errors import FormatVersionError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.inspection import read_log
from ikvcore.testing._live import LiveStore, document
from ikvcore.testing._parallel import PATIENCE
from ikvcore.testing._store_base import MakeStore, StoreBase
from ikvcore.testing.conformance._documents import ROWS, fill
from ikvcore.testing.conformance._golden import NONE_NAMED, Golden, archives, places
from ikvcore.tokens import Token

__all__ = ["LogFormat", "ReplicaFormat"]

_MANIFEST: Final = "replica.json"


class _Format(StoreBase):
    """What both have."""

    seed: ClassVar[int] = 1
    golden: ClassVar[Path | None] = None
    """The directory of the archives that the author names."""

    def unpacked(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Golden]]:
        """Each archive's name, and its content in a directory of its own, whose home is IKV_HOME meanwhile."""
        if self.golden is None:
            pytest.skip(NONE_NAMED)
        for archive in archives(self.golden):
            golden = Golden.unpacked(archive, place / archive.stem)
            monkeypatch.setenv("IKV_HOME", str(golden.home))
            yield archive.name, golden


class ReplicaFormat(_Format):
    """Files of a replica."""

    def test_golden_files_open(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The replica that each released version wrote opens with every field, is not built anew, and goes on."""
        if self.backend_info.volatile:
            pytest.skip("volatile, by what it declares")
        for name, golden in self.unpacked(tmp_path, monkeypatch):
            before = generations(golden.mount)
            options = golden.options(self.backend, self.backend_options)
            reader = create_new_reader(options)
            reader.startup(timeout=PATIENCE)
            try:
                assert dict(reader.scan()) == ROWS, name
                token = written(options, "new")
                reader.wait_for(token, timeout=PATIENCE)
                assert reader.get_string_value("new", "text") == "later", name
                assert reader.count() == reader.stats().events_applied == len(ROWS) + 1, name
            finally:
                reader.shutdown()
            assert generations(golden.mount) == before, f"{name}: the replica was built anew"

    def test_its_own_files_open_again(self, make: MakeStore) -> None:
        """Closed and opened again a replica has all that it had, from its files: it is not built anew."""
        store = self._filled(make)
        before = dict(store.reader.scan())
        store.restart_reader()
        assert dict(store.reader.scan()) == before == ROWS
        assert generations(self._mount(store)) == ["gen-1"]
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


class LogFormat(_Format):
    """A log."""

    def test_golden_files_open(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The log that each released version wrote opens: every event is at its place, and a replica that is built from
        it has every field. It goes on."""
        for name, golden in self.unpacked(tmp_path, monkeypatch):
            options = golden.options(self.backend, self.backend_options, self.transport_options)
            assert places(options) == golden.places, name
            reader = create_new_reader(options)
            reader.startup(timeout=PATIENCE)
            try:
                assert dict(reader.scan()) == ROWS, name
            finally:
                reader.shutdown()
            written(options, "new")
            after = places(options)
            assert after[:-1] == golden.places, name
            assert after[-1][2] == "new", name

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
        assert fresh == ROWS
        store.put(id="new", whole=1)
        with read_log(store.options) as events:
            assert list(events)[:-1] == before


def filled(make: MakeStore) -> LiveStore:
    """A store with one partition that has documents of every type."""
    store = make()
    fill(store)
    return store


def written(options: ClientOptions, key: str) -> Token:
    """Write one more document, by a writer of its own."""
    writer = create_new_writer(options)
    writer.startup()
    try:
        return writer.upsert_fields(document(id=key, text="later"))
    finally:
        writer.shutdown()


def generations(mount: Path) -> list[str]:
    """Of a replica's files: another one comes with each that is built."""
    return sorted(path.name for path in mount.glob("gen-*"))


def _files(directory: Path) -> dict[str, bytes]:
    """Every file's bytes. The replica is closed: nothing of its engine is open in this process."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}

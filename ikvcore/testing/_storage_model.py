"""StorageSuite, part five: random batches of mutations, compared with a plain dict after each commit."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ikvcore.fields import FieldType, encode
from ikvcore.models import Clear, DeleteDocument, DeleteFields, DropFields, Mutation, Upsert
from ikvcore.protocols import Reclaim, Storage, Verify
from ikvcore.testing._storage_base import KEY_FIELD, Document, Ingester, StorageBase, bits, contents, modelled
from ikvcore.testing.model import StoreModel

__all__ = ["BATCHES", "StorageModelled"]

PARTITIONS = st.integers(0, 2)
KEYS = st.sampled_from([b"a", b"b", b"\x00", b"a\x00", b"k" * 600, b"k" * 601, b"k" * 599 + b"l"])
NAMES = st.sampled_from(["f", "fa", "fab", "g", "ga", "F", "é"])
PREFIXES = st.sampled_from(["", "f", "fa", "g", "F", "z"])
VALUES = st.one_of(
    st.tuples(st.just(FieldType.INT32), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just(FieldType.INT64), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just(FieldType.FLOAT32), st.floats(width=32)),
    st.tuples(st.just(FieldType.FLOAT64), st.floats()),
    st.tuples(st.just(FieldType.STRING), st.text(max_size=8)),
    st.tuples(st.just(FieldType.BYTES), st.binary(max_size=8)),
    st.tuples(st.just(FieldType.BOOLEAN), st.booleans()),
).map(lambda pair: (pair[0], encode("field", *pair)))


def _upsert(partition: int, key: bytes, fields: dict[str, tuple[FieldType, bytes]]) -> Upsert:
    return Upsert(partition, key, {KEY_FIELD: (FieldType.BYTES, key), **fields}, None)


def _drop(partition: int, names: frozenset[str], prefixes: list[str]) -> DropFields:
    return DropFields(partition, names, tuple(prefixes), frozenset({KEY_FIELD}), None)


UPSERTS = st.builds(_upsert, PARTITIONS, KEYS, st.dictionaries(NAMES, VALUES, max_size=4))
MUTATIONS: st.SearchStrategy[Mutation] = st.one_of(
    UPSERTS,
    UPSERTS,
    st.builds(DeleteFields, PARTITIONS, KEYS, st.frozensets(NAMES, max_size=3), st.none()),
    st.builds(DeleteDocument, PARTITIONS, KEYS, st.none()),
    st.builds(_drop, PARTITIONS, st.frozensets(NAMES, max_size=2), st.just([])),
    st.builds(_drop, PARTITIONS, st.frozensets(NAMES, max_size=1), st.lists(PREFIXES, max_size=2)),
    st.builds(Clear, PARTITIONS, st.none()),
)
BATCHES = st.lists(st.tuples(st.lists(MUTATIONS, max_size=6), st.booleans()), min_size=3, max_size=10)
"""Each batch with whether a step of reclaiming follows it."""


class StorageModelled(StorageBase):
    """The storage equals the model."""

    @settings(
        max_examples=60,
        derandomize=True,
        database=None,
        deadline=None,
        # one method serves the subclass of every backend
        suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(batches=BATCHES)
    def test_random_batches(self, batches: list[tuple[list[Mutation], bool]]) -> None:
        """After every commit of random mutations the storage holds what a plain dict holds, types and bits included."""
        self.follow(batches)

    def follow(self, batches: list[tuple[list[Mutation], bool]]) -> None:
        """Commit batches to a new storage, and compare; for backends whose commits are too slow for so many runs."""
        with tempfile.TemporaryDirectory() as directory:
            storage = self.open_storage(Path(directory))
            try:
                _follow(storage, batches)
            finally:
                storage.close()


def _follow(storage: Storage, batches: list[tuple[list[Mutation], bool]]) -> None:
    ingester, model = Ingester(storage), StoreModel()
    for mutations, reclaim in batches:
        ingester.apply(*mutations)
        model.apply(mutations)
        assert _bitwise(contents(storage, limit=4)) == _bitwise(modelled(model))
        if reclaim and isinstance(storage, Reclaim):
            meta, expect = ingester.step()
            storage.reclaim(max_records=4, meta=meta, expect=expect)
    if isinstance(storage, Reclaim):
        ingester.reclaim(max_records=3)
    assert _bitwise(contents(storage)) == _bitwise(modelled(model))
    if isinstance(storage, Verify):
        assert storage.verify() == []


def _bitwise(found: dict[tuple[int, bytes], Document]) -> object:
    return {
        place: {name: (field_type, bits(value)) for name, (field_type, value) in document.items()}
        for place, document in found.items()
    }

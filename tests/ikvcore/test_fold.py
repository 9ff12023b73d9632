"""Folding several mutations of a document into one of each kind changes nothing but the work."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikvcore._fold import fold
from ikvcore.fields import FieldType, encode
from ikvcore.models import Clear, DeleteDocument, DeleteFields, DropFields, Mutation, Upsert
from ikvcore.testing.model import StoreModel

PARTITIONS = st.integers(0, 1)
KEYS = st.sampled_from([b"a", b"b"])
NAMES = st.sampled_from(["f", "fa", "g"])
VALUES = st.one_of(
    st.integers(0, 9).map(lambda number: (FieldType.INT32, encode("f", FieldType.INT32, number))),
    st.sampled_from([(FieldType.STRING, b""), (FieldType.STRING, b"x"), (FieldType.BYTES, b"x")]),
)


def upsert(partition: int, key: bytes, fields: dict[str, tuple[FieldType, bytes]]) -> Upsert:
    return Upsert(partition, key, {"id": (FieldType.BYTES, key), **fields}, None)


MUTATIONS: st.SearchStrategy[Mutation] = st.one_of(
    st.builds(upsert, PARTITIONS, KEYS, st.dictionaries(NAMES, VALUES, max_size=3)),
    st.builds(DeleteFields, PARTITIONS, KEYS, st.frozensets(NAMES, min_size=1), st.none()),
    st.builds(DeleteDocument, PARTITIONS, KEYS, st.none()),
    st.builds(
        DropFields,
        PARTITIONS,
        st.frozensets(NAMES),
        st.sampled_from([(), ("f",), ("",)]),
        st.just(frozenset({"id"})),
        st.none(),
    ),
    st.builds(Clear, PARTITIONS, st.none()),
)


def documents(*batches: list[Mutation]) -> list[tuple[int, bytes, dict[str, tuple[FieldType, bytes]]]]:
    model = StoreModel({"id"})
    for batch in batches:
        model.apply(batch)
    return sorted(model.documents(), key=lambda document: document[:2])


@given(st.lists(MUTATIONS, max_size=6), st.lists(MUTATIONS, max_size=12))
def test_folding_equals_not_folding(before: list[Mutation], batch: list[Mutation]) -> None:
    """On any documents that were there before, the folded batch leaves what the batch leaves."""
    assert documents(before, fold(batch)) == documents(before, batch)


A_KEY = b"a"
OF_ONE_DOCUMENT: list[Mutation] = [
    upsert(0, A_KEY, {}),
    upsert(0, A_KEY, {"f": (FieldType.STRING, b"new")}),
    upsert(0, A_KEY, {"g": (FieldType.STRING, b"new")}),
    DeleteFields(0, A_KEY, frozenset({"f"}), None),
    DeleteDocument(0, A_KEY, None),
    DropFields(0, frozenset({"f"}), (), frozenset({"id"}), None),
    Clear(0, None),
]


@pytest.mark.parametrize("before", [[], [upsert(0, A_KEY, dict.fromkeys(("f", "g", "h"), (FieldType.STRING, b"old")))]])
def test_folding_equals_not_folding_for_every_short_batch_of_one_document(before: list[Mutation]) -> None:
    """All of them: at random, the few batches that a fault needs come too seldom."""
    for length in (1, 2, 3, 4):
        for batch in itertools.product(OF_ONE_DOCUMENT, repeat=length):
            assert documents(before, fold(batch)) == documents(before, list(batch)), batch


@given(st.lists(MUTATIONS, max_size=20))
def test_each_document_is_touched_once_between_drops(batch: list[Mutation]) -> None:
    """Of one document, at most one mutation of each kind is left between two drops of its partition."""
    seen: Counter[object] = Counter()
    eras: Counter[int] = Counter()
    for mutation in fold(batch):
        if isinstance(mutation, (DropFields, Clear)):
            eras[mutation.partition] += 1
        else:
            seen[mutation.partition, eras[mutation.partition], mutation.key, type(mutation)] += 1
    assert all(count == 1 for count in seen.values())


@given(st.lists(MUTATIONS, max_size=20))
def test_folding_twice_is_folding_once(batch: list[Mutation]) -> None:
    """What is folded already has one form, and drops are neither lost nor doubled."""
    folded = fold(batch)
    assert documents(fold(folded)) == documents(folded)
    drops = [mutation for mutation in batch if isinstance(mutation, (DropFields, Clear))]
    kept = [mutation for mutation in folded if isinstance(mutation, (DropFields, Clear))]
    for partition in (0, 1):
        assert [d for d in kept if d.partition == partition] == [d for d in drops if d.partition == partition]


def test_the_last_timestamp_is_kept() -> None:
    """A folded document carries the time of its last event."""
    first, second = upsert(0, b"a", {})._replace(timestamp=1), upsert(0, b"a", {})._replace(timestamp=2)
    assert [mutation.timestamp for mutation in fold([first, second])] == [2]

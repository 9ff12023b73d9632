"""StoreSuite, part four: partitions, partitioning keys, and readers that hold some (C3.7, C3.12)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest

from ikvcore._proto import FieldValue
from ikvcore.errors import InvalidDocumentError, InvalidTokenError, OptionsError, PartitionNotHeldError
from ikvcore.models import Start
from ikvcore.testing._live import LiveStore, document, documents
from ikvcore.testing._parallel import PATIENCE
from ikvcore.testing._raw_events import STRING, raw_drop, raw_upsert
from ikvcore.testing._store_base import MakeStore, StoreBase
from ikvcore.testing._transport_base import drain

__all__ = ["StorePartitions"]


class StorePartitions(StoreBase):
    """One store over several logs."""

    @pytest.mark.parametrize("partitioner", ["murmur2", "crc32"])
    def test_c3_12_str_and_bytes_over_8_partitions(self, make: MakeStore, partitioner: str) -> None:
        """A key given as str, bytes and bytearray is one document over 8 partitions, and all forms read it."""
        store = make(partitions=8, partitioner=partitioner)
        keys = [f"key-{n}-é" for n in range(100)]
        store.writer.upsert_fields_batch(documents({"id": key, "s": n} for n, key in enumerate(keys)))
        store.shown(
            store.writer.upsert_fields_batch(documents({"id": key.encode(), "b": n} for n, key in enumerate(keys)))
        )
        assert store.reader.count() == 100
        expected = {key: {"id": key, "s": n, "b": n} for n, key in enumerate(keys)}
        assert dict(store.reader.scan()) == expected
        for key in keys:
            for form in (key, key.encode(), bytearray(key.encode())):
                assert store.reader.get_document(form) == expected[key]
        assert list(store.reader.multiget_values(keys, ["s"])) == list(range(100))
        assert len({store.writer.upsert_fields(document(id=key)).positions.popitem()[0] for key in keys}) == 8
        store.shown(store.writer.delete_document_batch(documents({"id": key.encode()} for key in keys)))
        assert store.reader.count() == 0

    @pytest.mark.parametrize("partitioner", ["murmur2", "crc32"])
    def test_c3_12_message_keys(self, make: MakeStore, partitioner: str) -> None:
        """The message key is the key serialized with the store's type, whatever type the caller gave, and its hash
        decides the partition, as in producers of other languages."""
        assert _murmur2(b"foobar") & 0xFFFFFFFF == -790332482 & 0xFFFFFFFF
        assert _murmur2(b"a-little-bit-longer-string") & 0xFFFFFFFF == -1486304829 & 0xFFFFFFFF
        store = make(partitions=8, partitioner=partitioner)
        for n in range(30):
            key: Any = f"key-{n}" if n % 2 else f"key-{n}".encode()
            token = store.writer.upsert_fields(document(id=key))
            ((partition, end),) = token.positions.items()
            message = _last_message(store, partition, end)
            expected = FieldValue(fieldType=STRING, value=f"key-{n}".encode()).SerializeToString()
            assert message.key == expected
            hashed = zlib.crc32(expected) if partitioner == "crc32" else _murmur2(expected) & 0x7FFFFFFF
            assert partition == hashed % 8

    def test_drops_go_to_every_partition(self, make: MakeStore) -> None:
        """A drop is published to every partition; a document's events to its own alone."""
        store = make(partitions=5)
        for token in (
            store.writer.drop_fields_by_name(["x"]),
            store.writer.drop_fields_by_name_prefix(["x"]),
            store.writer.drop_all_fields(),
        ):
            assert set(token.positions) == set(range(5))
        places = set()
        for call in (store.writer.upsert_fields, store.writer.delete_document):
            places |= set(call(document(id="a")).positions)
        places |= set(store.writer.delete_fields(document(id="a"), ["x"]).positions)
        assert len(places) == 1

    # -- partitioning keys ---------------------------------------------------------------------

    def test_partitioning_key_routes(self, make: MakeStore) -> None:
        """Documents of one partitioning-key value share a partition; it is a readable field, and required of every call
        that routes by it."""
        store = make(partitioning_key="region", partitions=6)
        tokens = [store.writer.upsert_fields(document(id=str(n), region="eu", x=n)) for n in range(20)]
        assert len({next(iter(token.positions)) for token in tokens}) == 1
        store.shown(tokens[-1])
        assert store.reader.get_document("7") == {"id": "7", "region": "eu", "x": 7}
        assert list(store.reader.multiget_values(["3", "nope", "4"], ["region", "x"])) == ["eu", 3, None, None, "eu", 4]
        before = store.log.bounds()
        calls: tuple[Callable[[], object], ...] = (
            lambda: store.writer.upsert_fields(document(id="a", x=1)),
            lambda: store.writer.delete_document(document(id="7")),
            lambda: store.writer.delete_fields(document(id="7"), ["x"]),
        )
        for call in calls:
            with pytest.raises(InvalidDocumentError, match="'region'"):
                call()
        assert store.log.bounds() == before
        store.writer.delete_fields(document(id="7", region="eu"), ["x"])
        store.shown(store.writer.delete_document(document(id="8", region="eu")))
        assert store.reader.get_document("7") == {"id": "7", "region": "eu"}
        assert store.reader.count() == 19

    def test_partitioning_key_types(self, make: MakeStore) -> None:
        """A partitioning key given as str or as bytes routes alike."""
        store = make(partitioning_key="region", partitioning_key_type="BYTES", partitions=8)
        for n in range(20):
            as_bytes = store.writer.upsert_fields(document(id="a", region=b"r%d" % n))
            as_str = store.writer.upsert_fields(document(id="a", region=f"r{n}"))
            assert set(as_bytes.positions) == set(as_str.positions)

    def test_c3_12_a_key_in_two_partitions(self, make: MakeStore) -> None:
        """A primary key that lives in two partitions counts twice, and the lowest is read, whichever came first."""
        store = make(partitioning_key="region", partitions=4)
        regions: dict[int, str] = {}
        for n in range(200):
            (partition,) = store.writer.upsert_fields(document(id=f"probe{n}", region=f"r{n}")).positions
            regions.setdefault(partition, f"r{n}")
        assert len(regions) == 4
        store.shown(store.writer.drop_all_fields())
        for partition in (2, 1, 3):
            store.put(id="a", region=regions[partition], place=partition)
            lowest = min(2, partition) if partition < 3 else 1
            assert store.reader.get_value("a", "place") == lowest
            assert list(store.reader.multiget_documents(["a", "b"])) == [
                {"id": "a", "region": regions[lowest], "place": lowest},
                None,
            ]
        assert store.reader.count() == 3
        assert sorted(fields["place"] for _, fields in store.reader.scan()) == [1, 2, 3]
        store.shown(store.writer.delete_document(document(id="a", region=regions[1])))
        assert (store.reader.get_value("a", "place"), store.reader.count()) == (2, 2)

    # -- readers that hold some ----------------------------------------------------------------

    def test_subset_of_partitions(self, make: MakeStore) -> None:
        """A reader that holds some partitions reads, scans and counts those; a key of another raises
        PartitionNotHeldError from every call."""
        store = make(partitions=4)
        places: dict[int, list[str]] = {}
        for n in range(60):
            (partition,) = store.writer.upsert_fields(document(id=str(n), x=n)).positions
            places.setdefault(partition, []).append(str(n))
        assert len(places) == 4
        reader = store.new_reader(store.builder("some").with_partitions([3, 1]))
        held = places[1] + places[3]
        assert dict(reader.scan()) == {key: {"id": key, "x": int(key)} for key in held}
        assert reader.count() == len(held)
        assert list(reader.multiget_values(held, ["x"])) == [int(key) for key in held]
        assert set(reader.stats().partitions) == {1, 3}
        other = places[2][0]
        for call in (
            lambda: reader.get_value(other, "x"),
            lambda: reader.get_int64_value(other, "x"),
            lambda: reader.get_document(other.encode()),
            lambda: reader.multiget_values([held[0], other], ["x"]),
            lambda: reader.multiget_string_values(str_primary_keys=[other], field_names=["x"]),
            lambda: reader.multiget_documents([other]),
        ):
            with pytest.raises(PartitionNotHeldError) as raised:
                call()
            assert repr(other) in str(raised.value) or repr(other.encode()) in str(raised.value)
            assert "[1, 3]" in str(raised.value)

    def test_subset_waits_for_what_it_holds(self, make: MakeStore) -> None:
        """wait_for waits for those of the token's partitions that are held; with none of them held it is an error at
        once. What is not held may even be undecodable."""
        store = make(partitions=3)
        store.publish(b"\xff\xff\xff", partition=0)
        reader = store.new_reader(store.builder("some").with_partitions([2]))
        event = raw_upsert({"id": (STRING, b"a"), "x": (STRING, b"1")})
        both = store.publish(event, partition=2) | store.publish(b"\xff", partition=1)
        reader.wait_for(both, timeout=PATIENCE)
        assert reader.count() == 1
        reader.wait_for(store.writer.drop_all_fields(), timeout=PATIENCE)
        assert reader.count() == 0
        for partition in (0, 1):
            with pytest.raises(InvalidTokenError):
                reader.wait_for(store.publish(raw_drop(), partition=partition), timeout=PATIENCE)

    def test_subset_without_routing(self, make: MakeStore) -> None:
        """Where the partitioning key decides the partition, a reader of some partitions gives None for what it does not
        hold: it cannot know."""
        store = make(partitioning_key="region", partitions=3)
        places = {}
        for n in range(30):
            (places[f"{n}"],) = store.writer.upsert_fields(document(id=f"{n}", region=f"r{n}")).positions
        reader = store.new_reader(store.builder("some").with_partitions([1]))
        for key, partition in places.items():
            assert (reader.get_document(key) is not None) == (partition == 1)

    @pytest.mark.parametrize("partitions", [[3], [0, 3], [99]])
    def test_partitions_that_there_are_not(self, make: MakeStore, partitions: list[int]) -> None:
        """Asking for a partition that the store does not have is an error at startup."""
        store = make(partitions=3)
        reader = store.unstarted_reader(store.builder().with_partitions(partitions))
        with pytest.raises(OptionsError, match=str(partitions[-1])):
            reader.startup(timeout=PATIENCE)


def _last_message(store: LiveStore, partition: int, end: int) -> Any:
    first = store.log.bounds()[partition].first
    subscription = store.log.subscribe({partition: Start(first, None)})
    try:
        return drain(subscription, {partition: end})[-1]
    finally:
        subscription.close()


def _murmur2(data: bytes) -> int:
    """The Java client's murmur2, from its published source, as an unsigned 32-bit number."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15

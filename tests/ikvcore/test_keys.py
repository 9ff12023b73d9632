"""Keys and partitions agree with Kafka's clients to the bit (C3.7, C3.12)."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikvcore._keys import MAX_KEY_BYTES, key_bytes, message_key, murmur2, partition_of
from ikvcore._proto import FieldValue
from ikvcore.errors import InvalidKeyError, KeyTypeError
from ikvcore.fields import FieldType
from ikvcore.models import StoreDescription

VECTORS = {  # Kafka, UtilsTest.testMurmur2
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def store(partitions: int, partitioner: str = "murmur2", **fixed: Any) -> StoreDescription:
    return StoreDescription(
        store_name="s",
        account_id="a",
        identity="i",
        primary_key="id",
        partitions=partitions,
        partitioner=partitioner,
        **fixed,
    )


@pytest.mark.parametrize("data", VECTORS)
def test_murmur2_gives_the_published_vectors(data: bytes) -> None:
    assert murmur2(data) == VECTORS[data] % 2**32


@pytest.mark.parametrize("data", VECTORS)
@pytest.mark.parametrize("partitions", [1, 2, 3, 8, 1000, 65_535])
def test_partitions_are_those_of_the_java_client(data: bytes, partitions: int) -> None:
    """The sign bit is masked off before the remainder (Utils.toPositive), not the absolute value taken."""
    assert partition_of(data, store(partitions)) == (VECTORS[data] & 0x7FFFFFFF) % partitions


@pytest.mark.parametrize("partitions", [1, 2, 8, 1000])
def test_partitions_are_those_of_librdkafka(partitions: int) -> None:
    """rd_kafka_msg_partitioner_consistent: CRC-32 as it is, modulo the partitions."""
    for data, checksum in ((b"123456789", 0xCBF43926), (b"a", 0xE8B7BE43)):
        assert crc32(data) == checksum
        assert partition_of(data, store(partitions, "crc32")) == checksum % partitions


@given(st.sampled_from([FieldType.STRING, FieldType.BYTES]), st.binary(min_size=1, max_size=300))
def test_message_keys_are_protobufs(key_type: FieldType, data: bytes) -> None:
    """The key of a message is what protobuf writes for FieldValue{fieldType, value}."""
    assert message_key(key_type, data) == FieldValue(fieldType=int(key_type), value=data).SerializeToString()


@pytest.mark.parametrize("length", [1, 127, 128, 16_383, 16_384, MAX_KEY_BYTES])
def test_message_keys_are_protobufs_at_every_length_of_a_length(length: int) -> None:
    data = b"k" * length
    assert message_key(FieldType.STRING, data) == FieldValue(fieldType=5, value=data).SerializeToString()


@pytest.mark.parametrize("partitioner", ["murmur2", "crc32"])
def test_every_partition_is_reached(partitioner: str) -> None:
    keys = [message_key(FieldType.STRING, b"key-%d" % number) for number in range(400)]
    assert {partition_of(key, store(8, partitioner)) for key in keys} == set(range(8))


@pytest.mark.parametrize("key_type", [FieldType.STRING, FieldType.BYTES])
def test_a_key_is_the_same_as_str_bytes_and_bytearray(key_type: FieldType) -> None:
    """C3.7: the bytes decide, whatever the caller's class."""
    assert key_bytes("é", key_type) == key_bytes("é".encode(), key_type) == key_bytes(bytearray("é".encode()), key_type)
    assert type(key_bytes(bytearray(b"x"), key_type)) is bytes


@pytest.mark.parametrize("key", ["", b"", bytearray(), "k" * 65_536, b"k" * 65_536, "é" * 32_768, b"\xff", "\ud800"])
def test_impossible_keys_are_refused(key: object) -> None:
    with pytest.raises(InvalidKeyError):
        key_bytes(key, FieldType.STRING)


@pytest.mark.parametrize("key", [None, 1, 1.0, True, memoryview(b"x"), ["a"], object()])
def test_keys_of_other_classes_are_refused(key: object) -> None:
    with pytest.raises(KeyTypeError, match=type(key).__name__):
        key_bytes(key, FieldType.BYTES)


def test_keys_up_to_the_limit_are_taken() -> None:
    """1 to 65,535 bytes, NUL included; not UTF-8 where the store's keys are bytes."""
    for key in (b"\x00", b"k" * MAX_KEY_BYTES, "é" * 32_767):
        key_bytes(key, FieldType.STRING)
    assert key_bytes(b"\xff", FieldType.BYTES) == b"\xff"

"""Descriptions of stores: what others have put into their topic harms nobody. No broker is asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ikv_transports import _kafka_stores
from ikv_transports._kafka_stores import StoreRecord, find_store
from ikvcore.errors import StoreAccessError, TransportError
from ikvcore.models import LogMessage, StoreDescription, dump_json

STORE = StoreDescription(store_name="store", account_id="demo", identity="log", primary_key="id", partitions=1)
RECORD = StoreRecord(key=dump_json(["demo", "store", "n"]), topic="its", adopted=False, description=STORE)
DEEP = b"[" * 100_000
ODD = b'{"format": 1, "topic": "t", "adopted": false, "store": 1}'
CLUSTER: Any = SimpleNamespace(options=SimpleNamespace(stores_topic="ikv-stores"))


def holding(monkeypatch: pytest.MonkeyPatch, *pairs: tuple[bytes, bytes | None]) -> None:
    messages = [LogMessage(0, place, key, value, None) for place, (key, value) in enumerate(pairs)]
    monkeypatch.setattr(_kafka_stores, "read_all", lambda *_: messages)


@pytest.mark.parametrize(
    "key",
    [b"", b"\xff", b"1", b"{}", b"[]", b"null", DEEP, b'["demo", ["store"], "n"]', b'["demo", 1, "n"]', b'["demo"]'],
)
def test_a_key_that_is_none_of_ours_is_passed_over(monkeypatch: pytest.MonkeyPatch, key: bytes) -> None:
    holding(monkeypatch, (key, b"junk"), (RECORD.key, RECORD.value()), (key, b"again"), (b"\xfe", None))
    assert find_store(CLUSTER, "demo", "store") == RECORD
    records = _kafka_stores._Records(CLUSTER)
    assert records.stores("demo") == [RECORD]
    assert records.whose("its") == "store 'store' of account 'demo'"
    assert records.whose("another") is None
    with pytest.raises(StoreAccessError):
        find_store(CLUSTER, "demo", "other")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"1",
        b"{}",
        b"[]",
        DEEP,
        b'{"format": 2}',
        ODD,
    ],
)
def test_a_description_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, value: bytes) -> None:
    holding(monkeypatch, (RECORD.key, value))
    with pytest.raises(TransportError, match=r"the description .*demo.*store"):
        find_store(CLUSTER, "demo", "store")

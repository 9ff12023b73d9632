"""Descriptions of stores: what others have put into their topic harms nobody, nor does a broker that is behind."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from ikv_transports import _kafka_stores
from ikv_transports._kafka_cluster import KafkaCluster
from ikv_transports._kafka_stores import KafkaProvisioning, StoreRecord, find_store
from ikvcore import admin
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.document import IKVDocument
from ikvcore.errors import StoreAccessError, TransportError
from ikvcore.factory import create_new_writer
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
    assert _kafka_stores._Records(CLUSTER).whose("its") is None


def test_a_topic_is_a_stores_also_where_its_description_is_of_a_newer_release(monkeypatch: pytest.MonkeyPatch) -> None:
    holding(monkeypatch, (RECORD.key, b'{"format": 2, "topic": "its"}'))
    assert _kafka_stores._Records(CLUSTER).whose("its") == "store 'store' of account 'demo'"


def test_a_broker_that_has_not_heard_of_a_topic_yet_does_not_deny_it(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several brokers each hears of a new topic in its own time, and each question may go to another."""
    account = f"account-{uuid.uuid4().hex[:12]}"
    access: dict[str, Any] = {
        "account_id": account,
        "account_passkey": "secret",
        "transport": "kafka",
        "transport_options": {"bootstrap_servers": kafka},
    }
    topics, claim, denials = KafkaCluster.topics, KafkaProvisioning._claim, [0]

    def late(self: Any, names: Any) -> Any:
        found = topics(self, names)
        if denials[0] and any(name.startswith(f"ikv-{account}") for name in found):
            denials[0] -= 1
            return dict.fromkeys(found)
        return found

    def claimed(self: Any, *names: Any, **more: Any) -> None:
        claim(self, *names, **more)
        denials[0] = 3

    monkeypatch.setattr(KafkaCluster, "topics", late)
    monkeypatch.setattr(KafkaProvisioning, "_claim", claimed)
    made = admin.create_store("store", **access, primary_key="id")
    assert denials == [3]
    options = ClientOptionsBuilder().with_store_name("store").with_account_id(account).with_account_passkey("secret")
    options = options.with_transport("kafka", bootstrap_servers=kafka).with_console_logging("ERROR")
    with create_new_writer(options.build()) as writer:
        token = writer.upsert_fields(IKVDocument.from_dict({"id": "a"}))
    assert denials == [0]
    assert token.identity == made.identity
    admin.delete_store("store", **access)

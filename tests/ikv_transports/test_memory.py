"""What is particular to the memory transport: the process-wide table, forks, and trimming."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ikv_transports import memory
from ikv_transports._memory_table import MemoryTable
from ikvcore.errors import ForkedError, InvalidArgumentError, LogTrimmedError, StoreAccessError, TransportError
from ikvcore.models import Bounds, Message, Secret, Start, StoreDescription, TransportContext

CONTEXT = TransportContext(
    store_name="profiles", account_id="demo", passkey=Secret("secret"), options=memory.MemoryTransportOptions()
)
STORE = StoreDescription(store_name="profiles", account_id="demo", identity="log-1", primary_key="key", partitions=2)


@pytest.fixture(autouse=True)
def _own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_table", MemoryTable())
    memory.ikv_provisioning(context=CONTEXT).create_store(STORE)


def opened() -> memory.MemoryTransport:
    transport = memory.ikv_open_transport(context=CONTEXT)
    assert isinstance(transport, memory.MemoryTransport)
    return transport


def message(value: bytes, partition: int = 0) -> Message:
    return Message(partition, b"key", value, 1)


def test_a_log_lives_on_when_no_client_is_open() -> None:
    first = opened()
    first.publish([message(b"1")])
    first.close()
    assert opened().bounds()[0] == Bounds(0, 1, complete=True)


def test_a_log_that_was_cut_is_no_longer_complete() -> None:
    log = opened()
    log.publish([message(b"%d" % number) for number in range(5)])
    log.trim(0, 3)
    assert log.bounds() == {0: Bounds(3, 5, complete=False), 1: Bounds(0, 0, complete=True)}
    assert log.size() == 2 * len(b"key1")
    with pytest.raises(LogTrimmedError):
        log.subscribe({0: Start(2, None)})
    polled = log.subscribe({0: Start(3, None)}).poll(max_messages=10, max_bytes=1000, timeout=0)
    assert [each.position for each in polled.messages] == [3, 4]


def test_a_follower_that_the_cut_overtakes_loses_nothing_of_other_partitions() -> None:
    log = opened()
    subscription = log.subscribe({0: Start(0, None), 1: Start(0, None)})
    log.publish([message(b"a"), message(b"b", partition=1)])
    log.trim(1, 1)
    for _ in range(2):
        with pytest.raises(LogTrimmedError):
            subscription.poll(max_messages=10, max_bytes=1000, timeout=0)


@pytest.mark.parametrize("first", [-1, 3])
def test_a_log_is_cut_within_its_bounds_only(first: int) -> None:
    log = opened()
    log.publish([message(b"1"), message(b"2")])
    with pytest.raises(InvalidArgumentError, match="cannot be cut"):
        log.trim(0, first)


def test_a_deleted_store_is_gone_for_clients_that_are_open() -> None:
    log = opened()
    subscription = log.subscribe({0: Start(0, None)})
    provisioning = memory.ikv_provisioning(context=CONTEXT)
    provisioning.delete_store("profiles")
    provisioning.create_store(replace(STORE, identity="log-2"))
    for call in (log.bounds, lambda: log.publish([message(b"1")])):
        with pytest.raises(TransportError, match="deleted"):
            call()
    with pytest.raises(TransportError, match="deleted"):
        subscription.poll(max_messages=1, max_bytes=1, timeout=10)
    assert opened().describe().identity == "log-2"


def test_a_forked_child_has_no_logs_and_cannot_use_its_parents() -> None:
    log = opened()
    subscription = log.subscribe({0: Start(0, None)})
    calls = (
        log.describe,
        log.bounds,
        log.size,
        lambda: log.publish([message(b"1")]),
        lambda: log.subscribe({}),
        subscription.wake,
        lambda: subscription.poll(max_messages=1, max_bytes=1, timeout=0),
    )
    with log._log.changed:  # held at the fork, as by another thread; the child must not wait for it
        memory._start_empty()  # what the child does first
        for call in calls:
            with pytest.raises(ForkedError):
                call()
        log.close()
        subscription.close()
    with pytest.raises(StoreAccessError):
        opened()

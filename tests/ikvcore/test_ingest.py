"""Exactly once (C5), each partition at its own place (C3.11), what a bad event does (C7): seen from the ingester."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ikvcore import _ingest
from ikvcore._deadline import Deadline
from ikvcore._events import delete_document_event, drop_event, upsert_event
from ikvcore._ingest import Ingester
from ikvcore._kvstorage import KeyValueStorage
from ikvcore._progress import COMMIT_KEY, quarantined_events, read_progress
from ikvcore._replica import Replica, ReplicaPlan
from ikvcore._replica_table import close_replica, open_replica
from ikvcore._schema import unseal
from ikvcore.errors import (
    FencedError,
    IngestHaltedError,
    LogDivergedError,
    LogTrimmedError,
    LogUnavailableError,
    MountBusyError,
    StorageError,
    TransportError,
    WaitTimeoutError,
)
from ikvcore.fields import FieldType, encode_any
from ikvcore.models import (
    Bounds,
    LogMessage,
    Message,
    Polled,
    Projection,
    Secret,
    Start,
    StoreDescription,
    TransportContext,
    Witness,
)
from ikvcore.protocols import OrderedKeyValue
from ikvcore.testing.model import StoreModel, decoded
from ikvcore.tokens import Token
from ikvcore.witness import message_checksum

ALL = Projection(None)
PATIENCE = 30.0
BAD = b"\xff\xff\xff"
NO_OP = b""


# -- a log, a storage, an ingester -------------------------------------------------------------


class Log:
    """A store on the memory transport, and the model of what was published."""

    def __init__(self, partitions: int = 2) -> None:
        from ikv_transports import memory

        self.description = StoreDescription(
            store_name="s",
            account_id=f"a-{uuid.uuid4().hex}",
            identity=uuid.uuid4().hex,
            primary_key="id",
            partitions=partitions,
        )
        context = TransportContext(
            store_name=None,
            account_id=self.description.account_id,
            passkey=Secret("p"),
            options=memory.MemoryTransportOptions(),
        )
        memory.ikv_provisioning(context=context).create_store(self.description)
        self._context = replace(context, store_name="s")
        self._open = memory.ikv_open_transport
        self.transport: Any = self.opened()
        self.model = StoreModel({"id"})

    def opened(self) -> Any:
        """Another client of the log."""
        return self._open(context=self._context)

    def publish(self, partition: int, *values: bytes) -> Token:
        messages = [Message(partition, b"", value, 1_000_000_000) for value in values]
        return self.transport.publish(messages)

    def put(self, partition: int, key: str, **fields: Any) -> Token:
        return self.publish(partition, self.upsert(partition, key, **fields))

    def upsert(self, partition: int, key: str, **fields: Any) -> bytes:
        typed = {"id": (FieldType.STRING, key.encode())} | {n: encode_any(n, value) for n, value in fields.items()}
        self.model.upsert(partition, key.encode(), typed)
        return upsert_event(typed, 1)

    def drop(self, partition: int, *names: str) -> Token:
        self.model.drop(partition, names)
        return self.publish(partition, drop_event(1, names=names))

    def clear(self, partition: int) -> Token:
        self.model.clear(partition)
        return self.publish(partition, drop_event(1, drop_all=True))

    @property
    def ends(self) -> dict[int, int]:
        return {partition: bounds.end for partition, bounds in self.transport.bounds().items()}


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture(params=["memory", "lmdb"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OrderedKeyValue]:
    if request.param == "memory":
        from ikv_backends.memory import MemoryStorage

        opened: Any = MemoryStorage()
    else:
        from ikv_backends.lmdb import LmdbOptions, LmdbStorage

        opened = LmdbStorage(tmp_path, LmdbOptions(durability="process-crash"))
    yield opened
    opened.close()


@pytest.fixture
def storage(engine: OrderedKeyValue) -> KeyValueStorage:
    return KeyValueStorage(engine, max_key_bytes=511)


def ingester_of(
    storage: Any,
    transport: Any,
    partitions: Sequence[int] = (0, 1),
    *,
    quarantine: bool = False,
    partial_history: bool = False,
) -> Ingester:
    return Ingester(storage, transport, partitions=partitions, quarantine=quarantine, partial_history=partial_history)


def drain(ingester: Ingester) -> None:
    """Step until there is nothing left to commit."""
    for _ in range(1_000):
        if not ingester.step(0):
            return
    raise AssertionError("the ingester finds something to commit for ever")


def applied(storage: Any) -> int:
    return sum(done.applied for done in read_progress(storage, (0, 1, 2)).partitions.values())


def positions(storage: Any) -> dict[int, int]:
    return {partition: done.position for partition, done in read_progress(storage, (0, 1, 2)).partitions.items()}


def contents(storage: Any) -> dict[tuple[int, bytes], dict[str, Any]]:
    page = storage.scan(ALL, after=None, limit=100_000)
    return {(int.from_bytes(key[:2], "big"), key[2:]): dict(zip(row[0], row[2], strict=True)) for key, row in page.rows}


def expected(model: StoreModel) -> dict[tuple[int, bytes], dict[str, Any]]:
    return {(partition, key): decoded(fields) for partition, key, fields in model.documents()}


def check(storage: Any, log: Log) -> None:
    """The replica is the model, and everything in the log was applied once."""
    assert contents(storage) == expected(log.model)
    assert positions(storage) == {partition: end for partition, end in log.ends.items() if end}
    assert applied(storage) == sum(log.ends.values())
    if isinstance(storage, KeyValueStorage):
        assert storage.verify() == []


def field_ids(engine: OrderedKeyValue) -> dict[int, str]:
    with engine.snapshot() as snapshot:
        entries = list(engine.scan(snapshot, b"\x00f", b"\x00g"))
    return {int.from_bytes(key[2:], "big"): unseal(bytes(key), bytes(value)).decode() for key, value in entries}


# -- exactly once ------------------------------------------------------------------------------


def test_every_message_counts_once(storage: KeyValueStorage, log: Log) -> None:
    """events_applied is the advance of the positions: good, no-op, without value and quarantined alike."""
    from ikvcore.models import LogMessage

    log.put(0, "a", x=1)
    log.publish(0, NO_OP, BAD, drop_event(1))
    log.put(1, "b", x=2)
    partition = log.transport._log.partitions[1]  # the writers of this project always give a value
    partition.messages.append(LogMessage(1, 1, b"", None, None))
    log.put(1, "c", x=3)
    drain(ingester_of(storage, log.transport, quarantine=True))
    assert positions(storage) == {0: 4, 1: 3}
    assert applied(storage) == 7
    progress = read_progress(storage, (0, 1)).partitions
    assert (progress[0].quarantined, progress[1].quarantined) == (1, 0)
    check(storage, log)


def test_the_count_is_kept_over_restarts(storage: KeyValueStorage, log: Log) -> None:
    for number in range(5):
        log.put(number % 2, f"{number}", x=number)
        ingester = ingester_of(storage, log.opened())
        drain(ingester)
        ingester.close()
        check(storage, log)


def test_positions_and_witness_change_with_the_documents(storage: KeyValueStorage, log: Log) -> None:
    """The witness is of the last message passed, a no-op too."""
    log.put(0, "a", x=1)
    log.publish(0, NO_OP)
    drain(ingester_of(storage, log.transport))
    done = read_progress(storage, (0,)).partitions[0]
    assert done.start == Start(2, Witness(log.description.identity, 1, message_checksum(b"", NO_OP)))


def test_two_ingesters_on_different_partitions_fence_each_other(
    engine: OrderedKeyValue, storage: KeyValueStorage, log: Log
) -> None:
    """No field id is given twice, and after forget() both go on until the replica is the model."""
    first, second = ingester_of(storage, log.opened(), (0,)), ingester_of(storage, log.opened(), (1,))
    log.put(0, "a", shared=0)
    log.put(1, "b", shared=1)
    drain(first)
    drain(second)  # subscribed after first's commit: it sees the number, and is not fenced
    fenced = 0
    for number in range(20):
        log.put(0, "a", **{f"left{number}": "left"})
        log.put(1, "b", **{f"right{number}": "right"})
        for ingester in (first, second) if number % 3 else (second, first):
            before = applied(storage)
            try:
                ingester.step(0)
            except FencedError:
                fenced += 1
                assert applied(storage) == before
                ingester.forget()
                assert ingester.step(0)
            assert applied(storage) == before + 1
        names = field_ids(engine)
        assert len(set(names.values())) == len(names), "a name has two ids"
        assert sorted(names) == list(range(1, len(names) + 1))
    assert fenced >= 20
    names = field_ids(engine)
    assert sorted(names.values()) == sorted(
        {"id", "shared"} | {f"{s}{n}" for s in ("left", "right") for n in range(20)}
    )
    check(storage, log)
    check(KeyValueStorage(engine, max_key_bytes=511), log)


def test_two_ingesters_with_storages_of_their_own(engine: OrderedKeyValue, storage: KeyValueStorage, log: Log) -> None:
    """As in two processes: each has schema caches of its own on the one engine."""
    other = KeyValueStorage(engine, max_key_bytes=511)
    first, second = ingester_of(storage, log.opened(), (0,)), ingester_of(other, log.opened(), (1,))
    first.step(0)
    second.step(0)
    for number in range(10):
        log.put(0, f"{number}", **{f"left{number}": "left"})
        log.put(1, f"{number}", **{f"right{number}": "right"})
        for ingester in (first, second):
            try:
                ingester.step(0)
            except FencedError:
                ingester.forget()
                ingester.step(0)
    names = field_ids(engine)
    assert len(set(names.values())) == len(names) == 21
    check(storage, log)
    check(other, log)


def test_an_ingester_that_resumes_after_a_takeover_commits_nothing(storage: KeyValueStorage, log: Log) -> None:
    """It polled, was overtaken, and its commit is fenced: 0 events applied twice."""

    class Stopped(KeyValueStorage):
        """Stands for the process: it stops between the poll and the commit."""

        overtake: Callable[[], None] = staticmethod(lambda: None)

        def apply(self, *args: Any, **kwargs: Any) -> None:
            self.overtake()
            super().apply(*args, **kwargs)

    slow = Stopped(storage._engine, max_key_bytes=511)
    old, new = ingester_of(slow, log.opened()), ingester_of(storage, log.opened())
    log.put(0, "a", x=1)
    drain(old)
    log.put(0, "a", x=2)
    log.put(1, "b", x=2)

    def overtake() -> None:
        drain(new)
        log.put(0, "a", x=3)
        drain(new)

    slow.overtake = overtake
    with pytest.raises(FencedError):
        old.step(0)
    slow.overtake = lambda: None
    check(storage, log)
    with pytest.raises(FencedError):
        old.step(0)  # without forget() it never gets through
    check(storage, log)
    old.forget()
    assert not old.step(0)
    log.put(0, "a", y=4)
    assert old.step(0)
    check(storage, log)


def test_a_takeover_during_the_old_ones_sleep_fences_its_next_events(storage: KeyValueStorage, log: Log) -> None:
    """The old ingester has polled nothing; what it reads later was applied by the new one already."""
    old, new = ingester_of(storage, log.opened()), ingester_of(storage, log.opened())
    log.put(0, "a", x=1)
    drain(old)
    log.put(0, "a", x=2)
    drain(new)
    with pytest.raises(FencedError):
        old.step(0)
    check(storage, log)


def test_a_gap_or_a_no_op_is_a_commit_too(storage: KeyValueStorage, log: Log) -> None:
    """Every commit is a compare-and-set, also one without mutations."""
    old, new = ingester_of(storage, log.opened()), ingester_of(storage, log.opened())
    drain(old)
    drain(new)
    log.publish(0, NO_OP)
    drain(new)
    log.publish(0, NO_OP)
    with pytest.raises(FencedError):
        old.step(0)


def test_reclaiming_is_fenced_like_any_commit(storage: KeyValueStorage, log: Log) -> None:
    old, new = ingester_of(storage, log.opened()), ingester_of(storage, log.opened())
    log.put(0, "a", x=1, y=1)
    log.drop(0, "x")
    assert old.step(0)
    log.put(0, "b", x=2)
    assert new.step(0)
    log.put(1, "c", x=3)
    with pytest.raises(FencedError):
        old.step(0)
    old.forget()
    drain(old)
    check(storage, log)


def test_a_step_that_only_reclaims_is_fenced_too(
    storage: KeyValueStorage, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no event to apply here, so the reclaiming commit itself is the one that has to be a compare-and-set."""
    monkeypatch.setattr(_ingest, "_RECLAIM_RECORDS", 1)
    old, new = ingester_of(storage, log.opened()), ingester_of(storage, log.opened())
    for key in "abc":
        log.put(0, key, x=1, y=1)
    log.drop(0, "x")
    assert old.step(0)
    assert new.step(0)
    before = read_progress(storage, [0])
    with pytest.raises(FencedError):
        old.step(0)
    assert read_progress(storage, [0]) == before
    old.forget()
    drain(old)
    check(storage, log)


# -- failures of the storage -------------------------------------------------------------------


class FailingStorage(KeyValueStorage):
    """Fails before or after its next commits."""

    def __init__(self, engine: OrderedKeyValue) -> None:
        super().__init__(engine, max_key_bytes=511)
        self.fail_before = 0
        self.fail_after = 0
        self.fail_read = 0
        self.fail_reclaim_after = 0

    def apply(self, *args: Any, **kwargs: Any) -> None:
        if self.fail_before:
            self.fail_before -= 1
            raise StorageError("the disk is on fire")
        super().apply(*args, **kwargs)
        if self.fail_after:
            self.fail_after -= 1
            raise StorageError("input/output error after the commit")

    def reclaim(self, **kwargs: Any) -> bool:
        more = super().reclaim(**kwargs)
        if more and self.fail_reclaim_after:
            self.fail_reclaim_after -= 1
            raise StorageError("input/output error after the commit")
        return more

    def read_meta(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if self.fail_read:
            self.fail_read -= 1
            raise StorageError("it cannot be read")
        return super().read_meta(keys)


@pytest.fixture
def failing(engine: OrderedKeyValue) -> FailingStorage:
    return FailingStorage(engine)


@pytest.mark.parametrize("failures", [1, 3, 20])
def test_a_failing_storage_is_tried_again(failing: FailingStorage, log: Log, failures: int) -> None:
    """What was polled is kept: nothing is lost, nothing doubled, nothing quarantined."""
    ingester = ingester_of(failing, log.transport, quarantine=True)
    log.put(0, "a", x=1)
    log.put(1, "b", y=2)
    failing.fail_before = failures
    for _ in range(failures):
        with pytest.raises(StorageError, match="on fire"):
            ingester.step(0)
        log.put(0, "later", x=failing.fail_before)
    drain(ingester)
    check(failing, log)
    assert quarantined_events(failing) == []


def test_an_unknown_outcome_is_not_applied_twice(failing: FailingStorage, log: Log) -> None:
    """The commit happened and its answer was lost: trying again is fenced, and what is committed is read anew."""
    ingester = ingester_of(failing, log.transport)
    log.put(0, "a", x=1)
    failing.fail_after = 1
    with pytest.raises(StorageError, match="after the commit"):
        ingester.step(0)
    with pytest.raises(FencedError):
        ingester.step(0)
    check(failing, log)
    ingester.forget()
    log.put(1, "b", new=1)
    drain(ingester)
    check(failing, log)


def test_an_unknown_outcome_of_reclaiming_does_no_harm(failing: FailingStorage, log: Log) -> None:
    ingester = ingester_of(failing, log.transport)
    log.put(0, "a", x=1, y=1)
    log.drop(0, "x")
    failing.fail_reclaim_after = 1
    for _ in range(10):
        try:
            if not ingester.step(0):
                break
        except FencedError:
            ingester.forget()
        except StorageError:
            pass
    assert failing.fail_reclaim_after == 0
    log.put(0, "b", x=2)
    try:
        drain(ingester)
    except FencedError:
        ingester.forget()
        drain(ingester)
    check(failing, log)


def replica_of(log: Log, storage: Any, *, on_bad_event: str = "raise", history: str = "complete") -> Replica:
    """A whole replica with its loop in a thread, over the given storage."""
    from ikv_backends import memory

    plan = ReplicaPlan(
        backend=memory.ikv_backend_info(),
        backend_name="memory",
        backend_options=None,
        open_storage=lambda context: storage,
        mount=None,
        partitions=tuple(range(log.description.partitions)),
        on_bad_event=on_bad_event,
        history=history,
    )
    return open_replica(plan, log.opened())


HOLDER = """
import fcntl, os, sys
from pathlib import Path
from ikvcore._status import Status
mount = Path(sys.argv[1])
fcntl.lockf(os.open(mount / "ingest.lock", os.O_RDWR), fcntl.LOCK_EX)
Status().write(mount)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_mount_of_a_backend_that_is_not_shared_has_one_process(log: Log, tmp_path: Path) -> None:
    """C8: a second process is told who has the mount, and may have it once that is gone."""
    from ikv_backends import memory

    plan = ReplicaPlan(
        backend=replace(memory.ikv_backend_info(), name="one-process", volatile=False),
        backend_name="memory",
        backend_options=None,
        open_storage=lambda context: memory.MemoryStorage(),
        mount=tmp_path / "mount",
        partitions=tuple(range(log.description.partitions)),
        on_bad_event="raise",
        history="complete",
    )
    close_replica(open_replica(plan, log.opened()))
    command = [sys.executable, "-c", HOLDER, str(plan.mount)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(MountBusyError, match=rf"{plan.mount}.*\b{holder.pid}\b"):
                open_replica(plan, log.opened())
        finally:
            holder.kill()
    close_replica(open_replica(plan, log.opened()))


@pytest.fixture
def in_memory() -> FailingStorage:
    from ikv_backends.memory import MemoryStorage

    return FailingStorage(MemoryStorage())


def test_the_loop_goes_on_after_failures(in_memory: FailingStorage, log: Log) -> None:
    """Before, after and beside its commits: who waits for a write gets it, applied once."""
    replica = replica_of(log, in_memory)
    try:
        for number in range(6):
            in_memory.fail_before, in_memory.fail_after = number % 2, number % 3
            in_memory.fail_read = 0
            token = log.put(number % 2, f"{number}", **{f"f{number}": number})
            replica_wait(replica, in_memory, token)
        check(in_memory, log)
        assert replica.loop.failure is None
        assert "commit" in (replica.loop.last_error or "") or "fire" in (replica.loop.last_error or "")
    finally:
        close_replica(replica)


def replica_wait(replica: Replica, storage: Any, token: Token) -> None:
    replica.wait(token.positions, Deadline(PATIENCE, "the write"), cancelled=lambda: False)


def test_a_storage_that_keeps_failing_halts_ingest_until_it_works(in_memory: FailingStorage, log: Log) -> None:
    """C7: retry, then halt; waiting is an error at once; and when the storage works again, so does everything."""
    replica = replica_of(log, in_memory)
    try:
        in_memory.fail_before = 1_000_000
        token = log.put(0, "a", x=1)
        with pytest.raises(IngestHaltedError, match="on fire"):
            replica.wait(token.positions, Deadline(PATIENCE, "the write"), cancelled=lambda: False)
        assert contents(in_memory) == {}
        in_memory.fail_before = 0
        eventually(lambda: contents(in_memory) == expected(log.model), "the write is applied")
        replica.wait(token.positions, Deadline(PATIENCE, "the write"), cancelled=lambda: False)
        eventually(lambda: replica.loop.failure is None, "the failure is over")
        check(in_memory, log)
    finally:
        close_replica(replica)


class SilentIngester:
    """Ingests nothing, since its log's servers are silent."""

    def __init__(self) -> None:
        self.halts: dict[int, str] = {}
        self.asked = 0

    def step(self, timeout: float) -> bool:
        self.asked += 1
        raise LogUnavailableError("no server of there:1 answers")

    def wake(self) -> None: ...

    def close(self) -> None: ...


def test_who_waits_while_servers_are_silent_goes_on_waiting_and_is_told_at_the_end(
    in_memory: FailingStorage, log: Log
) -> None:
    """Ingest goes on by itself when they are back; only then would an error have been vain."""
    replica = replica_of(log, in_memory)
    try:
        silent: Any = SilentIngester()
        healthy, replica.loop._ingester = replica.loop._ingester, silent
        eventually(lambda: silent.asked > 0, "the loop uses it")
        token = log.put(0, "a", x=1)
        eventually(lambda: replica.loop.failure is not None, "ingest counts as halted")
        with pytest.raises(WaitTimeoutError, match=r"within 0.3 s: partition 0 at 0 of 1; no server of there:1"):
            replica.wait(token.positions, Deadline(0.3, "the write"), cancelled=lambda: False)
        waiter = threading.Thread(target=replica_wait, args=(replica, in_memory, token))
        waiter.start()
        asked = silent.asked
        eventually(lambda: silent.asked > asked, "another try while somebody waits")
        assert waiter.is_alive()
        replica.loop._ingester = healthy
        waiter.join(PATIENCE)
        assert not waiter.is_alive()
        check(in_memory, log)
    finally:
        close_replica(replica)


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.005)


# -- partitions --------------------------------------------------------------------------------


@pytest.mark.parametrize("clear", [False, True])
def test_a_drop_takes_effect_at_each_partitions_place(engine: OrderedKeyValue, log: Log, clear: bool) -> None:
    """C3.11: what partition 1 got after its drop survives partition 0's later arrival at the same drop."""
    for partition in (0, 1):
        log.put(partition, "before", x=1, y=1)
    for partition in (0, 1):
        if clear:
            log.clear(partition)
        else:
            log.drop(partition, "x")
    for partition in (0, 1):
        log.put(partition, "after", x=2, y=2)
        log.put(partition, "before", z=3)
    storage = KeyValueStorage(engine, max_key_bytes=511)
    fast, slow = ingester_of(storage, log.opened(), (1,)), ingester_of(storage, log.opened(), (0,))
    drain(fast)
    fast.close()
    survivors = {place: fields for place, fields in expected(log.model).items() if place[0] == 1}
    assert contents(storage) == survivors
    drain(slow)
    check(storage, log)
    check(KeyValueStorage(engine, max_key_bytes=511), log)


def test_any_interleaving_of_the_partitions_ends_alike(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    """One message a step, either partition first: drops, writes, deletes, all end as the model."""
    from ikv_backends.memory import MemoryStorage

    monkeypatch.setattr(_ingest, "_MAX_MESSAGES", 1)
    monkeypatch.setattr(_ingest, "_RECLAIM_EVERY", 3)
    for partition in (0, 1):
        for number in range(4):
            log.put(partition, "a", x=number, **{f"n{number}": number})
            log.drop(partition, "x", f"n{number - 1}")
            log.put(partition, "b", x=number)
        log.clear(partition)
        log.put(partition, "c", x=9, y=9)
        log.model.delete_document(partition, b"b")
        log.publish(partition, delete_document_event({"id": (FieldType.STRING, b"b")}, 1))
        log.drop(partition, "y")
    for order in range(16):
        storage = KeyValueStorage(MemoryStorage(), max_key_bytes=511)
        ingesters = [ingester_of(storage, log.opened(), (partition,)) for partition in (0, 1)]
        for step in range(200):
            ingester = ingesters[(order >> step % 4) & 1]
            try:
                ingester.step(0)
            except FencedError:
                ingester.forget()
        for ingester in ingesters:
            ingester.forget()
            drain(ingester)
            ingester.close()
        check(storage, log)


def test_a_gap_without_messages_moves_the_position(storage: KeyValueStorage) -> None:
    """Positions are not dense: the replica's goes along, the count does not, and it outlives a restart."""
    log = FakeLog()
    polls = [
        Polled([log.message(0, 4, "a")], {0: 10}),
        Polled([], {0: 20}),
        Polled([log.message(0, 25, "b")], {0: 26, 1: 7}),
    ]
    log.polls = [*polls]
    ingester = ingester_of(storage, log)
    for position, count in ((10, 1), (20, 1), (26, 2)):
        assert ingester.step(0)
        assert positions(storage)[0] == position
        assert applied(storage) == count
    assert positions(storage) == {0: 26, 1: 7}
    witness = read_progress(storage, (0,)).partitions[0].witness
    assert witness is not None
    assert witness.position == 25
    ingester.forget()
    ingester.step(0)
    assert {partition: start.position for partition, start in log.started[-1].items()} == {0: 26, 1: 7}
    assert log.started[-1][1].witness is None


def test_positions_of_any_size_are_kept(storage: KeyValueStorage) -> None:
    log = FakeLog()
    log.polls = [Polled([log.message(0, 2**80, "a")], {0: 2**80 + 1})]
    ingester = ingester_of(storage, log)
    assert ingester.step(0)
    assert positions(storage) == {0: 2**80 + 1}


class FakeLog:
    """A transport whose polls are given."""

    def __init__(self) -> None:
        self.description = StoreDescription(
            store_name="s", account_id="a", identity="fake", primary_key="id", partitions=2
        )
        self.polls: list[Polled | Exception] = []
        self.started: list[Mapping[int, Start]] = []

    def message(self, partition: int, position: int, key: str) -> LogMessage:
        return LogMessage(partition, position, b"", upsert_event({"id": (FieldType.STRING, key.encode())}, 1), None)

    def describe(self) -> StoreDescription:
        return self.description

    def bounds(self) -> Mapping[int, Bounds]:
        return {0: Bounds(0, 2**81, True), 1: Bounds(0, 2**81, True)}

    def subscribe(self, start: Mapping[int, Start]) -> FakeLog:
        self.started.append(start)
        return self

    def poll(self, *, max_messages: int, max_bytes: int, timeout: float) -> Polled:
        polled = self.polls.pop(0) if self.polls else Polled([], {})
        if isinstance(polled, Exception):
            raise polled
        return polled

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_failing_log_loses_nothing(storage: KeyValueStorage) -> None:
    log = FakeLog()
    log.polls = [
        Polled([log.message(0, 0, "a")], {0: 1}),
        TransportError("gone"),
        Polled([log.message(0, 1, "b")], {0: 2}),
    ]
    ingester = ingester_of(storage, log)
    assert ingester.step(0)
    with pytest.raises(TransportError):
        ingester.step(0)
    assert ingester.step(0)
    assert (positions(storage), applied(storage)) == ({0: 2}, 2)


# -- bad events --------------------------------------------------------------------------------


def test_a_bad_event_halts_its_partition_alone(storage: KeyValueStorage, log: Log) -> None:
    """What came before it in the same poll is applied, it and what follows are not; the other partition goes on."""
    log.put(0, "a", x=1)
    before = contents_after(log)
    log.publish(0, BAD)
    ingester = ingester_of(storage, log.transport)
    log.publish(0, upsert_event({"id": (FieldType.STRING, b"never")}, 1))
    drain(ingester)
    assert list(ingester.halts) == [0]
    assert "position 1" in ingester.halts[0]
    assert contents(storage) == before
    log.put(1, "b", x=2)
    log.publish(0, upsert_event({"id": (FieldType.STRING, b"never")}, 1))
    drain(ingester)
    assert contents(storage) == expected(log.model)
    assert positions(storage) == {0: 1, 1: 1}
    assert applied(storage) == 2


def contents_after(log: Log) -> dict[tuple[int, bytes], dict[str, Any]]:
    return expected(log.model)


def test_the_policy_may_change_at_the_next_open(storage: KeyValueStorage, log: Log) -> None:
    """Halted with "raise", passed with "quarantine", halted again at the next one with "raise"."""
    log.publish(0, BAD)
    log.put(0, "a", x=1)
    drain(ingester_of(storage, log.opened()))
    assert positions(storage) == {}
    drain(ingester_of(storage, log.opened(), quarantine=True))
    check(storage, log)
    (event,) = quarantined_events(storage)
    assert (event.partition, event.position, event.value) == (0, 0, BAD)
    log.publish(0, BAD)
    third = ingester_of(storage, log.opened())
    drain(third)
    assert list(third.halts) == [0]
    assert positions(storage) == {0: 2}


@pytest.mark.parametrize(("quarantine", "passed", "timestamp"), [(False, 3, 2_000_000_000), (True, 4, 1_000_000_000)])
def test_progress_is_that_of_the_last_message_passed(
    storage: KeyValueStorage, log: Log, quarantine: bool, passed: int, timestamp: int
) -> None:
    """Its time is its writer's, else the log's; a bad event that halts is not passed, one in quarantine is."""
    good = [upsert_event({"id": (FieldType.STRING, b"a")}, time) for time in (5, 2_000_000_000)]
    values = [good[0], b"", good[1], BAD]
    log.publish(0, *values)
    ingester = ingester_of(storage, log.transport, quarantine=quarantine)
    drain(ingester)
    done = read_progress(storage, (0,)).partitions[0]
    assert (done.position, done.applied, done.quarantined) == (passed, passed, int(quarantine))
    assert done.timestamp == timestamp
    assert done.witness == Witness(log.description.identity, passed - 1, message_checksum(b"", values[passed - 1]))


def test_a_halt_is_over_when_another_ingester_has_passed_it(storage: KeyValueStorage, log: Log) -> None:
    """After a takeover by a worker that quarantines, one that halted goes on from what is committed."""
    log.publish(0, BAD)
    halted = ingester_of(storage, log.opened())
    drain(halted)
    assert list(halted.halts) == [0]
    other = ingester_of(storage, log.opened(), quarantine=True)
    drain(other)
    other.close()
    halted.forget()
    log.put(0, "a", x=1)
    drain(halted)
    assert halted.halts == {}
    check(storage, log)


def test_only_the_first_of_the_quarantined_are_kept(storage: KeyValueStorage, log: Log) -> None:
    """1,000 of them, over both partitions and several commits, 64 KiB of each; the rest is counted."""
    big = b"\xff" * 100_000
    log.publish(0, big, *[BAD] * 700)
    ingester = ingester_of(storage, log.transport, quarantine=True)
    drain(ingester)
    log.publish(1, *[BAD] * 700)
    drain(ingester)
    log.put(1, "a", x=1)
    drain(ingester)
    kept = quarantined_events(storage)
    assert len(kept) == 1_000
    assert kept[0].value == big[:65_536]
    assert kept[0].size == 100_000
    assert [event.partition for event in kept].count(1) == 299
    assert sum(done.quarantined for done in read_progress(storage, (0, 1)).partitions.values()) == 1_401
    assert all(event.reason for event in kept)
    check(storage, log)


def test_a_bad_event_is_kept_in_the_commit_that_passes_it(
    storage: KeyValueStorage, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two commits a process may die: what counts as quarantined is there after each of them."""
    apply, counts = storage.apply, list[tuple[int, int]]()

    def watched(*args: Any, **more: Any) -> None:
        apply(*args, **more)
        counted = sum(done.quarantined for done in read_progress(storage, (0, 1)).partitions.values())
        counts.append((counted, len(quarantined_events(storage))))

    monkeypatch.setattr(storage, "apply", watched)
    ingester = ingester_of(storage, log.transport, quarantine=True)
    for number in (1, 2):
        log.put(0, "a", x=number)
        log.publish(number - 1, BAD, BAD)
        drain(ingester)
    assert counts == [(2, 2), (4, 4)]


def test_a_storage_failure_is_never_quarantined(failing: FailingStorage, log: Log) -> None:
    ingester = ingester_of(failing, log.transport, quarantine=True)
    log.publish(0, BAD)
    failing.fail_before = 3
    for _ in range(3):
        with pytest.raises(StorageError):
            ingester.step(0)
    assert quarantined_events(failing) == []
    drain(ingester)
    assert len(quarantined_events(failing)) == 1
    check(failing, log)


class BlockedStorage(FailingStorage):
    """Its first commit waits."""

    def __init__(self, engine: OrderedKeyValue) -> None:
        super().__init__(engine)
        self.reached, self.go = threading.Event(), threading.Event()

    def apply(self, *args: Any, **kwargs: Any) -> None:
        self.reached.set()
        assert self.go.wait(PATIENCE)
        super().apply(*args, **kwargs)


def test_a_halt_is_no_news_for_who_waits_for_what_came_before_it(log: Log) -> None:
    """A write before the bad event is on its way into the replica: waiting for it is not vain."""
    from ikv_backends.memory import MemoryStorage

    good = log.put(0, "a", x=1)
    bad = log.publish(0, BAD)
    storage = BlockedStorage(MemoryStorage())
    replica = replica_of(log, storage)
    outcome: list[object] = []

    def wait() -> None:
        try:
            replica.wait(good.positions, Deadline(PATIENCE, "the write"), cancelled=lambda: False)
            outcome.append("seen")
        except Exception as exc:
            outcome.append(exc)

    try:
        assert storage.reached.wait(PATIENCE)
        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        waiter.join(0.1)  # long enough for a wrong answer; a right one comes after the commit
        storage.go.set()
        waiter.join(PATIENCE)
        assert outcome == ["seen"]
        with pytest.raises(IngestHaltedError):
            replica.wait(bad.positions, Deadline(PATIENCE, "the bad event"), cancelled=lambda: False)
    finally:
        storage.go.set()
        close_replica(replica)


# -- history -----------------------------------------------------------------------------------


def test_a_fresh_replica_needs_a_complete_log(storage: KeyValueStorage, log: Log) -> None:
    """With partial history it begins at what is left, and counts what it applied."""
    log.put(0, "a", x=1)
    log.model.clear(0)
    log.put(0, "b", x=2)
    log.put(1, "c", x=3)
    log.transport.trim(0, 1)
    with pytest.raises(LogTrimmedError):
        ingester_of(storage, log.opened()).step(0)
    assert positions(storage) == {}
    drain(ingester_of(storage, log.opened(), partial_history=True))
    assert contents(storage) == expected(log.model)
    assert positions(storage) == {0: 2, 1: 1}
    assert applied(storage) == 2


def test_a_replica_that_has_begun_needs_only_what_comes_next(storage: KeyValueStorage, log: Log) -> None:
    """Cut behind its position: it goes on. Cut before what it needs: LogTrimmedError, whatever the history option."""
    log.put(0, "a", x=1)
    log.put(1, "a", x=1)
    drain(ingester_of(storage, log.opened()))
    log.transport.trim(0, 1)
    log.put(0, "b", x=2)
    drain(ingester_of(storage, log.opened()))
    check(storage, log)
    log.put(0, "c", x=3)
    log.put(0, "d", x=4)
    log.transport.trim(0, 3)
    for partial in (False, True):
        with pytest.raises(LogTrimmedError):
            ingester_of(storage, log.opened(), partial_history=partial).step(0)
    assert positions(storage) == {0: 2, 1: 1}


def test_waiting_for_a_trimmed_log_is_an_error_at_once(in_memory: FailingStorage, log: Log) -> None:
    log.put(0, "a", x=1)
    log.put(0, "b", x=1)
    log.transport.trim(0, 1)
    replica = replica_of(log, in_memory)
    try:
        with pytest.raises(LogTrimmedError):
            replica.wait({0: 2}, Deadline(PATIENCE, "startup"), cancelled=lambda: False)
    finally:
        close_replica(replica)


def test_a_log_that_is_cut_to_its_end_is_current_at_once(in_memory: FailingStorage, log: Log) -> None:
    """With partial history there is nothing to apply, so the replica has reached the log's end."""
    log.put(0, "a", x=1)
    log.put(0, "b", x=1)
    log.transport.trim(0, 2)
    replica = replica_of(log, in_memory, history="partial")
    try:
        try:
            replica.wait(log.ends, Deadline(3, "startup"), cancelled=lambda: False)
        except WaitTimeoutError as exc:
            pytest.fail(str(exc))
    finally:
        close_replica(replica)


def test_another_log_in_the_place_of_ours_is_refused(storage: KeyValueStorage, log: Log) -> None:
    """Same name, other identity or other messages: LogDivergedError, and the replica keeps what it has."""
    log.put(0, "a", x=1)
    drain(ingester_of(storage, log.opened()))
    other = Log()
    other.put(0, "a", x=1)
    with pytest.raises(LogDivergedError):
        ingester_of(storage, other.transport).step(0)
    partition = log.transport._log.partitions[0]
    partition.messages[0] = partition.messages[0]._replace(value=b"other")
    with pytest.raises(LogDivergedError):
        ingester_of(storage, log.opened()).step(0)
    partition.messages.clear()
    with pytest.raises(LogDivergedError):
        ingester_of(storage, log.opened()).step(0)
    assert applied(storage) == 1


def test_the_commit_number_counts_the_commits(storage: KeyValueStorage, log: Log) -> None:
    """What every compare-and-set compares: one more with each commit, reclaiming ones too."""
    ingester = ingester_of(storage, log.transport)
    numbers = []
    for number in range(4):
        log.put(0, "a", x=number)
        if number == 2:
            log.drop(0, "x")
        ingester.step(0)
        numbers.append(int(storage.read_meta([COMMIT_KEY])[0] or 0))
    assert numbers == [1, 2, 3, 4]
    while ingester.step(0):
        (found,) = storage.read_meta([COMMIT_KEY])
        numbers.append(int(found or 0))
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 4

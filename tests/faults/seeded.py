"""Faults to test the checks with: each function breaks something in the process that calls it.

Workers call them by `--fault FILE:FUNCTION`, so nothing of this is in the package. SEEDED says which scenario of
test_seeded.py each is put into, and which check has to find it.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import zlib
from dataclasses import replace
from typing import Any, NamedTuple

from ikvcore import _commitplan, _ingest, _kvstorage, _mount, _progress, _reclaim, _record, _schema
from ikvcore._events import decode_event
from ikvcore.errors import FencedError, StorageError, TransportError
from ikvcore.models import DeleteFields, WriteBatch
from ikvcore.testing.faults.marks import Marks, Stage


class Seeded(NamedTuple):
    """A fault and what finds it."""

    fault: str
    scenario: str
    check: str
    words: str


SEEDED = (
    Seeded("acknowledged_before_commit", "killed_writers", "acknowledged", "a write returns before its commit"),
    Seeded("token_too_early", "work", "acknowledged", "a token names the position of its event, not the one after"),
    Seeded("published_twice", "work", "invented", "a publication is carried out twice"),
    Seeded("changed_on_the_way", "work", "invented", "a byte of an event changes before it is in the log"),
    Seeded("refused_and_published", "work", "refused", "an error says that nothing was published, and it was"),
    Seeded("out_of_order", "work", "order", "a writer's event overtakes the one before it"),
    Seeded("position_in_a_second_commit", "killed_ingesters", "documents", "positions follow in a commit of their own"),
    Seeded("commit_in_two_halves", "killed_ingesters", "count", "a commit is two transactions of the engine"),
    Seeded("compare_and_set_ignored", "two_ingesters", "noted", "a commit is made whatever its number"),
    Seeded("fence_climbed", "two_ingesters", "applied", "a fenced ingester takes the new number and commits"),
    Seeded("count_not_in_the_commit", "killed_ingesters", "count", "document counts follow in a commit of their own"),
    Seeded("digest_forgotten", "work", "verify", "a deleted record stays in its partition's digest"),
    Seeded("checksum_not_over_the_key", "swapped", "documents", "a record's checksum does not cover its key"),
    Seeded("drop_without_epoch", "work", "documents", "a drop does not raise its partition's epoch"),
    Seeded("ids_kept_after_a_failed_commit", "work", "noted", "a field's id outlives the commit that failed"),
    Seeded("witness_ignored", "restored", "documents", "a log restored from an old copy is followed all the same"),
    Seeded("no_ops_not_counted", "work", "applied", "events_applied passes no-ops over"),
    Seeded("message_lost_in_a_poll", "work", "documents", "a poll's last message is lost, its position is kept"),
    Seeded("delete_lost_in_the_fold", "work", "reads", "folding loses a deletion of fields"),
    Seeded("stale_snapshot", "work", "reads", "a read takes up an older snapshot"),
    Seeded("waits_for_nothing", "work", "reads", "wait_for returns at once"),
)


# -- the log -----------------------------------------------------------------------------------


def _around_publish(change: Any) -> None:
    from ikv_transports.local import LocalTransport

    publish = LocalTransport.publish
    LocalTransport.publish = lambda self, messages: change(self, list(messages), publish)  # type: ignore[method-assign]


def acknowledged_before_commit() -> None:
    from ikvcore.tokens import Token

    def change(self: Any, messages: list[Any], publish: Any) -> Any:
        reached = {partition: bounds.end for partition, bounds in self.bounds().items()}
        token = {}
        for message in messages:
            reached[message.partition] += 1
            token[message.partition] = reached[message.partition]

        def later() -> None:
            time.sleep(0.004)
            publish(self, messages)

        threading.Thread(target=later).start()
        return Token(self.describe().identity, token)

    _around_publish(change)


def token_too_early() -> None:
    from ikvcore.tokens import Token

    def change(self: Any, messages: list[Any], publish: Any) -> Any:
        token = publish(self, messages)
        return Token(token.identity, {partition: end - 1 for partition, end in token.positions.items()})

    _around_publish(change)


def published_twice() -> None:
    def change(self: Any, messages: list[Any], publish: Any) -> Any:
        if random.random() < 0.05:
            publish(self, messages)
        return publish(self, messages)

    _around_publish(change)


def changed_on_the_way() -> None:
    def change(self: Any, messages: list[Any], publish: Any) -> Any:
        changed = [m._replace(value=m.value.replace(b"never", b"Never")) for m in messages]
        return publish(self, changed)

    _around_publish(change)


def refused_and_published() -> None:
    def change(self: Any, messages: list[Any], publish: Any) -> Any:
        token = publish(self, messages)
        if random.random() < 0.05:
            raise TransportError("nothing was published")
        return token

    _around_publish(change)


def out_of_order() -> None:
    from ikvcore.tokens import Token

    held: list[Any] = []

    def change(self: Any, messages: list[Any], publish: Any) -> Any:
        if not held and random.random() < 0.1:
            held.extend(messages)
            return Token(self.describe().identity, {message.partition: 1 << 60 for message in messages})
        token = publish(self, [*messages, *held])
        held.clear()
        return token

    _around_publish(change)


def witness_ignored() -> None:
    from ikv_transports import local

    local.check_start = lambda *_, **__: None  # type: ignore[assignment]


def message_lost_in_a_poll() -> None:
    from ikv_transports.local import LocalSubscription

    poll = LocalSubscription.poll

    def losing(self: Any, **limits: Any) -> Any:
        polled = poll(self, **limits)
        return polled._replace(messages=polled.messages[:-1]) if len(polled.messages) > 1 else polled

    LocalSubscription.poll = losing  # type: ignore[method-assign]


# -- commits -----------------------------------------------------------------------------------


def position_in_a_second_commit() -> None:
    def commit_with(self: Any, meta: dict[bytes, Any], mutations: Any) -> None:
        key, now = _progress.COMMIT_KEY, _progress.commit_value
        self._storage.apply(_ingest.fold(mutations), meta={key: now(self._commit + 1)}, expect={key: now(self._commit)})
        time.sleep(0.002)
        meta[key] = now(self._commit + 2)
        self._storage.apply([], meta=meta, expect={key: now(self._commit + 1)})
        self._commit += 2

    _ingest.Ingester._commit_with = commit_with  # type: ignore[assignment,method-assign]


def commit_in_two_halves() -> None:
    from ikv_backends.lmdb import LmdbStorage

    commit = LmdbStorage.commit

    def halves(self: Any, batch: WriteBatch, /, *, expect: Any) -> None:
        rest = {key: value for key, value in batch.puts.items() if key[:1] == b"\x00"}
        documents = {key: value for key, value in batch.puts.items() if key not in rest}
        commit(self, WriteBatch(rest), expect=expect)
        time.sleep(0.002)
        commit(self, WriteBatch(documents, batch.deletes, batch.ranges), expect={})

    LmdbStorage.commit = halves  # type: ignore[method-assign]


def count_not_in_the_commit() -> None:
    from ikv_backends.lmdb import LmdbStorage

    commit = LmdbStorage.commit

    def later(self: Any, batch: WriteBatch, /, *, expect: Any) -> None:
        counts = {key: value for key, value in batch.puts.items() if key.startswith(_commitplan.COUNT_PREFIX)}
        for key in counts:
            del batch.puts[key]
        commit(self, batch, expect=expect)
        time.sleep(0.002)
        commit(self, WriteBatch(counts), expect={})

    LmdbStorage.commit = later  # type: ignore[method-assign]


def lock_ignored() -> None:
    """No fault by itself: the compare-and-set alone keeps two ingesters from doing harm."""
    from ikvcore import _loop

    _mount.MountLock.try_acquire = lambda self: True  # type: ignore[method-assign]
    _loop._FOLLOW_AFTER_FENCE = 0.01  # type: ignore[misc]


def compare_and_set_ignored() -> None:
    from ikv_backends.lmdb import LmdbStorage

    lock_ignored()
    commit = LmdbStorage.commit

    def anyway(self: Any, batch: WriteBatch, /, *, expect: Any) -> None:
        time.sleep(random.random() * 0.005)  # so that the other one commits between plan and commit
        commit(self, batch, expect={})

    LmdbStorage.commit = anyway  # type: ignore[method-assign]


def fence_climbed() -> None:
    lock_ignored()
    commit_with = _ingest.Ingester._commit_with

    def climbing(self: Any, meta: Any, mutations: Any) -> None:
        while True:
            try:
                return commit_with(self, meta, mutations)
            except FencedError:
                found = _progress.read_progress(self._storage, self._held)
                self._commit = found.commit
                for partition, done in self._progress.items():
                    # It counts its own events on top of what the other one has counted.
                    there = found.partitions.get(partition)
                    key, _ = done.entry(partition)
                    if there is not None and key in meta:
                        mine = _progress.PartitionProgress.from_entry(meta[key])
                        meta[key] = replace(mine, applied=there.applied + mine.applied - done.applied).entry(partition)[
                            1
                        ]

    _ingest.Ingester._commit_with = climbing  # type: ignore[method-assign]


def ids_kept_after_a_failed_commit() -> None:
    from ikv_backends.lmdb import LmdbStorage

    field_id = _commitplan.CommitPlan._field_id

    def kept(self: Any, name: str) -> int:
        found = field_id(self, name)
        self._view.tables.field_ids[name] = found
        return found

    _commitplan.CommitPlan._field_id = kept  # type: ignore[method-assign]
    commit = LmdbStorage.commit
    turns = iter(range(1 << 60))

    def failing(self: Any, batch: WriteBatch, /, *, expect: Any) -> None:
        if next(turns) % 2 == 0:
            raise StorageError("seeded")
        commit(self, batch, expect=expect)

    LmdbStorage.commit = failing  # type: ignore[method-assign]


# -- records, schema, counts -------------------------------------------------------------------


def checksum_not_over_the_key() -> None:
    def crc32(data: bytes, start: int | None = None) -> int:
        return 0 if start is None else zlib.crc32(data)

    for module in (_commitplan, _kvstorage, _reclaim, _record):
        if hasattr(module, "crc32"):
            module.crc32 = crc32  # type: ignore[attr-defined]


def drop_without_epoch() -> None:
    _schema.PartitionState.advance = lambda self: None  # type: ignore[method-assign]


def digest_forgotten() -> None:
    remove = _commitplan.Counts.remove

    def forgetful(self: Any, record: bytes) -> None:
        digest = self.digest
        remove(self, record)
        self.digest = digest

    _commitplan.Counts.remove = forgetful  # type: ignore[method-assign]


# -- ingest and reads --------------------------------------------------------------------------


def no_ops_not_counted() -> None:
    past, mutations_of = _progress.PartitionProgress.past, _ingest.Ingester._batch
    seen: list[int] = []

    def batch(self: Any, polled: Any) -> Any:
        seen[:] = [sum(decode_event(message, self._store) is None for message in polled.messages)]
        return mutations_of(self, polled)

    def counting(self: Any, *args: Any, passed: int, **more: Any) -> Any:
        return past(self, *args, passed=max(0, passed - seen[0]), **more)

    _ingest.Ingester._batch = batch  # type: ignore[method-assign]
    _progress.PartitionProgress.past = counting  # type: ignore[method-assign]


def delete_lost_in_the_fold() -> None:
    fold = _ingest.fold

    def losing(mutations: Any) -> Any:
        return [mutation for mutation in fold(mutations) if not isinstance(mutation, DeleteFields)]

    _ingest.fold = losing


def stale_snapshot() -> None:
    get_many = _kvstorage.KeyValueStorage.get_many
    held: list[Any] = []

    def stale(self: Any, keys: Any, projection: Any) -> Any:
        found = get_many(self, keys, projection)
        key = tuple(keys)
        older = [rows for asked, rows in held if asked == key]
        held.append((key, found))
        return older[0] if len(older) > 20 and random.random() < 0.5 else found

    _kvstorage.KeyValueStorage.get_many = stale  # type: ignore[method-assign]


def waits_for_nothing() -> None:
    from ikvcore._reader import Reader

    step = _ingest.Ingester.step

    def slow(self: Any, timeout: float) -> bool:
        time.sleep(0.02)  # else what it did not wait for is there all the same
        return step(self, timeout)

    _ingest.Ingester.step = slow  # type: ignore[method-assign]
    Reader.wait_for = lambda self, token, timeout=None: None  # type: ignore[method-assign]


# -- for the campaigns ------------------------------------------------------------------------


def few_reader_slots() -> None:
    """No fault by itself: killed readers have used up all slots unless they are cleared away."""
    from ikv_backends import _lmdb_environment

    _lmdb_environment._MAX_READERS = 12  # type: ignore[misc]


def kilobyte_kept() -> None:
    """Each reader that is shut down leaves a kilobyte behind."""
    from ikvcore._reader import Reader

    kept: list[bytearray] = []
    shutdown = Reader.shutdown

    def keeping(self: Any) -> None:
        kept.append(bytearray(1_024))
        shutdown(self)

    Reader.shutdown = keeping  # type: ignore[method-assign]


def dies_by_itself() -> None:
    """The third commit of an ingester ends its process, as a crash of the engine would."""
    commit_with = _ingest.Ingester._commit_with
    turns = iter(range(1 << 60))

    def dying(self: Any, meta: Any, mutations: Any) -> None:
        if next(turns) == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        commit_with(self, meta, mutations)

    _ingest.Ingester._commit_with = dying  # type: ignore[method-assign]


def lock_tried_once() -> None:
    """A follower never looks again whether the lock is free: only silence tells it that the ingester is gone."""
    try_acquire = _mount.MountLock.try_acquire
    tried: list[object] = []

    def once(self: Any) -> bool:
        if self.held or not tried:
            tried.append(self)
            return try_acquire(self)
        return False

    _mount.MountLock.try_acquire = once  # type: ignore[method-assign]


def silent_ones_killed() -> None:
    """Who finds the ingester silent kills it, wherever it was stopped."""
    from ikvcore._loop import ReplicaLoop
    from ikvcore._status import Status

    is_silent = ReplicaLoop._holder_is_silent

    def violent(self: Any, mount: Any) -> bool:
        silent = is_silent(self, mount)
        status = Status.read(mount.path)
        if silent and status is not None and status.pid != os.getpid():
            os.kill(status.pid, signal.SIGKILL)
        return silent

    ReplicaLoop._holder_is_silent = violent  # type: ignore[method-assign]


def silent_inside_once() -> None:
    """No fault, but the worst moment: the first long call of a process falls into a write transaction."""
    asked = threading.Event()
    signal_, at = signal.signal, Marks.at

    def registered(number: int, handler: Any) -> Any:
        def handle(*arguments: Any) -> None:
            if number == signal.SIGUSR1 and not asked.is_set():
                asked.set()
                waiting.append(handler)
            else:
                handler(*arguments)

        return signal_(number, handle)

    def at_stage(marks: Marks, stage: int) -> None:
        at(marks, stage)
        if stage == Stage.TRANSACTION and waiting:
            waiting.pop()()

    waiting: list[Any] = []
    signal.signal = registered  # type: ignore[assignment]
    Marks.at = at_stage  # type: ignore[method-assign]


def closed_under_others() -> None:
    """The first client that leaves a mount closes it for all of its process."""
    from ikvcore import _replica_table

    leave = _replica_table._Table.leave

    def at_once(self: Any, replica: Any, audience: Any = None) -> None:
        replica.users = 1
        leave(self, replica, audience)

    _replica_table._Table.leave = at_once  # type: ignore[method-assign]


def written_in_a_child() -> None:
    """A child that inherited a log writes nowhere, and says that all is well."""
    from ikvcore._writer import Writer
    from ikvcore.tokens import Token

    parent, publish = os.getpid(), Writer._publish

    def silent(self: Any, *args: Any) -> Any:
        return publish(self, *args) if os.getpid() == parent else Token()

    Writer._publish = silent  # type: ignore[method-assign]


def killed_readers_kept() -> None:
    """Nobody looks whether readers are dead."""
    import lmdb

    opened = lmdb.open

    class Environment:
        def __init__(self, *args: Any, **options: Any) -> None:
            self._environment = opened(*args, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._environment, name)

        def reader_check(self) -> int:
            return 0

    lmdb.open = Environment  # type: ignore[assignment]

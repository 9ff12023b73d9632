"""The reader: values of the replica, checked for their types, and how fresh they are."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NoReturn

from ikvcore._arguments import as_list
from ikvcore._deadline import Deadline
from ikvcore._health_watch import HealthWatch
from ikvcore._lookup import Lookup
from ikvcore._observation import observation
from ikvcore._observers import Audience
from ikvcore._replica import Replica, ReplicaPlan
from ikvcore._replica_table import close_replica, open_replica
from ikvcore.client import IKVReader, Key
from ikvcore.errors import (
    FieldTypeError,
    ForkedError,
    IKVError,
    InvalidTokenError,
    NotStartedError,
    ReplicaDamagedError,
    ShutDownError,
)
from ikvcore.fields import FieldType, Value
from ikvcore.forks import after_fork_in_child
from ikvcore.health import Health, PartitionStats, ReadCount, Stats
from ikvcore.models import Position, Projection, ReaderStarted, Row, StoreDescription
from ikvcore.protocols import Transport
from ikvcore.tokens import Token

__all__ = ["Reader"]

_log = logging.getLogger(__name__)

_STRING: Final = FieldType.STRING
_BYTES: Final = FieldType.BYTES
_SCAN_PAGE: Final = 500
_STALLED: Final = 10.0


class Reader(IKVReader):
    """Implements IKVReader. `plan_for` makes the replica's plan once the store's description is known."""

    def __init__(
        self,
        open_transport: Callable[[], Transport],
        plan_for: Callable[[StoreDescription], ReplicaPlan],
        audience: Audience | None = None,
    ) -> None:
        self._open_transport = open_transport
        self._plan_for = plan_for
        self._audience = audience or Audience()
        self._reads = ReadCount() if self._audience else None
        self._watch: HealthWatch | None = None
        self._starting = threading.Lock()
        self._lock = threading.RLock()  # a signal handler may shut down a client whose thread holds it
        self._cancelled = False
        self._replica: Replica | None = None
        self._target: Mapping[int, Position] | None = None
        self._was_started = False
        self._forked = False
        self._lookup: Lookup | None = None
        self._row: Callable[[Key, str], Row | None]
        self._disconnect()
        after_fork_in_child(self)

    # -- life ----------------------------------------------------------------------------------

    def startup(
        self,
        timeout: float | None = None,
        *,
        allow_stale: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if self._forked:
            raise ForkedError("reader")
        deadline = Deadline(timeout, "reading the log up to its end at startup")
        began = time.monotonic()
        with self._starting:
            if self._replica is not None:
                return
            self._cancelled = False
            transport = self._open_transport()
            try:
                replica = open_replica(self._plan_for(transport.describe()), transport)
            except BaseException:
                transport.close()
                raise
            try:
                target = self._catch_up(replica, deadline, progress, allow_stale=allow_stale)
                found = self._first_look(replica)
                if found is None:  # damaged: what replaces it has to catch up first
                    target = self._catch_up(replica, deadline, progress, allow_stale=allow_stale)
                    found = self._first_look(replica)
                    if found is None:
                        raise replica.refusal() or ShutDownError("reader")
                self._connect(replica, target)
            except BaseException:
                close_replica(replica, self._audience)
                raise
        if self._reads is not None:
            self._tell_started(replica, self._reads, time.monotonic() - began)
        _log.info("reader of store %s started: %s", replica.store.store_name, found)

    def _catch_up(
        self,
        replica: Replica,
        deadline: Deadline,
        progress: Callable[[int, int], None] | None,
        *,
        allow_stale: bool,
    ) -> Mapping[int, Position] | None:
        """Wait for the log's end as it is now; with `allow_stale` return it instead, for `health` to compare with."""
        bounds = replica.transport.bounds()
        target = {partition: bounds[partition].end for partition in replica.partitions}
        if allow_stale:
            return target
        replica.check_log()  # a replica that is ahead of its log has nothing to wait for, and is wrong
        report = _Report(replica.positions(), target, progress)
        replica.wait(target, deadline, cancelled=lambda: self._cancelled, report=report)
        return None

    @staticmethod
    def _first_look(replica: Replica) -> str | None:
        """What the replica holds, in words; None where this finds damage that was not known yet."""
        refusal, storage = replica.refusal(), replica.current.storage
        if refusal is not None or storage is None:
            return str(refusal)
        try:
            return f"{storage.count()} documents"
        except ReplicaDamagedError as exc:
            if not replica.found_damaged(storage, exc) and replica.damage is None:  # nothing will take its place
                raise
            return None

    def shutdown(self) -> None:
        if self._forked:
            return  # nothing of the parent's may be touched here
        # A startup that waits, perhaps in this very thread below a signal handler, gives up by itself.
        self._cancelled = True
        with self._lock:
            replica, self._replica = self._replica, None
            self._disconnect()
        if replica is not None:
            replica.wake_waiters()
            close_replica(replica, self._audience)
            watch, self._watch = self._watch, None
            if watch is not None:
                observation.watch(watch)  # for the last time: it finds the reader stopped
                observation.drain()

    def _tell_started(self, replica: Replica, reads: ReadCount, seconds: float) -> None:
        store, mount = replica.store, replica.plan.mount
        started = ReaderStarted(
            store_name=store.store_name,
            account_id=store.account_id,
            mount=mount,
            seconds=seconds,
            reader=self,
            reads=reads,
        )
        self._audience.tell("reader_started", started)
        self._watch = HealthWatch(self, store, mount, self._audience)
        observation.watch(self._watch)

    def forked(self) -> None:
        """See ikvcore.forks."""
        self._forked = True
        self._disconnect()

    def _connect(self, replica: Replica, target: Mapping[int, Position] | None) -> None:
        with self._lock:
            if self._cancelled:
                raise ShutDownError("reader")
            self._replica = replica
            self._target = target
            self._was_started = True
            replica.listen(self)
            self._look_into(replica)

    def replica_changed(self) -> None:
        """See Listener."""
        with self._lock:
            if self._replica is not None:
                self._look_into(self._replica)

    def _look_into(self, replica: Replica) -> None:
        """Read from the replica's present storage; have reads refuse where there is none, until there is one."""
        current = replica.current
        if current.damage is None and current.storage is not None:
            found_damaged = partial(replica.found_damaged, current.storage)
            self._lookup = Lookup(
                current.storage, replica.store, replica.partitions, found_damaged=found_damaged, reads=self._reads
            )
            self._row = self._lookup.row
        else:
            self._lookup, self._row = None, self._row_or_refuse

    def _disconnect(self) -> None:
        """Have every read refuse: the reads themselves ask nothing, since they are too short for a question."""
        self._row = self._row_or_refuse
        if self._lookup is not None:
            self._lookup.closed = True
        self._lookup = None

    def _opened(self) -> Replica:
        replica = self._replica
        if replica is None or self._forked:
            self._refuse()
        return replica

    def _found(self, primary_keys: Sequence[Key], field_names: Sequence[str] | None) -> list[Row | None]:
        return self._looking().rows(primary_keys, field_names)

    def _looking(self) -> Lookup:
        """What reads go through; found again where the replica was rebuilt this very moment."""
        lookup = self._lookup
        if lookup is None and not self._forked:
            self.replica_changed()
            lookup = self._lookup
        if lookup is None:
            self._refuse()
        return lookup

    def _refuse(self) -> NoReturn:
        if self._forked:
            raise ForkedError("reader")
        refusal = None if self._replica is None else self._replica.refusal()
        if refusal is not None:
            raise refusal
        raise ShutDownError("reader") if self._was_started else NotStartedError("reader")

    def _row_or_refuse(self, primary_key: Key, field_name: str) -> Row | None:
        return self._looking().row(primary_key, field_name)

    # -- one value -----------------------------------------------------------------------------

    def get_string_value(self, primary_key: Key, field_name: str) -> str | None:
        row = self._row(primary_key, field_name)
        if row is None:
            return None
        if row[1][0] is _STRING:
            return row[2][0]  # type: ignore[return-value]  # the row's type says that it is a str
        return self._mistyped(row, _STRING)

    def get_bytes_value(self, primary_key: Key, field_name: str) -> bytes | None:
        row = self._row(primary_key, field_name)
        if row is None:
            return None
        if row[1][0] is _STRING:
            return row[2][0].encode()  # type: ignore[union-attr]  # as above
        value: bytes | None = self._typed(row, _BYTES)
        return value

    def get_int32_value(self, primary_key: Key, field_name: str) -> int | None:
        value: int | None = self._typed(self._row(primary_key, field_name), FieldType.INT32)
        return value

    def get_int64_value(self, primary_key: Key, field_name: str) -> int | None:
        value: int | None = self._typed(self._row(primary_key, field_name), FieldType.INT64)
        return value

    def get_float32_value(self, primary_key: Key, field_name: str) -> float | None:
        value: float | None = self._typed(self._row(primary_key, field_name), FieldType.FLOAT32)
        return value

    def get_float64_value(self, primary_key: Key, field_name: str) -> float | None:
        value: float | None = self._typed(self._row(primary_key, field_name), FieldType.FLOAT64)
        return value

    def get_bool_value(self, primary_key: Key, field_name: str) -> bool | None:
        value: bool | None = self._typed(self._row(primary_key, field_name), FieldType.BOOLEAN)
        return value

    def get_value(self, primary_key: Key, field_name: str) -> Value | None:
        row = self._row(primary_key, field_name)
        return None if row is None else row[2][0]

    @staticmethod
    def _typed(row: Row | None, wanted: FieldType) -> Any:
        """The row's one value, checked for its type."""
        if row is None:
            return None
        return row[2][0] if row[1][0] is wanted else Reader._mistyped(row, wanted)

    @staticmethod
    def _mistyped(row: Row, wanted: FieldType) -> None:
        """None for a field that is not there; FieldTypeError for one of another type."""
        actual = row[1][0]
        if actual is not None:
            raise FieldTypeError(row[0][0], actual.name, wanted.name)

    # -- many values ---------------------------------------------------------------------------

    def multiget_string_values(
        self,
        bytes_primary_keys: Sequence[bytes | bytearray] = (),
        str_primary_keys: Sequence[str] = (),
        field_names: Sequence[str] = (),
    ) -> Iterator[str | None]:
        names = as_list(field_names, "field names")
        rows = self._found(_keys(bytes_primary_keys, str_primary_keys), names)
        return iter(self._flat(rows, len(names), _STRING))

    def multiget_bytes_values(
        self,
        bytes_primary_keys: Sequence[bytes | bytearray] = (),
        str_primary_keys: Sequence[str] = (),
        field_names: Sequence[str] = (),
    ) -> Iterator[bytes | None]:
        names = as_list(field_names, "field names")
        rows = self._found(_keys(bytes_primary_keys, str_primary_keys), names)
        return iter(self._flat(rows, len(names), _BYTES))

    def multiget_values(self, primary_keys: Sequence[Key], field_names: Sequence[str]) -> Iterator[Value | None]:
        names = as_list(field_names, "field names")
        return iter(self._flat(self._found(primary_keys, names), len(names), None))

    def get_document(self, primary_key: Key, field_names: Sequence[str] | None = None) -> dict[str, Value] | None:
        return next(self.multiget_documents((primary_key,), field_names))

    def multiget_documents(
        self, primary_keys: Sequence[Key], field_names: Sequence[str] | None = None
    ) -> Iterator[dict[str, Value] | None]:
        rows = self._found(primary_keys, field_names)
        return iter([None if row is None else _fields(row) for row in rows])

    def get_rows(self, primary_keys: Sequence[Key], field_names: Sequence[str] | None = None) -> list[Row | None]:
        return self._found(primary_keys, field_names)

    def scan(self, field_names: Sequence[str] | None = None) -> Iterator[tuple[str | bytes, dict[str, Value]]]:
        return ((key, _fields(row)) for key, row in self.scan_rows(field_names))

    def scan_rows(self, field_names: Sequence[str] | None = None) -> Iterator[tuple[str | bytes, Row]]:
        return self._scan(self._looking().projection(field_names))

    def count(self) -> int:
        return self._looking().count()

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        table = self._looking().query(sql, parameters)
        if table is None:
            self._opened().refuse_capability("Query")
        return table

    def _scan(self, projection: Projection) -> Iterator[tuple[str | bytes, Row]]:
        cursor = None
        as_text = self._opened().store.primary_key_type is _STRING
        while True:
            page = self._looking().page(projection, cursor, _SCAN_PAGE)
            for key, row in page.rows:
                yield key[2:].decode() if as_text else key[2:], row
            cursor = page.cursor
            if cursor is None:
                return

    @staticmethod
    def _flat(rows: Sequence[Row | None], width: int, wanted: FieldType | None) -> list[Any]:
        """The rows' values in one list; those of a type that is not wanted raise FieldTypeError."""
        flat: list[Any] = []
        missing = [None] * width
        right: object = None
        for row in rows:
            if row is None:
                flat += missing
                continue
            names, types, values = row
            # Rows of one shape share their tuple of types, so one look at it serves for all of them.
            if wanted is not None and types is not right:
                if wanted is _BYTES and _STRING in types:
                    values = [value.encode() if isinstance(value, str) else value for value in values]
                    types = tuple(_BYTES if found is _STRING else found for found in types)
                for name, found in zip(names, types, strict=True):
                    if found is not wanted and found is not None:
                        raise FieldTypeError(name, found.name, wanted.name)
                right = row[1] if types is row[1] else right
            flat += values
        return flat

    # -- freshness -----------------------------------------------------------------------------

    def wait_for(self, token: Token, timeout: float | None = None) -> None:
        replica = self._opened()
        deadline = Deadline(timeout, f"seeing the write {token}")
        if not isinstance(token, Token):
            raise InvalidTokenError(f"a token is wanted, not {type(token).__name__}; parse text with Token.parse")
        if not token:
            return
        if token.identity != replica.store.identity:
            raise InvalidTokenError(
                f"the token is of the log {token.identity!r}, this reader follows {replica.store.identity!r} (store "
                f"{replica.store.store_name!r}); wait for it in a reader of the store that was written"
            )
        target = {p: position for p, position in token.positions.items() if p in replica.partitions}
        if not target:
            raise InvalidTokenError(
                f"the token is of partitions {sorted(token.positions)}, this reader holds {list(replica.partitions)}"
            )
        replica.wait(target, deadline, cancelled=lambda: self._replica is not replica)

    def stats(self) -> Stats:
        replica = self._opened()
        progress = replica.progress()
        bounds = replica.transport.bounds()
        now = time.time_ns()
        partitions = {}
        for partition in replica.partitions:
            done, end = progress.get(partition), bounds[partition].end
            position = bounds[partition].first if done is None else done.position
            lag = max(0, end - position)
            waiting_since = None if done is None or not lag else done.timestamp
            partitions[partition] = PartitionStats(
                position=position,
                end=end,
                lag_events=lag,
                lag_seconds=0.0 if waiting_since is None else max(0.0, (now - waiting_since) / 1e9),
            )
        return Stats(
            documents=self._looking().count(),
            partitions=partitions,
            events_applied=sum(done.applied for done in progress.values()),
            bad_events=sum(done.quarantined for done in progress.values()),
            last_error=replica.outlook().last_error,
            log_bytes=replica.transport.size(),
            first={partition: bounds[partition].first for partition in replica.partitions},
        )

    def health(self) -> Health:
        if self._forked:
            raise ForkedError("reader")
        replica = self._replica
        if replica is None:
            return Health(state="stopped", reason="the reader was shut down" if self._was_started else "not started")
        try:
            outlook = replica.outlook()
            if replica.damage is not None and outlook.failure is None:
                reason = (
                    f"the replica is damaged ({replica.damage.reason}) and is being rebuilt; reads raise until then"
                )
                return Health(state="catching-up", reason=reason)
            behind = 0 if replica.damage is not None else self._behind(replica)
        except ForkedError:
            raise
        except IKVError as exc:
            if self._replica is not replica:  # it was shut down under this look at it
                return self.health()
            return Health(state="halted", reason=str(exc))
        if outlook.failure is not None or outlook.halts:
            reasons = [str(outlook.failure)] if outlook.failure is not None else []
            reasons += [f"partition {partition}: {reason}" for partition, reason in sorted(outlook.halts.items())]
            return Health(state="halted", reason="; ".join(reasons), halts=outlook.halts)
        if replica.loop.stalled() > _STALLED:
            reason = f"ingest has not ended a step for {replica.loop.stalled():.0f} s; is a process stopped in a write?"
            return Health(state="catching-up", reason=reason)
        if behind:
            return Health(state="catching-up", reason=f"{behind} events of before the startup are not visible yet")
        return Health(state="ready")

    def _behind(self, replica: Replica) -> int:
        """Events that were in the log at a startup with allow_stale and are not visible yet."""
        target = self._target
        if target is None:
            return 0
        progress = replica.progress()
        behind = sum(
            max(0, end - (progress[partition].position if partition in progress else 0))
            for partition, end in target.items()
        )
        if not behind:
            self._target = None
        return behind


class _Report:
    """Tells how a startup gets on."""

    def __init__(
        self,
        began: Mapping[int, Position],
        target: Mapping[int, Position],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._began = {p: began.get(p, 0) for p in target}
        self._total = sum(max(0, end - self._began[p]) for p, end in target.items())
        self._progress = progress

    def __call__(self, reached: Mapping[int, Position]) -> None:
        done = sum(max(0, reached.get(p, 0) - began) for p, began in self._began.items())
        done = min(done, self._total)
        _log.info("startup: %d of %d events applied", done, self._total)
        if self._progress is not None:
            self._progress(done, self._total)


def _keys(bytes_keys: Sequence[bytes | bytearray], str_keys: Sequence[str]) -> list[Key]:
    """All bytes keys, then all str keys."""
    return [*as_list(bytes_keys, "bytes keys"), *as_list(str_keys, "str keys")]


def _fields(row: Row) -> dict[str, Value]:
    """A row as a dict, without what is absent."""
    return {name: value for name, value in zip(row[0], row[2], strict=True) if value is not None}

"""What plugin authors implement. The docstrings are the contract; the conformance kit tests each sentence.

A backend offers either an `OrderedKeyValue`, which the core wraps into a `Storage` (records, schema, drops, counts),
or a `Storage` of its own, for engines that are native to documents. A transport offers a `Transport`: its own, or
what `ikvcore.plainlog` makes of a `PlainLog`. What is optional is a capability protocol of its own, named in the
plugin's info.

In all of them the key is positional and the rest is keyword-only. Everything is thread-safe unless it says otherwise.
After a fork, every call in the child raises ForkedError and touches no engine handle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ikvcore.models import (
        Bounds,
        Cursor,
        LogMessage,
        Message,
        Meta,
        Mutation,
        Page,
        Polled,
        Position,
        Projection,
        Row,
        Start,
        StoreDescription,
        WriteBatch,
    )
    from ikvcore.tokens import Token

__all__ = [
    "Follower",
    "OrderedKeyValue",
    "PlainLog",
    "Provisioning",
    "Query",
    "Reclaim",
    "Snapshot",
    "Storage",
    "Subscription",
    "Transport",
    "Verify",
]


# -- the bytes level ---------------------------------------------------------------------------


class Snapshot(Protocol):
    """One committed state of an OrderedKeyValue; lmdb.Transaction satisfies it as it is.

    Used by the thread that opened it.
    """

    def get(self, key: bytes, /) -> bytes | None:
        """The value of `key` in this state, None if absent."""

    def id(self) -> int:
        """A number that differs for different states of one open engine; caches are keyed by it.

        It may be that of an earlier state, if commits came while the snapshot was opened; never of one before the last
        commit that had returned by then.
        """


@runtime_checkable
class OrderedKeyValue(Protocol):
    """A map from bytes to bytes, in unsigned byte order of its keys."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Open the latest committed state. Commits go on beside it and do not change it.

        Cheap enough for one a read (well under a microsecond is the aim). Raises StorageError.
        """

    def get_many(self, snapshot: Snapshot, keys: Sequence[bytes], /) -> list[bytes | None]:
        """The values of `keys`, aligned with them: duplicates are repeated, None holds the place of what is absent."""

    def scan(self, snapshot: Snapshot, start: bytes, stop: bytes | None, /) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < stop (to the end where stop is None), ascending.

        `start` may be one byte longer than the longest key: that is how a scan goes on after it.

        The iterator lives no longer than `snapshot`. An engine's error raises StorageError, it never ends the
        iteration early.
        """

    def commit(self, batch: WriteBatch, /, *, expect: Meta) -> None:
        """Apply `batch` all or nothing, if each key of `expect` has the value given there (None: is absent).

        The comparison and the change are one atomic step across threads and processes. One committer at a time;
        others wait. On return the change is as durable as the backend declares and visible to every later snapshot.
        Raises FencedError where an expectation fails, StorageFullError, StorageError; then nothing is changed, or,
        where the engine cannot tell, the next snapshot shows what was.
        """

    def close(self) -> None:
        """Give up the engine. Idempotent. Calls after it raise StorageError."""


# -- the document level ------------------------------------------------------------------------


@runtime_checkable
class Storage(Protocol):
    """Documents of several partitions, and core-owned metadata.

    A document's key here is `models.storage_key(partition, key)`. Each call sees one committed state. The core has
    decoded, validated and folded the events: a storage is never asked to judge them.
    """

    def apply(self, mutations: Sequence[Mutation], *, meta: Meta, expect: Meta) -> None:
        """Apply `mutations` in their order, and `meta`, in one commit that is a compare-and-set on `expect`.

        A drop or clear concerns the documents of its partition as they are at its place in the order. Durability and
        errors as in OrderedKeyValue.commit. After any error, every id or count cached from planning this commit is
        forgotten.
        """

    def get(self, key: bytes, projection: Projection) -> Row | None:
        """One document's row, None if there is no such document. Raises ReplicaDamagedError, StorageError."""

    def get_many(self, keys: Sequence[bytes], projection: Projection) -> list[Row | None]:
        """The rows of `keys` in one state, aligned with them, duplicates repeated."""

    def scan(self, projection: Projection, *, after: Cursor | None, limit: int) -> Page:
        """Up to `limit` documents in one state, in an order that later pages continue. Holds nothing between calls."""

    def count(self) -> int:
        """How many documents there are, over all partitions. O(partitions)."""

    def read_meta(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values of metadata `keys`, aligned, of one state; None where absent."""

    def scan_meta(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """All metadata whose key begins with `prefix`, in ascending order of keys, of one state."""

    def close(self) -> None:
        """As OrderedKeyValue.close."""


@runtime_checkable
class Reclaim(Protocol):
    """Capability of a Storage that leaves dropped values in place for a while: gives their space back in small
    commits.
    """

    def reclaim(self, *, max_records: int, meta: Meta, expect: Meta) -> bool:
        """Look at up to `max_records` documents and commit what gives space back; nothing visible changes.

        True where there was something to look at: then `meta` was written in a commit that is a compare-and-set on
        `expect`, also if no document had to change. False where no drop or clear is left to reclaim: then nothing was
        committed. Raises as Storage.apply does.
        """


@runtime_checkable
class Verify(Protocol):
    """Capability of a Storage that can tell whether all that was committed is still there and right; of an
    OrderedKeyValue that can tell so of its own structures, since the core checks what lies in them.
    """

    def verify(self) -> list[str]:
        """Read everything; one sentence for each thing that is wrong, none where all is well."""


@runtime_checkable
class Query(Protocol):
    """Capability of a Storage whose documents SQL can read."""

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """The result of one SELECT statement over `documents`, a pyarrow Table, from one state.

        Beside commits, which it neither waits for nor keeps waiting. It changes nothing, and reaches nothing but the
        documents: no files, no network, no settings. Raises QueryError for any other statement, for several, and for
        one that the engine refuses; StorageError, ReplicaDamagedError.
        """


@runtime_checkable
class Follower(Protocol):
    """Capability of an OrderedKeyValue or Storage whose engine lets one process write (Sharing.FOLLOWERS).

    The process that holds the mount opens it to write. Others open it with `follow`, in the same process perhaps beside
    one that is about to be closed, and read: what they see moves only when it is told to. A follower's commit raises
    StorageError. Opening one where nothing was made yet does too, and makes nothing.
    """

    def catch_up(self) -> None:
        """Have later snapshots show all that was committed before this call; nothing in an instance that writes.

        Snapshots that are open keep their state: it may wait for them to end. Cheap where there is nothing new.
        Raises StorageError; what was seen before stays readable.
        """


# -- the log -----------------------------------------------------------------------------------


@runtime_checkable
class Transport(Protocol):
    """A store's log: partitions of messages, each in one order that all readers see.

    LogUnavailableError is for servers that are silent: who waits for a position goes on waiting then. Any other
    TransportError that comes again and again halts ingest, and ends such waits.
    """

    def describe(self) -> StoreDescription:
        """What was fixed when the store was provisioned; the same for the life of the instance."""

    def publish(self, messages: Sequence[Message]) -> Token:
        """Append `messages`, those of one partition in their order, and return when they are durable as declared.

        The token holds, for each partition touched, the position after the last message. No messages give the empty
        token. Raises PartialPublishError, OutcomeUnknownError, StorageFullError, TransportError; but for the first two,
        nothing was appended.
        """

    def subscribe(self, start: Mapping[int, Start]) -> Subscription:
        """Begin to read the given partitions at the given places.

        Each start is compared with the log by ikvcore.witness.check_start: LogTrimmedError where the log begins after
        it, LogDivergedError where it lies beyond the end or its witness is of another log or message.
        """

    def bounds(self) -> Mapping[int, Bounds]:
        """What each partition of the log holds now."""

    def size(self) -> int | None:
        """The log's size in bytes, None where the transport cannot tell."""

    def close(self) -> None:
        """Give up the log; a subscription of it ends with TransportError. Idempotent."""


class Subscription(Protocol):
    """A reader's place in the log. Used by one thread, but for `wake`."""

    def poll(self, *, max_messages: int, max_bytes: int, timeout: float) -> Polled:
        """Wait up to `timeout` seconds for messages, and take at most so many, of at most so many bytes.

        At least one message is given where there is one, whatever its size. Returns early, perhaps with nothing,
        after `wake`.
        """

    def wake(self) -> None:
        """End a poll that waits, or the next one, at once. From any thread."""

    def close(self) -> None:
        """Idempotent."""


@runtime_checkable
class PlainLog(Protocol):
    """A store's log in its simplest form; ikvcore.plainlog.PlainTransport makes a Transport of it.

    What it is given was checked. It is called neither after `close` nor in a forked child, where it is not even freed.
    """

    def append(self, messages: Sequence[Message]) -> Mapping[int, Position]:
        """Append `messages`, at least one, with the promises and errors of Transport.publish.

        Gives the position after the last message of each partition touched: where its bounds end. Where the store was
        deleted, appends nothing and gives an empty map.
        """

    def read(self, places: Mapping[int, Position], *, limit: int, wait: float) -> Iterable[LogMessage]:
        """What each partition holds at its place and after it, in order, none left out; `limit` messages in all are
        enough. Partitions in the order of `places`, which changes, so that each has its turn.

        Where there is nothing, wait up to `wait` seconds for it, or do not: it is asked again, after pauses that grow
        from 1 to 50 ms. An iterator may be left before its end.
        """

    def bounds(self) -> Mapping[int, Bounds]:
        """What each partition holds now; an empty map where the store was deleted. A subscription asks once a second,
        and where it meets a gap."""

    def close(self) -> None:
        """Give up the engine. Called once, when no other call is under way."""


@runtime_checkable
class Provisioning(Protocol):
    """Capability of a transport: stores and accounts are made and removed through it.

    Every call but `create_account` answers wrong passkeys, unknown stores and stores of other accounts with one and the
    same StoreAccessError. Where the info says that it keeps no passkeys, any is right here.
    """

    def create_account(self) -> None:
        """Make the context's account with the context's passkey. Raises StoreExistsError."""

    def rotate_passkey(self, new_passkey: str) -> None:
        """Replace the account's passkey. Not called where the info says that it keeps none."""

    def create_store(self, description: StoreDescription) -> StoreDescription:
        """Make a store, and the account too if it does not exist yet. Raises StoreExistsError.

        Returns what every client of it is told from now on: its identity may be another, its largest event smaller.
        All or nothing: a store that exists is complete.
        """

    def list_stores(self) -> list[StoreDescription]:
        """The account's stores, by name."""

    def delete_store(self, store_name: str) -> None:
        """Remove a store and its log for ever."""

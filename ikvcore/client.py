"""The contract that applications program against: IKVReader and IKVWriter.

Instances come from ikvcore.factory. Both are context managers that start up and shut down; starting or shutting down
twice is harmless; any other call before startup raises NotStartedError, after shutdown ShutDownError, and in a process
forked from the one that started it ForkedError. All methods are thread-safe.

Keys are str, bytes or bytearray: "a" and b"a" are the same key. An empty, over-long or undecodable key raises
InvalidKeyError, a key of another type KeyTypeError.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ikvcore.document import IKVDocument
from ikvcore.fields import Value

if TYPE_CHECKING:
    from pathlib import Path

    from ikvcore.health import Health, Stats
    from ikvcore.loadreport import LoadProgress, LoadReport
    from ikvcore.models import Row
    from ikvcore.tokens import Token

__all__ = ["IKVReader", "IKVWriter", "Key"]

Key: TypeAlias = "str | bytes | bytearray"

_Self = TypeVar("_Self", bound="_Client")


class _Client(ABC):
    """The life that readers and writers share."""

    @abstractmethod
    def startup(self) -> None:
        """Open the client."""

    @abstractmethod
    def shutdown(self) -> None:
        """Close the client and give up what it holds."""

    def __enter__(self: _Self) -> _Self:
        self.startup()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()


class IKVReader(_Client):
    """Reads documents from an embedded replica: no call but `startup` and `stats` asks the log.

    Every read sees one committed state of the replica. What is not there reads as None.
    """

    @abstractmethod
    def startup(
        self,
        timeout: float | None = None,
        *,
        allow_stale: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Open the replica, and block until everything that was published before the call is visible.

        timeout: seconds; WaitTimeoutError after that, and the reader is not started. None waits as long as it takes.
        allow_stale: serve what the replica has at once, and catch up behind; `health` tells when it has.
        progress: called every two seconds or so with (events applied, events to apply) of this startup, in this thread;
            the log says the same at INFO.

        Raises MountError and its kin, StoreAccessError, IngestHaltedError (not with allow_stale), LogTrimmedError,
        LogDivergedError, StorageError, TransportError.
        """

    # -- one value ---------------------------------------------------------------------------

    @abstractmethod
    def get_string_value(self, primary_key: Key, field_name: str) -> str | None:
        """A STRING field of one document; None if the document or the field is not there.

        Like every typed getter it raises FieldTypeError where the field has another type.
        """

    @abstractmethod
    def get_bytes_value(self, primary_key: Key, field_name: str) -> bytes | None:
        """A BYTES field, or the UTF-8 bytes of a STRING field."""

    @abstractmethod
    def get_int32_value(self, primary_key: Key, field_name: str) -> int | None:
        """An INT32 field."""

    @abstractmethod
    def get_int64_value(self, primary_key: Key, field_name: str) -> int | None:
        """An INT64 field."""

    @abstractmethod
    def get_float32_value(self, primary_key: Key, field_name: str) -> float | None:
        """A FLOAT32 field."""

    @abstractmethod
    def get_float64_value(self, primary_key: Key, field_name: str) -> float | None:
        """A FLOAT64 field."""

    @abstractmethod
    def get_bool_value(self, primary_key: Key, field_name: str) -> bool | None:
        """A BOOLEAN field."""

    @abstractmethod
    def get_value(self, primary_key: Key, field_name: str) -> Value | None:
        """A field of whatever type."""

    # -- documents ---------------------------------------------------------------------------

    @abstractmethod
    def get_document(self, primary_key: Key, field_names: Sequence[str] | None = None) -> dict[str, Value] | None:
        """The fields of one document, those named or all, the primary key among all; absent fields are left out.

        None if there is no such document.
        """

    @abstractmethod
    def multiget_string_values(
        self,
        bytes_primary_keys: Sequence[bytes | bytearray] = (),
        str_primary_keys: Sequence[str] = (),
        field_names: Sequence[str] = (),
    ) -> Iterator[str | None]:
        """STRING fields of many documents, from one state: all bytes keys, then all str keys; per key the fields in the
        order asked. Duplicates repeat; None holds the place of what is missing; no keys or no fields give nothing.

        Read before it returns: the iterator holds no state open.
        """

    @abstractmethod
    def multiget_bytes_values(
        self,
        bytes_primary_keys: Sequence[bytes | bytearray] = (),
        str_primary_keys: Sequence[str] = (),
        field_names: Sequence[str] = (),
    ) -> Iterator[bytes | None]:
        """As multiget_string_values, of BYTES fields and the UTF-8 bytes of STRING fields."""

    @abstractmethod
    def multiget_values(self, primary_keys: Sequence[Key], field_names: Sequence[str]) -> Iterator[Value | None]:
        """As multiget_string_values, of whatever types, keys in the order given."""

    @abstractmethod
    def multiget_documents(
        self, primary_keys: Sequence[Key], field_names: Sequence[str] | None = None
    ) -> Iterator[dict[str, Value] | None]:
        """As get_document for each key in the order given, from one state."""

    @abstractmethod
    def get_rows(self, primary_keys: Sequence[Key], field_names: Sequence[str] | None = None) -> list[Row | None]:
        """As multiget_documents, with the fields' types: a row is (names, types, values), see ikvcore.models.Row."""

    @abstractmethod
    def scan(self, field_names: Sequence[str] | None = None) -> Iterator[tuple[str | bytes, dict[str, Value]]]:
        """Every document as (key, fields), the key in the store's type, in no promised order.

        Read page by page, each page one state, and none held open between: a document that is there throughout is
        given, one that comes or goes meanwhile perhaps.
        """

    @abstractmethod
    def scan_rows(self, field_names: Sequence[str] | None = None) -> Iterator[tuple[str | bytes, Row]]:
        """As scan, with the fields' types: rows as of get_rows."""

    @abstractmethod
    def count(self) -> int:
        """How many documents the replica holds."""

    # -- SQL ---------------------------------------------------------------------------------

    @abstractmethod
    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """The result of one SELECT statement over the documents of this replica, as a pyarrow Table; its method
        to_pandas() gives a pandas DataFrame.

        sql: reads the table `documents`; what columns it has tells the page of the backend in docs/backends/.
        parameters: values of `?`, or by name of `$name`.

        From one state; ingest goes on beside it. Raises RequirementError where the backend lacks the capability Query,
        naming those that have it; QueryError for anything but one SELECT, and for what the engine refuses.
        """

    # -- freshness ---------------------------------------------------------------------------

    @abstractmethod
    def wait_for(self, token: Token, timeout: float | None = None) -> None:
        """Block until the write that returned `token` is visible here, in the partitions of it that are held.

        Raises WaitTimeoutError after `timeout` seconds (None: never), also while the log's servers are silent, which it
        names then; InvalidTokenError for a token of another store's log, or of partitions of which none is held;
        IngestHaltedError, LogTrimmedError or LogDivergedError at once where waiting is vain. The empty token is visible
        already.
        """

    @abstractmethod
    def stats(self) -> Stats:
        """Figures of the replica and its log. Asks the log, so it may raise TransportError."""

    @abstractmethod
    def health(self) -> Health:
        """Whether the reader serves and how fresh. Raises only ForkedError: not started is a state of health too."""


class IKVWriter(_Client):
    """Publishes events to a store's log.

    A call returns when its events are durable, with a token for `IKVReader.wait_for`; a call without anything to do
    returns the empty token. Everything in a call is checked before anything is published, so an error that names bad
    input means that nothing was. Batches are published as one; over several partitions they are not atomic:
    PartialPublishError says what was taken.

    Writes of several threads share commits. Writes of one document from several threads take effect in the order in
    which they reach the log: callers who care for that order must synchronise.

    Raises InvalidDocumentError, InvalidKeyError, FieldNameError, EventTooLargeError; TransportError and its kin.
    """

    @abstractmethod
    def upsert_fields(self, document: IKVDocument) -> Token:
        """Set the fields of `document`, creating it if need be; its other fields stay.

        `document` holds the primary key, and the partitioning key where the store has one.
        """

    @abstractmethod
    def upsert_fields_batch(self, documents: Iterable[IKVDocument]) -> Token:
        """Upsert documents, in their order, in one durable publication."""

    @abstractmethod
    def delete_fields(self, document: IKVDocument, fields_to_delete: Sequence[str]) -> Token:
        """Remove fields of the document whose keys `document` holds; what is absent, and the keys, are passed over."""

    @abstractmethod
    def delete_fields_batch(self, documents: Iterable[IKVDocument], fields_to_delete: Sequence[str]) -> Token:
        """Remove the same fields from several documents, in one durable publication."""

    @abstractmethod
    def delete_document(self, document: IKVDocument) -> Token:
        """Remove the document whose keys `document` holds; no-op if absent."""

    @abstractmethod
    def delete_document_batch(self, documents: Iterable[IKVDocument]) -> Token:
        """Remove several documents, in one durable publication."""

    @abstractmethod
    def drop_fields_by_name(self, field_names: Sequence[str]) -> Token:
        """Remove fields from all documents; unknown names and the keys are passed over."""

    @abstractmethod
    def drop_fields_by_name_prefix(self, field_name_prefixes: Sequence[str]) -> Token:
        """Remove, from all documents, the fields whose names begin with a prefix; "" means every field but the keys."""

    @abstractmethod
    def drop_all_fields(self) -> Token:
        """Remove all documents."""

    # -- files and tables --------------------------------------------------------------------

    @abstractmethod
    def load(
        self,
        source: object,
        *,
        primary_key: str | None = None,
        select: str | None = None,
        where: str | None = None,
        batch_size: int = 1_000,
        timestamps: str = "iso",
        casts: Mapping[str, str] | None = None,
        null: str | Sequence[str] = (),
        format: str | None = None,  # noqa: A002 - the word that everybody uses for it
        errors: str | Path | None = None,
        progress: LoadProgress | None = None,
    ) -> LoadReport:
        """Upsert a document for each row of a file or table, in the order of the rows; needs the extra `load`.

        source: a path or glob, or a list of them, of CSV (with a line of names), Parquet or JSON lines; or a pyarrow
            Table or RecordBatchReader, or a pandas or polars DataFrame. Files are read by DuckDB in bounded memory.
        primary_key: a column, or an SQL expression over the columns, that gives the primary key. Default: the column
            of the key's name. A partitioning key is the column of its name.
        select: SQL expressions, as between SELECT and FROM, that become the fields; default all columns.
        where: an SQL condition for the rows.
        batch_size: rows that are published as one, 1 to 100,000.
        timestamps: "iso" for text in ISO 8601 (UTC and a Z, where there is a time zone), "epoch-us" for INT64
            microseconds.
        casts: column to one of int32, int64, float32, float64, string, bytes, boolean.
        null: texts of CSV cells that mean an absent field, besides the empty cell.
        format: "csv", "parquet" or "jsonl" for files whose names do not tell.
        errors: a file for the refused rows, as JSON lines of row (from 1, of those that `where` lets through), reason,
            values.
        progress: called after each batch, and each 0.1 s of waiting for one; what it raises ends the load.

        A NULL is an absent field; fields of a document that the row does not set stay. For types see
        docs/how-to/load.md. A row is refused, and counted by reason, where its key is NULL, empty, too long or no text,
        where a cast would fail or lose, and where its event is too large; the others are loaded.

        A load that was broken off can be run again: it gives the same documents. Raises InvalidArgumentError and
        FieldNameError for a call that cannot be carried out, with nothing published; LoadError, with the report so far,
        where the source cannot be read to its end; MissingExtraError.
        """

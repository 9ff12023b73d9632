"""Every error that this project raises on purpose, in one tree.

    IKVError
    ├── InvalidArgumentError (ValueError)      a call was given something it cannot take
    │   ├── InvalidDocumentError               no primary or partitioning key in a document
    │   ├── InvalidKeyError                    a key that is empty, over-long or undecodable
    │   │   └── KeyTypeError (TypeError)       a key of a type that keys cannot have
    │   ├── FieldNameError                     a field name that is empty or not a str
    │   ├── FieldValueError                    a value out of its type's range
    │   │   └── UnsupportedTypeError (TypeError)   a value of a type that fields cannot have
    │   ├── InvalidNameError                   a store or account name that breaks the rules
    │   ├── InvalidTokenError                  a token that cannot be parsed, joined or waited for
    │   ├── EventTooLargeError                 an event over the store's size limit
    │   └── QueryError                         SQL that is not one SELECT, or that the engine refused
    ├── OptionsError (ValueError)              options that are missing, unknown or impossible
    │   ├── MissingOptionError
    │   ├── UnknownOptionError
    │   ├── InvalidOptionError
    │   └── RequirementError                   a plugin lacks what `requires` asks for
    ├── PluginError                            a backend or transport could not be loaded
    │   ├── PluginNotFoundError
    │   ├── PluginBrokenError
    │   ├── PluginVersionError
    │   └── PluginClashError
    ├── FieldTypeError (TypeError)             a field was read as a type that it does not have
    ├── LifecycleError (RuntimeError)          a call at the wrong time of a client's life
    │   ├── NotStartedError
    │   ├── ShutDownError
    │   └── ForkedError                        the client was opened before a fork
    ├── StoreAccessError (PermissionError)     no such store for this account and passkey
    ├── StoreExistsError (FileExistsError)
    ├── MountError (OSError)                   the mount directory cannot be used
    │   ├── MountMismatchError                 it belongs to another store, backend or history
    │   ├── FormatVersionError                 it was written by a newer release
    │   └── MountBusyError                     another process holds it, and the engine is not shared
    ├── TransportError                         the log failed
    │   ├── PartialPublishError                some partitions took the batch, others did not
    │   ├── OutcomeUnknownError                the events may or may not be in the log
    │   ├── LogUnavailableError                the log's servers do not answer at the moment
    │   ├── LogTrimmedError                    the log no longer holds what comes next
    │   └── LogDivergedError                   the log is not the one that was followed so far
    ├── StorageError                           the replica's engine failed
    │   ├── FencedError                        another ingester committed first
    │   ├── StorageFullError
    │   └── ReplicaDamagedError                what is stored fails its checksum
    ├── IngestHaltedError                      a partition stopped before a bad event or a failure
    ├── LoadError                              a file or table could not be read to its end
    ├── MissingExtraError (ImportError)        a package that comes with an extra is not installed
    ├── PartitionNotHeldError (LookupError)    the key's partition is not in this replica
    └── WaitTimeoutError (TimeoutError)        what was waited for did not come in time

Constructors take identifiers and build the message, so that the same mistake reads the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ikvcore.loadreport import LoadReport

__all__ = [
    "EventTooLargeError",
    "FencedError",
    "FieldNameError",
    "FieldTypeError",
    "FieldValueError",
    "ForkedError",
    "FormatVersionError",
    "IKVError",
    "IngestHaltedError",
    "InvalidArgumentError",
    "InvalidDocumentError",
    "InvalidKeyError",
    "InvalidNameError",
    "InvalidOptionError",
    "InvalidTokenError",
    "KeyTypeError",
    "LifecycleError",
    "LoadError",
    "LogDivergedError",
    "LogTrimmedError",
    "LogUnavailableError",
    "MissingExtraError",
    "MissingOptionError",
    "MountBusyError",
    "MountError",
    "MountMismatchError",
    "NotStartedError",
    "OptionsError",
    "OutcomeUnknownError",
    "PartialPublishError",
    "PartitionNotHeldError",
    "PluginBrokenError",
    "PluginClashError",
    "PluginError",
    "PluginNotFoundError",
    "PluginVersionError",
    "QueryError",
    "ReplicaDamagedError",
    "RequirementError",
    "ShutDownError",
    "StorageError",
    "StorageFullError",
    "StoreAccessError",
    "StoreExistsError",
    "TransportError",
    "UnknownOptionError",
    "UnsupportedTypeError",
    "WaitTimeoutError",
]


class IKVError(Exception):
    """The root of all errors of this project.

    They can be pickled, and so cross process pools, although their constructors take identifiers and not messages.
    """

    def __reduce__(self) -> tuple[object, ...]:
        return restore, (type(self), self.args, self.__dict__)


# -- arguments ---------------------------------------------------------------------------------


class InvalidArgumentError(IKVError, ValueError):
    """A call was given something it cannot take; nothing was changed."""


class InvalidDocumentError(InvalidArgumentError):
    """A document lacks a field that identifies or routes it."""

    def __init__(self, missing: str, role: str, present: Iterable[str]) -> None:
        fields = ", ".join(repr(name) for name in sorted(present)) or "none"
        super().__init__(
            f"the document has no field {missing!r}, the store's {role}; its fields are: {fields}. "
            f"Put {missing!r} into the document."
        )


class InvalidKeyError(InvalidArgumentError):
    """A key is empty, longer than 65,535 bytes, or not UTF-8 where the store's keys are strings."""

    def __init__(self, key: object, reason: str) -> None:
        super().__init__(f"{_shown(key)} cannot be a key: {reason}")


class KeyTypeError(InvalidKeyError, TypeError):
    """A key is of a type that keys cannot have."""

    def __init__(self, key: object, wanted: str = "str, bytes or bytearray") -> None:
        super().__init__(key, f"keys are {wanted}, not {type(key).__name__}")


class FieldNameError(InvalidArgumentError):
    """A field name is empty, not a str, or cannot be encoded."""

    def __init__(self, name: object, reason: str = "field names are str and not empty") -> None:
        super().__init__(f"{_shown(name)} cannot be a field name: {reason}")


class FieldValueError(InvalidArgumentError):
    """A value does not fit the type of its field."""

    def __init__(self, name: str, value: object, reason: str) -> None:
        super().__init__(f"field {name!r} cannot hold {_shown(value)}: {reason}")


class UnsupportedTypeError(FieldValueError, TypeError):
    """A value's type is not one that the field, or any field, can hold."""


class InvalidNameError(InvalidArgumentError):
    """A store or account name breaks the rules for names."""

    def __init__(self, what: str, name: object) -> None:
        super().__init__(
            f"{_shown(name)} cannot be a {what}: use 1 to 249 of the characters A-Z a-z 0-9 . _ - (but not '.' or '..')"
        )


class InvalidTokenError(InvalidArgumentError):
    """A token cannot be parsed, joined, or waited for here."""


class EventTooLargeError(InvalidArgumentError):
    """An event is larger than the store's limit; nothing of its call was published."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"an event of {size:,} bytes is over the store's limit of {limit:,} bytes; split the document's fields "
            "over several upserts"
        )


class QueryError(InvalidArgumentError):
    """A query is not one SELECT statement, or the engine could not carry it out."""

    def __init__(self, sql: object, reason: str) -> None:
        super().__init__(f"the query {_shown(sql)} cannot be carried out: {reason}")


# -- options -----------------------------------------------------------------------------------


class OptionsError(IKVError, ValueError):
    """Client or plugin options cannot be used as they are."""


class MissingOptionError(OptionsError):
    """Required options were not given."""

    def __init__(self, missing: Mapping[str, str]) -> None:
        """`missing` maps an option's name to the builder method that sets it."""
        super().__init__("; ".join(f"{name} is required: set it with {method}" for name, method in missing.items()))


class UnknownOptionError(OptionsError):
    """An option that its owner does not know."""

    def __init__(self, owner: str, name: str, valid: Iterable[str]) -> None:
        valid = sorted(valid)
        super().__init__(
            f"{owner} has no option {name!r}{near_miss(name, valid)}; valid options: {', '.join(valid) or 'none'}"
        )


class InvalidOptionError(OptionsError):
    """An option's value cannot be used."""

    def __init__(self, name: str, value: object, reason: str) -> None:
        super().__init__(f"option {name} cannot be {_shown(value)}: {reason}")


class RequirementError(OptionsError):
    """A plugin lacks what ClientOptions.requires asks for."""

    def __init__(self, plugin: str, lacking: Sequence[str], would_do: Sequence[str], known: Iterable[str] = ()) -> None:
        nobody = f"no installed plugin has it{near_miss(lacking[0], known)}"
        others = f"these have it: {', '.join(would_do)}" if would_do else nobody
        super().__init__(f"{plugin} lacks what the application requires ({', '.join(lacking)}); {others}")


# -- plugins -----------------------------------------------------------------------------------


class PluginError(IKVError):
    """A backend or transport could not be loaded."""


class PluginNotFoundError(PluginError):
    """No installed distribution offers this name."""

    def __init__(self, kind: str, name: str, installed: Sequence[str], install: str | None = None) -> None:
        hint = f"; install it with: {install}" if install else ""
        super().__init__(
            f"no {kind} named {name!r} is installed{near_miss(name, installed)}; "
            f"installed: {', '.join(installed) or 'none'}{hint}"
        )


class PluginBrokenError(PluginError):
    """A plugin is installed, but importing or registering it failed."""

    def __init__(self, kind: str, name: str, distribution: str, version: str, cause: object) -> None:
        super().__init__(f"{kind} {name!r} of {distribution} {version} is installed but broken: {cause}")


class PluginVersionError(PluginError):
    """A plugin was written for another version of the plugin API."""

    def __init__(self, kind: str, name: str, distribution: str, theirs: object, ours: int) -> None:
        super().__init__(
            f"{kind} {name!r} of {distribution} speaks plugin API version {theirs!r}, this ikvcore speaks {ours}; "
            f"install a {distribution} made for version {ours}"
        )


class PluginClashError(PluginError):
    """Two distributions claim one name."""

    def __init__(self, kind: str, name: str, distributions: Sequence[str]) -> None:
        choices = " or ".join(repr(f"{distribution}:{name}") for distribution in distributions)
        super().__init__(
            f"{kind} {name!r} is claimed by {' and by '.join(distributions)}; choose one by naming it {choices}"
        )


# -- reading -----------------------------------------------------------------------------------


class FieldTypeError(IKVError, TypeError):
    """A field was read as a type that it does not have."""

    def __init__(self, name: str, actual: str, wanted: str) -> None:
        super().__init__(
            f"field {name!r} is {actual}, not {wanted}; read it with the getter of its type, or with get_value"
        )


class PartitionNotHeldError(IKVError, LookupError):
    """The key belongs to a partition that this replica does not hold, so its absence here says nothing."""

    def __init__(self, key: object, partition: int, held: Sequence[int]) -> None:
        super().__init__(
            f"{_shown(key)} belongs to partition {partition}; this replica holds {list(held)}. "
            "Open a reader that holds the partition (with_partitions)."
        )


class WaitTimeoutError(IKVError, TimeoutError):
    """What was waited for did not come in time."""


# -- life of a client --------------------------------------------------------------------------


class LifecycleError(IKVError, RuntimeError):
    """A call at the wrong time of a client's life."""


class NotStartedError(LifecycleError):
    """The client has not been started."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the {what} is not started: call startup() first, or use it as a context manager")


class ShutDownError(LifecycleError):
    """The client has been shut down."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the {what} was shut down: create a new one from the factory, or call startup() again")


class ForkedError(LifecycleError):
    """Something was opened before a fork, and is being used, or opened again, in the child."""

    def __init__(self, what: str, *, reopened: bool = False) -> None:
        """`reopened`: a new client asks for files that were open at the fork."""
        trouble = (
            f"the {what} was open when this process was forked, and cannot be opened again in the child; open nothing "
            "of it before the fork"
            if reopened
            else f"the {what} was opened before this process was forked and cannot be used in the child"
        )
        super().__init__(
            f"{trouble}: create clients after the fork (gunicorn: in post_fork, without preload), or start children "
            "with multiprocessing's 'spawn'"
        )


# -- stores and mounts -------------------------------------------------------------------------


class StoreAccessError(IKVError, PermissionError):
    """Unknown store, wrong passkey, or another account's store: which of them is not told.

    A log that lies on servers of its own repeats what those tell of it.
    """

    def __init__(self, store_name: str, account_id: str, *, told: str = "") -> None:
        """`told`: why the log's servers let nobody in, and what to do."""
        super().__init__(
            f"account {account_id!r} has no access to store {store_name!r}: {told}"
            if told
            else f"no store {store_name!r} for account {account_id!r} with this passkey; check the three, or create "
            "the store with: ikv store create"
        )


class StoreExistsError(IKVError, FileExistsError):
    """A store or account of this name exists already."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"{what} {name!r} exists already; nothing was changed")


class MountError(IKVError, OSError):
    """The mount directory cannot be used."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"mount directory {str(path)!r} cannot be used: {reason}")


class MountMismatchError(MountError):
    """The mount directory belongs to another store, backend, set of partitions or history."""

    def __init__(self, path: object, what: str, stored: object, wanted: object) -> None:
        super().__init__(
            path,
            f"it holds a replica whose {what} is {stored!r}, not {wanted!r}; nothing was touched. Give this client a "
            "mount directory of its own, or remove that one if it is no longer needed",
        )


class FormatVersionError(MountError):
    """The mount directory was written by a newer release."""

    def __init__(self, path: object, found: object, known: int) -> None:
        super().__init__(
            path,
            f"its format version is {found!r}, this release knows up to {known}; nothing was touched. "
            "Upgrade ikvcore, or give this client a mount directory of its own",
        )


class MountBusyError(MountError):
    """Another process holds the mount, and its backend cannot be shared between processes."""

    def __init__(self, path: object, backend: str, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(
            path,
            f"{holder} holds it, and backend {backend!r} is not shared between processes; give each process a mount "
            "directory of its own, or choose a process-shared backend",
        )


# -- the log -----------------------------------------------------------------------------------


class TransportError(IKVError):
    """The log failed."""


class PartialPublishError(TransportError):
    """Some partitions took their part of a batch, others did not.

    `taken` is the token of what is durable, `failed` names the partitions that took nothing.
    """

    def __init__(self, taken: object, failed: Sequence[int], cause: object) -> None:
        super().__init__(f"partitions {list(failed)} took nothing of the batch ({cause}); durable so far: {taken}")
        self.taken = taken
        self.failed = tuple(failed)


class OutcomeUnknownError(TransportError):
    """The acknowledgement was lost: the events may or may not be in the log. Writing them again is safe."""


class LogUnavailableError(TransportError):
    """The log's servers do not answer. Readers go on by themselves when they do again, so waiting is not vain."""


class LogTrimmedError(TransportError):
    """The log begins after the position that the replica needs next."""

    def __init__(self, partition: int, position: int, first: int) -> None:
        super().__init__(
            f"partition {partition} needs position {position} next, but its log now begins at {first}: the events "
            "between are gone. Remove the mount directory and open it with with_history('partial') to go on from "
            "what the log still has, or publish the documents again"
        )


class LogDivergedError(TransportError):
    """The log is not the one that this replica followed so far."""

    def __init__(self, partition: int | None, reason: str) -> None:
        where = "the log" if partition is None else f"partition {partition} of the log"
        super().__init__(
            f"{where} is not the one that this replica followed: {reason}. Restore the log, or remove the mount "
            "directory so that the replica is built anew from the log as it is now"
        )


# -- the replica -------------------------------------------------------------------------------


class StorageError(IKVError):
    """The replica's engine failed."""


class FencedError(StorageError):
    """Another ingester committed since this one read; nothing was changed."""

    def __init__(self, expected: object, found: object) -> None:
        super().__init__(f"another ingester committed first: expected commit {expected!r}, found {found!r}")


class StorageFullError(StorageError):
    """There is no space left for the replica or the log; nothing was changed."""

    def __init__(self, path: object, cause: object) -> None:
        super().__init__(f"no space left at {str(path)!r} ({cause}); nothing was changed. Free space and go on")


class ReplicaDamagedError(StorageError):
    """What is stored fails its checksum or cannot be decoded. A reader rebuilds the replica by itself where it can."""

    def __init__(self, what: str, way_out: str = "") -> None:
        """`way_out` says what to do where it is not rebuilt by itself."""
        way_out = way_out or "It is rebuilt from the log by itself; a reader's health() tells how that goes"
        super().__init__(f"the replica is damaged: {what}. {way_out}")
        self.what = what


class IngestHaltedError(IKVError):
    """A partition's ingest stopped; reads go on with what was applied before."""

    def __init__(self, halts: Mapping[int, str]) -> None:
        """`halts` maps each halted partition to its reason."""
        reasons = "; ".join(f"partition {partition}: {reason}" for partition, reason in sorted(halts.items()))
        way_out = (
            "To pass over bad events and keep them for inspection, open the reader with with_on_bad_event('quarantine')"
            if any(reason.startswith("bad event") for reason in halts.values())
            else "It is tried again by itself; see the log for what is wrong"
        )
        super().__init__(f"ingest has halted ({reasons}). Reads go on with what came before. {way_out}")
        self.halts = dict(halts)


# -- loading -----------------------------------------------------------------------------------


class LoadError(IKVError):
    """A file or table could not be read to its end. `report` is the LoadReport of what was loaded before."""

    def __init__(self, reason: str, report: LoadReport) -> None:
        so_far = "nothing was loaded"
        if report.loaded:
            so_far = f"{report.loaded:,} rows before it are loaded; loading again is safe"
        super().__init__(f"{reason} ({so_far})")
        self.report = report


class MissingExtraError(IKVError, ImportError):
    """Something needs packages that are installed with an extra."""

    def __init__(self, what: str, extra: str, missing: object) -> None:
        super().__init__(
            f'{what} needs {missing}, which is not installed; install it with: pip install "ikvcore[{extra}]"'
        )


# -- helpers -----------------------------------------------------------------------------------


def restore(cls: type[IKVError], args: tuple[object, ...], attributes: Mapping[str, object]) -> IKVError:
    """An error from its finished parts, past its constructor."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


def near_miss(name: str, valid: Iterable[str]) -> str:
    """' (did you mean ...?)' where a valid name is close to `name`, else ''."""
    import difflib  # costs as much as this whole module, and only errors need it

    close = difflib.get_close_matches(name.lower(), list(valid), n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(repr(c) for c in close)}?)" if close else ""


def _shown(value: object) -> str:
    """A value's repr, cut so that a huge one does not fill the log: in its middle, since a path ends in what tells."""
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python converts
        return f"a huge {type(value).__name__}"
    if len(text) <= 80:
        return text
    return f"{text[:30]}...{text[-30:]} ({type(value).__name__}, {len(text):,} characters)"

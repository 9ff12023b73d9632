"""What a client is opened with: `ClientOptions`, and the builder that makes them.

Options hold what was asked for, checked as far as that can be done without opening anything. Whether a store name,
an account and a mount directory are there is checked where a client is created, since a writer needs no mount.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ikvcore.errors import InvalidOptionError, MissingOptionError, UnknownOptionError, near_miss
from ikvcore.models import Durability, Secret, Sharing

__all__ = ["ClientOptions", "ClientOptionsBuilder", "Requirements", "require_reader", "require_writer"]

DEFAULT_BACKEND: Final = "lmdb"
DEFAULT_TRANSPORT: Final = "local"

LOG_LEVELS: Final = ("ERROR", "WARN", "INFO", "DEBUG", "TRACE")
DEFAULT_LOG_LEVEL: Final = "INFO"

_POLICIES: Final = ("raise", "quarantine")
_HISTORIES: Final = ("complete", "partial")
_MAX_PARTITION: Final = 0xFFFF
_SECRET_WORDS: Final = ("passw", "secret", "passkey", "token", "key", "credential", "sasl.")
"""With a dot it is a property of librdkafka's: each of them may carry what logs in, or be one misspelt."""
_SIZE_LEVELS: Final = ("max_key_bytes", "max_value_bytes")
_LEVELS: Final = ("durability", "sharing", "process_shared", *_SIZE_LEVELS)
_UNSHOWN: Final = Secret("")  # stands in messages for the passkey


class FrozenMapping(Mapping[str, Any]):
    """A read-only mapping that, unlike MappingProxyType, can be copied and pickled with the options it is part of."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Mapping[str, Any]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return repr(self._entries)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenMapping:
        # dataclasses.asdict copies deeply; what plugins take as options need not be copyable.
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._entries,)


class PluginOptions(FrozenMapping):
    """Options on their way to a plugin. A value whose name sounds like a secret is neither shown nor pickled."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(_masked(self._entries))

    def __reduce__(self) -> tuple[Any, ...]:
        if _masked(self._entries) != self._entries:
            raise TypeError("plugin options that may hold secrets are not pickled; build them in the child process")
        return super().__reduce__()


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What an application needs of its plugins; opening a client fails where they lack it.

    Levels are lower bounds: `durability` ("none", "process-crash", "power-loss"), `sharing` of the backend
    ("one-process", "followers", "shared"), `process_shared` (bool: clients in several processes at once),
    `max_key_bytes` and `max_value_bytes` (int).
    """

    capabilities: frozenset[str] = frozenset()
    """Names of capability protocols, such as "Query"."""
    levels: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.capabilities, str) or not isinstance(self.capabilities, Iterable):
            raise InvalidOptionError("requires", self.capabilities, "capabilities are a set of names")
        for name in self.capabilities:
            _checked_text("requires", name)
        object.__setattr__(self, "capabilities", frozenset(self.capabilities))
        levels = _entries("requires", self.levels)
        object.__setattr__(self, "levels", FrozenMapping({name: _level_bound(name, levels[name]) for name in levels}))


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """Options of a reader or a writer. Immutable, compares by value, shows no passkey and pickles none.

    Raises InvalidOptionError or UnknownOptionError for what no client could use. Paths are made absolute and `~` is
    expanded.
    """

    store_name: str | None = None
    account_id: str | None = None
    account_passkey: Secret | None = None
    mount_directory: Path | None = None
    """Where a reader keeps its replica; writers need none."""
    backend: str = DEFAULT_BACKEND
    backend_options: Mapping[str, Any] = field(default_factory=dict)
    transport: str = DEFAULT_TRANSPORT
    transport_options: Mapping[str, Any] = field(default_factory=dict)
    partitions: tuple[int, ...] | None = None
    """The partitions that a reader holds, ascending; None for all."""
    on_bad_event: str = "raise"
    """"raise" halts a partition before an event that cannot be applied, "quarantine" sets the event aside."""
    history: str = "complete"
    """"partial" lets a fresh replica begin from a log whose beginning was cut."""
    requires: Requirements = field(default_factory=Requirements)
    observers: tuple[object, ...] = ()
    """Told of what the client does, see ikvcore.hookspecs.ObserverSpec."""
    installed_observers: bool = True
    """Whether the observers that are installed are told too."""
    console_logging: str | None = None
    """Level of what goes to stdout: ERROR, WARN, INFO, DEBUG or TRACE. INFO where file_logging is None as well."""
    file_logging: tuple[str, Path] | None = None
    """Level and file."""

    def __post_init__(self) -> None:
        for name, value in self._checked().items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], *, section: str | None = None) -> ClientOptions:
        """Options from a TOML file, or from its table `section` (dotted, such as "tool.ikv").

        Every entry may be left out; relative paths are relative to the file's directory::

            store_name = "profiles"
            account_id = "demo"
            account_passkey_file = "passkey"   # its first line; or account_passkey = "..."
            mount_directory = "replica"
            partitions = [0, 1]
            on_bad_event = "quarantine"
            history = "complete"
            installed_observers = false        # default: true

            [backend]                          # name, and the backend's options
            name = "lmdb"

            [transport]                        # likewise
            name = "local"
            durability = "process-crash"

            [logging]
            console = "WARN"
            file = "ikv.log"
            file_level = "DEBUG"               # INFO if left out

            [requires]                         # capabilities, and levels by name
            capabilities = ["Checkpoint"]
            durability = "process-crash"

        Raises InvalidOptionError for a file that cannot be read or is not TOML, UnknownOptionError for other entries.
        """
        from ikvcore._optionsources import read_toml

        return cls(**read_toml(path, section))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> ClientOptions:
        """Options from `environ`, by default the process's environment.

        IKV_STORE_NAME, IKV_ACCOUNT_ID, IKV_ACCOUNT_PASSKEY or IKV_ACCOUNT_PASSKEY_FILE, IKV_MOUNT_DIRECTORY,
        IKV_PARTITIONS ("0,1"), IKV_ON_BAD_EVENT, IKV_HISTORY, IKV_BACKEND, IKV_BACKEND_OPTIONS (a JSON object),
        IKV_TRANSPORT, IKV_TRANSPORT_OPTIONS, IKV_INSTALLED_OBSERVERS ("true" or "false"), IKV_CONSOLE_LOGGING (a
        level), IKV_FILE_LOGGING ("LEVEL:path"). An empty variable counts as absent; other variables are ignored, since
        not every IKV_* is a client's.
        """
        from ikvcore._optionsources import read_env

        return cls(**read_env(environ))

    def _checked(self) -> dict[str, Any]:
        """The fields that need a check or another form, in that form."""
        console, file = self.console_logging, _file_logging(self.file_logging)
        if console is None and file is None:
            console = DEFAULT_LOG_LEVEL
        if not isinstance(self.requires, Requirements):
            raise InvalidOptionError("requires", self.requires, "it is a Requirements")
        return {
            "store_name": None if self.store_name is None else _checked_text("store_name", self.store_name),
            "account_id": None if self.account_id is None else _checked_text("account_id", self.account_id),
            "account_passkey": None if self.account_passkey is None else _passkey(self.account_passkey),
            "mount_directory": (
                None if self.mount_directory is None else absolute_path("mount_directory", self.mount_directory)
            ),
            "backend": _checked_text("backend", self.backend),
            "backend_options": PluginOptions(_entries("backend_options", self.backend_options)),
            "transport": _checked_text("transport", self.transport),
            "transport_options": PluginOptions(_entries("transport_options", self.transport_options)),
            "partitions": None if self.partitions is None else _partitions(self.partitions),
            "on_bad_event": _one_of("on_bad_event", self.on_bad_event, _POLICIES),
            "history": _one_of("history", self.history, _HISTORIES),
            "observers": _observers(self.observers),
            "installed_observers": _flag("installed_observers", self.installed_observers),
            "console_logging": None if console is None else _log_level("console_logging", console),
            "file_logging": file,
        }


class ClientOptionsBuilder:
    """Collects options. Calling a method again replaces what it set, None takes it back; `requires` adds.

    Everything is checked at build(), see ClientOptions.
    """

    __slots__ = ("_capabilities", "_levels", "_settings")

    def __init__(self) -> None:
        self._settings: dict[str, Any] = {}
        self._capabilities: list[str] = []
        self._levels: dict[str, Any] = {}

    def with_store_name(self, name: str) -> ClientOptionsBuilder:
        """Name the store. Required."""
        return self._set(store_name=name)

    def with_account_id(self, id: str) -> ClientOptionsBuilder:  # noqa: A002 - the published client's name
        """Name the account that owns the store. Required."""
        return self._set(account_id=id)

    def with_account_passkey(self, passkey: str | Secret) -> ClientOptionsBuilder:
        """Set the account's passkey. Required."""
        # Wrapped at once, so that no tool which shows the insides of objects finds it in the builder.
        wrapped = passkey if passkey is None or isinstance(passkey, Secret) else Secret(passkey)
        return self._set(account_passkey=wrapped)

    def with_mount_directory(self, dir: str | os.PathLike[str]) -> ClientOptionsBuilder:  # noqa: A002 - as above
        """Say where a reader keeps its replica; required for readers unless the backend is volatile.

        Made absolute at build(); `~` is expanded.
        """
        return self._set(mount_directory=dir)

    def with_console_logging(self, level: str) -> ClientOptionsBuilder:
        """Log to stdout at ERROR, WARN, INFO, DEBUG or TRACE, in any case. Without any logging option: INFO."""
        return self._set(console_logging=level)

    def with_file_logging(self, level: str, filepath: str | os.PathLike[str]) -> ClientOptionsBuilder:
        """Log to a file, at a level of its own; without with_console_logging, nothing goes to stdout then."""
        return self._set(file_logging=(level, filepath))

    def with_backend(self, name: str, **options: Any) -> ClientOptionsBuilder:
        """Choose the storage of a reader's replica, and its options. Default: "lmdb"."""
        return self._set(backend=name, backend_options=options)

    def with_transport(self, name: str, **options: Any) -> ClientOptionsBuilder:
        """Choose the log, and its options. Default: "local"."""
        return self._set(transport=name, transport_options=options)

    def with_partitions(self, partitions: Iterable[int]) -> ClientOptionsBuilder:
        """Let a reader hold these partitions alone. Default: all."""
        # An iterator is read now, so that build() can be called again; what is no iterable is refused there.
        return self._set(partitions=tuple(partitions) if isinstance(partitions, Iterable) else partitions)

    def with_on_bad_event(self, policy: str) -> ClientOptionsBuilder:
        """Say what happens at an event that cannot be applied: "raise" (default) or "quarantine"."""
        return self._set(on_bad_event=policy)

    def with_history(self, history: str) -> ClientOptionsBuilder:
        """Say whether a fresh replica needs a log that was never cut: "complete" (default) or "partial"."""
        return self._set(history=history)

    def with_observers(self, *observers: object, installed: bool = True) -> ClientOptionsBuilder:
        """Have these objects told of what the client does: their methods marked with hookimpl, see ObserverSpec.

        `installed`: whether those that installed packages bring, such as the extra `metrics`, are told too (default).
        """
        return self._set(observers=observers, installed_observers=installed)

    def requires(self, *capabilities: str, **levels: Any) -> ClientOptionsBuilder:
        """State what the plugins must offer, see Requirements."""
        self._capabilities.extend(capabilities)
        self._levels.update(levels)
        return self

    def build(self) -> ClientOptions:
        """The options. They share nothing with this builder, which can go on."""
        requirements = Requirements(capabilities=frozenset(self._capabilities), levels=self._levels)
        return ClientOptions(**self._settings, requires=requirements)

    def _set(self, **settings: Any) -> ClientOptionsBuilder:
        for name, value in settings.items():
            if value is None:
                self._settings.pop(name, None)
            else:
                self._settings[name] = value
        return self


def require_writer(options: ClientOptions) -> None:
    """Raise MissingOptionError that names everything a writer needs and `options` lack."""
    _require(options, ("store_name", "account_id", "account_passkey"))


def require_reader(options: ClientOptions, mount_needed: bool) -> None:
    """As require_writer, and the mount directory if `mount_needed`: volatile backends have none."""
    mount = ("mount_directory",) if mount_needed else ()
    _require(options, ("store_name", "account_id", "account_passkey", *mount))


def absolute_path(option: str, path: object, base: Path | None = None) -> Path:
    """`path` made absolute from `base` (default: the working directory), `~` expanded. Raises InvalidOptionError."""
    try:
        text = os.fspath(path)  # type: ignore[call-overload]  # refusing everything else is what the call is for
    except TypeError:
        text = None
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidOptionError(option, path, "a path is a str or os.PathLike, not empty and without NUL")
    try:
        return (base or Path()).absolute() / Path(text).expanduser()
    except RuntimeError as exc:
        raise InvalidOptionError(option, path, f"its ~ cannot be expanded ({exc}); write the path in full") from exc


def _require(options: ClientOptions, names: tuple[str, ...]) -> None:
    missing = {name: f"ClientOptionsBuilder.with_{name}" for name in names if getattr(options, name) is None}
    if missing:
        raise MissingOptionError(missing)


def _checked_text(option: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidOptionError(option, value, f"it is a str, not {type(value).__name__}")
    if not value:
        raise InvalidOptionError(option, value, "it may not be empty")
    return value


def _passkey(value: object) -> Secret:
    passkey = value if isinstance(value, Secret) else Secret(value)  # type: ignore[arg-type]  # checked below
    text: object = passkey.reveal()
    if not isinstance(text, str):
        raise InvalidOptionError("account_passkey", _UNSHOWN, f"it is a str, not {type(text).__name__}")
    if not text:
        raise InvalidOptionError("account_passkey", _UNSHOWN, "it may not be empty")
    return passkey


def _one_of(option: str, value: object, words: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in words:
        choices = " or ".join(repr(word) for word in words)
        raise InvalidOptionError(option, value, f"use {choices}{near_miss(str(value), words)}")
    return value


def _log_level(option: str, value: object) -> str:
    level = value.upper() if isinstance(value, str) else None
    if level not in LOG_LEVELS:
        close = near_miss(str(value), [name.lower() for name in LOG_LEVELS])
        raise InvalidOptionError(option, value, f"use {', '.join(LOG_LEVELS)}, in any case{close}")
    return level


def _flag(option: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidOptionError(option, value, "it is True or False")
    return value


def _observers(value: object) -> tuple[object, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise InvalidOptionError("observers", value, "they are a tuple of objects with methods marked with hookimpl")
    return tuple(value)


def _file_logging(value: object) -> tuple[str, Path] | None:
    if value is None:
        return None
    if not isinstance(value, tuple) or len(value) != 2:
        raise InvalidOptionError("file_logging", value, "it is a level and a path")
    level, path = value
    return _log_level("file_logging", level), absolute_path("file_logging", path)


def _partitions(value: object) -> tuple[int, ...]:
    numbers = tuple(value) if isinstance(value, Iterable) else ()
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _MAX_PARTITION:
            raise InvalidOptionError("partitions", value, f"partitions are ints from 0 to {_MAX_PARTITION}")
    if not numbers:
        raise InvalidOptionError("partitions", value, "name at least one, such as (0,), or leave it out to hold all")
    return tuple(sorted(set(numbers)))


def _entries(option: str, value: object) -> Mapping[str, Any]:
    # The value is not shown: it may hold secrets under names that cannot be told.
    if not isinstance(value, Mapping):
        raise InvalidOptionError(option, type(value), "it is a mapping of option names to values")
    for name in value:
        _checked_text(option, name)
    return value


def _level_bound(name: str, value: object) -> object:
    if name == "durability":
        return (value if isinstance(value, Durability) else Durability.parse(str(value))).word
    if name == "sharing":
        return (value if isinstance(value, Sharing) else Sharing.parse(str(value))).word
    if name == "process_shared":
        if not isinstance(value, bool):
            raise InvalidOptionError("requires process_shared", value, "it is True or False")
    elif name in _SIZE_LEVELS:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InvalidOptionError(f"requires {name}", value, "it is a number of bytes")
    else:
        raise UnknownOptionError("requires", name, _LEVELS)
    return value


def _masked(value: Any) -> Any:
    """`value` with what lies under a name that sounds like a secret's replaced by '***', at any depth."""
    if isinstance(value, Mapping):
        return {name: "***" if _sounds_secret(name) else _masked(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(entry) for entry in value] if isinstance(value, list) else tuple(map(_masked, value))
    return value


def _sounds_secret(name: object) -> bool:
    return any(word in str(name).lower() for word in _SECRET_WORDS)

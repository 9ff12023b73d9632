"""Client options from a TOML file or the environment; ClientOptions.from_toml and from_env document the forms.

Both readers give keyword arguments of ClientOptions, the passkey already wrapped. A text that holds it is kept out of
messages and of the frames and causes of errors, since error reporters record frames with their variables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ikvcore.clientoptions import DEFAULT_LOG_LEVEL, Requirements, absolute_path
from ikvcore.errors import InvalidOptionError, OptionsError, UnknownOptionError
from ikvcore.models import Secret

__all__ = ["read_env", "read_toml"]

_PLAIN: Final = ("store_name", "account_id", "partitions", "on_bad_event", "history", "installed_observers")
_TABLES: Final = ("backend", "transport", "logging", "requires")
_TOP_LEVEL: Final = (*_PLAIN, "account_passkey", "account_passkey_file", "mount_directory", *_TABLES)
_LOGGING: Final = ("console", "file", "file_level")

_VARIABLES: Final = (
    "STORE_NAME",
    "ACCOUNT_ID",
    "ACCOUNT_PASSKEY",
    "ACCOUNT_PASSKEY_FILE",
    "MOUNT_DIRECTORY",
    "BACKEND",
    "BACKEND_OPTIONS",
    "TRANSPORT",
    "TRANSPORT_OPTIONS",
    "PARTITIONS",
    "ON_BAD_EVENT",
    "HISTORY",
    "INSTALLED_OBSERVERS",
    "CONSOLE_LOGGING",
    "FILE_LOGGING",
)
_SAME_AS_OPTION: Final = (
    "store_name",
    "account_id",
    "mount_directory",
    "backend",
    "transport",
    "on_bad_event",
    "history",
    "console_logging",
)


class _Hidden:
    """Stands in messages for a value that may hold secrets."""

    def __repr__(self) -> str:
        return "'***'"


# -- TOML --------------------------------------------------------------------------------------


def read_toml(path: str | os.PathLike[str], section: str | None) -> dict[str, Any]:
    """Keyword arguments of ClientOptions from the file at `path`."""
    file = absolute_path("TOML file", path)
    data = _section(file, _load(file), section)
    _check_names(str(file), data, _TOP_LEVEL)
    settings: dict[str, Any] = {name: data[name] for name in _PLAIN if name in data}
    if (passkey := _passkey("account_passkey", data, file.parent)) is not None:
        settings["account_passkey"] = passkey
    if "mount_directory" in data:
        settings["mount_directory"] = absolute_path("mount_directory", data["mount_directory"], file.parent)
    for plugin in ("backend", "transport"):
        settings.update(_plugin(plugin, _table(file, data, plugin)))
    settings.update(_logging(file, _table(file, data, "logging")))
    requires = _table(file, data, "requires")
    settings["requires"] = Requirements(capabilities=requires.pop("capabilities", frozenset()), levels=requires)
    return settings


def _load(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        with file.open("rb") as stream:
            return _wrapped(tomllib.load(stream))
    except OSError as exc:
        raise InvalidOptionError("TOML file", str(file), f"it cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        reason = str(exc)
    # Raised out here, without its cause, whose frames hold the text of the file.
    raise InvalidOptionError("TOML file", str(file), f"it is not TOML: {reason}")


def _wrapped(data: dict[str, Any]) -> dict[str, Any]:
    """`data` with every passkey wrapped, whichever section it is in; changed in place."""
    for name, value in data.items():
        if name == "account_passkey":
            data[name] = Secret(value)
        elif isinstance(value, dict):
            _wrapped(value)
    return data


def _section(file: Path, data: dict[str, Any], section: str | None) -> dict[str, Any]:
    for name in section.split(".") if section else ():
        found = data.get(name)
        if not isinstance(found, dict):
            raise InvalidOptionError("section", section, f"{file} has no such table")
        data = found
    return data


def _table(file: Path, data: dict[str, Any], name: str) -> dict[str, Any]:
    table = data.get(name, {})
    if not isinstance(table, dict):
        raise InvalidOptionError(name, _Hidden(), f"it is a table in {file}: begin it with the line [{name}]")
    return dict(table)


def _plugin(kind: str, table: dict[str, Any]) -> dict[str, Any]:
    settings = {kind: table.pop("name")} if "name" in table else {}
    return {**settings, f"{kind}_options": table}


def _logging(file: Path, table: dict[str, Any]) -> dict[str, Any]:
    _check_names(f"[logging] in {file}", table, _LOGGING)
    settings: dict[str, Any] = {}
    if "console" in table:
        settings["console_logging"] = table["console"]
    if "file" in table:
        path = absolute_path("file_logging", table["file"], file.parent)
        settings["file_logging"] = (table.get("file_level", DEFAULT_LOG_LEVEL), path)
    elif "file_level" in table:
        raise InvalidOptionError("file_level", table["file_level"], "it is the level of a file: add file = ... to it")
    return settings


def _check_names(owner: str, given: Iterable[str], valid: Iterable[str]) -> None:
    for name in given:
        if name not in valid:
            raise UnknownOptionError(owner, name, valid)


# -- the environment ---------------------------------------------------------------------------


def read_env(environ: Mapping[str, str] | None) -> dict[str, Any]:
    """Keyword arguments of ClientOptions from IKV_* variables."""
    found = _collect(environ)
    settings: dict[str, Any] = {name: found[name] for name in _SAME_AS_OPTION if name in found}
    if (passkey := _passkey("IKV_ACCOUNT_PASSKEY", found, None)) is not None:
        settings["account_passkey"] = passkey
    for name in ("backend_options", "transport_options"):
        if name in found:
            settings[name] = _json_object(f"IKV_{name.upper()}", found[name].reveal())
    if "partitions" in found:
        settings["partitions"] = _numbers(found["partitions"])
    if "installed_observers" in found:
        settings["installed_observers"] = _true_or_false("IKV_INSTALLED_OBSERVERS", found["installed_observers"])
    if "file_logging" in found:
        level, separator, path = found["file_logging"].partition(":")
        if not separator or not path:
            raise InvalidOptionError("IKV_FILE_LOGGING", found["file_logging"], "write it as LEVEL:path")
        settings["file_logging"] = (level, path)
    return settings


def _collect(environ: Mapping[str, str] | None) -> dict[str, Any]:
    """The client's variables that are set, by option name; what may be secret is wrapped."""
    source = os.environ if environ is None else environ
    found: dict[str, Any] = {name.lower(): source[f"IKV_{name}"] for name in _VARIABLES if source.get(f"IKV_{name}")}
    for name in ("account_passkey", "backend_options", "transport_options"):
        if name in found:
            found[name] = Secret(found[name])
    return found


def _json_object(variable: str, text: str) -> dict[str, Any]:
    data = _parsed(text)
    del text  # not for the frames of an error
    if data is None:
        raise InvalidOptionError(variable, _Hidden(), 'it is a JSON object, such as {"durability": "process-crash"}')
    return data


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        data = json.loads(text)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as exc:
        raise InvalidOptionError("IKV_PARTITIONS", text, 'write it as numbers with commas, such as "0,1"') from exc


def _true_or_false(variable: str, text: str) -> bool:
    words = {"true": True, "false": False}
    if text.lower() not in words:
        raise InvalidOptionError(variable, text, "use true or false")
    return words[text.lower()]


# -- both --------------------------------------------------------------------------------------


def _passkey(option: str, found: Mapping[str, Any], base: Path | None) -> Secret | None:
    """The passkey, given as itself or as the file that holds it; `option` is how the source spells the first."""
    passkey: Secret | None = found.get("account_passkey")
    if "account_passkey_file" not in found:
        return passkey
    spelled = f"{option}_file" if option.islower() else f"{option}_FILE"
    if passkey is not None:
        raise OptionsError(f"{option} and {spelled} are both given; keep one of them")
    file = absolute_path(spelled, found["account_passkey_file"], base)
    try:
        wrapped = _first_line(file)
    except OSError as exc:
        raise InvalidOptionError(spelled, str(file), f"it cannot be read: {exc.strerror}") from exc
    if wrapped is None:
        raise InvalidOptionError(spelled, str(file), "its first line is not a passkey in UTF-8")
    return wrapped


def _first_line(file: Path) -> Secret | None:
    try:
        with file.open(encoding="utf-8") as stream:
            line = stream.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        return None
    return Secret(line) if line else None

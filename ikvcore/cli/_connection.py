"""Which account on which transport: the options that every command takes, and where else their values come from."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypedDict

import typer

__all__ = [
    "AccountId",
    "Connection",
    "Options",
    "Passkey",
    "PasskeyFile",
    "Transport",
    "connection",
    "read_passkey",
]

AccountId: TypeAlias = Annotated[
    str, typer.Option("--account-id", envvar="IKV_ACCOUNT_ID", show_default=False, help="The account.")
]
Passkey: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--account-passkey",
        show_default=False,
        help="Its passkey. Other users may see it in the list of processes: better IKV_ACCOUNT_PASSKEY, a file, or "
        "nothing, to be asked for it.",
    ),
]
PasskeyFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--account-passkey-file", show_default=False, help="A file whose first line is the passkey."),
]
Transport: TypeAlias = Annotated[
    str, typer.Option("--transport", envvar="IKV_TRANSPORT", help="Where the stores' logs are kept.")
]
Options: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        show_default=False,
        help="An option of the transport; repeat it for more. The value is read as JSON where it is JSON, else as "
        "text. IKV_TRANSPORT_OPTIONS, a JSON object, gives those that are not named here.",
    ),
]


class Connection(TypedDict):
    """The keyword arguments that all functions of ikvcore.admin take."""

    account_id: str
    account_passkey: str
    transport: str
    transport_options: dict[str, Any]


def connection(
    account_id: str,
    passkey: str | None,
    passkey_file: Path | None,
    transport: str,
    options: Sequence[str] | None,
    *,
    confirm: bool = False,
) -> Connection:
    """What the options say, and for what they don't, the environment or the user."""
    return Connection(
        account_id=account_id,
        account_passkey=read_passkey("account-passkey", passkey, passkey_file, confirm=confirm),
        transport=transport,
        transport_options={**_options_of_environment(), **dict(map(_parsed_option, options or ()))},
    )


def read_passkey(name: str, passkey: str | None, file: Path | None, *, confirm: bool) -> str:
    """The passkey of option --`name`, its --`name`-file, their variables, or asked for on a terminal.

    `confirm` asks twice, for a passkey that is new.
    """
    variable = f"IKV_{name.upper().replace('-', '_')}"
    if passkey is not None and file is not None:
        raise typer.BadParameter(f"--{name} and --{name}-file are both given; keep one of them")
    if passkey is None and file is None:
        passkey = os.environ.get(variable)
        if passkey is None and f"{variable}_FILE" in os.environ:
            file = Path(os.environ[f"{variable}_FILE"])
    if file is not None:
        passkey = _first_line(file, name)
    if passkey is None and sys.stdin.isatty():
        label = name.replace("-", " ").capitalize()
        passkey = typer.prompt(label, hide_input=True, confirmation_prompt=confirm, err=True)
    if not passkey:
        raise typer.BadParameter(f"a passkey is needed: set {variable}, or use --{name}-file or --{name}")
    return passkey


def _first_line(file: Path, name: str) -> str:
    try:
        with file.open(encoding="utf-8") as stream:
            return stream.readline().rstrip("\r\n")
    except OSError as exc:
        raise typer.BadParameter(f"--{name}-file {str(file)!r} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError:
        pass  # raised below without its cause, which shows the file's bytes
    raise typer.BadParameter(f"--{name}-file {str(file)!r} does not begin with a passkey in UTF-8")


def _options_of_environment() -> dict[str, Any]:
    text = os.environ.get("IKV_TRANSPORT_OPTIONS")
    options = _json_or_text(text) if text else {}
    if not isinstance(options, dict):
        raise typer.BadParameter('IKV_TRANSPORT_OPTIONS is a JSON object, such as {"durability": "process-crash"}')
    return options


def _parsed_option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise typer.BadParameter(f"--option {text!r}: write it as KEY=VALUE")
    return name, _json_or_text(value)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text

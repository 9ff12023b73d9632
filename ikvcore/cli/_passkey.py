"""Where a passkey comes from: an option, a file, the environment, or the person at the terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from ikvcore.models import Secret

__all__ = ["passkey_of"]


def passkey_of(name: str, passkey: str | None, file: Path | None, *, confirm: bool = False) -> Secret:
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
    return Secret(passkey)


def _first_line(file: Path, name: str) -> str:
    try:
        with file.open(encoding="utf-8") as stream:
            return stream.readline().rstrip("\r\n")
    except OSError as exc:
        raise typer.BadParameter(f"--{name}-file {str(file)!r} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError:
        pass  # raised below without its cause, which shows the file's bytes
    raise typer.BadParameter(f"--{name}-file {str(file)!r} does not begin with a passkey in UTF-8")

"""Asking before something is gone for good."""

from __future__ import annotations

import sys
from typing import Annotated, TypeAlias

import typer

__all__ = ["Yes", "confirm"]

Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Don't ask.")]


def confirm(question: str, *, yes: bool) -> None:
    """Go on if the answer is yes; `yes` says so beforehand, and must where there is no terminal to ask on."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask for confirmation on; say --yes")
    typer.confirm(question, abort=True, err=True)

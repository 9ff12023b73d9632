"""Keys of documents on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import typer

from ikvcore.cli._values import decoded_base64

__all__ = ["Base64Keys", "Keys", "keys_of"]

Keys: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="KEY...", show_default=False, help="Values of the primary key. After --, also such as -x."),
]
Base64Keys: TypeAlias = Annotated[
    bool, typer.Option("--key-base64", help="Keys are given in base64: for those that are no text.")
]


def keys_of(given: Sequence[str], *, in_base64: bool) -> list[str | bytes]:
    """The keys that were given. Raises InvalidArgumentError for what is no base64."""
    return [decoded_base64("the key", key) for key in given] if in_base64 else list(given)

"""Arguments that are lists: read once, and refused with a word on what was wanted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from ikvcore.errors import InvalidArgumentError

__all__ = ["as_list"]

T = TypeVar("T")


def as_list(values: Iterable[T], what: str) -> list[T]:
    """`values` as a list. A single str or bytes is refused, since its letters would be taken for the list's."""
    if isinstance(values, (str, bytes, bytearray)):
        raise InvalidArgumentError(f"a list of {what} is wanted, not the single {values!r:.80}; put it in a list")
    try:
        return list(values)
    except TypeError as exc:
        raise InvalidArgumentError(f"a list of {what} is wanted, not {type(values).__name__}") from exc

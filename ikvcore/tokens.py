"""Tokens: what a write returns and `IKVReader.wait_for` takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ikvcore.errors import InvalidTokenError

__all__ = ["Token"]

_FORM: Final = re.compile(r"ikv1:([A-Za-z0-9._-]*):((?:[0-9]{1,5}=[0-9]{1,4000})(?:,[0-9]{1,5}=[0-9]{1,4000})*)?")


class Token:
    """The place in the log that a write reached: the log's identity and, for each partition touched, the position after
    the write. Immutable; compares by value.

    `a | b` is the token of both. `str(token)` and `Token.parse` carry it to another process. A write that publishes
    nothing returns the empty token, which is false and joins with any other.
    """

    __slots__ = ("_identity", "_positions")

    def __init__(self, identity: str = "", positions: Mapping[int, int] | None = None) -> None:
        self._positions = dict(positions or {})
        self._identity = identity if self._positions else ""

    @property
    def identity(self) -> str:
        """Identity of the log; "" for the empty token."""
        return self._identity

    @property
    def positions(self) -> dict[int, int]:
        """A copy of partition -> the next position to read after the write."""
        return dict(self._positions)

    def __bool__(self) -> bool:
        return bool(self._positions)

    def __or__(self, other: Token) -> Token:
        if not isinstance(other, Token):
            return NotImplemented
        if self and other and self._identity != other._identity:
            raise InvalidTokenError(
                f"tokens of two logs cannot be joined: {self._identity!r} and {other._identity!r}; wait for each in a "
                "reader of its own store"
            )
        joined = dict(self._positions)
        for partition, position in other._positions.items():
            joined[partition] = max(position, joined.get(partition, position))
        return Token(self._identity or other._identity, joined)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and (self._identity, self._positions) == (other._identity, other._positions)

    def __hash__(self) -> int:
        return hash((self._identity, tuple(sorted(self._positions.items()))))

    def __str__(self) -> str:
        places = ",".join(f"{partition}={position}" for partition, position in sorted(self._positions.items()))
        return f"ikv1:{self._identity}:{places}"

    def __repr__(self) -> str:
        return f"Token.parse({str(self)!r})"

    @classmethod
    def parse(cls, text: str) -> Token:
        """The token whose str() is `text`. Raises InvalidTokenError."""
        match = _FORM.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidTokenError(f"{str(text)[:80]!r} is not a token; pass on what str(token) gave")
        identity, places = match.groups()
        if bool(identity) != bool(places):
            raise InvalidTokenError(
                f"{text[:80]!r} is not a token: it names a log without a place, or a place without a log"
            )
        positions: dict[int, int] = {}
        for place in (places or "").split(",") if places else ():
            partition, position = (int(number) for number in place.split("="))
            if partition in positions or partition > 0xFFFF:
                raise InvalidTokenError(f"{text[:80]!r} is not a token: partition {partition} is repeated or too large")
            positions[partition] = position
        return cls(identity, positions)

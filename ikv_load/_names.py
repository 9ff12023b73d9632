"""Names of columns, as the source has them. DuckDB's ignore case: beside `a` it calls another `a`, or `A`, `A_1`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ikvcore.errors import InvalidArgumentError

__all__ = ["may_be_renamed", "refuse_twins"]

_RENAMED: Final = re.compile(r"(.+)_[0-9]+", re.DOTALL)


def may_be_renamed(names: Iterable[str]) -> bool:
    """Whether DuckDB may have made up one of its names. The source's own can then tell; reading them costs."""
    folded = set(map(_folded, names))
    return any((found := _RENAMED.fullmatch(name)) is not None and found[1] in folded for name in folded)


def refuse_twins(source: str, names: Iterable[str]) -> None:
    """Raise InvalidArgumentError where `names`, the source's own, are not distinct in SQL: fields would get other names
    than the source says, or the values of another column.
    """
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.get(_folded(name))
        if twin is not None:
            raise InvalidArgumentError(
                f"{source} has columns {twin!r} and {name!r}, which SQL cannot tell apart; rename one of them"
            )
        seen[_folded(name)] = name


def _folded(name: str) -> str:
    """As DuckDB compares: it knows the case of ASCII's letters alone."""
    return name.encode(errors="surrogatepass").lower().decode(errors="surrogatepass")

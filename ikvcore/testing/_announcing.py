"""How a test of the kit arrives: announced for one minor release, required from the next one on.

    @required_from("0.2")
    def test_something(self, ...): ...

What an announced test counts for is told in ikvcore.testing.conformance.verdict.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import metadata
from typing import Any, Final, TypeVar

__all__ = ["kit_version", "minor", "required_from", "requirement"]

_Test = TypeVar("_Test", bound=Callable[..., Any])
_MARK: Final = "ikv_required_from"
_MINOR: Final = re.compile(r"(\d+)\.(\d+)(?!\d)")


def kit_version() -> str:
    """The version of the kit that runs: of the installed ikvcore."""
    return metadata.version("ikvcore")


def minor(version: str) -> tuple[int, int]:
    """The minor release that a version belongs to, its pre-releases too: (0, 2) of 0.2, 0.2.7 and 0.2.0rc1."""
    found = _MINOR.match(version)
    if found is None:
        raise ValueError(f"{version!r} does not begin with a minor release, as in 0.2")
    return int(found[1]), int(found[2])


def required_from(version: str) -> Callable[[_Test], _Test]:
    """Marks a test that is new in the kit with the minor release that will require it."""
    minor(version)

    def marked(test: _Test) -> _Test:
        setattr(test, _MARK, version)
        return test

    return marked


def requirement(test: object) -> str:
    """The minor release that requires a test; "" where every one does."""
    found: str = getattr(test, _MARK, "")
    return found

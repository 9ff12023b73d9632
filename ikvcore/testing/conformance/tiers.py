"""The tiers, as data: which classes of tests make each of them up, for a backend and for a transport.

docs/reference/conformance.md is generated from this.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

__all__ = ["TIERS", "Kind", "Part", "Shape", "Tier", "chosen"]

Kind: TypeAlias = Literal["backend", "transport"]
Shape: TypeAlias = Literal["bytes", "documents", "log"]
"""What a plugin is: an OrderedKeyValue backend, a Storage of documents, or a transport."""

_KIT: Final = "ikvcore.testing"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One class of tests."""

    name: str
    """Of the nested class that pytest shows."""
    suites: tuple[str, ...]
    """module:class of each of its bases, imported where they are first needed."""
    shapes: tuple[Shape, ...] = ("bytes", "documents", "log")
    """Which plugins it is for."""

    def bases(self) -> tuple[type[Any], ...]:
        """The suites themselves."""
        return tuple(_load(each) for each in self.suites)

    def tests(self) -> dict[str, Any]:
        """The functions of its tests by name, in the order in which they are written."""
        found: dict[str, Any] = {}
        for base in self.bases():
            for each in reversed(inspect.getmro(base)):
                found |= {name: value for name, value in vars(each).items() if name.startswith("test_")}
        return found


@dataclass(frozen=True, kw_only=True)
class Tier:
    """One level of what can be certified."""

    name: str
    summary: str
    backend: tuple[Part, ...]
    transport: tuple[Part, ...]

    def parts(self, kind: Kind, shape: Shape | None = None) -> list[Part]:
        """Its classes of tests for this kind of plugin, or for this shape alone."""
        parts = self.backend if kind == "backend" else self.transport
        return [part for part in parts if shape is None or shape in part.shapes]


def chosen(names: Sequence[str]) -> list[Tier]:
    """The tiers of these names, in the kit's order. Raises ValueError that lists all for a name that is none's."""
    known = [tier.name for tier in TIERS]
    for name in names:
        if name not in known:
            raise ValueError(f"there is no tier {name!r}; the tiers are {', '.join(known)}")
    return [tier for tier in TIERS if tier.name in names]


def _load(place: str) -> type[Any]:
    module, _, name = place.partition(":")
    loaded: type[Any] = getattr(importlib.import_module(module), name)
    return loaded


_STORE: Final = Part(name="TestStore", suites=(f"{_KIT}.store:StoreSuite",))

TIERS: Final[tuple[Tier, ...]] = (
    Tier(
        name="core",
        summary="every sentence of the contract, call by call and end to end",
        backend=(
            Part(
                name="TestKeyValue",
                suites=(f"{_KIT}._keyvalue_reads:KeyValueReads", f"{_KIT}._keyvalue_commits:KeyValueCommits"),
                shapes=("bytes",),
            ),
            Part(name="TestStorage", suites=(f"{_KIT}.storage:StorageSuite",)),
            _STORE,
        ),
        transport=(
            Part(
                name="TestLog",
                suites=(
                    f"{_KIT}._transport_log:TransportLog",
                    f"{_KIT}._transport_starts:TransportStarts",
                    f"{_KIT}._transport_provisioning:TransportProvisioning",
                ),
            ),
            _STORE,
        ),
    ),
)
"""In the order in which they are run and shown."""

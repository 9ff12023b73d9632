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
    measures: bool = False
    """It measures, and has no mark to pass: it is never part of what is certified."""

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


def _part(name: str, *suites: str, shapes: tuple[Shape, ...] = ("bytes", "documents", "log")) -> Part:
    return Part(name=name, suites=tuple(f"ikvcore.testing.{each}" for each in suites), shapes=shapes)


_STORE: Final = _part("TestStore", "store:StoreSuite")
_STATEFUL: Final = _part("TestStateful", "conformance._stateful:Stateful")
_CONTENTION: Final = _part("TestContention", "conformance._contention:Contention")
_KILLS: Final = _part("TestKills", "conformance._harm:Kills")
_POWER: Final = _part("TestPowerLosses", "conformance._harm:PowerLosses")
_PROFILE: Final = _part("TestProfile", "conformance._profile:Profile")

TIERS: Final[tuple[Tier, ...]] = (
    Tier(
        name="core",
        summary="Every sentence of the contract, call by call and end to end.",
        backend=(
            _part(
                "TestKeyValue", "_keyvalue_reads:KeyValueReads", "_keyvalue_commits:KeyValueCommits", shapes=("bytes",)
            ),
            _part("TestStorage", "storage:StorageSuite"),
            _part("TestCapabilities", "conformance._capabilities:BackendCapabilities"),
            _STORE,
        ),
        transport=(
            _part(
                "TestLog",
                "_transport_log:TransportLog",
                "_transport_starts:TransportStarts",
                "_transport_provisioning:TransportProvisioning",
            ),
            _part("TestCapabilities", "conformance._capabilities:TransportCapabilities"),
            _STORE,
        ),
    ),
    Tier(
        name="stateful",
        summary="Random events and restarts against a model.",
        backend=(_STATEFUL,),
        transport=(_STATEFUL,),
    ),
    Tier(
        name="concurrency",
        summary="Threads, processes and forks; 20,000 events of many writers on four keys.",
        backend=(_part("TestParallel", "_keyvalue_concurrency:KeyValueConcurrency", shapes=("bytes",)), _CONTENTION),
        transport=(_part("TestParallel", "_transport_concurrency:TransportConcurrency"), _CONTENTION),
    ),
    Tier(
        name="crash",
        summary="Processes that are killed, and writes that a power loss drops.",
        backend=(_KILLS, _POWER),
        transport=(_KILLS, _POWER),
    ),
    Tier(
        name="format",
        summary="What was written opens again; what a newer release wrote is refused untouched.",
        backend=(_part("TestFormat", "conformance._formats:ReplicaFormat"),),
        transport=(_part("TestFormat", "conformance._formats:LogFormat"),),
    ),
    Tier(
        name="hostile",
        summary="Damaged files and events that nobody should send.",
        backend=(_part("TestHostile", "conformance._harm:DamagedFiles"),),
        transport=(_part("TestHostile", "conformance._harm:HostileEvents"),),
    ),
    Tier(
        name="resources",
        summary="Five hundred rounds of opening and closing leave nothing behind.",
        backend=(_part("TestResources", "conformance._resources:BackendRounds"),),
        transport=(_part("TestResources", "conformance._resources:TransportRounds"),),
    ),
    Tier(
        name="profile",
        summary="Latencies and rates, told with the machine; there is no mark to pass.",
        backend=(_PROFILE,),
        transport=(_PROFILE,),
        measures=True,
    ),
)
"""In the order in which they are run and shown."""

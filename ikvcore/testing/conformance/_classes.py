"""What an author subclasses: it names the plugin, and gets a nested class of tests for each part of its tiers."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

from ikvcore._registry import load_backend, load_transport
from ikvcore.clientoptions import DEFAULT_BACKEND, DEFAULT_TRANSPORT
from ikvcore.models import BackendInfo, Position, TransportInfo
from ikvcore.protocols import OrderedKeyValue, Transport
from ikvcore.testing._plugins import open_backend
from ikvcore.testing.conformance._declared import (
    backend_claims,
    backend_excuses,
    transport_claims,
    transport_excuses,
)
from ikvcore.testing.conformance._golden import built_in
from ikvcore.testing.conformance.tiers import TIERS, Kind, Part, Shape, Tier, chosen
from ikvcore.testing.conformance.verdict import Claim

__all__ = ["BackendConformance", "Conformance", "TransportConformance"]

_KIT: Final = "ikvcore.testing."
_MADE: Final = f"{__name__}.made"


class Conformance:
    """What both kinds share. The tests are made when pytest first comes to the class: see `expand`."""

    name: ClassVar[str]
    """The plugin's name, as a client's option has it."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Options that it is opened with, here and in child processes."""
    tiers: ClassVar[tuple[str, ...]] = ("core",)
    """What is run. What is not run is not claimed."""
    deviations: ClassVar[Mapping[str, str]] = {}
    """Tests that the plugin is known to fail, each with the reason: `{"TestStorage::test_name": "why"}`, or the bare
    name for all tests of that name. They are run, reported, and fail the run where they pass."""
    seed: ClassVar[int] = 1
    """Of everything that is drawn by chance."""
    golden: ClassVar[Path | None] = None
    """The directory of golden files, which released versions wrote with `ikv conformance ... --write-golden`. A first
    release has none."""

    kind: ClassVar[Kind]
    ikv_conformance: ClassVar[bool] = True
    """What pytest's plugin knows these classes by, without importing this module."""

    @classmethod
    def shape(cls) -> Shape:
        """What the plugin is."""
        raise NotImplementedError

    @classmethod
    def parts(cls) -> list[tuple[Tier, Part]]:
        """The classes of tests that its tiers are made of."""
        shape = cls.shape()
        return [(tier, part) for tier in chosen(cls.tiers) for part in tier.parts(cls.kind, shape)]

    @classmethod
    def places(cls) -> list[str]:
        """Class::test of every test that the kit has for this plugin, in whatever tier."""
        shape = cls.shape()
        parts = (part for tier in TIERS for part in tier.parts(cls.kind, shape))
        return [f"{part.name}::{name}" for part in parts for name in part.tests()]

    @classmethod
    def expand(cls) -> None:
        """Give the class its nested classes of tests; those that an author has put in their place give way."""
        given = {**cls._given(), "seed": cls.seed, "golden": cls.golden_files()}
        for _, part in cls.parts():
            # Accounts and homes go by the class's name, and two plugins in one run have a class of each part.
            own_name = f"{cls.__name__}{part.name.removeprefix('Test')}"
            own = {"__module__": _MADE, "__qualname__": f"{cls.__qualname__}.{part.name}"}
            setattr(cls, part.name, type(own_name, part.bases(), {**given, **own}))

    @classmethod
    def overridden(cls) -> list[str]:
        """What an author has defined under the name of a part or of a test of the kit's. Asked before `expand`."""
        places = cls.places()
        authors = (each for each in cls.__mro__ if not each.__module__.startswith(_KIT))
        own = {name for each in authors for name, value in vars(each).items() if not _made_here(value)}
        names = {place.partition("::")[0] for place in places} | {place.rpartition("::")[2] for place in places}
        return sorted(own & names - set(cls.deviations))

    @classmethod
    def golden_files(cls) -> Path | None:
        """The author's directory, or the kit's own where ikvcore brings the plugin."""
        return cls.golden or built_in(cls.kind, cls.name)

    @classmethod
    def claims(cls) -> list[Claim]:
        """What the plugin declares, and the tests of it."""
        raise NotImplementedError

    @classmethod
    def excuses(cls) -> dict[str, str]:
        """Class::test to why it may be skipped."""
        raise NotImplementedError

    @classmethod
    def declared(cls) -> dict[str, Any]:
        """What the plugin says of itself, for the report."""
        raise NotImplementedError

    @classmethod
    def _given(cls) -> dict[str, Any]:
        """What the suites are told."""
        raise NotImplementedError


class BackendConformance(Conformance):
    """Certifies a backend. Set `name`."""

    kind = "backend"
    transport: ClassVar[str] = DEFAULT_TRANSPORT
    """The log that its replicas follow in tests from end to end."""
    transport_options: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def info(cls) -> BackendInfo:
        """What the backend says of itself."""
        return replace(load_backend(cls.name).info, name=cls.name)  # which may be dist:name

    @classmethod
    def shape(cls) -> Shape:
        """Known by opening it, in a directory that is removed again."""
        with tempfile.TemporaryDirectory(prefix="ikv-conformance-") as directory:
            opened = open_backend(cls.name, Path(directory) / "storage", cls.options)
            opened.close()
        return "bytes" if isinstance(opened, OrderedKeyValue) else "documents"

    @classmethod
    def claims(cls) -> list[Claim]:
        return backend_claims(cls.info(), cls.shape())

    @classmethod
    def excuses(cls) -> dict[str, str]:
        transport = load_transport(cls.transport).info
        return backend_excuses(cls.info(), cls.shape(), transport, golden=cls.golden_files() is not None)

    @classmethod
    def declared(cls) -> dict[str, Any]:
        info = cls.info()
        return {
            "api_version": info.api_version,
            "capabilities": sorted(info.capabilities),
            "durability": info.durability.word,
            "sharing": info.sharing.word,
            "volatile": info.volatile,
            "max_key_bytes": info.max_key_bytes,
            "max_value_bytes": info.max_value_bytes,
        }

    @classmethod
    def _given(cls) -> dict[str, Any]:
        return {
            "info": cls.info(),
            "options": cls.options,
            "backend": cls.name,
            "backend_options": cls.options,
            "transport": cls.transport,
            "transport_options": cls.transport_options,
        }


class TransportConformance(Conformance):
    """Certifies a transport. Set `name`."""

    kind = "transport"
    backend: ClassVar[str] = DEFAULT_BACKEND
    """Of the replicas that follow it in tests from end to end."""
    backend_options: ClassVar[Mapping[str, Any]] = {}
    carries_no_value: ClassVar[bool] = False
    """Whether a Message whose value is None can be published: logs shared with other producers may hold such."""

    def trim(self, log: Transport, partition: int, before: Position) -> None:
        """Cut a partition's messages below `before`; override it where the transport can be made to do that."""
        raise NotImplementedError

    @classmethod
    def info(cls) -> TransportInfo:
        """What the transport says of itself."""
        return replace(load_transport(cls.name).info, name=cls.name)

    @classmethod
    def shape(cls) -> Shape:
        """There is one."""
        return "log"

    @classmethod
    def claims(cls) -> list[Claim]:
        return transport_claims(cls.info())

    @classmethod
    def excuses(cls) -> dict[str, str]:
        return transport_excuses(
            cls.info(),
            load_backend(cls.backend).info,
            carries_no_value=cls.carries_no_value,
            trims=cls._trims(),
            golden=cls.golden_files() is not None,
        )

    @classmethod
    def declared(cls) -> dict[str, Any]:
        info = cls.info()
        return {
            "api_version": info.api_version,
            "capabilities": sorted(info.capabilities),
            "durability": info.durability.word,
            "process_shared": info.process_shared,
            "keeps_passkeys": info.keeps_passkeys,
        }

    @classmethod
    def _trims(cls) -> bool:
        """Whether the author has given a way to cut the log."""
        return vars(TransportConformance)["trim"] is not inspect.getattr_static(cls, "trim")

    @classmethod
    def _given(cls) -> dict[str, Any]:
        given = {
            "info": cls.info(),
            "options": cls.options,
            "backend": cls.backend,
            "backend_options": cls.backend_options,
            "transport": cls.name,
            "transport_options": cls.options,
            "carries_no_value": cls.carries_no_value,
        }
        if cls._trims():
            given["trim"] = _trim_of(cls)
        return given


def _made_here(value: object) -> bool:
    """Whether it is a nested class that `expand` has given."""
    return isinstance(value, type) and value.__module__ == _MADE


def _trim_of(cls: type[TransportConformance]) -> Any:
    """A suite's method that calls the author's, be it a classmethod or not."""

    def trim(self: Any, log: Transport, partition: int, before: Position) -> None:
        cls().trim(log, partition, before)

    return trim

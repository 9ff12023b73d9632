"""What an author subclasses: it names the plugin, and gets a nested class of tests for each part of its tiers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ikvcore._registry import load_backend, load_transport
from ikvcore.clientoptions import DEFAULT_BACKEND, DEFAULT_TRANSPORT
from ikvcore.models import BackendInfo, Position, TransportInfo
from ikvcore.protocols import OrderedKeyValue, Transport
from ikvcore.testing._plugins import open_backend
from ikvcore.testing.conformance.tiers import Kind, Part, Shape, Tier, chosen

__all__ = ["BackendConformance", "Conformance", "TransportConformance"]


class Conformance:
    """What both kinds share. The tests are made when pytest first comes to the class: see `expand`."""

    name: ClassVar[str]
    """The plugin's name, as a client's option has it."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Options that it is opened with, here and in child processes."""
    tiers: ClassVar[tuple[str, ...]] = ("core",)
    """What is run. What is not run is not claimed."""
    deviations: ClassVar[Mapping[str, str]] = {}
    """Tests that the plugin is known to fail, each with the reason: `{"test_name": "why"}`. They are run, reported, and
    fail the run where they pass."""

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
    def expand(cls) -> None:
        """Give the class its nested classes of tests."""
        for _, part in cls.parts():
            if part.name not in vars(cls):
                setattr(cls, part.name, cls._nested(part))

    @classmethod
    def _nested(cls, part: Part) -> type[Any]:
        # Accounts and homes go by the class's name, and two plugins in one run have a class of each part.
        own_name = f"{cls.__name__}{part.name.removeprefix('Test')}"
        own = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.{part.name}"}
        return type(own_name, part.bases(), {**cls._given(), **own})

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
        return load_backend(cls.name).info

    @classmethod
    def shape(cls) -> Shape:
        """Known by opening it, in a directory that is removed again."""
        with tempfile.TemporaryDirectory(prefix="ikv-conformance-") as directory:
            opened = open_backend(cls.name, Path(directory) / "storage", cls.options)
            opened.close()
        return "bytes" if isinstance(opened, OrderedKeyValue) else "documents"

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

    @classmethod
    def trim(cls, log: Transport, partition: int, before: Position) -> None:
        """Cut a partition's messages below `before`; override it where the transport can be made to do that."""
        raise NotImplementedError

    @classmethod
    def info(cls) -> TransportInfo:
        """What the transport says of itself."""
        return load_transport(cls.name).info

    @classmethod
    def shape(cls) -> Shape:
        """There is one."""
        return "log"

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
        if cls.trim.__func__ is not TransportConformance.trim.__func__:  # type: ignore[attr-defined]
            given["trim"] = _trim_of(cls)
        return given


def _trim_of(cls: type[TransportConformance]) -> Any:
    """A suite's method that calls the author's, be it a classmethod or not."""

    def trim(self: Any, log: Transport, partition: int, before: Position) -> None:
        cls().trim(log, partition, before)

    return trim

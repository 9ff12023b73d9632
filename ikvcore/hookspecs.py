"""What a plugin's module registers: pluggy specifications, no logic.

A plugin is a module (or any object) named by an entry point of group `ikv_backends` or `ikv_transports`; the entry's
name is what users write in with_backend or with_transport. An observer is one of group `ikv_hooks`, or was given to
with_observers. A plugin marks its functions with `hookimpl`. Later releases may add arguments to a hook; an
implementation names only those that it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from ikvcore.models import (
        BackendContext,
        BackendInfo,
        BadEventFound,
        BatchApplied,
        EventsPublished,
        HealthChanged,
        ReaderStarted,
        TransportContext,
        TransportInfo,
    )
    from ikvcore.protocols import OrderedKeyValue, Provisioning, Storage, Transport

__all__ = ["BackendSpec", "ObserverSpec", "TransportSpec", "hookimpl"]

PROJECT = "ikvcore"

hookimpl = pluggy.HookimplMarker(PROJECT)
hookspec = pluggy.HookspecMarker(PROJECT)


class BackendSpec:
    """Hooks of group `ikv_backends`."""

    @hookspec(firstresult=True)
    def ikv_backend_info(self) -> BackendInfo:
        """What the backend is and can do; cheap, opens nothing and imports no driver where it can be helped."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def ikv_open_backend(self, context: BackendContext) -> OrderedKeyValue | Storage:
        """Open the storage in context.directory, making it there if the directory is empty."""
        raise NotImplementedError


class TransportSpec:
    """Hooks of group `ikv_transports`."""

    @hookspec(firstresult=True)
    def ikv_transport_info(self) -> TransportInfo:
        """What the transport is and can do; cheap, as ikv_backend_info."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def ikv_open_transport(self, context: TransportContext) -> Transport:
        """Open an existing store's log. Raises StoreAccessError."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def ikv_provisioning(self, context: TransportContext) -> Provisioning:
        """The capability Provisioning, where the transport declares it."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def ikv_verify_log(self, context: TransportContext) -> list[str]:
        """The capability VerifyLog, where the transport declares it: read all of a store's log, which may be in use.

        One sentence for each thing that is wrong, none where all is well. A damaged log harms the caller's process in
        no case. Raises StoreAccessError, TransportError where nothing could be found out.
        """
        raise NotImplementedError


class ObserverSpec:
    """Hooks of group `ikv_hooks`: every observer that has a hook is called.

    All of them in one thread of the process, one call after the other, after what they tell of and off its path: reads,
    writes and ingest never wait for an observer. Events wait in a queue of 10,000; those beyond are lost and counted
    (ikvcore.observing). An observer that raises, or takes longer than a second, is logged once and called again. In a
    forked child none of the parent's events are told.
    """

    @hookspec
    def reader_started(self, event: ReaderStarted) -> None:
        """A reader can be read."""

    @hookspec
    def batch_applied(self, event: BatchApplied) -> None:
        """Ingest has committed a batch; up to some hundred times a second."""

    @hookspec
    def bad_event(self, event: BadEventFound) -> None:
        """Ingest met an event that can never be applied."""

    @hookspec
    def health_changed(self, event: HealthChanged) -> None:
        """A reader became ready, fell behind, halted or was shut down."""

    @hookspec
    def events_published(self, event: EventsPublished) -> None:
        """A writer's call has published; once a call, so as often as the application writes."""

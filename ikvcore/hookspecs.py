"""What a plugin's module registers: pluggy specifications, no logic.

A plugin is a module (or any object) named by an entry point of group `ikv_backends` or `ikv_transports`; the entry's
name is what users write in with_backend or with_transport. It marks its functions with `hookimpl`. Later releases may
add arguments to a hook; an implementation names only those that it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from ikvcore.models import BackendContext, BackendInfo, TransportContext, TransportInfo
    from ikvcore.protocols import OrderedKeyValue, Provisioning, Storage, Transport

__all__ = ["BackendSpec", "TransportSpec", "hookimpl"]

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

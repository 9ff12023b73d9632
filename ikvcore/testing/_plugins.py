"""Plugins by name, for the kit: reachable from child processes too, which know nothing of a test's class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ikvcore._registry import build_options, load_backend, load_transport
from ikvcore.models import BackendContext, Secret, TransportContext
from ikvcore.protocols import OrderedKeyValue, Provisioning, Storage, Transport

__all__ = ["open_backend", "open_provisioning", "open_transport"]

Options = Mapping[str, Any]


def open_backend(name: str, directory: Path, options: Options, *, follow: bool = False) -> OrderedKeyValue | Storage:
    """Open the backend `name` in `directory`, which is made; a volatile one gets none."""
    plugin = load_backend(name)
    if not plugin.info.volatile:
        directory.mkdir(parents=True, exist_ok=True)
    context = BackendContext(
        directory=None if plugin.info.volatile else directory,
        options=build_options(f"backend {name!r}", plugin.info.options, options),
        follow=follow,
    )
    opened: OrderedKeyValue | Storage = plugin.hook.ikv_open_backend(context=context)
    return opened


def open_transport(name: str, store_name: str, account_id: str, passkey: str, options: Options) -> Transport:
    """Open a store's log. Raises StoreAccessError."""
    context = _context(name, store_name, account_id, passkey, options)
    opened: Transport = load_transport(name).hook.ikv_open_transport(context=context)
    return opened


def open_provisioning(name: str, account_id: str, passkey: str, options: Options) -> Provisioning:
    """The transport's way of making and removing stores, for one account."""
    context = _context(name, None, account_id, passkey, options)
    opened: Provisioning = load_transport(name).hook.ikv_provisioning(context=context)
    return opened


def _context(name: str, store_name: str | None, account_id: str, passkey: str, options: Options) -> TransportContext:
    info = load_transport(name).info
    return TransportContext(
        store_name=store_name,
        account_id=account_id,
        passkey=Secret(passkey),
        options=build_options(f"transport {name!r}", info.options, options),
    )

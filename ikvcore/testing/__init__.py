"""The conformance kit: suites that certify a backend or a transport, a model, and a store for users' own tests.

Needs `pip install ikvcore[testing]`. The suites are imported where they are first named: importing this package imports
neither pytest nor hypothesis.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ikvcore.testing.fixtures import EphemeralStore
    from ikvcore.testing.keyvalue import OrderedKeyValueSuite
    from ikvcore.testing.machine import store_machine
    from ikvcore.testing.model import StoreModel
    from ikvcore.testing.storage import StorageSuite
    from ikvcore.testing.store import StoreSuite
    from ikvcore.testing.transport import TransportSuite

__all__ = [
    "EphemeralStore",
    "OrderedKeyValueSuite",
    "StorageSuite",
    "StoreModel",
    "StoreSuite",
    "TransportSuite",
    "store_machine",
]

_MODULES = {
    "EphemeralStore": "fixtures",
    "OrderedKeyValueSuite": "keyvalue",
    "StorageSuite": "storage",
    "StoreModel": "model",
    "StoreSuite": "store",
    "TransportSuite": "transport",
    "store_machine": "machine",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

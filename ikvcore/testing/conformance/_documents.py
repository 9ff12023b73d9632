"""The documents of the format tier, of every type. Golden files hold them: they never change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ikvcore.testing._live import LiveStore, document

__all__ = ["DOCUMENTS", "ROWS", "fill"]

DOCUMENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    f"{number:02}é\0": {
        "whole": number - 20,
        "float": number / 7,
        "text": "žluť" * number,
        "raw": bytes(range(number)),
        "flag": number % 2 == 0,
        f"own{number % 5}": "x",
    }
    for number in range(40)
}
ROWS: Final = {key: {"id": key, **row} for key, row in DOCUMENTS.items()}
"""As a scan shows them."""


def fill(store: LiveStore) -> None:
    """Write them, and wait until the store's reader shows them."""
    for key, row in DOCUMENTS.items():
        token = store.writer.upsert_fields(document(id=key, **row))
    store.shown(token)

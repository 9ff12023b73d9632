"""What the fixture `ikv_store` gives: a whole store in memory, for the tests of programs that use ikvcore.

def test_greeting(ikv_store):
    ikv_store.put(id="alice", name="Alice")
    assert greeting(ikv_store.reader, "alice") == "Hello, Alice"
"""

from __future__ import annotations

from typing import Any

from ikvcore.testing._live import LiveStore

__all__ = ["EphemeralStore"]


class EphemeralStore(LiveStore):
    """A fresh store on the memory transport and the memory backend; nothing touches a disk.

    `writer` and `reader` are started clients, `options` opens more of them, and `put` writes a document and waits until
    `reader` shows it. For other writes: `store.shown(store.writer.delete_document(...))`.
    """

    def __init__(self, **fixed: Any) -> None:
        """`fixed`: primary_key, primary_key_type, partitioning_key, partitioning_key_type, partitions."""
        super().__init__(backend="memory", transport="memory", directory=None, **fixed)
        _ = self.writer, self.reader

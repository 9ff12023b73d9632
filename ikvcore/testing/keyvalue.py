"""Conformance of an ordered key-value backend: every sentence of protocols.OrderedKeyValue and protocols.Snapshot.

An author's test file:

    class TestMine(OrderedKeyValueSuite):
        info = my_backend.ikv_backend_info()
"""

from __future__ import annotations

from ikvcore.testing._keyvalue_commits import KeyValueCommits
from ikvcore.testing._keyvalue_concurrency import KeyValueConcurrency
from ikvcore.testing._keyvalue_reads import KeyValueReads

__all__ = ["OrderedKeyValueSuite"]


class OrderedKeyValueSuite(KeyValueReads, KeyValueCommits, KeyValueConcurrency):
    """Subclass it and set `info`; override `open_engine` only where the backend cannot be opened by its name."""

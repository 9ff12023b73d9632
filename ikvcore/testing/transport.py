"""Conformance of a transport: protocols.Transport, Subscription and Provisioning, by the rules of design C4 and C7.

An author's test file:

    class TestMine(TransportSuite):
        info = my_transport.ikv_transport_info()
"""

from __future__ import annotations

from ikvcore.testing._transport_concurrency import TransportConcurrency
from ikvcore.testing._transport_log import TransportLog
from ikvcore.testing._transport_provisioning import TransportProvisioning
from ikvcore.testing._transport_starts import TransportStarts

__all__ = ["TransportSuite"]


class TransportSuite(TransportLog, TransportStarts, TransportConcurrency, TransportProvisioning):
    """Subclass it and set `info`.

    Override `open_log` and `open_provisioning` only where the transport cannot be opened by its name, or does not
    declare Provisioning: the suite makes its stores through it. Set `carries_no_value` where messages without value can
    be published, and override `trim` where a log can be cut.
    """

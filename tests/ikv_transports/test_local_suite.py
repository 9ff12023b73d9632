"""The local transport keeps the contracts of a log."""

from ikv_transports import local
from ikvcore.testing.transport import TransportSuite


class TestLocalTransport(TransportSuite):
    """Files under IKV_HOME, which the suite makes private to each test."""

    info = local.ikv_transport_info()

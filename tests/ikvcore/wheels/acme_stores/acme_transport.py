"""The memory transport of ikvcore under another name."""

from ikv_transports.memory import (  # noqa: F401  hooks
    ikv_open_transport,
    ikv_provisioning,
    ikv_transport_info,
)

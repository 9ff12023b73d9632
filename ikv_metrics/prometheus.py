"""The Prometheus exporter, entry point `metrics` of group `ikv_hooks`.

Installed with the extra `metrics`, it is told of every client of the process, and its metrics are in the default
registry of prometheus_client: an application that exposes that shows them. One that does not can call `serve`.

    from ikv_metrics.prometheus import serve

    with serve(9464):
        ...

A registry of one's own: `with_observers(Exporter(registry), installed=False)`. Every process has its own metrics; see
docs/how-to/metrics.md for several workers.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, start_http_server

from ikv_metrics._readers import LABELS, Readers
from ikvcore.hookspecs import hookimpl
from ikvcore.models import BatchApplied, EventsPublished, ReaderStarted

__all__ = ["Exporter", "MetricsServer", "exporter", "serve"]

_COUNTS: Final = (1, 10, 100, 1_000, 4_000)
_SECONDS: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
_DELAYS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600)


class Exporter:
    """An observer whose metrics are in one registry. Thread-safe."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Raises ValueError where the registry has the metrics of another exporter."""
        self._batch_events = Histogram(
            "ikv_batch_events", "Events of a batch applied.", LABELS, buckets=_COUNTS, registry=registry
        )
        self._batch_seconds = Histogram(
            "ikv_batch_seconds", "Time to apply and commit a batch.", LABELS, buckets=_SECONDS, registry=registry
        )
        self._delay = Histogram(
            "ikv_apply_delay_seconds",
            "From a batch's newest event to its commit.",
            LABELS,
            buckets=_DELAYS,
            registry=registry,
        )
        self._published = Counter("ikv_events_published", "Events published.", LABELS[:2], registry=registry)
        self._published_bytes = Counter("ikv_published_bytes", "Bytes of events.", LABELS[:2], registry=registry)
        self._publish_seconds = Histogram(
            "ikv_publish_seconds",
            "Time until a call's events were durable.",
            LABELS[:2],
            buckets=_SECONDS,
            registry=registry,
        )
        self._readers = Readers()
        registry.register(self._readers)

    @hookimpl
    def reader_started(self, event: ReaderStarted) -> None:
        self._readers.add(event)

    @hookimpl
    def batch_applied(self, event: BatchApplied) -> None:
        labels = (event.store_name, event.account_id, "" if event.mount is None else str(event.mount))
        self._batch_events.labels(*labels).observe(event.events)
        self._batch_seconds.labels(*labels).observe(event.seconds)
        if event.delay_seconds is not None:
            self._delay.labels(*labels).observe(event.delay_seconds)

    @hookimpl
    def events_published(self, event: EventsPublished) -> None:
        labels = (event.store_name, event.account_id)
        self._published.labels(*labels).inc(event.events)
        self._published_bytes.labels(*labels).inc(event.bytes)
        self._publish_seconds.labels(*labels).observe(event.seconds)


class MetricsServer:
    """An HTTP server of metrics, in a thread of its own; a context manager that closes."""

    def __init__(self, address: str, port: int, registry: CollectorRegistry) -> None:
        self._server, self._thread = start_http_server(port, address, registry)
        self.port: int = self._server.server_port
        """The one that was chosen, where 0 was asked for."""

    def close(self) -> None:
        """Stop serving, and give the port back. Idempotent."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(port: int, *, address: str = "127.0.0.1", registry: CollectorRegistry = REGISTRY) -> MetricsServer:
    """Serve the registry's metrics over HTTP until the result is closed. Raises OSError where the port is taken."""
    return MetricsServer(address, port, registry)


exporter: Final = Exporter()
"""The one that is installed, in prometheus_client's default registry."""

"""The Prometheus exporter, scraped over loopback HTTP as Prometheus does it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from ikv_metrics.prometheus import Exporter, MetricsServer, serve
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.errors import IngestHaltedError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.health import ReadCount
from ikvcore.observing import flush
from ikvcore.testing._live import LiveStore, document
from ikvcore.testing.fixtures import EphemeralStore

PATIENCE = 30.0


class Scraped:
    """What one scrape gave."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        self.samples = [sample for family in families for sample in family.samples]
        self.kinds = {family.name: family.type for family in families}

    def values(self, name: str, **labels: str) -> list[float]:
        return [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= dict(sample.labels).items()
        ]

    def value(self, name: str, **labels: str) -> float:
        (value,) = self.values(name, **labels)
        return value


@pytest.fixture
def server() -> Iterator[tuple[Exporter, MetricsServer]]:
    registry = CollectorRegistry()
    exporter = Exporter(registry)
    with serve(0, registry=registry) as served:
        yield exporter, served


def observed(store: LiveStore, exporter: Exporter) -> ClientOptionsBuilder:
    return store.builder().with_observers(exporter, installed=False)


def test_a_scrape_beside_a_writer_that_writes_tells_of_the_store(
    server: tuple[Exporter, MetricsServer], tmp_path: Path
) -> None:
    exporter, served = server
    enough, stop = threading.Event(), threading.Event()
    with LiveStore(backend="lmdb", transport="local", directory=tmp_path, partitions=2) as store:
        options = observed(store, exporter).build()
        reader = store.new_reader(observed(store, exporter))
        written = 0

        def write() -> None:
            nonlocal written
            with create_new_writer(options) as writer:
                while not stop.is_set():
                    writer.upsert_fields_batch([document(id=f"{written}-{n}", n=n) for n in range(10)])
                    written += 10
                    if written >= 200:
                        enough.set()

        thread = threading.Thread(target=write)
        thread.start()
        assert enough.wait(PATIENCE)
        during = Scraped(served.port)
        stop.set()
        thread.join()
        for _ in range(7):
            reader.get_value("0-0", "n")
        reader.wait_for(store.writer.upsert_fields(document(id="last")), timeout=PATIENCE)
        assert flush(PATIENCE)
        after = Scraped(served.port)
        store_labels = {"store": store.description.store_name, "account": store.description.account_id}
    labels = {**store_labels, "mount": str(tmp_path / "mount")}
    assert during.value("ikv_events_published_total", **store_labels) > 0
    assert 0 < during.value("ikv_documents", **labels) <= after.value("ikv_documents", **labels) == written + 1
    assert after.value("ikv_events_applied_total", **labels) == written + 1
    assert after.value("ikv_events_published_total", **store_labels) == written  # the last one's writer is another's
    assert after.value("ikv_publish_seconds_count", **store_labels) == written / 10
    assert after.value("ikv_published_bytes_total", **store_labels) > written
    assert after.value("ikv_batch_events_sum", **labels) == written + 1
    assert after.value("ikv_batch_seconds_count", **labels) == after.value("ikv_batch_events_count", **labels) >= 1
    assert after.value("ikv_batch_seconds_sum", **labels) > 0
    assert after.value("ikv_apply_delay_seconds_count", **labels) >= 1
    assert after.values("ikv_lag_events", **labels) == after.values("ikv_lag_seconds", **labels) == [0, 0]
    assert [after.value("ikv_lag_events", partition=each) for each in ("0", "1")] == [0, 0]
    assert after.value("ikv_reads_total", **labels) == 7
    assert after.value("ikv_health", state="ready", **labels) == 1
    assert sum(after.values("ikv_health", **labels)) == 1
    assert after.value("ikv_observer_events_lost_total") == 0
    assert after.kinds["ikv_documents"] == "gauge"
    assert after.kinds["ikv_reads"] == "counter"


def test_bad_events_and_halts_are_told(server: tuple[Exporter, MetricsServer], tmp_path: Path) -> None:
    exporter, served = server
    with LiveStore(backend="lmdb", transport="memory", directory=tmp_path) as store:
        halting = store.new_reader(observed(store, exporter))
        builder = store.builder("other").with_observers(exporter, installed=False).with_on_bad_event("quarantine")
        passing = store.new_reader(builder)
        bad = store.publish(b"\xff\xff")
        passing.wait_for(bad, timeout=PATIENCE)
        with pytest.raises(IngestHaltedError):
            halting.wait_for(bad, timeout=PATIENCE)
        flush(PATIENCE)
        scraped = Scraped(served.port)
    halted, passed = str(tmp_path / "mount"), str(tmp_path / "other")
    assert scraped.value("ikv_health", state="halted", mount=halted) == 1
    assert scraped.value("ikv_halted_partitions", mount=halted) == 1
    assert scraped.value("ikv_lag_events", mount=halted) == 1
    assert scraped.value("ikv_bad_events_total", mount=halted) == 0
    assert scraped.value("ikv_health", state="ready", mount=passed) == 1
    assert scraped.value("ikv_bad_events_total", mount=passed) == 1


def test_readers_come_and_go_and_their_reads_stay(server: tuple[Exporter, MetricsServer]) -> None:
    exporter, served = server
    with EphemeralStore() as store:
        store.put(id="a")
        reader: Any = store.unstarted_reader(observed(store, exporter))
        for _ in range(2):  # the same one started again counts on
            with reader:
                reader.get_value("a", "id")
        another = store.new_reader(observed(store, exporter))
        another.get_value("a", "id")
        flush(PATIENCE)
        scraped = Scraped(served.port)
        assert scraped.value("ikv_reads_total") == 3
        assert scraped.value("ikv_health", state="ready") == 1  # of the one that is well
        another.shutdown()
        scraped = Scraped(served.port)
        assert scraped.value("ikv_health", state="stopped") == 1
        assert scraped.values("ikv_documents") == []
        store._opened = [each for each in store._opened if each not in (reader, another)]
        del reader, another
        flush(PATIENCE)
        gc.collect()
        scraped = Scraped(served.port)
        assert scraped.value("ikv_reads_total") == 3
        assert scraped.values("ikv_health") == []


def test_readers_that_are_gone_leave_nothing_where_nobody_scrapes(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    exporter = Exporter(registry)
    with LiveStore(backend="memory", transport="memory", directory=tmp_path) as store:
        options = observed(store, exporter).build()

        def come_and_go(times: int) -> int:
            for _ in range(times):
                with create_new_reader(options) as reader:
                    reader.get_value("a", "n")
                del reader
                gc.collect()
            flush(PATIENCE)
            gc.collect()
            return sum(isinstance(each, ReadCount) for each in gc.get_objects())

        come_and_go(3)
        before = come_and_go(3)
        assert come_and_go(20) <= before
    (reads,) = (metric for metric in registry.collect() if metric.name == "ikv_reads")
    assert sum(sample.value for sample in reads.samples) == 26


def test_a_reader_that_cannot_tell_its_figures_still_tells_its_health(
    server: tuple[Exporter, MetricsServer],
) -> None:
    exporter, served = server
    store = EphemeralStore()
    reader: Any = store.new_reader(observed(store, exporter))
    flush(PATIENCE)
    reader._replica.transport.close()
    scraped = Scraped(served.port)
    assert sum(scraped.values("ikv_health")) == 1
    assert scraped.values("ikv_documents") == []
    store.close()


def test_two_exporters_do_not_share_a_registry() -> None:
    registry = CollectorRegistry()
    Exporter(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Exporter(registry)


def test_a_server_gives_its_port_back() -> None:
    with serve(0) as first:
        port = first.port
    with serve(port, address="127.0.0.1") as second:
        assert second.port == port
        with pytest.raises(OSError, match="in use"):
            serve(port)


def test_the_installed_exporter_fills_the_default_registry_of_the_process(tmp_path: Path) -> None:
    """As an application has it: nothing is said of metrics, and the process's own /metrics shows them."""
    code = """
        import os, sys
        from ikvcore.testing.fixtures import EphemeralStore
        from ikvcore.observing import flush
        with EphemeralStore() as store:
            store.put(id="a")
            store.reader.get_value("a", "id")
            flush(30)
            import prometheus_client
            text = prometheus_client.generate_latest().decode()
            names = sorted(line.split("{")[0] for line in text.splitlines() if line.startswith("ikv_reads_total"))
            print(*names, flush=True)  # or the child has it too
            child = os.fork()
            if child == 0:
                text = prometheus_client.generate_latest().decode()
                print([line for line in text.splitlines() if line.startswith(("ikv_reads_total", "ikv_health"))])
                sys.stdout.flush()
                os._exit(0)
            os.waitpid(child, 0)
        """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["ikv_reads_total", "[]"]  # the parent's readers are not the child's

"""What the readers of this process have to tell when they are scraped: asked of them at that moment, in its thread."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ikvcore.client import IKVReader
from ikvcore.errors import IKVError
from ikvcore.forks import after_fork_in_child
from ikvcore.health import Health, ReadCount, Stats
from ikvcore.models import ReaderStarted
from ikvcore.observing import events_lost

__all__ = ["LABELS", "Labels", "Readers"]

Labels: TypeAlias = tuple[str, str, str]
LABELS: Final = ("store", "account", "mount")
_STATES: Final = ("ready", "catching-up", "halted", "stopped")


@dataclass(frozen=True, slots=True)
class _Known:
    """A reader that was started."""

    labels: Labels
    reader: weakref.ref[IKVReader]
    reads: ReadCount


class Readers:
    """A prometheus_client collector. Readers of one mount in one process share a line, since they share a replica."""

    def __init__(self) -> None:
        self._begin()
        after_fork_in_child(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[ReadCount, _Known] = {}
        self._reads_of_others: Counter[Labels] = Counter()

    def forked(self) -> None:
        """See ikvcore.forks: the parent's readers are not this process's."""
        self._begin()

    def add(self, event: ReaderStarted) -> None:
        """Tell of this reader too. One that is started again counts on where it was."""
        labels = (event.store_name, event.account_id, "" if event.mount is None else str(event.mount))
        with self._lock:
            self._without_the_dead()  # it may never be scraped
            self._known[event.reads] = _Known(labels, weakref.ref(event.reader), event.reads)

    def describe(self) -> list[Metric]:
        """For the registry: which names this collector gives."""
        return _Families().all()

    def collect(self) -> Iterator[Metric]:
        """Everything, as it is now."""
        families = _Families()
        with self._lock:
            known = self._without_the_dead()
            reads = Counter(self._reads_of_others)
        for each in known:
            reads[each.labels] += each.reads.total
        for labels, total in sorted(reads.items()):
            families.reads.add_metric(labels, total)
        for labels in sorted({each.labels for each in known}):
            _tell_of(families, labels, [each.reader() for each in known if each.labels == labels])
        families.lost.add_metric((), events_lost())
        yield from families.all()

    def _without_the_dead(self) -> list[_Known]:
        for each in list(self._known.values()):
            if each.reader() is None:
                del self._known[each.reads]
                self._reads_of_others[each.labels] += each.reads.total
        return list(self._known.values())


class _Families:
    """The metrics of one scrape."""

    def __init__(self) -> None:
        self.documents = GaugeMetricFamily("ikv_documents", "Documents in the replica.", labels=LABELS)
        self.lag_events = GaugeMetricFamily(
            "ikv_lag_events", "Positions between the replica and the log's end.", labels=(*LABELS, "partition")
        )
        self.lag_seconds = GaugeMetricFamily(
            "ikv_lag_seconds",
            "Age of the last event applied while others wait, 0 where none wait.",
            labels=(*LABELS, "partition"),
        )
        self.applied = CounterMetricFamily(
            "ikv_events_applied", "Events passed since the replica was made, bad ones and no-ops too.", labels=LABELS
        )
        self.bad = CounterMetricFamily(
            "ikv_bad_events", "Bad events passed over since the replica was made.", labels=LABELS
        )
        self.halted = GaugeMetricFamily(
            "ikv_halted_partitions", "Partitions that stopped before a bad event.", labels=LABELS
        )
        self.health = GaugeMetricFamily(
            "ikv_health", "1 for the state that the reader is in.", labels=(*LABELS, "state")
        )
        self.reads = CounterMetricFamily(
            "ikv_reads", "Documents that this process asked for by key, found or not.", labels=LABELS
        )
        self.lost = CounterMetricFamily("ikv_observer_events_lost", "Events that observers were not told of.")

    def all(self) -> list[Metric]:
        families: list[Metric] = list(vars(self).values())
        return families


def _tell_of(families: _Families, labels: Labels, readers: list[IKVReader | None]) -> None:
    """A mount, by the one of its readers that is well, if one is: another may be shut down."""
    looked = [(reader.health(), reader) for reader in readers if reader is not None]
    if not looked:
        return
    health, reader = min(looked, key=lambda each: _STATES.index(each[0].state))
    _tell_health(families, labels, health)
    try:
        stats = reader.stats()
    except IKVError:  # stopped, damaged, or its log does not answer: health says which
        return
    _tell_stats(families, labels, stats)


def _tell_health(families: _Families, labels: Labels, health: Health) -> None:
    families.halted.add_metric(labels, len(health.halts))
    for state in _STATES:
        families.health.add_metric((*labels, state), state == health.state)


def _tell_stats(families: _Families, labels: Labels, stats: Stats) -> None:
    families.documents.add_metric(labels, stats.documents)
    families.applied.add_metric(labels, stats.events_applied)
    families.bad.add_metric(labels, stats.bad_events)
    for partition, place in stats.partitions.items():
        families.lag_events.add_metric((*labels, str(partition)), place.lag_events)
        families.lag_seconds.add_metric((*labels, str(partition)), place.lag_seconds)

"""Producers of this process: one for all the clients that would make the same.

A new idempotent producer takes half a second to get its id from a broker, so one that nobody uses is kept a while. A
thread of its own has the delivery reports delivered: several callers that wait in `poll` would take each other's.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from ikv_transports._kafka_cluster import KafkaCluster
from ikv_transports._kafka_errors import text_of
from ikv_transports._kafka_options import Properties
from ikvcore.forks import after_fork_in_child, leak

__all__ = ["SharedProducer", "obtain_producer"]

_log = logging.getLogger("ikv_transports.kafka")

_SERVE: Final = 0.2
_IDLE: Final = 30.0


class SharedProducer:
    """A producer, its thread and its users."""

    def __init__(self, cluster: KafkaCluster, own: Properties) -> None:
        self.broken: KafkaError | None = None
        """What an idempotent producer cannot go on after; the next one can."""
        self.users = 0
        self._idle_since = 0.0
        self._stopped = False
        self.producer: Producer = cluster.client(Producer, own)
        self._thread = threading.Thread(target=self._serve, name="ikvcore-kafka-producer", daemon=True)
        self._thread.start()
        after_fork_in_child(self)

    def release(self) -> None:
        """One user less."""
        with _table.lock:
            self.users -= 1
            self._idle_since = time.monotonic()

    def stop(self) -> None:
        """End the thread; what is not delivered by then is lost, and nobody waits for it any more."""
        self._stopped = True
        self._thread.join(10 * _SERVE)

    def forked(self) -> None:
        """See ikvcore.forks."""
        leak(self.producer)

    def _serve(self) -> None:
        while not self._stopped and not self._is_idle():
            try:
                self.producer.poll(_SERVE)
            except KafkaException as exc:  # what it cannot go on after; error_cb is not told of that
                self.broken = exc.args[0]
                _log.error("the Kafka producer gives up, and the next write gets another: %s", text_of(exc))
            except Exception:  # deliveries have to go on
                _log.exception("serving the Kafka producer failed")

    def _is_idle(self) -> bool:
        """Whether nobody has used it for long: then it is in the table no longer."""
        if self.users or time.monotonic() - self._idle_since < _IDLE:
            return False
        with _table.lock:
            if self.users:
                return False
            _table.producers = {key: each for key, each in _table.producers.items() if each is not self}
            return True


class _Table:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.producers: dict[Any, SharedProducer] = {}


_table = _Table()


def obtain_producer(cluster: KafkaCluster, own: Properties) -> SharedProducer:
    """A producer with these properties that works; `release` it."""
    properties = cluster.properties(own)
    key = tuple(
        sorted(
            (name, value if isinstance(value, (str, int, float)) else id(value)) for name, value in properties.items()
        )
    )
    with _table.lock:
        shared = _table.producers.get(key)
        if shared is None or shared.broken is not None:
            shared = _table.producers[key] = SharedProducer(cluster, own)
        shared.users += 1
        return shared


def _start_empty() -> None:
    global _table
    _table = _Table()


def _stop_all() -> None:
    for shared in list(_table.producers.values()):
        shared.stop()


os.register_at_fork(after_in_child=_start_empty)
atexit.register(_stop_all)

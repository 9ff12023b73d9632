"""Clients of librdkafka: their callbacks raise nothing, and what it refuses is told by the names of our options."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException

from ikv_transports._kafka_options import KafkaTransportOptions, Properties
from ikvcore.errors import InvalidOptionError
from ikvcore.models import Secret

__all__ = ["DRIVER_LOG", "consumer_properties", "new_client"]

_log = logging.getLogger("ikv_transports.kafka")
DRIVER_LOG: Final = logging.getLogger("ikv_transports.kafka.driver")
"""What librdkafka itself has to say."""
_REPEATED_AFTER: Final = 30.0
_DURATIONS: Final = re.compile(r" \(after \d+ms in state .*")
_MOST_TEXTS: Final = 256
_RESERVE: Final = 64 * 1024 * 1024
_FILES: Final = {
    "ssl.ca.location": ("ssl_ca_location", ""),
    "ssl.certificate.location": ("ssl_certificate_location", ""),
    "ssl.key.location": ("ssl_key_location", "; is its password that of the key?"),
}
_T = TypeVar("_T")


class _OnceInAWhile(logging.Filter):
    """Lets a text through, and again after so many seconds: of a broker that is gone librdkafka says the same twenty
    times a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text, now = _DURATIONS.sub("", record.getMessage()), time.monotonic()
        if now < self._told.get(text, 0.0):
            return False
        if len(self._told) >= _MOST_TEXTS:
            self._told.clear()
        self._told[text] = now + _REPEATED_AFTER
        return True


DRIVER_LOG.addFilter(_OnceInAWhile())


def new_client(
    kind: Callable[..., _T], properties: Properties, options: KafkaTransportOptions
) -> _T | InvalidOptionError:
    """An AdminClient, Consumer or Producer; InvalidOptionError for properties that librdkafka refuses.

    It is returned: a traceback with local variables, raised from here, would show the properties, with their secrets.
    """
    try:
        return kind(_harmless(properties), logger=DRIVER_LOG)
    except (KafkaException, ValueError, TypeError) as exc:  # its text may hold the refused value, which can be a secret
        return _refused(exc, options)


def consumer_properties(*, largest: int) -> Properties:
    """Of a consumer that is assigned partitions and positions, and belongs to no group."""
    at_once = max(50 * 1024 * 1024, largest)
    return {
        "group.id": "ikv-unused",  # the library wants one, and looks for its coordinator; nobody joins it
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # "earliest" silently replays and "latest" silently skips
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "fetch.max.bytes": at_once,
        "receive.message.max.bytes": at_once + _RESERVE,
        # The default lets a reader that was slow for a moment sleep for a second.
        "fetch.queue.backoff.ms": 10,
        "queued.max.messages.kbytes": 32 * 1024,
        "reconnect.backoff.max.ms": 1_000,
    }


def _refused(exc: Exception, options: KafkaTransportOptions) -> InvalidOptionError:
    error = exc.args[0] if isinstance(exc, KafkaException) and exc.args else None
    told = error.str() if isinstance(error, KafkaError) else ""
    for name, (option, hint) in _FILES.items():
        if f"{name} failed" in told:
            if (path := getattr(options, option)) is None:
                return InvalidOptionError("config", Secret(""), f"librdkafka cannot use the file of {name}{hint}")
            return InvalidOptionError(option, path, f"librdkafka cannot use this file{hint}")
    why = told if told.startswith("No such configuration property") else type(exc).__name__
    return InvalidOptionError("config", Secret(""), f"librdkafka refuses one of its properties: {why}")


def _harmless(properties: Properties) -> Properties:
    """The same, whose callbacks raise nothing: an exception comes out of whatever call librdkafka runs one in, closing
    too. That of `oauth_cb` is an answer, and stays."""
    return {
        name: _caught(name, value) if callable(value) and name != "oauth_cb" else value
        for name, value in properties.items()
    }


def _caught(name: str, callback: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        try:
            return callback(*arguments)
        except Exception:
            _log.exception("the callback %s of the Kafka client's properties raised", name)
            return None

    return call

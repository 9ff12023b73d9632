"""From what librdkafka and brokers say to this project's errors."""

from __future__ import annotations

from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

__all__ = ["NOT_TAKEN", "code_of", "is_refusal", "text_of"]

_REFUSALS: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)
"""The brokers do not know us, or do not let us."""

NOT_TAKEN: Final = _REFUSALS | {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.INVALID_RECORD,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.POLICY_VIOLATION,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._PURGE_QUEUE,
}
"""Reports of messages that are certainly not in the log. After any other the acknowledgement may have been lost."""


def code_of(exc: KafkaException) -> int:
    """The number of the error that it carries."""
    error = exc.args[0] if exc.args else None
    return error.code() if isinstance(error, KafkaError) else KafkaError.UNKNOWN


def is_refusal(code: int) -> bool:
    """Whether the brokers do not know us, or do not let us."""
    return code in _REFUSALS


def text_of(error: Any) -> str:
    """What happened, in librdkafka's words."""
    found = error.args[0] if isinstance(error, KafkaException) and error.args else error
    return found.str() if isinstance(found, KafkaError) else str(found)

"""From what librdkafka and brokers say to this project's errors."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException

__all__ = ["NOT_TAKEN", "OF_GROUPS", "Doing", "code_of", "is_refusal", "is_untrusted", "text_of", "why_refused"]

_UNKNOWN_USER: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    }
)
_NO_RIGHT: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})

OF_GROUPS: Final = frozenset(
    {
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.INVALID_GROUP_ID,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
    }
)
"""A consumer without a group looks for its group's coordinator all the same; that it finds none is nothing to us."""

NOT_TAKEN: Final = (_UNKNOWN_USER | _NO_RIGHT) | {
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


def code_of(exc: BaseException | None) -> int:
    """The number of the error that a KafkaException carries."""
    error = exc.args[0] if exc is not None and exc.args else None
    return error.code() if isinstance(error, KafkaError) else KafkaError.UNKNOWN


class Doing(NamedTuple):
    """What is asked of the brokers."""

    what: str
    topic: str
    right: str
    """What it takes, by the name that kafka-acls.sh has for it."""

    def __str__(self) -> str:
        return f"{self.what} topic {self.topic!r}"


def is_refusal(code: int) -> bool:
    """Whether the brokers do not know us, or do not let us."""
    return code in _UNKNOWN_USER or code in _NO_RIGHT


def is_untrusted(error: KafkaError | None) -> bool:
    """Whether it is we who refuse the brokers, for their certificate."""
    return error is not None and error.code() == KafkaError._SSL and "certificate verify failed" in error.str()


def why_refused(error: KafkaError, doing: Doing | None, *, user: str | None, mechanism: str) -> str:
    """What the brokers refuse, and the way out. `user` is None where it is not a name that tells who we are."""
    who, text = "this client" if user is None else f"user {user!r}", text_of(error)
    if doing is not None and error.code() in _NO_RIGHT:
        return (
            f"{who} lacks the right {doing.right} on topic {doing.topic!r} ({text}); it is given with: kafka-acls.sh "
            f"--add --allow-principal User:{user or '...'} --operation {doing.right} --topic {doing.topic}"
        )
    if "Unsupported SASL mechanism" in text:
        return f"the brokers do not take sasl_mechanism {mechanism!r} ({text}); use one of theirs"
    return (
        f"the brokers refuse {who} or its password ({text}); check account and passkey, or sasl_username and "
        "sasl_password"
    )


def text_of(error: Any) -> str:
    """What happened, in librdkafka's words."""
    found = error.args[0] if isinstance(error, KafkaException) and error.args else error
    return found.str() if isinstance(found, KafkaError) else str(found)

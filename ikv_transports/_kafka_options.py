"""Options of the Kafka transport, and the librdkafka properties that they come to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ikvcore.errors import InvalidOptionError
from ikvcore.models import Secret

__all__ = ["KafkaTransportOptions", "Properties"]

Properties = dict[str, Any]
"""librdkafka's configuration: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md"""

_PROTOCOLS: Final = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
_MECHANISMS: Final = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER", "GSSAPI")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_LARGEST_EVENT: Final = 512 * 1024 * 1024
_SERVER: Final = re.compile(
    r"(?:(?:plaintext|ssl|sasl_plaintext|sasl_ssl)://)?(?:\[[\w:.%]+\]|[^\s\0:/\[\]]+)(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE,
)
"""One of bootstrap_servers. librdkafka itself takes anything, and tries to reach port 0 until time is up."""
_OWN: Final = frozenset(
    {
        "acks",
        "allow.auto.create.topics",
        "auto.commit.enable",
        "auto.offset.reset",
        "bootstrap.servers",
        "default.topic.config",  # its properties go above those of the same names
        "delivery.report.only.error",
        "delivery.timeout.ms",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.gapless.guarantee",
        "enable.idempotence",
        "enable.partition.eof",
        "error_cb",
        "fetch.message.max.bytes",
        "group.id",
        "group.protocol",
        "isolation.level",
        "logger",
        "max.partition.fetch.bytes",
        "message.max.bytes",
        "message.timeout.ms",
        "metadata.broker.list",
        "on_delivery",
        "partitioner",
        "request.required.acks",
        "sasl.mechanism",
        "sasl.mechanisms",
        "security.protocol",
        "transactional.id",
    }
)
"""What the contract of a log rests on, or an option of its own sets; by every name that librdkafka has for it."""


@dataclass(frozen=True, kw_only=True)
class KafkaTransportOptions:
    """Options of the Kafka transport."""

    bootstrap_servers: str
    """host:port of one broker or more, separated by commas; the others are found from these."""
    security_protocol: str = _PROTOCOLS[0]
    """"plaintext", "ssl", "sasl_plaintext" or "sasl_ssl". Without SASL nobody checks the account and its passkey."""
    sasl_mechanism: str = _MECHANISMS[0]
    """With SASL: "SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER" or "GSSAPI"."""
    sasl_username: str | None = None
    """By default the account id."""
    sasl_password: str | None = field(default=None, repr=False)
    """By default the account's passkey."""
    ssl_ca_location: str | None = None
    """File of the certificates that sign the brokers'; by default the system's."""
    ssl_certificate_location: str | None = None
    """File of this client's certificate, where brokers ask for one."""
    ssl_key_location: str | None = None
    """File of its key."""
    ssl_key_password: str | None = field(default=None, repr=False)
    """Of the file of the key."""
    stores_topic: str = "ikv-stores"
    """The topic that describes all stores; the same one for every client."""
    topic: str | None = None
    """When a store is made: the topic that is to be its log. Where it exists it is taken as it is, and stays when the
    store is deleted; else it is made. By default a new one is made, named after account and store."""
    replication_factor: int | None = None
    """When a store is made: how many brokers hold each partition; by default as the brokers are set."""
    min_insync_replicas: int | None = None
    """When a store is made: how many of them have a write before it is acknowledged; by default as the brokers are."""
    retention_ms: int = -1
    """When a store is made: for how long the log keeps events. By default for ever, so that replicas can be built
    anew."""
    max_event_bytes: int = 16 * 1024 * 1024
    """When a store is made: the largest event that its topic takes."""
    timeout: float = 30.0
    """Seconds that brokers have to answer, and to take a write."""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    """Any other property of librdkafka by its own name, such as "compression.type"."""

    def __post_init__(self) -> None:
        self._check_servers()
        if self.security_protocol not in _PROTOCOLS:
            raise InvalidOptionError("security_protocol", self.security_protocol, f"use one of {', '.join(_PROTOCOLS)}")
        if self.sasl_mechanism not in _MECHANISMS:
            raise InvalidOptionError("sasl_mechanism", self.sasl_mechanism, f"use one of {', '.join(_MECHANISMS)}")
        for name, topic in (("stores_topic", self.stores_topic), ("topic", self.topic)):
            if topic is not None and (_TOPIC.fullmatch(topic) is None or topic in (".", "..")):
                raise InvalidOptionError(name, topic, "use 1 to 249 of A-Z, a-z, 0-9, '.', '_' and '-'")
        if self.topic == self.stores_topic:
            raise InvalidOptionError("topic", self.topic, "that is the topic that describes the stores; use another")
        self._check_numbers()
        self._check_config()

    def _check_servers(self) -> None:
        servers = [each.strip() for each in self.bootstrap_servers.split(",")]
        for each in filter(None, servers):
            found = _SERVER.fullmatch(each)
            if found is None or not 1 <= int(found["port"] or 1) <= 65_535:
                raise InvalidOptionError(
                    "bootstrap_servers", self.bootstrap_servers, f"{each!r} is no host:port, nor several with commas"
                )
        if not any(servers):
            raise InvalidOptionError(
                "bootstrap_servers", self.bootstrap_servers, "use host:port, or several with commas"
            )

    def _check_numbers(self) -> None:
        for name in ("replication_factor", "min_insync_replicas"):
            number = getattr(self, name)
            if number is not None and not 1 <= number <= 32_767:
                raise InvalidOptionError(name, number, "use a whole number from 1 to the number of brokers")
        if self.retention_ms != -1 and not 1 <= self.retention_ms < 2**63:
            raise InvalidOptionError("retention_ms", self.retention_ms, "use milliseconds, or -1 to keep everything")
        if not 1 <= self.max_event_bytes <= _LARGEST_EVENT:
            raise InvalidOptionError("max_event_bytes", self.max_event_bytes, f"use 1 to {_LARGEST_EVENT:,} bytes")
        if not 0.1 <= self.timeout <= 3600:  # also false for NaN
            raise InvalidOptionError("timeout", self.timeout, "use seconds, 0.1 to 3600")

    def _check_config(self) -> None:
        if not isinstance(self.config, Mapping) or not all(isinstance(name, str) for name in self.config):
            raise InvalidOptionError("config", Secret(""), "use a table of librdkafka's properties by name")
        for name in self.config:
            if name in _OWN:
                raise InvalidOptionError(
                    "config", name, "this property is set by the transport itself, or by an option of its own"
                )

    @property
    def sasl(self) -> bool:
        """Whether the brokers are asked to check who we are."""
        return self.security_protocol.startswith("sasl")

    def properties(self, account_id: str, passkey: Secret) -> Properties:
        """What every client is made with. Holds secrets."""
        found: Properties = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "log.connection.close": False,
        }
        if self.sasl:
            found["sasl.mechanism"] = self.sasl_mechanism
            if self.sasl_mechanism not in ("OAUTHBEARER", "GSSAPI"):
                found["sasl.username"] = account_id if self.sasl_username is None else self.sasl_username
                found["sasl.password"] = passkey.reveal() if self.sasl_password is None else self.sasl_password
        for name in ("ssl_ca_location", "ssl_certificate_location", "ssl_key_location", "ssl_key_password"):
            if (value := getattr(self, name)) is not None:
                found[name.replace("_", ".")] = value
        return found | dict(self.config)

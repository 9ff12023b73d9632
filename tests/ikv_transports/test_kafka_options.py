"""Options of the Kafka transport: what they take, refuse and come to. No broker is asked."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ikv_transports._kafka_options import KafkaTransportOptions
from ikvcore.errors import InvalidOptionError
from ikvcore.models import Secret

NO_SERVERS = (
    *("localhost:", "localhost:abc", "a:0", "a:65536", "a:-1", ":9092"),
    *("http://a:9092", "[::1", "a b:1", "a\0b:1", "a/b"),
)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"bootstrap_servers": " "}, "host:port"),
        ({"security_protocol": "SSL"}, "plaintext, ssl"),
        ({"sasl_mechanism": "SCRAM"}, "SCRAM-SHA-512, SCRAM-SHA-256"),
        ({"stores_topic": "a/b"}, "1 to 249"),
        ({"topic": ".."}, "1 to 249"),
        ({"topic": "ikv-stores"}, "describes the stores"),
        ({"replication_factor": 0}, "number of brokers"),
        ({"min_insync_replicas": -1}, "number of brokers"),
        ({"retention_ms": 0}, "-1 to keep everything"),
        ({"max_event_bytes": 0}, "bytes"),
        ({"timeout": float("nan")}, "0.1 to 3600"),
        ({"config": {"enable.idempotence": False}}, "enable.idempotence.*the transport itself"),
        ({"config": {"auto.offset.reset": "earliest"}}, "auto.offset.reset"),
        ({"config": {"default.topic.config": {"auto.offset.reset": "earliest"}}}, "default.topic.config"),
        ({"config": {"delivery.report.only.error": True}}, "delivery.report.only.error"),
        ({"config": {"delivery.timeout.ms": 1}}, "delivery.timeout.ms"),
        ({"config": {"security.protocol": "ssl"}}, "an option of its own"),
        ({"config": {"sasl.mechanisms": "PLAIN"}}, "an option of its own"),
        ({"timeout": -1}, "0.1 to 3600"),
        *(({"bootstrap_servers": each}, f"{re.escape(repr(each))} is no host:port") for each in NO_SERVERS),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOptionError, match=told):
        KafkaTransportOptions(**{"bootstrap_servers": "localhost:9092", **options})


@pytest.mark.parametrize(
    "servers",
    ["localhost", "a:1,b:2", " a:1 , ,b", "[::1]:9092", "[fe80::1%eth0]", "SASL_SSL://a:1", "brøker.example:65535"],
)
def test_servers_are_taken_in_every_form_that_librdkafka_knows(servers: str) -> None:
    assert KafkaTransportOptions(bootstrap_servers=servers).bootstrap_servers == servers


def test_with_sasl_the_account_and_its_passkey_are_user_and_password_unless_given_otherwise() -> None:
    options = KafkaTransportOptions(bootstrap_servers="a:1", security_protocol="sasl_ssl")
    properties = options.properties("demo", Secret("secret"))
    assert (properties["sasl.username"], properties["sasl.password"]) == ("demo", "secret")
    options = KafkaTransportOptions(
        bootstrap_servers="a:1", security_protocol="sasl_ssl", sasl_username="other", sasl_password="word"
    )
    properties = options.properties("demo", Secret("secret"))
    assert (properties["sasl.username"], properties["sasl.password"]) == ("other", "word")
    assert "enable.ssl.certificate.verification" not in properties  # librdkafka's default is to verify

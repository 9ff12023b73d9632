"""A broker that asks who is there: with SASL the account and its passkey count, and the broker's own rules."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ikvcore import admin
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.document import IKVDocumentBuilder
from ikvcore.errors import StoreAccessError, TransportError
from ikvcore.factory import create_new_reader, create_new_writer

JAAS = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    'username="admin" password="admin-word" user_admin="admin-word" user_demo="demo-pass" '
    'user_stranger="stranger-pass";'
)
SETTINGS = {
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,CLIENTS:SASL_PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.clients.plain.sasl.jaas.config": JAAS,
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:admin;User:demo;User:ANONYMOUS",
}


@pytest.fixture(scope="module")
def broker(kafka_brokers: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    broker = kafka_brokers(tmp_path_factory.mktemp("broker"), **SETTINGS)
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def options(broker: Any) -> dict[str, Any]:
    return {
        "bootstrap_servers": broker.address,
        "security_protocol": "sasl_plaintext",
        "sasl_mechanism": "PLAIN",
        "timeout": 20,
    }


def create(account: str, passkey: str, options: dict[str, Any]) -> str:
    name = f"store-{uuid.uuid4().hex[:8]}"
    admin.create_store(
        name,
        account_id=account,
        account_passkey=passkey,
        primary_key="id",
        transport="kafka",
        transport_options=options,
    )
    return name


def test_the_right_passkey_opens_and_a_wrong_one_is_refused_at_once(options: dict[str, Any]) -> None:
    name = create("demo", "demo-pass", options)
    builder = (
        ClientOptionsBuilder()
        .with_store_name(name)
        .with_account_id("demo")
        .with_backend("memory")
        .with_transport("kafka", **options)
    )
    right = builder.with_account_passkey("demo-pass").build()
    with create_new_writer(right) as writer, create_new_reader(right) as reader:
        reader.wait_for(writer.upsert_fields(IKVDocumentBuilder().put_string_field("id", "a").build()), timeout=30)
        assert reader.count() == 1
    began = time.monotonic()
    with pytest.raises(StoreAccessError) as refused:
        create_new_reader(builder.with_account_passkey("demo-word").build()).startup()
    assert time.monotonic() - began < 15  # that of the options is 20
    assert "demo-word" not in str(refused.value)


def test_user_and_password_of_their_own_are_used_in_place_of_the_accounts(options: dict[str, Any]) -> None:
    own = {**options, "sasl_username": "admin", "sasl_password": "admin-word"}
    name = create("another-account", "any", own)
    described = admin.describe_store(
        name, account_id="another-account", account_passkey="any", transport="kafka", transport_options=own
    )
    assert described.store_name == name


def test_who_is_known_but_may_not_is_refused(options: dict[str, Any]) -> None:
    name = create("demo", "demo-pass", options)
    stranger = {**options, "sasl_username": "stranger", "sasl_password": "stranger-pass"}
    for call in (
        lambda: create("demo", "any", stranger),
        lambda: admin.describe_store(
            name, account_id="demo", account_passkey="any", transport="kafka", transport_options=stranger
        ),
    ):
        with pytest.raises(StoreAccessError):
            call()


def test_a_client_without_sasl_is_told_where_to_look(options: dict[str, Any]) -> None:
    plain = {"bootstrap_servers": options["bootstrap_servers"], "timeout": 2}
    with pytest.raises(TransportError, match="whether security_protocol is theirs"):
        create("demo", "demo-pass", plain)

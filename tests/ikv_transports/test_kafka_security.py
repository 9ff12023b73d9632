"""A broker that asks who is there: TLS, SCRAM and rules, with users and a certificate that are made here."""

from __future__ import annotations

import logging
import re
import shutil
import socket
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from ikvcore import admin
from ikvcore.client import IKVReader
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.document import IKVDocument
from ikvcore.errors import IngestHaltedError, InvalidOptionError, StoreAccessError, TransportError
from ikvcore.factory import create_new_reader, create_new_writer

PASS = "unmistakable-pass"
PATIENCE = 30.0
ROLES = {"Readers": "reader", "Writers": "writer", "Who makes stores": "demo"}
"""Of docs/how-to/kafka.md: a user each. The last one is the account whose stores they are."""
SETTINGS = {
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,CLIENTS:PLAINTEXT,GUARDED:SASL_SSL",
    "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
    "listener.name.guarded.scram-sha-512.sasl.jaas.config": (
        "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    ),
    "listener.name.guarded.plain.sasl.jaas.config": (
        f'org.apache.kafka.common.security.plain.PlainLoginModule required user_reader="{PASS}";'
    ),
    "ssl.keystore.type": "PKCS12",
    "ssl.keystore.password": "of-the-key",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",  # who comes without TLS: the broker itself, and the tests as its administrator
}


class Guarded:
    """The broker, and what its administrator does."""

    def __init__(self, broker: Any, directory: Path, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.plain = broker.address
        self.certificate, self.another = directory / "theirs.pem", directory / "another.pem"
        self.admin = AdminClient({"bootstrap.servers": broker.address})

    def add_user(self, name: str) -> None:
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        done(self.admin.alter_user_scram_credentials([UserScramCredentialUpsertion(name, credential, PASS.encode())]))

    def allow(self, user: str, topic: str, rights: str, *, prefixed: bool = False) -> None:
        """`rights` as the documentation has them: "DescribeConfigs, Read"."""
        pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
        operations = [AclOperation[re.sub(r"(?<=.)(?=[A-Z])", "_", each).upper()] for each in rights.split(", ")]
        rule = (ResourceType.TOPIC, topic, pattern, f"User:{user}", "*")
        done(self.admin.create_acls([AclBinding(*rule, each, AclPermissionType.ALLOW) for each in operations]))
        deadline = time.monotonic() + PATIENCE
        while len(self.rules(*rule[:4])) < len(operations):  # the broker hears of them later than the controller
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def rules(self, kind: Any, topic: str | None, pattern: Any, principal: str) -> list[Any]:
        wanted = AclBindingFilter(kind, topic, pattern, principal, None, AclOperation.ANY, AclPermissionType.ANY)
        return list(self.admin.describe_acls(wanted).result(PATIENCE))

    def options(self, **changes: Any) -> dict[str, Any]:
        options = {"bootstrap_servers": self.address, "security_protocol": "sasl_ssl", "timeout": 20}
        return {**options, "ssl_ca_location": str(self.certificate), **changes}

    def client(self, store: str, user: str, passkey: str = PASS, **changes: Any) -> Any:
        own = {} if user == "demo" else {"sasl_username": user}
        return (
            ClientOptionsBuilder()
            .with_store_name(store)
            .with_account_id("demo")
            .with_account_passkey(passkey)
            .with_backend("memory")
            .with_transport("kafka", **self.options(**own, **changes))
            .with_console_logging("ERROR")
            .build()
        )

    def access(self, user: str = "demo", **changes: Any) -> dict[str, Any]:
        """What ikvcore.admin takes beside a store's name."""
        options = self.options(sasl_username=user, **changes)
        return {
            "account_id": "demo",
            "account_passkey": PASS,
            "transport": "kafka",
            "transport_options": options,
        }


def done(futures: dict[Any, Any]) -> None:
    for future in futures.values():
        future.result(PATIENCE)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def make_certificate(directory: Path, name: str) -> None:
    """A key with a certificate that it has signed itself, for 127.0.0.1, and the certificate alone as PEM."""
    file = [f"-keystore={directory / name}.p12", "-storepass=of-the-key", "-alias=broker"]
    make = ["-genkeypair", "-keyalg=EC", "-dname=CN=a broker of tests", "-ext=san=ip:127.0.0.1", "-storetype=PKCS12"]
    for command in (make, ["-exportcert", "-rfc", f"-file={directory / name}.pem"]):
        arguments = [part for each in (*command, *file) for part in each.split("=", 1)]
        subprocess.run(["keytool", *arguments], check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def guarded(
    kafka_brokers: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, requires_part: Callable[..., None]
) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    broker = kafka_brokers(directory / "broker", **SETTINGS)
    requires_part("keytool", available=shutil.which("keytool"), how="apt-get install openjdk-17-jre-headless")
    for name in ("theirs", "another"):
        make_certificate(directory, name)
    port = free_port()
    for name in ("listeners", "advertised.listeners"):
        broker.settings[name] += f",GUARDED://127.0.0.1:{port}"
    broker.settings["ssl.keystore.location"] = str(directory / "theirs.p12")
    broker.start()
    guarded = Guarded(broker, directory, port)
    for user in (*ROLES.values(), "nobody"):
        guarded.add_user(user)
    yield guarded
    broker.kill()


@pytest.fixture(scope="module")
def rights() -> dict[str, tuple[str, str]]:
    """User -> the rights on ikv-stores and on the store's topic that the documentation gives to its role."""
    text = (Path(__file__).parents[2] / "docs/how-to/kafka.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w ]+) \| ([\w, ]+) \| ([\w, ]+?)(?: \(.*\))? \|$", text, re.MULTILINE)
    found = {ROLES[who]: (stores, topic) for who, stores, topic in rows if who in ROLES}
    assert found.keys() == set(ROLES.values())
    return found


@pytest.fixture(scope="module")
def store(guarded: Guarded, rights: dict[str, tuple[str, str]]) -> str:
    """A store that everybody has exactly the rights to that the documentation names; nobody has none."""
    for user, (on_stores, _) in rights.items():
        guarded.allow(user, "ikv-stores", on_stores)
    guarded.allow("demo", "ikv-demo-", rights["demo"][1], prefixed=True)
    admin.create_store("store", **guarded.access(), primary_key="id", partitions=2)
    for user in ("reader", "writer"):
        guarded.allow(user, topic_of(guarded, "store"), rights[user][1])
    return "store"


def topic_of(guarded: Guarded, store: str) -> str:
    (topic,) = (each for each in guarded.admin.list_topics(timeout=30).topics if each.startswith(f"ikv-demo-{store}-"))
    return str(topic)


def started(options: Any) -> IKVReader:
    reader = create_new_reader(options)
    try:
        reader.startup(timeout=PATIENCE)
    except BaseException:
        reader.shutdown()
        raise
    return reader


DOCUMENT = IKVDocument.from_dict({"id": "a", "n": 1})


def test_the_rights_of_the_documentation_are_enough_for_each(guarded: Guarded, store: str) -> None:
    with create_new_writer(guarded.client(store, "writer")) as writer:
        token = writer.drop_all_fields() | writer.upsert_fields(DOCUMENT)
    reader = started(guarded.client(store, "reader"))
    reader.wait_for(token, PATIENCE)
    assert reader.get_document("a") is not None
    reader.shutdown()
    assert [each.store_name for each in admin.list_stores(**guarded.access())] == [store]
    admin.create_store("brief", **guarded.access(), primary_key="id")
    admin.delete_store("brief", **guarded.access())


def test_who_lacks_a_right_is_told_which_on_what(guarded: Guarded, store: str) -> None:
    topic = topic_of(guarded, store)
    with (
        create_new_writer(guarded.client(store, "reader")) as writer,
        pytest.raises(TransportError, match=f"nothing was published: user 'reader' lacks the right Write on .*{topic}"),
    ):
        writer.upsert_fields(DOCUMENT)
    with pytest.raises(IngestHaltedError, match=f"user 'writer' lacks the right Read on topic '{topic}'"):
        started(guarded.client(store, "writer"))
    with pytest.raises(StoreAccessError, match="user 'nobody' lacks the right Describe on topic 'ikv-stores'"):
        started(guarded.client(store, "nobody"))
    with pytest.raises(StoreAccessError, match="user 'writer' lacks the right Create on topic 'ikv-demo-other-"):
        admin.create_store("other", **guarded.access("writer"), primary_key="id")
    with pytest.raises(
        StoreAccessError, match=f"'reader' lacks the right Delete on .*-principal User:reader .* {topic}"
    ):
        admin.delete_store(store, **guarded.access("reader"))


def test_a_writer_that_is_given_the_right_later_goes_on(guarded: Guarded, store: str, caplog: Any) -> None:
    """Without any right to write, the library's producer gives up for ever; the next write gets another."""
    guarded.add_user("late")
    guarded.allow("late", "ikv-stores", "Read")
    topic = topic_of(guarded, store)
    guarded.allow("late", topic, "Describe")
    with create_new_writer(guarded.client(store, "late")) as writer:
        caplog.set_level(logging.ERROR, logger="ikv_transports.kafka")
        with pytest.raises(TransportError, match=f"lacks the right Write on topic '{topic}'"):
            writer.upsert_fields(DOCUMENT)
        assert "the Kafka producer gives up" in caplog.text
        guarded.allow("late", topic, "Write")
        assert writer.upsert_fields(DOCUMENT)


@pytest.mark.parametrize(("user", "passkey"), [("reader", "wrong-pass"), ("stranger", PASS)])
def test_a_wrong_password_is_refused_at_once_with_the_way_out(
    guarded: Guarded, store: str, user: str, passkey: str
) -> None:
    began = time.monotonic()
    with pytest.raises(StoreAccessError, match=f"refuse user '{user}' or its password.* check account and passkey"):
        started(guarded.client(store, user, passkey))
    assert time.monotonic() - began < 15  # the timeout is 20


def test_brokers_whose_certificate_nobody_vouches_for_are_refused_at_once(guarded: Guarded, store: str) -> None:
    began = time.monotonic()
    with pytest.raises(TransportError, match=r"certificate .*cannot be verified.*give as ssl_ca_location the file"):
        started(guarded.client(store, "reader", ssl_ca_location=str(guarded.another)))
    address = guarded.address.replace("127.0.0.1", "localhost")  # which the certificate is not for
    with pytest.raises(TransportError, match=r"cannot be verified.* in bootstrap_servers the names"):
        started(guarded.client(store, "reader", bootstrap_servers=address))
    assert time.monotonic() - began < 30  # twice the timeout is 40


def test_a_file_of_certificates_that_is_none_is_named(guarded: Guarded, store: str, tmp_path: Path) -> None:
    for option in ("ssl_ca_location", "ssl_certificate_location", "ssl_key_location"):
        with pytest.raises(InvalidOptionError, match=rf"option {option} cannot be '.*none\.pem'"):
            started(guarded.client(store, "reader", **{option: str(tmp_path / "none.pem")}))


def test_brokers_that_want_another_mechanism_are_told_of(guarded: Guarded, store: str) -> None:
    with pytest.raises(StoreAccessError, match=r"do not take sasl_mechanism 'SCRAM-SHA-256' .*SCRAM-SHA-512,PLAIN"):
        started(guarded.client(store, "reader", sasl_mechanism="SCRAM-SHA-256"))
    started(guarded.client(store, "reader", sasl_mechanism="PLAIN")).shutdown()


def test_a_client_without_sasl_is_told_where_to_look(guarded: Guarded) -> None:
    plain = {"bootstrap_servers": guarded.address, "timeout": 2}
    with pytest.raises(TransportError, match="whether security_protocol is theirs"):
        admin.list_stores(account_id="demo", account_passkey=PASS, transport="kafka", transport_options=plain)


@pytest.mark.parametrize(
    ("user", "passkey", "changes"),
    [
        ("reader", f"wrong-{PASS}", {}),
        ("nobody", PASS, {}),
        ("reader", PASS, {"ssl_ca_location": __file__}),
        ("reader", PASS, {"config": {"no.such.password": PASS}}),
        ("reader", PASS, {"ssl_key_password": PASS, "ssl_key_location": __file__}),
        ("reader", PASS, {"bootstrap_servers": "localhost:1", "timeout": 0.5}),
    ],
    ids=["wrong password", "no right", "no certificate", "unknown property", "no key", "no broker"],
)
def test_no_secret_is_in_a_refusal_its_log_or_its_local_variables(
    guarded: Guarded, store: str, caplog: Any, user: str, passkey: str, changes: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG)
    options = guarded.client(store, user, passkey, **changes)
    with pytest.raises((StoreAccessError, TransportError, InvalidOptionError)) as refused:
        started(options)
    link: BaseException | None = refused.value
    told = [repr(options), caplog.text]
    while link is not None:
        frames = traceback.StackSummary.extract(traceback.walk_tb(link.__traceback__), capture_locals=True)
        told += [str(frame.locals) for frame in frames if frame.filename != __file__]
        told += [repr(link), str(link)]
        link = link.__cause__ or link.__context__
    assert [each for each in told if PASS in each] == []

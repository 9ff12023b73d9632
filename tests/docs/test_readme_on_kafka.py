"""README.md's program runs on many machines by changing an option alone."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ikvcore import admin

WARNINGS = "...\n"
"""What is said before: that without SASL nobody is asked for a password, and what librdkafka tells of a new broker."""


@pytest.fixture
def options(kafka: str) -> Iterator[dict[str, str]]:
    """Of the transport: stores of the test's own on the broker that all tests share."""
    from confluent_kafka.admin import AdminClient

    options = {"bootstrap_servers": kafka, "stores_topic": f"stores-{uuid.uuid4().hex[:12]}"}
    yield options
    access = {"account_id": "demo", "account_passkey": "secret", "transport": "kafka", "transport_options": options}
    admin.delete_store("profiles", **access)
    client = AdminClient({"bootstrap.servers": kafka})
    client.delete_topics([options["stores_topic"]])[options["stores_topic"]].result(30)


def test_the_program_runs_on_kafka_by_changing_the_option_alone(
    root: Path, carry_out_document: Callable[[str, str], None], options: dict[str, str]
) -> None:
    """Its command and its two clients are given the transport, nothing else is changed, and it prints the same."""
    readme = (root / "README.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## A complete program\n.*?(?=^## )", readme, re.MULTILINE | re.DOTALL)
    chosen = "".join(f" --option {name}={value}" for name, value in options.items())
    created = rf"\1 --transport kafka{chosen}\n{WARNINGS}"
    changed, commands = re.subn(r"^(\$ ikv store create .*)\n", created, section, flags=re.M)
    given = ", ".join(f"{name}={value!r}" for name, value in options.items())
    chosen = f".with_transport('kafka', {given}).build())"
    changed, clients = re.subn(r"^( +\.with_store_name\(.*)\.build\(\)\)$", rf"\1{chosen}", changed, flags=re.M)
    changed, outputs = re.subn(r"^```text\n", f"```text\n{WARNINGS}", changed, flags=re.M)
    assert (commands, clients, outputs) == (1, 2, 1)
    carry_out_document("README.md", changed)

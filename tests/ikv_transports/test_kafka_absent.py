"""A first run on a machine that lacks something: the driver's package, or a broker where one was said to be."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest

from ikvcore import admin
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.errors import LogUnavailableError
from ikvcore.factory import create_new_reader, create_new_writer

WITHOUT_DRIVER = """
    import importlib.abc, sys
    from importlib import metadata

    class Absent(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "confluent_kafka":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    distribution = metadata.distribution

    def without(name):
        if name.replace("_", "-") == "confluent-kafka":
            raise metadata.PackageNotFoundError(name)
        return distribution(name)

    sys.meta_path.insert(0, Absent())
    metadata.distribution = without
"""
"""As where `pip install ikvcore` was all."""
COMMAND = """
    import sys
    from ikvcore.cli import main
    sys.argv = ["ikv", "store", "list", "--account-id", "demo", "--transport", "kafka", *sys.argv[1:]]
    main()
"""


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address of this machine where nothing listens, and nothing else will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def command(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        env={**os.environ, "IKV_ACCOUNT_PASSKEY": "secret", "COLUMNS": "400"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_without_the_driver_the_command_names_the_one_that_installs_it(nobody: str) -> None:
    assert metadata.version("confluent-kafka")  # it is here, and only seems not to be
    done = command(WITHOUT_DRIVER + COMMAND, "--option", f"bootstrap_servers={nobody}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "install it with: pip install 'ikvcore[kafka]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_broker_the_command_says_where_it_looked(nobody: str) -> None:
    done = command(COMMAND, "--option", f"bootstrap_servers={nobody}", "--option", "timeout=1")
    assert (done.returncode, done.stdout) == (1, "")
    (told,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert f"no broker of {nobody} answered within 1 s" in told
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("create", [create_new_reader, create_new_writer], ids=["reader", "writer"])
def test_without_a_broker_no_client_starts_and_its_error_comes_within_the_timeout(nobody: str, create: Any) -> None:
    options = (
        ClientOptionsBuilder()
        .with_store_name("profiles")
        .with_account_id("demo")
        .with_account_passkey("secret")
        .with_backend("memory")
        .with_transport("kafka", bootstrap_servers=nobody, timeout=1)
        .with_console_logging("ERROR")
        .build()
    )
    client = create(options)
    began = time.monotonic()
    with pytest.raises(LogUnavailableError, match=f"no broker of {nobody} answered within 1 s .*refused"):
        client.startup()
    assert time.monotonic() - began < 20


def test_what_librdkafka_says_again_and_again_is_logged_once_in_a_while(
    nobody: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a broker that is gone it says the same twenty times a second."""
    from ikv_transports import _kafka_clients

    access = {"account_id": "demo", "account_passkey": "secret", "transport": "kafka"}
    caplog.set_level(logging.ERROR, logger="ikv_transports.kafka")

    def refusals() -> list[str]:
        caplog.clear()
        with pytest.raises(LogUnavailableError):
            admin.list_stores(**access, transport_options={"bootstrap_servers": nobody, "timeout": 2})
        return [text for text in caplog.messages if "Connection refused" in text]

    assert len(refusals()) == 1
    monkeypatch.setattr(_kafka_clients, "_REPEATED_AFTER", 0.0)
    assert len(refusals()) > 1

"""A local store to try, and a way to run a program of its own beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ikvcore.models import Message, Secret, Start, StoreDescription, TransportContext


class LocalStore:
    """Account "demo" with store "profiles" in a home of its own; what it opened is closed when the test ends."""

    def __init__(self, home: Path) -> None:
        from ikv_transports import local

        self._local = local
        self._opened: list[Any] = []
        self._started: list[subprocess.Popen[str]] = []
        self.home = home
        self.description = StoreDescription(
            store_name="profiles", account_id="demo", identity="log-1", primary_key="key", partitions=3
        )

    @property
    def directory(self) -> Path:
        """The store's directory."""
        (directory,) = self.home.glob("accounts/demo-*/stores/profiles-*")
        return directory

    def context(self, store: str | None = "profiles", **options: Any) -> TransportContext:
        passkey = Secret(options.pop("passkey", "secret"))
        account = options.pop("account", "demo")
        chosen = self._local.LocalTransportOptions(home=str(self.home), **options)
        return TransportContext(store_name=store, account_id=account, passkey=passkey, options=chosen)

    def provisioning(self, **changes: Any) -> Any:
        return self._local.ikv_provisioning(context=self.context(None, **changes))

    def create(self, **changes: Any) -> None:
        self.provisioning().create_store(replace(self.description, **changes))

    def open(self, store: str = "profiles", **options: Any) -> Any:
        transport = self._local.ikv_open_transport(context=self.context(store, **options))
        self._opened.append(transport)
        return transport

    def close(self) -> None:
        for transport in self._opened:
            transport.close()
        for process in self._started:
            with process:  # closes its pipes
                process.kill()

    def run(self, program: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `program` in a new interpreter, where `open_log()` opens the store; it must succeed."""
        done = subprocess.run(self._command(program), text=True, capture_output=True, timeout=60, **options)
        assert done.returncode == 0, done.stderr
        return done

    def start(self, program: str) -> subprocess.Popen[str]:
        """As run, but go on at once; stdin and stdout are pipes. It is killed when the test ends."""
        process = subprocess.Popen(self._command(program), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._started.append(process)
        return process

    def _command(self, program: str) -> list[str]:
        prologue = f"""
            import os, sys, threading
            from ikv_transports import local
            from ikvcore.errors import *
            from ikvcore.models import *

            def open_log(store="profiles", **options):
                options = local.LocalTransportOptions(home={str(self.home)!r}, **options)
                return local.ikv_open_transport(context=TransportContext(
                    store_name=store, account_id="demo", passkey=Secret("secret"), options=options))

            def message(value, partition=0):
                return Message(partition, b"key", value, 1)

            def poll(subscription, timeout=30):
                return subscription.poll(max_messages=1000, max_bytes=1 << 20, timeout=timeout)
        """
        return [sys.executable, "-c", textwrap.dedent(prologue) + textwrap.dedent(program)]


@pytest.fixture(scope="session")
def _account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the account alone, made once: its passkey takes its time to hash."""
    store = LocalStore(tmp_path_factory.mktemp("account") / "home")
    store.provisioning().create_account()
    return store.home


@pytest.fixture
def local_store(tmp_path: Path, _account: Path) -> Iterator[LocalStore]:
    shutil.copytree(_account, tmp_path / "home")
    store = LocalStore(tmp_path / "home")
    store.create()
    yield store
    store.close()


@pytest.fixture
def message() -> Callable[..., Message]:
    """`message(b"value", partition=0)`."""
    return lambda value, partition=0: Message(partition, b"key", value, 1)


@pytest.fixture
def from_start() -> Callable[..., dict[int, Start]]:
    """`from_start(0, 1)`: the beginnings of these partitions."""
    return lambda *partitions: {partition: Start(0, None) for partition in partitions}

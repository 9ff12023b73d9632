"""What `ikv plugins check` tries with a transport: each of the contract's promises once, in the small, in a store that
it makes and deletes again. Certifying one is for the conformance kit.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ikvcore._apart import find_apart
from ikvcore._registry import LoadedPlugin, build_options, load_transport
from ikvcore._trial import NotTriedError, Step, expect, expect_equal, expect_error
from ikvcore.errors import LogDivergedError, StoreAccessError, TransportError
from ikvcore.models import (
    Durability,
    LogMessage,
    Message,
    Position,
    Secret,
    Start,
    StoreDescription,
    TransportContext,
    TransportInfo,
)
from ikvcore.protocols import Provisioning, Transport

__all__ = ["steps"]

_PATIENCE: Final = 10.0
_PASSKEY: Final = Secret("a passkey of a trial")


def steps(name: str, options: Mapping[str, Any], directory: Path) -> Iterator[Step]:
    """Everything that is tried, in order; it ends early where there is no store to go on with."""
    trial = _Trial(name, options)
    yield "loads", trial.load
    if trial.plugin is None:
        return
    yield "takes its options", trial.take_options
    if trial.context is None:
        return
    yield "makes a store", trial.make
    if not trial.made:
        return
    yield "refuses a wrong passkey", trial.refuse
    yield "opens and describes the store", trial.open
    if trial.log is not None:
        yield "publishes", trial.publish
        yield "gives messages back in their order", trial.read_back
        yield "goes on from a position", trial.go_on
        yield "wakes a poll that waits", trial.wake
        yield "refuses a place that the log does not have", trial.diverge
        yield "shared by processes", trial.share
        yield "closes", trial.close
        yield "keeps messages over close and open", trial.reopen
        yield "capability VerifyLog", trial.verify
    yield "deletes the store", trial.delete


class _Trial:
    """One transport, and the store that is made in it."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._name = name
        self._options = options
        self.plugin: LoadedPlugin[TransportInfo] | None = None
        self.context: TransportContext | None = None
        self.made = False
        self.log: Transport | None = None
        self._end: Mapping[int, Position] = {}
        self._store = StoreDescription(
            store_name=f"trial-{uuid.uuid4().hex[:12]}",
            account_id=f"trial-{uuid.uuid4().hex[:12]}",
            identity=uuid.uuid4().hex,
            primary_key="id",
            partitions=2,
        )

    @property
    def info(self) -> TransportInfo:
        assert self.plugin is not None
        return self.plugin.info

    def load(self) -> str:
        self.plugin = load_transport(self._name)
        return f"{self.plugin.distribution} {self.plugin.version}, plugin API {self.info.api_version}"

    def take_options(self) -> None:
        self.context = TransportContext(
            store_name=None,
            account_id=self._store.account_id,
            passkey=_PASSKEY,
            options=build_options(f"transport {self._name!r}", self.info.options, self._options),
        )

    def make(self) -> None:
        if "Provisioning" not in self.info.capabilities:
            raise NotTriedError("it makes no stores by itself, so nothing more can be tried without a store of yours")
        self._store = self._provisioning().create_store(self._store)
        self.made = True
        stores = self._provisioning().list_stores()
        expect(any(each.store_name == self._store.store_name for each in stores), "it does not list the store it made")

    def refuse(self) -> None:
        assert self.context is not None
        if not self.info.keeps_passkeys:
            raise NotTriedError("it keeps no passkeys, by what it declares")
        wrong = replace(self.context, store_name=self._store.store_name, passkey=Secret("another passkey"))
        expect_error(StoreAccessError, lambda: self._hook("ikv_open_transport", wrong))

    def open(self) -> None:
        self.log = self._opened()
        found = self.log.describe()
        names = ("store_name", "account_id", "primary_key", "primary_key_type", "partitions", "partitioner")
        for name in names:
            expect_equal(getattr(found, name), getattr(self._store, name), name)

    def publish(self) -> None:
        messages = [Message(n % 2, b"key", b"value %d" % n, time.time_ns()) for n in range(10)]
        token = self._log().publish(messages)
        self._end = token.positions
        expect_equal(sorted(self._end), [0, 1], "the partitions of its token")
        bounds = self._log().bounds()
        expect_equal({p: each.end for p, each in bounds.items()}, dict(self._end), "the ends of its bounds")

    def read_back(self) -> None:
        for partition in (0, 1):
            found = [(message.key, message.value) for message in self._read(self._log(), partition)]
            wanted = [(b"key", b"value %d" % n) for n in range(partition, 10, 2)]
            expect_equal(found, wanted, f"the messages of partition {partition}")

    def go_on(self) -> None:
        messages = self._read(self._log(), 0)
        later = self._read(self._log(), 0, messages[2].position)
        expect_equal([each.value for each in later], [each.value for each in messages[2:]], "from the third on")

    def wake(self) -> None:
        subscription = self._log().subscribe({0: Start(self._end[0], None)})
        try:
            began = time.monotonic()
            waker = threading.Timer(0.1, subscription.wake)
            waker.start()
            subscription.poll(max_messages=1, max_bytes=1_000, timeout=_PATIENCE)
            waker.join()
            expect(time.monotonic() - began < _PATIENCE / 2, "a poll waited on after wake()")
        finally:
            subscription.close()

    def diverge(self) -> None:
        beyond = {0: Start(self._end[0] + 1_000, None)}
        expect_error(LogDivergedError, lambda: self._log().subscribe(beyond))

    def share(self) -> str:
        if not self.info.process_shared:
            raise NotTriedError("for one process, by what it declares")
        request = {
            "name": self._name,
            "options": dict(self._options),
            "home": os.environ.get("IKV_HOME", ""),
            "store": self._store.store_name,
            "account": self._store.account_id,
        }
        wrong = find_apart("ikvcore._trial_of_transports:read_elsewhere", request)
        expect(not wrong, "; ".join(wrong))
        return "a second process reads what this one published"

    def close(self) -> None:
        log = self._log()
        log.close()
        log.close()
        expect_error(TransportError, lambda: log.publish([Message(0, b"key", b"value", 0)]))

    def reopen(self) -> None:
        if self.info.durability is Durability.NONE:
            raise NotTriedError("declares no durability")
        log = self._opened()
        try:
            expect_equal(len(self._read(log, 0)), 5, "messages of partition 0 after opening again")
        finally:
            log.close()

    def verify(self) -> str:
        if "VerifyLog" not in self.info.capabilities:
            raise NotTriedError("not declared")
        assert self.context is not None
        context = replace(self.context, store_name=self._store.store_name)
        expect_equal(self._hook("ikv_verify_log", context), [], "what it finds wrong")
        return "finds nothing wrong"

    def delete(self) -> None:
        self._provisioning().delete_store(self._store.store_name)
        expect_error(StoreAccessError, self._opened)

    def _hook(self, name: str, context: TransportContext) -> Any:
        assert self.plugin is not None
        return getattr(self.plugin.hook, name)(context=context)

    def _provisioning(self) -> Provisioning:
        assert self.context is not None
        provisioning: Provisioning = self._hook("ikv_provisioning", self.context)
        return provisioning

    def _opened(self) -> Transport:
        assert self.context is not None
        log: Transport = self._hook("ikv_open_transport", replace(self.context, store_name=self._store.store_name))
        return log

    def _log(self) -> Transport:
        assert self.log is not None
        return self.log

    @staticmethod
    def _read(log: Transport, partition: int, start: Position | None = None) -> list[LogMessage]:
        return _read(log, partition, start)


def _read(log: Transport, partition: int, start: Position | None = None) -> list[LogMessage]:
    """What a partition holds, from its first position on."""
    bounds = log.bounds()[partition]
    reached = bounds.first if start is None else start
    subscription = log.subscribe({partition: Start(reached, None)})
    messages: list[LogMessage] = []
    deadline = time.monotonic() + _PATIENCE
    try:
        while reached < bounds.end:
            expect(time.monotonic() < deadline, f"only {len(messages)} messages came within {_PATIENCE:g} s")
            polled = subscription.poll(max_messages=3, max_bytes=1_000_000, timeout=0.5)
            messages += polled.messages
            reached = polled.positions.get(partition, reached)
    finally:
        subscription.close()
    return messages


def read_elsewhere(*, name: str, options: Mapping[str, Any], home: str, store: str, account: str) -> list[str]:
    """In a second process: what is wrong with the messages of partition 0."""
    os.environ["IKV_HOME"] = home
    plugin = load_transport(name)
    built = build_options(f"transport {name!r}", plugin.info.options, options)
    context = TransportContext(store_name=store, account_id=account, passkey=_PASSKEY, options=built)
    log = plugin.hook.ikv_open_transport(context=context)
    try:
        found = len(_read(log, 0))
        return [] if found == 5 else [f"a second process reads {found} messages instead of 5"]
    finally:
        log.close()

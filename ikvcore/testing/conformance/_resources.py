"""The resources tier: opening and closing five hundred times leaves nothing behind."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ikvcore.models import Message, Meta, Start, StoreDescription, WriteBatch
from ikvcore.protocols import OrderedKeyValue
from ikvcore.testing._parallel import spawned
from ikvcore.testing._plugins import open_backend, open_provisioning, open_transport
from ikvcore.testing._storage_base import ALL, upsert
from ikvcore.testing._store_base import StoreBase
from ikvcore.testing.faults.leaks import Sample, grown

__all__ = ["BackendRounds", "TransportRounds"]

LONGEST = 900.0
"""Seconds after which a test gives up; never a measure of speed."""
_SAMPLES = 30
_PASSKEY = "pass-Key_1"


class _Rounds(StoreBase):
    seed: ClassVar[int] = 1
    rounds: ClassVar[int] = 500

    def play(self, function: Callable[..., list[Sample]], name: str, options: Mapping[str, Any], home: Path) -> None:
        """Have a process of its own do the rounds, and see whether anything has grown."""
        with spawned(function, name, dict(options), str(home), self.rounds, patience=LONGEST) as result:
            samples = [Sample(*sample) for sample in result()]
        assert grown(samples, self.rounds) == []


class BackendRounds(_Rounds):
    """Of a storage."""

    def test_open_and_close(self, home: Path) -> None:
        """Open, commit, read, close: descriptors, threads and memory are the same after 500 rounds as early on."""
        self.play(open_storages, self.backend, self.backend_options, home)


class TransportRounds(_Rounds):
    """Of a log."""

    def test_open_and_close(self, home: Path) -> None:
        """Open, publish, subscribe, read, close: descriptors, threads and memory are the same after 500 rounds as early
        on."""
        self.play(open_logs, self.transport, self.transport_options, home)


def open_storages(name: str, options: Mapping[str, Any], home: str, rounds: int) -> list[Sample]:
    """In a child process: the rounds, and samples of what the process holds."""
    os.environ["IKV_HOME"] = home
    with tempfile.TemporaryDirectory(prefix="ikv-rounds-") as place:

        def one(number: int) -> None:
            opened = open_backend(name, Path(place) / "storage", options)
            if isinstance(opened, OrderedKeyValue):
                with opened.snapshot() as snapshot:
                    found = snapshot.get(b"commit")
                batch = WriteBatch(puts={b"commit": b"%d" % number}, deletes=set(), ranges=[])
                opened.commit(batch, expect={b"commit": found})
                with opened.snapshot() as snapshot:
                    assert list(opened.scan(snapshot, b"", None)) == [(b"commit", b"%d" % number)]
            else:
                expect: Meta = {b"commit": opened.read_meta([b"commit"])[0]}
                opened.apply([upsert(b"key", x=number)], meta={b"commit": b"%d" % number}, expect=expect)
                assert len(opened.scan(ALL, after=None, limit=10).rows) == 1
            opened.close()

        return _sampled(one, rounds)


def open_logs(name: str, options: Mapping[str, Any], home: str, rounds: int) -> list[Sample]:
    """In a child process: the rounds, and samples of what the process holds."""
    os.environ["IKV_HOME"] = home
    account = f"rounds-{uuid.uuid4().hex[:12]}"
    store = StoreDescription(store_name="rounds", account_id=account, identity=uuid.uuid4().hex, primary_key="id")
    provisioning = open_provisioning(name, account, _PASSKEY, options)
    provisioning.create_store(store)

    def one(number: int) -> None:
        log = open_transport(name, "rounds", account, _PASSKEY, options)
        start = log.bounds()[0].end
        log.publish([Message(0, b"key", b"%d" % number, number)])
        subscription = log.subscribe({0: Start(start, None)})
        values: list[bytes | None] = []
        while not values:
            values += [each.value for each in subscription.poll(max_messages=10, max_bytes=1_000, timeout=5).messages]
        assert values == [b"%d" % number]
        subscription.close()
        log.close()

    try:
        return _sampled(one, rounds)
    finally:
        provisioning.delete_store("rounds")


def _sampled(one: Callable[[int], None], rounds: int) -> list[Sample]:
    """Thirty samples, evenly."""
    every = max(1, rounds // _SAMPLES)
    samples = []
    for number in range(rounds):
        one(number)
        if (number + 1) % every == 0:
            samples.append(Sample.take())
    return samples

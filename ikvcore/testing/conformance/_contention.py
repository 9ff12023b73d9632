"""The concurrency tier's own test: many writers on few keys, under the eyes of many readers.

Every event writes one word, (writer, sequence), into two fields. So a read that mixes two events, a state that goes
back, and an end that is not the log's are all seen.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

from ikvcore.client import IKVReader, IKVWriter
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.document import IKVDocument
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.inspection import read_log
from ikvcore.testing._live import PASSKEY, LiveStore
from ikvcore.testing._parallel import run_threads, spawned
from ikvcore.testing._store_base import MakeStore, StoreBase
from ikvcore.tokens import Token

__all__ = ["Contention"]

KEYS: Final = ("a", "b", "c", "d")
THREADS: Final = 4
BATCH: Final = 10
LONGEST: Final = 900.0
"""Seconds after which the test gives up; never a measure of speed."""


class Contention(StoreBase):
    """Two processes of four threads, or one process where the transport is not shared."""

    seed: ClassVar[int] = 1
    events: ClassVar[int] = 20_000

    def test_contended_keys(self, make: MakeStore) -> None:
        """No read holds fields of two events, no place or sequence goes back for a reader, and the end is the log's."""
        store = make(partitions=2)
        processes = 2 if self.transport_info.process_shared else 1
        calls = self.events // (processes * THREADS * BATCH)
        beside = self.backend_info.process_shared  # whether the other process can read the same mount
        _ = store.reader, store.writer
        here = [partial(contend, store.reader, store.writer, who, calls, self.seed) for who in range(THREADS)]
        if processes == 1:
            tokens = run_threads(here, patience=LONGEST)
        else:
            arguments = (_settings(store), THREADS, calls, self.seed, beside)
            with spawned(contend_in_child, *arguments, patience=LONGEST) as result:
                tokens = run_threads(here, patience=LONGEST)
                tokens += map(Token.parse, result())
        for token in tokens:
            store.reader.wait_for(token, timeout=LONGEST)
        self._judge(store, processes * THREADS, calls * BATCH)

    def _judge(self, store: LiveStore, writers: int, each: int) -> None:
        """The log has every event once, each writer's in its order for each key, and the replica is where it ends."""
        last: dict[str | bytes, str] = {}
        seen: dict[tuple[int, str | bytes], int] = {}
        total = 0
        with read_log(store.options) as events:
            for event in events:
                assert event.key is not None
                word = str(event.fields["left"][1])
                assert event.fields["right"][1] == word
                who, sequence = _word(word)
                assert sequence > seen.get((who, event.key), -1), f"{word} came after {seen[who, event.key]} in the log"
                seen[who, event.key] = sequence
                last[event.key] = word
                total += 1
        assert total == writers * each
        found = zip(KEYS, store.reader.multiget_documents(KEYS), strict=True)
        shown = {key: document for key, document in found if document is not None}
        assert shown == {key: {"id": key, "left": word, "right": word} for key, word in last.items()}
        stats = store.reader.stats()
        assert (stats.events_applied, stats.bad_events) == (total, 0)


@dataclass
class _Watch:
    """What one thread has seen."""

    reader: IKVReader
    sequences: dict[tuple[str, int], int]
    places: dict[int, int]

    def look(self) -> None:
        """All keys in one read."""
        rows = self.reader.multiget_documents(KEYS)
        for key, row in zip(KEYS, rows, strict=True):
            if row is None:
                assert all(seen != key for seen, _ in self.sequences), f"{key!r} was there, and is not"
            else:
                assert row["left"] == row["right"], f"{key!r} has fields of two events: {row}"
                who, sequence = _word(str(row["left"]))
                before = self.sequences.get((key, who), -1)
                assert sequence >= before, f"{key!r} went back from {before} to {sequence} of writer {who}"
                self.sequences[key, who] = sequence

    def look_at_places(self) -> None:
        """Where ingest is."""
        for partition, place in self.reader.stats().partitions.items():
            before = self.places.get(partition, place.position)
            assert place.position >= before, f"partition {partition} went back from {before} to {place.position}"
            self.places[partition] = place.position


def contend(reader: IKVReader | None, writer: IKVWriter, who: int, calls: int, seed: int) -> Token:
    """One thread: write, look, write; the token of its last call."""
    dice = random.Random(f"{seed}/{who}")
    watch = None if reader is None else _Watch(reader, {}, {})
    token = Token()
    for call in range(calls):
        token = writer.upsert_fields_batch([_document(who, call * BATCH + n, dice) for n in range(BATCH)])
        if reader is None or watch is None:
            continue
        if call % 20 == 0:  # so that no thread is done before there is something to see
            reader.wait_for(token, timeout=LONGEST)
            watch.look_at_places()
        watch.look()
    return token


def contend_in_child(settings: Mapping[str, Any], threads: int, calls: int, seed: int, beside: bool) -> list[str]:
    """In a child process: the same with writers of its own, and a reader of the same mount where that can be shared."""
    os.environ["IKV_HOME"] = settings["home"]
    builder = (
        ClientOptionsBuilder()
        .with_store_name(settings["store"])
        .with_account_id(settings["account"])
        .with_account_passkey(PASSKEY)
        .with_backend(settings["backend"], **settings["backend_options"])
        .with_transport(settings["transport"], **settings["transport_options"])
        .with_console_logging("ERROR")
    )
    if settings["mount"] is not None:
        builder = builder.with_mount_directory(settings["mount"])
    options = builder.build()
    with create_new_writer(options) as writer:
        if not beside:
            return _all(None, writer, threads, calls, seed)
        with create_new_reader(options) as reader:
            return _all(reader, writer, threads, calls, seed)


def _all(reader: IKVReader | None, writer: IKVWriter, threads: int, calls: int, seed: int) -> list[str]:
    others = range(threads, 2 * threads)
    tokens = run_threads([partial(contend, reader, writer, who, calls, seed) for who in others], patience=LONGEST)
    return [str(token) for token in tokens]


def _settings(store: LiveStore) -> dict[str, Any]:
    return {
        "home": os.environ["IKV_HOME"],
        "store": store.description.store_name,
        "account": store.description.account_id,
        "backend": store.backend,
        "backend_options": store.backend_options,
        "transport": store.transport,
        "transport_options": store.transport_options,
        "mount": None if store.directory is None else str(store.directory / "mount"),
    }


def _document(who: int, sequence: int, dice: random.Random) -> IKVDocument:
    word = f"{who}:{sequence}"
    return IKVDocument.from_dict({"id": dice.choice(KEYS), "left": word, "right": word})


def _word(text: str) -> tuple[int, int]:
    who, _, sequence = text.partition(":")
    return int(who), int(sequence)

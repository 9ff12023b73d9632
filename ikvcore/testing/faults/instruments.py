"""What a worker hangs onto ikvcore's objects to know where it is: marks around commits, publications and reads.

It wraps what the contracts name (Storage.apply, OrderedKeyValue.commit, Transport.publish), on the instances that are
opened, so that any backend and transport can be aimed at.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from ikvcore import _replica
from ikvcore._kvstorage import KeyValueStorage
from ikvcore._storage import as_storage
from ikvcore.errors import FencedError
from ikvcore.models import BackendInfo
from ikvcore.protocols import OrderedKeyValue, Storage, Transport
from ikvcore.testing.faults.marks import Marks, Stage
from ikvcore.testing.faults.recorder import Recorder

__all__ = ["Stall", "mark_reads", "watch_publications", "watch_storages"]

_PROGRESS: Final = b"p"  # see ikvcore._progress: `p` and two bytes of partition


class Stall:
    """Makes the next commit of this process wait before it begins, once it is asked to."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()

    def here(self, marks: Marks) -> None:
        """Wait, if it was asked for."""
        with self._lock:
            seconds, self.seconds = self.seconds, 0.0
        if seconds:
            marks.add("stalls")
            time.sleep(seconds)


def watch_storages(marks: Marks, recorder: Recorder, stall: Stall) -> None:
    """Mark the commits of every storage that this process's replicas open from now on."""

    def watched(opened: OrderedKeyValue | Storage, backend: BackendInfo) -> Storage:
        if isinstance(opened, OrderedKeyValue):
            _watch_engine(opened, marks)
        storage = as_storage(opened, backend)
        _watch_storage(storage, marks, recorder, stall)
        return storage

    _replica.as_storage = watched  # type: ignore[attr-defined]  # what a replica opens its storages with


class _Expectations(dict[bytes, "bytes | None"]):
    """What a commit compares; tells when the engine, inside of its transaction, asks for it."""

    def __init__(self, expect: Any, marks: Marks) -> None:
        super().__init__(expect)
        self._marks = marks

    def __iter__(self) -> Iterator[bytes]:
        self._marks.at(Stage.TRANSACTION)
        return super().__iter__()

    def items(self) -> Any:
        self._marks.at(Stage.TRANSACTION)
        return super().items()


def _watch_engine(engine: Any, marks: Marks) -> None:
    commit = engine.commit

    def watched(batch: Any, /, *, expect: Any) -> None:
        marks.at(Stage.INSIDE)
        try:
            commit(batch, expect=_Expectations(expect, marks))
        finally:
            marks.at(Stage.AFTER)

    engine.commit = watched


def _watch_storage(storage: Any, marks: Marks, recorder: Recorder, stall: Stall) -> None:
    applied: dict[bytes, int] = {}

    def around(change: Callable[..., Any], *args: Any, meta: Any, **more: Any) -> Any:
        progress = {key: json.loads(value) for key, value in meta.items() if key[:1] == _PROGRESS and len(key) == 3}
        for key in progress.keys() - applied.keys():
            stored = storage.read_meta([key])[0]
            applied[key] = 0 if stored is None else json.loads(stored)["applied"]
        marks.at(Stage.BEFORE)
        stall.here(marks)
        if not isinstance(storage, KeyValueStorage):
            marks.at(Stage.INSIDE)
        try:
            done = change(*args, meta=meta, **more)
        except FencedError:
            marks.put("commits_at_fence", marks.get("commits"))
            marks.add("fenced")
            raise
        finally:
            marks.at(Stage.AFTER)
        if done is not False:  # a reclaim that had nothing to do
            marks.last_commit = time.monotonic()
            marks.add("commits")
        if progress:
            marks.add("applied", sum(entry["applied"] - applied[key] for key, entry in progress.items()))
            applied.update((key, entry["applied"]) for key, entry in progress.items())
            recorder.applied({int.from_bytes(key[1:], "big"): entry["position"] for key, entry in progress.items()})
        return done

    for name in ("apply", "reclaim"):
        change = getattr(storage, name, None)
        if change is not None:
            setattr(storage, name, _wrapped(around, change))


def _wrapped(around: Callable[..., Any], change: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **more: around(change, *args, **more)


def watch_publications(transport: Transport, marks: Marks) -> None:
    """Mark what is published through this transport."""
    publish = transport.publish

    def watched(messages: Any) -> Any:
        marks.at(Stage.INSIDE)
        try:
            return publish(messages)
        finally:
            marks.at(Stage.AFTER)

    transport.publish = watched  # type: ignore[method-assign]


def mark_reads(marks: Marks, storage: Storage) -> None:
    """Mark a storage's reads of several documents instead: all but a moment of them is spent inside a snapshot."""
    get_many = storage.get_many

    def watched(keys: Any, projection: Any) -> Any:
        marks.at(Stage.INSIDE)
        try:
            return get_many(keys, projection)
        finally:
            marks.at(Stage.AFTER)

    storage.get_many = watched  # type: ignore[method-assign]

"""What `ikv plugins check` tries with a backend: each of the contract's promises once, in the small. Certifying one is
for the conformance kit.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from ikvcore import protocols
from ikvcore._apart import find_apart
from ikvcore._registry import LoadedPlugin, build_options, load_backend
from ikvcore._storage import as_storage, catch_up
from ikvcore._trial import NotTriedError, Step, expect, expect_equal, expect_error
from ikvcore.errors import FencedError, StorageError
from ikvcore.fields import FieldType, encode
from ikvcore.models import (
    BackendContext,
    BackendInfo,
    Clear,
    DeleteDocument,
    DeleteFields,
    DropFields,
    Durability,
    Meta,
    Mutation,
    Projection,
    Sharing,
    Upsert,
    WriteBatch,
    storage_key,
)
from ikvcore.protocols import OrderedKeyValue, Storage

__all__ = ["steps"]

_COMMIT: Final = b"commit"
_ALL: Final = Projection(None)
_VALUES: Final = {
    "int32": (FieldType.INT32, -(2**31)),
    "int64": (FieldType.INT64, 2**63 - 1),
    "float32": (FieldType.FLOAT32, 0.5),
    "float64": (FieldType.FLOAT64, -0.1),
    "string": (FieldType.STRING, "žluť\0"),
    "empty": (FieldType.STRING, ""),
    "bytes": (FieldType.BYTES, b"\x00\xff"),
    "boolean": (FieldType.BOOLEAN, True),
}


def steps(name: str, options: Mapping[str, Any], directory: Path) -> Iterator[Step]:
    """Everything that is tried, in order; it ends early where the plugin cannot be opened."""
    trial = _Trial(name, options, directory)
    yield "loads", trial.load
    if trial.plugin is None:
        return
    yield "takes its options", trial.take_options
    if trial.context_options is None:
        return
    yield "opens", trial.open
    if trial.engine is not None:
        yield from _of_bytes(trial.engine, trial.info)
        with suppress(Exception):  # closing is tried with the other one
            trial.engine.close()
    if trial.storage is None:
        return
    yield from _of_documents(trial.storage)
    for capability in sorted(trial.info.capabilities):
        yield f"capability {capability}", partial(trial.capability, capability)
    yield "declares what it can do", trial.undeclared
    yield "shared by processes", trial.share
    yield "closes", trial.close
    yield "keeps data over close and open", trial.reopen
    yield "keeps what a killed process had committed", trial.survive


class _Trial:
    """One backend, opened in a directory of its own."""

    def __init__(self, name: str, options: Mapping[str, Any], directory: Path) -> None:
        self._name = name
        self._options = options
        self._directory = directory / "storage"
        self.plugin: LoadedPlugin[BackendInfo] | None = None
        self.context_options: Any = None
        self.opened: Any = None
        self.engine: OrderedKeyValue | None = None
        self.storage: Storage | None = None

    @property
    def info(self) -> BackendInfo:
        assert self.plugin is not None
        return self.plugin.info

    def load(self) -> str:
        self.plugin = load_backend(self._name)
        return f"{self.plugin.distribution} {self.plugin.version}, plugin API {self.info.api_version}"

    def take_options(self) -> None:
        self.context_options = build_options(f"backend {self._name!r}", self.info.options, self._options)

    def open(self) -> str:
        self.opened = _open(self._name, self._options, self._directory)
        self.storage = as_storage(self.opened, self.info)
        if isinstance(self.opened, OrderedKeyValue):
            # One of its own for bytes: among them the core would look for documents.
            self.engine = _open(self._name, self._options, self._directory.with_name("bytes"))
            return "a map of bytes, which the core keeps documents in"
        expect(isinstance(self.opened, Storage), f"{type(self.opened).__name__} is neither of the protocols")
        return "documents of its own"

    def capability(self, name: str) -> str | None:
        protocol = getattr(protocols, name, None)
        if protocol is None:
            raise NotTriedError("this ikvcore knows no such capability")
        expect(isinstance(self.opened, protocol), f"{type(self.opened).__name__} has not all of its methods")
        if name == "Verify":
            expect_equal(self.opened.verify(), [], "what it finds wrong right after it was written")
            return "finds nothing wrong"
        return "its methods are there"

    def undeclared(self) -> None:
        for name in ("Verify", "Query", "ColumnarRead", "Follower", "Checkpoint", "BulkLoad"):
            protocol = getattr(protocols, name, None)
            if protocol is not None and name not in self.info.capabilities:
                expect(not isinstance(self.opened, protocol), f"it has what {name} asks for, and does not declare it")

    def share(self) -> str | None:
        if not self.info.process_shared:
            raise NotTriedError("for one process at a time, by what it declares")
        assert self.storage is not None
        _commit(self.storage, _upsert(b"shared", n=(FieldType.INT64, 7)))
        wrong = find_apart("ikvcore._trial_of_backends:read_elsewhere", self._request(b"shared"))
        expect(not wrong, "; ".join(wrong))
        if self.info.sharing is Sharing.FOLLOWERS:
            return "a second process follows, and reads what this one committed"
        return "a second process reads what this one committed"

    def close(self) -> None:
        assert self.storage is not None
        self.opened.close()
        self.opened.close()
        expect_error(StorageError, lambda: _get(self.storage, b"shared"))  # type: ignore[arg-type]  # see above

    def reopen(self) -> None:
        if self.info.volatile:
            raise NotTriedError("volatile, by what it declares")
        storage = as_storage(_open(self._name, self._options, self._directory), self.info)
        try:
            expect_equal(_get(storage, b"kept"), {"x": "1"}, "a document after opening again")
        finally:
            storage.close()

    def survive(self) -> str | None:
        if self.info.volatile or self._durability() is Durability.NONE:
            raise NotTriedError("declares no durability with these options")
        find_apart_and_die(self._request(b"killed"))
        storage = as_storage(_open(self._name, self._options, self._directory), self.info)
        try:
            expect_equal(_get(storage, b"killed"), {"x": "1"}, "a document committed before its process was killed")
        finally:
            storage.close()
        if self._durability() is Durability.POWER_LOSS:
            return "power loss is declared, and not tried here"
        return None

    def _durability(self) -> Durability:
        word = getattr(self.context_options, "durability", None)
        return Durability.parse(word) if isinstance(word, str) else self.info.durability

    def _request(self, key: bytes) -> dict[str, Any]:
        return {"name": self._name, "options": dict(self._options), "directory": self._directory, "key": key}


def _open(name: str, options: Mapping[str, Any], directory: Path, *, follow: bool = False) -> Any:
    plugin = load_backend(name)
    if not plugin.info.volatile:
        directory.mkdir(mode=0o700, exist_ok=True)
    context = BackendContext(
        directory=None if plugin.info.volatile else directory,
        options=build_options(f"backend {name!r}", plugin.info.options, options),
        follow=follow,
    )
    return plugin.hook.ikv_open_backend(context=context)


# -- other processes ---------------------------------------------------------------------------


def read_elsewhere(*, name: str, options: Mapping[str, Any], directory: Path, key: bytes) -> list[str]:
    """In a second process: what is wrong with the document."""
    info = load_backend(name).info
    storage = as_storage(_open(name, options, directory, follow=info.sharing is Sharing.FOLLOWERS), info)
    try:
        catch_up(storage)
        found = _get(storage, key)
        return [] if found == {"n": 7} else [f"a second process reads {found!r} instead of {{'n': 7}}"]
    finally:
        storage.close()


def write_and_die(*, name: str, options: Mapping[str, Any], directory: Path, key: bytes) -> list[str]:
    """In a process of its own: commit a document, and go without a goodbye."""
    storage = as_storage(_open(name, options, directory), load_backend(name).info)
    _commit(storage, _upsert(key, x=(FieldType.STRING, "1")))
    os.kill(os.getpid(), signal.SIGABRT)
    return []


def find_apart_and_die(request: Mapping[str, Any]) -> None:
    """Run write_and_die; anything but its death is an error."""
    said = find_apart("ikvcore._trial_of_backends:write_and_die", request)
    expect(said and "SIGABRT" in said[0], f"the process that was to be killed said {said}")


# -- bytes -------------------------------------------------------------------------------------


def _of_bytes(engine: OrderedKeyValue, info: BackendInfo) -> Iterator[Step]:
    yield "writes and reads back", partial(_writes, engine)
    yield "reads many keys in the order asked", partial(_reads_many, engine)
    yield "scans in the order of keys", partial(_scans, engine)
    yield "a snapshot stands still", partial(_stands_still, engine)
    yield "compares and sets, all or nothing", partial(_compares, engine)
    yield "deletes keys and ranges", partial(_deletes, engine)
    yield "takes its longest keys", partial(_long_keys, engine, info)
    yield "takes a value of 1 MiB", partial(_long_value, engine)


_PREFIX: Final = b"trial-"


def _put(engine: OrderedKeyValue, *keys: bytes, value: bytes = b"v") -> None:
    engine.commit(WriteBatch(puts={_PREFIX + key: value for key in keys}), expect={})


def _find(engine: OrderedKeyValue, key: bytes) -> bytes | None:
    with engine.snapshot() as snapshot:
        return snapshot.get(_PREFIX + key)


def _keys(engine: OrderedKeyValue) -> list[bytes]:
    with engine.snapshot() as snapshot:
        return [key[len(_PREFIX) :] for key, _ in engine.scan(snapshot, _PREFIX, _PREFIX + b"\xff" * 8)]


def _writes(engine: OrderedKeyValue) -> None:
    for value in (b"one", b"", b"\x00\xff" * 1_000):
        _put(engine, b"a", value=value)
        expect_equal(_find(engine, b"a"), value, "what was written")
    expect_equal(_find(engine, b"nothing"), None, "a key that is absent")


def _reads_many(engine: OrderedKeyValue) -> None:
    engine.commit(WriteBatch(puts={_PREFIX + b"m1": b"1", _PREFIX + b"m2": b"2"}), expect={})
    with engine.snapshot() as snapshot:
        found = engine.get_many(snapshot, [_PREFIX + key for key in (b"m2", b"no", b"m1", b"m2")])
    expect_equal(list(found), [b"2", None, b"1", b"2"], "get_many of m2, an absent key, m1 and m2")


def _scans(engine: OrderedKeyValue) -> None:
    keys = [b"s", b"s\x00", b"s\x00\x00", b"s\x7f", b"s\x80", b"s\xff", b"sa"]
    _put(engine, *keys)
    with engine.snapshot() as snapshot:
        pairs = list(engine.scan(snapshot, _PREFIX + b"s\x00", _PREFIX + b"s\xff"))
    found = [key[len(_PREFIX) :] for key, _ in pairs]
    expect_equal(found, [b"s\x00", b"s\x00\x00", b"sa", b"s\x7f", b"s\x80"], "keys from s\\x00 up to s\\xff")


def _stands_still(engine: OrderedKeyValue) -> None:
    _put(engine, b"still", value=b"before")
    with engine.snapshot() as snapshot:
        before = snapshot.id()
        _put(engine, b"still", value=b"after")
        expect_equal(snapshot.get(_PREFIX + b"still"), b"before", "in the older snapshot")
    with engine.snapshot() as snapshot:
        expect_equal(snapshot.get(_PREFIX + b"still"), b"after", "in the newer snapshot")
        expect(snapshot.id() != before, "two states have one id")


def _compares(engine: OrderedKeyValue) -> None:
    _put(engine, b"number", value=b"1")
    key, batch = _PREFIX + b"number", WriteBatch(puts={_PREFIX + b"number": b"2", _PREFIX + b"more": b"x"})
    for stale in ({key: b"0"}, {key: None}, {key: b"1", _PREFIX + b"absent": b""}):
        expect_error(FencedError, partial(engine.commit, batch, expect=stale))
        expect_equal((_find(engine, b"number"), _find(engine, b"more")), (b"1", None), "after a refused commit")
    engine.commit(batch, expect={key: b"1", _PREFIX + b"absent": None})
    expect_equal((_find(engine, b"number"), _find(engine, b"more")), (b"2", b"x"), "after one that was accepted")


def _deletes(engine: OrderedKeyValue) -> None:
    engine.commit(WriteBatch(ranges=[(_PREFIX, _PREFIX + b"\xff" * 8)]), expect={})
    expect_equal(_keys(engine), [], "what a range delete left")
    _put(engine, b"a", b"b", b"c", b"d")
    batch = WriteBatch(ranges=[(_PREFIX + b"b", _PREFIX + b"d")], deletes={_PREFIX + b"a", _PREFIX + b"absent"})
    batch.puts[_PREFIX + b"c"] = b"new"
    engine.commit(batch, expect={})
    expect_equal(_keys(engine), [b"c", b"d"], "after a range, a delete and a put")


def _long_keys(engine: OrderedKeyValue, info: BackendInfo) -> str:
    size = info.max_key_bytes or 65_540
    one, other = (b"k" * (size - len(_PREFIX) - 1) + end for end in (b"1", b"2"))
    engine.commit(WriteBatch(puts={_PREFIX + one: b"1", _PREFIX + other: b"2"}), expect={})
    expect_equal((_find(engine, one), _find(engine, other)), (b"1", b"2"), "under two keys that differ at their ends")
    engine.commit(WriteBatch(deletes={_PREFIX + one, _PREFIX + other}), expect={})
    return f"{size:,} bytes"


def _long_value(engine: OrderedKeyValue) -> None:
    value = os.urandom(1 << 20)
    _put(engine, b"long", value=value)
    expect(_find(engine, b"long") == value, "another value came back")


# -- documents ---------------------------------------------------------------------------------


def _of_documents(storage: Storage) -> Iterator[Step]:
    yield "documents with fields of every type", partial(_every_type, storage)
    yield "documents are changed and deleted", partial(_changes, storage)
    yield "drops and clears, by partition", partial(_drops, storage)
    yield "counts, and scans page by page", partial(_counts, storage)
    yield "commits of documents compare and set", partial(_fences, storage)


def _upsert(key: bytes, partition: int = 0, /, **fields: tuple[FieldType, Any]) -> Upsert:
    data = {
        name: (kind, value if isinstance(value, bytes) else encode(name, kind, value))
        for name, (kind, value) in fields.items()
    }
    return Upsert(partition, key, {"id": (FieldType.BYTES, key), **data}, None)


def _commit(storage: Storage, *mutations: Mutation) -> None:
    """As the core commits."""
    found = storage.read_meta([_COMMIT])[0]
    storage.apply(mutations, meta={_COMMIT: b"%d" % (int(found or 0) + 1)}, expect={_COMMIT: found})


def _get(storage: Storage, key: bytes, partition: int = 0) -> dict[str, Any] | None:
    """A document's fields but its key."""
    row = storage.get(storage_key(partition, key), _ALL)
    if row is None:
        return None
    return {name: value for name, _, value in zip(*row, strict=True) if value is not None and name != "id"}


def _every_type(storage: Storage) -> None:
    _commit(storage, _upsert(b"types", **_VALUES), _upsert(b"kept", x=(FieldType.STRING, "1")))
    names, values = list(_VALUES), [value for _, value in _VALUES.values()]
    row = storage.get(storage_key(0, b"types"), Projection([*names, "absent"]))
    expect(row is not None, "the document is not there")
    assert row is not None
    expect_equal(list(row[2]), [*values, None], "the values")
    expect_equal(list(row[1]), [*(kind for kind, _ in _VALUES.values()), None], "their types")
    expect_equal(_get(storage, b"nobody"), None, "a document that is absent")


def _changes(storage: Storage) -> None:
    one, two = (FieldType.STRING, "1"), (FieldType.INT64, 2)
    _commit(storage, _upsert(b"d", x=one, y=one), _upsert(b"e", x=one))
    _commit(storage, _upsert(b"d", y=two), DeleteFields(0, b"d", frozenset({"x", "absent"}), None))
    _commit(storage, DeleteDocument(0, b"e", None), DeleteDocument(0, b"nobody", None))
    expect_equal((_get(storage, b"d"), _get(storage, b"e")), ({"y": 2}, None), "two documents")


def _drops(storage: Storage) -> None:
    value = (FieldType.STRING, "v")
    _commit(storage, *(_upsert(b"p", partition, ax=value, b=value) for partition in (1, 2)))
    _commit(storage, DropFields(1, frozenset({"b"}), ("a",), frozenset({"id"}), None))
    expect_equal((_get(storage, b"p", 1), _get(storage, b"p", 2)), ({}, {"ax": "v", "b": "v"}), "after a drop in 1")
    _commit(storage, _upsert(b"p", 1, b=value), Clear(2, None))
    expect_equal((_get(storage, b"p", 1), _get(storage, b"p", 2)), ({"b": "v"}, None), "after a clear of 2")


def _counts(storage: Storage) -> None:
    before = storage.count()
    _commit(storage, *(_upsert(b"n%02d" % n, 3) for n in range(25)))
    expect_equal(storage.count(), before + 25, "the count")
    keys, cursor = [], None
    while True:
        page = storage.scan(_ALL, after=cursor, limit=10)
        expect(len(page.rows) <= 10, f"a page of 10 has {len(page.rows)} documents")
        keys += [key for key, _ in page.rows]
        cursor = page.cursor
        if cursor is None:
            break
    expect_equal((len(keys), len(set(keys))), (before + 25, before + 25), "documents of all pages, and different ones")


def _fences(storage: Storage) -> None:
    stale: Meta = {_COMMIT: b"no such number"}
    batch = [_upsert(b"fenced", x=(FieldType.STRING, "1"))]
    expect_error(FencedError, lambda: storage.apply(batch, meta={_COMMIT: b"1000"}, expect=stale))
    expect_equal(_get(storage, b"fenced"), None, "a document of a refused commit")

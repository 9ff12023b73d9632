"""Documents over a key-value engine, seen from inside: damage, shapes, views, counts and reclaiming."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ikvcore import _commitplan
from ikvcore._kvstorage import KeyValueStorage
from ikvcore._record import GENERAL
from ikvcore._schema import PartitionState, field_entry, seal, shape_entry, unseal
from ikvcore.errors import FencedError, ReplicaDamagedError, StorageError
from ikvcore.fields import FieldType, encode_any
from ikvcore.models import (
    Clear,
    DeleteDocument,
    DeleteFields,
    DropFields,
    Mutation,
    Projection,
    Upsert,
    WriteBatch,
    storage_key,
)
from ikvcore.protocols import OrderedKeyValue
from ikvcore.testing.model import StoreModel, decoded

ALL = Projection(None)
PATIENCE = 30.0


@pytest.fixture(params=["memory", "lmdb"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OrderedKeyValue]:
    if request.param == "memory":
        from ikv_backends.memory import MemoryStorage

        opened: Any = MemoryStorage()
    else:
        from ikv_backends.lmdb import LmdbOptions, LmdbStorage

        opened = LmdbStorage(tmp_path, LmdbOptions(durability="process-crash"))
    yield opened
    opened.close()


@pytest.fixture
def storage(engine: OrderedKeyValue) -> KeyValueStorage:
    return KeyValueStorage(engine, max_key_bytes=511)


class Committer:
    """Commits as the ingester does, to a storage and to a model."""

    def __init__(self, storage: KeyValueStorage) -> None:
        self.storage = storage
        self.model = StoreModel({"id"})
        self.number = 0

    def apply(self, *mutations: Mutation) -> None:
        self.storage.apply(mutations, meta=self.next(), expect=self.now())
        self.number += 1
        self.model.apply(mutations)

    def reclaim(self, max_records: int) -> bool:
        more = self.storage.reclaim(max_records=max_records, meta=self.next(), expect=self.now())
        self.number += more
        return more

    def now(self) -> dict[bytes, bytes | None]:
        return {b"commit": b"%d" % self.number if self.number else None}

    def next(self) -> dict[bytes, bytes | None]:
        return {b"commit": b"%d" % (self.number + 1)}


def upsert(key: bytes, partition: int = 0, /, **fields: Any) -> Upsert:
    values = {name: encode_any(name, value) for name, value in fields.items()}
    return Upsert(partition, key, {"id": (FieldType.BYTES, key), **values}, None)


def drop(*names: str, partition: int = 0, prefixes: tuple[str, ...] = ()) -> DropFields:
    return DropFields(partition, frozenset(names), prefixes, frozenset({"id"}), None)


def document(storage: KeyValueStorage, key: bytes, partition: int = 0) -> dict[str, Any] | None:
    row = storage.get(storage_key(partition, key), ALL)
    return None if row is None else dict(zip(row[0], row[2], strict=True))


def contents(storage: KeyValueStorage) -> dict[tuple[int, bytes], dict[str, Any]]:
    found = {}
    cursor = None
    while True:
        page = storage.scan(ALL, after=cursor, limit=7)
        for key, row in page.rows:
            found[int.from_bytes(key[:2], "big"), key[2:]] = dict(zip(row[0], row[2], strict=True))
        cursor = page.cursor
        if cursor is None:
            return found


def expected(model: StoreModel) -> dict[tuple[int, bytes], dict[str, Any]]:
    return {(partition, key): decoded(fields) for partition, key, fields in model.documents()}


def check(committer: Committer) -> None:
    """Scan, gets, count, counts and digests all say what the model says."""
    wanted = expected(committer.model)
    assert contents(committer.storage) == wanted
    assert {place: document(committer.storage, place[1], place[0]) for place in wanted} == wanted
    assert committer.storage.count() == len(wanted)
    assert committer.storage.verify() == []


def stored(engine: OrderedKeyValue, prefix: bytes = b"") -> dict[bytes, bytes]:
    with engine.snapshot() as snapshot:
        pairs = engine.scan(snapshot, prefix, None)
        return {bytes(key): bytes(value) for key, value in pairs if key.startswith(prefix)}


def put(engine: OrderedKeyValue, puts: Mapping[bytes, bytes] | None = None, deletes: set[bytes] | None = None) -> None:
    """Change the engine behind the storage's back."""
    engine.commit(WriteBatch(puts=dict(puts or {}), deletes=set(deletes or ())), expect={})


def reopened(engine: OrderedKeyValue) -> KeyValueStorage:
    """A storage with nothing cached."""
    return KeyValueStorage(engine, max_key_bytes=511)


# -- damage ------------------------------------------------------------------------------------


def reads_of(storage: KeyValueStorage, key: bytes) -> list[Any]:
    one = Projection(("x",))
    return [
        lambda: storage.get(storage_key(0, key), one),
        lambda: storage.get(storage_key(0, key), ALL),
        lambda: storage.get_many([storage_key(0, key)], one),
        lambda: storage.scan(ALL, after=None, limit=10),
    ]


def test_every_flipped_bit_of_a_record_is_found(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """Every kind of read raises ReplicaDamagedError, never a value, and verify names it."""
    Committer(storage).apply(upsert(b"alice", x=7, name="Alice", raw=b"\x00\xff"))
    ((key, record),) = stored(engine, b"\x01").items()
    for bit in range(8 * len(record)):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        put(engine, {key: bytes(damaged)})
        for read in reads_of(storage, b"alice"):
            with pytest.raises(ReplicaDamagedError, match="alice"):
                read()
        assert any("alice" in sentence for sentence in storage.verify())
    put(engine, {key: record})
    assert storage.verify() == []


@pytest.mark.parametrize("length", [0, 1, 3, 4, 8, 12])
def test_a_cut_record_is_found(engine: OrderedKeyValue, storage: KeyValueStorage, length: int) -> None:
    Committer(storage).apply(upsert(b"alice", x=7))
    ((key, record),) = stored(engine, b"\x01").items()
    put(engine, {key: record[:length]})
    for read in reads_of(storage, b"alice"):
        with pytest.raises(ReplicaDamagedError):
            read()


def test_a_record_under_another_key_is_found(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """Two records that changed places are each whole, and yet not what was asked for."""
    Committer(storage).apply(upsert(b"alice", x=1), upsert(b"bobby", x=2), upsert(b"k" * 600, x=3))
    records = stored(engine, b"\x01") | stored(engine, b"\x02")
    keys = list(records)
    assert len(keys) == 3
    put(engine, {keys[0]: records[keys[1]], keys[1]: records[keys[2]], keys[2]: records[keys[0]]})
    for key in (b"alice", b"bobby", b"k" * 600):
        with pytest.raises(ReplicaDamagedError):
            storage.get(storage_key(0, key), ALL)
    assert len(storage.verify()) >= 3


def test_a_damaged_record_is_not_built_upon(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """An upsert of a damaged document fails, and changes nothing, instead of losing its other fields."""
    committer = Committer(storage)
    committer.apply(upsert(b"alice", x=1, y=2))
    ((key, record),) = stored(engine, b"\x01").items()
    put(engine, {key: record[:-1] + bytes([record[-1] ^ 1])})
    before = stored(engine)
    with pytest.raises(ReplicaDamagedError):
        committer.apply(upsert(b"alice", x=3))
    assert stored(engine) == before


@pytest.mark.parametrize("prefix", [b"\x00f", b"\x00s"])
def test_swapped_schema_entries_are_found(engine: OrderedKeyValue, storage: KeyValueStorage, prefix: bytes) -> None:
    """Field names that changed places would be wrong values under right checksums."""
    Committer(storage).apply(upsert(b"a", x=1, y=2), upsert(b"b", x=1))
    first, second = list(stored(engine, prefix).items())[-2:]
    put(engine, {first[0]: second[1], second[0]: first[1]})
    with pytest.raises(ReplicaDamagedError):
        document(reopened(engine), b"a")


@pytest.mark.parametrize("prefix", [b"\x00f", b"\x00s", b"\x00v"])
def test_a_damaged_or_missing_schema_entry_is_found(
    engine: OrderedKeyValue, storage: KeyValueStorage, prefix: bytes
) -> None:
    Committer(storage).apply(upsert(b"a", x=1, y=2))
    key, value = list(stored(engine, prefix).items())[-1]
    for bit in range(8 * len(value)):
        damaged = bytearray(value)
        damaged[bit // 8] ^= 1 << bit % 8
        put(engine, {key: bytes(damaged)})
        with pytest.raises(ReplicaDamagedError):
            document(reopened(engine), b"a")
    put(engine, deletes={key})
    with pytest.raises(ReplicaDamagedError):
        document(reopened(engine), b"a")


@pytest.mark.parametrize("what", ["deleted", "an earlier one"])
def test_a_drop_entry_that_is_not_the_last_one_is_found(
    engine: OrderedKeyValue, storage: KeyValueStorage, what: str
) -> None:
    """Though it is whole, or not there at all: what was dropped would be read again."""
    committer = Committer(storage)
    committer.apply(upsert(b"a", x=1, y=2), drop("x"))
    ((key, earlier),) = stored(engine, b"\x00p").items()
    committer.apply(drop("y"))
    assert reopened(engine).verify() == []
    put(engine, *([{}, {key}] if what == "deleted" else [{key: earlier}]))
    with pytest.raises(ReplicaDamagedError, match="there were 2"):
        document(reopened(engine), b"a")
    with pytest.raises(ReplicaDamagedError, match="there were 2"):
        Committer(reopened(engine)).apply(upsert(b"b", x=1))


def test_drops_are_counted_through_reclaiming(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    committer = Committer(storage)
    committer.apply(upsert(b"a", x=1, y=1), upsert(b"c", 1, x=1), drop("x"), Clear(1, None))
    while committer.reclaim(100):
        pass
    committer.apply(upsert(b"b", x=1), drop("x"))
    assert reopened(engine).verify() == []
    assert document(reopened(engine), b"a") == document(storage, b"a")


def test_a_schema_in_the_form_of_an_earlier_release_is_damage(
    engine: OrderedKeyValue, storage: KeyValueStorage
) -> None:
    """So the replica is built anew from the log."""
    Committer(storage).apply(upsert(b"a", x=1))
    ((key, value),) = stored(engine, b"\x00v").items()
    put(engine, {key: seal(key, unseal(key, value)[:16])})
    with pytest.raises(ReplicaDamagedError, match="not written by this release"):
        document(reopened(engine), b"a")


def test_a_damaged_drop_entry_is_found(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """What a drop removed does not come back because its entry was damaged."""
    Committer(storage).apply(upsert(b"a", x=1), drop("x"))
    ((key, value),) = stored(engine, b"\x00p").items()
    for bit in range(8 * len(value)):
        damaged = bytearray(value)
        damaged[bit // 8] ^= 1 << bit % 8
        put(engine, {key: bytes(damaged)})
        with pytest.raises(ReplicaDamagedError):
            document(reopened(engine), b"a")


def test_damaged_metadata_is_found(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    Committer(storage).apply(upsert(b"a", x=1))
    ((key, value),) = stored(engine, b"\x00m").items()
    put(engine, {key: value[:-1] + bytes([value[-1] ^ 1])})
    with pytest.raises(ReplicaDamagedError):
        storage.read_meta([b"commit"])
    with pytest.raises(ReplicaDamagedError):
        storage.scan_meta(b"")


# -- counts and digests ------------------------------------------------------------------------


def test_verify_finds_a_removed_record(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """A record that a damaged page hides is missed."""
    committer = Committer(storage)
    committer.apply(*(upsert(b"%d" % number, 1, x=number) for number in range(20)))
    put(engine, deletes={storage_key_of(engine, 5)})
    (sentence,) = storage.verify()
    assert "partition 1" in sentence
    assert "19" in sentence
    assert "20" in sentence


def test_verify_reads_the_metadata_too(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """Also what no read of a document needs: positions and quarantine."""
    Committer(storage).apply(upsert(b"a", x=1))
    storage.apply([], meta={b"p00": b"a position"}, expect={})
    assert storage.verify() == []
    put(engine, {b"\x00mp00": b"another position"})
    (sentence,) = storage.verify()
    assert "mp00" in sentence


def storage_key_of(engine: OrderedKeyValue, index: int) -> bytes:
    return list(stored(engine, b"\x01"))[index]


def test_verify_finds_an_old_version_of_a_record(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """The number of documents is right, the digest is not."""
    committer = Committer(storage)
    committer.apply(upsert(b"a", x=1))
    old = stored(engine, b"\x01")
    committer.apply(upsert(b"a", x=2))
    put(engine, old)
    assert document(storage, b"a") == {"id": b"a", "x": 1}
    assert len(storage.verify()) == 1


def test_verify_finds_a_changed_count(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    committer = Committer(storage)
    committer.apply(upsert(b"a", x=1))
    ((key, value),) = stored(engine, b"\x00c").items()
    changed = bytearray(unseal(key, value))
    changed[0] ^= 2
    put(engine, {key: seal(key, bytes(changed))})
    assert len(storage.verify()) == 1
    put(engine, deletes={key})
    assert len(storage.verify()) == 1


def test_verify_of_damaged_counts_is_loud(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """A count that fails its own checksum is told, as a sentence or as the error itself."""
    Committer(storage).apply(upsert(b"a", x=1))
    ((key, value),) = stored(engine, b"\x00c").items()
    put(engine, {key: value[:-1] + bytes([value[-1] ^ 1])})
    with suppress(ReplicaDamagedError):
        assert storage.verify()


def test_verify_reads_records_in_the_general_layout_too(
    engine: OrderedKeyValue, storage: KeyValueStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_commitplan, "MAX_SHAPES", 0)
    committer = Committer(storage)
    committer.apply(upsert(b"a", x=1), upsert(b"b", x=1))
    check(committer)
    put(engine, deletes={storage_key_of(engine, 0)})
    assert len(storage.verify()) == 1


# -- shapes and keys ---------------------------------------------------------------------------


def test_documents_beyond_the_last_shape_take_the_general_layout(
    engine: OrderedKeyValue, storage: KeyValueStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They read, change, count and drop like all others, also once the storage is opened anew."""
    monkeypatch.setattr(_commitplan, "MAX_SHAPES", 3)
    committer = Committer(storage)
    for number in range(8):
        committer.apply(upsert(b"%d" % number, **{f"f{number}": number, "s": f"text{number}", "e": ""}))
    layouts = [int.from_bytes(record[:4], "little") for record in stored(engine, b"\x01").values()]
    assert layouts == [1, 2, 3, *[GENERAL] * 5]
    assert len(stored(engine, b"\x00s")) == 3
    check(committer)
    committer.apply(upsert(b"7", f7="now a string", extra=b"x"), DeleteFields(0, b"6", frozenset({"s"}), None))
    committer.apply(drop("e"), upsert(b"5", e="again"), drop(prefixes=("f4",)))
    check(committer)
    committer.storage = reopened(engine)
    check(committer)
    row = storage.get(storage_key(0, b"7"), Projection(("f7", "nothing", "id", "f7")))
    assert row is not None
    assert list(row[2]) == ["now a string", None, b"7", "now a string"]


def test_the_number_of_shapes_is_bounded(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """With the real bound, in one commit and over several."""
    committer = Committer(storage)
    numbers = range(_commitplan.MAX_SHAPES + 20)
    half = len(numbers) // 2
    committer.apply(*(upsert(b"%d" % number, **{f"f{number}": number}) for number in numbers[:half]))
    committer.apply(*(upsert(b"%d" % number, **{f"f{number}": number}) for number in numbers[half:]))
    assert len(stored(engine, b"\x00s")) == _commitplan.MAX_SHAPES
    assert contents(reopened(engine)) == expected(committer.model)


def test_long_keys_lie_under_digests(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """The boundary is where tag, partition and key reach the engine's limit; the full key reads back."""
    committer = Committer(storage)
    lengths = [1, 507, 508, 509, 510, 511, 600, 65_535]
    for length in lengths:
        committer.apply(upsert(b"k" * length, 1, x=length), upsert(b"k" * length, 2, x=-length))
    assert [len(key) for key in stored(engine, b"\x01")] == [4, 510, 511] * 2
    assert {len(key) for key in stored(engine, b"\x02")} == {35}
    assert len(stored(engine, b"\x02")) == 10
    check(committer)
    committer.apply(DeleteDocument(1, b"k" * 600, None), drop("x", partition=2))
    committer.apply(upsert(b"k" * 65_535, 2, y=1), upsert(b"k" * 600, 1, z=2))
    check(committer)
    names = contents(storage)[1, b"k" * 65_535]
    assert set(names) == {"id", "x"}, "the full key that a digest record carries is not shown as a field"


# -- views -------------------------------------------------------------------------------------


def test_a_reader_never_sees_half_a_schema_change(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """C6: beside a writer that adds and drops fields, each read is of one commit.

    Commit n sets `n` and the fields of its parity to n and drops those of the other parity; so a document of both
    parities, of none, or of a stale number would be a mixed state.
    """
    committer = Committer(storage)
    stop = threading.Event()
    wrong: list[object] = []
    seen: set[int] = set()

    def sane(found: dict[str, Any] | None) -> bool:
        if found is None:
            return False
        number = found["n"]
        seen.add(number)
        return found == {"id": b"a", "n": number, f"x{number % 2}": number, f"y{number % 2}": number, f"new{number}": 0}

    def read() -> None:
        named = Projection(("n", "x0", "x1"))
        while not stop.is_set():
            found = document(storage, b"a")
            if not sane(found):
                wrong.append(found)
            row = storage.get_many([storage_key(0, b"a")], named)[0]
            number, *values = row[2] if row is not None else (None, None)
            if row is None or values != ([number, None] if number % 2 == 0 else [None, number]):
                wrong.append(row)
            page = storage.scan(ALL, after=None, limit=5)
            if not sane(dict(zip(page.rows[0][1][0], page.rows[0][1][2], strict=True))):
                wrong.append(page)

    def change(number: int) -> list[Mutation]:
        parity, other = number % 2, 1 - number % 2
        fields = {"n": number, f"x{parity}": number, f"y{parity}": number, f"new{number}": 0}
        return [drop(f"x{other}", f"y{other}", prefixes=("new",)), upsert(b"a", **fields)]

    committer.apply(*change(0))
    readers = [threading.Thread(target=read, daemon=True) for _ in range(2)]
    for reader in readers:
        reader.start()
    number = 0
    while number < 250 or (len(seen) <= 5 and number < 20_000):
        number += 1
        committer.apply(*change(number))
    stop.set()
    for reader in readers:
        reader.join(PATIENCE)
        assert not reader.is_alive()
    assert wrong == []
    assert len(seen) > 5, "the readers ran beside the writer"


def test_a_held_older_state_reads_as_it_was(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """A view is chosen by the schema version in the snapshot itself, whatever newer states others have read since."""
    committer = Committer(storage)
    committer.apply(upsert(b"a", x=1))
    with engine.snapshot() as old:
        other = threading.Thread(target=lambda: (committer.apply(drop("x"), upsert(b"a", y=2)), check(committer)))
        other.start()
        other.join(PATIENCE)
        assert not other.is_alive()
        view = storage._current_view(old)
        row = storage._row(b"\x01\x00\x00a", old.get(b"\x01\x00\x00a") or b"", view, Projection(("x", "y")))
        assert row is not None
        assert list(row[2]) == [1, None]
    assert document(storage, b"a") == {"id": b"a", "y": 2}


class LateNumbers:
    """An engine that gives a state the id of an earlier one, as LMDB does now and then: it takes the id, is kept from
    running for two commits, and only then takes what it reads.
    """

    def __init__(self, engine: OrderedKeyValue) -> None:
        self._engine = engine
        self.state: int | None = None
        """The id that the next snapshot has instead of its own."""
        self.held: Any = None
        """The snapshot that is given instead of a new one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def snapshot(self) -> Any:
        if self.held is not None:
            return contextlib.nullcontext(self.held)
        state, self.state = self.state, None
        return _Late(self._engine.snapshot(), state)


class _Late:
    def __init__(self, snapshot: Any, state: int | None) -> None:
        self._snapshot = snapshot
        self._state = state

    def __enter__(self) -> _Late:
        self._snapshot.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._snapshot.__exit__(*exc)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._snapshot, name)

    def id(self) -> int:
        found: int = self._snapshot.id()
        return found if self._state is None else self._state


def test_a_state_under_the_id_of_an_earlier_one_is_read_as_it_is(
    engine: OrderedKeyValue, storage: KeyValueStorage
) -> None:
    """New shapes are known, what was dropped is not shown, and the view does not stay under that id."""
    late: Any = LateNumbers(engine)
    follower = KeyValueStorage(late, max_key_bytes=511)
    committer = Committer(storage)
    committer.apply(upsert(b"a", x=1), upsert(b"b", x=1))
    with engine.snapshot() as old:
        assert document(follower, b"a") == {"id": b"a", "x": 1}  # from here on it knows this state by its id
        other = threading.Thread(target=lambda: committer.apply(drop("x"), upsert(b"b", y=2)))
        other.start()
        other.join(PATIENCE)
        assert not other.is_alive()
        late.state = old.id()
        row = follower.get(storage_key(0, b"b"), Projection(("y",)))
        assert row is not None, "one field of a shape that the view of that id does not know"
        assert list(row[2]) == [2]
        late.held = old
        assert document(follower, b"a") == {"id": b"a", "x": 1}
        late.held, late.state = None, old.id()
        assert contents(follower) == expected(committer.model), "and no document as it was before the drop"
        late.held = old
        row = follower.get(storage_key(0, b"a"), Projection(("x",)))
        assert row is not None
        assert list(row[2]) == [1], "the state that the id belongs to is read by its own view"


def test_a_second_storage_on_the_engine_follows_the_first(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """As in another process: fields, shapes and drops that others commit are seen by the next read."""
    follower = reopened(engine)
    committer = Committer(storage)
    for number in range(30):
        committer.apply(upsert(b"a", **{f"f{number}": number}), *([drop(f"f{number - 1}")] if number % 3 == 0 else []))
        assert contents(follower) == expected(committer.model)
        assert document(follower, b"a") == expected(committer.model)[0, b"a"]


def test_a_fenced_commit_leaves_no_id_behind(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """C5: field and shape ids that a failed commit thought of are thrown away."""
    committer = Committer(storage)
    committer.apply(upsert(b"a", x=1))
    before = stored(engine)
    with pytest.raises(FencedError):
        storage.apply([upsert(b"a", mine=1)], meta={b"commit": b"9"}, expect={b"commit": b"8"})
    assert stored(engine) == before
    committer.apply(upsert(b"a", theirs=2))
    names = {key: unseal(key, value) for key, value in stored(engine, b"\x00f").items()}
    assert sorted(names.values()) == [b"id", b"theirs", b"x"]
    check(committer)
    assert document(storage, b"a") == {"id": b"a", "x": 1, "theirs": 2}
    assert storage.get(storage_key(0, b"a"), Projection(["mine"]))[2] == (None,)  # type: ignore[index]
    committer.apply(upsert(b"a", mine=3))
    check(committer)
    assert document(storage, b"a") == {"id": b"a", "x": 1, "theirs": 2, "mine": 3}
    assert document(KeyValueStorage(engine, max_key_bytes=None), b"a") == document(storage, b"a")


def test_an_engine_failure_becomes_a_storage_error(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    Committer(storage).apply(upsert(b"a", x=1))
    storage.close()
    for call in (
        lambda: storage.get(storage_key(0, b"a"), ALL),
        lambda: storage.get_many([storage_key(0, b"a")], ALL),
        lambda: storage.scan(ALL, after=None, limit=1),
        lambda: storage.count(),
        lambda: storage.read_meta([b"commit"]),
        lambda: storage.apply([upsert(b"a", x=2)], meta={}, expect={}),
        lambda: storage.reclaim(max_records=1, meta={}, expect={}),
        lambda: storage.verify(),
    ):
        with pytest.raises(StorageError, match="closed"):
            call()


# -- reclaiming --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_reclaiming_changes_nothing_visible(
    engine: OrderedKeyValue, storage: KeyValueStorage, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C3.11: small steps between writes, new drops, clears and restarts; in the end every drop is forgotten."""
    rng = random.Random(seed)
    monkeypatch.setattr(_commitplan, "MAX_SHAPES", 6)  # so that some records take the general layout
    committer = Committer(storage)
    keys = [b"%d" % number for number in range(12)] + [b"k" * 600, b"l" * 700]
    names = ["a", "ab", "b", "c"]
    for _ in range(120):
        partition, key = rng.randrange(3) if rng.random() < 0.9 else 0xFFFF, rng.choice(keys)
        action = rng.random()
        if action < 0.55:
            fields = {name: rng.randrange(100) for name in rng.sample(names, rng.randrange(4))}
            committer.apply(upsert(key, partition, **fields))
        elif action < 0.65:
            committer.apply(DeleteDocument(partition, key, None))
        elif action < 0.72:
            committer.apply(DeleteFields(partition, key, frozenset(rng.sample(names, 2)), None))
        elif action < 0.80:
            committer.apply(drop(rng.choice(names), partition=partition))
        elif action < 0.83:
            committer.apply(drop(partition=partition, prefixes=("a",)), upsert(key, partition, a=1))
        elif action < 0.86:
            committer.apply(upsert(key, partition, c=9), Clear(partition, None), upsert(key, partition, b=1))
        elif action < 0.88:
            committer.storage = reopened(engine)
        else:
            committer.reclaim(rng.choice([1, 2, 5]))
        check(committer)
    steps = 0
    while committer.reclaim(3):
        steps += 1
        assert steps < 1_000
        check(committer)
    for key, value in stored(engine, b"\x00p").items():
        assert PartitionState.from_entry(unseal(key, value)).floor == 0
    records = len(stored(engine, b"\x01")) + len(stored(engine, b"\x02"))
    assert records == storage.count(), "what clears removed is gone from the engine"
    check(committer)


def test_a_reclaiming_pass_of_long_ago_does_no_harm(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """An ingester that stopped in the middle of a pass goes on after another one finished passes and drops came."""
    committer = Committer(storage)
    committer.apply(*(upsert(b"%d" % number, x=number, y=number) for number in range(10)))
    committer.apply(drop("x"))
    committer.reclaim(4)
    committer.storage = reopened(engine)
    while committer.reclaim(3):
        pass
    committer.apply(*(upsert(b"%d" % number, x=-number) for number in range(10)), drop("y"), upsert(b"3", y=1))
    committer.storage = storage
    while committer.reclaim(3):
        check(committer)
    check(committer)
    assert document(storage, b"0") == {"id": b"0", "x": 0}


def test_reclaiming_gives_the_bytes_back(engine: OrderedKeyValue, storage: KeyValueStorage) -> None:
    """Dropped values are in the records no more."""
    committer = Committer(storage)
    committer.apply(*(upsert(b"%d" % number, x=b"secret" * 10, y=1) for number in range(5)), drop("x"))
    committer.apply(upsert(b"other", 1, x=b"secret"))
    while committer.reclaim(2):
        pass
    left = [key for key, record in stored(engine, b"\x01").items() if b"secret" in record]
    assert left == [b"\x01\x00\x01other"], "another partition's values are untouched"


def test_schema_entries_are_sealed_with_their_keys() -> None:
    """The entries that the tests above swap are different under each other's keys."""
    for entry in (field_entry(1, "x"), shape_entry(1, ((1, FieldType.INT64),))):
        with pytest.raises(ReplicaDamagedError):
            unseal(entry[0] + b"\x00", entry[1])

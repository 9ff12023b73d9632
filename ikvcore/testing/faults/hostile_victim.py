"""Bytes that somebody else made: each is taken for what it seems to be, under a limit on memory."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from ikv_transports import _local_entries, _local_home
from ikvcore._damage import Damage
from ikvcore._events import BadEvent, decode_event
from ikvcore._fold import fold
from ikvcore._kvstorage import KeyValueStorage
from ikvcore._mount import Manifest, Mount
from ikvcore._opened import Opened
from ikvcore._progress import PartitionProgress
from ikvcore._sealed_json import dump_sealed
from ikvcore._status import Status
from ikvcore.errors import IKVError, InvalidTokenError, ReplicaDamagedError, StorageError, TransportError
from ikvcore.models import LogMessage, Message, Mutation, Projection, StoreDescription, WriteBatch
from ikvcore.testing._plugins import open_backend
from ikvcore.testing.faults.workload import Workload, perform
from ikvcore.tokens import Token

__all__ = ["KINDS", "feed"]

_STORE: Final = StoreDescription(
    store_name="s", account_id="a", identity="0" * 32, primary_key="id", partitions=3, max_event_bytes=1 << 16
)
_WORK: Final = Workload(seed=5, keys=20, payload=12)
_EVERYTHING: Final = Projection(None)
_BATCH: Final = 200
_SHOWN: Final = 5

Refusal = type[Exception] | tuple[type[Exception], ...]


def feed(kind: str, seed: int, inputs: int) -> dict[str, Any]:
    """Take so many mutated inputs; how many were taken and refused, and what was raised that must not be."""
    dice = random.Random(f"{kind}/{seed}")
    corpus, take, declared = KINDS[kind]()
    taken = refused = wrong = 0
    shown: list[str] = []
    for number in range(inputs):
        data = dice.choice(corpus) if number % 50 == 0 else _mutated(dice, corpus)
        try:
            take(data)
            taken += 1
        except declared:
            refused += 1
        except Exception as exc:
            wrong += 1
            if len(shown) < _SHOWN:
                shown.append(f"{kind} {data[:200]!r}: {type(exc).__name__}: {exc}")
    return {"taken": taken, "refused": refused, "wrong": wrong, "shown": shown}


def _mutated(dice: random.Random, corpus: Sequence[bytes]) -> bytes:
    data = bytearray(dice.choice(corpus))
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(8):
            case 0 | 1 if data:
                data[at % len(data)] ^= 1 << dice.randrange(8)
            case 2 if data:
                data[at % len(data)] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
            case 3:
                del data[at : at + dice.choice((1, 1, 4, 100))]
            case 4:
                data[at:at] = dice.choice((b"\0", b"\xff" * 10, b"9" * 20, b'"', b"}", b"\xc3", dice.randbytes(4)))
            case 5:
                other = dice.choice(corpus)
                data[at : at + dice.randrange(8)] = other[dice.randrange(len(other) + 1) :][: dice.randrange(40)]
            case 6:
                data[at:at] = data[at : at + dice.randrange(30)]
            case _:
                del data[at:]
    return bytes(data)


# -- what is fed to what ---------------------------------------------------------------------------

Kind = tuple[Sequence[bytes], Callable[[bytes], object], Refusal]


def _event_corpus() -> list[bytes]:
    """Events as writers publish them."""
    from ikvcore._writer import Writer  # it is the class behind create_new_writer

    values: list[bytes] = []

    class _Catch:
        def describe(self) -> StoreDescription:
            return _STORE

        def publish(self, messages: Sequence[Message]) -> Token:
            values.extend(message.value for message in messages)
            return Token()

        def close(self) -> None:
            pass

    writer = Writer(lambda: _Catch())  # type: ignore[arg-type, return-value]
    writer.startup()
    for number in range(300):
        perform(writer, _WORK.call(0, number), _STORE)
    return list(dict.fromkeys(values))


def _events() -> Kind:
    storage = KeyValueStorage(open_backend("memory", Path(), {}), max_key_bytes=511)  # type: ignore[arg-type]
    waiting: list[Mutation] = []

    def take(data: bytes) -> None:
        mutation = decode_event(LogMessage(1, 5, data[:3], data, 7), _STORE)
        if mutation is not None:
            waiting.append(mutation)
            if len(waiting) == _BATCH:  # what was found good is good enough for a storage
                storage.apply(fold(waiting), meta={}, expect={})
                waiting.clear()

    return _event_corpus(), take, BadEvent


def _records() -> Kind:
    engine: Any = open_backend("memory", Path(), {})
    storage = KeyValueStorage(engine, max_key_bytes=511)
    for data in _event_corpus()[:200]:
        mutation = decode_event(LogMessage(1, 5, b"", data, 7), _STORE)
        if mutation is not None:
            storage.apply([mutation], meta={}, expect={})
    key = b"\x01\x00\x01key-1"
    with engine.snapshot() as snapshot:
        corpus = [record for _, record in engine.scan(snapshot, b"\x01", b"\x03")]
        state = dict(engine.scan(snapshot, b"\x00", b"\x01"))
    turn = iter(range(sys.maxsize))

    def take(data: bytes) -> None:
        number = next(turn)
        if number % 2:  # with a checksum that is right, as whoever writes files on purpose would make it
            data = data[:-4] + crc32(data[:-4], crc32(key)).to_bytes(4, "little")
        puts = {key: data}
        if number % 16 == 0:
            name = sorted(state)[number // 16 % len(state)]
            sealed = data[4:]
            puts = {name: sealed + crc32(sealed, crc32(name)).to_bytes(4, "little")}
        engine.commit(WriteBatch(puts=puts), expect={})
        fresh = KeyValueStorage(engine, max_key_bytes=511) if number % 16 == 0 else storage
        try:
            fresh.get(key[1:], _EVERYTHING)
            fresh.get(key[1:], Projection(("f1", "w", "payload")))
            fresh.get_many([key[1:]], _EVERYTHING)
            fresh.scan(_EVERYTHING, after=None, limit=10)
            if number % 64 == 0:
                fresh.verify()
        finally:
            if number % 16 == 0:
                engine.commit(WriteBatch(puts={name: state[name]}), expect={})

    return corpus, take, StorageError


def _entries() -> Kind:
    keys = [_local_entries.entry_key(partition, 7) for partition in range(3)]
    corpus = []
    for data in _event_corpus()[:100]:
        key, stored = _local_entries.encode(Message(1, data[:4], data, 7)).at(7)
        corpus.append(bytes([len(key)]) + key + stored)
    turn = iter(range(sys.maxsize))

    def take(data: bytes) -> None:
        size = data[0] if data else 0
        key, stored = data[1 : 1 + size], data[1 + size :]
        if next(turn) % 2:
            stored = stored[:-4] + crc32(key, crc32(stored[:-4])).to_bytes(4, "big")
        _local_entries.decode(key, stored, expected=7)
        _local_entries.decode(keys[1], stored, expected=7)

    return corpus, take, TransportError


def _tokens() -> Kind:
    corpus = [str(Token("0" * 32, {0: 5, 1: 10**30, 65_535: 1})), str(Token()), str(Token("x", {3: 0}))]
    return [text.encode() for text in corpus], lambda data: Token.parse(data.decode("latin-1")), InvalidTokenError


def _progress() -> Kind:
    done = PartitionProgress(position=5, applied=4, timestamp=10**18)
    message = LogMessage(0, 5, b"k", b"v", 3)
    entries = [done.entry(0)[1], done.past(message, identity="i", timestamp=3, passed=1, bad=1).entry(0)[1]]
    return entries, PartitionProgress.from_entry, ReplicaDamagedError


def _manifests() -> Kind:
    place = Path(tempfile.mkdtemp(prefix="hostile-", dir=os.environ["IKV_HOME"]))
    manifest = Manifest(description=_STORE, backend="lmdb", partitions=(0, 1, 2), history="full")
    mount = Mount.open(place, manifest)
    Damage(generation="gen-1", reason="é").write(place)
    Opened.mark(place, clean=False)
    Status(halts={1: "x"}, failure=("TransportError", "y")).write(place)
    (place / "store.json").write_bytes(dump_sealed({"format": 1, **_STORE.to_json()}))
    (place / "account.json").write_bytes(
        dump_sealed({"format": 1, "account_id": "a", "passkey": f"$scrypt$ln=14,r=8,p=5${'A' * 22}${'B' * 43}"})
    )
    takes: dict[str, Callable[[], object]] = {
        "replica.json": lambda: Mount.open(place, manifest),
        "CURRENT": mount.generation,
        "damage.json": lambda: Damage.read(place, "gen-1"),
        "opened.json": lambda: Opened.suspect(place),
        "status.json": lambda: Status.read(place),
        "store.json": lambda: _local_home._read_description(place),
        "account.json": lambda: _local_home._read_json(place / "account.json"),
    }
    names = sorted(takes)
    corpus = [bytes([number]) + (place / name).read_bytes() for number, name in enumerate(names)]
    whole = {name: (place / name).read_bytes() for name in names}

    def take(data: bytes) -> None:
        name = names[(data[0] if data else 0) % len(names)]
        content = data[1:]
        if len(data) % 2:
            content = _sealed_again(content)
        (place / name).write_bytes(content)
        try:
            takes[name]()
        finally:
            (place / name).write_bytes(whole[name])

    return corpus, take, IKVError


def _sealed_again(content: bytes) -> bytes:
    """With a checksum that is right, where it is JSON at all."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if isinstance(found, dict):
        found.pop("checksum", None)
        return dump_sealed(found)
    return content


KINDS: Final[dict[str, Callable[[], Kind]]] = {
    "events": _events,
    "records": _records,
    "log entries": _entries,
    "tokens": _tokens,
    "positions": _progress,
    "manifests": _manifests,
}
"""What is fed, and to what."""

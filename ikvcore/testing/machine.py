"""Random events against a plain dict: a hypothesis state machine over writer and reader, with restarts of both.

A test file:

    TestMine = store_machine("my-backend", "local", partitions=3).TestCase
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ikvcore._registry import load_backend
from ikvcore.document import IKVDocument
from ikvcore.fields import FieldBytes, FieldType, encode
from ikvcore.testing._live import LiveStore
from ikvcore.testing._storage_base import bits
from ikvcore.testing.model import StoreModel, decoded
from ikvcore.tokens import Token

__all__ = ["store_machine"]

KEYS = st.sampled_from(["a", "b", "c", "é", "a\x00", "k" * 600, "k" * 599 + "l"])
NAMES = st.sampled_from(["f", "fa", "fab", "g", "ga", "F", "é"])
PREFIXES = st.sampled_from(["f", "fa", "g", "F", "z", "i", ""])
VALUES = st.one_of(
    st.tuples(st.just(FieldType.INT32), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just(FieldType.INT64), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just(FieldType.FLOAT32), st.floats(width=32)),
    st.tuples(st.just(FieldType.FLOAT64), st.floats()),
    st.tuples(st.just(FieldType.STRING), st.text(max_size=8)),
    st.tuples(st.just(FieldType.BYTES), st.binary(max_size=8)),
    st.tuples(st.just(FieldType.BOOLEAN), st.booleans()),
).map(lambda pair: (pair[0], encode("field", *pair)))
FIELDS = st.dictionaries(NAMES, VALUES, max_size=4)
SOME_NAMES = st.lists(st.one_of(NAMES, st.sampled_from(["id", "never"])), max_size=3)

_GETTERS = {
    FieldType.INT32: "get_int32_value",
    FieldType.INT64: "get_int64_value",
    FieldType.FLOAT32: "get_float32_value",
    FieldType.FLOAT64: "get_float64_value",
    FieldType.STRING: "get_string_value",
    FieldType.BYTES: "get_bytes_value",
    FieldType.BOOLEAN: "get_bool_value",
}


def store_machine(
    backend: str,
    transport: str,
    *,
    partitions: int = 3,
    max_examples: int = 25,
    steps: int = 25,
    backend_options: Mapping[str, Any] | None = None,
    transport_options: Mapping[str, Any] | None = None,
) -> type[RuleBasedStateMachine]:
    """A state machine class for this pair; its attribute TestCase is what pytest collects.

    The runs are the same every time, and bounded by `max_examples` runs of `steps` steps.
    """

    class Machine(StoreMachine):
        def open_store(self, directory: Path) -> LiveStore:
            return LiveStore(
                backend=backend,
                transport=transport,
                directory=None if load_backend(backend).info.volatile else directory,
                backend_options=backend_options,
                transport_options=transport_options,
                account_id=f"machine-{backend}-{transport}-{os.getpid()}",
                partitions=partitions,
            )

    Machine.__name__ = Machine.__qualname__ = f"StoreMachine_{backend}_{transport}"
    Machine.TestCase.settings = settings(
        max_examples=max_examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    return Machine


class StoreMachine(RuleBasedStateMachine):
    """Writes go to the store and to the model; what the reader shows must equal the model.

    Keys are routed by the primary key, and drops go everywhere, so the model needs one partition only: the order of
    events of one key is the order of the calls.
    """

    def open_store(self, directory: Path) -> LiveStore:
        """A new store."""
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ikv-machine-"))
        self.environment = dict(os.environ)
        os.environ["IKV_HOME"] = _home()
        self.store = self.open_store(self.directory)
        self.model = StoreModel({"id"})
        self.pending = Token()
        self.published = 0
        self.seen: set[str] = {"missing"}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            try:
                self.compare()
            finally:
                self.store.close()
                shutil.rmtree(self.directory)
                os.environ.clear()
                os.environ.update(self.environment)

    # -- writes --------------------------------------------------------------------------------

    @rule(key=KEYS, fields=FIELDS)
    def upsert(self, key: str, fields: dict[str, FieldBytes]) -> None:
        self._published(self.store.writer.upsert_fields(self._upserted(key, fields)), 1)

    @rule(rows=st.lists(st.tuples(KEYS, FIELDS), max_size=8))
    def upsert_batch(self, rows: list[tuple[str, dict[str, FieldBytes]]]) -> None:
        batch = [self._upserted(key, fields) for key, fields in rows]
        self._published(self.store.writer.upsert_fields_batch(batch), len(rows))

    @rule(key=KEYS, values=st.lists(VALUES, min_size=2, max_size=4))
    def change_types(self, key: str, values: list[FieldBytes]) -> None:
        batch = [self._upserted(key, {"f": value}) for value in values]
        self._published(self.store.writer.upsert_fields_batch(batch), len(values))

    @rule(key=KEYS, names=SOME_NAMES)
    def delete_fields(self, key: str, names: list[str]) -> None:
        token = self.store.writer.delete_fields(_document(key, {}), names)
        self.model.delete_fields(0, key.encode(), names)
        self._published(token, 1 if set(names) - {"id"} else 0)

    @rule(key=KEYS)
    def delete_document(self, key: str) -> None:
        self.model.delete_document(0, key.encode())
        self._published(self.store.writer.delete_document(_document(key, {})), 1)

    @rule(keys=st.lists(KEYS, max_size=4))
    def delete_documents(self, keys: list[str]) -> None:
        for key in keys:
            self.model.delete_document(0, key.encode())
        batch = [_document(key, {}) for key in keys]
        self._published(self.store.writer.delete_document_batch(batch), len(keys))

    @rule(names=SOME_NAMES)
    def drop_by_name(self, names: list[str]) -> None:
        self.model.drop(0, names)
        self._dropped(self.store.writer.drop_fields_by_name(names))

    @rule(prefixes=st.lists(PREFIXES, max_size=2))
    def drop_by_prefix(self, prefixes: list[str]) -> None:
        self.model.drop(0, prefixes=prefixes)
        self._dropped(self.store.writer.drop_fields_by_name_prefix(prefixes))

    @rule()
    def drop_all(self) -> None:
        self.model.clear(0)
        self._dropped(self.store.writer.drop_all_fields())

    # -- restarts and reads --------------------------------------------------------------------

    @rule()
    def restart_reader(self) -> None:
        self.store.restart_reader()

    @rule()
    def restart_writer(self) -> None:
        self.store.restart_writer()

    @precondition(lambda self: bool(self.pending))
    @rule()
    def compare(self) -> None:
        self.store.shown(self.pending)
        self.pending = Token()
        self._compare_documents()
        self._compare_values()
        stats = self.store.reader.stats()
        assert (stats.events_applied, stats.bad_events) == (self.published, 0)
        assert stats.documents == self.model.count()

    def _compare_documents(self) -> None:
        reader, keys = self.store.reader, sorted(self.seen)
        expected = {key: self.model.values(0, key.encode()) for key in keys}
        assert _bitwise({key: reader.get_document(key) for key in keys}) == _bitwise(expected)
        assert _bitwise(dict(zip(keys, reader.multiget_documents(keys), strict=True))) == _bitwise(expected)
        there = {key: fields for key, fields in expected.items() if fields is not None}
        scanned = list(reader.scan())
        assert len(scanned) == len(there) == reader.count()
        assert _bitwise(dict(scanned)) == _bitwise(there)

    def _compare_values(self) -> None:
        reader, names, keys = self.store.reader, ["ga", "f", "id", "fab", "f", "never"], sorted(self.seen)
        found = iter(list(reader.multiget_values([key.encode() for key in keys], names)))
        for key in keys:
            document = self.model.get(0, key.encode()) or {}
            values = decoded(document)
            for name in names:
                assert bits(next(found)) == bits(values.get(name))
            for name, (field_type, _) in document.items():
                value = getattr(reader, _GETTERS[field_type])(key, name)
                assert bits(value) == bits(values[name])
        assert next(found, "end") == "end"

    # -- parts ---------------------------------------------------------------------------------

    def _upserted(self, key: str, fields: dict[str, FieldBytes]) -> IKVDocument:
        self.seen.add(key)
        document = _document(key, fields)
        self.model.upsert(0, key.encode(), document.fields)
        return document

    def _published(self, token: Token, events: int) -> None:
        assert bool(token) == (events > 0)
        self.pending |= token
        self.published += events

    def _dropped(self, token: Token) -> None:
        partitions = self.store.description.partitions
        assert set(token.positions) in (set(), set(range(partitions)))
        self._published(token, len(token.positions))


@functools.cache
def _home() -> str:
    """IKV_HOME of all machines of this process, so that their accounts' slow passkeys are verified once."""
    home = tempfile.mkdtemp(prefix="ikv-machines-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


def _document(key: str, fields: Mapping[str, FieldBytes]) -> IKVDocument:
    return IKVDocument({"id": (FieldType.STRING, key.encode()), **fields})


def _bitwise(documents: Mapping[Any, Mapping[str, Any] | None]) -> object:
    return {
        key: None if fields is None else {name: (type(value), bits(value)) for name, value in fields.items()}
        for key, fields in documents.items()
    }

"""reader.query: one SELECT over the replica's documents, which changes nothing and waits for nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ikvcore.errors import (
    InvalidArgumentError,
    NotStartedError,
    QueryError,
    RequirementError,
    ShutDownError,
)
from ikvcore.testing._live import LiveStore, document

PATIENCE = 60.0
ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveStore]:
    monkeypatch.setenv("IKV_HOME", str(tmp_path / "home"))
    store = LiveStore(backend="duckdb", transport="memory", directory=tmp_path / "mounts")
    yield store
    store.close()


def put(store: LiveStore, **fields: object) -> None:
    store.reader.wait_for(store.writer.upsert_fields(document(**fields)), PATIENCE)


def test_an_arrow_table_of_columns_under_the_fields_names(store: LiveStore) -> None:
    put(store, id="a", age=30, name="Ann", score=0.5)
    put(store, id="b", age=40, ok=True)
    table = store.reader.query("SELECT id, age, name, score, ok FROM documents ORDER BY id")
    assert table.schema.names == ["id", "age", "name", "score", "ok"]
    assert [str(field.type) for field in table.schema] == ["string", "int64", "string", "double", "bool"]
    assert table.to_pylist() == [
        {"id": "a", "age": 30, "name": "Ann", "score": 0.5, "ok": None},
        {"id": "b", "age": 40, "name": None, "score": None, "ok": True},
    ]
    assert store.reader.query("FROM documents WHERE id = 'nobody'").num_rows == 0


def test_parameters_by_place_and_by_name(store: LiveStore) -> None:
    put(store, id="a", age=30)
    query = store.reader.query
    assert query("SELECT id FROM documents WHERE age > ? AND id = ?", [29, "a"]).num_rows == 1
    assert query("SELECT id FROM documents WHERE age > $age;", {"age": 30}).num_rows == 0
    with pytest.raises(QueryError):
        query("SELECT id FROM documents WHERE age > ?")


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("", "0 statements"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELEC 1", "syntax error"),
        ("SELECT nothing FROM documents", 'column "nothing" not found'),
        ("INSERT INTO ikv.meta VALUES ('a', 'b')", "no SELECT but INSERT"),
        ("DELETE FROM ikv.rows", "no SELECT but DELETE"),
        ("CREATE TABLE mine (x INTEGER)", "no SELECT but CREATE"),
        ("ATTACH '/tmp/other.db'", "no SELECT but ATTACH"),
        ("COPY documents TO '/tmp/stolen.csv'", "no SELECT but COPY"),
        ("SET threads = 1", "no SELECT but SET"),
        ("PRAGMA version", "no SELECT but PRAGMA"),
        ("INSTALL httpfs", "no SELECT but LOAD"),
        ("BEGIN", "no SELECT but TRANSACTION"),
        ("WITH gone AS (DELETE FROM ikv.rows RETURNING k) SELECT * FROM gone", "read-only"),
        ("SELECT * FROM read_text('/etc/passwd')", "disabled by configuration"),
        ("SELECT * FROM read_csv('https://example.com/x.csv')", ""),
        ("SELECT * FROM glob('/*')", "disabled by configuration"),
        ("SELECT * FROM store", "does not exist"),
        ("SELECT * FROM checkpoint()", "the function checkpoint"),
        ('SELECT (SELECT count(*) FROM system.main."Force_Checkpoint"())', "the function force_checkpoint"),
        ("WITH a AS (SELECT 1), b AS (FROM checkpoint/* */()) FROM a, b", "the function checkpoint"),
        ("SELECT * FROM query('FROM check' || 'point()')", "the function query"),
        ("SELECT * FROM json_execute_serialized_sql(json_serialize_sql('FROM checkpoint()'))", "the function json_exe"),
        ("SELECT id FROM documents WHERE write_log('x') IS NULL", "the function write_log"),
        ("SELECT * FROM truncate_duckdb_logs()", "the function truncate_duckdb_logs"),
        ("FROM register_external_resource('x', 'y', MAP {'a': 'b'})", "the function register_external_resource"),
        ("FROM register_external_resource_type('x', kind := 'compute', create_function := 'a')", "the function regist"),
        ("FROM deregister_external_resource('x')", "the function deregister_external_resource"),
        ("FROM create_external_resource('x', MAP {'a': 'b'})", "the function create_external_resource"),
        ("FROM destroy_external_resource('check' || 'point', 1)", "the function destroy_external_resource"),
        ("SELECT 'x'::INTEGER", "Could not convert"),
    ],
)
def test_anything_else_is_refused_and_changes_nothing(store: LiveStore, sql: str, reason: str) -> None:
    put(store, id="a", age=30)
    with pytest.raises(QueryError) as caught:
        store.reader.query(sql)
    assert reason.lower() in str(caught.value).lower()
    assert isinstance(caught.value, InvalidArgumentError)
    assert "\n" not in str(caught.value)
    assert store.reader.get_document("a") == {"id": "a", "age": 30}
    assert store.reader.query("SELECT count(*) AS n FROM documents")["n"].to_pylist() == [1]


def test_what_only_looks_like_a_call_is_none(store: LiveStore) -> None:
    """In a string, as a name; and a query may be deeper than Python's own stack."""
    put(store, id="a", checkpoint=1)
    query = store.reader.query
    assert query("""SELECT checkpoint, '"function_name":"query"' AS x FROM documents""").num_rows == 1
    assert query(f"SELECT {' + '.join(['1'] * 900)} AS n")["n"].to_pylist() == [900]
    for sql in ("SHOW TABLES", "DESCRIBE documents", "SUMMARIZE documents", "VALUES (1)", "TABLE documents"):
        assert query(sql).num_rows > 0


def test_a_query_that_is_no_text_is_refused(store: LiveStore) -> None:
    with pytest.raises(QueryError, match="not int"):
        store.reader.query(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("parameters", [5, None, "12", b"12", {1}])
def test_parameters_that_are_no_list_of_values_are_refused(store: LiveStore, parameters: Any) -> None:
    """A text too: its letters would be taken for the values."""
    with pytest.raises(QueryError, match="its parameters are a sequence or a mapping"):
        store.reader.query("SELECT ? || ?", parameters)


@pytest.mark.parametrize("value", [object(), {"a": object()}, 1 << 200, "\ud800"])
def test_a_value_that_the_engine_does_not_know_is_refused(store: LiveStore, value: object) -> None:
    with pytest.raises(QueryError):
        store.reader.query("SELECT ?", [value])


def test_ingest_goes_on_beside_a_query_that_does_not_end(store: LiveStore) -> None:
    put(store, id="a", age=1)
    reader, ended = store.reader, []

    def query() -> None:
        try:
            reader.query(ENDLESS)
        except Exception as exc:
            ended.append(exc)

    thread = threading.Thread(target=query)
    thread.start()
    storage = reader._replica.storage  # type: ignore[attr-defined]
    while not storage._database.running:
        threading.Event().wait(0.001)
    for number in range(5):
        put(store, id=f"new-{number}", **{f"field_{number}": number})  # new columns too
    assert reader.count() == 6
    assert reader.query("SELECT field_4 FROM documents WHERE id = 'new-4'")["field_4"].to_pylist() == [4]
    assert not ended
    reader.shutdown()  # which does not wait for it either
    thread.join(PATIENCE)
    (error,) = ended
    assert isinstance(error, ShutDownError)


def test_a_query_sees_one_state(store: LiveStore) -> None:
    """Both sides of a union, while commits change all documents at once."""
    put(store, id="a", n=0)
    done = threading.Event()
    failures: list[object] = []

    def read() -> None:
        while not done.is_set():
            table = store.reader.query("SELECT n FROM documents UNION ALL SELECT n FROM documents")
            if len(set(table["n"].to_pylist())) != 1:
                failures.append(table.to_pylist())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for number in range(20):
            store.writer.upsert_fields_batch([document(id=key, n=number) for key in "abc"])
        put(store, id="a", n=19)
    finally:
        done.set()
        thread.join(PATIENCE)
    assert failures == []


@pytest.mark.parametrize("backend", ["memory", "lmdb"])
def test_a_backend_without_queries_names_those_that_have_them(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IKV_HOME", str(tmp_path / "home"))
    directory = None if backend == "memory" else tmp_path / "mounts"
    with LiveStore(backend=backend, transport="memory", directory=directory) as store:
        with pytest.raises(RequirementError, match=f"backend '{backend}' lacks .*Query.*backend 'duckdb'"):
            store.reader.query("SELECT 1")
        with pytest.raises(RequirementError, match="backend 'duckdb'"):
            store.new_reader(store.builder().requires("Query"))


def test_a_reader_that_is_not_open_refuses(store: LiveStore) -> None:
    reader = store.unstarted_reader()
    with pytest.raises(NotStartedError):
        reader.query("SELECT 1")
    reader.startup()
    reader.shutdown()
    with pytest.raises(ShutDownError):
        reader.query("SELECT 1")

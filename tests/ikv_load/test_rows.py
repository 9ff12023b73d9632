"""Which rows become documents: keys, refusals, select and where, order, batches, mistakes in the call."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ikvcore.document import IKVDocument
from ikvcore.errors import EventTooLargeError, InvalidArgumentError, LoadError, NotStartedError
from ikvcore.factory import create_new_writer
from ikvcore.fields import FieldType as T

Csv = Callable[[str], str]

# -- keys --------------------------------------------------------------------------------------


def test_the_key_is_the_column_of_its_name_as_text(store: Any, csv: Csv) -> None:
    store.load(csv("id,city\n7,Oslo\n"))
    assert store.all() == {"7": {"id": "7", "city": "Oslo"}}


def test_the_key_may_be_another_column_that_is_then_a_field_too(store: Any, csv: Csv) -> None:
    store.load(csv("user id,city\n7,Oslo\n"), primary_key="user id")
    assert store.all() == {"7": {"id": "7", "user id": 7, "city": "Oslo"}}


def test_the_key_may_be_an_sql_expression(store: Any, csv: Csv) -> None:
    store.load(csv("id,year,name\n1,2013,a\n"), primary_key="year || '-' || upper(name) -- and so on")
    assert store.all() == {"2013-A": {"id": "2013-A", "year": 2013, "name": "a"}}


def test_the_key_may_be_named_by_select(store: Any, csv: Csv) -> None:
    source = csv("user,city\n7,Oslo\n")
    store.load(source, select="user AS id, city")
    assert store.all() == {"7": {"id": "7", "city": "Oslo"}}


def test_select_need_not_name_the_key(store: Any, csv: Csv) -> None:
    store.load(csv("id,city,age\n7,Oslo,3\n"), select="age")
    assert store.all() == {"7": {"id": "7", "age": 3}}


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("DATE '2013-01-02'", "2013-01-02"),
        ("TIMESTAMPTZ '2013-01-02 03:04:05+02'", "2013-01-02T01:04:05Z"),
        ("1.50::DECIMAL(4, 2)", "1.50"),
        ("encode('grün')", "grün"),
        ("true", "true"),
        ("repeat('k', 65535)", "k" * 65_535),
    ],
)
def test_a_key_of_any_plain_type_becomes_text(store: Any, csv: Csv, value: str, key: str) -> None:
    store.load(csv("a\n1\n"), primary_key=value)
    assert list(store.all()) == [key]


def test_keys_of_a_bytes_keyed_store_are_bytes(new_store: Callable[..., Any], csv: Csv) -> None:
    store = new_store(primary_key_type="BYTES")
    store.load(csv("a\n1\n"), primary_key="'\\x00\\xFF'::BLOB")
    store.load(csv("a\n2\n"), primary_key="'grün'")
    assert store.all() == {b"\x00\xff": {"id": b"\x00\xff", "a": 1}, "grün".encode(): {"id": "grün".encode(), "a": 2}}


def test_the_partitioning_key_is_the_column_of_its_name(new_store: Callable[..., Any], csv: Csv) -> None:
    store = new_store(partitioning_key="region", partitions=8)
    source = csv("id,region,n\n1,7,1\n2,8,2\n3,,3\n4,9,4\n")
    report = store.load(source)
    assert report.refused == {"partitioning key is NULL": 1}
    assert store.all()["2"] == {"id": "2", "region": "8", "n": 2}
    # The same keys by hand lie in the same partitions: nothing lives twice.
    store.shown(store.writer.upsert_fields(IKVDocument.from_dict({"id": "2", "region": "8", "n": 5})))
    assert store.all()["2"]["n"] == 5
    assert store.reader.count() == 3
    with pytest.raises(InvalidArgumentError, match="no column is named 'region', as the store's partitioning key is"):
        store.load(csv("id,regoin\n1,7\n"))
    assert store.load(source, select="n").loaded == 3


# -- rows that are refused ---------------------------------------------------------------------

REFUSED = [
    ("NULL", "primary key is NULL"),
    ("''", "primary key is empty"),
    ("repeat('k', 65536)", "primary key has over 65,535 bytes"),
    ("repeat('ü', 32768)", "primary key has over 65,535 bytes"),
    ("'\\xFF'::BLOB", "primary key is not text"),
    ("DATE 'infinity'", "primary key is not text"),
]


@pytest.mark.parametrize(("key", "reason"), REFUSED, ids=[key for key, _ in REFUSED])
def test_a_row_without_a_usable_key_is_refused_and_the_others_are_loaded(
    store: Any, csv: Csv, key: str, reason: str
) -> None:
    kind = "BLOB" if "BLOB" in key else "DATE" if "DATE" in key else "VARCHAR"
    good = {"BLOB": "encode('good')", "DATE": "DATE '2013-01-01'"}.get(kind, "'good'")
    report = store.load(csv("a\n1\n2\n3\n"), primary_key=f"CASE WHEN a = 2 THEN {good} ELSE {key} END")
    assert (report.rows, report.loaded, report.refused) == (3, 1, {reason: 2})
    assert store.reader.count() == 1


@pytest.fixture
def small_events(store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store whose log takes events of up to 200 bytes."""
    writer = store.writer
    publish = writer._transport.publish

    def bounded(messages: Any) -> Any:
        for message in messages:
            if len(message.value) > 200:
                raise EventTooLargeError(len(message.value), 200)
        return publish(messages)

    monkeypatch.setattr(writer._transport, "publish", bounded)
    return store


def test_rows_whose_event_is_too_large_are_refused_and_the_others_are_loaded_in_order(
    small_events: Any, csv: Csv, tmp_path: Path
) -> None:
    large = "x" * 300
    rows = [f"{n % 50},{n},{large if n in (0, 17, 18, 98) else 'y'}" for n in range(99)]
    report = small_events.load(csv("id,n,t\n" + "\n".join(rows)), errors=tmp_path / "refused.jsonl")
    ((reason, count),) = report.refused.items()
    assert (report.rows, report.loaded, count) == (99, 95, 4)
    assert reason.startswith("the event is over ")
    assert {key: document["n"] for key, document in small_events.all().items()} == {
        str(n % 50): n for n in range(99) if n not in (0, 17, 18, 98)
    }
    kept = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [each["row"] for each in kept] == [1, 18, 19, 99]
    assert kept[0]["values"] == {"id": "0", "n": 0, "t": large}


def test_refused_rows_are_kept_with_their_number_reason_and_values(store: Any, csv: Csv, tmp_path: Path) -> None:
    source = csv("id,n,when\n1,1,2013-01-01\n,2,2013-01-02\n3,x,2013-01-03\n4,4,2013-01-04\n")
    refused = tmp_path / "refused.jsonl"
    refused.write_text("of an earlier load")
    report = store.load(source, casts={"n": "int32"}, errors=refused, batch_size=2)
    assert report.refused == {"primary key is NULL": 1, "column 'n' does not become int32": 1}
    assert [json.loads(line) for line in refused.read_text().splitlines()] == [
        {"row": 2, "reason": "primary key is NULL", "values": {"id": None, "n": "2", "when": "2013-01-02"}},
        {"row": 3, "reason": "column 'n' does not become int32", "values": {"id": 3, "n": "x", "when": "2013-01-03"}},
    ]
    store.load(source, where="n = '1'", errors=str(refused))
    assert refused.read_text() == ""


def test_the_file_of_refused_rows_is_none_that_is_loaded_and_can_be_written(
    store: Any, csv: Csv, tmp_path: Path
) -> None:
    source = csv("id\n1\n")
    with pytest.raises(InvalidArgumentError, match="name another file"):
        store.load(source, errors=source)
    assert Path(source).read_text() == "id\n1\n"
    with pytest.raises(InvalidArgumentError, match="cannot be kept in"):
        store.load(source, errors=tmp_path / "nowhere" / "refused.jsonl")
    assert store.reader.count() == 0


# -- select, where, order, batches -------------------------------------------------------------


def test_select_and_where_choose(store: Any, csv: Csv) -> None:
    source = csv("id,city,age\n1,Oslo,3\n2,Rome,4\n3,Bern,5\n")
    report = store.load(source, select="id, upper(city) AS town, age + 1 AS next -- and no more", where="age > 3 -- so")
    assert report.rows == 2
    assert store.all() == {"2": {"id": "2", "town": "ROME", "next": 5}, "3": {"id": "3", "town": "BERN", "next": 6}}


def test_absent_fields_leave_earlier_values_in_place(store: Any, csv: Csv) -> None:
    store.put(id="1", city="Oslo", age=3)
    store.load(csv("id,city,age\n1,,4\n"))
    assert store.all() == {"1": {"id": "1", "city": "Oslo", "age": 4}}


@pytest.mark.parametrize("batch_size", [1, 7, 1_000, 100_000])
def test_the_last_row_of_a_key_wins(store: Any, parquet: Callable[[str], str], batch_size: int) -> None:
    """Over many of DuckDB's vectors and row groups, where its threads would else mix them."""
    rows = 300 if batch_size == 1 else 30_000
    source = parquet(f"SELECT range % 100 AS id, range AS n FROM range({rows})")
    report = store.load(source, batch_size=batch_size, where="n >= 0")
    assert report.loaded == rows
    assert {key: document["n"] for key, document in store.all().items()} == {
        str(key): rows - 100 + key for key in range(100)
    }


def test_batches_hold_no_more_rows_than_asked_for_and_no_more_bytes_than_is_sensible(
    store: Any, parquet: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    publish = store.writer.upsert_fields_batch

    def counted(batch: Any) -> Any:
        sizes.append(len(batch))
        return publish(batch)

    monkeypatch.setattr(store.writer, "upsert_fields_batch", counted)
    store.load(parquet("SELECT range AS id FROM range(5000)"), batch_size=300)
    assert sum(sizes) == 5_000
    assert max(sizes) == 300
    sizes.clear()
    store.load(parquet("SELECT range AS id, repeat('x', 1000000) AS t FROM range(20)"))
    assert sum(sizes) == 20
    assert max(sizes) <= 9


def test_the_report_tells_what_was_done(store: Any, csv: Csv) -> None:
    seen: list[tuple[int, float | None]] = []
    source = csv("id\n" + "".join(f"{n}\n" for n in range(2_500)) + "\n")
    report = store.load(source, progress=lambda report, share: seen.append((report.loaded, share)))
    assert (report.rows, report.loaded, report.refused) == (2_501, 2_500, {"primary key is NULL": 1})
    assert sum(report.token.positions.values()) == 2_500
    assert report.seconds > 0
    assert report.to_json()["token"] == str(report.token)
    assert seen[-1][0] == 2_500
    assert all(share is None or 0 <= share <= 1 for _, share in seen)
    assert store.load(csv("id\n")).token == type(report.token)()


def test_what_progress_raises_ends_the_load_after_its_batch(store: Any, parquet: Callable[[str], str]) -> None:
    def stop(report: Any, share: float | None) -> None:
        if report.loaded:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        store.load(parquet("SELECT range AS id FROM range(1000000)"), progress=stop)
    store.restart_reader()
    assert 0 < store.reader.count() <= 1_000


# -- mistakes in the call ----------------------------------------------------------------------

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"primary_key": "idd"}, r"no column is named 'idd' \(did you mean 'id'\?\); the columns are 'id', 'city'"),
    ({"primary_key": "lower(cit)"}, 'primary key cannot be used: .*"cit" not found'),
    ({"primary_key": "[id]"}, "primary key would be BIGINT"),
    ({"select": "id, town"}, 'select cannot be used: .*"town" not found'),
    ({"select": "id, id"}, "more than one column the name 'id'"),
    ({"select": "id; DROP TABLE x"}, "select cannot be used"),
    ({"where": "id >"}, "where cannot be used: .*syntax error"),
    ({"where": "true ORDER BY id DESC"}, "where cannot be used"),
    (
        {"where": "(SELECT count(*) FROM read_text('/etc/passwd')) > 0"},
        "where cannot be used: .*file system operations",
    ),
    ({"casts": {"cty": "string"}}, r"'cty', which is to be cast \(did you mean 'city'\?\)"),
    ({"casts": {"city": "int"}}, r"cannot be cast to 'int' \(did you mean .*; the types are int32, int64"),
    ({"casts": {"id": "int64"}}, "'id' is a key of the store"),
    ({"timestamps": "epoch"}, r"cannot be 'epoch' \(did you mean 'epoch-us'\?\)"),
    ({"format": "cvs"}, r"format cannot be 'cvs' \(did you mean 'csv'\?\); use one of csv, parquet, jsonl"),
    ({"batch_size": 0}, "from 1 to 100,000, not 0"),
    ({"batch_size": True}, "not True"),
]


@pytest.mark.parametrize(("wishes", "told"), MISTAKES, ids=[str(wishes) for wishes, _ in MISTAKES])
def test_a_mistake_in_the_call_is_told_before_anything_is_published(
    store: Any, csv: Csv, wishes: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        store.load(csv("id,city\n1,Oslo\n"), **wishes)
    assert store.reader.stats().events_applied == 0


def test_a_store_whose_key_is_no_column_tells_the_ways_out(new_store: Callable[..., Any], csv: Csv) -> None:
    store = new_store(primary_key="user_id")
    with pytest.raises(
        InvalidArgumentError, match=r"no column is named 'user_id'.*did you mean 'userid'.*primary_key a"
    ):
        store.load(csv("userid,city\n1,Oslo\n"))


def test_a_program_s_variables_are_not_columns(store: Any, csv: Csv) -> None:
    import pyarrow as pa

    secret = pa.table({"x": [1]})
    with pytest.raises(InvalidArgumentError, match="secret"):
        store.load(csv("id\n1\n"), where="(SELECT count(*) FROM secret) > 0")
    del secret


def test_a_writer_that_is_not_started_loads_nothing(store: Any, csv: Csv) -> None:
    with pytest.raises(NotStartedError):
        create_new_writer(store.options).load(csv("id\n1\n"))


def test_types_of_fields_come_from_the_call_not_from_the_first_rows(store: Any, csv: Csv) -> None:
    store.load(csv("id,n\n1,\n2,5\n"), casts={"n": "int32"})
    assert store.typed("2") == {"n": (T.INT32, 5)}


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"where": " "}, "where is empty"),
        ({"select": ""}, "select is empty"),
        ({"primary_key": ""}, "primary key: '' is not one value"),
        ({"primary_key": "id, n"}, "primary key: 'id, n' is not one value"),
        ({"primary_key": "COLUMNS(*)"}, "is not one value"),
        ({"where": "-- all"}, "where: '-- all' is not one value"),
    ],
)
def test_an_expression_of_nothing_or_of_several_values_is_refused(
    store: Any, csv: Csv, wish: dict[str, str], told: str
) -> None:
    """As of "$UNSET" in a shell: all rows would be loaded, or all under one key."""
    with pytest.raises(InvalidArgumentError, match=re.escape(told)):
        store.load(csv("id,n\n1,2\n2,3\n"), **wish)


def test_refused_rows_that_cannot_be_kept_end_the_load_with_what_was_loaded(store: Any, csv: Csv) -> None:
    with pytest.raises(LoadError, match="'/dev/full': No space left on device") as caught:
        store.load(csv("id,n\n1,2\n,3\n"), errors="/dev/full")
    assert caught.value.report.loaded == 1

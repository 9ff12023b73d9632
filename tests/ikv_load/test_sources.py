"""What can be loaded, and how it is read: nothing of a file is lost or guessed in silence."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ikvcore.errors import InvalidArgumentError, LoadError
from ikvcore.fields import FieldType as T

Csv = Callable[[str], str]

# -- CSV ---------------------------------------------------------------------------------------


def test_an_empty_cell_is_absent_and_a_quoted_one_is_the_empty_string(store: Any, csv: Csv) -> None:
    store.load(csv('id,s,n\n1,"",5\n2,,\n'))
    assert store.all() == {"1": {"id": "1", "s": "", "n": 5}, "2": {"id": "2"}}


def test_other_texts_mean_absent_only_where_that_is_said(store: Any, csv: Csv) -> None:
    source = csv('id,n,country\n1,NA,NA\n2,7,"NA"\n3,-,NO\n')
    store.load(source)
    assert store.typed("1") == {"n": (T.STRING, "NA"), "country": (T.STRING, "NA")}
    store.writer.drop_all_fields()
    store.load(source, null=["NA", "-"])
    assert store.all() == {
        "1": {"id": "1"},
        "2": {"id": "2", "n": 7, "country": "NA"},
        "3": {"id": "3", "country": "NO"},
    }
    store.load(source, null="NA")
    assert store.typed("2")["n"] == (T.STRING, "7")


@pytest.mark.parametrize(
    ("late", "kind", "value"),
    [("3.5", T.FLOAT64, 3.5), ("007", T.STRING, "007"), ("yes", T.STRING, "yes"), ('"a,b"', T.STRING, "a,b")],
)
def test_types_are_those_of_the_whole_file(store: Any, csv: Csv, late: str, kind: T, value: object) -> None:
    """DuckDB's sample of 20,480 lines would round 3.5 to 4, read 007 as 7, and know no quotes."""
    store.load(csv("id,n\n" + "1,2\n" * 25_000 + f"2,{late}\n"))
    assert store.typed("2") == {"n": (kind, value)}


def test_a_column_that_is_cast_is_read_as_the_file_has_it(store: Any, csv: Csv) -> None:
    store.load(csv("id,zip,flag\n1,1234.50,yes\n"), casts={"zip": "string", "flag": "string"})
    assert store.typed() == {"zip": (T.STRING, "1234.50"), "flag": (T.STRING, "yes")}


def test_dates_are_recognised_where_they_are_iso_and_stay_text_where_they_must_be_guessed(store: Any, csv: Csv) -> None:
    store.load(csv("id,iso,stamp,zoned,other\n1,2013-01-02,2013-01-02 03:04:05,2013-01-02T03:04:05+02:00,01/02/2013\n"))
    assert store.typed() == {
        "iso": (T.STRING, "2013-01-02"),
        "stamp": (T.STRING, "2013-01-02T03:04:05"),
        "zoned": (T.STRING, "2013-01-02T01:04:05Z"),
        "other": (T.STRING, "01/02/2013"),
    }
    store.load(csv("id,day,stamp\n2,01/02/2013,01/02/2013 10:00:00\n"))
    assert store.typed("2") == {"day": (T.STRING, "01/02/2013"), "stamp": (T.STRING, "01/02/2013 10:00:00")}


def test_a_number_as_text_is_that_of_the_number(store: Any, csv: Csv) -> None:
    """DuckDB would give the file's text or the number's, depending on what else the query asks for."""
    source = csv("id,n\n 1,1.50\n")
    store.load(source)
    assert store.all() == {"1": {"id": "1", "n": 1.5}}
    store.load(source, select="CAST(n AS VARCHAR) AS n")
    assert store.all() == {"1": {"id": "1", "n": "1.5"}}


@pytest.mark.parametrize("text", ["id;n\n1;2,5\n", "id\tn\n1\t2,5\n", "id|n\n1|2,5\n", '\ufeffid,n\r\n1,"2,5"\r\n'])
def test_delimiters_line_ends_and_quotes_are_found(store: Any, csv: Csv, text: str) -> None:
    store.load(csv(text))
    assert store.all() == {"1": {"id": "1", "n": "2,5"}}


def test_quotes_hold_lines_delimiters_and_quotes(store: Any, csv: Csv) -> None:
    store.load(csv('id,t\n1,"a\nb"\n2,"x, ""y"""\n3,# no comment\n'))
    assert {key: document["t"] for key, document in store.all().items()} == {
        "1": "a\nb",
        "2": 'x, "y"',
        "3": "# no comment",
    }


def test_only_double_quotes_are_quotes(store: Any, csv: Csv) -> None:
    store.load(csv("id,t,u\n1,'a,b'\n2,'c,d'\n"))
    assert store.all()["2"] == {"id": "2", "t": "'c", "u": "d'"}


@pytest.mark.parametrize("text", ["id,n\n1,2\n3,4,5\n", "a title\nid,n\nx,y\n", "id,n\n1\n2,3\n", ""])
def test_lines_of_uneven_lengths_are_never_skipped(store: Any, csv: Csv, text: str) -> None:
    with pytest.raises((InvalidArgumentError, LoadError)):
        store.load(csv(text))
    assert store.reader.count() == 0


def test_a_broken_line_is_told_with_its_file_and_number_and_what_was_loaded(store: Any, csv: Csv) -> None:
    lines = [f"{n},{'x' * 2_000}\n" for n in range(10_000)]  # several of DuckDB's buffers
    lines[9_000] = "broken\n"
    source = csv("id,t\n" + "".join(lines))
    with pytest.raises(LoadError, match=r"Line: 9002.*broken.*rows before it are loaded") as caught:
        store.load(source)
    assert source in str(caught.value)
    report = pickle.loads(pickle.dumps(caught.value)).report
    assert 0 < report.loaded <= 9_000
    store.reader.wait_for(report.token, timeout=60)
    assert store.reader.count() == report.loaded


def test_text_that_is_not_utf_8_is_told(store: Any, tmp_path: Path) -> None:
    source = tmp_path / "latin.csv"
    source.write_bytes("id,t\n1,grün\n".encode("latin1"))
    with pytest.raises(InvalidArgumentError, match="not utf-8"):
        store.load(source)


def test_several_files_are_read_in_their_order_and_get_common_types(store: Any, csv: Csv) -> None:
    one = csv("id,n,a\n1,1,x\n2,2,x\n")
    two = csv("n,id,b\n2.5,2,y\n")
    store.load([one, two])
    assert store.typed("1") == {"n": (T.FLOAT64, 1.0), "a": (T.STRING, "x")}
    assert store.typed("2") == {"n": (T.FLOAT64, 2.5), "a": (T.STRING, "x"), "b": (T.STRING, "y")}
    store.load([two, one])
    assert store.typed("2")["n"] == (T.FLOAT64, 2.0)


def test_all_files_are_looked_at_before_the_first_is_loaded(store: Any, csv: Csv) -> None:
    with pytest.raises(InvalidArgumentError, match="no column is named 'id'"):
        store.load([csv("id\n1\n"), csv("other\n1\n")])
    assert store.reader.stats().events_applied == 0


# -- files -------------------------------------------------------------------------------------


def test_globs_and_compressed_files(store: Any, tmp_path: Path) -> None:
    import pyarrow as pa

    (tmp_path / "deep er").mkdir()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"id,n\n1,1\n3,1\n"))
    with pa.CompressedOutputStream(str(tmp_path / "b.csv.zst"), "zstd") as out:
        out.write(b"id,n\n2,2\n3,2\n")
    (tmp_path / "deep er" / "c's [1].csv").write_text("id,n\n3,3\n")
    report = store.load([tmp_path / "*.csv.*", str(tmp_path / "**" / "c*.csv")])
    assert report.loaded == 5
    assert {key: document["n"] for key, document in store.all().items()} == {"1": 1, "2": 2, "3": 3}


def test_a_missing_file_is_told_with_its_like(store: Any, tmp_path: Path) -> None:
    (tmp_path / "flights.csv").write_text("id\n1\n")
    with pytest.raises(
        InvalidArgumentError, match=r"there is no file .*flihgts\.csv' \(did you mean 'flights\.csv'\?\)"
    ):
        store.load(tmp_path / "flihgts.csv")
    with pytest.raises(InvalidArgumentError, match="is not on this machine"):
        store.load("s3://bucket/flights.csv")
    with pytest.raises(InvalidArgumentError, match="the list of them is empty"):
        store.load([])


def test_a_format_is_told_by_the_name_or_by_the_caller(store: Any, tmp_path: Path) -> None:
    odd = tmp_path / "data.cvs"
    odd.write_text("id,n\n1,2\n")
    with pytest.raises(
        InvalidArgumentError, match=r"does not tell its format \(did you mean 'csv'.*csv, parquet, jsonl"
    ):
        store.load(odd)
    store.load(odd, format="csv")
    assert store.reader.count() == 1
    for name in ("data.jsonl", "data.parquet"):
        (tmp_path / name).write_text('{"id": 1}\n')
    with pytest.raises(InvalidArgumentError, match="of one format"):
        store.load([tmp_path / "data.jsonl", tmp_path / "data.parquet"])


def test_a_file_of_another_format_than_its_name_says_is_told(store: Any, tmp_path: Path) -> None:
    for name in ("a.parquet", "b.jsonl"):
        (tmp_path / name).write_text("id,n\n1,2\n")
        with pytest.raises(InvalidArgumentError, match=f"{name}' cannot be read"):
            store.load(tmp_path / name)


def test_parquet_files_keep_their_own_types(store: Any, parquet: Callable[[str], str]) -> None:
    store.load([parquet("SELECT '1' AS id, 1::INTEGER AS n"), parquet("SELECT '2' AS id, 2::BIGINT AS n")])
    assert (store.typed("1"), store.typed("2")) == ({"n": (T.INT32, 1)}, {"n": (T.INT64, 2)})
    with pytest.raises(InvalidArgumentError, match="null is for CSV"):
        store.load(parquet("SELECT '1' AS id"), null="NA")


# -- JSON lines --------------------------------------------------------------------------------


def test_json_text_stays_as_it_is(store: Any, tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    texts = {"date": "2013-01-02", "stamp": "2013-01-02 03:04:05", "uuid": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"}
    texts |= {"time": "10:00:00", "number": "007", "empty": ""}
    source.write_text(json.dumps({"id": 1, **texts, "gone": None}) + "\n")
    store.load(source)
    assert store.all() == {"1": {"id": "1", **texts}}


def test_json_types_and_names_are_those_of_the_whole_file(store: Any, tmp_path: Path) -> None:
    source = tmp_path / "a.ndjson.gz"
    lines = ['{"id": 1, "n": 1, "t": true}\n'] * 25_000 + ['{"id": 2, "n": 2.5, "late": "x"}\n', '{"id": 3}\n']
    source.write_bytes(gzip.compress("".join(lines).encode()))
    store.load(source)
    assert store.all() == {
        "1": {"id": "1", "n": 1.0, "t": True},
        "2": {"id": "2", "n": 2.5, "late": "x"},
        "3": {"id": "3"},
    }


def test_json_values_of_several_types_need_a_cast(store: Any, tmp_path: Path) -> None:
    """As text by itself, the numbers among them would silently be no numbers any more."""
    source = tmp_path / "a.jsonl"
    source.write_text('{"id": 1, "x": 0.5, "y": 1}\n{"id": 2, "x": {"float64": "NaN"}, "y": "t"}\n')
    with pytest.raises(InvalidArgumentError, match=r"need a cast: 'x' \(JSON\), 'y' \(JSON\)"):
        store.load(source)
    store.load(source, casts={"x": "string", "y": "string"})
    assert store.all() == {
        "1": {"id": "1", "x": "0.5", "y": "1"},
        "2": {"id": "2", "x": '{"float64":"NaN"}', "y": "t"},
    }


def test_nested_json_is_refused_by_name(store: Any, tmp_path: Path) -> None:
    source = tmp_path / "a.json"
    source.write_text('{"id": 1, "tags": ["a"], "address": {"city": "Oslo"}}\n')
    with pytest.raises(InvalidArgumentError, match=r"nested columns cannot be fields: 'tags' .*'address'"):
        store.load(source)
    store.load(source, select="id, address.city AS city")
    assert store.all() == {"1": {"id": "1", "city": "Oslo"}}


def test_broken_json_is_told_with_its_line(store: Any, tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text('{"id": 1}\n{"id": 2\n')
    with pytest.raises(InvalidArgumentError, match=r"a\.jsonl.*line 3"):
        store.load(source)


# -- tables ------------------------------------------------------------------------------------


def test_an_arrow_table_is_loaded(store: Any) -> None:
    import pyarrow as pa

    shares: list[float | None] = []
    table = pa.table({"id": pa.array(["a", "b"]).dictionary_encode(), "n": pa.array([1, None], pa.int16())})
    report = store.load(table, select="id, n", progress=lambda _, share: shares.append(share))
    assert report.loaded == 2
    assert shares[-1] == 1.0
    assert store.all() == {"a": {"id": "a", "n": 1}, "b": {"id": "b"}}


def test_an_arrow_reader_is_drawn_from_once_and_in_order(store: Any) -> None:
    import pyarrow as pa

    schema = pa.schema({"id": pa.int64(), "n": pa.int64()})
    drawn: list[int] = []

    def batches() -> Iterator[Any]:
        for number in range(20):
            drawn.append(number)
            yield pa.record_batch({"id": list(range(500)), "n": [number] * 500}, schema=schema)

    report = store.load(pa.RecordBatchReader.from_batches(schema, batches()), where="n <> 3")
    assert (report.loaded, drawn) == (9_500, list(range(20)))
    assert {document["n"] for document in store.all().values()} == {19}


def test_what_an_arrow_reader_raises_is_told(store: Any) -> None:
    import pyarrow as pa

    schema = pa.schema({"id": pa.int64()})

    def batches() -> Iterator[Any]:
        yield pa.record_batch({"id": [1]}, schema=schema)
        raise ValueError("the source is gone")

    with pytest.raises(LoadError, match="the source is gone"):
        store.load(pa.RecordBatchReader.from_batches(schema, batches()))


def test_a_pandas_frame_is_loaded_with_nan_as_absent_and_without_its_index(store: Any) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "id": ["a", "b"],
            "n": [1.5, float("nan")],
            "i": pandas.array([1, None], dtype="Int32"),
            "s": ["x", None],
            "when": pandas.to_datetime(["2013-01-01T10:00:00+02:00", None], utc=True),
        },
        index=["r1", "r2"],
    )
    store.load(frame)
    assert store.all() == {
        "a": {"id": "a", "n": 1.5, "i": 1, "s": "x", "when": "2013-01-01T08:00:00Z"},
        "b": {"id": "b"},
    }
    assert store.typed("a")["i"][0] is T.INT32
    with pytest.raises(InvalidArgumentError, match="no form in Arrow"):
        store.load(pandas.DataFrame({"id": [1, "a", b"c"]}))


def test_a_polars_frame_is_loaded(store: Any) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"id": ["a", "b"], "n": [1, None], "c": ["x", "y"], "f": [float("nan"), 1.0]})
    frame = frame.with_columns(polars.col("c").cast(polars.Categorical), polars.col("n").cast(polars.UInt8))
    store.load(frame)
    assert store.typed("a") == {
        "n": (T.INT32, 1),
        "c": (T.STRING, "x"),
        "f": (T.FLOAT64, pytest.approx(float("nan"), nan_ok=True)),
    }
    assert store.all()["b"] == {"id": "b", "c": "y", "f": 1.0}


@pytest.mark.parametrize("source", [{"id": [1]}, 5, None, b"a.csv", [5], [["a.csv"]]])
def test_something_else_is_refused_with_what_would_do(store: Any, source: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"cannot be loaded; give a path|a path is wanted"):
        store.load(source)


# -- names and keys ----------------------------------------------------------------------------


def test_keys_are_what_the_file_has(store: Any, csv: Csv) -> None:
    """As numbers, 1.10 and 1.1 would be one key."""
    store.load([csv("id,n\n1,1\n2,2\n"), csv("id,n\n1.10,3\n1.1,4\n1e0,5\n")])
    store.load(csv("id,n\nTRUE,6\nf,7\n"))
    assert {key: each["n"] for key, each in store.all().items()} == {
        "1": 1,
        "2": 2,
        "1.10": 3,
        "1.1": 4,
        "1e0": 5,
        "TRUE": 6,
        "f": 7,
    }
    store.load(csv("code,n\n2.10,1\n2.1,2\n"), primary_key="code")
    assert store.typed("2.10") == {"n": (T.INT64, 1), "code": (T.STRING, "2.10")}


@pytest.mark.parametrize("header", ["id,a,a", "id,a,A", "id,A,a_1,a", "ID,id,n", "id, a,a ", "id,,column1"])
def test_a_csv_file_whose_names_sql_cannot_tell_apart_is_refused(store: Any, csv: Csv, header: str) -> None:
    """DuckDB would call the second one a_1, and so the field."""
    source = csv(f"{header}\n" + ",".join("1" * len(header.split(","))) + "\n")
    with pytest.raises(InvalidArgumentError, match="which SQL cannot tell apart; rename one"):
        store.load(source)


def test_names_that_only_look_made_up_are_left_alone(store: Any, csv: Csv, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    store.load(csv("id,a,a_1,A_1_1,É,é\n1,2,3,4,5,6\n"))
    assert store.all()["1"] == {"id": "1", "a": 2, "a_1": 3, "A_1_1": 4, "É": 5, "é": 6}
    parquet.write_table(pa.table({"id": ["2"], "a": [2], "a_1": [3]}), tmp_path / "a.parquet")
    store.load(tmp_path / "a.parquet")
    assert store.all()["2"] == {"id": "2", "a": 2, "a_1": 3}
    (tmp_path / "a.jsonl").write_text('{"id": "3", "a": 2, "a_1": 3}\n')
    store.load(tmp_path / "a.jsonl")
    assert store.all()["3"] == {"id": "3", "a": 2, "a_1": 3}


def test_parquet_tables_and_json_lines_with_such_names_are_refused(store: Any, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"id": ["1"], "a": [1], "A": [2]})
    parquet.write_table(table, tmp_path / "twins.parquet")
    (tmp_path / "twins.jsonl").write_text('{"id": "1", "a": 1}\n{"id": "2", "A": 2}\n')
    for source in (table, table.to_reader(), tmp_path / "twins.parquet", tmp_path / "twins.jsonl"):
        with pytest.raises(InvalidArgumentError, match=r"'[aA]' and '[aA]', which SQL"):
            store.load(source)
    assert store.all() == {}


def test_json_lines_of_which_each_has_fields_of_its_own_are_documents(store: Any, tmp_path: Path) -> None:
    """DuckDB would take 200 names and more, each in few lines, for the keys of a map."""
    path = tmp_path / "sparse.jsonl"
    path.write_text("".join(f'{{"id": "{n}", "k{n}": {n}}}\n' for n in range(500)))
    store.load(path)
    assert store.all()["499"] == {"id": "499", "k499": 499}


def test_a_table_with_a_string_that_is_not_utf8_is_an_error_and_no_bad_event(store: Any) -> None:
    """It would halt the ingest of every reader."""
    import pyarrow as pa

    buffers = [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    text = pa.Array.from_buffers(pa.string(), 1, buffers)
    with pytest.raises(LoadError, match=r"the table: .*UTF8.*nothing was loaded"):
        store.load(pa.table({"id": ["1"], "a": text}))
    assert store.all() == {}


# -- paths -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("", "a path is empty"),
        (".", "is a directory; name files"),
        ("/dev/null", "no regular file"),
        ("x" * 5000, "cannot be read: File name too long"),
    ],
)
def test_a_path_of_no_file_is_told_for_what_it_is(store: Any, path: str, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        store.load(path)


def test_a_file_whose_name_is_not_utf8_is_refused(store: Any, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv")
    Path(path).write_text("id\n1\n")
    with pytest.raises(InvalidArgumentError, match="is not UTF-8"):
        store.load(path)

"""`ikv export`: files that hold what the store holds, or no file at all."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ikvcore import admin
from ikvcore.cli._columns import columns_of, types_of
from ikvcore.cli._files import new_file, write_csv, write_parquet
from ikvcore.errors import IKVError, InvalidArgumentError
from ikvcore.fields import FieldType
from ikvcore.models import Row

Ikv: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

INT32, INT64, FLOAT32, FLOAT64 = FieldType.INT32, FieldType.INT64, FieldType.FLOAT32, FieldType.FLOAT64
STRING, BYTES = FieldType.STRING, FieldType.BYTES

LINES: list[dict[str, Any]] = [
    {
        "id": {"string": "a"},
        "b": {"bytes": "/wA="},
        "d": {"float64": -0.0},
        "f": {"float32": 0.5},
        "i": {"int32": -7},
        "l": {"int64": 2**62 + 1},
        "s": {"string": ""},
        "t": {"boolean": False},
    },
    {"id": {"string": "b"}, "d": {"float64": "NaN"}, "f": {"float32": "-Infinity"}, "s": {"string": '1\n"x", é'}},
    {"id": {"string": "c"}},
]
FIELDS = ["id", "b", "d", "f", "i", "l", "s", "t"]


@pytest.fixture
def store(ikv: Ikv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store `all` of documents of every type, and a working directory of its own."""
    admin.create_store("all", account_id="demo", account_passkey="secret", primary_key="id")
    ikv("put", "all", "--json", "-", stdin="\n".join(map(json.dumps, LINES)))
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def sorted_lines(text: str) -> list[Any]:
    return sorted(map(json.loads, text.splitlines()), key=lambda line: str(line["id"]))


# -- the formats -------------------------------------------------------------------------------


def test_parquet_keeps_every_type_and_value(ikv: Ikv, store: None) -> None:
    from pyarrow import parquet

    done = ikv("export", "all", "all.parquet")
    table = parquet.read_table("all.parquet")
    size = Path("all.parquet").stat().st_size
    assert (
        done.stderr == f"exported 3 documents, 8 columns, {size:,} bytes written to '{Path('all.parquet').resolve()}'\n"
    )
    types = ["string", "binary", "double", "float", "int32", "int64", "string", "bool"]
    assert [(field.name, str(field.type)) for field in table.schema] == list(zip(FIELDS, types, strict=True))
    a, b, c = sorted(table.to_pylist(), key=lambda row: row["id"])
    assert a == {"id": "a", "b": b"\xff\x00", "d": 0.0, "f": 0.5, "i": -7, "l": 2**62 + 1, "s": "", "t": False}
    assert math.copysign(1, a["d"]) == -1
    assert math.isnan(b.pop("d"))
    assert b == {"id": "b", "b": None, "f": -math.inf, "i": None, "l": None, "s": '1\n"x", é', "t": None}
    assert c == {**dict.fromkeys(FIELDS), "id": "c"}


def test_csv_tells_what_is_absent_from_what_is_empty(ikv: Ikv, store: None) -> None:
    lines = ikv("export", "all", "-", "--format", "csv").stdout
    assert lines.startswith('"id","b","d","f","i","l","s","t"\n')
    assert f'"a","/wA=",-0,0.5,-7,{2**62 + 1},"",false\n' in lines
    assert '"b",,nan,-inf,,,"1\n""x"", é",\n' in lines
    assert '"c",,,,,,,\n' in lines


def test_json_lines_can_be_put_again(ikv: Ikv, store: None) -> None:
    ikv("export", "all", "all.jsonl", "--typed")
    assert sorted_lines(Path("all.jsonl").read_text()) == LINES
    admin.create_store("again", account_id="demo", account_passkey="secret", primary_key="id")
    ikv("put", "again", "--json", "all.jsonl")
    assert sorted_lines(ikv("export", "again", "-", "--format", "jsonl", "--typed").stdout) == LINES
    plain = sorted_lines(ikv("export", "all", "-", "--format", "jsonl").stdout)
    assert list(plain[0]) == FIELDS
    assert (plain[0]["i"], plain[0]["b"], plain[1]["d"]) == (-7, {"bytes": "/wA="}, {"float64": "NaN"})


def test_an_empty_store_has_its_key_alone(ikv: Ikv, profiles: None, tmp_path: Path) -> None:
    from pyarrow import parquet

    file = tmp_path / "empty.parquet"
    assert "exported 0 documents, 1 column, " in ikv("export", "profiles", str(file)).stderr
    table = parquet.read_table(file)
    assert (table.schema.names, table.num_rows) == (["[red]name"], 0)
    assert ikv("export", "profiles", "-", "--format", "jsonl").stdout == ""


def test_fields_are_chosen(ikv: Ikv, store: None) -> None:
    lines = ikv("export", "all", "-", "--format", "csv", "--field", "s", "--field", "i").stdout
    assert lines.startswith('"id","i","s"\n')
    assert ikv("export", "all", "all.csv", "--field", "ss", code=1).stderr == (
        "error: no document has field 'ss'; leave it out of --field\n"
    )
    assert files() == []


def test_mixed_fields_are_refused_or_made_text(ikv: Ikv, store: None) -> None:
    from pyarrow import parquet

    ikv("put", "all", "id=d", "i=seven", "l:int32=1", "t:bytes=/w==")
    told = ikv("export", "all", "all.parquet", code=1).stderr
    assert "'i' (int32, string), 't' (boolean, bytes). Write them as text with --mixed text" in told
    assert "'l'" not in told
    assert files() == []
    ikv("export", "all", "all.parquet", "--mixed", "text")
    table = parquet.read_table("all.parquet")
    assert [str(table.schema.field(name).type) for name in ("i", "l", "t")] == ["string", "int64", "string"]
    assert sorted(zip(*(table[name].to_pylist() for name in ("id", "i", "l", "t")), strict=True)) == [
        ("a", "-7", 2**62 + 1, "false"),
        ("b", None, None, None),
        ("c", None, None, None),
        ("d", "seven", 1, "/w=="),
    ]


# -- the file ----------------------------------------------------------------------------------


def test_a_file_that_is_there_is_replaced_only_by_force(ikv: Ikv, store: None) -> None:
    Path("all.jsonl").write_text("mine")
    Path("link.jsonl").symlink_to("all.jsonl")
    assert "say --force" in ikv("export", "all", "all.jsonl", code=2).stderr
    assert Path("all.jsonl").read_text() == "mine"
    ikv("export", "all", "link.jsonl", "--force")
    assert Path("link.jsonl").is_symlink()
    assert len(Path("all.jsonl").read_text().splitlines()) == 3
    assert files() == ["all.jsonl", "link.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["all", "all.parqet"], 2, "did you mean '.parquet'"),
        (["all", "all"], 2, "say --format"),
        (["all", "-"], 2, "--format jsonl or --format csv"),
        (["all", "-", "--format", "parquet"], 2, "name a file"),
        (["all", "a", "--format", "jsnl"], 2, "did you mean 'jsonl'"),
        (["all", "a.csv", "--mixed", "txt"], 2, "did you mean 'text'"),
        (["all", "a.csv", "--typed"], 2, "--typed is a form of JSON lines"),
        (["all", "no/where.csv"], 2, "there is no directory"),
        (["all", ".", "--format", "csv"], 2, "is a directory"),
        (["all", "/dev/null", "--format", "csv", "--force"], 2, "to write to a pipe use -"),
        (["al", "a.csv"], 1, "no store 'al'"),
    ],
)
def test_a_wrong_export_is_told_in_two_lines_and_leaves_nothing(
    ikv: Ikv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = ikv("export", *arguments, code=code)
    assert done.stdout == ""
    assert told in done.stderr
    assert done.stderr.count("\n") <= 2
    assert [path.name for path in tmp_path.iterdir() if path.name != "h"] == []


def test_without_pyarrow_its_extra_is_named_and_json_lines_go_on(ikv: Ikv, store: None, tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ModuleNotFoundError('no pyarrow', name='pyarrow')")
    without = {"PYTHONPATH": str(tmp_path)}
    assert 'pip install "ikvcore[load]"' in ikv("export", "all", "all.csv", code=1, **without).stderr
    ikv("export", "all", "all.jsonl", **without)
    assert files() == ["all.jsonl"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_reader_that_has_seen_enough_ends_an_export_quietly(
    ikv: Ikv, start_ikv: Callable[..., subprocess.Popen[str]], store: None, form: str
) -> None:
    lines = (f'{{"id": "{n:05d}", "x": "{"x" * 60}"}}\n' for n in range(5_000))
    ikv("put", "all", "--json", "-", stdin="".join(lines))
    with start_ikv("export", "all", "-", "--format", form) as export:
        assert export.stdout is not None
        assert export.stderr is not None
        assert export.stdout.readline()
        export.stdout.close()
        assert export.stderr.read() == ""
        assert export.wait(timeout=60) == 1


@pytest.mark.parametrize("raised", [OSError("disk"), KeyboardInterrupt()])
def test_a_file_that_is_not_complete_never_appears(tmp_path: Path, raised: BaseException) -> None:
    file = tmp_path / "a.csv"
    file.write_text("old")

    def write() -> None:
        with new_file(file) as out:
            out.write(b"new")
            raise raised

    with pytest.raises(type(raised)):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert file.read_text() == "old"


# -- columns and rows --------------------------------------------------------------------------


def row(**fields: tuple[FieldType, Any]) -> Row:
    return tuple(fields), tuple(kind for kind, _ in fields.values()), [value for _, value in fields.values()]


def test_a_column_has_the_one_type_that_holds_every_value() -> None:
    types = types_of([row(a=(INT32, 1), b=(FLOAT32, 1.0)), row(a=(INT64, 1), b=(FLOAT64, 1.0)), row(c=(STRING, ""))])
    assert columns_of(types, mixed_as_text=False) == {"a": INT64, "b": FLOAT64, "c": STRING}


@pytest.mark.parametrize("types", [{INT32, FLOAT64}, {INT64, FLOAT32}, {INT32, INT64, FLOAT64}, {STRING, BYTES}])
def test_a_mixture_that_no_type_holds_is_refused_by_name(types: set[FieldType]) -> None:
    with pytest.raises(InvalidArgumentError, match="'x'") as refused:
        columns_of({"x": types, **{f"y{n}": types for n in range(9)}, "fine": {STRING}}, mixed_as_text=False)
    assert "and 7 more" in str(refused.value)
    assert "fine" not in str(refused.value)
    assert columns_of({"x": types}, mixed_as_text=True) == {"x": None}


@pytest.mark.parametrize("late", [row(id=(STRING, "b"), new=(INT32, 1)), row(id=(STRING, "b"), n=(INT64, 1))])
@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_what_came_into_the_store_after_the_columns_were_decided_is_an_error(
    write: Callable[..., int], late: Row, tmp_path: Path
) -> None:
    first = row(id=(STRING, "a"), n=(INT32, 1))
    with pytest.raises(IKVError, match="run the export again"), new_file(tmp_path / "x") as out:
        write(out, iter([first, late]), columns_of(types_of([first]), mixed_as_text=False))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", ["_ROWS", "_CELLS", "_BYTES"])
def test_rows_are_written_in_groups_of_bounded_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str
) -> None:
    """However many there are, no more than a group is taken from the scan before it is written."""
    from pyarrow import parquet

    monkeypatch.setattr(f"ikvcore.cli._files.{limit}", {"_ROWS": 100, "_CELLS": 200, "_BYTES": 300}[limit])
    rows = [row(id=(STRING, f"{n:03d}"), **({"n": (INT32, n)} if n % 3 == 0 else {})) for n in range(250)]
    file = tmp_path / "x.parquet"
    with new_file(file) as out:
        assert write_parquet(out, iter(rows), columns_of(types_of(rows), mixed_as_text=False)) == 250
    read = parquet.ParquetFile(file)
    assert [read.metadata.row_group(n).num_rows for n in range(read.num_row_groups)] == [100, 100, 50]
    assert read.read().to_pylist() == [{"id": f"{n:03d}", "n": n if n % 3 == 0 else None} for n in range(250)]
    read.close()

"""`ikv put | get | delete | drop | scan`, run as the programs that they are."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ikvcore import admin
from ikvcore.cli import _put
from ikvcore.clientoptions import ClientOptions
from ikvcore.document import IKVDocument
from ikvcore.factory import create_new_writer
from ikvcore.models import Message
from ikvcore.testing._plugins import open_transport
from ikvcore.tokens import Token

Ikv: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"
OnTerminal: TypeAlias = "Callable[..., tuple[int, str]]"

KEY = "[red]name"


def make_store(name: str, **fixed: Any) -> None:
    admin.create_store(name, account_id="demo", account_passkey="secret", **fixed)


def scanned(ikv: Ikv, store: str = "profiles", *arguments: str) -> dict[str, Any]:
    """The store's documents by key, typed."""
    lines = map(json.loads, ikv("scan", store, "--typed", *arguments).stdout.splitlines())
    return {next(iter(line.pop(next(iter(line))).values())): line for line in lines}


# -- put ---------------------------------------------------------------------------------------


def test_a_document_is_put_and_got(ikv: Ikv, profiles: None) -> None:
    done = ikv("put", "profiles", f"{KEY}=Alice", "age:int32=31", "pic:bytes=/wA=", "city=Köln")
    assert (done.stdout, done.stderr) == ("", "1 document put into store 'profiles'\n")
    assert scanned(ikv) == {
        "Alice": {"age": {"int32": 31}, "city": {"string": "Köln"}, "pic": {"bytes": "/wA="}},
    }
    ikv("put", "profiles", f"{KEY}=Alice", "age=old")
    table = ikv("get", "profiles", "Alice").stdout
    assert [line.split() for line in table.splitlines() if "─" not in line and line.strip()] == [
        ["field", "type", "value"],
        [KEY, "string", "Alice"],
        ["age", "string", "old"],
        ["city", "string", "Köln"],
        ["pic", "bytes", "/wA="],
    ]


def test_lines_of_json_are_put(ikv: Ikv, profiles: None, tmp_path: Path) -> None:
    file = tmp_path / "documents"
    file.write_text(f'{{"{KEY}": "a", "n": 1, "a:b=c": true}}\n\n{{"{KEY}": "b", "n": {{"float32": 0.5}}}}\n')
    assert ikv("put", "profiles", "--json", str(file)).stderr == "2 documents put into store 'profiles'\n"
    done = ikv("put", "profiles", "--json", "-", "--token", stdin=f'{{"{KEY}": "c"}}')
    assert Token.parse(done.stdout.strip())
    assert scanned(ikv) == {
        "a": {"n": {"int64": 1}, "a:b=c": {"boolean": True}},
        "b": {"n": {"float32": 0.5}},
        "c": {},
    }
    assert ikv("put", "profiles", "--json", "-", "--token").stdout == f"{Token()}\n"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 3: it is not JSON"),
        ('{"n": 1}', f"line 3: the document has no field '{KEY}', the store's primary key"),
        (f'{{"{KEY}": 7}}', f"line 3: 7 cannot be a key: field '{KEY}' is the store's key, of type STRING"),
        (f'{{"{KEY}": "x", "n": {{"itn32": 7}}}}', "line 3: field 'n' has unknown type 'itn32' (did you mean 'int32'"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_published(ikv: Ikv, profiles: None, line: str, told: str) -> None:
    done = ikv("put", "profiles", "--json", "-", stdin=f'{{"{KEY}": "a"}}\n\n{line}\n', code=1)
    assert done.stderr.startswith(f"error: {told}")
    assert done.stderr.endswith("; nothing was published\n")
    assert done.stderr.count("\n") == 1
    assert bounds() == 0


def test_of_a_long_file_it_is_told_what_was_published_before_a_bad_line(ikv: Ikv, profiles: None) -> None:
    lines = [f'{{"{KEY}": "{n}"}}' for n in range(20_010)]
    done = ikv("put", "profiles", "--json", "-", stdin="\n".join(["", *lines, "{}"]), code=1)
    assert "error: line 20,012: " in done.stderr
    assert "20,000 documents, those up to line 20,001, were published before" in done.stderr
    assert done.stderr.count("\n") == 2
    assert bounds() == 20_000


def test_lines_that_are_long_make_a_batch_sooner() -> None:
    lines = [b"%07d" % number for number in range(1, 31)]
    assert [len(batch) for batch, _ in _put._batches(iter(lines), lambda _: IKVDocument({}))] == [30]
    long = b"x" * (_put._BATCH_BYTES // 10)
    batches = list(_put._batches(iter([b" ", *[long] * 25]), lambda _: IKVDocument({})))
    assert [(len(batch), line) for batch, line in batches] == [(11, 12), (11, 23), (3, 26)]


def bounds() -> int:
    """Events in the store's log."""
    size = admin.measure_store("profiles", account_id="demo", account_passkey="secret")
    return sum(place.end for place in size.bounds.values())


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["profiles"], 2, "give FIELD=VALUE or --json FILE"),
        (["profiles", "a=b", "--json", "-"], 2, "not both"),
        (["profiles", "--json", "/no/where"], 2, "cannot be read: No such file"),
        (["profiles", "age:int32=31"], 1, f"the document has no field '{KEY}'"),
        (["profiles", f"{KEY}=a", "age:in32=31"], 1, "did you mean 'int32'"),
        (["profiles", f"{KEY}="], 1, "cannot be a key"),
        (["profile", f"{KEY}=a"], 1, "no store 'profile'"),
    ],
)
def test_a_wrong_put_is_told_in_two_lines(ikv: Ikv, profiles: None, arguments: list[str], code: int, told: str) -> None:
    done = ikv("put", *arguments, code=code)
    assert done.stdout == ""
    assert told in done.stderr
    assert done.stderr.count("\n") <= 2
    assert bounds() == 0


# -- get ---------------------------------------------------------------------------------------


@pytest.fixture
def people(ikv: Ikv, profiles: None) -> None:
    """Two documents of the store `profiles`."""
    lines = (
        {KEY: "Alice", "age": {"int32": 31}, "bio": "\x1b[31m[red]x[/red]\nend", "f": {"float32": 0.1}},
        {KEY: "Bob", "age": 7, "pic": {"bytes": "/wA="}, "long": "x" * 600},
    )
    ikv("put", "profiles", "--json", "-", stdin="\n".join(map(json.dumps, lines)))


def test_documents_are_got_for_people(ikv: Ikv, people: None) -> None:
    shown = ikv("get", "profiles", "Alice", "Bob").stdout
    assert "\\x1b[31m[red]x[/red]\\nend" in shown
    assert "\x1b" not in shown
    assert "(600 characters)" in shown
    assert [line.split()[0] for line in shown.splitlines() if "[red]name" in line] == ["Alice", "Bob"]
    one = ikv("get", "profiles", "Alice", "--field", "f", "--field", "agee")
    assert [line.split() for line in one.stdout.splitlines() if "float32" in line] == [["f", "float32", "0.1"]]
    assert "bio" not in one.stdout
    assert one.stderr == "no document shown has field 'agee'\n"


def test_documents_are_got_for_programs(ikv: Ikv, people: None) -> None:
    alice, bob = map(json.loads, ikv("get", "profiles", "Alice", "Bob", "--json").stdout.splitlines())
    assert list(alice) == [KEY, "age", "bio", "f"]
    assert (alice["age"], alice["bio"]) == (31, "\x1b[31m[red]x[/red]\nend")
    assert (len(bob["long"]), bob["pic"]) == (600, {"bytes": "/wA="})
    (typed,) = map(json.loads, ikv("get", "profiles", "Bob", "--typed", "--field", "age").stdout.splitlines())
    assert typed == {KEY: {"string": "Bob"}, "age": {"int64": 7}}


def test_what_is_not_there_is_told_with_an_exit_code_of_its_own(ikv: Ikv, people: None) -> None:
    done = ikv("get", "profiles", "nobody", "Bob", "--json", code=3)
    assert json.loads(done.stdout)["age"] == 7
    assert done.stderr == "store 'profiles' has no document 'nobody'\n"
    many = ikv("get", "profiles", *map(str, range(9)), code=3)
    assert (many.stdout, many.stderr) == ("", "store 'profiles' has no document '0', '1', '2' and 6 more\n")


def test_a_value_alone_is_for_scripts(ikv: Ikv, people: None) -> None:
    assert ikv("get", "profiles", "Alice", "--raw", "--field", "bio").stdout == "\x1b[31m[red]x[/red]\nend\n"
    assert ikv("get", "profiles", "Bob", "--raw", "--field", KEY).stdout == "Bob\n"
    assert ikv("get", "profiles", "Alice", "--raw", "--field", "f").stdout == "0.1\n"
    assert ikv("get", "profiles", "Alice", "--raw", "--field", "pic", code=3).stdout == ""
    assert ikv("get", "profiles", "nobody", "--raw", "--field", "pic", code=3).stdout == ""
    command = [Path(sys.executable).with_name("ikv"), "get", "profiles", "Bob", "--raw", "--field", "pic"]
    assert subprocess.run(command, capture_output=True, check=True, timeout=60).stdout == b"\xff\x00"


def test_keys_that_are_no_text_are_given_in_base64(ikv: Ikv) -> None:
    make_store("blobs", primary_key="id", primary_key_type="BYTES")
    key = base64.b64encode(b"\xff\x00").decode()
    ikv("put", "blobs", f"id:bytes={key}", "x=1")
    ikv("put", "blobs", "id=-text", "x=2")
    assert json.loads(ikv("get", "blobs", key, "--key-base64", "--json").stdout) == {"id": {"bytes": key}, "x": "1"}
    assert ikv("get", "blobs", "--raw", "--field", "x", "--", "-text").stdout == "2\n"
    assert "b'\\xff'" in ikv("get", "blobs", "/w==", "--key-base64", code=3).stderr
    assert "base64" in ikv("get", "blobs", "?", "--key-base64", code=1).stderr
    ikv("delete", "blobs", key, "--key-base64")
    assert ikv("scan", "blobs", "--json", "--field", "x").stdout == '{"id": {"bytes": "LXRleHQ="}, "x": "2"}\n'


def test_a_stale_replica_serves_what_it_has(ikv: Ikv, people: None) -> None:
    """The log holds an event that cannot be read, so that only a reader that does not wait for its end can serve."""
    ikv("get", "profiles", "Bob")
    log = open_transport("local", "profiles", "demo", "secret", {})
    token = log.publish([Message(partition, b"", b"\xff", 1) for partition in (0, 1)])
    log.close()
    asked = ("get", "profiles", "Bob", "--raw", "--field", "age")
    assert "ingest has halted" in ikv(*asked, code=1).stderr
    assert ikv(*asked, "--stale").stdout == "7\n"
    assert "ingest has halted" in ikv(*asked, "--stale", "--wait", str(token), code=1).stderr
    assert "not a token" in ikv(*asked, "--stale", "--wait", "x", code=1).stderr
    assert len(ikv("scan", "profiles", "--stale", "--json").stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["get", "profile", "Alice"], 1, "no store 'profile'"),
        (["get", "profiles", ""], 1, "cannot be a key"),
        (["get", "profiles", "Alice", "--raw"], 2, "give one key and one --field"),
        (["get", "profiles", "Alice", "--field", "a", "--raw", "--json"], 2, "neither --json nor --typed"),
        (["get", "profiles", "Alice", "--timeout", "-1"], 2, "--timeout"),
        (["get", "profiles", "Alice", "--backend", "lmbd"], 1, "did you mean 'lmdb'"),
        (["get", "profiles"], 2, "KEY"),
        (["scan", "profiles", "--limit", "-1"], 2, "--limit"),
        (["delete", "profile", "Alice"], 1, "no store 'profile'"),
        (["drop", "profile", "--all", "--yes"], 1, "no store 'profile'"),
    ],
)
def test_a_wrong_command_is_told_in_two_lines(
    ikv: Ikv, profiles: None, arguments: list[str], code: int, told: str
) -> None:
    done = ikv(*arguments, code=code)
    assert done.stdout == ""
    assert told in done.stderr
    assert done.stderr.count("\n") <= 2


# -- scan --------------------------------------------------------------------------------------


def test_documents_are_scanned_for_people(ikv: Ikv, people: None) -> None:
    done = ikv("scan", "profiles", COLUMNS="120")
    names, types, line, *rows = done.stdout.splitlines()
    assert names.split() == [KEY, "age", "bio", "f", "long", "pic"]
    assert types.split() == ["string", "int32/int64", "string", "float32", "string", "bytes"]
    assert set(line) == {"─"}
    alice, bob = sorted(row for row in rows if row)
    assert alice.split() == ["Alice", "31", "\\x1b[31m[red]x[/red]\\nend", "0.1"]
    assert bob.split() == ["Bob", "7", "x" * 32 + "…", "/wA="]
    assert done.stderr == ""


def test_columns_that_do_not_fit_are_counted(ikv: Ikv, people: None) -> None:
    done = ikv("scan", "profiles", COLUMNS="40")
    assert max(map(len, done.stdout.splitlines())) <= 40
    assert sorted(row.split() for row in done.stdout.splitlines()[3:5]) == [["Alice", "31", "+2"], ["Bob", "7", "+2"]]
    assert "--field" in done.stderr


def test_a_scan_is_limited_and_projected(ikv: Ikv, people: None) -> None:
    assert scanned(ikv, "profiles", "--field", "age") == {
        "Alice": {"age": {"int32": 31}},
        "Bob": {"age": {"int64": 7}},
    }
    assert len(ikv("scan", "profiles", "--limit", "1", "--json").stdout.splitlines()) == 1
    assert ikv("scan", "profiles", "--field", "agee").stderr == "no document shown has field 'agee'\n"
    done = ikv("scan", "profiles", "--limit", "0")
    assert (done.stdout, done.stderr) == ("", "no documents\n")


@pytest.mark.parametrize("form", [["--json"], []])
def test_a_reader_that_has_seen_enough_ends_a_scan_quietly(
    ikv: Ikv, start_ikv: Callable[..., subprocess.Popen[str]], profiles: None, form: list[str]
) -> None:
    lines = (f'{{"{KEY}": "{n:05d}", "x": "{"x" * 60}"}}\n' for n in range(5_000))
    ikv("put", "profiles", "--json", "-", stdin="".join(lines))
    with start_ikv("scan", "profiles", *form) as scan:
        assert scan.stdout is not None
        assert scan.stderr is not None
        assert scan.stdout.readline()
        scan.stdout.close()
        assert scan.stderr.read() == ""
        assert scan.wait(timeout=60) == 1


# -- delete and drop ---------------------------------------------------------------------------


def test_documents_and_fields_are_deleted(ikv: Ikv, people: None) -> None:
    done = ikv("delete", "profiles", "Alice", "nobody", "--field", "bio", "--field", "f")
    assert done.stderr == "deletion of 2 fields of 2 documents published to store 'profiles'\n"
    assert scanned(ikv, "profiles", "--field", "age", "--field", "bio", "--field", "f")["Alice"] == (
        {"age": {"int32": 31}}
    )
    assert Token.parse(ikv("delete", "profiles", "Alice", "--token").stdout.strip())
    assert list(scanned(ikv)) == ["Bob"]
    told = ikv("delete", "profiles", "Bob", "--field", KEY, code=1).stderr
    assert f"field '{KEY}' is a key of store 'profiles'" in told
    assert list(scanned(ikv)) == ["Bob"]


def test_a_partitioning_key_is_asked_for_where_there_is_one(ikv: Ikv, profiles: None) -> None:
    make_store("events", primary_key="id", partitioning_key="region", partitions=4)
    ikv("put", "events", "id=a", "region=north", "x=1")
    assert "no field 'region', the store's partitioning key" in ikv("put", "events", "id=a", code=1).stderr
    assert "'region': give the documents' value" in ikv("delete", "events", "a", code=2).stderr
    ikv("delete", "events", "a", "--partitioning-key", "north")
    assert ikv("get", "events", "a", code=3).stdout == ""
    told = ikv("delete", "profiles", "a", "--partitioning-key", "north", code=2).stderr
    assert "has no partitioning key" in told


def test_fields_are_dropped_from_all_documents(ikv: Ikv, people: None) -> None:
    done = ikv("drop", "profiles", "--field", "age", "--prefix", "l", "--prefix", "b", "--yes")
    assert done.stderr == (
        "drop of field 'age' and the fields that begin with 'l' and the fields that begin with 'b' from all documents "
        "published to store 'profiles'\n"
    )
    assert scanned(ikv) == {"Alice": {"f": {"float32": pytest.approx(0.1)}}, "Bob": {"pic": {"bytes": "/wA="}}}
    assert "every field but the keys" in ikv("drop", "profiles", "--prefix", "", "--yes").stderr
    assert scanned(ikv) == {"Alice": {}, "Bob": {}}
    assert Token.parse(ikv("drop", "profiles", "--all", "--yes", "--token").stdout.strip())
    assert scanned(ikv) == {}


def test_a_drop_that_is_not_clear_drops_nothing(ikv: Ikv, people: None) -> None:
    wrong: list[tuple[list[str], int, str]] = [
        ([], 2, "say what to drop"),
        (["--all", "--field", "age"], 2, "say what to drop"),
        (["--all"], 2, "say --yes"),
        (["--field", KEY, "--yes"], 1, "ikv drop --all removes all"),
        (["--field", "age", "--prefix", "\udcff", "--yes"], 1, "cannot be a field name"),
    ]
    for arguments, code, told in wrong:
        assert told in ikv("drop", "profiles", *arguments, code=code).stderr
        assert bounds() == 2


@pytest.mark.parametrize(("answer", "left"), [("n\n", 1), ("y\n", 0)])
def test_on_a_terminal_a_drop_is_asked_for(
    on_terminal: OnTerminal, ikv: Ikv, profiles: None, answer: str, left: int
) -> None:
    ikv("put", "profiles", f"{KEY}=Alice", "age=31")
    code, shown = on_terminal(answer, "drop", "profiles", "--all")
    assert "Drop all documents of store 'profiles'?" in shown
    assert code == left
    assert len(scanned(ikv)) == left


# -- the tables --------------------------------------------------------------------------------


def test_a_later_page_has_a_heading_of_its_own(ikv: Ikv) -> None:
    make_store("sparse", primary_key="id")
    lines = (f'{{"id": "{n:03d}", "f{n // 50}": "{n}"}}\n' for n in range(110))
    ikv("put", "sparse", "--json", "-", stdin="".join(lines))
    shown = ikv("scan", "sparse").stdout.splitlines()
    assert [line.split() for line in shown if line.startswith("id")] == [["id", "f0"], ["id", "f1"], ["id", "f2"]]
    assert [line.split() for line in shown if line[:1].isdigit()] == [[f"{n:03d}", str(n)] for n in range(110)]


def test_writers_elsewhere_are_seen(ikv: Ikv, profiles: None) -> None:
    """A get shows what any process had published before it."""
    ikv("get", "profiles", "a", code=3)
    options = ClientOptions(account_id="demo", account_passkey="secret", store_name="profiles", console_logging="ERROR")
    with create_new_writer(options) as writer:
        writer.upsert_fields(IKVDocument.from_dict({KEY: "a", "x": "1"}))
    assert ikv("get", "profiles", "a", "--raw", "--field", "x").stdout == "1\n"

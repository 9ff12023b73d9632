"""`ikv store` and `ikv account`, run as the programs that they are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from ikvcore import admin

Ikv: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"


def stores() -> list[str]:
    return [each.store_name for each in admin.list_stores(account_id="demo", account_passkey="secret")]


def test_the_version_is_shown(ikv: Ikv) -> None:
    assert ikv("--version").stdout.startswith("ikvcore 0.")


def test_the_documented_command_makes_a_store(ikv: Ikv) -> None:
    done = ikv(
        *("store", "create", "profiles", "--account-id", "demo", "--account-passkey", "secret"),
        *("--primary-key", "firstname"),
        IKV_ACCOUNT_ID="",
        IKV_ACCOUNT_PASSKEY="",
    )
    assert done.stdout == ""
    assert done.stderr == "store 'profiles' of account 'demo' was made\n"
    assert stores() == ["profiles"]


def test_every_option_of_a_store_arrives(ikv: Ikv) -> None:
    ikv(
        *("store", "create", "events", "--primary-key", "id", "--primary-key-type", "bytes"),
        *("--partitioning-key", "region", "--partitioning-key-type", "BYTES"),
        *("--partitions", "4", "--partitioner", "crc32"),
    )
    made = json.loads(ikv("store", "describe", "events", "--json").stdout)
    assert (
        made.items()
        >= {
            "store_name": "events",
            "account_id": "demo",
            "primary_key": "id",
            "primary_key_type": "BYTES",
            "partitioning_key": "region",
            "partitioning_key_type": "BYTES",
            "partitions": 4,
            "partitioner": "crc32",
        }.items()
    )
    assert made["log_bytes"] > 0
    assert made["bounds"]["3"] == {"first": 0, "end": 0, "complete": True}


def test_stores_are_listed_for_people_and_for_programs(ikv: Ikv, profiles: None) -> None:
    shown = ikv("store", "list").stdout
    assert "profiles" in shown
    assert "[red]name (STRING)" in shown
    (listed,) = json.loads(ikv("store", "list", "--json").stdout)
    assert (listed["store_name"], listed["partitions"]) == ("profiles", 2)


def test_a_store_is_described_for_people(ikv: Ikv, profiles: None) -> None:
    shown = ikv("store", "describe", "profiles").stdout
    assert "[red]name (STRING)" in shown
    assert "positions 0 to 0" in shown


def test_no_stores_are_no_error(ikv: Ikv) -> None:
    ikv("account", "create")
    done = ikv("store", "list")
    assert (done.stdout, done.stderr) == ("", "account 'demo' has no stores\n")
    assert json.loads(ikv("store", "list", "--json").stdout) == []


def test_a_store_is_deleted_when_that_was_confirmed(ikv: Ikv, profiles: None) -> None:
    assert "--yes" in ikv("store", "delete", "profiles", code=2).stderr
    assert stores() == ["profiles"]
    assert "was deleted" in ikv("store", "delete", "profiles", "--yes").stderr
    assert stores() == []


@pytest.mark.parametrize(("answer", "left"), [("n\n", ["profiles"]), ("y\n", [])])
def test_on_a_terminal_a_deletion_is_asked_for(
    on_terminal: Callable[..., tuple[int, str]], profiles: None, answer: str, left: list[str]
) -> None:
    code, shown = on_terminal(answer, "store", "delete", "profiles")
    assert "for ever?" in shown
    assert code == (1 if left else 0)
    assert stores() == left


def test_the_passkey_may_come_from_a_file(ikv: Ikv, profiles: None, tmp_path: Path) -> None:
    file = tmp_path / "passkey"
    file.write_text("secret\nsecond line")
    ikv("store", "list", "--account-passkey-file", str(file), IKV_ACCOUNT_PASSKEY="")
    ikv("store", "list", IKV_ACCOUNT_PASSKEY="", IKV_ACCOUNT_PASSKEY_FILE=str(file))
    ikv("store", "list", "--account-passkey-file", str(file), IKV_ACCOUNT_PASSKEY="wrong")
    told = ikv("store", "list", "--account-passkey-file", str(file), "--account-passkey", "x", code=2).stderr
    assert "keep one of them" in told
    assert "cannot be read" in ikv("store", "list", "--account-passkey-file", "/nowhere", code=2).stderr


def test_without_a_passkey_the_ways_to_give_it_are_told(ikv: Ikv) -> None:
    assert "IKV_ACCOUNT_PASSKEY" in ikv("store", "list", code=2, IKV_ACCOUNT_PASSKEY="").stderr


def test_a_passkey_is_rotated(ikv: Ikv, profiles: None) -> None:
    ikv("account", "rotate", IKV_NEW_PASSKEY="newer")
    ikv("store", "list", code=1)
    ikv("store", "list", IKV_ACCOUNT_PASSKEY="newer")


def test_a_new_account_exists_once(ikv: Ikv) -> None:
    assert "was made" in ikv("account", "create").stderr
    assert ikv("account", "create", code=1).stderr.startswith("error: account 'demo' exists already")


def test_options_of_the_transport_arrive(ikv: Ikv, tmp_path: Path, profiles: None) -> None:
    home = str(tmp_path / "other home")
    ikv("store", "create", "elsewhere", "--primary-key", "id", "--option", f"home={home}")
    assert stores() == ["profiles"]
    options = json.dumps({"home": home})
    assert "elsewhere" in ikv("store", "list", IKV_TRANSPORT_OPTIONS=options).stdout
    assert "KEY=VALUE" in ikv("store", "list", "--option", "home", code=2).stderr
    assert "JSON object" in ikv("store", "list", code=1, IKV_TRANSPORT_OPTIONS="home").stderr
    assert "valid options: durability, home" in ikv("store", "list", "--option", "hoem=x", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["store", "describe", "unknown"], "no store 'unknown' for account 'demo' with this passkey"),
        (["store", "list", "--account-passkey", "wrong"], "with this passkey"),
        (["store", "create", "a/b", "--primary-key", "id"], "'a/b' cannot be a store name"),
        (["store", "create", "a", "--primary-key", "id", "--partitions", "0"], "from 1 to 65,535"),
        (["store", "create", "a", "--primary-key", "id", "--primary-key-type", "date"], "STRING, BYTES"),
        (["store", "list", "--transport", "locla"], "'local'"),
    ],
)
def test_an_error_is_a_line_or_two_without_a_traceback(
    ikv: Ikv, profiles: None, arguments: list[str], told: str
) -> None:
    done = ikv(*arguments, code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert done.stderr.count("\n") <= 2
    assert stores() == ["profiles"]


def test_a_traceback_is_shown_when_it_was_asked_for_and_holds_no_secret(ikv: Ikv) -> None:
    told = ikv("--debug", "store", "list", "--account-passkey", "very-secret", code=1).stderr
    assert "Traceback" in told
    assert "StoreAccessError" in told
    assert "very-secret" not in told


@pytest.mark.parametrize(
    "arguments",
    [["store", "create", "a"], ["store", "create", "a", "--partitions", "many"], ["store", "remove"], ["stoer"]],
)
def test_a_wrong_usage_is_told_with_its_own_exit_code(ikv: Ikv, arguments: list[str]) -> None:
    told = ikv(*arguments, code=2).stderr
    assert told.startswith("error: ")
    assert "see ikv" in told
    assert told.count("\n") == 2


@pytest.mark.parametrize("arguments", [["--help"], ["store", "--help"], ["store", "create", "--help"]])
def test_help_imports_no_driver(arguments: list[str]) -> None:
    program = f"""
import sys
from ikvcore.cli import app
try:
    app({arguments!r}, prog_name="ikv", obj={{}})
except SystemExit as exit:
    assert not exit.code
loaded = {{name.partition(".")[0] for name in sys.modules}}
assert not loaded & {{"lmdb", "pluggy", "google", "ikv_transports", "ikv_backends"}}, loaded
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

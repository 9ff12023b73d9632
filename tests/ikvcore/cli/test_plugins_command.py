"""`ikv plugins` and `ikv plugins check`, run as the program that it is, with distributions that pip has installed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

Ikv: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"


@pytest.fixture
def acme(installed_wheels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheels' plugins, beside the built-in ones."""
    monkeypatch.setenv("PYTHONPATH", installed_wheels)


FUTURE = (
    "backend 'future' of future-store speaks plugin API version 2, this ikvcore speaks 1; install a future-store made "
    "for version 1"
)
MISSPELT = (
    "observer 'misspelt' of acme-hooks 3.1 is installed but broken: TypeError: it implements unknown hook "
    "'event_published' (did you mean 'events_published'?)"
)

# -- the listing -------------------------------------------------------------------------------


@pytest.mark.usefixtures("acme")
def test_plugins_are_shown_for_people(ikv: Ikv) -> None:
    shown = ikv("plugins", COLUMNS="160").stdout
    assert "API 1; durability power-loss; shared by processes; keys up to 511 bytes" in shown
    assert "API 1; durability none; for one process; volatile" in shown
    assert "option durability: str, default 'power-loss'" in shown
    assert "capabilities: Provisioning" in shown
    assert "is told of batch_applied, events_published, reader_started" in shown
    assert "broken: backend 'unlicensed' of acme-stores 1.2 is installed but broken: RuntimeError: no licence" in shown
    assert "not installed: No.Such.Driver is missing; install it with: pip install 'Acme-Engine[engine]'" in shown
    assert "dist-a:same" in shown


def test_plugins_are_told_to_programs(ikv: Ikv) -> None:
    told = {(each["kind"], each["name"]): each for each in json.loads(ikv("plugins", "--json").stdout)}
    lmdb = told["backend", "lmdb"]
    assert (lmdb["state"], lmdb["problem"], lmdb["process_shared"], lmdb["sharing"]) == ("ready", None, True, "shared")
    assert (lmdb["api_version"], lmdb["max_key_bytes"], lmdb["volatile"]) == (1, 511, False)
    assert lmdb["options"] == [{"name": "durability", "type": "str", "required": False, "default": "power-loss"}]
    assert told["transport", "local"]["capabilities"] == ["Provisioning", "VerifyLog"]
    assert "volatile" not in told["transport", "local"]
    assert told["observer", "metrics"]["hooks"] == ["batch_applied", "events_published", "reader_started"]


@pytest.mark.usefixtures("acme")
def test_whatever_is_wrong_with_a_plugin_is_shown_in_its_place(ikv: Ikv) -> None:
    told = [each for each in json.loads(ikv("plugins", "--json").stdout) if each["distribution"] != "ikvcore"]
    states = {each["chosen_as"]: (each["state"], each["problem"]) for each in told}
    broken = "backend {!r} of acme-stores 1.2 is installed but broken: "
    assert states == {
        "acme": ("ready", None),
        "backwards": ("ready", None),
        "boasting": ("ready", None),
        "crashing": ("ready", None),
        "hanging": ("ready", None),
        "dist-a:same": ("ready", None),
        "Dist_B:same": ("ready", None),
        "unlicensed": ("broken", broken.format("unlicensed") + "RuntimeError: no licence was found"),
        "driverless": (
            *("broken", broken.format("driverless") + "ModuleNotFoundError: No module named 'no_such_driver'"),
        ),
        "engine": (
            *("not installed", "No.Such.Driver is missing; install it with: pip install 'Acme-Engine[engine]'"),
        ),
        "future": ("broken", FUTURE),
        "audit": ("ready", None),
        "failing": ("ready", None),
        "misspelt": ("broken", MISSPELT),
        "unimportable": (
            *(
                "broken",
                "observer 'unimportable' of acme-hooks 3.1 is installed but broken: ImportError: half installed",
            ),
        ),
    }
    (acme,) = [each for each in told if each["chosen_as"] == "acme" and each["kind"] == "backend"]
    assert (acme["distribution"], acme["version"], acme["summary"]) == ("acme-stores", "1.2", "shelves of Acme")
    assert acme["options"] == [
        {"name": "shelves", "type": "int", "required": False, "default": 3},
        {"name": "label", "type": "str", "required": False, "default": "acme"},
    ]


def test_a_plugin_that_prints_or_leaves_spoils_no_listing(ikv: Ikv, odd_backends: Path) -> None:
    (odd_backends / "odd_loud.py").write_text("print('noise')")
    (odd_backends / "odd_leaving.py").write_text("raise SystemExit(5)")
    with (odd_backends / "odd-1.0.dist-info" / "entry_points.txt").open("a") as names:
        names.write("loud = odd_loud\nleaving = odd_leaving\n")
    done = ikv("plugins", "--json")
    told = {each["name"]: each for each in json.loads(done.stdout)}
    assert "noise" in done.stderr
    assert told["leaving"]["problem"].endswith(
        "is installed but broken: importing it ends the program, with exit code 5"
    )
    assert (told["loud"]["state"], told["lmdb"]["state"]) == ("broken", "ready")


def test_a_mistake_is_told_in_two_lines(ikv: Ikv) -> None:
    done = ikv("plugins", "--jsn", code=2)
    assert "--json" in done.stderr
    assert done.stderr.count("\n") <= 2


# -- check -------------------------------------------------------------------------------------


def checked(ikv: Ikv, *arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """What was tried, by its name."""
    return {each["what"]: each for each in json.loads(ikv("plugins", "check", *arguments, "--json", code=code).stdout)}


@pytest.mark.usefixtures("acme")
def test_a_sound_plugin_of_another_distribution_works_with_its_options(ikv: Ikv) -> None:
    shown = ikv("plugins", "check", "acme", "--kind", "backend", "--option", "shelves=5").stdout.splitlines()
    assert shown[0] == "works loads: acme-stores 1.2, plugin API 1"
    assert "works scans in the order of keys" in shown
    assert "-     keeps data over close and open: volatile, by what it declares" in shown
    assert "noise" not in "".join(shown)
    results = checked(ikv, "acme", "--kind", "backend", "--option", "shelfs=5", code=3)
    assert "did you mean 'shelves'" in results["takes its options"]["detail"]


@pytest.mark.usefixtures("acme")
def test_a_plugin_that_crashes_takes_nothing_with_it(ikv: Ikv) -> None:
    results = checked(ikv, "crashing", code=3)
    *before, (last, result) = results.items()
    assert (last, result["works"]) == ("deletes keys and ranges", False)
    assert result["detail"] == "its process ended with SIGSEGV"
    assert all(each["works"] for _, each in before)


@pytest.mark.usefixtures("acme")
def test_what_a_plugin_promises_and_does_not_keep_is_named(ikv: Ikv) -> None:
    results = checked(ikv, "backwards", code=3)
    assert results["scans in the order of keys"]["detail"].startswith("keys from s\\x00 up to s\\xff: [b's\\x80'")
    assert results["writes and reads back"]["works"]
    results = checked(ikv, "boasting", code=3)
    assert [name for name, each in results.items() if each["works"] is False] == [
        "capability Verify",
        "keeps data over close and open",
        "keeps what a killed process had committed",
    ]
    assert results["capability Verify"]["detail"] == "MemoryStorage has not all of its methods"


@pytest.mark.usefixtures("acme")
def test_a_plugin_that_is_broken_or_not_there_is_told_apart(ikv: Ikv) -> None:
    shown = ikv("plugins", "check", "unlicensed", code=3).stdout
    assert shown == (
        "FAILS loads: PluginBrokenError: backend 'unlicensed' of acme-stores 1.2 is installed but broken: "
        "RuntimeError: no licence was found\n"
    )
    assert "did you mean 'lmdb'?" in ikv("plugins", "check", "lmbd", code=1).stderr
    assert "add --kind backend or --kind transport" in ikv("plugins", "check", "memory", code=2).stderr
    assert "claimed by dist-a and by Dist_B" in ikv("plugins", "check", "same", code=1).stderr

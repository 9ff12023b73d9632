"""`ikv plugins`, run as the program that it is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Ikv: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"


def test_plugins_are_shown_for_people_and_for_programs(ikv: Ikv) -> None:
    shown = ikv("plugins", COLUMNS="160").stdout
    assert "durability power-loss; shared by processes" in shown
    assert "option durability: str, default 'power-loss'" in shown
    assert "capabilities: Provisioning" in shown
    told = {(each["kind"], each["name"]): each for each in json.loads(ikv("plugins", "--json").stdout)}
    lmdb = told["backend", "lmdb"]
    assert (lmdb["state"], lmdb["problem"], lmdb["process_shared"], lmdb["sharing"]) == ("ready", None, True, "shared")
    assert (lmdb["api_version"], lmdb["max_key_bytes"], lmdb["volatile"]) == (1, 511, False)
    assert lmdb["options"] == [{"name": "durability", "type": "str", "required": False, "default": "power-loss"}]
    assert told["transport", "local"]["capabilities"] == ["Provisioning", "VerifyLog"]
    assert "volatile" not in told["transport", "local"]


def test_broken_and_incomplete_plugins_are_shown_beside_the_others(ikv: Ikv, odd_backends: Path) -> None:
    shown = ikv("plugins", COLUMNS="160").stdout
    assert "broken: backend 'broken' of odd 1.0 is installed but broken: ValueError: this breaks" in shown
    assert "not installed: no-such-driver is missing; install it with: pip install 'odd[absent]'" in shown
    assert "LMDB: the default" in shown
    told = {each["name"]: each for each in json.loads(ikv("plugins", "--json").stdout)}
    assert (told["broken"]["state"], told["absent"]["state"], told["solo"]["state"]) == (
        *("broken", "not installed", "ready"),
    )
    assert "options" not in told["broken"]


def test_a_plugin_that_prints_or_leaves_spoils_no_listing(ikv: Ikv, odd_backends: Path) -> None:
    (odd_backends / "odd_loud.py").write_text("print('noise')")
    (odd_backends / "odd_leaving.py").write_text("raise SystemExit(5)")
    with (odd_backends / "odd-1.0.dist-info" / "entry_points.txt").open("a") as names:
        names.write("loud = odd_loud\nleaving = odd_leaving\n")
    done = ikv("plugins", "--json")
    told = {each["name"]: each for each in json.loads(done.stdout)}
    assert "noise" in done.stderr
    assert told["leaving"]["problem"] == "importing it ends the program, with exit code 5"
    assert (told["loud"]["state"], told["lmdb"]["state"]) == ("broken", "ready")


def test_a_mistake_is_told_in_two_lines(ikv: Ikv) -> None:
    done = ikv("plugins", "--jsn", code=2)
    assert "--json" in done.stderr
    assert done.stderr.count("\n") <= 2

"""Each way in which discovery can fail (C10), as an application meets it, on distributions that pip has installed.

What is tried is tried in one process: nothing of it may get in the way of the rest. For how plugins are checked once
they are found see test_registry.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

APPLICATION = """
import json, logging, sys
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.errors import IKVError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.testing._live import document
from ikvcore.testing.fixtures import EphemeralStore

logging.disable()
store = EphemeralStore()

def tried(**chosen):
    builder = store.builder()
    for setting, name in chosen.items():
        getattr(builder, f"with_{setting}")(name)
    try:
        with create_new_reader(builder.build()) as reader:
            store.put(id="a", n=1)
            reader.wait_for(store.writer.upsert_fields(document(id="b", n=2)), timeout=30)
            return f"reads {reader.get_value('b', 'n')}"
    except IKVError as exc:
        return f"{type(exc).__name__}: {exc}"

before = set(sys.modules)
told = {name: tried(backend=name) for name in sys.argv[1:]}
told["twice"] = tried(backend="unlicensed")
told["transport"] = tried(transport="acne")
imported = [each for each in set(sys.modules) - before if each.startswith(("acme", "dist_", "future"))]
told["imported"] = " ".join(sorted(imported))
print(json.dumps(told))
"""
NAMES = (
    *("nowhere", "acmee", "engine", "Acme-Engine:engine", "unlicensed", "driverless", "future"),
    *("same", "dist-a:same", "Dist_B:same", "dist.b:same", "dist-c:same", "acme", "acme-stores:acme"),
)


def run(code: str, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def told(installed_wheels: str) -> Mapping[str, str]:
    """What an application is told that chooses each of NAMES as its backend."""
    answers: dict[str, str] = json.loads(run(APPLICATION, installed_wheels, *NAMES).stdout.splitlines()[-1])
    return answers


def test_a_plugin_of_another_distribution_is_a_backend_like_any(told: Mapping[str, str]) -> None:
    assert told["acme"] == told["acme-stores:acme"] == "reads 2"


def test_a_name_that_is_not_installed_gets_what_is(told: Mapping[str, str]) -> None:
    assert told["nowhere"].startswith("PluginNotFoundError: no backend named 'nowhere' is installed; installed: acme, ")
    assert "pip" not in told["nowhere"]


def test_a_near_miss_is_guessed(told: Mapping[str, str]) -> None:
    assert told["acmee"].startswith("PluginNotFoundError: no backend named 'acmee' is installed (did you mean 'acme'")
    assert "no transport named 'acne' is installed (did you mean 'acme'?)" in told["transport"]


@pytest.mark.parametrize("name", ["engine", "Acme-Engine:engine"])
def test_a_missing_extra_gets_the_pip_command(told: Mapping[str, str], name: str) -> None:
    assert told[name].startswith("PluginNotFoundError: no backend named 'engine' is installed")
    assert told[name].endswith("install it with: pip install 'Acme-Engine[engine]'")


def test_an_import_that_fails_is_broken_rather_than_not_installed(told: Mapping[str, str]) -> None:
    """With distribution, version and cause; also where what is missing is no extra's, and at a second try."""
    head = "PluginBrokenError: backend {!r} of acme-stores 1.2 is installed but broken: "
    assert told["unlicensed"] == head.format("unlicensed") + "RuntimeError: no licence\nwas found"
    assert told["twice"] == told["unlicensed"]
    assert told["driverless"] == (head.format("driverless") + "ModuleNotFoundError: No module named 'no_such_driver'")


def test_another_api_version_is_told_with_both(told: Mapping[str, str]) -> None:
    assert told["future"] == (
        "PluginVersionError: backend 'future' of future-store speaks plugin API version 2, this ikvcore speaks 1; "
        "install a future-store made for version 1"
    )


def test_a_clash_names_both_distributions_and_either_can_be_chosen(told: Mapping[str, str]) -> None:
    assert told["same"] == (
        "PluginClashError: backend 'same' is claimed by dist-a and by Dist_B; "
        "choose one by naming it 'dist-a:same' or 'Dist_B:same'"
    )
    assert told["dist-a:same"] == told["Dist_B:same"] == told["dist.b:same"] == "reads 2"
    assert told["dist-c:same"].startswith("PluginNotFoundError: no backend named 'dist-c:same' is installed (did you ")


def test_only_what_was_chosen_is_imported(told: Mapping[str, str]) -> None:
    """Of an older release behind the newer, whose dist-info claims the same name, nothing: that is no clash."""
    imported = [each for each in told["imported"].split() if each != "acme_hooks"]  # observers are all called
    assert imported == ["acme_backends", "dist_a_store", "dist_b_store", "future_store"]


def test_installed_observers_are_all_called_and_one_that_is_broken_is_logged_once(installed_wheels: str) -> None:
    code = """
import logging, sys
from ikvcore.testing._live import document
from ikvcore.testing.fixtures import EphemeralStore
logging.basicConfig(stream=sys.stdout, format="%(name)s %(message)s")
store = EphemeralStore()
logging.getLogger("ikvcore._observers").setLevel("WARNING")
for _ in range(3):
    store.put(id="a")
store.writer.upsert_fields_batch([document(id="a"), document(id="b")])
store.close()
"""
    done = run(code, installed_wheels)
    logged = sorted(line for line in done.stdout.splitlines() if line.startswith("ikvcore._observers observer "))
    assert [line.split(" observer ")[1].split(" ")[0] for line in logged] == [
        "'failing'",
        "'misspelt'",
        "'unimportable'",
    ]
    assert all(" of acme-hooks 3.1 failed in " in line for line in logged)
    for cause in ("not today", "half installed", "unknown hook 'event_published' (did you mean 'events_published'?"):
        assert done.stdout.count(cause) >= 1
    heard = [line for line in done.stderr.splitlines() if line.startswith(("published", "started"))]
    assert sorted(heard) == ["published 1"] * 3 + ["published 2", "started"]

"""The reports in docs/conformance are of every plugin that this project shows, and each verdict is clean."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ikvcore.testing._announcing import kit_version

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "docs" / "conformance"
PAGE = ROOT / "docs" / "how-to" / "certify.md"
PROJECTS = [ROOT / "pyproject.toml", *sorted((ROOT / "examples").glob("ikv-*/pyproject.toml"))]


def plugins() -> list[str]:
    """backend-NAME or transport-NAME for each entry point."""
    found = []
    for path in PROJECTS:
        groups = tomllib.loads(path.read_text("utf-8"))["project"].get("entry-points", {})
        for kind in ("backend", "transport"):
            found += [f"{kind}-{name}" for name in groups.get(f"ikv_{kind}s", {})]
    return sorted(found)


def row(plugin: str, report: dict[str, Any]) -> str:
    """Its line in docs/how-to/certify.md."""
    verified = "complete" if report["level"] == "complete" else ", ".join(report["verified"])
    seconds = f"{report['seconds']:,.0f} s"
    unproved = ", ".join(what for what, state in report["observed"].items() if state != "verified")
    return (
        f"| {report['kind']} [`{report['name']}`](../conformance/{plugin}.json) | {verified} | {unproved} | {seconds} |"
    )


@pytest.mark.parametrize("plugin", plugins())
def test_a_plugin_is_certified(plugin: str) -> None:
    """By this version of the kit, in its core tier at least."""
    report = json.loads((REPORTS / f"{plugin}.json").read_text("utf-8"))
    assert f"{report['kind']}-{report['name']}" == plugin
    assert report["clean"]
    assert report["problems"] == []
    assert "core" in report["verified"]
    assert report["kit"]["version"] == kit_version()
    assert row(plugin, report) in PAGE.read_text("utf-8").splitlines()


def test_there_is_no_other_report() -> None:
    assert sorted(path.stem for path in REPORTS.glob("*.json")) == plugins()

"""`ikv plugins`."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import typer

from ikvcore.cli._connection import AsJson

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ikvcore.inspection import OptionReport, PluginReport
    from ikvcore.models import BackendInfo, TransportInfo

__all__ = ["app"]

app = typer.Typer()

_SHARING = {
    "one-process": "for one process",
    "followers": "one process writes, others follow",
    "shared": "shared by processes",
}


@app.command(rich_help_panel="Installation", epilog="Example: ikv plugins --json")
def plugins(as_json: AsJson = False) -> None:
    """Show every backend and transport that is installed: what it can do, its options, or why it cannot be used."""
    from ikvcore.inspection import list_plugins

    with redirect_stdout(sys.stderr):  # a plugin may print when it is imported
        reports = list_plugins()
    if as_json:
        typer.echo(json.dumps([_to_json(report) for report in reports], indent=2))
    else:
        _print_plugins(reports)


def _to_json(report: PluginReport) -> dict[str, Any]:
    data: dict[str, Any] = {
        "kind": report.kind,
        "name": report.name,
        "distribution": report.distribution,
        "version": report.version,
        "state": report.state,
        "problem": report.problem,
    }
    if report.info is not None:
        data |= {
            "summary": report.info.summary,
            "api_version": report.info.api_version,
            "durability": report.info.durability.word,
            "process_shared": report.info.process_shared,
            "sharing": _sharing(report.info),
            "capabilities": sorted(report.info.capabilities),
            "options": [_option_to_json(option) for option in report.options],
        }
        limits = ("volatile", "max_key_bytes", "max_value_bytes")  # a transport has none of them
        data |= {name: getattr(report.info, name) for name in limits if hasattr(report.info, name)}
    return data


def _sharing(info: BackendInfo | TransportInfo) -> str:
    """A backend's word; a transport's clients are all equal."""
    word: str = info.sharing.word if hasattr(info, "sharing") else ("shared" if info.process_shared else "one-process")
    return word


def _option_to_json(option: OptionReport) -> dict[str, Any]:
    plain = option.default is None or isinstance(option.default, (bool, int, float, str))
    default = option.default if plain else str(option.default)
    return {"name": option.name, "type": option.type, "required": option.required, "default": default}


def _print_plugins(reports: list[PluginReport]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, pad_edge=False)
    for heading in ("kind", "name", "from"):
        table.add_column(heading, overflow="fold")
    table.add_column("", overflow="fold", ratio=1)
    for report in reports:
        source = f"{report.distribution} {report.version}"
        table.add_row(*map(Text, (report.kind, report.name, source, "\n".join(_lines(report)))))
        table.add_section()
    Console().print(table)


def _lines(report: PluginReport) -> Iterator[str]:
    """What there is to say of a plugin."""
    from ikvcore.cli._cells import visible

    info = report.info
    if info is None:
        yield visible(f"{report.state}: {report.problem}")
        return
    yield visible(info.summary)
    yield f"API {info.api_version}; durability {info.durability.word}; {_SHARING[_sharing(info)]}"
    if info.capabilities:
        yield f"capabilities: {visible(', '.join(sorted(info.capabilities)))}"
    for option in report.options:
        default = "required" if option.required else f"default {option.default!r}"
        yield visible(f"option {option.name}: {option.type}, {default}")

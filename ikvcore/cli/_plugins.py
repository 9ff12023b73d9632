"""`ikv plugins` and `ikv plugins check`."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ikvcore.cli import _exit
from ikvcore.cli._connection import AsJson, parsed_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ikvcore.inspection import OptionReport, PluginReport, TrialResult
    from ikvcore.models import BackendInfo, TransportInfo

__all__ = ["app"]

app = typer.Typer(invoke_without_command=True, epilog="Example: ikv plugins --json")

_SHARING = {
    "one-process": "for one process",
    "followers": "one process writes, others follow",
    "shared": "shared by processes",
}


class _Kind(StrEnum):
    BACKEND = "backend"
    TRANSPORT = "transport"


@app.callback()
def plugins(context: typer.Context, as_json: AsJson = False) -> None:
    """Show every backend, transport and observer that is installed: what it can do, its options, or why it cannot be
    used.
    """
    if context.invoked_subcommand is not None:
        return
    from ikvcore.inspection import list_plugins

    with redirect_stdout(sys.stderr):  # a plugin may print when it is imported
        reports = list_plugins()
    if as_json:
        typer.echo(json.dumps([_to_json(report) for report in reports], indent=2))
    else:
        _print_plugins(reports)


@app.command(epilog="Example: ikv plugins check lmdb --option durability=process-crash")
def check(
    name: Annotated[
        str, typer.Argument(metavar="NAME", show_default=False, help="A backend's or a transport's name, or dist:name.")
    ],
    kind: Annotated[
        _Kind | None, typer.Option("--kind", help="Which is meant, where a backend and a transport have the name.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="An option of the plugin; repeat it for more. A value that is JSON is read as JSON, else as text.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Open a backend or transport in a temporary directory and see what works: reads and writes, order, commits, the
    capabilities that it declares.

    It runs in a process of its own, and may crash there. A transport whose stores are elsewhere makes one there, and
    deletes it. Exit code 3 where something does not work.
    """
    options = parsed_options(option)
    from ikvcore.inspection import try_plugin

    results = try_plugin(_kind_of(name, kind), name, options)
    done = _print_as_json(results) if as_json else _print_as_they_come(results)
    if any(result.works is False for result in done):
        raise typer.Exit(_exit.NO)


def _kind_of(name: str, kind: _Kind | None) -> Any:
    if kind is not None:
        return kind.value
    from ikvcore._trial import kinds_of

    found = kinds_of(name)
    if len(found) > 1:
        raise typer.BadParameter(f"{name!r} is a backend and a transport: add --kind backend or --kind transport")
    return found[0]


def _print_as_json(results: Iterator[TrialResult]) -> list[TrialResult]:
    done = list(results)
    typer.echo(json.dumps([{"what": each.what, "works": each.works, "detail": each.detail} for each in done], indent=2))
    return done


def _print_as_they_come(results: Iterator[TrialResult]) -> list[TrialResult]:
    from ikvcore.cli._cells import visible

    words = {True: "works", False: "FAILS", None: "-"}
    done = []
    for result in results:
        done.append(result)
        detail = f": {visible(result.detail)}" if result.detail else ""
        typer.echo(f"{words[result.works]:6}{visible(result.what)}{detail}")
    return done


def _to_json(report: PluginReport) -> dict[str, Any]:
    data: dict[str, Any] = {
        "kind": report.kind,
        "name": report.name,
        "chosen_as": report.chosen_as,
        "distribution": report.distribution,
        "version": report.version,
        "state": report.state,
        "problem": report.problem,
    }
    if report.hooks:
        data["hooks"] = list(report.hooks)
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
        table.add_row(*map(Text, (report.kind, report.chosen_as, source, "\n".join(_lines(report)))))
        table.add_section()
    Console().print(table)


def _lines(report: PluginReport) -> Iterator[str]:
    """What there is to say of a plugin."""
    from ikvcore.cli._cells import visible

    info = report.info
    if report.hooks:
        yield f"is told of {', '.join(report.hooks)}"
        return
    if info is None:
        yield visible(f"{report.state}: {report.problem}")
        return
    yield visible(info.summary)
    yield f"API {info.api_version}; durability {info.durability.word}; {_SHARING[_sharing(info)]}{_limits(info)}"
    if info.capabilities:
        yield f"capabilities: {visible(', '.join(sorted(info.capabilities)))}"
    for option in report.options:
        default = "required" if option.required else f"default {option.default!r}"
        yield visible(f"option {option.name}: {option.type}, {default}")


def _limits(info: Any) -> str:
    """What a backend says of itself beside what all plugins say."""
    words = "; volatile" if getattr(info, "volatile", False) else ""
    for noun in ("key", "value"):
        size = getattr(info, f"max_{noun}_bytes", None)
        words += "" if size is None else f"; {noun}s up to {size:,} bytes"
    return words

"""`ikv tail`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ikvcore.cli._connection import Connection, StoreName, connected
from ikvcore.cli._reading import Typed
from ikvcore.cli._values import json_line

if TYPE_CHECKING:
    from ikvcore.inspection import Place

__all__ = ["app"]

app = typer.Typer()


@app.command(rich_help_panel="Logs and replicas", epilog="Example: ikv tail profiles --from beginning --no-follow")
@connected()
def tail(
    connection: Connection,
    store: StoreName,
    start: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="PLACE",
            help="beginning, end, or PARTITION:POSITION, which may be repeated, and reads those partitions alone. "
            "Default: end; beginning with --no-follow.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for events to come, until Ctrl-C; or end where it ends.")
    ] = True,
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="End after so many events.")] = None,
    partition: Annotated[
        list[int] | None, typer.Option("--partition", help="Of this partition alone; repeat it for more.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line for each event.")] = False,
    typed: Typed = False,
) -> None:
    """Show the events of a store's log, as they come: what was written, deleted and dropped, and what is bad."""
    place = _place(start or ["end" if follow else "beginning"])
    options = connection.writer_options(store)
    from ikvcore.cli._event_text import event_to_json, event_to_line
    from ikvcore.inspection import read_log

    with read_log(options, start=place, partitions=partition or None, follow=follow, limit=limit) as events:
        if follow:
            typer.echo(f"following the log of store {store!r}; Ctrl-C ends", err=True)
        for event in events:
            _tell(
                json_line(event_to_json(event, typed=typed))
                if as_json or typed
                else event_to_line(event, events.store.primary_key)
            )


def _tell(line: str) -> None:
    """Print a line at once, in UTF-8 whatever the locale."""
    sys.stdout.buffer.write(line.encode() + b"\n")
    sys.stdout.buffer.flush()


def _place(given: Sequence[str]) -> Place:
    if given == ["beginning"]:
        return "beginning"
    if given == ["end"]:
        return "end"
    places: dict[int, int] = {}
    for text in given:
        found = re.fullmatch(r"([0-9]{1,5}):([0-9]{1,4000})", text)
        if found is None:
            raise typer.BadParameter(
                f"--from cannot be {text!r:.60}: use beginning, end, or PARTITION:POSITION as 0:17"
            )
        if int(found[1]) in places:
            raise typer.BadParameter(f"--from names partition {int(found[1])} twice")
        places[int(found[1])] = int(found[2])
    return places

"""`ikv quarantine list | drop`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ikvcore.cli._confirm import Yes, confirm
from ikvcore.cli._connection import AsJson, Connection, StoreName, connected
from ikvcore.cli._values import value_to_json
from ikvcore.fields import FieldType

if TYPE_CHECKING:
    from ikvcore.inspection import QuarantinedEvent

__all__ = ["app"]

app = typer.Typer(help="Bad events that a replica passed over and kept.", no_args_is_help=True)


@app.command("list", epilog="Example: ikv quarantine list profiles --mount-directory /srv/replica")
@connected(replica=True)
def list_(connection: Connection, store: StoreName, as_json: AsJson = False) -> None:
    """List the bad events that a replica keeps: the first 1,000, and up to 64 KiB of each with --json."""
    options = connection.reader_options(store)
    from ikvcore.inspection import quarantined_events

    kept = quarantined_events(options)
    if as_json:
        typer.echo(json.dumps([_to_json(sequence, event) for sequence, event in kept.items()], indent=2))
    elif kept:
        _print_events(kept)
    else:
        typer.echo(f"the replica in {str(options.mount_directory)!r} keeps no bad events", err=True)


@app.command(epilog="Example: ikv quarantine drop profiles 0 1 --mount-directory /srv/replica")
@connected(replica=True)
def drop(
    connection: Connection,
    store: StoreName,
    sequences: Annotated[
        list[int] | None,
        typer.Argument(metavar="[SEQUENCE]...", show_default=False, help="Their numbers, as `list` shows them."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    yes: Yes = False,
) -> None:
    """Remove bad events from a replica's quarantine. They stay in the log, and are counted as before.

    A service may have the replica open: its ingest pauses for about a second.
    """
    if everything == bool(sequences):
        raise typer.BadParameter("say which events to drop: their sequence numbers, or --all")
    options = connection.reader_options(store)
    from ikvcore.inspection import drop_quarantined_events

    which = "all events" if everything else f"{len(set(sequences or ())):,} events"
    confirm(f"Drop {which} from the quarantine in {str(options.mount_directory)!r} for ever?", yes=yes)
    dropped = drop_quarantined_events(options, sequences or None)
    typer.echo(f"{dropped:,} event{'' if dropped == 1 else 's'} dropped", err=True)


def _to_json(sequence: int, event: QuarantinedEvent) -> dict[str, Any]:
    from ikvcore.cli._event_text import iso_time

    return {
        "sequence": sequence,
        "partition": event.partition,
        "position": event.position,
        "time": iso_time(event.timestamp),
        "timestamp": event.timestamp,
        "reason": event.reason,
        "bytes": event.size,
        "key": value_to_json(FieldType.BYTES, event.key),
        "value": value_to_json(FieldType.BYTES, event.value),
    }


def _print_events(kept: dict[int, QuarantinedEvent]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ikvcore.cli._cells import visible
    from ikvcore.cli._event_text import iso_time

    table = Table(box=SIMPLE, pad_edge=False)
    for heading, overflow in (("sequence", "fold"), ("place", "fold"), ("time", "fold"), ("bytes", "fold")):
        table.add_column(heading, overflow=overflow, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("why it is bad", overflow="fold")
    for sequence, event in kept.items():
        place, size = f"{event.partition}:{event.position}", f"{event.size:,}"
        texts = (str(sequence), place, iso_time(event.timestamp) or "-", size, visible(event.reason))
        table.add_row(*map(Text, texts))
    Console().print(table)

"""What the commands that read documents share: a started reader, and the options of its start."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final, TypeAlias

import typer

from ikvcore.cli._connection import Connection
from ikvcore.client import IKVReader
from ikvcore.errors import LogDivergedError, LogTrimmedError, ReplicaDamagedError
from ikvcore.models import Row

__all__ = ["Fields", "Stale", "Timeout", "Typed", "asked_fields", "opened_reader", "print_lines", "shown_order"]

_REMEMBERED: Final = 4_096

Fields: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        metavar="FIELD",
        help="Of these fields alone, with the primary key; repeat it for more. Default: all.",
    ),
]
Stale: TypeAlias = Annotated[
    bool, typer.Option("--stale", help="Serve what the replica has at once, without reading up to the log's end.")
]
Timeout: TypeAlias = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", min=0, help="How long to wait for the replica. Default: for ever."),
]
Typed: TypeAlias = Annotated[
    bool, typer.Option("--typed", help='Print JSON in which every value names its type, {"int32": 7}.')
]


@contextmanager
def opened_reader(
    connection: Connection, store: str, *, timeout: float | None = None, stale: bool = False
) -> Iterator[IKVReader]:
    """A reader of `store` that is started, and shut down at the end."""
    from ikvcore.factory import create_new_reader

    options = connection.reader_options(store)
    reader = create_new_reader(options)
    try:
        with _progress() as progress:
            reader.startup(timeout, allow_stale=stale, progress=progress)
        yield reader
    except (LogDivergedError, LogTrimmedError, ReplicaDamagedError):
        # Their way out is the replica's directory, which is in nobody's mind where the tool chose it.
        typer.echo(f"the replica is in {options.mount_directory}", err=True)
        raise
    finally:
        reader.shutdown()


def asked_fields(primary_key: str, fields: Sequence[str] | None) -> list[str] | None:
    """The names to read for --field, each once: a document is always shown with its key."""
    return None if not fields else list(dict.fromkeys((primary_key, *fields)))


def shown_order(primary_key: str) -> Callable[[Row], Row]:
    """Puts a row's fields in the order in which they are shown: the primary key, then the others by name.

    As stored they are in the order in which the replica first met them, which tells nobody anything.
    """
    orders: dict[tuple[str, ...], Sequence[int]] = {}

    def reordered(row: Row) -> Row:
        names, types, values = row
        order = orders.get(names)
        if order is None:
            if len(orders) >= _REMEMBERED:
                orders.clear()
            order = orders[names] = sorted(range(len(names)), key=lambda at: (names[at] != primary_key, names[at]))
        return tuple([names[at] for at in order]), tuple([types[at] for at in order]), [values[at] for at in order]

    return reordered


def print_lines(lines: Iterable[str]) -> None:
    """Print lines as UTF-8, whatever the locale: they are for programs."""
    out = sys.stdout.buffer
    for line in lines:
        out.write(line.encode() + b"\n")
    out.flush()


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """How a startup gets on, shown where somebody watches; the callback comes only to one that takes seconds."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    bar: Any = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task("reading the log", total=None)

    def show(done: int, total: int) -> None:
        if not bar.live.is_started:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()

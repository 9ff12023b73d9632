"""All commands together, and how what they raise is told."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated, Any, Final

import typer

from ikvcore.cli import (
    _account,
    _conformance,
    _exit,
    _export,
    _load,
    _plugin_new,
    _plugins,
    _put,
    _quarantine,
    _read,
    _remove,
    _status,
    _store,
    _streams,
    _tail,
    _verify,
)
from ikvcore.cli._cells import visible
from ikvcore.errors import IKVError

__all__ = ["app", "run"]

_LONGEST: Final = 2_000
"""Characters of an error."""

# Typer brings its own copy of click's exceptions, under no public name but this one and its bases.
_UsageError: Final[Any] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="ikv",
    help="Stores of documents, their logs and replicas.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    # Typer's own tracebacks show local variables, and a passkey among them.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _documents in (_put, _read, _remove, _load, _export):
    app.add_typer(_documents.app)
for _operators in (_tail, _status, _verify):
    app.add_typer(_operators.app)
app.add_typer(_quarantine.app, name="quarantine", rich_help_panel="Logs and replicas")
app.add_typer(_plugins.app, name="plugins", rich_help_panel="Installation")
app.add_typer(_plugin_new.app, name="plugin", rich_help_panel="Installation")
app.add_typer(_conformance.app, name="conformance", rich_help_panel="Installation")
app.add_typer(_store.app, name="store", rich_help_panel="Stores and accounts")
app.add_typer(_account.app, name="account", rich_help_panel="Stores and accounts")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ikvcore {metadata.version('ikvcore')}")
        raise typer.Exit


@app.callback()
def _common(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    context.obj["debug"] = debug


def run(settings: dict[str, bool]) -> int:
    """Carry out the command line; the exit code."""
    try:
        code: int = app(prog_name="ikv", obj=settings, standalone_mode=False) or 0
        sys.stdout.flush()
        return code
    except _UsageError as exc:
        _tell_usage(exc)
        return _exit.USAGE
    except typer.Abort:  # a question was answered with no
        typer.echo("nothing was done", err=True)
        return _exit.ERROR
    except KeyboardInterrupt:
        return _exit.INTERRUPTED
    except Exception as exc:
        _streams.give_up_results()
        if settings["debug"]:
            raise
        _tell(_message(exc))
        return _exit.ERROR


def _message(exc: Exception) -> str:
    if isinstance(exc, IKVError):
        return str(exc)
    if isinstance(exc, OSError):  # of a disk or a stream: those of the store's files are IKVErrors
        reason = exc.strerror or str(exc)
        return reason if exc.filename is None else f"{exc.filename!r}: {reason}"
    return f"{type(exc).__name__}: {exc}; this is a bug: --debug shows where it is"


def _tell(message: str) -> None:
    """Print an error that may quote anything: what a file or a plugin says, or an argument of any length."""
    shown = "\n".join(map(visible, message.splitlines()))
    if len(shown) > _LONGEST:
        shown = f"{shown[:_LONGEST]}… ({len(shown):,} characters)"
    typer.echo(f"error: {shown}", err=True)


def _tell_usage(exc: Any) -> None:
    if exc.message is None or type(exc).__name__ == "NoArgsIsHelpError":  # the help is the message
        exc.show()
        return
    _tell(exc.format_message())
    if exc.ctx is not None:
        typer.echo(f"see {exc.ctx.command_path} --help", err=True)

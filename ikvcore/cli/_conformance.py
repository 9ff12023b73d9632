"""`ikv conformance backend` and `ikv conformance transport`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from ikvcore.cli import _exit
from ikvcore.cli._connection import parsed_options

if TYPE_CHECKING:
    from ikvcore.testing.conformance.tiers import Kind

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Certify a backend or a transport with the conformance kit.")

_NEEDED: Final = ("pytest", "hypothesis")

_Option: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="An option of the plugin; repeat it for more. A value that is JSON is read as JSON, else as text.",
    ),
]
_Tier: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--tier", metavar="TIER", help="Run this tier; repeat it for more. All of them by default."),
]
_Seed: TypeAlias = Annotated[int, typer.Option("--seed", min=1, help="Of everything that is drawn by chance.")]
_Output: TypeAlias = Annotated[
    Path | None,
    typer.Option("--output", metavar="DIRECTORY", help="Write report.json, junit.xml and badge.json there."),
]
_File: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="FILE",
        help="The author's test file: its subclass of BackendConformance or TransportConformance is run.",
    ),
]
_Golden: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--write-golden",
        metavar="DIRECTORY",
        help="Run nothing; write there what later releases have to open: files of this one, with --option.",
    ),
]
_Verbose: TypeAlias = Annotated[bool, typer.Option("--verbose", "-v", help="Show each test as pytest does.")]


@app.command(epilog="Example: ikv conformance backend lmdb --tier core --output report")
def backend(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The backend's name, or dist:name.")],
    option: _Option = None,
    tier: _Tier = None,
    seed: _Seed = 1,
    output: _Output = None,
    file: _File = None,
    write_golden: _Golden = None,
    verbose: _Verbose = False,
) -> None:
    """Certify a backend: run the tiers of the conformance kit on it and tell what was verified.

    The tests run in a process of their own. Exit code 3 where the verdict is not clean. Needs
    `pip install "ikvcore[testing]"`.
    """
    if write_golden is not None:
        _write_golden("backend", name, option, write_golden)
    else:
        _certify("backend", name, option, tier, seed, output, file, verbose=verbose)


@app.command(epilog="Example: ikv conformance transport local --tier core --seed 7")
def transport(
    name: Annotated[
        str, typer.Argument(metavar="NAME", show_default=False, help="The transport's name, or dist:name.")
    ],
    option: _Option = None,
    tier: _Tier = None,
    seed: _Seed = 1,
    output: _Output = None,
    file: _File = None,
    write_golden: _Golden = None,
    verbose: _Verbose = False,
) -> None:
    """Certify a transport: run the tiers of the conformance kit on it and tell what was verified.

    The tests run in a process of their own, and make and delete stores. Exit code 3 where the verdict is not clean.
    Needs `pip install "ikvcore[testing]"`.
    """
    if write_golden is not None:
        _write_golden("transport", name, option, write_golden)
    else:
        _certify("transport", name, option, tier, seed, output, file, verbose=verbose)


def _write_golden(kind: Kind, name: str, option: list[str] | None, directory: Path) -> None:
    options = parsed_options(option)
    _need_the_kit()
    from ikvcore.testing.conformance._golden import write_golden

    typer.echo(f"wrote {write_golden(kind, name, options, directory)}")


def _need_the_kit() -> None:
    from importlib.util import find_spec

    missing = [each for each in _NEEDED if find_spec(each) is None]
    if missing:
        raise typer.BadParameter(f'{" and ".join(missing)} is not installed: pip install "ikvcore[testing]"')


def _certify(
    kind: Kind,
    name: str,
    option: list[str] | None,
    tier: list[str] | None,
    seed: int,
    output: Path | None,
    file: Path | None,
    *,
    verbose: bool,
) -> None:
    options = parsed_options(option)
    _need_the_kit()
    if file is not None and not file.is_file():
        raise typer.BadParameter(f"--file: there is no file {str(file)!r}")
    from ikvcore.testing.conformance._runner import certify
    from ikvcore.testing.conformance._table import lines
    from ikvcore.testing.conformance.tiers import TIERS

    tiers = tier or [each.name for each in TIERS]
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if verbose:
            typer.echo(line)

    done = certify(kind, name, options=options, tiers=tiers, seed=seed, output=output, file=file, say=say)
    if not verbose and done.verdict.problems:
        typer.echo("\n".join(said), err=True)
    for line in lines(done.verdict):
        typer.echo(line)
    if not done.verdict.clean:
        raise typer.Exit(_exit.NO)

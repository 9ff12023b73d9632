"""`ikv plugin new`: the package of a plugin, which installs and keeps its contract before its author changes a line.

Its files are in templates/, the same for a backend and a transport but for the module, with `@NAME@`, `@KIND@` and such
where the plugin's own words go.
"""

from __future__ import annotations

import re
import shutil
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated, Final

import typer

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Begin a plugin of your own.")
_new = typer.Typer(no_args_is_help=True, help="Write a plugin's package.")
app.add_typer(_new, name="new")

_NAME: Final = re.compile(r"[a-z](_?[a-z0-9])*")
_LONGEST_NAME: Final = 40
_FILES: Final = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "@KIND@.py": "ikv_@KIND@_@NAME@.py",
    "test_conformance.py": "tests/test_conformance.py",
    "workflow.yml": ".github/workflows/test.yml",
}
"""Template -> the file that it becomes."""
_Directory = Annotated[
    Path | None,
    typer.Option("--directory", metavar="DIRECTORY", help="Make this directory, in place of ./ikv-KIND-NAME."),
]


@_new.command(epilog="Example: ikv plugin new backend mine")
def backend(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The backend's name.")],
    directory: _Directory = None,
) -> None:
    """Write a backend's package: a skeleton that keeps data in memory, its conformance test, a README and a CI file."""
    _make("backend", name, directory)


@_new.command(epilog="Example: ikv plugin new transport mine")
def transport(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The transport's name.")],
    directory: _Directory = None,
) -> None:
    """Write a transport's package: a skeleton that keeps logs in memory, its conformance test, a README and a CI
    file."""
    _make("transport", name, directory)


def _make(kind: str, name: str, directory: Path | None) -> None:
    _check_name(kind, name)
    words = {
        "@KIND@": kind,
        "@KINDCLASS@": kind.title(),
        "@NAME@": name,
        "@CLASS@": name.title().replace("_", ""),
        "@VERSIONS@": _versions(),
    }
    templates = resources.files("ikvcore.cli") / "templates"
    files = {
        _filled(path, words): _filled((templates / f"{_filled(template, words)}.template").read_text("utf-8"), words)
        for template, path in _FILES.items()
    }
    made = directory or Path(f"ikv-{kind}-{name}")
    _write(made, files)
    typer.echo(f"made {made}; next: pip install -e '{made}[test]', and there: python -m pytest")


def _check_name(kind: str, name: str) -> None:
    if _NAME.fullmatch(name) is None or len(name) > _LONGEST_NAME:
        raise typer.BadParameter(
            f"{name!r} cannot name a {kind}: up to {_LONGEST_NAME} of a-z, 0-9 and single _ between, a letter first"
        )
    for taken in metadata.entry_points(group=f"ikv_{kind}s", name=name):
        owner = taken.dist.name if taken.dist else "another distribution"
        raise typer.BadParameter(f"{name!r} is the name of a {kind} of {owner}, which is installed: choose another")


def _versions() -> str:
    """Releases that the plugin may run with: until 1.0 a minor release may change the API."""
    major, minor = map(int, metadata.version("ikvcore").split(".")[:2])
    return f">={major}.{minor},<{major}.{minor + 1}"


def _filled(text: str, words: dict[str, str]) -> str:
    for mark, word in words.items():
        text = text.replace(mark, word)
    return text


def _write(directory: Path, files: dict[str, str]) -> None:
    """All of it or nothing, and never into a directory that was there."""
    try:
        directory.mkdir()
    except FileExistsError:
        raise typer.BadParameter(f"{str(directory)!r} exists: name another with --directory") from None
    try:
        for path, text in files.items():
            file = directory / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise

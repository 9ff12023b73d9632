"""`ikv plugin new`: the package of a plugin, which installs and keeps its contract before its author changes a line.

Its files are in templates/, with `@NAME@`, `@CLASS@` and `@VERSIONS@` where the plugin's own words go.
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
_BACKEND_FILES: Final = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "module.py": "ikv_backend_@NAME@.py",
    "test_conformance.py": "tests/test_conformance.py",
    "workflow.yml": ".github/workflows/test.yml",
}
"""Template -> the file that it becomes."""


@_new.command(epilog="Example: ikv plugin new backend mine")
def backend(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The backend's name.")],
    directory: Annotated[
        Path | None,
        typer.Option("--directory", metavar="DIRECTORY", help="Make this directory, in place of ./ikv-backend-NAME."),
    ] = None,
) -> None:
    """Write a backend's package: a skeleton that keeps data in memory, its conformance test, a README and a CI file."""
    _check_name(name)
    words = {"@NAME@": name, "@CLASS@": name.title().replace("_", ""), "@VERSIONS@": _versions()}
    templates = resources.files("ikvcore.cli") / "templates" / "backend"
    files = {
        _filled(path, words): _filled((templates / f"{template}.template").read_text("utf-8"), words)
        for template, path in _BACKEND_FILES.items()
    }
    made = directory or Path(f"ikv-backend-{name}")
    _write(made, files)
    typer.echo(f"made {made}; next: pip install -e '{made}[test]', and there: python -m pytest")


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None or len(name) > _LONGEST_NAME:
        raise typer.BadParameter(
            f"{name!r} cannot name a backend: up to {_LONGEST_NAME} of a-z, 0-9 and single _ between, a letter first"
        )
    for taken in metadata.entry_points(group="ikv_backends", name=name):
        owner = taken.dist.name if taken.dist else "another distribution"
        raise typer.BadParameter(f"{name!r} is the name of a backend of {owner}, which is installed: choose another")


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

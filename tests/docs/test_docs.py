"""The programs in docs/ do what docs/ says; tables, paths and links there are those of the code."""

from __future__ import annotations

import builtins
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ikvcore import errors

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(ROOT.glob("docs/**/*.md"))
ALL = [ROOT / "README.md", *DOCUMENTS]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT / "docs").as_posix())
def test_programs(document: Path, carry_out_document: Callable[[str, str], None]) -> None:
    """A document's commands and programs run, and print what is printed there."""
    carry_out_document(document.relative_to(ROOT).as_posix(), document.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```python\nprint('one')\n```\n```text\ntwo\n```\n", "example.md:1 prints\none"),
        ("```python\nprint('one')\n```\n", "example.md:1 prints\none"),
        ("```python\n```\n```text\ntwo\n```\n", "example.md:1 prints\n\nand not"),
        ("\n```python\nassert 1 == 2\n```\n", "example.md:2 failed"),
        ("```console\n$ ikv no-such-command\n```\n", "example.md:1 failed"),
        ("```console\n$ python -c 'print(1)'\n2\n```\n", "example.md:1 prints\n1"),
        ("```console\n$ rm -rf nothing\n```\n", "rm cannot be run here"),
        ("```console\n$ python -c 'print(1)' &\n1\n2\n```\n", "exit status 0"),
        ("```python\n", "does not end"),
    ],
    ids=[
        "other-output",
        "unsaid-output",
        "no-output",
        "failure",
        "command",
        "command-output",
        "unknown",
        "background",
        "open",
    ],
)
def test_differences_are_found(text: str, complaint: str, carry_out_document: Callable[[str, str], None]) -> None:
    """A program that fails, or prints something else, fails its test and is named."""
    with pytest.raises((AssertionError, pytest.fail.Exception), match=re.escape(complaint)):
        carry_out_document("example.md", text)


def test_placeholders(carry_out_document: Callable[[str, str], None]) -> None:
    """Three dots stand for anything within a line, and alone for any lines."""
    carry_out_document("example.md", "```python\nprint('a 1 b\\nc\\nd\\ne')\n```\n```text\na ... b\n...\ne\n```\n")


def test_servers(carry_out_document: Callable[[str, str], None], tmp_path: Path) -> None:
    """A command in the background is up when the document says so, on a port of its own, and ends with the document."""
    carry_out_document(
        "example.md",
        "```text file=hello.txt\nhello\n```\n```python file=serve.py\n"
        "import os, sys\nfrom http.server import HTTPServer, SimpleHTTPRequestHandler\n"
        "SimpleHTTPRequestHandler.log_message = lambda *_: None\n"
        "server = HTTPServer(('127.0.0.1', int(sys.argv[2])), SimpleHTTPRequestHandler)\n"
        "open('pid', 'w').write(str(os.getpid()))\nprint('up', flush=True)\nserver.serve_forever()\n```\n"
        "```console\n$ python serve.py --port 8000 &\nup\n$ curl 127.0.0.1:8000/hello.txt\nhello\n```\n",
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "d" / "pid").read_text()), 0)


def test_errors_table() -> None:
    """Every error has its line in the table, with the builtins that it is, and the table has no other."""
    text = (ROOT / "docs/how-to/errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*)\| [^|]+\| [^|]+\|$", text, re.MULTILINE)
    table = {name: set(re.findall(r"`(\w+)`", also)) for name, also in rows}
    assert len(rows) == len(table)
    assert table == {name: builtin_bases(getattr(errors, name)) for name in errors.__all__}


def builtin_bases(error: type[BaseException]) -> set[str]:
    """The most specific builtins that an error is, but for Exception."""
    found = [base for base in error.__mro__ if base.__module__ == builtins.__name__ and base not in (object,)]
    return {
        base.__name__
        for base in found
        if base is not Exception and not any(other is not base and issubclass(other, base) for other in found)
    }


def test_modules_in_architecture() -> None:
    """The architecture names every module, and no file that is not there."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("ikv*/*.py") if path.name != "__init__.py"}
    listed = {
        f"{room}/{name}"
        for room, lines in re.findall(r"^### `(\w+)/`\n(.*?)(?=^#)", text, re.MULTILINE | re.DOTALL)
        for cell in re.findall(r"^\| (`.*?) \|", lines, re.MULTILINE)
        for name in re.findall(r"`(\w+\.py)`", cell)
    }
    assert listed == modules
    named = set(re.findall(r"`((?:ikvcore|ikv_backends|ikv_transports|tests)/[\w/]+\.py)`", text))
    assert not [name for name in named if not (ROOT / name).is_file()]


@pytest.mark.parametrize("document", ALL, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links(document: Path) -> None:
    """Links within the repository lead to a file, and to a heading of it."""
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        name, _, heading = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.is_file(), f"{document.name} links to {target}"
        headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
        assert not heading or heading in anchors, f"{document.name} links to {target}"

"""The programs in README.md and docs/: found, carried out as a reader would, and compared with what is printed there.

A document's fenced blocks are carried out in order, in one process that has a home and a working directory of its own:

    ```python               runs; the document's python blocks share one namespace
    ```python no-run        is left alone
    ```python file=app.py   is written to that file, as a block of any language is
    ```text                 is what the python block before it prints; without it, a python block prints nothing
    ```console              lines after "$ " are commands (ikv, python, sh, curl, export NAME=VALUE), the others what
                            they print

In what is printed, "..." stands for anything within its line, and alone on a line for any lines. A command that fails
fails the test. One that ends in "&" is given the time to print what the document says, and goes on until the document's
end. `curl` is one of our own, which gets an address and no more. Blocks of other languages are left alone.
/tmp/profiles becomes a private path, 127.0.0.1:8000, said as --port 8000 too, a free port, and localhost:9092 the
broker that all tests share.
"""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SESSION = Path(__file__).with_name("session.py")
SECONDS = 300
PUBLIC_PATH = "/tmp/profiles"
PUBLIC_BROKER = "localhost:9092"
PUBLIC_PORT = re.compile(r"(127\.0\.0\.1:|--port )8000\b")
CURL = """
import sys, urllib.error, urllib.request
address = sys.argv[-1] if "://" in sys.argv[-1] else f"http://{sys.argv[-1]}"
try:
    answer = urllib.request.urlopen(address)
except urllib.error.HTTPError as refusal:
    answer = refusal
sys.stdout.write(answer.read().decode())
"""
COMMANDS = {
    "ikv": "import sys; sys.argv[0] = 'ikv'; from ikvcore.cli import main; main()",
    "python": "",
    "curl": CURL,
}
RUNNABLE = (*COMMANDS, "sh", "export")
FENCE = re.compile(r"```(.*)")
ANYTHING = ".*?"
ANY_LINES = "(?:.*\n)*?"


@dataclass
class Block:
    """A fenced block."""

    line: int
    info: list[str]
    text: str = ""

    @property
    def language(self) -> str:
        return self.info[0] if self.info else ""

    @property
    def file(self) -> str | None:
        return next((word.removeprefix("file=") for word in self.info if word.startswith("file=")), None)


@dataclass
class Step:
    """Something to carry out, and what the document says that it prints."""

    where: str
    kind: str
    text: str
    name: str = ""
    printed: list[str] = field(default_factory=list)


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a document."""
    block: Block | None = None
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.fullmatch(line)
        if block is None:
            block = Block(number, match[1].split()) if match else None
        elif match:
            yield block
            block = None
        else:
            block.text += f"{line}\n"
    assert block is None, f"the block of line {block.line} does not end"


def steps(name: str, text: str) -> list[Step]:
    """What a document asks for, in its order."""
    found: list[Step] = []
    before: Step | None = None
    for block in blocks(text):
        where = f"{name}:{block.line}"
        if "no-run" in block.info:
            before = None
            continue
        if block.file is not None:
            before = Step(where, "file", block.text, name=block.file)
        elif block.language == "python":
            # Empty lines before it, so that a traceback names the document's line.
            before = Step(where, "python", "\n" * block.line + block.text)
        elif block.language == "console":
            found += commands(where, block.text)
            before = None
            continue
        elif block.language == "text":
            assert before is not None, f"{where}: this output follows no block of python"
            assert before.kind == "python", f"{where}: this output follows no block of python"
            before.printed = block.text.splitlines()
            before = None
            continue
        else:
            before = None
            continue
        found.append(before)
    return found


def commands(where: str, text: str) -> list[Step]:
    """The commands of a console block."""
    found: list[Step] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            program = line[2:].split()[0]
            assert program in RUNNABLE, f"{where}: {program} cannot be run here; put it into a sh block"
            found.append(Step(where, "command", line[2:]))
        else:
            assert found, f"{where}: a console block begins with a command"
            found[-1].printed.append(line)
    return found


def pattern(printed: list[str]) -> str:
    """A regular expression for what a document shows."""
    return "".join(
        ANY_LINES if line == "..." else ANYTHING.join(map(re.escape, line.split("..."))) + "\n" for line in printed
    )


def lines_of(output: str) -> str:
    """Output without the spaces at the ends of lines, and without empty lines around it."""
    lines = [line.rstrip() for line in output.splitlines()]
    stripped = "\n".join(lines).strip("\n")
    return f"{stripped}\n" if stripped else ""


def environment(work: Path) -> dict[str, str]:
    """A bare environment in which `ikv` and `python` are those of this test run."""
    programs = work / "bin"
    programs.mkdir()
    for name, code in COMMANDS.items():
        words = [sys.executable, *(["-c", code] if code else [])]
        path = programs / name
        path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        path.chmod(0o755)
    return {
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(work / "home"),
        "IKV_HOME": str(work / "home" / "ikv"),
        "LANG": "C.UTF-8",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def carry_out(name: str, text: str, work: Path) -> None:
    """Carry out a document and compare. Raises AssertionError, naming file and line."""
    text = PUBLIC_PORT.sub(rf"\g<1>{free_port()}", text.replace(PUBLIC_PATH, str(work / "profiles")))
    wanted = steps(name, text)
    # What a document shows must not be cut for the length of a path.
    request, answer, directory = work / "request.json", work / "answer.json", work / "d"
    request.write_text(json.dumps([vars(step) for step in wanted]), encoding="utf-8")
    directory.mkdir()
    done = subprocess.run(
        [sys.executable, str(SESSION), str(request), str(answer)],
        cwd=directory,
        env=environment(work),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(answer.read_text(encoding="utf-8"))
    for step, result in zip(wanted, results, strict=False):
        compare(step, result)
    assert len(results) == len(wanted)
    assert not done.stdout + done.stderr, f"{name}: printed at exit: {done.stdout}{done.stderr}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def compare(step: Step, result: Mapping[str, str | None]) -> None:
    output = lines_of(result["output"] or "")
    assert result["failure"] is None, f"{step.where} failed:\n{output}{result['failure']}"
    printed = lines_of("\n".join(step.printed))
    if re.fullmatch(pattern(printed.splitlines()), output) is None:
        pytest.fail(f"{step.where} prints\n{output}\nand not, as the document says,\n{printed}", pytrace=False)


@pytest.fixture
def carry_out_document(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`carry_out_document(name, text)` fails where the document's blocks fail or print something else."""

    def run(name: str, text: str) -> None:
        if PUBLIC_BROKER in text:
            text = text.replace(PUBLIC_BROKER, request.getfixturevalue("kafka"))
        carry_out(name, text, tmp_path)

    return run


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT

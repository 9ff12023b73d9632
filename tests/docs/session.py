"""Carries out the blocks of one document, in a process of their own; the fixture `document_session` starts it.

    python session.py REQUEST ANSWER

REQUEST is a JSON list of steps; ANSWER becomes a JSON list of what each printed, up to the first that failed. Python
steps share one namespace, commands share its environment, and all of them the working directory. Commands in the
background are ended at the end.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

EXPORT = re.compile(r"export ([A-Z_]+)=(\S+)")
PATIENCE = 30.0


def main(request: Path, answer: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    sys.argv = ["document"]
    results: list[dict[str, Any]] = []
    with ExitStack() as background:
        for step in json.loads(request.read_text(encoding="utf-8")):
            output, failure = captured(lambda step=step: carry_out(step, namespace, background))
            results.append({"output": output, "failure": failure})
            if failure is not None:
                break
    answer.write_text(json.dumps(results), encoding="utf-8")


def carry_out(step: dict[str, Any], namespace: dict[str, Any], background: ExitStack) -> None:
    if step["kind"] == "python":
        exec(compile(step["text"], step["where"], "exec"), namespace)
    elif step["kind"] == "file":
        Path(step["name"]).write_text(step["text"], encoding="utf-8")
    elif match := EXPORT.fullmatch(step["text"]):
        os.environ[match[1]] = match[2]
    elif step["text"].endswith(" &"):
        command = step["text"].removesuffix("&")
        process = subprocess.Popen(["sh", "-c", f"exec {command}"], stdin=subprocess.DEVNULL)
        background.callback(ended, process)
        await_lines(process, len(step["printed"]))
    else:
        done = subprocess.run(["sh", "-c", step["text"]], stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise RuntimeError(f"exit status {done.returncode}")


def await_lines(process: subprocess.Popen[bytes], count: int) -> None:
    """Wait until the process has printed so many lines to what is captured."""
    until = time.monotonic() + PATIENCE
    while os.pread(1, 1 << 20, 0).count(b"\n") < count:
        if process.poll() is not None:
            raise RuntimeError(f"exit status {process.returncode}")
        if time.monotonic() > until:
            raise TimeoutError(f"it did not print {count} lines in {PATIENCE:.0f} s")
        time.sleep(0.02)


def ended(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def captured(action: Callable[[], None]) -> tuple[str, str | None]:
    """What `action` and its child processes write to stdout and stderr, and its traceback if it fails."""
    failure = None
    with tempfile.TemporaryFile() as file:
        saved = os.dup(1), os.dup(2)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            action()
        except BaseException:
            failure = traceback.format_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])
        file.seek(0)
        return file.read().decode(), failure


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

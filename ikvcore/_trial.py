"""Trying a plugin out: it is opened in a temporary directory, by a process of its own, which an engine may crash or
keep waiting for ever.

The process tells of each step on its stdout, one JSON object a line: what it begins, then how that ended.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

from ikvcore._discovery import Kind, choose, forget, install_command, installed, usable_names
from ikvcore.errors import InvalidArgumentError, PluginNotFoundError

__all__ = [
    "NotTriedError",
    "Step",
    "TrialResult",
    "answer_parent",
    "expect",
    "expect_equal",
    "expect_error",
    "kinds_of",
    "try_plugin",
]

PATIENCE: Final = 60.0
"""Seconds for one step."""

_CHILD: Final = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from ikvcore._trial import answer_parent
answer_parent(json.loads(sys.argv[2]))
"""

Step: TypeAlias = tuple[str, Callable[[], str | None]]
"""What is tried, and the function that tries it: it gives a detail worth telling, raises NotTriedError, or fails."""


class NotTriedError(Exception):
    """This step does not apply to the plugin; the message says why."""


class TrialError(Exception):
    """A plugin does what its contract does not say; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """One thing that was tried."""

    what: str
    works: bool | None
    """None where it does not apply, or could not be tried here."""
    detail: str = ""
    """What went wrong, in one line; or what is worth knowing."""


def kinds_of(name: str) -> list[Kind]:
    """The kinds of plugin that have this name, or `dist:name`. Raises PluginNotFoundError where there is none."""
    distribution, _, own_name = name.rpartition(":")
    kinds: tuple[Kind, ...] = ("backend", "transport")
    found = [kind for kind in kinds if any(each.name == own_name for each in installed(kind))]
    if found:
        return found
    names = sorted({each for kind in kinds for each in usable_names(kind, qualified=bool(distribution))})
    raise PluginNotFoundError("backend or transport", name, names, install_command(distribution or "ikvcore", own_name))


def try_plugin(
    kind: Kind, name: str, options: Mapping[str, Any] | None = None, *, patience: float = PATIENCE
) -> Iterator[TrialResult]:
    """See ikvcore.inspection.try_plugin."""
    if kind not in ("backend", "transport"):
        raise InvalidArgumentError(f"kind cannot be {kind!r}: use 'backend' or 'transport'")
    choose(kind, name)
    try:
        request = json.dumps({"kind": kind, "name": name, "options": dict(options or {})})
    except (TypeError, ValueError) as exc:
        raise InvalidArgumentError(f"options are plain values, which go to another process as JSON ({exc})") from exc
    return _results(request, patience)


def _results(request: str, patience: float) -> Iterator[TrialResult]:
    with tempfile.TemporaryDirectory(prefix="ikv-trial-", ignore_cleanup_errors=True) as directory:
        command = [sys.executable, "-c", _CHILD, json.dumps([str(path) for path in sys.path]), request]
        # What this process's clients are set up with, passkeys among it, is nothing to a trial.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("IKV_")}
        with subprocess.Popen(  # noqa: S603  our own program
            command, stdout=subprocess.PIPE, env={**kept, "IKV_HOME": f"{directory}/home"}, cwd=directory
        ) as child:
            try:
                yield from _told(child, patience)
            finally:
                child.kill()


def _told(child: subprocess.Popen[bytes], patience: float) -> Iterator[TrialResult]:
    """What the child tells, and how it ended where that was in the midst of a step."""
    assert child.stdout is not None
    doing = "starts"
    lines = _lines(child.stdout, patience)
    try:
        for line in lines:
            told = json.loads(line)
            if "begins" in told:
                doing = told["begins"]
            else:
                yield TrialResult(**told)
                doing = ""
    except TimeoutError:
        yield TrialResult(what=doing or "ends", works=False, detail=f"it was not done within {patience:g} s")
        return
    code = child.wait()
    if doing or code:
        yield TrialResult(what=doing or "ends", works=False, detail=f"its process ended with {_ended_with(code)}")


def _lines(stream: IO[bytes], patience: float) -> Iterator[bytes]:
    """The stream's lines; TimeoutError where the next one takes too long."""
    waiting, limit = b"", max(patience, PATIENCE)  # until the process has started
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(limit):
                raise TimeoutError
            limit = patience
            chunk = os.read(stream.fileno(), 65_536)
            if not chunk:
                return
            *whole, waiting = (waiting + chunk).split(b"\n")
            yield from whole


def _ended_with(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


# -- the child's part --------------------------------------------------------------------------


def answer_parent(request: Mapping[str, Any]) -> None:
    """Carry out a trial in the working directory, and tell of it on stdout."""
    from ikvcore import _trial_of_backends, _trial_of_transports

    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a plugin, or its engine, may print
    forget()
    of_kind = _trial_of_backends if request["kind"] == "backend" else _trial_of_transports
    for what, attempt in of_kind.steps(request["name"], request["options"], Path.cwd()):
        out.write(json.dumps({"begins": what}) + "\n")
        out.write(json.dumps({"what": what, **_outcome(attempt)}) + "\n")


def _outcome(attempt: Callable[[], str | None]) -> dict[str, Any]:
    try:
        return {"works": True, "detail": attempt() or ""}
    except NotTriedError as exc:
        return {"works": None, "detail": str(exc)}
    except BaseException as exc:  # a plugin may raise anything, and what it raises is the answer
        known = isinstance(exc, TrialError)
        text = " ".join(str(exc).split())
        return {"works": False, "detail": text if known else f"{type(exc).__name__}: {text}"}


def expect(true: object, otherwise: str) -> None:
    """Raise TrialError unless it is so."""
    if not true:
        raise TrialError(otherwise)


def expect_equal(found: object, wanted: object, what: str) -> None:
    """Raise TrialError that shows both, unless they are equal."""
    expect(found == wanted, f"{what}: {_short(found)} instead of {_short(wanted)}")


def expect_error(kinds: type[BaseException] | tuple[type[BaseException], ...], call: Callable[[], object]) -> None:
    """Raise TrialError unless the call raises one of these."""
    wanted = " or ".join(each.__name__ for each in (kinds if isinstance(kinds, tuple) else (kinds,)))
    try:
        found = call()
    except kinds:
        return
    except Exception as exc:
        raise TrialError(f"it raised {type(exc).__name__} ({exc}) instead of {wanted}") from exc
    raise TrialError(f"it returned {_short(found)} instead of raising {wanted}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."

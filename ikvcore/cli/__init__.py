"""The `ikv` command: provisioning, documents, the log and replicas from a shell, thin over the public modules.

Results go to stdout, everything else to stderr; for exit codes see _exit. An error is a line or two with the way out;
--debug shows its traceback.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ikvcore.cli._app import app

__all__ = ["app", "main"]

_SIGNALLED: Final = 128
"""And a signal's number: the exit code of what it ended, as a shell tells it. 143 after SIGTERM."""


def main() -> None:
    """Entry point of the `ikv` command."""
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    if on_ctrl_c is signal.default_int_handler:  # a shell's background job ignores it
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while modules are imported: there is nothing to tidy up yet
    from ikvcore._logging import console_to_stderr
    from ikvcore.cli import _app, _streams

    _streams.open_missing()
    console_to_stderr()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores one
            signal.signal(number, _end)
    signal.signal(signal.SIGINT, on_ctrl_c)
    sys.exit(_app.run({"debug": "--debug" in sys.argv}))


def _end(number: int, frame: FrameType | None) -> None:
    """End as after an error: no temporary file stays behind. A second signal does not wait for that."""
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(_SIGNALLED + number)


def __getattr__(name: str) -> Any:
    if name == "app":
        from ikvcore.cli import _app

        return _app.app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Where this project's log lines go, as ClientOptions say.

Handlers are attached to the project's own loggers, one for each destination (stdout, or a file) in a process, however
many clients there are. They stay: a client that is shut down takes none away from the others. Where a later client
names the same destination with another level, the later level holds for all. Loggers let through what the most
talkative destination takes.

Records also propagate to the root logger as usual, so that an application's own handlers, and pytest's caplog, see
them. Such a handler is not filtered by a destination's level; give it a level of its own if it should take less. Where
it writes to the same place as stdout (stdout itself, or stderr on the same terminal or file), stdout is left to it, so
that no line appears twice.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from ikvcore.errors import InvalidOptionError

if TYPE_CHECKING:
    from ikvcore.clientoptions import ClientOptions

__all__ = ["LOGGERS", "TRACE", "configure", "console_to_stderr", "reset"]

TRACE: Final = 5
"""Level below DEBUG: single events and reads. Log with logger.log(TRACE, ...)."""

LOGGERS: Final = ("ikvcore", "ikv_backends", "ikv_transports")

_LEVELS: Final = {
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
    "TRACE": TRACE,
}
_CONSOLE: Final = ""  # no file has this path
_FORMAT: Final = "%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s"

_lock = threading.Lock()
_handlers: dict[str, logging.Handler] = {}

logging.addLevelName(TRACE, "TRACE")


def configure(options: ClientOptions) -> None:
    """Send the project's log lines where `options` say, beside where earlier clients' options sent them.

    Thread-safe. Raises InvalidOptionError for a log file that cannot be written; nothing was changed then.
    """
    wanted: dict[str, str] = {}
    if options.console_logging is not None:
        wanted[_CONSOLE] = options.console_logging
    if options.file_logging is not None:
        level, path = options.file_logging
        try:
            _check_file(path)
        except OSError as exc:
            raise InvalidOptionError("file_logging", str(path), f"it cannot be written: {exc.strerror}") from exc
        wanted[os.path.realpath(path)] = level
    with _lock:
        for destination, level in wanted.items():
            handler = _handlers.get(destination)
            if handler is None:
                handler = _handlers[destination] = _open(destination)
            handler.setLevel(_LEVELS[level])
        _attach()


def console_to_stderr() -> None:
    """Write what is meant for the console to stderr from now on: for programs whose stdout carries their results."""
    _ConsoleHandler.stream_name = "stderr"


def reset() -> None:
    """Take away every handler and level that configure() set, as tests do after themselves."""
    with _lock:
        for logger in map(logging.getLogger, LOGGERS):
            logger.setLevel(logging.NOTSET)
            for handler in _handlers.values():
                logger.removeHandler(handler)
        for handler in _handlers.values():
            handler.close()
        _handlers.clear()
        _ConsoleHandler.stream_name = "stdout"


def _attach() -> None:
    lowest = min(handler.level for handler in _handlers.values())
    for logger in map(logging.getLogger, LOGGERS):
        for handler in _handlers.values():
            logger.addHandler(handler)  # no-op where it is attached
        logger.setLevel(lowest)


def _open(destination: str) -> logging.Handler:
    handler = _PrivateFileHandler(destination) if destination else _ConsoleHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    return handler


def _check_file(path: Path) -> None:
    if not path.parent.is_dir():
        raise InvalidOptionError("file_logging", str(path), f"there is no directory {str(path.parent)!r}; create it")
    if path.is_dir():
        raise InvalidOptionError("file_logging", str(path), "it is a directory; name a file in it")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidOptionError("file_logging", str(path), "it is not writable; choose another path")


class _PrivateFileHandler(logging.FileHandler):
    """Appends to a file that is created at the first record, readable by its owner alone."""

    def __init__(self, path: str) -> None:
        super().__init__(path, encoding="utf-8", delay=True, errors="backslashreplace")

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=_create_private)


def _create_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _ConsoleHandler(logging.Handler):
    """Writes to what sys.stdout is when a record comes, so that redirection and test capture work."""

    stream_name = "stdout"

    def emit(self, record: logging.LogRecord) -> None:
        stream: TextIO | None = getattr(sys, self.stream_name)  # None in a process without a console
        if stream is None or self._written_by_another(record, stream):
            return
        try:
            stream.write(self.format(record) + "\n")
            stream.flush()
        except Exception:
            self.handleError(record)

    def _written_by_another(self, record: logging.LogRecord, stream: TextIO) -> bool:
        logger = logging.getLogger(record.name.partition(".")[0])
        others = [*logger.handlers, *(logging.getLogger().handlers if logger.propagate else ())]
        return any(
            _same_place(other.stream, stream)
            for other in others
            if isinstance(other, logging.StreamHandler) and record.levelno >= other.level
        )


def _same_place(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if not any(one is console for console in (sys.stderr, sys.__stderr__, sys.__stdout__)):
        return False
    try:
        return os.path.samestat(os.fstat(one.fileno()), os.fstat(other.fileno()))
    except (AttributeError, OSError, ValueError):  # None, or a stream without a file behind it
        return False

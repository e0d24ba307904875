"""Log files of the services that run in the test's process.

A process has one configuration of logging. Here it writes each line to the standard output, which pytest
captures, and to the file of every service that runs at that moment.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Literal

import structlog

from senoscope.logs import without_secrets

_CONSOLE = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
_JSON = structlog.processors.JSONRenderer()
_open: list[ServerLog] = []
_lock = threading.Lock()


class ServerLog:
    """A file that log lines are written to until it is closed, by their format."""

    def __init__(self, path: Path, log_format: Literal["console", "json"]) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._json = log_format == "json"
        with _lock:
            _open.append(self)

    def write(self, event: structlog.typing.EventDict) -> None:
        line = (
            _JSON(None, "", structlog.processors.format_exc_info(None, "", event))
            if self._json
            else _console(event)
        )
        self._file.write(without_secrets(str(line)) + "\n")

    def close(self) -> None:
        with _lock:
            if self in _open:
                _open.remove(self)
        self._file.close()


def _console(event: structlog.typing.EventDict) -> str:
    return _CONSOLE(None, "", event)


def _copy_to_files(_: object, __: str, event: structlog.typing.EventDict) -> str:
    with _lock:
        for log in _open:
            log.write(dict(event))
    return _console(event)


class _LibraryLines(logging.Handler):
    """Takes the lines of libraries, such as uvicorn's tracebacks, to the same files."""

    def emit(self, record: logging.LogRecord) -> None:
        event = {"event": record.getMessage(), "level": record.levelname.lower(), "logger": record.name}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        with _lock:
            for log in _open:
                log.write(dict(event))


def configure_test_logging() -> None:
    """Set up this process."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _copy_to_files,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    logging.getLogger().addHandler(_LibraryLines(logging.WARNING))
    # As the service has it: whoever posted a file is told what is wrong with it.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)

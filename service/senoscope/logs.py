"""Log lines: one event each, with its facts as keys, on standard error."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog

if TYPE_CHECKING:
    from senoscope.fov import Fov
    from senoscope_client.models.result import Source

# What no code here puts into a line, but a library's error message might.
_SECRETS: Final = (
    (re.compile(r"(?i)\b(bearer)([ .]+)[^\s\"',]+"), r"\1\2***"),
    (re.compile(r"\bsenoscope_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"), "senoscope_***"),
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), r"\1:***@"),
)
_SHOWN: Final = 80  # characters of a series' name


def without_secrets(text: str) -> str:
    """A text without API keys, and without the passwords of addresses."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def about_source(source: Source) -> dict[str, Any]:
    """Which field of view a log line concerns."""
    facts = {
        "series": None if source.series_id is None else source.series_id[:_SHOWN],
        "series_uid": None if source.series_uid is None else str(source.series_uid),
        "frame": source.frame,
        "file": source.file,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def about(fov: Fov, *, of_stack: bool = False) -> dict[str, Any]:
    """Which field of view a log line concerns, and which request it came with.

    Parameters
    ----------
    of_stack : bool
        Whether the line concerns the whole stack that the field of view is part of.
    """
    facts = about_source(fov.source)
    if of_stack:
        facts.pop("frame", None)
    if fov.request is not None:
        facts["request_id"] = fov.request.id
    return facts


class Sparing:
    """Decides which of many equal lines are written; for those that any client can cause.

    Parameters
    ----------
    every_s : float
        One line of a kind in this time.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}

    def ask(self, kind: str) -> int | None:
        """How many of a kind were left out since the last that was written; None: leave this one out too."""
        now_s = time.monotonic()
        with self._lock:
            last_s, left_out = self._kinds.get(kind, (float("-inf"), 0))
            if now_s - last_s < self._every_s:
                self._kinds[kind] = last_s, left_out + 1
                return None
            self._kinds[kind] = now_s, 0
            return left_out


def _no_flood(sparing: Sparing) -> Callable[[logging.LogRecord], bool]:
    def keep(record: logging.LogRecord) -> bool:
        if "out of system resource" not in record.getMessage():
            return True
        return sparing.ask("accept") is not None

    return keep


def configure_logging(log_format: Literal["console", "json"], level: int = logging.INFO) -> None:
    """Set up structlog, and let the standard library's loggers (uvicorn's) speak through it."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        # Plain tracebacks: pretty ones with local variables take the event loop seconds to draw.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([structlog.processors.format_exc_info] if log_format == "json" else []),
                renderer,
                lambda _, __, line: without_secrets(str(line)),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn.access", "uvicorn.error", "httpx", "httpcore", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # asyncio writes this hundreds of times in a second.
    logging.getLogger("asyncio").addFilter(_no_flood(Sparing(every_s=10.0)))
    # A client that left in the middle of its handshake is no error of ours.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: not record.getMessage().startswith("ASGI callable returned without completing")
    )
    # What is wrong with a posted file is told to whoever posted it.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )

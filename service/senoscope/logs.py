"""Structured log lines on standard error: one event each, with its facts as keys."""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog

from senoscope_client.rate_limiter import RateLimiter

if TYPE_CHECKING:
    from senoscope.fov import Fov
    from senoscope_client.models.result import Source

# No code of the service logs these, but the message of a library's error may contain them.
_SECRETS: Final = (
    (re.compile(r"(?i)\b(bearer)([ .]+)[^\s\"',]+"), r"\1\2***"),
    (re.compile(r"\bsenoscope_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"), "senoscope_***"),
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), r"\1:***@"),
)
# Names of files and series may contain such characters, which change what a terminal shows.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MAX_NAME: Final = 80  # characters of a series' name


def without_secrets(text: str) -> str:
    """Return a text with API keys, and passwords in addresses, masked."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _escape_controls(_: object, __: str, facts: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {
        name: _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], fact) if isinstance(fact, str) else fact
        for name, fact in facts.items()
    }


def about_source(source: Source) -> dict[str, Any]:
    """Return the facts that identify a field of view in a log line."""
    facts = {
        "series": None if source.series_id is None else source.series_id[:_MAX_NAME],
        "series_uid": None if source.series_uid is None else str(source.series_uid),
        "frame": source.frame,
        "file": source.file,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def about(fov: Fov, *, of_stack: bool = False) -> dict[str, Any]:
    """Return the facts that identify a field of view, and the request that it belongs to.

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


def configure_logging(log_format: Literal["console", "json"], level: int = logging.INFO) -> None:
    """Set up structlog, and route the standard library's loggers (uvicorn's) through it."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _escape_controls,
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
    for verbose in ("uvicorn.access", "uvicorn.error", "httpx", "httpcore", "alembic"):
        logging.getLogger(verbose).setLevel(logging.WARNING)
    # asyncio writes this hundreds of times per second.
    limiter = RateLimiter(interval_s=10.0)
    logging.getLogger("asyncio").addFilter(
        lambda record: (
            "out of system resource" not in record.getMessage() or limiter.suppressed_since_last() is not None
        )
    )
    # A client that disconnects during its handshake is not an error of the service.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: not record.getMessage().startswith("ASGI callable returned without completing")
    )
    # Faults of a posted file are reported in the answer.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )

"""Suppression of tifffile's log messages, which quote untrusted text of the file without escaping it.

Faults of a file are reported by the errors and notices of its reader.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_reading = ContextVar("senoscope_reading", default=False)


def _unless_reading(_record: logging.LogRecord) -> bool:
    return not _reading.get()


@contextmanager
def suppress_tifffile_log() -> Iterator[None]:
    """Suppress tifffile's log messages in a block, in this thread only."""
    logging.getLogger("tifffile").addFilter(_unless_reading)  # adding it again has no effect
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)

"""Keeping what tifffile logs about a file out of the logs: it quotes the file, raw and at any length.

What is wrong with a file is said by the error or the notices that its reader gives.
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
def without_tifffiles_log() -> Iterator[None]:
    """Drop what tifffile logs inside the block; that of other threads, and of other users of it, stays."""
    logging.getLogger("tifffile").addFilter(_unless_reading)  # once, however often it is added
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)

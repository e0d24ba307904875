"""Letting Qt's event loop work in a test."""

from __future__ import annotations

import time
from collections.abc import Callable


def pump(condition: Callable[[], object], timeout_s: float = 90) -> None:
    """Let Qt work until a condition holds."""
    from qtpy.QtWidgets import QApplication

    deadline = time.monotonic() + timeout_s
    while True:
        QApplication.processEvents()
        if condition():
            return
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)

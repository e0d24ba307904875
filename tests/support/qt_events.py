"""Processing of Qt's events in a test."""

from __future__ import annotations

import time
from collections.abc import Callable


def pump(condition: Callable[[], object], timeout_s: float = 90) -> None:
    """Process Qt's events until a condition is true."""
    from qtpy.QtWidgets import QApplication

    deadline = time.monotonic() + timeout_s
    while True:
        QApplication.processEvents()
        if condition():
            return
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)

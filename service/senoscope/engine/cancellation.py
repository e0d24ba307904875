"""Cancellation of the loading of an ensemble from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import onnxruntime as ort


class Cancellation:
    """Passed to the code that loads an ensemble; `cancel` ends it, also during a run.

    ONNX Runtime checks for cancellation between two operators of a graph, and while it opens one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._interrupts: list[Callable[[], None]] = []
        self._sessions: list[ort.SessionOptions] = []

    @property
    def error(self) -> Exception | None:
        """Why it was cancelled, or None."""
        return self._error

    def cancel(self, error: Exception) -> None:
        """Cancel the loading; only the first reason is kept."""
        with self._lock:
            if self._error is not None:
                return
            self._error = error
            for interrupt in self._interrupts:
                interrupt()
            for settings in self._sessions:
                if hasattr(settings, "set_load_cancellation_flag"):  # since ONNX Runtime 1.21
                    settings.set_load_cancellation_flag(True)

    def require(self) -> None:
        """Raise the reason if it was cancelled."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Make later cancellations have no effect; raise the reason of an earlier one."""
        with self._lock:
            self._interrupts.clear()
            self.require()

    def watch_run(self, options: ort.RunOptions) -> None:
        """Let `cancel` also interrupt runs of ONNX Runtime with these options."""
        self.watch(lambda: setattr(options, "terminate", True))

    def watch(self, interrupt: Callable[[], None]) -> None:
        """Let `cancel` also call a function that interrupts runs."""
        with self._lock:
            self._interrupts.append(interrupt)
            if self._error is not None:
                interrupt()

    @contextmanager
    def opening(self, settings: ort.SessionOptions) -> Iterator[None]:
        """Let `cancel` also interrupt the opening of a session within the block."""
        with self._lock:
            self._sessions.append(settings)
        try:
            self.require()
            yield
        finally:
            with self._lock:
                self._sessions.remove(settings)

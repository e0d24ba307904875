"""Threads that cannot die unseen."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

_log = structlog.get_logger(__name__)


class WatchedThread:
    """A thread whose death makes the service unready, with the reason.

    Parameters
    ----------
    name : str
        What it does, as readiness reports will call it.
    body : callable
        Runs until the event that it is given is set; returning earlier counts as death.
    """

    def __init__(self, name: str, body: Callable[[threading.Event], None]) -> None:
        self.name = name
        self._body = body
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ask it to end, and wait for that."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def problem(self) -> str | None:
        """Why it is not running, or None while all is well."""
        if self._error is not None:
            return f"the {self.name} thread died: {type(self._error).__name__}: {self._error}"
        if not self._thread.is_alive() and not self._stop.is_set():
            return f"the {self.name} thread is not running"
        return None

    def _run(self) -> None:
        try:
            self._body(self._stop)
        except BaseException as error:
            self._error = error
            _log.exception("thread died", thread=self.name)

"""Threads whose failure is reported."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

_log = structlog.get_logger(__name__)
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_RECOVERED_S = 60.0


class WatchedThread:
    """A thread whose failure is reported, with the reason, by ``/readyz``.

    Parameters
    ----------
    name : str
        What it does, as in status reports.
    body : callable
        Runs until the event that it is given is set; returning earlier is a failure.
    restarts : bool
        Whether the body is called again after a failure, with pauses that grow while it keeps failing.

    Attributes
    ----------
    deaths : int
        How often the body failed.
    """

    def __init__(self, name: str, body: Callable[[threading.Event], None], *, restarts: bool = False) -> None:
        self.name = name
        self.deaths = 0
        self._body = body
        self._restarts = restarts
        self._stop = threading.Event()
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def request_stop(self) -> None:
        """Signal the thread to end, and return at once."""
        self._stop.set()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Signal the thread to end, and wait until it has."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def problem(self) -> str | None:
        """Why the thread is not running, or None."""
        if self._problem is not None:
            return self._problem
        if not self._thread.is_alive() and not self._stop.is_set():
            return f"the {self.name} thread is not running"
        return None

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            began_s = time.monotonic()
            try:
                self._body(self._stop)
                died = None if self._stop.is_set() else "it ended by itself"
            except BaseException as error:
                # Shown to clients, which must not learn paths of this machine; the log has the whole error.
                died = type(error).__name__
                _log.exception("thread died", thread=self.name, restarts=self._restarts)
            if died is None:
                return
            self.deaths += 1
            self._problem = f"the {self.name} thread died ({died}); see the service's log"
            if not self._restarts:
                return
            if time.monotonic() - began_s > _RECOVERED_S:
                pause_s = _FIRST_PAUSE_S
            if self._stop.wait(pause_s):
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            self._problem = None
            _log.info("thread restarted", thread=self.name)

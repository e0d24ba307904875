"""Threads that cannot die unseen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

_log = structlog.get_logger(__name__)
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_GOOD_AGAIN_S = 60.0


class WatchedThread:
    """A thread whose death makes the service unready, with the reason.

    Parameters
    ----------
    name : str
        What it does, as readiness reports will call it.
    body : callable
        Runs until the event that it is given is set; returning earlier counts as death.
    restarts : bool
        Whether the body can simply be called again after it died: it is then, after pauses that get
        longer while it keeps dying.
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
        """Start it."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Ask it to end; returns at once."""
        self._stop.set()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ask it to end, and wait for that."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def problem(self) -> str | None:
        """Why it is not running, or None while all is well."""
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
                # Told to clients, who need not know this machine's folders; the log has it all.
                died = type(error).__name__
                _log.exception("thread died", thread=self.name, restarts=self._restarts)
            if died is None:
                return
            self.deaths += 1
            self._problem = f"the {self.name} thread died ({died}); the log tells why"
            if not self._restarts:
                return
            if time.monotonic() - began_s > _GOOD_AGAIN_S:
                pause_s = _FIRST_PAUSE_S
            if self._stop.wait(pause_s):
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            self._problem = None
            _log.info("thread restarted", thread=self.name)

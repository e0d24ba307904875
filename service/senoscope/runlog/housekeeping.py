"""What the run log needs beside results: series saved, old results forgotten, the disk brought up to date."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from senoscope.runlog.faults import LogFault
from senoscope.runlog.retention import forget_old, last_logged_ms
from senoscope.runlog.steady_clock import SteadyClock
from senoscope.runlog.store import RunLog
from senoscope.watched_thread import WatchedThread

_log = structlog.get_logger(__name__)
_EVERY_S: Final = 1.0
_RETENTION_EVERY_S: Final = 60.0
_PAUSE_S: Final = 0.02


class Housekeeping:
    """The thread that does it, once a second.

    Parameters
    ----------
    log : RunLog
    keep_days, keep_mib : float or None
        How old a result, how large the log may become.
    series : callable
        How the receiver's series are now.
    may_work : callable
        Whether the log is well.
    on_fault : callable
        Told where it is not.
    """

    def __init__(
        self,
        log: RunLog,
        keep_days: float | None,
        keep_mib: float | None,
        series: Callable[[], list[dict[str, Any]]],
        may_work: Callable[[], bool],
        on_fault: Callable[[LogFault], None],
    ) -> None:
        self._log = log
        self._keep_days = keep_days
        self._keep_mib = keep_mib
        self._series = series
        self._may_work = may_work
        self._on_fault = on_fault
        self._saved: dict[str, dict[str, Any]] = {}
        self._next_retention_s = time.monotonic()
        self._clock = SteadyClock()
        self._trusted = True
        self.thread = WatchedThread("run log housekeeping", self._run)

    def close(self) -> None:
        """Save the series once more, then stop."""
        self.thread.stop()

    def _run(self, stop: threading.Event) -> None:
        stopping = False
        while not stopping:
            stopping = stop.wait(_EVERY_S)
            if not self._may_work():
                continue
            try:
                self._save_series()
                if not stopping and time.monotonic() >= self._next_retention_s:
                    self._retain(stop)
                self._log.database.checkpoint()
            except LogFault as fault:
                self._on_fault(fault)

    def _save_series(self) -> None:
        now = {snapshot["series_uid"]: snapshot for snapshot in self._series()}
        self._log.save_series(snapshot for uid, snapshot in now.items() if self._saved.get(uid) != snapshot)
        self._saved = now

    def _retain(self, stop: threading.Event) -> None:
        self._next_retention_s = time.monotonic() + _RETENTION_EVERY_S
        if self._keep_days is None and self._keep_mib is None:
            return
        keep_days = self._keep_days if self._clock_is_trusted() else None
        deleted = forget_old(self._log.database, keep_days, self._keep_mib, lambda: stop.wait(_PAUSE_S))
        if deleted:
            _log.info("old results were forgotten", count=deleted)

    def _clock_is_trusted(self) -> bool:
        if self._keep_days is None:
            return True
        last_ms = last_logged_ms(self._log.database)
        trusted = self._clock.is_trusted(
            time.time(), time.monotonic(), None if last_ms is None else last_ms / 1000
        )
        if trusted != self._trusted:
            self._trusted = trusted
            if trusted:
                _log.info("results are forgotten by age again")
            else:
                _log.warning(
                    "no results are forgotten by age for four hours: the clock was set, or is far ahead "
                    "of the last result; correct it if it is wrong"
                )
        return trusted

"""Regular maintenance of the run log: save series, delete old results, write checkpoints."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

import structlog

from senoscope.runlog.entries import SeriesSnapshot
from senoscope.runlog.faults import LogFault
from senoscope.runlog.retention import delete_old_results, last_logged_ms
from senoscope.runlog.steady_clock import SteadyClock
from senoscope.runlog.store import RunLog
from senoscope.watched_thread import WatchedThread

_log = structlog.get_logger(__name__)
_INTERVAL_S: Final = 1.0
_RETENTION_INTERVAL_S: Final = 60.0
# Between two transactions that delete results.
_PAUSE_S: Final = 0.02


class Housekeeping:
    """A thread that maintains the run log once a second, and once more when it is stopped.

    Parameters
    ----------
    keep_days, keep_mib : float or None
        Maximum age of results and size of the log.
    series : callable
        Returns the current status of the sources' series.
    is_usable : callable
        Returns whether the log has no fault.
    on_fault : callable
        Called with each fault.
    """

    def __init__(
        self,
        log: RunLog,
        keep_days: float | None,
        keep_mib: float | None,
        series: Callable[[], list[SeriesSnapshot]],
        is_usable: Callable[[], bool],
        on_fault: Callable[[LogFault], None],
    ) -> None:
        self._log = log
        self._keep_days = keep_days
        self._keep_mib = keep_mib
        self._series = series
        self._is_usable = is_usable
        self._on_fault = on_fault
        self._saved: dict[UUID, SeriesSnapshot] = {}
        self._next_retention_s = time.monotonic()
        self._clock = SteadyClock()
        self._was_trusted = True
        self.thread = WatchedThread("run log housekeeping", self._run)

    def _run(self, stop: threading.Event) -> None:
        stopping = False
        while not stopping:
            stopping = stop.wait(_INTERVAL_S)
            if not self._is_usable():
                continue
            try:
                self._save_series()
                if not stopping and time.monotonic() >= self._next_retention_s:
                    self._apply_retention(stop)
                self._log.database.checkpoint()
            except LogFault as fault:
                self._on_fault(fault)

    def _save_series(self) -> None:
        now = {snapshot.series_uid: snapshot for snapshot in self._series()}
        self._log.save_series([one for uid, one in now.items() if self._saved.get(uid) != one])
        self._saved = now

    def _apply_retention(self, stop: threading.Event) -> None:
        self._next_retention_s = time.monotonic() + _RETENTION_INTERVAL_S
        if self._keep_days is None and self._keep_mib is None:
            return
        keep_days = self._keep_days if self._clock_is_trusted() else None
        deleted = delete_old_results(
            self._log.database, keep_days, self._keep_mib, lambda: stop.wait(_PAUSE_S)
        )
        if deleted:
            _log.info("old results were deleted", count=deleted)

    def _clock_is_trusted(self) -> bool:
        if self._keep_days is None:
            return True
        last_ms = last_logged_ms(self._log.database)
        trusted = self._clock.is_trusted(
            time.time(), time.monotonic(), None if last_ms is None else last_ms / 1000
        )
        if trusted != self._was_trusted:
            self._was_trusted = trusted
            if trusted:
                _log.info("results are deleted by age again")
            else:
                _log.warning(
                    "no results are deleted by age for four hours: the clock was changed, or is far ahead "
                    "of the last result; check the clock"
                )
        return trusted

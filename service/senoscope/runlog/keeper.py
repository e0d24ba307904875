"""The threads that write the run log. Faults of the database never stop results."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeVar

import structlog

from senoscope.runlog.dialects import LogState
from senoscope.runlog.entries import Entry, SeriesSnapshot
from senoscope.runlog.faults import LogFault
from senoscope.runlog.housekeeping import Housekeeping
from senoscope.runlog.store import RunLog
from senoscope.watched_thread import WatchedThread
from senoscope_client.errors import LogUnavailable
from senoscope_client.models.decision import Decision
from senoscope_client.models.status import RunLogStatus
from senoscope_client.rate_limiter import RateLimiter

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
# Time limit of a commit; after it the result is published with the flag that it is not logged.
_COMMIT_TIMEOUT_S: Final = 1.0
_LOG_INTERVAL_S: Final = 1.0
_MAX_LOG_INTERVAL_S: Final = 600.0
_FIRST_RETRY_S: Final = 0.25
_OPEN_TIMEOUT_S: Final = 10.0
_LAST_RETRY_S: Final = 10.0
_BATCH: Final = 256
# Entries of some 5 kB.
_MAX_BACKLOG: Final = 10_000
# The database remains open after these faults.
_TRANSIENT: Final = frozenset({"locked", "full", "slow"})
# The log can be read in these states. Others are refused at once, so that requests do not pile up.
_READABLE: Final = frozenset({"ok", "locked", "full", "read_only", "slow"})


class LogKeeper:
    """The run log and the threads that write and maintain it.

    One thread writes results; :meth:`commit` passes them to it and waits, but only for a limited time. While
    the database fails, results wait in memory; they are written in order once it works again.

    Parameters
    ----------
    log : RunLog
        Opened by the thread after `start`.
    keep_days, keep_mib : float or None
        Maximum age of results and size of the log.
    series : callable, optional
        Returns the current status of the sources' series; changes are saved every second.
    """

    def __init__(
        self,
        log: RunLog,
        *,
        keep_days: float | None = None,
        keep_mib: float | None = None,
        series: Callable[[], list[SeriesSnapshot]] = list,
    ) -> None:
        self.log = log
        self._changed = threading.Condition()
        self._log_lines = RateLimiter(_LOG_INTERVAL_S, _MAX_LOG_INTERVAL_S)
        self._backlog: deque[Entry | Decision] = deque()
        self._queued = 0  # entries passed to commit so far
        self._settled = 0  # of those, written or lost; in the order of commits
        self._lost = 0
        self._fault: LogFault | None = None
        self._opened = False
        self._closing = False
        self._thread = WatchedThread("run log", self._run)
        self._housekeeping = Housekeeping(
            log,
            keep_days,
            keep_mib,
            series,
            is_usable=lambda: self._opened and self._fault is None,
            on_fault=self._record_fault,
        )

    @property
    def threads(self) -> tuple[WatchedThread, ...]:
        """All threads; each must keep running."""
        return self._thread, self._housekeeping.thread

    @property
    def problem(self) -> str | None:
        """Why results are not logged now, or None."""
        return self._thread.problem or (None if self._fault is None else str(self._fault))

    @property
    def state(self) -> Literal["ok", "opening", "stopped"] | LogState:
        """State of the log in one word."""
        fault = self._fault
        if fault is not None:
            return fault.state
        if not self._opened:
            return "opening"
        return "ok" if self._thread.problem is None else "stopped"

    def readable(self) -> RunLog:
        """Return the log for reading.

        Raises
        ------
        LogUnavailable
            If the log is known to be unreadable now.
        """
        if self.state not in _READABLE:
            raise LogUnavailable(self.problem or "the run log is being opened; try again in a moment")
        return self.log

    def status(self) -> RunLogStatus:
        """Return state and counters."""
        with self._changed:
            return RunLogStatus(
                place=self.log.database.dialect.location,
                state=self.state,
                problem=self.problem,
                written=self._settled - self._lost,
                waiting=self._queued - self._settled,
                lost=self._lost,
            )

    def start(self) -> None:
        """Start the threads, which open the log."""
        for thread in self.threads:
            thread.start()

    def commit(self, entries: Sequence[Entry | Decision]) -> bool:
        """Write results or decisions to the log. Never raises, and takes a second at most.

        Returns
        -------
        bool
            Whether all of them are in the log now. If not, they wait in memory and are written as soon as
            possible; they should be published with that information.
        """
        with self._changed:
            self._backlog.extend(entries)
            self._queued += len(entries)
            ticket = self._queued
            self._drop_excess()
            if self.problem is not None:
                return False
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._settled >= ticket or self.problem is not None, timeout=_COMMIT_TIMEOUT_S
            )
            if self._settled >= ticket:
                return True
            if self.problem is None:
                place = self.log.database.dialect.location
                self._record_fault(
                    LogFault("unreachable", place, f"no answer within {_COMMIT_TIMEOUT_S:g} s")
                )
            return False

    def try_write(self, write: Callable[[RunLog], None]) -> bool:
        """Write to the log, and return whether that was possible."""
        try:
            write(self.readable())
        except LogUnavailable:
            return False
        except LogFault as fault:
            self._record_fault(fault)
            return False
        return True

    def close(self) -> None:
        """Write the waiting entries if possible, and close the database."""
        self._housekeeping.thread.stop()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.stop()
        self.log.close()
        unwritten = self._queued - self._settled
        if unwritten:
            _log.error(
                "results were not logged before the service ended", count=unwritten, reason=self.problem
            )

    def query(self, query: Callable[[RunLog], _T]) -> _T:
        """Return the result of a query of the log.

        Raises
        ------
        LogUnavailable
            If the log cannot be read, also after waiting for it to open.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._opened or self._fault is not None, timeout=_OPEN_TIMEOUT_S)
        try:
            return query(self.readable())
        except LogFault as fault:
            self._record_fault(fault)
            raise LogUnavailable(str(fault)) from fault

    def _run(self, stop: threading.Event) -> None:
        del stop  # `close` sets `_closing` and wakes the thread
        delay_s = _FIRST_RETRY_S
        while True:
            with self._changed:
                if self._opened and self._fault is None:
                    self._changed.wait_for(lambda: self._closing or self._backlog or self._fault)
                fault, last = self._fault, self._closing
                batch = [self._backlog.popleft() for _ in range(min(_BATCH, len(self._backlog)))]
            try:
                self._open(fault)
                self.log.append(batch)
            except LogFault as new_fault:
                with self._changed:
                    self._backlog.extendleft(reversed(batch))
                    self._drop_excess()
                    self._record_fault(new_fault)
                    if last:
                        return
                    self._changed.wait_for(lambda: self._closing, timeout=delay_s)
                delay_s = min(2 * delay_s, _LAST_RETRY_S)
            else:
                delay_s = _FIRST_RETRY_S
                with self._changed:
                    self._settled += len(batch)
                    if self._fault is not None and not self._backlog:
                        self._fault = None
                        _log.info("the run log works again", place=self.log.database.dialect.location)
                    self._changed.notify_all()
                    if last and not self._backlog:
                        return

    def _open(self, fault: LogFault | None) -> None:
        """Open the log if needed; after a transient fault, check that it can be written again."""
        if fault is not None and fault.state not in _TRANSIENT:
            self._opened = False
            self.log.close()
        if not self._opened:
            self.log.prepare()
            self._opened = True
        elif fault is not None:
            self.log.database.prepare()

    def _record_fault(self, fault: LogFault) -> None:
        with self._changed:
            if self._fault is None or self._fault.state != fault.state:
                _log.error("results are not logged", state=fault.state, reason=str(fault))
            self._fault = fault
            self._changed.notify_all()

    def _drop_excess(self) -> None:
        while len(self._backlog) > _MAX_BACKLOG:
            self._backlog.popleft()
            self._settled += 1
            self._lost += 1
            if self._log_lines.suppressed_since_last() is not None:
                _log.error("a result was not logged: too many are waiting", lost=self._lost)

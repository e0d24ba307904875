"""Keeping the run log while the microscope scans: whatever happens to the database, results go on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeVar

import structlog

from senoscope.runlog.entries import Entry
from senoscope.runlog.faults import LogFault, LogState, place_of
from senoscope.runlog.housekeeping import Housekeeping
from senoscope.runlog.store import RunLog
from senoscope.watched_thread import WatchedThread
from senoscope_client.errors import LogUnavailable
from senoscope_client.models.decision import Decision
from senoscope_client.models.status import RunLogStatus
from senoscope_client.rate_limiter import RateLimiter

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
# What a commit may take before the result is told as one that is not in the log.
_PATIENCE_S: Final = 1.0
_LOG_INTERVAL_S: Final = 1.0
_MAX_LOG_INTERVAL_S: Final = 600.0
_FIRST_RETRY_S: Final = 0.25
_OPENING_S: Final = 10.0
_LAST_RETRY_S: Final = 10.0
_BATCH: Final = 256
# Some 5 kB each.
_MAX_BACKLOG: Final = 10_000
# After these the database itself is sound: it need not be opened anew.
_PASSING: Final = frozenset({"locked", "full", "slow"})
# With these it can still be read. Not asking a server that does not answer keeps requests from piling up.
_READABLE: Final = frozenset({"ok", "locked", "full", "read_only", "slow"})


class LogKeeper:
    """The run log and the threads that keep it.

    One thread writes results; :meth:`commit` hands them to it and waits, but never for long. While the
    database fails, results wait in memory, and are written first once it works again.

    Parameters
    ----------
    log : RunLog
        Opened by the thread, not before `start`.
    keep_days, keep_mib : float or None
        How old a result, how large the log may become.
    series : callable, optional
        How the receiver's series are now; what changed is saved every second.
    """

    def __init__(
        self,
        log: RunLog,
        *,
        keep_days: float | None = None,
        keep_mib: float | None = None,
        series: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        self.log = log
        self._changed = threading.Condition()
        self._log_lines = RateLimiter(_LOG_INTERVAL_S, _MAX_LOG_INTERVAL_S)
        self._backlog: deque[Entry | Decision] = deque()
        self._queued = 0  # entries ever handed over
        self._settled = 0  # of those, written or lost; they leave in the order in which they came
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
            may_work=lambda: self._opened and self._fault is None,
            on_fault=self._note,
        )

    @property
    def threads(self) -> tuple[WatchedThread, ...]:
        """All that must run."""
        return self._thread, self._housekeeping.thread

    @property
    def problem(self) -> str | None:
        """Why results are not logged at present, or None while all is well."""
        return self._thread.problem or (None if self._fault is None else str(self._fault))

    @property
    def state(self) -> Literal["ok", "opening", "stopped"] | LogState:
        """The same in one word."""
        fault = self._fault
        if fault is not None:
            return fault.state
        if not self._opened:
            return "opening"
        return "ok" if self._thread.problem is None else "stopped"

    def readable(self) -> RunLog:
        """The log, to ask for results.

        Raises
        ------
        LogUnavailable
            If it is known that it cannot be read now.
        """
        if self.state not in _READABLE:
            raise LogUnavailable(self.problem or "the run log is being opened; ask again in a moment")
        return self.log

    def status(self) -> RunLogStatus:
        """Return state and counters."""
        with self._changed:
            return RunLogStatus(
                place=place_of(self.log.database.url),
                state=self.state,
                problem=self.problem,
                written=self._settled - self._lost,
                waiting=self._queued - self._settled,
                lost=self._lost,
            )

    def start(self) -> None:
        """Open the log and keep it, in the background."""
        for thread in self.threads:
            thread.start()

    def commit(self, entries: Sequence[Entry | Decision]) -> bool:
        """Write results or decisions to the log; never raises, and takes a second at most.

        Returns
        -------
        bool
            Whether all of them are in the log now. If not, they wait in memory to be written as soon as
            that is possible, and whoever is told of them should be told that too.
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
                lambda: self._settled >= ticket or self.problem is not None, timeout=_PATIENCE_S
            )
            if self._settled >= ticket:
                return True
            if self.problem is None:
                place = place_of(self.log.database.url)
                self._note(LogFault("unreachable", place, f"no answer within {_PATIENCE_S:g} s"))
            return False

    def get_value(self, key: str) -> Any:
        """A small state that was kept under that name; None if there is none.

        Raises
        ------
        LogUnavailable
            If the log cannot be read, even after a moment.
        """
        return self._ask(lambda log: log.get_value(key))

    def latest_series(self) -> list[tuple[dict[str, Any], list[tuple[int, int]]]]:
        """See `RunLog.latest_series`.

        Raises
        ------
        LogUnavailable
            As `get_value`.
        """
        return self._ask(RunLog.latest_series)

    def set_value(self, key: str, value: Any) -> bool:
        """Keep a small state under a name; False if that is not possible now."""
        try:
            self.readable().set_value(key, value)
        except LogUnavailable:
            return False
        except LogFault as fault:
            self._note(fault)
            return False
        return True

    def close(self) -> None:
        """Write what waits, if that is possible, and let go of the database."""
        self._housekeeping.close()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.stop()
        self.log.close()
        unwritten = self._queued - self._settled
        if unwritten:
            _log.error("results were never logged", count=unwritten, reason=self.problem)

    def _ask(self, question: Callable[[RunLog], _T]) -> _T:
        with self._changed:
            self._changed.wait_for(lambda: self._opened or self._fault is not None, timeout=_OPENING_S)
        try:
            return question(self.readable())
        except LogFault as fault:
            self._note(fault)
            raise LogUnavailable(str(fault)) from fault

    def _run(self, stop: threading.Event) -> None:
        del stop  # `close` says when, and wakes the thread
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
                    self._note(new_fault)
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
                        _log.info("the run log works again", place=place_of(self.log.database.url))
                    self._changed.notify_all()
                    if last and not self._backlog:
                        return

    def _open(self, fault: LogFault | None) -> None:
        """Open the log if it is not sound; after a passing fault, see that it can be written again."""
        if fault is not None and fault.state not in _PASSING:
            self._opened = False
            self.log.close()
        if not self._opened:
            self.log.prepare()
            self._opened = True
        elif fault is not None:
            self.log.database.prepare()

    def _note(self, fault: LogFault) -> None:
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
                _log.error("a result is lost to the run log: too many wait", lost=self._lost)

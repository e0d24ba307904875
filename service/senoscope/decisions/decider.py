"""The sink that applies rules to results and sends decisions, after all sinks that publish results."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Protocol
from uuid import UUID

import structlog

from senoscope.decisions.judge import Judge
from senoscope.decisions.rules import RuleSet
from senoscope.results.delivery import DeliveryTimes, ResultSink, SinkStage
from senoscope.results.record import Record
from senoscope.runlog.keeper import LogKeeper
from senoscope.watched_thread import WatchedThread
from senoscope_client.errors import LogUnavailable
from senoscope_client.models.decision import Decision, Judged
from senoscope_client.models.result import Result
from senoscope_client.models.status import DecisionsStatus
from senoscope_client.rate_limiter import RateLimiter

_log = structlog.get_logger(__name__)
# Maximum number of results that wait to be judged, some kilobytes each.
_MAX_WAITING: Final = 4096
_WAKE_INTERVAL_S: Final = 1.0
_LOG_INTERVAL_S: Final = 1.0
_MAX_LOG_INTERVAL_S: Final = 600.0


class DecisionSink(Protocol):
    """A receiver of decisions, notified from the decider's thread after they were logged."""

    def on_judged(self, result: Result, decisions: Sequence[Decision], judged: Judged) -> None:
        """Handle all decisions on a result. Must return at once."""
        ...


class Decider(ResultSink):
    """Applies rules to each result of the stream, in a separate thread, so that no result is delayed.

    Parameters
    ----------
    log : LogKeeper, optional
        Stores each decision before it is published; if it cannot, the decision is marked as not logged.
    """

    stage = SinkStage.JUDGE
    name = "decisions"
    thread: WatchedThread

    def __init__(self, rules: RuleSet, sinks: Sequence[DecisionSink], log: LogKeeper | None) -> None:
        self.counts: Counter[str] = Counter()
        self.lost = 0
        self._rules = rules
        self._sinks = sinks
        self._log = log
        self._judge = Judge(rules, self._earlier_decisions)
        self._log_lines = RateLimiter(_LOG_INTERVAL_S, _MAX_LOG_INTERVAL_S)
        self._queue: queue.Queue[Result | None] = queue.Queue(_MAX_WAITING)
        self.thread = WatchedThread("decisions", self._run, restarts=True)

    def status(self) -> DecisionsStatus:
        """Return state and counters."""
        return DecisionsStatus(
            dry_run=self._rules.dry_run,
            rules=tuple(rule.describe() for rule in self._rules.rules),
            decided=dict(self.counts),
            withheld=self._judge.withheld,
            waiting=self._queue.qsize(),
            lost=self.lost,
        )

    def on_result(self, record: Record, _: DeliveryTimes) -> None:
        """Queue a result of the stream; if too many wait, it is counted as lost and not judged."""
        if record.result.source.series_uid is None:
            return
        try:
            self._queue.put_nowait(record.result)
        except queue.Full:
            self.lost += 1
            if self._log_lines.suppressed_since_last() is not None:
                _log.error("a result is not judged: too many are waiting", lost=self.lost)

    def close(self) -> None:
        """Judge the waiting results, then stop."""
        self.thread.request_stop()
        with contextlib.suppress(queue.Full):  # a full queue: the thread stops when it is empty
            self._queue.put_nowait(None)
        self.thread.stop()

    def _run(self, stop: threading.Event) -> None:
        while True:
            try:
                result = self._queue.get(timeout=_WAKE_INTERVAL_S)
            except queue.Empty:
                if stop.is_set():
                    return
                continue
            if result is None:
                return
            self._decide(result)

    def _decide(self, result: Result) -> None:
        decisions = self._judge.judge(result)
        if decisions and self._log is not None and not self._log.commit(decisions):
            decisions = [decision.model_copy(update={"logged": False}) for decision in decisions]
        for decision in decisions:
            self.counts[decision.action] += 1
            _log.info(
                "decided",
                action=decision.action,
                rule=decision.rule,
                dry_run=decision.dry_run,
                series_id=decision.series_id,
                frame=decision.frame,
                reason=decision.reason,
            )
        uid, frame = result.source.series_uid, result.source.frame
        if uid is None or frame is None:
            return
        judged = Judged(series_uid=uid, frame=frame, result_id=result.id, decisions=len(decisions))
        for sink in self._sinks:
            try:
                sink.on_judged(result, decisions, judged)
            except Exception:  # an error of one sink must not prevent the others
                _log.exception("a sink failed on decisions", sink=type(sink).__name__)

    def _earlier_decisions(self, uid: UUID) -> Iterable[Decision]:
        if self._log is None:
            return ()
        try:
            return self._log.readable().decisions_of(uid)
        except LogUnavailable as error:
            _log.warning(
                "earlier decisions cannot be read: limits of revisits count from now on",
                reason=str(error),
            )
            return ()

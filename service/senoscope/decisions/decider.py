"""The sink that has results judged, and tells the decisions; behind all that tell results."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

import structlog

from senoscope.decisions.judge import Judge
from senoscope.decisions.rules import RuleSet
from senoscope.results.record import Record
from senoscope.runlog.keeper import LogKeeper
from senoscope.watched_thread import WatchedThread
from senoscope_client.errors import LogUnavailable
from senoscope_client.models.decision import Decision, Judged
from senoscope_client.models.result import Result

_log = structlog.get_logger(__name__)
# Results that may wait to be judged, some kilobytes each.
_DEPTH: Final = 4096
_LOOK_UP_S: Final = 1.0


class DecisionSink(Protocol):
    """Someone who is told of decisions, from the decider's thread, after they are in the run log.

    ``tell_judged`` must return at once.
    """

    def tell_judged(self, result: Result, decisions: Sequence[Decision], judged: Judged) -> None:
        """Take notice of the decisions on a result, and that these are all."""
        ...


class Decider:
    """Judges each result of the stream after it was told, in a thread of its own, so that it delays none.

    Parameters
    ----------
    rules : RuleSet
    sinks : sequence of DecisionSink
    log : LogKeeper, optional
        Holds each decision before anyone hears of it; where it cannot, the decision says so.
    """

    def __init__(self, rules: RuleSet, sinks: Sequence[DecisionSink], log: LogKeeper | None) -> None:
        self.counts: Counter[str] = Counter()
        self.lost = 0
        self._rules = rules
        self._sinks = sinks
        self._log = log
        self._judge = Judge(rules, self._earlier)
        self._queue: queue.Queue[Result | None] = queue.Queue(_DEPTH)
        self.thread = WatchedThread("decisions", self._run, restarts=True)

    def describe(self) -> dict[str, Any]:
        """State and counters."""
        return {
            "dry_run": self._rules.dry_run,
            "rules": [rule.words() for rule in self._rules.rules],
            "decided": dict(self.counts),
            "withheld": self._judge.withheld,
            "waiting": self._queue.qsize(),
            "lost": self.lost,
        }

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def tell(self, record: Record) -> None:
        """Queue a result of the stream; where too many wait it is never judged, and counted."""
        if record.result.source.series_uid is None:
            return
        try:
            self._queue.put_nowait(record.result)
        except queue.Full:
            self.lost += 1
            if self.lost & (self.lost - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
                _log.error("a result is not judged: too many wait", lost=self.lost)

    def close(self) -> None:
        """Judge what waits, then stop."""
        self.thread.ask_to_stop()
        with contextlib.suppress(queue.Full):  # else the thread sees that it is to stop after what waits
            self._queue.put_nowait(None)
        self.thread.stop()

    def _run(self, stop: threading.Event) -> None:
        while True:
            try:
                result = self._queue.get(timeout=_LOOK_UP_S)
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
                sink.tell_judged(result, decisions, judged)
            except Exception:  # one sink's fault is not the next one's
                _log.exception("decisions could not be told", sink=type(sink).__name__)

    def _earlier(self, uid: UUID) -> Iterable[Decision]:
        if self._log is None:
            return ()
        try:
            return self._log.readable().decisions_of(uid)
        except LogUnavailable as error:
            _log.warning(
                "limits of revisits count from now on: earlier decisions cannot be read", reason=str(error)
            )
            return ()

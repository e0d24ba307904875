"""Delivery of results: logged first, then sent to every sink, in the order of computation."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from queue import Empty, SimpleQueue
from typing import NamedTuple

import structlog
from pydantic import BaseModel

from senoscope.engine import IntensityRange, Prediction
from senoscope.fov import Fov
from senoscope.logs import about
from senoscope.results.lost_frames import LostFrames
from senoscope.results.record import Record, ResultMaker
from senoscope.runlog.entries import Entry
from senoscope.runlog.keeper import LogKeeper
from senoscope.watched_thread import WatchedThread
from senoscope_client.models.result import Flag

_log = structlog.get_logger(__name__)
_MAX_COMMIT_FOVS = 64
# Batches that may wait here, and for how long: they hold their pixels. The run log is given a second at most,
# in which a microscope at the paper's rate sends some 40 frames.
_MAX_WAITING = 32
_MAX_WAIT_S = 2.0


@dataclass(eq=False)
class Stack:
    """A posted stack on its way through the batch lane."""

    fovs: Sequence[Fov]
    done: Future[list[Record]] = field(default_factory=Future)
    """Cancelling it keeps FOVs that have not begun from being computed."""
    taken: int = 0  # FOVs that were handed to the engine
    _records: list[Record] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """FOVs that have not begun."""
        return len(self.fovs) - self.taken

    def add(self, record: Record) -> None:
        """Add the record of the next FOV; the last one completes the stack."""
        self._records.append(record)
        if len(self._records) < len(self.fovs):
            return
        try:
            self.done.set_result(self._records)
        except InvalidStateError:
            _log.info(
                "client disconnected before its stack was classified",
                fovs=len(self.fovs),
                **about(self.fovs[0], of_stack=True),
            )

    def fail(self, error: Exception) -> None:
        """End the stack with an error, unless it has ended."""
        self.taken = len(self.fovs)
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(frozen=True)
class Computed:
    """The engine's output for one batch."""

    fovs: Sequence[Fov]
    predictions: list[Prediction]
    bounds: IntensityRange
    stack: Stack | None  # the stack that the FOVs belong to; None for a live frame
    maker: ResultMaker  # of the ensemble that computed the batch
    started_s: float  # when its computation began, by ``time.perf_counter``
    compute_ms: float


class SinkStage(IntEnum):
    """When a sink is notified of a result; all sinks of one stage come before those of the next."""

    REMEMBER = 0
    """Before the result's identifier is published, so that a lookup finds it."""
    PUBLISH = 1
    JUDGE = 2
    OBSERVE = 3
    """After the stack that the result belongs to was answered."""


class DeliveryTimes(NamedTuple):
    """When a result reached a step, by ``time.perf_counter``."""

    logged_s: float  # it was in the run log, or the attempt was given up for now
    notified_s: float  # the sinks of all earlier stages were notified


class ResultSink(ABC):
    """A place for results. Subclasses override `on_result`, and what else they need.

    Notified from the delivery thread, once of every record, in the order of computation.
    """

    stage: SinkStage = SinkStage.PUBLISH  # when it is notified
    name: str = ""  # key of its status in that of the service
    thread: WatchedThread | None = None
    """The thread of a sink that queues results. Its failure is reported."""

    @property
    def problem(self) -> str | None:
        """Why it does not work now, or None."""
        return None if self.thread is None else self.thread.problem

    @abstractmethod
    def on_result(self, record: Record, times: DeliveryTimes) -> None:
        """Handle a result. Must return at once: a sink that cannot keep up drops results and counts them."""

    def status(self) -> BaseModel | None:
        """Return its state and counters, or None if it has none."""
        return None

    def close(self) -> None:  # noqa: B027 - optional
        """Release what the sink holds; no more results follow."""


class _Queued(NamedTuple):
    """A batch that waits, and whether it holds one of the limited places."""

    computed: Computed
    has_place: bool


class Delivery:
    """The thread between the scheduler and the sinks, so that notifying them never delays the next frame.

    Parameters
    ----------
    sinks : sequence of ResultSink
        In the order of their stages.
    log : LogKeeper, optional
        Holds each result before any sink is notified; where it cannot, the result carries a flag.
    lost : LostFrames, optional
        Records which live frames get no result.

    Attributes
    ----------
    live_late : int
        Results of live frames that missed the deadline.
    failed : int
        Predictions of which no result could be made.

    Raises
    ------
    ValueError
        If the sinks are in another order.
    """

    def __init__(
        self,
        sinks: Sequence[ResultSink],
        log: LogKeeper | None = None,
        lost: LostFrames | None = None,
    ) -> None:
        for earlier, later in pairwise(sinks):
            if earlier.stage > later.stage:
                raise ValueError(
                    f"{type(earlier).__name__} ({earlier.stage.name}) must come after "
                    f"{type(later).__name__} ({later.stage.name})"
                )
        self.live_late = 0
        self.failed = 0
        self.sinks = tuple(sinks)
        self._before_answer = [sink for sink in self.sinks if sink.stage < SinkStage.OBSERVE]
        self._after_answer = [sink for sink in self.sinks if sink.stage >= SinkStage.OBSERVE]
        self._run_log = log
        self._lost = lost or LostFrames()
        self._queue: SimpleQueue[_Queued | None] = SimpleQueue()
        # Taken from the queue and not finished: the thread continues with these after a failure.
        self._to_make: deque[Computed] = deque()
        self._to_send: deque[tuple[Computed, Record]] = deque()
        self._places = threading.Semaphore(_MAX_WAITING)
        self.thread = WatchedThread("delivery", self._run, restarts=True)

    def deliver(self, computed: Computed) -> None:
        """Queue a computed batch; waits while so many wait that frames had better wait in their lane."""
        has_place = self._places.acquire(timeout=_MAX_WAIT_S)
        self._queue.put(_Queued(computed, has_place))

    def close(self) -> None:
        """Deliver what was computed, then stop and close the sinks."""
        self.thread.request_stop()
        self._queue.put(None)
        self.thread.stop()
        # A later sink may use an earlier one until it is closed.
        for sink in reversed(self.sinks):
            sink.close()

    def _run(self, stop: threading.Event) -> None:
        del stop  # the last message, None, follows all that was computed
        self._resume()
        while self._take():
            self._make_all()
            self._send_all(time.perf_counter())

    def _resume(self) -> None:
        """Continue after a failure of this thread, without the batch that caused it."""
        for computed in self._to_make:
            self._fail(computed, RuntimeError("the delivery of this batch failed; see the service's log"))
        self._to_make.clear()
        self._send_all(time.perf_counter())

    def _take(self) -> bool:
        """Wait for a batch, and take those behind it up to a limit; False if none follows."""
        queued = self._queue.get()
        fovs = places = 0
        while queued is not None:
            self._to_make.append(queued.computed)
            fovs += len(queued.computed.fovs)
            places += queued.has_place
            if fovs >= _MAX_COMMIT_FOVS:
                break
            try:
                queued = self._queue.get_nowait()
            except Empty:
                break
            if queued is None:  # read again when these are finished
                self._queue.put(None)
        if places:
            self._places.release(places)
        return bool(fovs)

    def _make_all(self) -> None:
        made = [(computed, record) for computed in self._to_make for record in self._make(computed)]
        self._to_send.extend(zip((computed for computed, _ in made), self._log_all(made), strict=True))
        self._to_make.clear()

    def _send_all(self, logged_s: float) -> None:
        while self._to_send:
            computed, record = self._to_send.popleft()
            self.live_late += computed.stack is None and record.result.deadline_met is False
            try:
                self._notify(self._before_answer, record, logged_s)
            finally:
                if computed.stack is not None:
                    computed.stack.add(record)
            self._notify(self._after_answer, record, logged_s)

    @staticmethod
    def _notify(sinks: Sequence[ResultSink], record: Record, logged_s: float) -> None:
        times = DeliveryTimes(logged_s, time.perf_counter())
        stage = sinks[0].stage if sinks else None
        for sink in sinks:
            if sink.stage is not stage:
                times, stage = DeliveryTimes(logged_s, time.perf_counter()), sink.stage
            try:
                sink.on_result(record, times)
            except Exception:  # the fault of one sink must not keep the result from the next
                _log.exception("a sink failed on a result", sink=type(sink).__name__, **about(record.fov))

    def _fail(self, computed: Computed, error: Exception) -> None:
        self.failed += len(computed.fovs)
        if computed.stack is not None:
            computed.stack.fail(error)
        else:
            for fov in computed.fovs:
                self._lost.note(fov.source, "failed", f"no result could be made: {type(error).__name__}")

    def _make(self, computed: Computed) -> list[Record]:
        try:
            records = [
                computed.maker.make(fov, prediction, computed.bounds, computed.started_s, computed.compute_ms)
                for fov, prediction in zip(computed.fovs, computed.predictions, strict=True)
            ]
            for record in records:
                record.json("none")  # kept for the log and the sinks; fails here if there is no JSON for it
            return records
        except Exception as error:  # a batch without results must not stop the next
            _log.exception("results could not be made", fovs=len(computed.fovs), **about(computed.fovs[0]))
            self._fail(computed, error)
            return []

    def _log_all(self, made: list[tuple[Computed, Record]]) -> list[Record]:
        """Log records, and return them as they are to be sent: all logged, or all flagged."""
        records = [record for _, record in made]
        if self._run_log is None or not records:
            return records
        try:
            entries = [
                Entry.of(
                    record.result,
                    record.prediction.gradcams,
                    computed.maker.ensemble.manifest,
                    record.json("none"),
                )
                for computed, record in made
            ]
            if self._run_log.commit(entries):
                return records
        except Exception:  # a result with a flag is better than none
            _log.exception("results could not be logged", fovs=len(made), **about(made[0][1].fov))
        flag = Flag(
            code="not_logged",
            message="sent before the run log holds it; it is logged as soon as possible (see /v1/stream)",
        )
        return [record.flagged(flag) for record in records]

"""Telling results: logged and remembered first, then told to every sink, in the order of computation."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol

import structlog

from senoscope.engine import IntensityRange, Prediction
from senoscope.fov import Fov
from senoscope.logs import about
from senoscope.results.lost_frames import LostFrames
from senoscope.results.record import RecentRecords, Record, ResultMaker
from senoscope.runlog.entries import Entry
from senoscope.runlog.keeper import LogKeeper
from senoscope.watched_thread import WatchedThread
from senoscope_client.models.result import Flag

_log = structlog.get_logger(__name__)
# FOVs that are logged in one transaction, where so many wait.
_AT_ONCE = 64
# Batches that wait here at most, and for how long: they hold their pixels. The run log asks for a second of
# patience at most, in which a microscope at the paper's rate sends some 40 frames.
_WAITING = 32
_PATIENCE_S = 2.0


@dataclass(eq=False)
class Stack:
    """A posted stack on its way through the batch lane.

    Attributes
    ----------
    fovs : sequence of Fov
    done : Future of list of Record
        Cancelling it keeps FOVs that were not begun from being computed.
    """

    fovs: Sequence[Fov]
    done: Future[list[Record]] = field(default_factory=Future)
    taken: int = 0
    records: list[Record] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """FOVs not yet begun."""
        return len(self.fovs) - self.taken

    def fail(self, error: Exception) -> None:
        """Tell whoever waits that this stack will not be finished."""
        self.taken = len(self.fovs)
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(frozen=True)
class Computed:
    """What came out of the engine for one batch, on its way to the delivery thread.

    Attributes
    ----------
    stack : Stack or None
        The stack that the FOVs belong to; None for a live frame.
    maker : ResultMaker
        Of the ensemble that computed it.
    started_s : float
        By ``time.perf_counter``.
    """

    fovs: Sequence[Fov]
    predictions: list[Prediction]
    bounds: IntensityRange
    stack: Stack | None
    maker: ResultMaker
    started_s: float
    compute_ms: float


class Sink(Protocol):
    """Someone who is told of results.

    Each is told from the delivery thread, of every record once, after the record is remembered. ``tell``
    must return at once: a sink that is slow loses messages and counts them.
    """

    def tell(self, record: Record) -> None:
        """Take notice of a result."""
        ...

    def close(self) -> None:
        """No more results will come."""
        ...


class Moments(NamedTuple):
    """When a result got so far, by ``time.perf_counter``.

    Attributes
    ----------
    logged_s : float
        It was in the run log, or was given up to be for now.
    told_s : float
        Every sink had been told.
    """

    logged_s: float
    told_s: float


class _Queued(NamedTuple):
    """A batch that waits, and whether it took one of the places that are bounded."""

    computed: Computed
    took_room: bool


class Delivery:
    """The thread between the scheduler and the world, so that telling never delays the next frame.

    Parameters
    ----------
    recent : RecentRecords
    sinks : sequence of Sink
    log : LogKeeper, optional
        Holds each result before anyone hears of it; where it cannot, the result says so.
    lost : LostFrames, optional
        Notes which live frames get no result.
    told : sequence of callable
        Called for each result after every sink was told of it.
    """

    def __init__(
        self,
        recent: RecentRecords,
        sinks: Sequence[Sink],
        log: LogKeeper | None = None,
        told: Sequence[Callable[[Record, Moments], None]] = (),
        lost: LostFrames | None = None,
    ) -> None:
        self._lost = lost or LostFrames()
        self.live_late = 0
        self.failed = 0
        self._recent = recent
        self._sinks = sinks
        self._run_log = log
        self._told = told
        self._queue: SimpleQueue[_Queued | None] = SimpleQueue()
        # What the thread took and has not finished: should it die, it goes on with these.
        self._unmade: deque[Computed] = deque()
        self._untold: deque[tuple[Computed, Record]] = deque()
        self._room = threading.Semaphore(_WAITING)
        self.thread = WatchedThread("delivery", self._run, restarts=True)

    def deliver(self, computed: Computed) -> None:
        """Queue a computed batch; waits while so many wait that it is better if frames do, in their lane."""
        took_room = self._room.acquire(timeout=_PATIENCE_S)
        self._queue.put(_Queued(computed, took_room))

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def close(self) -> None:
        """Tell what was computed, then stop."""
        self.thread.ask_to_stop()
        self._queue.put(None)
        self.thread.stop()
        for sink in reversed(self._sinks):  # those behind may need those before them until the end
            sink.close()

    def _run(self, stop: threading.Event) -> None:
        del stop  # the last message, None, comes after all that was computed
        self._resume()
        while self._take():
            self._make_all()
            self._tell_all(time.perf_counter())

    def _resume(self) -> None:
        """Go on after this thread died: without what it died on, which was taken from its queue before."""
        for computed in self._unmade:
            self._fail(computed, RuntimeError("the delivery thread failed on this batch; its log tells more"))
        self._unmade.clear()
        self._tell_all(time.perf_counter())

    def _take(self) -> bool:
        """Wait for a batch, and take those behind it too, up to a bound; False if no more will come."""
        queued = self._queue.get()
        count = took_room = 0
        while queued is not None:
            self._unmade.append(queued.computed)
            count += len(queued.computed.fovs)
            took_room += queued.took_room
            if count >= _AT_ONCE:
                break
            try:
                queued = self._queue.get_nowait()
            except Empty:
                break
            if queued is None:  # nothing comes after it, and it is read again when these are done
                self._queue.put(None)
        if took_room:
            self._room.release(took_room)
        return bool(count)

    def _make_all(self) -> None:
        made = [(computed, record) for computed in self._unmade for record in self._make(computed)]
        self._untold.extend(zip((computed for computed, _ in made), self._log_all(made), strict=True))
        self._unmade.clear()

    def _tell_all(self, logged_s: float) -> None:
        while self._untold:
            computed, record = self._untold.popleft()
            try:
                self._tell(record, computed)
            finally:
                self._finish(computed)
            self._look_back(record, logged_s)

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
                record.json("none")  # kept for the log and the sinks; one that has no JSON is found here
            return records
        except Exception as error:  # one batch that cannot be told must not stop the next
            _log.exception("results could not be made", fovs=len(computed.fovs), **about(computed.fovs[0]))
            self._fail(computed, error)
            return []

    def _log_all(self, made: list[tuple[Computed, Record]]) -> list[Record]:
        """The records as they are to be told: all in the log, or all flagged."""
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
        except Exception:  # results are sent, with a flag, rather than lost
            _log.exception("results could not be logged", fovs=len(made), **about(made[0][1].fov))
        flag = Flag(
            code="not_logged",
            message="told before it was in the run log, which gets it when it can (/v1/stream tells more)",
        )
        return [record.flagged(flag) for record in records]

    def _tell(self, record: Record, computed: Computed) -> None:
        if computed.stack is not None:
            computed.stack.records.append(record)
        self.live_late += computed.stack is None and not record.result.deadline_met
        for tell, sink in ((self._recent.add, self._recent), *((sink.tell, sink) for sink in self._sinks)):
            try:
                tell(record)
            except Exception:  # one sink's fault is not the next one's
                _log.exception("result could not be told", sink=type(sink).__name__, **about(record.fov))

    @staticmethod
    def _finish(computed: Computed) -> None:
        stack = computed.stack
        if stack is not None and len(stack.records) == len(stack.fovs):
            try:
                stack.done.set_result(stack.records)
            except InvalidStateError:
                _log.info(
                    "client went away before its stack was done",
                    fovs=len(stack.fovs),
                    **about(stack.fovs[0], of_stack=True),
                )

    def _look_back(self, record: Record, logged_s: float) -> None:
        moments = Moments(logged_s, time.perf_counter())
        for told in self._told:
            try:
                told(record, moments)
            except Exception:
                _log.exception("result could not be looked back on", **about(record.fov))

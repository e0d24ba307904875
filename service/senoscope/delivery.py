"""Telling results: remembered first, then told to every sink, in the order of computation."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import InvalidStateError
from typing import Protocol

import structlog

from senoscope.records import RecentRecords, Record
from senoscope.scheduler import Computed
from senoscope.threads import WatchedThread

_log = structlog.get_logger(__name__)


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


class Delivery:
    """The thread between the scheduler and the world, so that telling never delays the next frame.

    Parameters
    ----------
    recent : RecentRecords
        Told first. A run log that must hold a result before anyone hears of it belongs here too.
    sinks : sequence of Sink
    """

    def __init__(self, recent: RecentRecords, sinks: Sequence[Sink]) -> None:
        self.live_late = 0
        self.failed = 0
        self._recent = recent
        self._sinks = sinks
        self._queue: queue.SimpleQueue[Computed | None] = queue.SimpleQueue()
        self.thread = WatchedThread("delivery", self._run, restarts=True)

    def deliver(self, computed: Computed) -> None:
        """Queue a computed batch; returns at once."""
        self._queue.put(computed)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def close(self) -> None:
        """Tell what was computed, then stop."""
        self.thread.ask_to_stop()
        self._queue.put(None)
        self.thread.stop()
        for sink in self._sinks:
            sink.close()

    def _run(self, stop: threading.Event) -> None:
        del stop  # the last message, None, comes after all that was computed
        while (computed := self._queue.get()) is not None:
            try:
                self._tell(computed)
            except Exception as error:  # one batch that cannot be told must not stop the next
                _log.exception("results could not be made", fovs=len(computed.fovs))
                self.failed += len(computed.fovs)
                if computed.stack is not None:
                    computed.stack.fail(error)

    def _tell(self, computed: Computed) -> None:
        for fov, prediction in zip(computed.fovs, computed.predictions, strict=True):
            record = computed.maker.make(
                fov, prediction, computed.bounds, computed.started_s, computed.compute_ms
            )
            self._recent.add(record)
            self.live_late += computed.stack is None and not record.result.deadline_met
            for sink in self._sinks:
                try:
                    sink.tell(record)
                except Exception:  # one sink's fault is not the next one's
                    _log.exception("result could not be told", sink=type(sink).__name__)
            if computed.stack is not None:
                computed.stack.records.append(record)
        self._finish(computed)

    @staticmethod
    def _finish(computed: Computed) -> None:
        stack = computed.stack
        if stack is not None and len(stack.records) == len(stack.fovs):
            try:
                stack.done.set_result(stack.records)
            except InvalidStateError:
                _log.info("client went away before its stack was done", fovs=len(stack.fovs))

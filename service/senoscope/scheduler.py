"""Who is computed next: live frames first, posted stacks in the gaps."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import structlog

from senoscope.engine import Ensemble, IntensityRange, Prediction
from senoscope.fov import Fov
from senoscope.records import Record
from senoscope.threads import WatchedThread
from senoscope_client.errors import Busy, NotReady

_log = structlog.get_logger(__name__)


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


@dataclass(frozen=True)
class Computed:
    """What came out of the engine for one batch, on its way to the delivery thread.

    Attributes
    ----------
    stack : Stack or None
        The stack that the FOVs belong to; None for a live frame.
    started_s : float
        By ``time.perf_counter``.
    """

    fovs: Sequence[Fov]
    predictions: list[Prediction]
    bounds: IntensityRange
    stack: Stack | None
    started_s: float
    compute_ms: float


@dataclass
class LaneCounts:
    """What the scheduler has seen since it started."""

    live_dropped: int = 0
    live_failed: int = 0
    live_computed: int = 0
    batch_computed: int = 0


class Scheduler:
    """Owns the engine: its one thread is the only one that calls it.

    Parameters
    ----------
    ensemble : Ensemble
    deliver : callable
        Takes each computed batch; must not block.
    live_depth : int
        Live frames that may wait; the oldest is dropped for a newer one.
    batch_depth : int
        FOVs of stacks that may wait.
    batch_size : int
        FOVs of a stack per batch: what a live frame may have to wait for.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        deliver: Callable[[Computed], None],
        *,
        live_depth: int,
        batch_depth: int,
        batch_size: int,
    ) -> None:
        self._ensemble = ensemble
        self._deliver = deliver
        self._live: deque[Fov] = deque()
        self._live_depth = live_depth
        self._stacks: deque[Stack] = deque()
        self._batch_depth = batch_depth
        self._batch_size = batch_size
        self._changed = threading.Condition()
        self._open = True
        self.counts = LaneCounts()
        self.thread = WatchedThread("scheduler", self._run)

    def submit_live(self, fov: Fov) -> None:
        """Queue a live frame; if the lane is full its oldest frame is dropped and counted."""
        with self._changed:
            if len(self._live) >= self._live_depth:
                self._live.popleft()
                self.counts.live_dropped += 1
            self._live.append(fov)
            self._changed.notify()

    def submit_stack(self, fovs: Sequence[Fov]) -> Stack:
        """Queue a posted stack.

        Raises
        ------
        Busy
            If the lane has no room for it.
        NotReady
            If the service is stopping.
        """
        stack = Stack(fovs)
        with self._changed:
            if not self._open:
                raise NotReady("the service is stopping")
            waiting = sum(other.waiting for other in self._stacks)
            # A stack larger than the whole lane is let in when nothing waits before it.
            if waiting and waiting + len(fovs) > self._batch_depth:
                seconds = waiting * self._ensemble.warm_compute_ms / 1e3
                raise Busy(
                    f"{waiting} fields of view wait already, {len(fovs)} more exceed the lane's "
                    f"{self._batch_depth}; try again in about {max(1, round(seconds))} s",
                    retry_after_s=max(1.0, seconds),
                )
            self._stacks.append(stack)
            self._changed.notify()
        return stack

    def depths(self) -> tuple[int, int]:
        """FOVs waiting in the live lane and in the batch lane."""
        with self._changed:
            return len(self._live), sum(stack.waiting for stack in self._stacks)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def close(self) -> None:
        """Stop after the batch in flight; stacks not finished fail with NotReady."""
        with self._changed:
            self._open = False
            abandoned = list(self._stacks)
            self._stacks.clear()
            self._live.clear()
            self._changed.notify()
        self.thread.stop()
        for stack in abandoned:
            if not stack.done.done():
                stack.done.set_exception(NotReady("the service is stopping"))

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            with self._changed:
                batch = self._next()
                while batch is None:
                    if not self._open or stop.is_set():
                        return
                    self._changed.wait(1.0)
                    batch = self._next()
            self._compute(*batch)

    def _next(self) -> tuple[Sequence[Fov], Stack | None] | None:
        if self._live:
            return (self._live.popleft(),), None
        while self._stacks:
            stack = self._stacks[0]
            if stack.done.cancelled():
                self._stacks.popleft()
                continue
            fovs = stack.fovs[stack.taken : stack.taken + self._batch_size]
            stack.taken += len(fovs)
            if not stack.waiting:
                self._stacks.popleft()
            return fovs, stack
        return None

    def _compute(self, fovs: Sequence[Fov], stack: Stack | None) -> None:
        bounds = self._ensemble.model_range
        started_s = time.perf_counter()
        pixels = fovs[0].pixels[None] if len(fovs) == 1 else np.stack([fov.pixels for fov in fovs])
        try:
            predictions = self._ensemble.predict(pixels, bounds)
        except Exception as error:  # one frame that cannot be computed must not stop the next
            _log.exception("engine failed", source=fovs[0].source.model_dump(mode="json", exclude_none=True))
            if stack is None:
                self.counts.live_failed += 1
            elif not stack.done.done():
                stack.taken = len(stack.fovs)
                stack.done.set_exception(error)
                with self._changed:
                    if stack in self._stacks:
                        self._stacks.remove(stack)
            return
        compute_ms = (time.perf_counter() - started_s) * 1e3
        if stack is None:
            self.counts.live_computed += 1
        else:
            self.counts.batch_computed += len(fovs)
        self._deliver(Computed(fovs, predictions, bounds, stack, started_s, compute_ms))

"""The order of computation: live frames first, posted stacks in the gaps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog

from senoscope.engine import IntensityRange, Prediction
from senoscope.fov import Fov
from senoscope.logs import about
from senoscope.results.delivery import Computed, Stack
from senoscope.results.lost_frames import LostFrames
from senoscope.scheduling.active_ensemble import ActiveEnsemble
from senoscope.scheduling.batch_sizer import BatchSizer
from senoscope.scheduling.lanes import BatchLane, DropReason, LiveLane
from senoscope.watched_thread import WatchedThread
from senoscope_client.errors import NotReady
from senoscope_client.images.axes import FovSpec

_log = structlog.get_logger(__name__)
_WAKE_INTERVAL_S = 1.0
# During a scan, a device that lowers its clocks is never idle for longer than this ...
_WARM_INTERVAL_S = 0.02
# ... and after so long without a frame the scan is over.
_SCAN_PAUSE_S = 30.0
_FAILURES_TOLERATED = 3
_INPUT_CHANGED = (
    "an ensemble that takes other channels or another size took over while this request was served; "
    "send it again"
)
_ENSEMBLE_CHANGED = "another ensemble or precision took over while this request was served; send it again"

_DROPPED: Final[dict[DropReason, str]] = {
    "lane_full": "newer frames took its place in the queue",
    "ensemble_changed": "it was arranged for an ensemble that has been replaced",
    "stopping": "the service stops",
}


@dataclass
class LaneCounts:
    """FOVs counted since the start."""

    live_failed: int = 0
    live_computed: int = 0
    batch_computed: int = 0
    retried: int = 0


class Scheduler:
    """The owner of the engine: only its thread calls the engine.

    Parameters
    ----------
    active : ActiveEnsemble
        The first ensemble; :meth:`swap` changes it.
    bounds : callable
        Returns the intensity range in force for an ensemble.
    deliver : callable
        Called with each computed batch; must not block.
    on_device_error : callable
        Called when the device failed on the same FOVs in two consecutive attempts.
    lost : LostFrames, optional
        Records which live frames get no result.
    deadline_ms : float
        Limits the size of batches of stacks.
    live_depth, batch_depth : int
        Live frames, and FOVs of stacks, that may wait.
    """

    def __init__(
        self,
        active: ActiveEnsemble,
        bounds: Callable[[ActiveEnsemble], IntensityRange],
        deliver: Callable[[Computed], None],
        on_device_error: Callable[[Exception], None],
        *,
        deadline_ms: float,
        live_depth: int,
        batch_depth: int,
        lost: LostFrames | None = None,
    ) -> None:
        self._active = active
        self._bounds = bounds
        self._deliver = deliver
        self._on_device_error = on_device_error
        self._deadline_ms = deadline_ms
        self._sizer = BatchSizer(active.ensemble.compute_ms, deadline_ms)
        self._lost = lost or LostFrames()
        self._live = LiveLane(
            live_depth, lambda fov, reason: self._lost.note(fov.source, "dropped", _DROPPED[reason])
        )
        self._batch = BatchLane(batch_depth)
        self._pending: tuple[ActiveEnsemble, Future[ActiveEnsemble]] | None = None
        self._changed = threading.Condition()
        self._open = True
        self._in_flight: tuple[Sequence[Fov], Stack | None] | None = None
        self._computing = False
        self._last_live_s = float("-inf")
        self._failures = 0
        self._last_failure = ""
        self.counts = LaneCounts()
        self.thread = WatchedThread("scheduler", self._run, restarts=True)

    @property
    def active(self) -> ActiveEnsemble:
        """The ensemble in use; read it once and pass it along, since another may take over at any time."""
        return self._active

    @property
    def live_dropped(self) -> dict[DropReason, int]:
        """Live frames that were not computed, by reason."""
        return dict(self._live.dropped)

    @property
    def problem(self) -> str | None:
        """Why nothing can be computed, or None."""
        if self._failures >= _FAILURES_TOLERATED:
            return f"the engine failed on the last {self._failures} batches: {self._last_failure}"
        return None

    def submit_live(self, fov: Fov) -> bool:
        """Queue a live frame; if the lane is full, its oldest frame is dropped and counted.

        Returns
        -------
        bool
            False if the frame was dropped, and counted, because it was arranged for another ensemble or
            because the service stops.
        """
        with self._changed:
            if not self._open:
                self._live.drop(fov, "stopping")
            elif fov.spec != self._active.spec:
                self._live.drop(fov, "ensemble_changed")
            else:
                self._live.enqueue_frame(fov)
                self._changed.notify_all()
                return True
        return False

    def require_room(self, fovs: int = 1) -> None:
        """Raise Busy or NotReady if a stack of so many FOVs would be refused, at once."""
        with self._changed:
            if not self._open:
                raise NotReady("the service is stopping")
            self._batch.require_room(fovs, self._sizer.seconds_for)

    def submit_stack(self, fovs: Sequence[Fov]) -> Stack:
        """Queue a posted stack.

        Raises
        ------
        Busy
            If the lane has no space for it.
        NotReady
            If the service is stopping, or the FOVs were arranged for an ensemble of another specification.
        """
        stack = Stack(fovs)
        with self._changed:
            self.require_room(len(fovs))
            for fov in fovs:
                self.require_spec(fov.spec)
            self._batch.enqueue_stack(stack)
            self._changed.notify_all()
        return stack

    def require_spec(self, spec: FovSpec) -> None:
        """Raise NotReady if the ensemble in use takes another specification."""
        with self._changed:
            if spec != self._active.spec:
                raise NotReady(_INPUT_CHANGED)

    def require_in_use(self, active: ActiveEnsemble) -> None:
        """Raise NotReady unless an intensity range that was fitted for an ensemble fits the one in use."""
        self.require_spec(active.spec)
        in_use = self.active.ensemble.manifest.normalization.k_iqr
        if in_use != active.ensemble.manifest.normalization.k_iqr:
            raise NotReady("an ensemble of another range took over")

    def depths(self) -> tuple[int, int]:
        """Return the FOVs that wait in the live lane and in the batch lane."""
        with self._changed:
            return len(self._live), len(self._batch)

    def swap(self, active: ActiveEnsemble) -> Future[ActiveEnsemble]:
        """Use another ensemble from the next batch on; the result of the future is the replaced one.

        FOVs that wait for an ensemble of another specification cannot be computed: live frames are dropped
        and counted, stacks fail with NotReady. So does a stack of which some FOVs were computed.
        """
        done: Future[ActiveEnsemble] = Future()
        with self._changed:
            if not self._open or self._pending is not None:
                raise NotReady("the service is stopping, or another ensemble is taking over")
            self._pending = active, done
            self._changed.notify_all()
        return done

    def cancel_swap(self, taking_over: Future[ActiveEnsemble]) -> bool:
        """Withdraw an ensemble that has not taken over, and return whether that was possible."""
        with self._changed:
            if self._pending is None or self._pending[1] is not taking_over:
                return False
            self._pending = None
            return True

    def drain(self, timeout_s: float) -> bool:
        """Accept no more FOVs, and return whether those that wait were computed in time."""
        until_s = time.monotonic() + timeout_s
        with self._changed:
            self._open = False
            while self._computing or len(self._live) or len(self._batch):
                left_s = until_s - time.monotonic()
                if left_s <= 0 or self.thread.problem:
                    return False
                self._changed.wait(min(left_s, _WAKE_INTERVAL_S))
        return True

    def close(self) -> None:
        """Stop after the batch in flight; stacks not finished fail with NotReady."""
        with self._changed:
            self._open = False
            self._live.clear("stopping")
            self._batch.fail_all(NotReady("the service is stopping"))
            if self._pending is not None:
                self._pending[1].set_exception(NotReady("the service is stopping"))
                self._pending = None
            self.thread.request_stop()
            self._changed.notify_all()
        self.thread.stop()

    def _run(self, stop: threading.Event) -> None:
        if self._in_flight is not None:  # this thread failed on it, and was restarted
            fovs, stack = self._in_flight
            if stack is None:
                self.counts.live_failed += len(fovs)
            else:
                stack.fail(RuntimeError("the scheduler failed on this stack; see the service's log"))
            self._in_flight = None
        while not stop.is_set():
            with self._changed:
                self._computing = False
                self._changed.notify_all()
                batch = self._next()
                if batch is None:
                    scanning = time.monotonic() - self._last_live_s < _SCAN_PAUSE_S
                    warming = scanning and self._active.ensemble.cools_down
                    self._changed.wait(_WARM_INTERVAL_S if warming else _WAKE_INTERVAL_S)
                    batch = self._next()
                self._computing = batch is not None
            if batch is not None:
                self._in_flight = batch
                self._compute(*batch)
                batch = self._in_flight = None  # frees the pixels while this thread waits
            elif warming and not stop.is_set():
                self._active.ensemble.keep_warm()

    def _swap_if_pending(self) -> None:
        if self._pending is None:
            return
        new, done = self._pending
        old, self._active, self._pending = self._active, new, None
        self._sizer = BatchSizer(new.ensemble.compute_ms, self._deadline_ms)
        self._failures = 0
        if new.spec != old.spec:
            self._live.clear("ensemble_changed")
            self._batch.fail_all(NotReady(_INPUT_CHANGED))
        else:
            self._batch.fail_begun(NotReady(_ENSEMBLE_CHANGED))  # no answer mixes two ensembles
        done.set_result(old)

    def _next(self) -> tuple[Sequence[Fov], Stack | None] | None:
        """Return what to compute next, after an ensemble that waits has taken over."""
        self._swap_if_pending()
        frame = self._live.take()
        if frame is not None:
            self._last_live_s = time.monotonic()
            return (frame,), None
        return self._batch.take(self._sizer.size)

    def _compute(self, fovs: Sequence[Fov], stack: Stack | None) -> None:
        active = self._active
        bounds = self._bounds(active)
        started_s = time.perf_counter()
        pixels = fovs[0].pixels[None] if len(fovs) == 1 else np.stack([fov.pixels for fov in fovs])
        try:
            predictions = self._predict(active, fovs, pixels, bounds)
        except Exception as error:  # a batch that cannot be computed must not stop the next
            _log.exception("engine failed", fovs=len(fovs), **about(fovs[0]))
            self._failures += 1
            self._last_failure = str(error)
            if stack is None:
                self.counts.live_failed += 1
                self._lost.note(fovs[0].source, "failed", f"the engine failed: {type(error).__name__}")
            else:
                stack.fail(error)
            if active.ensemble.device != "cpu":
                self._on_device_error(error)
            return
        self._failures = 0
        compute_ms = (time.perf_counter() - started_s) * 1e3
        self._sizer.note(len(fovs), compute_ms)
        if stack is None:
            self.counts.live_computed += 1
        else:
            self.counts.batch_computed += len(fovs)
        self._deliver(Computed(fovs, predictions, bounds, stack, active.maker, started_s, compute_ms))

    def _predict(
        self, active: ActiveEnsemble, fovs: Sequence[Fov], pixels: np.ndarray, bounds: IntensityRange
    ) -> list[Prediction]:
        try:
            return active.ensemble.predict(pixels, bounds)
        except ValueError:  # a fault of the pixels, which a second attempt would not change
            raise
        except Exception as error:
            # The memory of a GPU may have been exhausted by another process for a moment.
            self.counts.retried += 1
            _log.warning(
                "engine failed, trying once more", reason=str(error), fovs=len(fovs), **about(fovs[0])
            )
            return active.ensemble.predict(pixels, bounds)

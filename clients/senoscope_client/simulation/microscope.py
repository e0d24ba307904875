"""A simulated microscope: publishes fields of view, synthetic or from files, at a constant rate."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol
from uuid import UUID

import numpy.typing as npt

from senoscope_client.simulation.synthetic import HEIGHT, PIXEL_SIZE_UM, WIDTH, synthesize
from senoscope_client.wire.messages import Index, Mosaic, Position
from senoscope_client.zeromq.frame_publisher import FramePublisher

_SLICE_S: Final = 0.1
_MAY_SEND_INTERVAL_S: Final = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Acquired:
    """A field of view as a microscope acquires it: its pixels, and where they were acquired."""

    pixels: npt.NDArray[Any]
    position_um: Position | None
    index: Index | None
    pixel_size_um: float | None = None


class FrameSource(Protocol):
    """The source of the fields of view that `run` publishes.

    Each iteration starts from the first field of view. `run` iterates in a separate thread, and raises the
    exceptions of the iterator.
    """

    @property
    def planned_frames(self) -> int | None:
        """Number of fields of view; None if it is not known or infinite."""

    @property
    def mosaic(self) -> Mosaic | None:
        """The grid of their positions, if there is one."""

    def __iter__(self) -> Iterator[Acquired]: ...


class MosaicScan:
    """Synthetic fields of view on a grid of stage positions, scanned row by row in a serpentine.

    Frame ``n`` shows ``synthesize(seed, n)``, so that the true classes can be computed from the seed; the
    frames do not contain them. After the last position of the grid the next time point begins, with other
    cells.

    Parameters
    ----------
    seed : int
        Of the fields of view.
    rows, columns : int
        Of the grid.
    frames : int, optional
        Number of frames after which to stop; default: no end.
    overlap : float
        The fraction of its edge by which a field of view overlaps the next, 0 to less than 1.
    height, width : int
        Of a field of view, in pixels of 0.35 um.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    def __init__(
        self,
        seed: int,
        rows: int = 6,
        columns: int = 8,
        frames: int | None = None,
        *,
        overlap: float = 0.1,
        height: int = HEIGHT,
        width: int = WIDTH,
    ) -> None:
        if seed < 0 or (frames is not None and frames < 0):
            raise ValueError(f"seed and frames must not be negative, got {seed} and {frames}")
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap must be at least 0 and less than 1, got {overlap}")
        self.seed = seed
        self.mosaic = Mosaic(rows=rows, columns=columns)
        self.planned_frames = frames
        self._shape = (height, width)
        self._pitch_um = tuple(length * PIXEL_SIZE_UM * (1 - overlap) for length in (height, width))

    def __iter__(self) -> Iterator[Acquired]:
        frame = 0
        while self.planned_frames is None or frame < self.planned_frames:
            yield self.acquire(frame)
            frame += 1

    def acquire(self, frame: int) -> Acquired:
        """Return the field of view of frame ``frame``."""
        height, width = self._shape
        time_point, position = divmod(frame, self.mosaic.rows * self.mosaic.columns)
        row, column = divmod(position, self.mosaic.columns)
        if row % 2:  # the stage moves in the opposite direction
            column = self.mosaic.columns - 1 - column
        position_um = Position(x=column * self._pitch_um[1], y=row * self._pitch_um[0], z=0.0)
        fov = synthesize(self.seed, frame, height=height, width=width)
        return Acquired(fov.pixels, position_um, Index(p=position, t=time_point))


@dataclass(frozen=True, slots=True)
class ScanSummary:
    """Summary of a `run`.

    Attributes
    ----------
    series_uid : UUID
        Of the series.
    sent : int
        Number of frames sent.
    late : int
        Number of frames that were sent late by a period or more, because the source was not ready.
    seconds : float
        From the first frame to the last.
    completed : bool
        Whether all fields of view of the source were sent.
    """

    series_uid: UUID
    sent: int
    late: int
    seconds: float
    completed: bool


def run(
    publisher: FramePublisher,
    source: FrameSource,
    rate_hz: float,
    *,
    series_id: str = "simulated",
    stop: threading.Event | None = None,
    ahead: int = 16,
    on_frame: Callable[[int], None] | None = None,
    may_send: Callable[[], bool] | None = None,
) -> ScanSummary:
    """Send the fields of view of a source as one series, and return when the series is ended.

    The time at which each frame is due is counted from the first frame, so that delays do not add up. After a
    frame that is late by a period or more, all later frames are postponed: like a microscope, the simulation
    does not catch up.

    Parameters
    ----------
    publisher : FramePublisher
        Without an open series.
    source : FrameSource
        Read by a separate thread, up to ``ahead`` fields of view in advance.
    rate_hz : float
        Frames per second.
    series_id : str
        Name of the series.
    stop : Event, optional
        Ends the series early when set.
    ahead : int
        Maximum number of fields of view that are read in advance; half of them before the first is sent.
    on_frame : callable, optional
        Called with the number of each frame after it was sent.
    may_send : callable, optional
        Called before each frame, repeatedly until it returns True; the rate is then a maximum.

    Raises
    ------
    ValueError
        If the rate is not positive.
    RuntimeError
        If the publisher has an open series, or is closed.
    """
    if not rate_hz > 0:
        raise ValueError(f"the rate must be positive, got {rate_hz} Hz")
    stop = stop or threading.Event()
    with _Prefetcher(source, ahead) as prefetcher:
        prefetcher.fill(ahead // 2, stop)
        series_uid = publisher.start_series(series_id, source.planned_frames, source.mosaic)
        reason = "aborted"
        late, sent, period_s = 0, 0, 1 / rate_hz
        first_s = last_s = due_s = time.perf_counter()
        try:
            while (acquired := prefetcher.next_fov(stop)) is not None:
                # In slices, because Windows does not deliver Ctrl-C during a wait.
                while (wait_s := due_s - time.perf_counter()) > 0 and not stop.wait(min(wait_s, _SLICE_S)):
                    pass
                while may_send is not None and not stop.is_set() and not may_send():
                    stop.wait(_MAY_SEND_INTERVAL_S)
                if stop.is_set():
                    break
                frame = publisher.publish(
                    acquired.pixels,
                    acquired.position_um,
                    acquired.index,
                    pixel_size_um=acquired.pixel_size_um,
                )
                sent, last_s = frame + 1, time.perf_counter()
                if frame == 0:
                    first_s = due_s = last_s
                if last_s - due_s >= period_s:
                    late, due_s = late + 1, last_s
                due_s += period_s
                if on_frame is not None:
                    on_frame(frame)
            reason = "stopped" if stop.is_set() else "completed"
        finally:
            publisher.end_series(reason)
    return ScanSummary(series_uid, sent, late, last_s - first_s, reason == "completed")


class _Prefetcher:
    """Reads a source in a separate thread, a limited number of fields of view in advance."""

    def __init__(self, source: FrameSource, ahead: int) -> None:
        self._fovs = iter(source)
        self._executor = ThreadPoolExecutor(1, "frame-source")
        self._reading = deque(self._read_next() for _ in range(max(1, ahead)))

    def __enter__(self) -> _Prefetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def fill(self, wanted: int, stop: threading.Event) -> None:
        """Wait until ``wanted`` fields of view are read, or all of them."""
        for future in islice(self._reading, wanted):
            _wait(future, stop)

    def next_fov(self, stop: threading.Event) -> Acquired | None:
        """Wait for the next field of view; return None at the end of the source, or when stopped."""
        self._reading.append(self._read_next())
        future = self._reading.popleft()
        return future.result() if _wait(future, stop) else None

    def _read_next(self) -> Future[Acquired | None]:
        return self._executor.submit(next, self._fovs, None)


def _wait(future: Future[Acquired | None], stop: threading.Event) -> bool:
    """Wait for a result; return False when stopped."""
    while not stop.is_set():
        # In slices, because Windows does not deliver Ctrl-C during a wait.
        if wait([future], _SLICE_S).done:
            return True
    return False

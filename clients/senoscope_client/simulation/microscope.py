"""A simulated microscope: fields of view, synthetic or from files, sent at a steady rate."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

import numpy.typing as npt

from senoscope_client.simulation.synthetic import HEIGHT, PIXEL_SIZE_UM, WIDTH, synthesize
from senoscope_client.wire.messages import Index, Mosaic, Position
from senoscope_client.zeromq.frame_publisher import FramePublisher

_SLICE_S: Final = 0.1
_ASK_AGAIN_S: Final = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Acquired:
    """A field of view as a microscope hands it over: what it shows, and where it was taken."""

    pixels: npt.NDArray[Any]
    position_um: Position | None
    index: Index | None
    pixel_size_um: float | None = None


class FrameSource(Protocol):
    """Where `run` takes its fields of view from.

    Iterating begins anew each time, in a thread of its own; what it raises, `run` raises.
    """

    @property
    def planned_frames(self) -> int | None:
        """How many there will be; None if there is no end."""

    @property
    def mosaic(self) -> Mosaic | None:
        """The grid that they lie on, if they do."""

    def __iter__(self) -> Iterator[Acquired]: ...


class MosaicScan:
    """Synthetic fields of view on a grid of stage positions, row by row in serpentines.

    Frame ``n`` shows ``synthesize(seed, n)``, so whoever knows the seed knows the truth; the frames
    themselves do not tell it. When the grid is done the next time point begins, with other cells.

    Parameters
    ----------
    seed : int
        Of the fields of view.
    rows, columns : int
        Of the grid.
    frames : int, optional
        When to stop; never, if left out.
    overlap : float
        The part of its edge that a field of view shares with the next, 0 to less than 1.
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
        """What the scan sees in its frame ``frame``."""
        height, width = self._shape
        time_point, place = divmod(frame, self.mosaic.rows * self.mosaic.columns)
        row, column = divmod(place, self.mosaic.columns)
        if row % 2:  # the stage goes back the way it came
            column = self.mosaic.columns - 1 - column
        position = Position(x=column * self._pitch_um[1], y=row * self._pitch_um[0], z=0.0)
        fov = synthesize(self.seed, frame, height=height, width=width)
        return Acquired(fov.pixels, position, Index(p=place, t=time_point))


@dataclass(frozen=True, slots=True)
class ScanSummary:
    """What `run` did.

    Attributes
    ----------
    series_uid : UUID
        Of the series that it was.
    sent : int
        Frames sent.
    late : int
        Frames that the source had not ready by when they were due, by a whole period or more.
    seconds : float
        From the first frame to the last.
    completed : bool
        Whether the source came to its end.
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
    """Send a source's fields of view as one series, and return when it is over.

    Every frame has its own due time, counted from the first frame, so that delays do not add up. A frame
    that is late by a whole period or more moves the later ones along: a microscope does not hurry.

    Parameters
    ----------
    publisher : FramePublisher
        Without an open series.
    source : FrameSource
        Read by a thread of its own, up to ``ahead`` fields of view in advance.
    rate_hz : float
        Frames per second.
    series_id : str
        Name of the series.
    stop : Event, optional
        Ends the series early when set.
    ahead : int
        How many fields of view may wait to be sent; half of them are there before the first one is.
    on_frame : callable, optional
        Called with each frame's number when it is sent.
    may_send : callable, optional
        Called before each frame, again and again until it returns True; the rate is a maximum then.

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
    with _Prefetch(source, ahead) as waiting:
        waiting.fill(ahead // 2, stop)
        series_uid = publisher.start_series(series_id, source.planned_frames, source.mosaic)
        reason = "aborted"
        late, sent, period_s = 0, 0, 1 / rate_hz
        first_s = last_s = due_s = time.perf_counter()
        try:
            while (acquired := waiting.get(stop)) is not None:
                # In slices, because Windows delivers no Ctrl-C during a wait.
                while (wait_s := due_s - time.perf_counter()) > 0 and not stop.wait(min(wait_s, _SLICE_S)):
                    pass
                while may_send is not None and not stop.is_set() and not may_send():
                    stop.wait(_ASK_AGAIN_S)
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


class _Prefetch:
    """Reads a source in a thread of its own, a bounded number of fields of view in advance."""

    def __init__(self, source: FrameSource, ahead: int) -> None:
        self._source = source
        self._queue: queue.Queue[Acquired | BaseException | None] = queue.Queue(max(1, ahead))
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._read, name="frame-source", daemon=True)

    def __enter__(self) -> _Prefetch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._abandoned.set()
        self._thread.join()

    def fill(self, wanted: int, stop: threading.Event) -> None:
        """Wait until so many are there, or all there are."""
        while self._thread.is_alive() and self._queue.qsize() < wanted and not stop.is_set():
            time.sleep(0.005)

    def get(self, stop: threading.Event) -> Acquired | None:
        """The next one; None at the end of the source, or when stopped."""
        while not stop.is_set():
            try:
                item = self._queue.get(timeout=_SLICE_S)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            return item
        return None

    def _read(self) -> None:
        try:
            for acquired in self._source:
                if not self._put(acquired):
                    return
            self._put(None)
        except Exception as error:  # told to whoever waits for the next
            self._put(error)

    def _put(self, item: Acquired | BaseException | None) -> bool:
        while not self._abandoned.is_set():
            try:
                self._queue.put(item, timeout=_SLICE_S)
            except queue.Full:
                continue
            return True
        return False

"""Counts of a stream's series: frames announced, received, missing and repeated."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from uuid import UUID

from senoscope.results.lost_frames import Ranges
from senoscope.runlog.entries import SeriesCounting, SeriesSnapshot
from senoscope_client.models.status import SeriesStatus
from senoscope_client.wire.messages import EndHeader, Header, HeartbeatHeader, ImageHeader, StartHeader

Arrival = Literal["new", "repeated"]

# Limits on memory, whatever a hostile or faulty publisher sends.
_MAX_SERIES = 64
_MAX_GAPS = 1024
# Fields that a snapshot holds under the same names.
_RESTORED: Final = {
    *("state", "planned_frames", "first_frame", "received"),
    *("missing", "repeated", "restarts", "end_reason"),
}


@dataclass
class Series:
    """One series of frames, as far as it was received.

    Frames before the first one received count as missing only if the series is known to have begun while the
    service was connected: a series that is joined late has not lost them.

    The number of gaps and refused frames that are kept is limited; the lowest are dropped first. A frame that
    arrives late or again and may be one of those counts as new: classifying a field of view twice does no
    harm.
    """

    series_uid: UUID
    series_id: str
    instrument: str
    state: Literal["open", "ended", "interrupted"] = "open"
    planned_frames: int | None = None
    first_frame: int | None = None
    next_frame: int | None = None  # the frame expected next; None until a message determines it
    received: int = 0
    missing: int = 0  # frames that were sent, as later numbers show, but not received
    repeated: int = 0  # frames that were received again and not classified again
    restarts: int = 0
    end_reason: str | None = None
    _gaps: list[tuple[int, int]] = field(default_factory=list)
    _refused: Ranges = field(default_factory=Ranges)
    # Gaps and refused frames below this number were dropped, and with the gaps so many missing frames.
    _forgotten_below: int = 0
    _forgotten_missing: int = 0
    _joined_at: int | None = None
    _restarted_ms: int = 0

    def expect(self, frame: int) -> None:
        """Record that every frame below ``frame`` was sent."""
        if self.next_frame is None:
            self.next_frame = self._joined_at = frame
        elif frame > self.next_frame:
            self._add_gap(self.next_frame, frame)
            self.next_frame = frame

    def count_image(self, frame: int) -> Arrival:
        """Count an image, and return whether it is to be classified."""
        if self._refused.discard(frame):  # sent again, perhaps corrected
            return "new"
        if self._joined_at is not None and frame < self._joined_at:
            # Joined late, and frames arrive out of order: those in between are on their way or missing.
            if frame + 1 < self._joined_at:
                self._gaps.insert(0, (frame + 1, self._joined_at))
                self._drop_lowest_gaps()
                self.missing += self._joined_at - frame - 1
            self._joined_at = self.first_frame = frame
            self.received += 1
            return "new"
        if self.next_frame is not None and frame < self.next_frame and not self._fill_gap(frame):
            if frame < self._forgotten_below:  # received before; whether it could be used is no longer known
                return "new"
            self.repeated += 1
            return "repeated"
        self.expect(frame)
        self.next_frame = max(self.next_frame or 0, frame + 1)
        self.first_frame = frame if self.first_frame is None else min(frame, self.first_frame)
        self.received += 1
        return "new"

    def refuse(self, frame: int) -> None:
        """Record that an image could not be used: the frame may be sent again."""
        self._refused.add(frame)
        self._forgotten_below = max(self._forgotten_below, self._refused.forgotten_below)

    def restart(self) -> None:
        """Begin the same series again at frame 0."""
        self.restarts += 1
        self._restarted_ms = time.time_ns() // 1_000_000
        self.next_frame = 0
        self._joined_at = None
        self._gaps.clear()
        self._refused = Ranges()
        self._forgotten_below = self._forgotten_missing = 0

    def _add_gap(self, start: int, stop: int) -> None:
        self.missing += stop - start
        self._gaps.append((start, stop))
        self._drop_lowest_gaps()

    def _fill_gap(self, frame: int) -> bool:
        """Remove a frame from the missing ones, and return whether it was one of them."""
        n = bisect_right(self._gaps, frame, key=lambda gap: gap[0]) - 1
        if n >= 0 and frame < self._gaps[n][1]:
            start, stop = self._gaps[n]
            parts = ((start, frame), (frame + 1, stop))
            self._gaps[n : n + 1] = [gap for gap in parts if gap[0] < gap[1]]
            self._drop_lowest_gaps()
        elif frame < self._forgotten_below and self._forgotten_missing:
            self._forgotten_missing -= 1
        else:
            return False
        self.missing -= 1
        return True

    def _drop_lowest_gaps(self) -> None:
        for start, stop in self._gaps[:-_MAX_GAPS]:
            self._forgotten_below = max(self._forgotten_below, stop)
            self._forgotten_missing += stop - start
        del self._gaps[:-_MAX_GAPS]

    @property
    def last_frame(self) -> int | None:
        """The highest frame received or announced, or None."""
        return None if not self.next_frame else self.next_frame - 1

    def status(self) -> SeriesStatus:
        """Return all counts."""
        return SeriesStatus.model_validate(self, from_attributes=True)

    @property
    def counting(self) -> SeriesCounting:
        """What `from_snapshot` needs to continue, besides the counts."""
        return SeriesCounting.model_construct(
            next_frame=self.next_frame,
            joined_at=self._joined_at,
            holes=tuple(self._gaps),
            refused_ranges=tuple(self._refused),
            forgotten_below=self._forgotten_below,
            forgotten_missing=self._forgotten_missing,
            restarted_ms=self._restarted_ms,
        )

    def snapshot(self) -> SeriesSnapshot:
        """Return all counts, and what `from_snapshot` needs to continue from them."""
        return SeriesSnapshot.model_validate(self, from_attributes=True)

    @classmethod
    def from_snapshot(cls, snapshot: SeriesSnapshot, logged: Iterable[tuple[int, int]]) -> Series:
        """Continue a series after the service was stopped, or killed.

        The snapshot may be older than the last results and, since frames take their time, newer than those
        that were lost with the service. Frames are computed in the order of their arrival: what arrived after
        the last one that was logged has no result, will never have one, and is missing.

        Parameters
        ----------
        snapshot : SeriesSnapshot
            As `snapshot` returned it last; or less, where the service ended before it was taken.
        logged : iterable of (int, int)
            Frame and time of the newest results, in milliseconds since the epoch.
        """
        counting = snapshot.counting
        series = cls(
            snapshot.series_uid,
            snapshot.series_id or "",
            snapshot.instrument or "",
            next_frame=counting.next_frame,
            _gaps=list(counting.holes),
            _refused=Ranges([*counting.refused_ranges, *((frame, frame) for frame in counting.refused)]),
            _forgotten_below=counting.forgotten_below,
            _forgotten_missing=counting.forgotten_missing,
            _joined_at=counting.joined_at,
            _restarted_ms=counting.restarted_ms,
            **snapshot.model_dump(include=_RESTORED, exclude_unset=True),
        )
        after_restart = {frame for frame, made_ms in logged if made_ms >= series._restarted_ms}
        series._reconcile_with_log(sorted(after_restart))
        return series

    def _reconcile_with_log(self, logged: Sequence[int]) -> None:
        first_lost = max(logged[-1] + 1 if logged else 0, self._joined_at or 0)
        if self.next_frame is not None and first_lost < self.next_frame:
            lost = self.next_frame - first_lost
            lost -= sum(max(0, stop - max(start, first_lost)) for start, stop in self._gaps)
            forgotten = min(self._forgotten_missing, max(0, self._forgotten_below - first_lost), lost)
            self._forgotten_missing -= forgotten
            self._forgotten_below = min(self._forgotten_below, first_lost)
            lost -= forgotten
            self.received -= lost
            self.missing += lost
            self._gaps = [
                *((start, min(stop, first_lost)) for start, stop in self._gaps if start < first_lost),
                (first_lost, self.next_frame),
            ]
            self._refused = Ranges(
                (first, min(last, first_lost - 1)) for first, last in self._refused if first < first_lost
            )
        # Frames with results fill gaps that are known, and no others.
        repeated, forgotten_below, self._forgotten_below = self.repeated, self._forgotten_below, 0
        for frame in logged:
            self.count_image(frame)
        self.repeated = repeated
        self._forgotten_below = max(self._forgotten_below, forgotten_below)


class SeriesTracker:
    """The most recent series of all instruments; used from one thread.

    Parameters
    ----------
    earlier : iterable of Series
        Those that an earlier process counted; each continues with its next message.
    """

    def __init__(self, earlier: Iterable[Series] = ()) -> None:
        self._series: OrderedDict[UUID, Series] = OrderedDict()
        self._earlier = {series.series_uid: series for series in earlier}

    def start(self, header: StartHeader) -> bool:
        """Begin a series; one that the same instrument had open becomes interrupted.

        Returns
        -------
        bool
            Whether a known series begins again.
        """
        begins_again = False
        series = self._find(header)
        if series is None:
            series = self._add(header)
            series.next_frame = 0
        elif series.received or series.state != "open":
            series.restart()
            self._reopen(series)
            begins_again = True
        series.planned_frames = header.planned_frames
        return begins_again

    def instrument_of(self, series_uid: UUID) -> str | None:
        """Return the instrument of a series, or None if the series is unknown."""
        series = self._series.get(series_uid) or self._earlier.get(series_uid)
        return None if series is None else series.instrument

    def count_image(self, header: ImageHeader) -> Arrival:
        """Count a frame, and return whether it is to be classified."""
        series = self._open(header)
        ahead = series.next_frame is None or header.frame >= series.next_frame
        arrival = series.count_image(header.frame)
        if arrival == "new":
            self._mark_active(series, ahead)
        return arrival

    def refuse(self, header: ImageHeader) -> None:
        """Record that a frame could not be used."""
        self._open(header).refuse(header.frame)

    def heartbeat(self, header: HeartbeatHeader) -> None:
        """Record that frames up to the publisher's last one were sent."""
        series = self._open(header)
        sent = 0 if header.frame is None else header.frame + 1
        self._mark_active(series, ahead=sent > (series.next_frame or 0))
        series.expect(sent)

    def end(self, header: EndHeader) -> None:
        """End a series; frames that were not received are missing."""
        series = self._open(header)
        series.expect(header.frames_sent)
        series.state = "ended"
        series.end_reason = header.reason

    def statuses(self) -> tuple[SeriesStatus, ...]:
        """Return the counts of all series, newest first."""
        return tuple(series.status() for series in reversed(self._series.values()))

    def snapshots(self) -> list[SeriesSnapshot]:
        """Return snapshots of all series, newest first; see `Series.from_snapshot`."""
        return [series.snapshot() for series in reversed(self._series.values())]

    def _open(self, header: Header) -> Series:
        series = self._find(header)
        if series is None:
            # A microscope has one series at a time: this one began after the last message of the one before.
            connected = any(other.instrument == header.instrument for other in self._series.values())
            series = self._add(header)
            if connected:
                series.next_frame = 0
        return series

    def _find(self, header: Header) -> Series | None:
        series = self._series.get(header.series_uid)
        if series is None and header.series_uid in self._earlier:
            series = self._track(self._earlier.pop(header.series_uid))
        return series

    def _add(self, header: Header) -> Series:
        return self._track(Series(header.series_uid, header.series_id, header.instrument))

    def _track(self, series: Series) -> Series:
        self._series[series.series_uid] = series
        if series.state == "open":
            self._interrupt_others(series)
        if len(self._series) > _MAX_SERIES:
            oldest = min(self._series.values(), key=lambda one: one.state == "open")
            del self._series[oldest.series_uid]
        return series

    def _mark_active(self, series: Series, ahead: bool) -> None:
        """Reopen a series that was interrupted, or that continues beyond the end it announced."""
        if series.state == "interrupted" or (series.state == "ended" and ahead):
            self._reopen(series)

    def _reopen(self, series: Series) -> None:
        series.state, series.end_reason = "open", None
        self._interrupt_others(series)

    def _interrupt_others(self, series: Series) -> None:
        for other in self._series.values():
            if other is not series and other.instrument == series.instrument and other.state == "open":
                other.state = "interrupted"

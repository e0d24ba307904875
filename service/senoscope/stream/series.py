"""Keeping count of a stream's series: what was announced, what came, what is missing."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from senoscope.results.lost_frames import Ranges
from senoscope_client.wire.messages import EndHeader, Header, HeartbeatHeader, ImageHeader, StartHeader

Verdict = Literal["new", "repeated"]

# Bounds on what a hostile or broken publisher can make us remember.
_MAX_SERIES = 64
_MAX_HOLES = 1024
# What a description tells of a series as it is.
_TOLD = [
    "state",
    "planned_frames",
    "first_frame",
    "received",
    "missing",
    "repeated",
    "restarts",
    "end_reason",
]


@dataclass
class Series:
    """One series of frames, as far as it was seen.

    Frames before the first one seen count as missing only if the series is known to have begun while the
    service listened: one that joins late has not lost them.

    What is remembered of missing and refused frames is bounded; the lowest numbers are forgotten first. A
    frame that comes late or again and may be one of those is taken as new: it does no harm to classify a
    field of view twice.

    Attributes
    ----------
    next_frame : int or None
        The frame expected next; None before anything told which.
    missing : int
        Frames that were sent, as later numbers tell, but never came.
    repeated : int
        Frames that came again and were not classified again.
    """

    series_uid: UUID
    series_id: str
    instrument: str
    state: Literal["open", "ended", "interrupted"] = "open"
    planned_frames: int | None = None
    first_frame: int | None = None
    next_frame: int | None = None
    received: int = 0
    missing: int = 0
    repeated: int = 0
    restarts: int = 0
    end_reason: str | None = None
    _holes: list[tuple[int, int]] = field(default_factory=list)
    _refused: Ranges = field(default_factory=Ranges)
    # Below this number, gaps or refused frames were forgotten, and with the gaps so many missing frames.
    _forgotten_below: int = 0
    _forgotten_missing: int = 0
    _joined_at: int | None = None
    _restarted_ms: int = 0

    def expect(self, frame: int) -> None:
        """Note that every frame below ``frame`` was sent."""
        if self.next_frame is None:
            self.next_frame = self._joined_at = frame
        elif frame > self.next_frame:
            self._miss(self.next_frame, frame)
            self.next_frame = frame

    def see(self, frame: int) -> Verdict:
        """Count an image."""
        if self._refused.discard(frame):  # sent again, mended this time perhaps
            return "new"
        if self._joined_at is not None and frame < self._joined_at:
            # Joined late, and frames come out of order: those in between are on their way or missing.
            if frame + 1 < self._joined_at:
                self._holes.insert(0, (frame + 1, self._joined_at))
                self._forget_holes()
                self.missing += self._joined_at - frame - 1
            self._joined_at = self.first_frame = frame
            self.received += 1
            return "new"
        if self.next_frame is not None and frame < self.next_frame and not self._fill(frame):
            if frame < self._forgotten_below:  # it came before; whether it could be used is forgotten
                return "new"
            self.repeated += 1
            return "repeated"
        self.expect(frame)
        self.next_frame = max(self.next_frame or 0, frame + 1)
        self.first_frame = frame if self.first_frame is None else min(frame, self.first_frame)
        self.received += 1
        return "new"

    def refuse(self, frame: int) -> None:
        """Note that an image that came could not be used: its number may come again."""
        self._refused.add(frame)
        self._forgotten_below = max(self._forgotten_below, self._refused.forgotten_below)

    def restart(self) -> None:
        """The same series begins again at frame 0."""
        self.restarts += 1
        self._restarted_ms = time.time_ns() // 1_000_000
        self.next_frame = 0
        self._joined_at = None
        self._holes.clear()
        self._refused = Ranges()
        self._forgotten_below = self._forgotten_missing = 0

    def _miss(self, start: int, stop: int) -> None:
        self.missing += stop - start
        self._holes.append((start, stop))
        self._forget_holes()

    def _fill(self, frame: int) -> bool:
        """Whether the frame is one of the missing ones, which then no longer is."""
        n = bisect_right(self._holes, frame, key=lambda hole: hole[0]) - 1
        if n >= 0 and frame < self._holes[n][1]:
            start, stop = self._holes[n]
            parts = ((start, frame), (frame + 1, stop))
            self._holes[n : n + 1] = [hole for hole in parts if hole[0] < hole[1]]
            self._forget_holes()
        elif frame < self._forgotten_below and self._forgotten_missing:
            self._forgotten_missing -= 1
        else:
            return False
        self.missing -= 1
        return True

    def _forget_holes(self) -> None:
        """Keep the newest."""
        for start, stop in self._holes[:-_MAX_HOLES]:
            self._forgotten_below = max(self._forgotten_below, stop)
            self._forgotten_missing += stop - start
        del self._holes[:-_MAX_HOLES]

    def describe(self) -> dict[str, Any]:
        """All counts, for people and for JSON."""
        return {
            "series_uid": str(self.series_uid),
            "series_id": self.series_id,
            "instrument": self.instrument,
            "last_frame": None if not self.next_frame else self.next_frame - 1,
            **{name: getattr(self, name) for name in _TOLD},
        }

    def snapshot(self) -> dict[str, Any]:
        """The same with all that it takes to go on counting from it, see `recalled`."""
        return {
            **self.describe(),
            "counting": {
                "next_frame": self.next_frame,
                "joined_at": self._joined_at,
                "holes": self._holes.copy(),
                "refused_ranges": list(self._refused),
                "forgotten_below": self._forgotten_below,
                "forgotten_missing": self._forgotten_missing,
                "restarted_ms": self._restarted_ms,
            },
        }

    @classmethod
    def recalled(cls, snapshot: dict[str, Any], logged: Iterable[tuple[int, int]]) -> Series:
        """A series that goes on after the service was stopped, or killed.

        The snapshot may be older than the last results and, since frames take their time, newer than those
        that went down with the service. Frames are computed in the order of their coming: what came after the
        last one that was logged has no result, never will, and is missing.

        Parameters
        ----------
        snapshot : dict
            As `snapshot` last told; or less, if the service did not come to ask.
        logged : iterable of (int, int)
            Frame and time of the newest results, in milliseconds since the epoch.
        """
        counting = snapshot.get("counting", {})
        series = cls(
            UUID(snapshot["series_uid"]),
            snapshot.get("series_id") or "",
            snapshot.get("instrument") or "",
            **{name: snapshot[name] for name in _TOLD if name in snapshot},
        )
        series.next_frame = counting.get("next_frame")
        series._joined_at = counting.get("joined_at")
        series._holes = [(start, stop) for start, stop in counting.get("holes", ())]
        # Earlier versions kept each number by itself.
        single = [(frame, frame) for frame in counting.get("refused", ())]
        series._refused = Ranges(counting.get("refused_ranges", single))
        series._forgotten_below = counting.get("forgotten_below", 0)
        series._forgotten_missing = counting.get("forgotten_missing", 0)
        series._restarted_ms = counting.get("restarted_ms", 0)
        series._settle(sorted({frame for frame, made_ms in logged if made_ms >= series._restarted_ms}))
        return series

    def _settle(self, logged: Sequence[int]) -> None:
        first_lost = max(logged[-1] + 1 if logged else 0, self._joined_at or 0)
        if self.next_frame is not None and first_lost < self.next_frame:
            lost = self.next_frame - first_lost
            lost -= sum(max(0, stop - max(start, first_lost)) for start, stop in self._holes)
            forgotten = min(self._forgotten_missing, max(0, self._forgotten_below - first_lost), lost)
            self._forgotten_missing -= forgotten
            self._forgotten_below = min(self._forgotten_below, first_lost)
            lost -= forgotten
            self.received -= lost
            self.missing += lost
            self._holes = [
                *((start, min(stop, first_lost)) for start, stop in self._holes if start < first_lost),
                (first_lost, self.next_frame),
            ]
            self._refused = Ranges(
                (first, min(last, first_lost - 1)) for first, last in self._refused if first < first_lost
            )
        # Frames with results fill gaps that are remembered, and no others.
        repeated, forgotten_below, self._forgotten_below = self.repeated, self._forgotten_below, 0
        for frame in logged:
            self.see(frame)
        self.repeated = repeated
        self._forgotten_below = max(self._forgotten_below, forgotten_below)


class SeriesBook:
    """The most recent series of all instruments; used from one thread.

    Parameters
    ----------
    earlier : iterable of Series
        Those that an earlier process counted; each goes on where it is heard of again.
    """

    def __init__(self, earlier: Iterable[Series] = ()) -> None:
        self._series: OrderedDict[UUID, Series] = OrderedDict()
        self._earlier = {series.series_uid: series for series in earlier}

    def start(self, header: StartHeader) -> bool:
        """A series was announced; another one that the same instrument had open was interrupted.

        Returns
        -------
        bool
            Whether a series that is known begins again.
        """
        begins_again = False
        series = self._known(header)
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
        """Whose series this is; None if it is not known."""
        series = self._series.get(series_uid) or self._earlier.get(series_uid)
        return None if series is None else series.instrument

    def image(self, header: ImageHeader) -> Verdict:
        """A frame came."""
        series = self._open(header)
        ahead = series.next_frame is None or header.frame >= series.next_frame
        verdict = series.see(header.frame)
        if verdict == "new":
            self._hear(series, ahead)
        return verdict

    def refuse(self, header: ImageHeader) -> None:
        """A frame that came could not be used."""
        self._open(header).refuse(header.frame)

    def heartbeat(self, header: HeartbeatHeader) -> None:
        """The publisher lives; frames up to its last one were sent."""
        series = self._open(header)
        sent = 0 if header.frame is None else header.frame + 1
        self._hear(series, ahead=sent > (series.next_frame or 0))
        series.expect(sent)

    def end(self, header: EndHeader) -> None:
        """A series ended; frames that never came are missing."""
        series = self._open(header)
        series.expect(header.frames_sent)
        series.state = "ended"
        series.end_reason = header.reason

    def describe(self) -> list[dict[str, Any]]:
        """All series, newest first."""
        return [series.describe() for series in reversed(self._series.values())]

    def snapshots(self) -> list[dict[str, Any]]:
        """The same, to be kept; see `Series.recalled`."""
        return [series.snapshot() for series in reversed(self._series.values())]

    def _open(self, header: Header) -> Series:
        series = self._known(header)
        if series is None:
            # A microscope has one series at a time: this one began after what was heard of the one before.
            listened = any(other.instrument == header.instrument for other in self._series.values())
            series = self._add(header)
            if listened:
                series.next_frame = 0
        return series

    def _known(self, header: Header) -> Series | None:
        series = self._series.get(header.series_uid)
        if series is None and header.series_uid in self._earlier:
            series = self._take_in(self._earlier.pop(header.series_uid))
        return series

    def _add(self, header: Header) -> Series:
        return self._take_in(Series(header.series_uid, header.series_id, header.instrument))

    def _take_in(self, series: Series) -> Series:
        self._series[series.series_uid] = series
        if series.state == "open":
            self._interrupt_others(series)
        if len(self._series) > _MAX_SERIES:
            oldest = min(self._series.values(), key=lambda one: one.state == "open")
            del self._series[oldest.series_uid]
        return series

    def _hear(self, series: Series, ahead: bool) -> None:
        """Note that a series is under way, even if it was interrupted, or its end told of fewer frames."""
        if series.state == "interrupted" or (series.state == "ended" and ahead):
            self._reopen(series)

    def _reopen(self, series: Series) -> None:
        series.state, series.end_reason = "open", None
        self._interrupt_others(series)

    def _interrupt_others(self, series: Series) -> None:
        for other in self._series.values():
            if other is not series and other.instrument == series.instrument and other.state == "open":
                other.state = "interrupted"

"""Keeping count of a stream's series: what was announced, what came, what is missing."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from senoscope_client.wire import EndHeader, HeartbeatHeader, ImageHeader, StartHeader

Verdict = Literal["new", "repeated"]

# Bounds on what a hostile or broken publisher can make us remember.
_MAX_SERIES = 64
_MAX_HOLES = 1024


@dataclass
class Series:
    """One series of frames, as far as it was seen.

    Frames before the first one seen count as missing only if the series' start was seen: a service that
    joins late has not lost them.

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
    _refused: set[int] = field(default_factory=set)
    _joined_at: int | None = None

    def expect(self, frame: int) -> None:
        """Note that every frame below ``frame`` was sent."""
        if self.next_frame is None:
            self.next_frame = frame
        elif frame > self.next_frame:
            self.missing += frame - self.next_frame
            self._holes.append((self.next_frame, frame))
            del self._holes[:-_MAX_HOLES]
            self.next_frame = frame

    def see(self, frame: int) -> Verdict:
        """Count an image."""
        if frame in self._refused:  # sent again, mended this time perhaps
            self._refused.discard(frame)
            return "new"
        if self._joined_at is not None and frame < self._joined_at:
            # Joined late, and frames come out of order: those in between are on their way or missing.
            if frame + 1 < self._joined_at:
                self._holes.insert(0, (frame + 1, self._joined_at))
                self.missing += self._joined_at - frame - 1
            self._joined_at = self.first_frame = frame
            self.received += 1
            return "new"
        if self.next_frame is not None and frame < self.next_frame and not self._fill(frame):
            self.repeated += 1
            return "repeated"
        if self.next_frame is None:
            self._joined_at = frame
        self.expect(frame)
        self.next_frame = max(self.next_frame or 0, frame + 1)
        if self.first_frame is None:
            self.first_frame = frame
        self.received += 1
        return "new"

    def refuse(self, frame: int) -> None:
        """Note that an image that came could not be used: its number may come again."""
        if len(self._refused) < _MAX_HOLES:
            self._refused.add(frame)

    def restart(self) -> None:
        """The same series begins again at frame 0."""
        self.restarts += 1
        self.state = "open"
        self.next_frame = 0
        self._joined_at = None
        self._holes.clear()
        self._refused.clear()

    def _fill(self, frame: int) -> bool:
        """Whether the frame is one of the missing ones, which then no longer is."""
        for n, (start, stop) in enumerate(self._holes):
            if start <= frame < stop:
                self._holes[n : n + 1] = [
                    hole for hole in ((start, frame), (frame + 1, stop)) if hole[0] < hole[1]
                ]
                self.missing -= 1
                return True
        return False

    def describe(self) -> dict[str, Any]:
        """All counts, for people and for JSON."""
        return {
            "series_uid": str(self.series_uid),
            "series_id": self.series_id,
            "instrument": self.instrument,
            "state": self.state,
            "planned_frames": self.planned_frames,
            "first_frame": self.first_frame,
            "last_frame": None if not self.next_frame else self.next_frame - 1,
            "received": self.received,
            "missing": self.missing,
            "repeated": self.repeated,
            "restarts": self.restarts,
            "end_reason": self.end_reason,
        }


class SeriesBook:
    """The most recent series of all instruments; used from one thread."""

    def __init__(self) -> None:
        self._series: OrderedDict[UUID, Series] = OrderedDict()

    def start(self, header: StartHeader) -> None:
        """A series was announced; another one that the same instrument had open was interrupted."""
        known = self._series.get(header.series_uid)
        if known is None:
            series = self._open(header)
            series.next_frame = 0
        else:
            series = known
            if series.received or series.state != "open":
                series.restart()
        series.planned_frames = header.planned_frames

    def image(self, header: ImageHeader) -> Verdict:
        """A frame came."""
        return self._open(header).see(header.frame)

    def refuse(self, header: ImageHeader) -> None:
        """A frame that came could not be used."""
        self._open(header).refuse(header.frame)

    def heartbeat(self, header: HeartbeatHeader) -> None:
        """The publisher lives; frames up to its last one were sent."""
        series = self._open(header)
        if header.frame is not None:
            series.expect(header.frame + 1)
        elif series.next_frame is None:
            series.next_frame = 0

    def end(self, header: EndHeader) -> None:
        """A series ended; frames that never came are missing."""
        series = self._open(header)
        series.expect(header.frames_sent)
        series.state = "ended"
        series.end_reason = header.reason

    def describe(self) -> list[dict[str, Any]]:
        """All series, newest first."""
        return [series.describe() for series in reversed(list(self._series.values()))]

    def _open(self, header: StartHeader | ImageHeader | HeartbeatHeader | EndHeader) -> Series:
        series = self._series.get(header.series_uid)
        if series is None:
            for other in self._series.values():
                if other.instrument == header.instrument and other.state == "open":
                    other.state = "interrupted"
            series = Series(header.series_uid, header.series_id, header.instrument)
            self._series[header.series_uid] = series
            while len(self._series) > _MAX_SERIES:
                self._series.popitem(last=False)
        return series

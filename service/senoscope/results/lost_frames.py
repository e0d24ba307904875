"""Frames of the stream that have no result, by reason: ranges of numbers, in bounded memory."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal
from uuid import UUID

import structlog

from senoscope.logs import about_source
from senoscope.runlog.entries import LostCount, SeriesSnapshot
from senoscope_client.models.result import Source
from senoscope_client.rate_limiter import RateLimiter

_log = structlog.get_logger(__name__)
Reason = Literal["dropped", "missing", "refused", "failed"]
# Of frames that were received; missing ones are the gaps that `stream.series` counts.
_MAX_SERIES: Final = 64
_MAX_RANGES: Final = 512  # of each series and reason
_LOG_INTERVAL_S: Final = 1.0
_MAX_LOG_INTERVAL_S: Final = 600.0


class Ranges:
    """A set of frame numbers as ranges, both ends included; if there are too many, the lowest are dropped.

    Its ``count`` includes the frames of dropped ranges.
    """

    def __init__(self, ranges: Iterable[tuple[int, int]] = (), count: int | None = None) -> None:
        self.forgotten_below = 0  # whether a frame below this number was added is no longer known
        self._ranges = sorted((int(first), int(last)) for first, last in ranges)
        held = sum(last - first + 1 for first, last in self._ranges)
        self.count = held if count is None else max(held, count)

    def add(self, frame: int) -> bool:
        """Add a frame, and return whether it is new."""
        after = bisect_left(self._ranges, (frame + 1,))
        first = last = frame
        if after and self._ranges[after - 1][1] >= frame:
            return False
        if after < len(self._ranges) and self._ranges[after][0] == frame + 1:
            last = self._ranges.pop(after)[1]
        if after and self._ranges[after - 1][1] == frame - 1:
            first = self._ranges.pop(after - 1)[0]
        insort(self._ranges, (first, last))
        self._forget()
        self.count += 1
        return True

    def discard(self, frame: int) -> bool:
        """Remove a frame, and return whether it was there."""
        n = bisect_left(self._ranges, (frame + 1,)) - 1
        if n >= 0 and self._ranges[n][0] <= frame <= self._ranges[n][1]:
            first, last = self._ranges[n]
            parts = ((first, frame - 1), (frame + 1, last))
            self._ranges[n : n + 1] = [part for part in parts if part[0] <= part[1]]
            self._forget()
            self.count -= 1
            return True
        return False

    def _forget(self) -> None:
        if len(self._ranges) > _MAX_RANGES:
            self.forgotten_below = max(self.forgotten_below, self._ranges[-_MAX_RANGES - 1][1] + 1)
            del self._ranges[:-_MAX_RANGES]

    def __iter__(self) -> Any:
        """Iterate over the ranges, lowest first."""
        return iter(self._ranges)


class LostFrames:
    """The frames of the most recent series that were received and have no result.

    May be used from any thread, and under any lock: it calls nothing while it holds its own.
    """

    def __init__(self) -> None:
        self._series: OrderedDict[UUID, dict[str, Ranges]] = OrderedDict()
        self._lock = threading.Lock()
        self._log_lines = RateLimiter(_LOG_INTERVAL_S, _MAX_LOG_INTERVAL_S)

    def note(self, source: Source, reason: Reason, detail: str) -> None:
        """Record that a frame has no result, and log it."""
        uid, frame = source.series_uid, source.frame
        if uid is None or frame is None:
            return
        with self._lock:
            ranges = self._of(uid).setdefault(reason, Ranges())
            new, count = ranges.add(frame), ranges.count
        if not new:
            return
        suppressed = self._log_lines.suppressed_since_last(reason)
        if suppressed is not None:
            facts = about_source(source) | ({"suppressed": suppressed} if suppressed else {})
            _log.warning("frame lost", reason=reason, detail=detail, count=count, **facts)

    def arrived(self, uid: UUID, frame: int) -> None:
        """Record that a frame that was refused was sent again and can be used."""
        with self._lock:
            for ranges in self._series.get(uid, {}).values():
                ranges.discard(frame)

    def forget(self, uid: UUID) -> None:
        """Drop the frames of a series, which begins again."""
        with self._lock:
            self._series.pop(uid, None)

    def restore(self, uid: UUID, described: Mapping[str, LostCount]) -> None:
        """Continue from what `describe` returned in an earlier process."""
        with self._lock:
            known = self._of(uid)
            for reason, one in described.items():
                known[reason] = Ranges(one.ranges, one.count)

    def describe(self, uid: UUID) -> dict[str, LostCount]:
        """Return the count of frames, and the ranges that are still known, for each reason."""
        with self._lock:
            return {
                reason: LostCount(ranges.count, list(ranges))
                for reason, ranges in self._series.get(uid, {}).items()
                if ranges.count
            }

    def _of(self, uid: UUID) -> dict[str, Ranges]:
        known = self._series.setdefault(uid, {})
        self._series.move_to_end(uid)
        while len(self._series) > _MAX_SERIES:
            self._series.popitem(last=False)
        return known


def lost_ranges(snapshot: SeriesSnapshot) -> tuple[list[tuple[int, int, str]], dict[str, int]]:
    """Return all frames of a series without a result, from its snapshot.

    Returns
    -------
    list of (first, last, reason)
        In the order of frames; both ends are included.
    dict of str to int
        Frames for each reason, including those whose numbers are no longer known.
    """
    counts = {"missing": snapshot.missing} if snapshot.missing else {}
    found = [(start, stop - 1, "missing") for start, stop in snapshot.counting.holes]
    for reason, one in snapshot.lost.items():
        counts[reason] = one.count
        found += [(first, last, reason) for first, last in one.ranges]
    return sorted(found), counts

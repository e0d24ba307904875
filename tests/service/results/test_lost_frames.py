"""Frames without a result: recorded by reason, as ranges, in limited memory."""

from __future__ import annotations

import random
from itertools import pairwise
from uuid import UUID

from structlog.testing import capture_logs

from senoscope.results import lost_frames
from senoscope.results.lost_frames import LostFrames, Ranges, lost_ranges
from senoscope.runlog.entries import SeriesCounting, SeriesSnapshot
from senoscope.scheduling.lanes import LiveLane
from senoscope_client.models.result import Source
from senoscope_client.rate_limiter import RateLimiter

UID = UUID(int=1)


def frame(number: int, uid: UUID = UID) -> Source:
    return Source(kind="stream", series_uid=uid, series_id="plate", instrument="nlo-1", frame=number)


def test_ranges_hold_the_same_frames_as_a_set() -> None:
    rng = random.Random(1)
    ranges, expected = Ranges(), set()
    for _ in range(2000):
        number = rng.randrange(200)
        if rng.random() < 0.6:
            assert ranges.add(number) == (number not in expected)
            expected.add(number)
        else:
            ranges.discard(number)
            expected.discard(number)
        held = [n for first, last in ranges for n in range(first, last + 1)]
        assert held == sorted(expected)
        assert ranges.count == len(expected)
        pairs = list(ranges)
        assert all(one[1] + 1 < other[0] for one, other in pairwise(pairs))


def test_memory_is_limited_and_counts_are_not() -> None:
    lost = LostFrames()
    for number in range(0, 10_000, 2):
        lost.note(frame(number), "dropped", "")
    for n in range(2, 200):
        lost.note(frame(0, UUID(int=n)), "failed", "")
    assert lost.describe(UID) == {}, "series that are long gone are forgotten"
    for number in range(0, 10_000, 2):
        lost.note(frame(number), "dropped", "")
    described = lost.describe(UID)["dropped"]
    assert described.count == 5000
    assert len(described.ranges) == lost_frames._MAX_RANGES
    assert described.ranges[-1] == (9998, 9998)


def test_one_log_line_reports_many_frames() -> None:
    lost = LostFrames()
    lost._log_lines = RateLimiter(1e9)
    with capture_logs() as lines:
        for number in range(100):
            lost.note(frame(number), "dropped", "the queue was full")
        lost.note(frame(3), "refused", "of another size")
    assert [(line["reason"], line["count"]) for line in lines] == [("dropped", 1), ("refused", 1)]
    assert {line["event"] for line in lines} == {"frame lost"}
    assert lines[0]["detail"] == "the queue was full"
    assert (lines[0]["series_uid"], lines[0]["frame"]) == (str(UID), 0)


def test_many_series_do_not_flood_the_log() -> None:
    lost = LostFrames()
    lost._log_lines = RateLimiter(1e9)
    long = Source(kind="stream", series_uid=UID, series_id="plate" * 200, instrument="nlo-1", frame=0)
    with capture_logs() as lines:
        for n in range(1000):
            lost.note(long.model_copy(update={"series_uid": UUID(int=n)}), "refused", "of another size")
        lost.note(frame(1, UUID(int=2000)), "failed", "")
    assert [line["reason"] for line in lines] == ["refused", "failed"]
    assert len(lines[0]["series"]) == 80


def test_reasons_are_in_the_order_of_frames_and_survive_a_restart() -> None:
    lost = LostFrames()
    for number in (3, 4, 5):
        lost.note(frame(number), "dropped", "")
    lost.note(frame(9), "refused", "")
    lost.note(frame(10), "refused", "")
    lost.arrived(UID, 10)  # sent again, and good this time
    lost.note(frame(1), "failed", "")
    counting = SeriesCounting(holes=((6, 8),))
    snapshot = SeriesSnapshot(
        series_uid=UID, state="open", missing=2, counting=counting, lost=lost.describe(UID)
    )
    again = LostFrames()
    again.restore(UID, SeriesSnapshot.model_validate_json(snapshot.model_dump_json()).lost)
    assert again.describe(UID) == lost.describe(UID)
    ranges, counts = lost_ranges(snapshot)
    assert ranges == [(1, 1, "failed"), (3, 5, "dropped"), (6, 7, "missing"), (9, 9, "refused")]
    assert counts == {"missing": 2, "dropped": 3, "refused": 1, "failed": 1}
    lost.forget(UID)
    assert lost.describe(UID) == {}


def test_the_lane_reports_dropped_frames() -> None:
    dropped: list[object] = []
    lane = LiveLane(2, lambda *lost: dropped.append(lost))
    for one in "abcd":
        lane.enqueue_frame(one)  # type: ignore[arg-type]
    assert dropped == [("a", "lane_full"), ("b", "lane_full")]
    lane.clear("stopping")
    assert dropped[2:] == [("c", "stopping"), ("d", "stopping")]
    assert dict(lane.dropped) == {"lane_full": 2, "ensemble_changed": 0, "stopping": 2}

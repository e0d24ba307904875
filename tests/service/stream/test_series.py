"""Counts of sent, received and missing frames."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from senoscope.runlog.entries import SeriesSnapshot
from senoscope.stream.series import Series, SeriesTracker
from senoscope_client.wire.messages import EndHeader, HeartbeatHeader, ImageHeader, StartHeader, Timestamp

A, B = UUID(int=1), UUID(int=2)


def common(uid: UUID = A) -> dict:
    return {"instrument": "nlo", "series_id": "plate 3", "series_uid": uid}


def start(uid: UUID = A, planned: int | None = None) -> StartHeader:
    return StartHeader(**common(uid), planned_frames=planned)


def image(frame: int, uid: UUID = A) -> ImageHeader:
    return ImageHeader(
        **common(uid),
        frame=frame,
        shape=(1, 2, 2),
        dtype="uint8",
        channels=("SRS",),
        timestamp=Timestamp(seconds=1, nanoseconds=0),
        pixel_size_um=0.35,
    )


def end(frames: int, uid: UUID = A) -> EndHeader:
    return EndHeader(**common(uid), frames_sent=frames, reason="completed")


def beat(frame: int | None, uid: UUID = A) -> HeartbeatHeader:
    return HeartbeatHeader(**common(uid), frame=frame)


def replay(*headers) -> list[dict]:
    tracker = SeriesTracker()
    for header in headers:
        match header:
            case StartHeader():
                tracker.start(header)
            case ImageHeader():
                tracker.count_image(header)
            case HeartbeatHeader():
                tracker.heartbeat(header)
            case EndHeader():
                tracker.end(header)
    return described(tracker)


def described(tracker: SeriesTracker) -> list[dict]:
    return [status.model_dump(mode="json") for status in tracker.statuses()]


def counts(series: dict) -> tuple[int, int, int]:
    return series["received"], series["missing"], series["repeated"]


def test_a_complete_series() -> None:
    (series,) = replay(start(planned=3), image(0), image(1), beat(1), image(2), end(3))
    assert counts(series) == (3, 0, 0)
    assert (series["state"], series["planned_frames"], series["last_frame"]) == ("ended", 3, 2)


def test_frames_missing_at_the_beginning_middle_and_end() -> None:
    (series,) = replay(start(), image(2), image(5), end(8))
    assert counts(series) == (2, 6, 0)


def test_frames_before_a_late_start_are_not_missing() -> None:
    (series,) = replay(image(40), image(41), end(42))
    assert counts(series) == (2, 0, 0)
    assert series["first_frame"] == 40
    (series,) = replay(beat(39), image(40), image(42))
    assert counts(series) == (2, 1, 0)


def test_a_heartbeat_reveals_missing_frames() -> None:
    (series,) = replay(start(), image(0), beat(3))
    assert counts(series) == (1, 3, 0)


def test_a_repeated_frame_is_not_classified_again_and_a_late_one_is_no_longer_missing() -> None:
    tracker = SeriesTracker()
    tracker.start(start())
    assert [tracker.count_image(image(n)) for n in (0, 1, 1, 4, 2, 2, 3)] == [
        *("new", "new", "repeated", "new", "new", "repeated", "new")
    ]
    assert counts(described(tracker)[0]) == (5, 0, 2)


def test_frames_out_of_order_before_the_first_one_seen_are_new_once() -> None:
    tracker = SeriesTracker()
    assert [tracker.count_image(image(n)) for n in (5, 2, 2, 3, 4, 6)] == [
        "new",
        "new",
        "repeated",
        "new",
        "new",
        "new",
    ]
    assert counts(described(tracker)[0]) == (5, 0, 1)


def test_a_refused_frame_may_be_sent_again() -> None:
    tracker = SeriesTracker()
    tracker.start(start())
    assert tracker.count_image(image(0)) == "new"
    tracker.refuse(image(0))
    assert [tracker.count_image(image(0)) for _ in range(2)] == ["new", "repeated"]


@given(st.lists(st.integers(0, 30), max_size=60))
@settings(max_examples=300, deadline=None)
def test_after_a_late_start_no_frame_is_classified_twice(frames: list[int]) -> None:
    tracker = SeriesTracker()
    taken = [n for n in frames if tracker.count_image(image(n)) == "new"]
    assert sorted(taken) == sorted(set(frames))


def test_a_publisher_that_restarts_with_a_new_series() -> None:
    newer, older = replay(start(A), image(0, A), start(B), image(0, B), end(1, B))
    assert older["state"] == "interrupted"
    assert counts(newer) == (1, 0, 0)


def test_a_publisher_that_restarts_the_same_series_from_its_start() -> None:
    (series,) = replay(start(), image(0), image(1), start(), image(0), image(1), end(2))
    assert counts(series) == (4, 0, 0)
    assert series["restarts"] == 1


def test_two_instruments_do_not_interrupt_each_other() -> None:
    tracker = SeriesTracker()
    tracker.start(start(A))
    tracker.start(StartHeader(instrument="other", series_id="x", series_uid=B))
    assert {series["state"] for series in described(tracker)} == {"open"}


def test_memory_is_limited_for_any_messages() -> None:
    tracker = SeriesTracker()
    for n in range(500):
        tracker.start(start(UUID(int=n)))
    assert len(described(tracker)) == 64
    for n in range(0, 10_000, 2):
        tracker.count_image(image(n))
    assert tracker.count_image(image(2**53 - 1)) == "new"


@given(st.lists(st.integers(0, 30), max_size=60))
@settings(max_examples=300, deadline=None)
def test_counts_agree_with_a_set(frames: list[int]) -> None:
    (series,) = replay(start(), *(image(n) for n in frames), end(31))
    seen = set(frames)
    assert counts(series) == (len(seen), 31 - len(seen), len(frames) - len(seen))


def test_a_series_whose_start_message_was_lost_while_connected_begins_at_frame_0() -> None:
    newer, older = replay(start(A), image(0, A), image(3, B), end(5, B))
    assert older["state"] == "interrupted"
    assert counts(newer) == (1, 4, 0)


def test_a_series_that_continues_is_open_again_and_interrupts_the_other() -> None:
    other, first = replay(start(A), image(0, A), start(B), image(0, B), image(1, A))
    assert (first["state"], other["state"]) == ("open", "interrupted")
    (series,) = replay(start(), image(0), end(1), image(1))
    assert (series["state"], series["end_reason"]) == ("open", None)
    (series,) = replay(start(), image(0), image(2), end(3), image(1), image(1))
    assert series["state"] == "ended", "a late frame is no new one"


def stored(snapshot: SeriesSnapshot) -> SeriesSnapshot:
    return SeriesSnapshot.model_validate_json(snapshot.model_dump_json(exclude_unset=True))


def recalled(series: SeriesSnapshot, logged: dict[int, int] | list[int]) -> SeriesTracker:
    """Return a tracker after a restart, from logged frames and their times, or frames only."""
    times = logged if isinstance(logged, dict) else dict.fromkeys(logged, 2**60)
    return SeriesTracker([Series.from_snapshot(stored(series), times.items())])


@given(st.sets(st.integers(0, 40), min_size=1), st.data())
@settings(max_examples=300, deadline=None)
def test_a_series_continues_after_a_kill_with_the_same_counts(sent: set[int], data: st.DataObject) -> None:
    frames = sorted(sent)
    came = data.draw(st.integers(1, len(frames)), "came before the kill")
    saved = data.draw(st.integers(1, came), "of these, before the snapshot")
    computed = data.draw(st.integers(0, came), "and had their results logged")
    tracker = SeriesTracker()
    tracker.start(start(planned=41))
    for frame in frames[:saved]:
        tracker.count_image(image(frame))
    again = recalled(tracker.snapshots()[0], frames[:computed])
    for frame in frames[came:]:
        assert again.count_image(image(frame)) == "new"
    again.end(end(41))
    (series,) = described(again)
    received = computed + len(frames) - came
    assert counts(series) == (received, 41 - received, 0)
    assert (series["state"], series["planned_frames"]) == ("ended", 41)
    # What is sent again fills its gap if its result went down with the service, and is else not taken twice.
    verdicts = {frame: again.count_image(image(frame)) for frame in frames[:came]}
    assert [frame for frame, verdict in verdicts.items() if verdict == "new"] == frames[computed:came]


def test_a_series_of_which_only_results_were_saved() -> None:
    glimpse = SeriesSnapshot(series_uid=A, series_id="plate 3", instrument="nlo", state="open")
    tracker = recalled(glimpse, [0, 1, 3])
    assert described(tracker) == [], "it may never continue"
    assert [tracker.count_image(image(n)) for n in (3, 6)] == ["repeated", "new"]
    assert counts(described(tracker)[0]) == (4, 3, 1)


def test_results_from_before_a_restart_of_the_series_are_ignored() -> None:
    tracker = SeriesTracker()
    for header in (start(), image(0), image(1)):
        tracker.start(header) if isinstance(header, StartHeader) else tracker.count_image(header)
    tracker.start(start())
    tracker.count_image(image(0))
    (snapshot,) = tracker.snapshots()
    again = recalled(snapshot, {0: 2**60, 1: 0})
    assert again.count_image(image(1)) == "new"
    assert counts(described(again)[0]) == (4, 0, 0)
    assert described(again)[0]["restarts"] == 1


def test_the_number_of_gaps_is_limited() -> None:
    """The frame numbers jump ahead, then every second one of the gap is sent."""
    series = Series(A, "plate 3", "nlo")
    assert series.count_image(0) == "new"
    assert series.count_image(10_000_000) == "new"
    for n in range(5000):
        assert series.count_image(1 + 2 * n) == "new"
    assert series.missing == 10_000_000 - 1 - 5000
    assert len(series.snapshot().counting.holes) <= 1024
    assert series.count_image(9_999_999) == "new"


def test_frames_that_arrive_after_their_gap_was_dropped_are_new() -> None:
    series = Series(A, "plate 3", "nlo", next_frame=0)
    for n in range(0, 10_000, 2):
        assert series.count_image(n) == "new"
    for n in range(1, 9_999, 2):
        assert series.count_image(n) == "new"
    assert (series.received, series.missing) == (9_999, 0)
    assert series.count_image(9_998) == "repeated", "of the highest numbers everything is known"
    assert series.count_image(0) == "new", "it may be one whose gap was forgotten"
    assert (series.received, series.missing) == (9_999, 0)


def test_refused_frames_may_be_sent_again_however_many_there_are() -> None:
    series = Series(A, "plate 3", "nlo", next_frame=0)
    for n in range(0, 10_000, 2):
        assert series.count_image(n) == "new"
        series.refuse(n)
    assert [series.count_image(n) for n in range(0, 10_000, 2)] == ["new"] * 5000
    assert series.received + series.missing == series.next_frame
    one_range = Series(A, "plate 3", "nlo", next_frame=0)
    for n in range(10_000):
        one_range.count_image(n)
        one_range.refuse(n)
    assert one_range.snapshot().counting.refused_ranges == ((0, 9_999),)
    for n in range(0, 10_000, 2):
        assert one_range.count_image(n) == "new"
    assert len(one_range.snapshot().counting.refused_ranges) <= 512


def test_dropped_gaps_stay_dropped_after_a_restart_of_the_service() -> None:
    series = Series(A, "plate 3", "nlo", next_frame=0)
    for n in range(0, 10_000, 2):
        series.count_image(n)
        series.refuse(n)
    again = Series.from_snapshot(stored(series.snapshot()), ((n, 2**60) for n in range(0, 10_000, 2)))
    assert (again.received, again.missing) == (5000, 4999)
    assert again.count_image(1) == "new"
    assert (again.received, again.missing) == (5001, 4998)


def test_refused_frames_of_a_snapshot_of_an_earlier_version_are_restored() -> None:
    series = Series(A, "plate 3", "nlo", next_frame=3, received=3)
    document = series.snapshot().model_dump(mode="json", exclude_unset=True)
    del document["counting"]["refused_ranges"]
    document["counting"]["refused"] = [1]
    again = Series.from_snapshot(SeriesSnapshot.model_validate(document), [(2, 2**60)])
    assert [again.count_image(n) for n in (1, 0)] == ["new", "repeated"]


def test_the_stored_form_of_a_series_is_the_one_of_earlier_releases() -> None:
    document = {
        "series_uid": str(A),
        "series_id": "plate 3",
        "instrument": "nlo",
        "last_frame": 9,
        "state": "open",
        "planned_frames": 30,
        "first_frame": 0,
        "received": 6,
        "missing": 4,
        "repeated": 0,
        "restarts": 0,
        "end_reason": None,
        "counting": {
            "next_frame": 10,
            "joined_at": None,
            "holes": [[1, 5]],
            "refused_ranges": [[7, 8]],
            "forgotten_below": 0,
            "forgotten_missing": 0,
            "restarted_ms": 5,
        },
    }
    snapshot = SeriesSnapshot.model_validate(document)
    again = Series.from_snapshot(snapshot, [(9, 2**60)])
    assert again.snapshot() == snapshot
    assert stored(again.snapshot()).model_dump(mode="json", exclude_unset=True) == document


def test_the_number_of_gaps_of_a_series_that_was_joined_late_is_limited_too() -> None:
    series = Series(A, "plate 3", "nlo")
    for n in range(10_000, 0, -2):
        assert series.count_image(n) == "new"
    assert len(series.snapshot().counting.holes) <= 1024
    assert series.missing == 4999

"""The size of batches, with a stream open and without."""

from __future__ import annotations

import pytest

from senoscope.scheduling.batch_sizer import BatchSizer

GPU = {1: 3.5, 2: 5.0, 4: 8.0, 8: 14.0, 16: 26.0}


def sizer(compute_ms: dict[int, float], deadline_ms: float | None, **options) -> BatchSizer:
    return BatchSizer(compute_ms, deadline_ms, **({"largest": 16, "grows": False} | options))


@pytest.mark.parametrize(
    ("deadline_ms", "waiting", "taken"),
    [(24, 100, 8), (12, 100, 4), (24, 3, 2), (24, 1, 1), (5, 100, 1), (1000, 100, 16), (None, 100, 1)],
)
def test_while_a_stream_is_open_a_batch_and_the_live_frame_behind_it_keep_the_deadline(
    deadline_ms: float | None, waiting: int, taken: int
) -> None:
    assert sizer(GPU, deadline_ms).size(waiting, streaming=True) == taken


@pytest.mark.parametrize("deadline_ms", [5, 24, None])
def test_without_a_stream_batches_take_the_least_time_per_fov(deadline_ms: float | None) -> None:
    batches = sizer(GPU, deadline_ms)
    assert [batches.size(waiting, streaming=False) for waiting in (1, 3, 100)] == [1, 2, 16]


def test_a_larger_batch_that_hardly_saves_time_is_not_used() -> None:
    assert sizer({1: 10.0, 2: 16.0, 4: 31.0, 8: 62.0}, None).size(100, streaming=False) == 2
    assert sizer({1: 10.0, 2: 24.0}, 1000).size(100, streaming=True) == 1


def test_batches_shrink_when_the_machine_becomes_slower_and_grow_again() -> None:
    batches = sizer(GPU, 24)
    for _ in range(30):
        batches.note(8, 14.0 * 2)
    assert batches.size(100, streaming=True) == 4
    assert batches.size(100, streaming=False) == 16, "all sizes are slower alike"
    for _ in range(30):
        batches.note(4, 8.0)
    batches.note(3, 1000.0)  # a size that was not measured at load
    assert batches.size(100, streaming=True) == 8


def test_time_for_waiting_fovs() -> None:
    assert sizer(GPU, 24).seconds_for(80, streaming=True) == pytest.approx(0.14)
    assert sizer(GPU, 24).seconds_for(80, streaming=False) == pytest.approx(0.13)
    assert sizer({1: 400.0}, None).seconds_for(80, streaming=True) == pytest.approx(32)


def compute(batches: BatchSizer, took_ms: dict[int, float], fovs: int, streaming: bool = False) -> list[int]:
    """Compute a stack on a machine that takes so long for batches, and return their sizes."""
    sizes = []
    while fovs:
        size = batches.size(fovs, streaming=streaming)
        batches.note(size, took_ms[size])
        fovs -= size
        sizes.append(size)
    return sizes


def test_a_cpu_tries_larger_batches_as_long_as_they_save_time() -> None:
    batches = sizer({1: 10.0}, None, largest=8, grows=True)
    took_ms = {1: 12.0, 2: 18.0, 4: 35.0, 8: 60.0}
    assert compute(batches, took_ms, 40) == [1, 1, 1, 2, 2, 4, 4, *[2] * 12, 1]
    assert compute(batches, took_ms, 5, streaming=True) == [1] * 5
    assert compute(batches, took_ms, 5) == [2, 2, 1]


def test_a_cpu_on_which_pairs_save_nothing_stays_with_single_fovs() -> None:
    batches = sizer({1: 350.0}, None, grows=True)
    assert compute(batches, {1: 350.0, 2: 700.0}, 20) == [1, 1, 1, 2, 2, *[1] * 13]


def test_no_size_is_tried_while_a_stream_is_open_or_beyond_the_largest() -> None:
    took_ms = dict.fromkeys((1, 2, 4, 8), 10.0)
    assert compute(sizer({1: 10.0}, None, grows=True), took_ms, 8, streaming=True) == [1] * 8
    assert compute(sizer({1: 10.0}, None, largest=1, grows=True), took_ms, 8) == [1] * 8
    assert compute(sizer({1: 10.0}, None, largest=3, grows=True), took_ms, 9) == [1, 1, 1, 2, 2, 2]

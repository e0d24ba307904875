"""The size of batches."""

from __future__ import annotations

import pytest

from senoscope.scheduling.batch_sizer import BatchSizer

GPU = {1: 3.5, 2: 5.0, 4: 8.0, 8: 14.0, 16: 26.0}


@pytest.mark.parametrize(
    ("deadline_ms", "waiting", "taken"),
    [(24, 100, 8), (12, 100, 4), (24, 3, 2), (24, 1, 1), (5, 100, 1), (1000, 100, 16)],
)
def test_a_batch_and_the_live_frame_behind_it_keep_the_deadline(deadline_ms, waiting, taken) -> None:
    assert BatchSizer(GPU, deadline_ms).size(waiting) == taken


def test_a_cpu_computes_single_fovs() -> None:
    assert BatchSizer({1: 400.0}, 24).size(100) == 1


def test_batches_shrink_when_they_become_slower() -> None:
    sizer = BatchSizer(GPU, 24)
    for _ in range(30):
        sizer.note(8, 40.0)
    assert sizer.size(100) == 4
    sizer.note(3, 1.0)  # a size that was not warmed up is never chosen
    assert sizer.size(100) == 4


def test_time_for_waiting_fovs() -> None:
    assert BatchSizer(GPU, 24).seconds_for(80) == pytest.approx(0.14)

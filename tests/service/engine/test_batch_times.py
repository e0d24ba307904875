"""Measuring batches of each size, with engines that take a known time."""

from __future__ import annotations

import time

import numpy as np
import pytest

from senoscope.engine import batch_times
from senoscope.engine.batch_times import measure_batches

IMAGE = np.zeros((1, 1, 1, 1), np.float32)


def pause(batch: np.ndarray) -> None:
    """Take as long for a batch as for a single FOV."""
    time.sleep(0.003)


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, {1}), (3, {1, 2}), (8, {1, 2, 4, 8}), (20, {1, 2, 4, 8, 16})]
)
def test_powers_of_two_are_measured(largest: int, sizes: set[int]) -> None:
    compute_ms, problem = measure_batches(pause, IMAGE, largest)
    assert compute_ms.keys() == sizes
    assert min(compute_ms.values()) >= 3
    assert problem is None


def test_larger_batches_are_not_measured_where_pairs_save_nothing() -> None:
    compute_ms, problem = measure_batches(lambda batch: time.sleep(0.005 * len(batch)), IMAGE, 16)
    assert (compute_ms.keys(), problem) == ({1, 2}, None)


def test_only_the_largest_is_measured_besides_pairs_where_first_batches_are_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_times, "_MEASURING_S", 0.3)
    seen: set[int] = set()

    def run(batch: np.ndarray) -> None:
        time.sleep(0.003 if len(batch) == 1 or len(batch) in seen else 0.2)
        seen.add(len(batch))

    assert measure_batches(run, IMAGE, 16)[0].keys() == {1, 2, 16}


def test_a_size_that_fails_is_not_used() -> None:
    def run(batch: np.ndarray) -> None:
        if len(batch) > 4:
            raise RuntimeError("out of memory")
        time.sleep(0.003)

    compute_ms, problem = measure_batches(run, IMAGE, 8)
    assert compute_ms.keys() == {1, 2}
    assert problem == "a batch of 8 fields of view failed, so none is computed: out of memory"

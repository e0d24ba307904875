"""The time of batches of each size: measured after warm-up, and which sizes save time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

import numpy as np

from senoscope.engine.executor import Float32

# A larger batch delays a live frame for longer, and holds more memory: it has to save more than measurements
# vary.
_WORTHWHILE: Final = 0.95
# The first batch of a size takes ten seconds on some GPUs: after so long, no further size is measured.
_MEASURING_S: Final = 15.0
# Runs of a size that are timed, and the time after which no further one begins.
_TIMED_RUNS: Final = 5
_TIMING_MS: Final = 100.0


def measure_batches(
    run: Callable[[Float32], object], image: Float32, largest: int
) -> tuple[dict[int, float], str | None]:
    """Measure single FOVs, then batches, as far as that takes little time and batches of two save time.

    Parameters
    ----------
    run : callable
        Computes a batch; warmed up for a single FOV.
    image : float32 array [1, C, H, W]
    largest : int
        FOVs of a batch at most.

    Returns
    -------
    compute_ms : dict of int to float
        Milliseconds per batch, by size.
    problem : str or None
        Why a batch failed, for which the device may have too little memory; it is not among the sizes.
    """
    began_s = time.perf_counter()
    compute_ms = {1: _timed(run, image)}
    for size in _sizes_to_measure(largest):
        if time.perf_counter() - began_s > _MEASURING_S:
            break
        batch = np.repeat(image, size, axis=0)
        try:
            run(batch)  # selects its algorithms
            compute_ms[size] = _timed(run, batch)
        except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
            return compute_ms, f"a batch of {size} fields of view failed, so none is computed: {error}"
        if not saves_time(compute_ms, 2):
            break
    return compute_ms, None


def _sizes_to_measure(largest: int) -> Iterator[int]:
    """Yield powers of two: first 2, which shows whether batches save time, then the largest, then others."""
    sizes = [1 << n for n in range(1, largest.bit_length())]
    yield from sizes[:1]
    yield from sizes[:0:-1][:1]
    yield from sizes[1:-1]


def _timed(run: Callable[[Float32], object], image: Float32) -> float:
    """Return the median time of some runs, in milliseconds; of a single run where that takes long."""
    took_ms: list[float] = []
    while not took_ms or (len(took_ms) < _TIMED_RUNS and sum(took_ms) < _TIMING_MS):
        start_s = time.perf_counter()
        run(image)
        took_ms.append((time.perf_counter() - start_s) * 1e3)
    return float(np.median(took_ms))


def saves_time(compute_ms: Mapping[int, float], size: int) -> bool:
    """Return whether batches of a size take less time per FOV than those of half the size.

    True for single FOVs. Only where that holds can larger batches be expected to save more.

    Parameters
    ----------
    compute_ms : mapping of int to float
        Milliseconds per batch, by size; includes ``size`` and half of it.
    """
    return size == 1 or compute_ms[size] / size <= _WORTHWHILE * compute_ms[size // 2] / (size // 2)


def fastest_size(compute_ms: Mapping[int, float], sizes: Collection[int]) -> int:
    """Return the size with the least time per FOV; a smaller one if that takes hardly longer."""
    per_fov_ms = {size: compute_ms[size] / size for size in sizes}
    best_ms = min(per_fov_ms.values())
    return min(size for size, took_ms in per_fov_ms.items() if _WORTHWHILE * took_ms <= best_ms)

"""Which sizes of batches save time, from the time that a batch of each size takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

# A larger batch delays a live frame for longer, and holds more memory: it has to save more than measurements
# vary.
_WORTHWHILE = 0.95


def saves_time(compute_ms: Mapping[int, float], size: int) -> bool:
    """Return whether batches of a size take less time per FOV than those of half the size.

    True for single FOVs. Only where that holds can batches of twice the size be expected to save more.

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

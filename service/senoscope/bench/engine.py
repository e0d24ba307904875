"""Times of the engine alone, without a service."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from senoscope.bench.passport import EngineTimes, Spread
from senoscope.engine import Ensemble
from senoscope_client.simulation.any_ensemble import fovs_for

_MIN_BATCHES = 2


def measure_engine(
    ensemble: Ensemble, sizes: Iterable[int], seconds: float, on_batch: Callable[[int], None]
) -> tuple[EngineTimes, ...]:
    """Measure batches of some sizes, each for some seconds and at least twice.

    Parameters
    ----------
    on_batch : callable
        Called with the number of batches of a size so far.
    """
    return tuple(_measure(ensemble, size, seconds, on_batch) for size in sizes)


def _measure(ensemble: Ensemble, size: int, seconds: float, on_batch: Callable[[int], None]) -> EngineTimes:
    fovs = fovs_for(ensemble.manifest.input.shape, size)
    ensemble.predict(fovs)  # a GPU selects its algorithms for each size
    took_ms: list[float] = []
    while len(took_ms) < _MIN_BATCHES or sum(took_ms) < seconds * 1e3:
        began_s = time.perf_counter()
        ensemble.predict(fovs)
        took_ms.append((time.perf_counter() - began_s) * 1e3)
        on_batch(len(took_ms))
    latency = Spread.of(took_ms)
    assert latency is not None
    throughput = size * len(took_ms) / sum(took_ms) * 1e3
    return EngineTimes(batch_size=size, latency_ms=latency, fovs_per_second=round(throughput, 3))

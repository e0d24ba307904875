"""Latency, uncertainty and saturation of results, as histograms."""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from senoscope.metrics import catalogue
from senoscope.results.deadline import DEFAULT_DEADLINE_MS
from senoscope.results.delivery import DeliveryTimes, ResultSink, SinkStage
from senoscope.results.record import Record

_COARSE_S: Final = (0.001, 0.002, 0.004, 0.008, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_OF_DEADLINE: Final = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 2.0)
_TRANSPORT_S: Final = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032),
    *(0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 60.0),
)
_AFTER_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_BITS: Final = tuple(n / 10 for n in range(1, 11))
_RATIOS: Final = (0.0, 0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0)


def latency_buckets(deadline_s: float) -> tuple[float, ...]:
    """Return upper bounds in seconds, narrow around the deadline, which is one of them."""
    near = {float(f"{share * deadline_s:.4g}") for share in _OF_DEADLINE} | {deadline_s}
    low, high = min(near), max(near)
    return tuple(sorted(near | {bound for bound in _COARSE_S if not low <= bound <= high}))


class ResultMetrics(ResultSink):
    """The sink that observes each result, in about 10 microseconds (``benchmarks/metrics_cost.py``).

    Parameters
    ----------
    deadline_ms : float, optional
        Buckets are narrow around it; default: around that of a device that can keep it.
    """

    stage = SinkStage.OBSERVE

    def __init__(self, registry: CollectorRegistry, deadline_ms: float | None = None) -> None:
        buckets = latency_buckets((deadline_ms or DEFAULT_DEADLINE_MS) / 1e3)
        times = (catalogue.QUEUE, catalogue.COMPUTE, catalogue.LATENCY)
        histograms = [one.histogram(registry, buckets) for one in times]
        histograms.append(catalogue.ENTROPY.histogram(registry, _BITS))
        # Looking up a labelled child takes longer than observing.
        self._of_source = {source: [one.labels(source) for one in histograms] for source in ("live", "batch")}
        self._results = catalogue.RESULTS.counter(registry)
        self._result: dict[tuple[str, str], Counter] = {}
        self._transport = catalogue.TRANSPORT.histogram(registry, _TRANSPORT_S)
        self._implausible = catalogue.IMPLAUSIBLE.counter(registry)
        self._saturated = catalogue.SATURATED.histogram(registry, _RATIOS)
        self._channels: dict[str, Histogram] = {}
        self._commit = catalogue.COMMIT.histogram(registry, _AFTER_S)
        self._notify = catalogue.NOTIFY.histogram(registry, _AFTER_S)

    def on_result(self, record: Record, delivered: DeliveryTimes) -> None:
        """Observe a result and its delivery."""
        result = record.result
        source = "live" if result.source.kind == "stream" else "batch"
        timing = result.timing_ms
        queue, compute, latency, entropy = self._of_source[source]
        queue.observe(timing.queue / 1e3)
        compute.observe(timing.compute / 1e3)
        latency.observe(timing.total / 1e3)
        entropy.observe(result.uncertainty.entropy)
        key = source, result.label
        if key not in self._result:
            self._result[key] = self._results.labels(*key)
        self._result[key].inc()
        for channel, fraction in zip(record.channels, record.saturated, strict=True):
            if channel not in self._channels:
                self._channels[channel] = self._saturated.labels(channel)
            self._channels[channel].observe(fraction)
        if result.source.acquired_at is not None:
            self._observe_transport(result.source.acquired_at.timestamp(), record.fov.arrived_s)

        made_s = record.fov.arrived_s + timing.total / 1e3
        self._commit.observe(delivered.logged_s - made_s)
        self._notify.observe(delivered.notified_s - delivered.logged_s)

    def _observe_transport(self, acquired_s: float, arrived_s: float) -> None:
        took_s = time.time() - (time.perf_counter() - arrived_s) - acquired_s
        if 0.0 <= took_s <= _TRANSPORT_S[-1]:
            self._transport.observe(took_s)
        else:
            self._implausible.inc()
